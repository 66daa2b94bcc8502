"""Linear algebra of complex matrices, and eigenvalues of any, beside PyTorch's.

Vectors that are defined up to a phase are compared through functions that do not depend on it.
"""

import math

import numpy as np
import pytest

import tracecc as tc
from tracecc.autograd import gradcheck, gradgradcheck


def positive(t, a):
    return a @ a.mH + 2 * t.eye(4, dtype=a.dtype)


def rebuilt(values, left, right):
    return (left * values.exp().to(left.dtype)) @ right


# Functions of PyTorch or tracecc `t`: square a [4, 4], real r [4, 4], wide w [3, 5], tall h [5, 3],
# batch b [2, 4, 4].
CASES = {
    "solve": lambda t, a, r, w, h, b: t.linalg.solve(b, a),
    "solve right": lambda t, a, r, w, h, b: t.linalg.solve(b, a, left=False),
    "solve vector": lambda t, a, r, w, h, b: t.linalg.solve(a, a[0]),
    "inv": lambda t, a, r, w, h, b: t.linalg.inv(b),
    "det": lambda t, a, r, w, h, b: t.linalg.det(b),
    "sign of slogdet": lambda t, a, r, w, h, b: t.linalg.slogdet(b).sign,
    "logarithm of slogdet": lambda t, a, r, w, h, b: t.linalg.slogdet(b).logabsdet,
    "logdet": lambda t, a, r, w, h, b: t.logdet(a),
    "cholesky": lambda t, a, r, w, h, b: t.linalg.cholesky(positive(t, b)),
    "upper cholesky": lambda t, a, r, w, h, b: t.linalg.cholesky(positive(t, a), upper=True),
    "cholesky_solve": lambda t, a, r, w, h, b: t.cholesky_solve(
        b, t.linalg.cholesky(positive(t, a), upper=True), upper=True
    ),
    "cholesky_inverse": lambda t, a, r, w, h, b: t.cholesky_inverse(
        t.linalg.cholesky(positive(t, a))
    ),
    "q": lambda t, a, r, w, h, b: t.linalg.qr(h).Q,
    "r": lambda t, a, r, w, h, b: t.linalg.qr(w).R,
    "lu": lambda t, a, r, w, h, b: t.linalg.lu(w).U,
    "lu_solve": lambda t, a, r, w, h, b: t.linalg.lu_solve(*t.linalg.lu_factor(a), b),
    "adjoint lu_solve": lambda t, a, r, w, h, b: t.linalg.lu_solve(
        *t.linalg.lu_factor(a), b, adjoint=True
    ),
    "lu_solve right": lambda t, a, r, w, h, b: t.linalg.lu_solve(
        *t.linalg.lu_factor(a), b, left=False
    ),
    "solve_triangular": lambda t, a, r, w, h, b: t.linalg.solve_triangular(a, b, upper=True),
    "pinv": lambda t, a, r, w, h, b: t.linalg.pinv(w),
    "Hermitian pinv": lambda t, a, r, w, h, b: t.linalg.pinv(a + a.mH, hermitian=True),
    "lstsq": lambda t, a, r, w, h, b: t.linalg.lstsq(h, h[:, :2]).solution,
    "matrix_exp": lambda t, a, r, w, h, b: t.linalg.matrix_exp(b),
    "matrix_power": lambda t, a, r, w, h, b: t.linalg.matrix_power(a, -2),
    "matrix_rank": lambda t, a, r, w, h, b: t.linalg.matrix_rank(w),
    "svdvals": lambda t, a, r, w, h, b: t.linalg.svdvals(w),
    "svd": lambda t, a, r, w, h, b: (lambda d: rebuilt(d.S, d.U, d.Vh))(
        t.linalg.svd(w, full_matrices=False)
    ),
    "sizes of U": lambda t, a, r, w, h, b: t.linalg.svd(h, full_matrices=False).U.abs(),
    "sizes of V": lambda t, a, r, w, h, b: t.svd(w).V.abs(),
    "eigvalsh": lambda t, a, r, w, h, b: t.linalg.eigvalsh(b + b.mH),
    "eigh": lambda t, a, r, w, h, b: (
        lambda e: rebuilt(e.eigenvalues, e.eigenvectors, e.eigenvectors.mH)
    )(t.linalg.eigh(a + a.mH)),
    "sizes of eigh": lambda t, a, r, w, h, b: t.linalg.eigh(a + a.mH).eigenvectors.abs(),
    "eigvals": lambda t, a, r, w, h, b: (t.linalg.eigvals(b) ** 3).sum(),
    "eigvals of real": lambda t, a, r, w, h, b: (t.linalg.eigvals(r) ** 3).sum(),
    "eig": lambda t, a, r, w, h, b: (
        lambda e: rebuilt(e.eigenvalues, e.eigenvectors, t.linalg.inv(e.eigenvectors))
    )(t.linalg.eig(a)),
    "eig of real": lambda t, a, r, w, h, b: (
        lambda e: rebuilt(e.eigenvalues, e.eigenvectors, t.linalg.inv(e.eigenvectors))
    )(t.linalg.eig(r)),
    "sizes of eig": lambda t, a, r, w, h, b: (t.linalg.eig(r).eigenvectors.abs() ** 3).sum(),
    "matrix_norm 1": lambda t, a, r, w, h, b: t.linalg.matrix_norm(w, 1),
    "matrix_norm 2": lambda t, a, r, w, h, b: t.linalg.matrix_norm(w, 2),
    "nuclear norm": lambda t, a, r, w, h, b: t.linalg.matrix_norm(w, "nuc"),
    "norm inf": lambda t, a, r, w, h, b: t.linalg.matrix_norm(w, math.inf),
    "cond": lambda t, a, r, w, h, b: t.linalg.cond(a),
    "vecdot": lambda t, a, r, w, h, b: t.linalg.vecdot(a, b),
    "ormqr": lambda t, a, r, w, h, b: t.ormqr(*t.geqrf(h.detach()), h[:, :2], True, True),
    "householder_product": lambda t, a, r, w, h, b: t.linalg.householder_product(h, h[0] * 0.3),
}


