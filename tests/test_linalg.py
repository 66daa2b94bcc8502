"""Linear algebra equals PyTorch's: values, gradients to second order, compiled, batches, errors."""

import numpy as np
import pytest

import tracecc as tc

RNG = np.random.default_rng(7)


def draw(*shape):
    return RNG.standard_normal(shape)


def positive(*shape):
    a = draw(*shape)
    return a @ a.swapaxes(-1, -2) + np.eye(shape[-1])


A, A3, B = draw(4, 4), draw(2, 3, 3), draw(4, 2)
TALL, WIDE, P = draw(5, 3), draw(2, 3, 5), positive(2, 3, 3)
SINGULAR = np.array([[1.0, 2, 3], [4, 5, 6], [5, 7, 9]])
V = draw(4)


def lower(t, x):
    return t.tril(x) + 3 * t.eye(x.shape[-1], dtype=t.float64)


def symmetric(x):
    return x + x.mT


# Programs of either library; every array is differentiated. Vectors that are defined up to their
# sign enter squared.
CASES = {
    "inv": (lambda t, a: t.linalg.inv(a), A),
    "inverse": (lambda t, a: t.inverse(a) + a.inverse(), A3),
    "inv_ex": (lambda t, a: t.linalg.inv_ex(a)[0], A3),
    "solve": (lambda t, a, b: t.linalg.solve(a, b), A, B),
    "solve vector": (lambda t, a, v: t.linalg.solve(a, v), A, V),
    "solve right": (lambda t, a, b: t.linalg.solve(a, b.mT, left=False), A, B),
    "solve broadcast": (lambda t, a, b: t.linalg.solve(a, b[:3]), A3, B),
    "solve_ex": (lambda t, a, b: t.linalg.solve_ex(a, b)[0], A, B),
    "det": (lambda t, a: t.linalg.det(a) + a.det(), A3),
    "det singular": (lambda t, a: t.det(a), SINGULAR),
    "slogdet": (lambda t, a: t.linalg.slogdet(a)[1], A3),
    "logdet": (lambda t, p: t.logdet(p), P),
    "cholesky": (lambda t, p: t.linalg.cholesky(symmetric(p)), P),
    "cholesky upper": (lambda t, p: t.cholesky(symmetric(p), upper=True), P),
    "cholesky_ex": (lambda t, p: t.linalg.cholesky_ex(symmetric(p))[0], P),
    "cholesky_solve": (
        lambda t, p, b: t.cholesky_solve(b[:3], t.linalg.cholesky(symmetric(p))),
        P,
        B,
    ),
    "cholesky_inverse": (lambda t, p: t.cholesky_inverse(t.linalg.cholesky(symmetric(p[0]))), P),
    "solve_triangular": (
        lambda t, a, b: t.linalg.solve_triangular(lower(t, a), b, upper=False),
        A,
        B,
    ),
    "solve_triangular right": (
        lambda t, a, b: t.linalg.solve_triangular(lower(t, a).mT, b.mT, upper=True, left=False),
        A,
        B,
    ),
    "triangular_solve": (
        lambda t, a, b: t.triangular_solve(b, lower(t, a), upper=False, transpose=True)[0],
        A,
        B,
    ),
    "lu": (lambda t, a: t.linalg.lu(a), A3),
    "lu tall": (lambda t, a: t.linalg.lu(a)[1:], TALL),
    "lu wide": (lambda t, a: t.linalg.lu(a)[1:], WIDE),
    "lu_factor": (lambda t, a: t.linalg.lu_factor(a), A3),
    "lu_unpack": (lambda t, a: t.lu_unpack(*t.lu(a)), A3),
    "lu_solve": (
        lambda t, a, b: t.linalg.lu_solve(*t.linalg.lu_factor(a), b, adjoint=True),
        A,
        B,
    ),
    "lu_solve right": (
        lambda t, a, b: t.linalg.lu_solve(*t.linalg.lu_factor(a), b.mT, left=False),
        A,
        B,
    ),
    "qr": (lambda t, a: t.linalg.qr(a), A3),
    "qr tall": (lambda t, a: t.linalg.qr(a), TALL),
    "qr wide": (lambda t, a: t.linalg.qr(a), WIDE),
    "qr complete": (lambda t, a: t.linalg.qr(a, mode="complete"), WIDE),
    "torch.qr": (lambda t, a: t.qr(a), TALL),
    "eigh": (
        lambda t, a: (t.linalg.eigh(symmetric(a))[0], t.linalg.eigh(symmetric(a))[1] ** 2),
        A3,
    ),
    "eigvalsh": (lambda t, a: t.linalg.eigvalsh(symmetric(a), UPLO="U"), A3),
    "svd": (
        lambda t, a: (t.linalg.svd(a, full_matrices=False)[0] ** 2, t.linalg.svdvals(a)),
        TALL,
    ),
    "svd wide": (lambda t, a: t.linalg.svd(a, full_matrices=False)[2] ** 2, WIDE),
    "torch.svd": (lambda t, a: (t.svd(a)[1], t.svd(a)[2] ** 2), A3),
    "svdvals": (lambda t, a: t.linalg.svdvals(a), WIDE),
    "pinv": (lambda t, a: t.linalg.pinv(a), TALL),
    "pinv wide": (lambda t, a: t.linalg.pinv(a), WIDE),
    "pinv of low rank": (lambda t, a: t.linalg.pinv(a @ a.mT, rtol=1e-9), TALL),
    "pinv hermitian": (lambda t, p: t.linalg.pinv(symmetric(p), hermitian=True), P),
    "pinverse": (lambda t, a: t.pinverse(a), TALL),
    "lstsq": (lambda t, a, b: t.linalg.lstsq(a[:, :3], b)[0], A, B),
    "lstsq residuals": (
        lambda t, a, b: t.linalg.lstsq(a[:, :3], b, driver="gelsd")[:2],
        A,
        B,
    ),
    "matrix_exp": (lambda t, a: t.linalg.matrix_exp(a) + t.matrix_exp(3 * a), A3),
    "matrix_power": (lambda t, a: t.linalg.matrix_power(a, 5) + t.matrix_power(a, -2), A3),
    "multi_dot": (lambda t, a, b, v: t.linalg.multi_dot([v, a, b]), A, B, V),
    "norms": (
        lambda t, a: tuple(
            t.linalg.matrix_norm(a, p) for p in ("fro", "nuc", 1, -1, 2, -2, float("inf"))
        ),
        WIDE,
    ),
    "norm": (lambda t, a: t.linalg.norm(a) + t.linalg.norm(a, "nuc") + a.norm("nuc"), A),
    "nuclear dims": (lambda t, a: t.linalg.matrix_norm(a, "nuc", (0, 2), keepdim=True), WIDE),
    "vector_norm": (lambda t, a: t.linalg.vector_norm(a, 3, dim=(0, 2)), WIDE),
    "cond": (lambda t, a: (t.linalg.cond(a), t.linalg.cond(a, -2)), A3),
    "cross": (lambda t, a: t.linalg.cross(a, a.mT), A3),
    "tensorinv": (lambda t, a: t.linalg.tensorinv(a.reshape(2, 2, 4), ind=2), A),
    "tensorsolve": (
        lambda t, a, v: t.linalg.tensorsolve(a.reshape(2, 2, 4), v.reshape(2, 2)),
        A,
        V,
    ),
    "vander": (lambda t, v: t.linalg.vander(v, N=3), V),
    "householder_product": (
        lambda t, a: t.linalg.householder_product(a[:, :3], a.sum(0)[:3]),
        A,
    ),
    "ormqr": (lambda t, a, b: t.ormqr(a[:, :3], a.sum(0)[:3], b, True, True), A, B),
    "vecdot": (lambda t, a: t.linalg.vecdot(a, 2 * a, dim=0), A3),
    "diagonal": (lambda t, a: t.linalg.diagonal(a, offset=1), A3),
    "trace": (lambda t, a: t.trace(a) + a.trace(), A),
}
# Linear in every direction that is left: the second derivative is zero or undefined.
FIRST_ORDER = ("norms", "nuclear dims")


