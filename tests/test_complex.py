"""Complex tensors beside PyTorch's: values, types and gradients, eager and compiled."""

import math

import numpy as np
import pytest

import tracecc as tc
from tracecc.autograd import gradcheck, gradgradcheck

UNARY = """abs neg exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan asin acos
    atan sinh cosh tanh asinh acosh atanh sigmoid square angle sgn conj conj_physical positive"""
BINARY = "add sub mul div pow eq ne"

# Functions of PyTorch or tracecc `t`, complex matrices z and w, a real one r.
CASES = {
    **{name: lambda t, z, w, r, name=name: getattr(t, name)(z) for name in UNARY.split()},
    **{name: lambda t, z, w, r, name=name: getattr(t, name)(z, w) for name in BINARY.split()},
    **{f"{n} real": lambda t, z, w, r, n=n: getattr(t, n)(z, r) for n in BINARY.split()},
    **{f"real {n}": lambda t, z, w, r, n=n: getattr(t, n)(r, z) for n in BINARY.split()},
    **{f"{n} number": lambda t, z, w, r, n=n: getattr(t, n)(r, 1.5 - 2j) for n in BINARY.split()},
    **{f"power {p}": lambda t, z, w, r, p=p: z**p for p in (2, 3, 0.5, -1, -0.5, 1, 0, 1j)},
    "number to power": lambda t, z, w, r: 2**z,
    "operators": lambda t, z, w, r: 2j * z - w / (1 + 1j) + r,
    "sum": lambda t, z, w, r: z.sum(1),
    "mean": lambda t, z, w, r: z.mean(0),
    "prod": lambda t, z, w, r: z.prod(1),
    "cumsum": lambda t, z, w, r: z.cumsum(1),
    "cumprod": lambda t, z, w, r: z.cumprod(1),
    "var": lambda t, z, w, r: z.var(1),
    "std": lambda t, z, w, r: z.std(),
    "cov": lambda t, z, w, r: t.cov(z),
    "corrcoef": lambda t, z, w, r: t.corrcoef(z),
    "logsumexp": lambda t, z, w, r: t.logsumexp(z, 1),
    "logaddexp": lambda t, z, w, r: t.logaddexp(z, w),
    "silu": lambda t, z, w, r: t.nn.functional.silu(z.detach()),
    "conv1d": lambda t, z, w, r: t.nn.functional.conv1d(
        z[None], w[:2, :3, None].expand(2, 3, 2), z[0, :2], padding=1
    ),
    "conv_transpose1d": lambda t, z, w, r: t.nn.functional.conv_transpose1d(
        z[None], w[:, :2, None].expand(3, 2, 3), z[0, :2], stride=2
    ),
    "any": lambda t, z, w, r: z.any(1),
    "count_nonzero": lambda t, z, w, r: t.count_nonzero(z),
    "matmul": lambda t, z, w, r: z @ w.T,
    "vdot": lambda t, z, w, r: t.vdot(z[0], w[0]),
    "einsum": lambda t, z, w, r: t.einsum("ij,kj->ki", z, w),
    "addmm": lambda t, z, w, r: t.addmm(z[:, :3], z, w.T, alpha=2j),
    "kron": lambda t, z, w, r: t.kron(z, w),
    "norm": lambda t, z, w, r: t.linalg.vector_norm(z),
    "norm 3": lambda t, z, w, r: t.linalg.vector_norm(z, 3, dim=1),
    "norm inf": lambda t, z, w, r: t.linalg.vector_norm(z, math.inf),
    "real": lambda t, z, w, r: z.real,
    "imag": lambda t, z, w, r: z.imag,
    "view_as_real": lambda t, z, w, r: t.view_as_real(z),
    "view_as_complex": lambda t, z, w, r: t.view_as_complex(r.reshape(3, 2, 2)),
    "complex": lambda t, z, w, r: t.complex(r, r * 2),
    "polar": lambda t, z, w, r: t.polar(r * r, r),
    "isreal": lambda t, z, w, r: t.isreal(z - z),
    "isnan": lambda t, z, w, r: t.isnan(z * float("nan")),
    "isinf": lambda t, z, w, r: t.isinf(z / 0),
    "isclose": lambda t, z, w, r: t.isclose(z, z + 1e-12),
    "slice": lambda t, z, w, r: z[1, 1:],
    "index": lambda t, z, w, r: z[t.tensor([2, 0])],
    "gather": lambda t, z, w, r: z.gather(1, t.tensor([[0, 1], [2, 3], [1, 1]])),
    "index_add": lambda t, z, w, r: z.index_add(0, t.tensor([2, 0, 2]), w),
    "index_put": lambda t, z, w, r: z.index_put((t.tensor([0, 1]),), w[:2], accumulate=True),
    "where": lambda t, z, w, r: t.where(r > 0, z, w),
    "masked_fill": lambda t, z, w, r: z.masked_fill(r > 0, 1j),
    "cat": lambda t, z, w, r: t.cat([z, w], 1),
    "cat with real": lambda t, z, w, r: t.cat([z, r], 1),
    "stack": lambda t, z, w, r: t.stack([z, w], 1),
    "H": lambda t, z, w, r: z.H,
    "adjoint": lambda t, z, w, r: t.adjoint(z),
    "expand": lambda t, z, w, r: z.unsqueeze(0).expand(2, 3, 4),
    "to complex64": lambda t, z, w, r: z.to(t.complex64),
    "to complex128": lambda t, z, w, r: r.to(t.cdouble),
    "lerp": lambda t, z, w, r: t.lerp(z, w, 0.3),
    "addcmul": lambda t, z, w, r: t.addcmul(z, z, w, value=2j),
    "float_power": lambda t, z, w, r: t.float_power(z, 2),
    "matrix_power": lambda t, z, w, r: t.linalg.matrix_power(z[:3, :3], 3),
}


