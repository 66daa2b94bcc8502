"""Fourier transforms beside PyTorch's and NumPy's: values, types, gradients, eager and compiled."""

import numpy as np
import pytest

import tracecc as tc
from tracecc.autograd import gradcheck, gradgradcheck

NORMS = [None, "backward", "ortho", "forward"]
ONE = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
REAL = ("rfft", "ihfft")
TWO, ANY = [f"{n}2" for n in ONE], [f"{n}n" for n in ONE]


def of_real(name):
    return name.rstrip("2n") in REAL


def operand(name, *shape, single=False):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    if not of_real(name):
        x = x + 1j * rng.standard_normal(shape)
    return x.astype({"f": np.float32, "c": np.complex64}[x.dtype.kind]) if single else x


def calls():
    for name in ONE:
        for norm in NORMS:
            yield name, {"norm": norm}
        yield from ((name, {"n": n, "dim": d}) for n in (1, 4, 9) for d in (0, 1))
    for name in (*TWO, *ANY):
        for norm in NORMS:
            yield name, {"norm": norm}
        yield name, {"s": (4, 7), "dim": (2, 0)}
        yield name, {"s": (3, -1), "dim": (0, 1)}
        yield name, {"s": (5, 6)}
    yield from ((name, {"dim": 1}) for name in ANY)
    yield from ((name, {"dim": (2, 0, 1), "norm": "ortho"}) for name in ANY)


@pytest.mark.oracle
@pytest.mark.parametrize("name", [*ONE, *TWO, *ANY])
def test_values_and_gradients_equal_pytorchs(name):
    torch = pytest.importorskip("torch")
    for given, options in calls():
        if given != name:
            continue
        for single in (False, True):
            x = operand(name, 4, 5, 6, single=single)
            theirs = torch.tensor(x, requires_grad=True)
            expected = getattr(torch.fft, name)(theirs, **options)
            cotangent = torch.randn_like(expected)
            (gradient,) = torch.autograd.grad(expected, theirs, cotangent)
            ours = tc.tensor(x, requires_grad=True)
            found = getattr(tc.fft, name)(ours, **options)
            (mine,) = tc.autograd.grad(found, ours, tc.from_numpy(cotangent.numpy()))
            tolerance = 2e-5 if single else 1e-11
            for a, b in ((found, expected), (mine, gradient)):
                assert a.dtype.public == str(b.dtype).removeprefix("torch.")
                b = b.detach().resolve_conj().numpy()
                np.testing.assert_allclose(a.detach().numpy(), b, tolerance, tolerance)


@pytest.mark.parametrize("name", [*ONE, *TWO, *ANY])
def test_compiled_values_and_gradients_equal_eager_ones(name):
    f = getattr(tc.fft, name)

    def loss(x):
        y = f(x * 2, norm="ortho")
        return y, (y.abs() ** 2).sum() + y.real.sum()

    x = tc.tensor(operand(name, 3, 4, 5), requires_grad=True)
    results = []
    for run in (loss, tc.compile(loss)):
        x.grad = None
        y, total = run(x)
        total.backward()
        results.append((y.detach().numpy(), x.grad.numpy()))
    for eager, compiled in zip(*results, strict=True):
        np.testing.assert_allclose(compiled, eager, 1e-12, 1e-12)


@pytest.mark.parametrize("name", [*ONE, "hfft2", "ihfft2", "rfftn", "irfftn"])
def test_gradients_match_finite_differences_to_second_order(name):
    f = getattr(tc.fft, name)
    for n in (4, 5):
        options = {"n": n} if name in ONE else {"s": (3, n)}
        x = tc.tensor(operand(name, 2, 3), requires_grad=True)
        assert gradcheck(lambda x, options=options: f(x * x, **options), (x,))
        assert gradgradcheck(lambda x, options=options: f(x * x, **options), (x,))


def test_transforms_of_integers_and_halves():
    assert tc.fft.fft(tc.tensor([1, 2, 3])).dtype is tc.complex64
    assert tc.fft.rfft(tc.tensor([True, False])).tolist() == [1, 1]
    assert tc.fft.ihfft(tc.ones(4, dtype=tc.float64)).dtype is tc.complex128
    with pytest.raises(RuntimeError, match="Unsupported dtype float16"):
        tc.fft.fft(tc.ones(4, dtype=tc.float16))


@pytest.mark.parametrize(
    ("there", "back"), [("fft", "ifft"), ("ifft", "fft"), ("rfft", "irfft"), ("ihfft", "hfft")]
)
def test_inverses_give_back_what_was_transformed(there, back):
    x = tc.tensor(operand(there, 4, 9))
    for norm in NORMS:
        y = getattr(tc.fft, back)(getattr(tc.fft, there)(x, norm=norm), 9, norm=norm)
        np.testing.assert_allclose(y.numpy(), x.numpy(), 1e-12, 1e-12)


@pytest.mark.parametrize("n", [1, 4, 7])
def test_frequencies_and_shifts_equal_numpys(n):
    np.testing.assert_allclose(tc.fft.fftfreq(n, 0.5).numpy(), np.fft.fftfreq(n, 0.5), 1e-6)
    np.testing.assert_allclose(tc.fft.rfftfreq(n, 0.5).numpy(), np.fft.rfftfreq(n, 0.5), 1e-6)
    assert tc.fft.fftfreq(n, dtype=tc.float64).dtype is tc.float64
    x = np.arange(3 * n).reshape(3, n)
    for dim in (None, 1, (0,), (0, 1)):
        for name in ("fftshift", "ifftshift"):
            found = getattr(tc.fft, name)(tc.from_numpy(x), dim)
            assert found.tolist() == getattr(np.fft, name)(x, dim).tolist()


def test_batches_may_be_empty():
    assert tc.fft.fft(tc.zeros(0, 4)).shape == (0, 4)
    assert tc.fft.rfft(tc.zeros(0, 4)).shape == (0, 3)
    assert tc.fft.irfft(tc.zeros(0, 4), n=5).shape == (0, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: tc.fft.fft(x, n=0), r"Invalid number of data points \(0\)"),
        (lambda x: tc.fft.fft(x, norm="unit"), 'Invalid normalization mode: "unit"'),
        (lambda x: tc.fft.rfft(x * 1j), "expects a real input tensor, but got complex64"),
        (lambda x: tc.fft.fftn(x, dim=(0, 0)), "dims must be unique"),
        (lambda x: tc.fft.fftn(x, s=(2,), dim=(0, 1)), "must have the same length"),
        (lambda x: tc.fft.fftn(x, s=(2, 2, 2)), "tensor only has 2 dimensions"),
        (lambda x: tc.fft.rfftn(x, dim=()), "must transform at least one axis"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(RuntimeError, match=message):
        call(tc.ones(3, 4))