def operands():
    rng = np.random.default_rng(0)
    for shape in ((4, 4), None, (3, 5), (5, 3), (2, 4, 4)):
        if shape is None:
            yield rng.standard_normal((4, 4))
        else:
            yield rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def close(ours, theirs):
    assert ours.dtype.public == str(theirs.dtype).removeprefix("torch.")
    theirs = theirs.detach().resolve_conj().numpy()
    np.testing.assert_allclose(ours.detach().numpy(), theirs, 1e-8, 1e-9)


@pytest.mark.oracle
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_pytorchs(name):
    torch = pytest.importorskip("torch")
    f = CASES[name]
    theirs = [torch.tensor(x, requires_grad=True) for x in operands()]
    expected = f(torch, *theirs)
    cotangent = None
    if expected.requires_grad:
        cotangent = torch.randn(expected.shape, dtype=expected.dtype)
        wanted = torch.autograd.grad(expected, theirs, cotangent, allow_unused=True)
    for run in (lambda *xs: f(tc, *xs), tc.compile(lambda *xs: f(tc, *xs))):
        ours = [tc.tensor(x, requires_grad=True) for x in operands()]
        found = run(*ours)
        close(found, expected)
        if cotangent is not None:
            g = tc.from_numpy(cotangent.numpy())
            gradients = tc.autograd.grad(found, ours, g, allow_unused=True)
            for mine, theirs_ in zip(gradients, wanted, strict=True):
                assert (mine is None) == (theirs_ is None)
                if mine is not None:
                    close(mine, theirs_)


@pytest.mark.parametrize("dtype", [tc.float64, tc.complex128])
def test_eigenvectors_are_scaled_and_satisfy_their_equation(dtype):
    tc.manual_seed(0)
    A = tc.randn(3, 5, 5, dtype=dtype)
    values, vectors = tc.linalg.eig(A)
    left = A.to(tc.complex128) @ vectors
    np.testing.assert_allclose(left.numpy(), (vectors * values.unsqueeze(-2)).numpy(), atol=1e-12)
    np.testing.assert_allclose(vectors.abs().square().sum(-2).numpy(), 1.0)
    traces = A.diagonal(0, -2, -1).sum(-1)
    np.testing.assert_allclose(tc.linalg.eigvals(A).sum(-1).real.numpy(), traces.real.numpy())
    assert tc.linalg.eig(tc.ones(2, 2)).eigenvalues.dtype is tc.complex64


@pytest.mark.parametrize(
    "f",
    [
        lambda a: (tc.linalg.eigvals(a) ** 2).sum(),
        lambda a: tc.linalg.eig(a).eigenvectors.abs().sum(),
        lambda a: tc.linalg.svd(a).U.abs(),
        lambda a: tc.linalg.eigh(a + a.mH).eigenvectors.abs() ** 2,
        lambda a: tc.linalg.cholesky(a @ a.mH + tc.eye(3)),
        lambda a: tc.linalg.slogdet(a).sign,
    ],
)
def test_second_derivatives_match_finite_differences(f):
    rng = np.random.default_rng(1)
    a = rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)) + 2 * np.eye(3)
    a = tc.tensor(a, requires_grad=True)
    assert gradcheck(f, (a,))
    assert gradgradcheck(f, (a,))


def test_eigenvalues_of_what_is_not_finite_are_refused():
    with pytest.raises(tc.linalg.LinAlgError, match="should not contain infs or NaNs"):
        tc.linalg.eig(tc.full((2, 2), math.nan))