def operands():
    rng = np.random.default_rng(0)
    z, w = (rng.standard_normal((3, 4)) + 1j * rng.standard_normal((3, 4)) for _ in range(2))
    return z, w, rng.standard_normal((3, 4))


def close(ours, theirs):
    theirs = theirs.detach().resolve_conj()
    assert ours.dtype.public == str(theirs.dtype).removeprefix("torch.")
    tolerance = 2e-6 if theirs.dtype.itemsize < 16 and theirs.is_complex() else 1e-10
    np.testing.assert_allclose(ours.detach().numpy(), theirs.numpy(), tolerance, tolerance)


@pytest.mark.oracle
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_pytorchs(name):
    torch = pytest.importorskip("torch")
    f = CASES[name]
    theirs = [torch.tensor(a, requires_grad=True) for a in operands()]
    expected = f(torch, *theirs)
    cotangent = None
    if expected.requires_grad:
        cotangent = torch.randn(expected.shape, dtype=expected.dtype)
        wanted = torch.autograd.grad(expected, theirs, cotangent, allow_unused=True)
    for run in (f, tc.compile(lambda *xs: f(tc, *xs))):
        ours = [tc.tensor(a, requires_grad=True) for a in operands()]
        found = run(tc, *ours) if run is f else run(*ours)
        close(found, expected)
        if cotangent is None:
            assert not found.requires_grad
            continue
        g = tc.from_numpy(cotangent.numpy())
        for x, a, b in zip(
            ours, tc.autograd.grad(found, ours, g, allow_unused=True), wanted, strict=True
        ):
            if a is None or b is None:
                assert not any(g is not None and g.any() for g in (a, b)), x
            else:
                close(a, b)