def tensors(arrays):
    return [tc.from_numpy(a.copy()).requires_grad_(True) for a in arrays]


def parts(program, library, xs):
    found = program(library, *xs)
    found = found if isinstance(found, tuple) else (found,)
    return [o for o in found if o.requires_grad or not o.dtype.is_floating_point]


def weights(outs):
    rng = np.random.default_rng(1)
    return [rng.standard_normal(tuple(o.shape)) for o in outs]


def ours(program, arrays, compiled=False):
    """Values and gradients of a weighted sum."""

    def step(*xs):
        outs = [o for o in parts(program, tc, xs) if o.requires_grad]
        total = sum((o * tc.from_numpy(w)).sum() for o, w in zip(outs, weights(outs), strict=True))
        return outs, tc.autograd.grad(total, xs, allow_unused=True)

    outs, grads = (tc.compile(step) if compiled else step)(*tensors(arrays))
    return [o.detach().numpy() for o in outs], [g.numpy() for g in grads]


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:torch.*deprecated:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_pytorchs(name):
    torch = pytest.importorskip("torch")
    if name == "det singular":
        pytest.skip("PyTorch's gradient is zero where elimination meets an exact zero")
    program, *arrays = CASES[name]
    xs = [torch.from_numpy(a.copy()).requires_grad_(True) for a in arrays]
    outs = [o for o in parts(program, torch, xs) if o.requires_grad]
    total = sum((o * torch.from_numpy(w)).sum() for o, w in zip(outs, weights(outs), strict=True))
    expected = torch.autograd.grad(total, xs, allow_unused=True)
    values, grads = ours(program, arrays)
    for a, b in zip(values, outs, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), 1e-9, 1e-10)
    for a, b in zip(grads, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), 1e-7, 1e-8)


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_equal_differences_of_first_ones(name):
    if name in FIRST_ORDER:
        pytest.skip("piecewise linear in part")
    program, *arrays = CASES[name]
    rng = np.random.default_rng(2)
    along = [rng.standard_normal(a.shape) for a in arrays]
    probe = [rng.standard_normal(a.shape) for a in arrays]

    def slope(xs):
        outs = [o for o in parts(program, tc, xs) if o.requires_grad]
        total = sum(
            (o * o * tc.from_numpy(w)).sum() for o, w in zip(outs, weights(outs), strict=True)
        )
        grads = tc.autograd.grad(total, xs, create_graph=True)
        return sum((g * tc.from_numpy(p)).sum() for g, p in zip(grads, probe, strict=True))

    xs = tensors(arrays)
    second = tc.autograd.grad(slope(xs), xs, allow_unused=True)
    analytic = sum(
        float((g.numpy() * d).sum()) for g, d in zip(second, along, strict=True) if g is not None
    )

    def at(h):
        return slope(tensors([a + h * d for a, d in zip(arrays, along, strict=True)])).item()

    h = 1e-4
    numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert analytic == pytest.approx(numeric, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", ["solve", "svd", "eigh", "lu", "qr tall", "det", "pinv", "lstsq"])
def test_compiled_values_and_gradients_equal_eager(name):
    program, *arrays = CASES[name]
    for eager, compiled in zip(ours(program, arrays), ours(program, arrays, True), strict=True):
        for a, b in zip(eager, compiled, strict=True):
            np.testing.assert_allclose(b, a, 1e-9, 1e-10)


def test_factors_multiply_to_the_matrix_in_single_precision():
    a = tc.from_numpy(draw(2, 40, 40).astype(np.float32))
    P, L, U = tc.linalg.lu(a)
    np.testing.assert_allclose((P @ L @ U).numpy(), a.numpy(), atol=1e-4)
    Q, R = tc.linalg.qr(a)
    np.testing.assert_allclose((Q @ R).numpy(), a.numpy(), atol=1e-4)
    u, s, vh = tc.linalg.svd(a)
    np.testing.assert_allclose((u @ tc.diag_embed(s) @ vh).numpy(), a.numpy(), atol=1e-4)
    w, v = tc.linalg.eigh(a + a.mT)
    np.testing.assert_allclose((v * w[:, None] @ v.mT).numpy(), (a + a.mT).numpy(), atol=1e-4)
    assert {x.dtype for x in (P, L, Q, R, u, s, w, v)} == {tc.float32}


def test_info_says_where_a_factorisation_fails_instead_of_raising():
    good, bad = np.eye(3), np.diag([1.0, -2.0, 3.0])
    L, info = tc.linalg.cholesky_ex(tc.from_numpy(np.stack([good, bad])))
    assert info.tolist() == [0, 2]
    assert info.dtype is tc.int32
    np.testing.assert_array_equal(L[0].numpy(), good)
    inverse, info = tc.linalg.inv_ex(tc.from_numpy(np.stack([2 * good, SINGULAR * 0])))
    np.testing.assert_allclose(inverse[0].numpy(), good / 2)
    assert info.tolist() == [0, 1]
    assert tc.linalg.lu_factor_ex(tc.zeros(2, 2)).info.item() == 1


def test_ranks_and_bounds():
    a = tc.from_numpy(np.diag([1.0, 1e-3, 0.0]))
    assert tc.linalg.matrix_rank(a).item() == 2
    assert tc.linalg.matrix_rank(a, atol=0.01).item() == 1
    assert tc.linalg.matrix_rank(a, rtol=0.01, hermitian=True).item() == 1
    assert tc.linalg.matrix_rank(tc.zeros(2, 0, 3)).tolist() == [0, 0]
    assert tc.linalg.pinv(a, rtol=0.01).numpy()[1, 1] == 0
    assert tc.linalg.pinv(a, atol=tc.tensor(1e-4).double()).numpy()[1, 1] == pytest.approx(1e3)


def test_condition_numbers():
    a = draw(3, 3)
    for p in (None, 1, -1, 2, -2, np.inf, "fro", "nuc"):
        assert tc.linalg.cond(tc.from_numpy(a), p).item() == pytest.approx(np.linalg.cond(a, p))


def test_gradients_of_functions_of_repeated_singular_values_are_finite():
    for f in (
        lambda x: tc.linalg.svdvals(x).sum(),
        lambda x: tc.linalg.matrix_norm(x, "nuc"),
        lambda x: tc.linalg.eigvalsh(x).sum(),
        lambda x: tc.linalg.pinv(x).sum(),
    ):
        x = tc.eye(3, dtype=tc.float64).requires_grad_(True)
        f(x).backward()
        assert np.isfinite(x.grad.numpy()).all()
    x = tc.eye(3, dtype=tc.float64).requires_grad_(True)
    tc.linalg.matrix_norm(x, "nuc").backward()
    np.testing.assert_allclose(x.grad.numpy(), np.eye(3), atol=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_the_second_derivative_of_a_determinant_of_any_rank(rank):
    a = draw(3, rank) @ draw(rank, 3)
    v, w = draw(3, 3), draw(3, 3)
    x = tc.from_numpy(a).requires_grad_(True)
    (g,) = tc.autograd.grad(tc.linalg.det(x), x, create_graph=True)
    (h,) = tc.autograd.grad((g * tc.from_numpy(v)).sum(), x)
    # The determinant is a cubic in s and t, so its mixed difference is exact up to even terms.
    step = [(s, t) for s in (-1, 1) for t in (-1, 1)]
    mixed = sum(s * t * np.linalg.det(a + 1e-3 * (s * v + t * w)) for s, t in step) / 4e-6
    assert float((h.numpy() * w).sum()) == pytest.approx(mixed, rel=1e-5, abs=1e-5)


def test_empty_matrices_and_batches():
    e = tc.zeros(0, 0)
    assert tc.linalg.det(e).item() == 1
    assert tc.linalg.slogdet(e).logabsdet.item() == 0
    assert tc.linalg.inv(e).shape == (0, 0)
    assert tc.linalg.inv(tc.zeros(0, 3, 3)).shape == (0, 3, 3)
    assert [x.shape for x in tc.linalg.svd(tc.zeros(2, 0, 3))] == [(2, 0, 0), (2, 0), (2, 3, 3)]
    assert [x.shape for x in tc.linalg.qr(tc.zeros(3, 0))] == [(3, 0), (0, 0)]
    assert tc.linalg.pinv(tc.zeros(0, 3)).shape == (3, 0)
    assert tc.linalg.solve(tc.zeros(0, 0), tc.zeros(0, 2)).shape == (0, 2)
    assert tc.linalg.matrix_exp(tc.zeros(0, 2, 2)).shape == (0, 2, 2)
    assert tc.linalg.cholesky(tc.zeros(0, 2, 2)).shape == (0, 2, 2)
    assert tc.linalg.lstsq(tc.zeros(2, 0), tc.zeros(2, 3)).solution.shape == (0, 3)
    assert tc.linalg.matrix_power(tc.zeros(2, 2), 0).tolist() == [[1.0, 0.0], [0.0, 1.0]]


S = tc.linalg
ERRORS = {
    "singular inv": (lambda: S.inv(tc.zeros(2, 2)), S.LinAlgError, "singular"),
    "singular solve": (lambda: S.solve(tc.zeros(2, 2), tc.ones(2)), S.LinAlgError, "singular"),
    "not positive": (lambda: S.cholesky(-tc.eye(2)), S.LinAlgError, "not positive-definite"),
    "nan": (lambda: S.svd(tc.full((2, 2), float("nan"))), S.LinAlgError, "non-finite"),
    "not square": (lambda: S.inv(tc.zeros(2, 3)), RuntimeError, "2 by 3"),
    "det not square": (lambda: tc.det(tc.zeros(2, 3)), RuntimeError, "2 by 3"),
    "vector": (lambda: S.svd(tc.ones(3)), RuntimeError, "at least 2 dimensions"),
    "list": (lambda: S.inv([[1.0]]), TypeError, "must be Tensor, not list"),
    "integers": (lambda: S.det(tc.ones(2, 2).int()), RuntimeError, "int32"),
    "half": (lambda: S.inv(tc.eye(2).half()), RuntimeError, "Low precision"),
    "shapes": (lambda: S.solve(tc.eye(2), tc.ones(3, 1)), RuntimeError, "2x2 and 3x1"),
    "dtypes": (lambda: S.solve(tc.eye(2), tc.ones(2).double()), RuntimeError, "same dtype"),
    "mode": (lambda: S.qr(tc.eye(2), mode="x"), RuntimeError, "unrecognized mode 'x'"),
    "uplo": (lambda: S.eigh(tc.eye(2), "X"), RuntimeError, "'L' or 'U'"),
    "driver": (lambda: S.lstsq(tc.eye(2), tc.eye(2), driver="x"), RuntimeError, "driver"),
    "order": (lambda: S.matrix_norm(tc.eye(2), 3), RuntimeError, "Order 3 not supported"),
    "one matrix": (lambda: S.multi_dot([tc.eye(2)]), RuntimeError, "at least 2 tensors"),
    "no pivot": (lambda: S.lu(tc.eye(2), pivot=False), RuntimeError, "without pivoting"),
    "cross": (lambda: S.cross(tc.ones(4), tc.ones(4)), RuntimeError, "length 3"),
    "ldl_factor": (lambda: S.ldl_factor(tc.eye(2)), AttributeError, "use linalg.lu_factor"),
    "qr r": (
        lambda: S.qr(tc.eye(2).requires_grad_(True), mode="r"),
        RuntimeError,
        "mode='reduced'",
    ),
    "geqrf": (lambda: tc.geqrf(tc.eye(2).requires_grad_(True)), RuntimeError, "linalg.qr"),
    "pivots": (lambda: tc.lu_unpack(tc.eye(2), tc.tensor([1, 2])), RuntimeError, "int32"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_calls_raise_pytorchs_exception_types(name):
    call, kind, text = ERRORS[name]
    with pytest.raises(kind, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_singular_matrix_raises_when_the_compiled_function_runs():
    step = tc.compile(lambda a: tc.linalg.inv(a) * 2)
    assert step(tc.eye(2)).tolist() == [[2.0, 0.0], [0.0, 2.0]]
    with pytest.raises(tc.linalg.LinAlgError, match="singular"):
        step(tc.zeros(2, 2))