def test_types_promote_as_in_pytorch():
    torch = pytest.importorskip("torch")
    names = ["bool", "uint8", "int64", "float16", "bfloat16", "float32", "float64"]
    names += ["complex64", "complex128"]
    for a in names:
        for b in names:
            if "float16" in (a, b) and "complex" in a + b:
                continue  # PyTorch has half-precision complex numbers
            assert (
                tc.promote_types(getattr(tc, a), getattr(tc, b)).public
                == str(torch.promote_types(getattr(torch, a), getattr(torch, b)))[6:]
            )
            shapes = ((2,), ()), ((), (2,)), ((), ())
            for left, right in shapes:
                ours = tc.zeros(left, dtype=getattr(tc, a)) + tc.zeros(right, dtype=getattr(tc, b))
                x = torch.zeros(left, dtype=getattr(torch, a))
                y = torch.zeros(right, dtype=getattr(torch, b))
                if (x + y).dtype is not torch.complex32:
                    assert ours.dtype.public == str((x + y).dtype)[6:], (a, b, left, right)
        if a != "float16":
            assert (tc.zeros(2, dtype=getattr(tc, a)) * 1j).dtype.public == (
                str((torch.zeros(2, dtype=getattr(torch, a)) * 1j).dtype)[6:]
            )


def test_complex_numbers_make_complex_tensors():
    z = tc.tensor([1, 2.0, 3j])
    assert z.dtype is tc.complex64
    assert z.is_complex()
    assert not z.is_floating_point()
    assert tc.tensor(1j, dtype=tc.complex128).dtype is tc.cdouble
    assert tc.full((2,), 2 - 1j).tolist() == [2 - 1j, 2 - 1j]
    assert tc.tensor(2 - 1j).item() == 2 - 1j
    assert complex(tc.tensor(2 - 1j)) == 2 - 1j
    assert tc.zeros(2, dtype=complex).dtype is tc.complex64
    assert tc.eye(2, dtype=tc.cfloat).real.tolist() == [[1, 0], [0, 1]]
    assert tc.from_numpy(np.ones(2, np.complex128)).cfloat().dtype is tc.complex64
    assert tc.finfo(tc.complex128).eps == 2.0**-52


def test_random_complex_numbers_have_variance_one():
    tc.manual_seed(0)
    z = tc.randn(20000, dtype=tc.complex64)
    assert abs(z.var().item() - 1) < 0.03
    assert abs(z.real.var().item() - 0.5) < 0.03
    u = tc.rand(20000, dtype=tc.complex128)
    assert abs(u.mean().item() - (0.5 + 0.5j)) < 0.02


def test_parts_are_views_of_the_same_memory():
    z = tc.tensor([1 + 2j, 3 - 4j])
    z.real.add_(1)
    z.imag = tc.tensor([5.0, 6.0])
    assert z.tolist() == [2 + 5j, 4 + 6j]
    tc.view_as_real(z)[0, 1] = 9
    assert z[0].item() == 2 + 9j
    pairs = tc.zeros(3, 2)
    tc.view_as_complex(pairs)[1] = 1 + 2j
    assert pairs.tolist() == [[0, 0], [1, 2], [0, 0]]
    assert (z.real.stride(), z.imag.storage_offset()) == ((2,), 1)


@pytest.mark.parametrize("compiled", [False, True])
def test_writes_through_parts_are_differentiated(compiled):
    torch = pytest.importorskip("torch")

    def f(t, z, r):
        y = z * 2
        y.real = r
        y.imag.mul_(3)
        t.view_as_real(y)[0, 0] = r.sum()
        return (y * y.conj()).real.sum() + y.angle().sum()

    z, _, r = operands()
    theirs = torch.tensor(z, requires_grad=True), torch.tensor(r, requires_grad=True)
    f(torch, *theirs).backward()
    ours = tc.tensor(z, requires_grad=True), tc.tensor(r, requires_grad=True)
    loss = tc.compile(lambda a, b: f(tc, a, b)) if compiled else lambda a, b: f(tc, a, b)
    loss(*ours).backward()
    for x, y in zip(ours, theirs, strict=True):
        close(x.grad, y.grad)


def test_second_derivatives_match_finite_differences():
    tc.manual_seed(0)
    z = tc.randn(2, 3, dtype=tc.complex128, requires_grad=True)
    r = tc.randn(2, 3, dtype=tc.float64, requires_grad=True)
    for f in (
        lambda z, r: (z * r).exp() @ z.mH,
        lambda z, r: z.abs() * z.angle() + r.exp(),
        lambda z, r: tc.polar(r * r + 1, z.real).sgn() * z**r,
    ):
        assert gradcheck(f, (z, r))
        assert gradgradcheck(f, (z, r))


@pytest.mark.parametrize("compiled", [False, True])
def test_descent_along_gradients_finds_complex_numbers(compiled):
    target = tc.tensor([1 - 2j, 3j, -4.0])
    z = tc.zeros(3, dtype=tc.complex64, requires_grad=True)

    def step():
        loss = (z - target).abs().square().sum()
        loss.backward()
        with tc.no_grad():
            z.sub_(0.25 * z.grad)
        z.grad = None
        return loss

    run = tc.compile(step) if compiled else step
    losses = [run().item() for _ in range(20)]
    assert losses[0] == pytest.approx(30)
    np.testing.assert_allclose(z.detach().numpy(), target.numpy(), atol=1e-4)


def test_large_arrays_and_updates_of_complex_state():
    z = tc.randn(300, 700, dtype=tc.complex64)
    assert tc.equal(z.T.contiguous().T, z)
    assert tc.allclose((z.T.reshape(-1) * 2).reshape(700, 300).T, z + z)
    state = tc.zeros(2, dtype=tc.complex128)

    @tc.compile
    def count(x):
        state.add_(x * 1j)
        return state.clone(), x

    count(tc.ones(2, dtype=tc.complex128))
    total, same = count(tc.ones(2, dtype=tc.complex128))
    assert state.tolist() == total.tolist() == [2j, 2j]
    assert same.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z: z < z, RuntimeError, "lt of c64"),
        (lambda z: tc.sort(z), RuntimeError, "sort of c64"),
        (lambda z: z.sign(), RuntimeError, "use sgn"),
        (lambda z: tc.ones(2).imag, RuntimeError, "imag is only supported for complex tensors"),
        (lambda z: tc.ones(2).add_(z), RuntimeError, "can't be cast to the desired output type"),
        (lambda z: z.requires_grad_().sum().backward(), RuntimeError, "only for real scalar"),
        (lambda z: tc.complex(tc.ones(2), tc.ones(2).double()), RuntimeError, "second argument"),
        (lambda z: tc.view_as_complex(tc.ones(3)), RuntimeError, "last dimension of size 2"),
        (lambda z: float(z[0]), TypeError, "complex"),
    ],
)
def test_what_complex_numbers_cannot_do_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(tc.tensor([1 + 1j, 2]))


def test_printing_shows_both_parts():
    assert repr(tc.tensor([1 + 2j, 3 - 4j])) == "tensor([1.+2.j, 3.-4.j])"
    assert repr(tc.tensor([1.5, 3 - 4j])) == "tensor([1.5000+0.j, 3.0000-4.j])"
    assert repr(tc.tensor(-0.5j, dtype=tc.complex128)) == (
        "tensor(-0.-0.5000j, dtype=tracecc.complex128)"
    )


OPTIMIZERS = {
    "SGD": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.01},
    "Adam": {"lr": 0.05, "amsgrad": True},
    "AdamW": {"lr": 0.05},
    "Adamax": {"lr": 0.05},
    "NAdam": {"lr": 0.05},
    "RAdam": {"lr": 0.05},
    "RMSprop": {"lr": 0.05, "centered": True, "momentum": 0.5},
    "Adagrad": {"lr": 0.1, "initial_accumulator_value": 0.1},
    "Adadelta": {"lr": 1.0},
    "ASGD": {"lr": 0.01},
    "Rprop": {"lr": 0.05},
}


@pytest.mark.oracle
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_treat_complex_parameters_as_pytorch_does(name, compiled):
    torch = pytest.importorskip("torch")
    found = []
    for t in (torch, tc):
        z, w, _ = (t.tensor(a) for a in operands())
        z.requires_grad_()
        optimizer = getattr(t.optim, name)([z], **OPTIMIZERS[name])

        def step(t=t, z=z, w=w, optimizer=optimizer):
            optimizer.zero_grad()
            (((z @ w.mH).abs() ** 2).sum() + z.real.sum()).backward()
            optimizer.step()

        run = tc.compile(step) if compiled and t is tc else step
        for _ in range(6):
            run()
        found.append(z)
    ours, theirs = (z.detach().numpy() for z in found[::-1])
    np.testing.assert_allclose(ours, theirs, 1e-6, 1e-6)


def test_modules_convert_to_complex_types():
    layer = tc.nn.Linear(3, 2).to(tc.complex64)
    assert layer.weight.dtype is tc.complex64
    z = tc.randn(4, 3, dtype=tc.complex64)
    expected = z.numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    np.testing.assert_allclose(layer(z).detach().numpy(), expected, 1e-5, 1e-6)
    assert tc.ones(2).type_as(z).dtype is tc.complex64
    layer.weight.grad = layer.weight.detach() * 2
    size = np.linalg.norm(layer.weight.grad.numpy())
    assert tc.nn.utils.clip_grad_norm_([layer.weight], 1.0).item() == pytest.approx(size, rel=1e-5)


def interpreted(compiled):
    """The ops of a compiled function that run as steps of their own, without a kernel."""
    return sorted(k.name for k in compiled.kernels() if "run by the interpreter" in k.source)


def test_compiled_arithmetic_fuses_as_pairs_of_real_numbers():
    def rotate(x, turn):
        pairs = tc.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return tc.view_as_real(pairs * turn[:, None] / 2).flatten(-2)

    def mixed(x, y):
        z, w = tc.complex(x, y), tc.polar(y * y, x)
        z = tc.where(x > 0, z * w.conj() + 1j, -z) - x
        z = tc.stack([z.flip(0), (z * z).T.T * 2.0])[1] + (z == w) + z.square().sum(0) / 3
        return z.real * z.imag + z.to(tc.complex128).imag.float() + (z != 0)

    x, y = tc.randn(5, 3, 8), tc.randn(5, 4).to(tc.complex64)
    compiled = tc.compile(rotate)
    np.testing.assert_allclose(compiled(x, y).numpy(), rotate(x, y).numpy(), 1e-5, 1e-6)
    assert interpreted(compiled) == ["imag", "real"]
    x, y = tc.randn(6, 7), tc.randn(6, 7)
    compiled = tc.compile(mixed)
    np.testing.assert_allclose(compiled(x, y).numpy(), mixed(x, y).numpy(), 1e-4, 1e-5)
    assert "mul" not in interpreted(compiled)


def test_what_only_steps_compute_is_not_taken_apart():
    compiled = tc.compile(lambda z: tc.fft.ifft(tc.fft.fft(z) * 2))
    z = tc.randn(8, dtype=tc.complex64)
    np.testing.assert_allclose(compiled(z).numpy(), 2 * z.numpy(), 1e-5, 1e-6)
    assert {"fft", "mul"} <= set(interpreted(compiled))
    assert "complex" not in interpreted(compiled)


def test_even_spacing_between_complex_numbers():
    z = tc.linspace(0, 1 + 2j, 3)
    assert (z.dtype, z.tolist()) == (tc.complex64, [0, 0.5 + 1j, 1 + 2j])
    z = tc.linspace(0.5, 1, 2, dtype=tc.complex128)
    assert (z.dtype, z.tolist()) == (tc.complex128, [0.5, 1])
    assert tc.linspace(tc.tensor(1j), tc.tensor(1.0), 2).tolist() == [1j, 1]


def test_files_keep_complex_tensors(tmp_path):
    z = tc.randn(3, dtype=tc.complex64)
    for name in ("z.pt", "z.safetensors"):
        tc.save({"z": z}, tmp_path / name)
        assert tc.equal(tc.load(tmp_path / name)["z"], z)
    with pytest.raises(TypeError, match="has no complex128, the dtype of 'z'"):
        tc.save({"z": z.to(tc.complex128)}, tmp_path / "z.safetensors")
