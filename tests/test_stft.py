"""Short-time Fourier transforms beside PyTorch's: values, gradients, there and back."""

import numpy as np
import pytest

import tracecc as tc

STFT = {
    "plain": {"n_fft": 16},
    "hops and a window": {"n_fft": 16, "hop_length": 5, "window": 16},
    "a short window": {"n_fft": 16, "win_length": 9, "window": 9},
    "no window but short": {"n_fft": 16, "win_length": 10},
    "not centered": {"n_fft": 12, "center": False},
    "normalized": {"n_fft": 16, "normalized": True},
    "two-sided": {"n_fft": 16, "onesided": False},
    "pairs": {"n_fft": 16, "return_complex": False},
    "odd": {"n_fft": 15, "hop_length": 4},
    **{mode: {"n_fft": 16, "pad_mode": mode} for mode in ("constant", "replicate", "circular")},
}


def signal(*shape, is_complex=False):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if is_complex else x


def options(t, given):
    given = {"return_complex": True, **given}
    if "window" in given:
        given["window"] = t.hann_window(given["window"], dtype=t.float64) + 0.1
    return given


def close(ours, theirs):
    assert ours.dtype.public == str(theirs.dtype).removeprefix("torch.")
    theirs = theirs.detach().resolve_conj().numpy()
    np.testing.assert_allclose(ours.detach().numpy(), theirs, 1e-10, 1e-11)


@pytest.mark.oracle
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", STFT)
def test_stft_equals_pytorchs(name, compiled):
    torch = pytest.importorskip("torch")
    for shape, is_complex in (((40,), False), ((2, 40), False), ((2, 40), True)):
        if is_complex and "return_complex" in STFT[name]:
            continue
        x = signal(*shape, is_complex=is_complex)
        theirs = torch.tensor(x, requires_grad=True)
        expected = torch.stft(theirs, **options(torch, STFT[name]))
        cotangent = torch.randn_like(expected)
        (gradient,) = torch.autograd.grad(expected, theirs, cotangent)
        given = options(tc, STFT[name])

        def run(x, given=given):
            return tc.stft(x, **given)

        ours = tc.tensor(x, requires_grad=True)
        found = (tc.compile(run) if compiled else run)(ours)
        close(found, expected)
        close(tc.autograd.grad(found, ours, tc.from_numpy(cotangent.numpy()))[0], gradient)


@pytest.mark.oracle
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        {"n_fft": 16},
        {"n_fft": 16, "hop_length": 5, "window": 16},
        {"n_fft": 16, "normalized": True, "length": 38},
        {"n_fft": 16, "length": 50},
        {"n_fft": 12, "center": False},
        {"n_fft": 16, "onesided": False, "return_complex": True},
    ],
)
def test_istft_equals_pytorchs(given, compiled):
    torch = pytest.importorskip("torch")
    points = given["n_fft"] if "onesided" in given else given["n_fft"] // 2 + 1
    for lead in ((), (2,)):
        x = signal(*lead, points, 9, is_complex=True)
        theirs = torch.tensor(x, requires_grad=True)
        no = {"return_complex": False}
        expected = torch.istft(theirs, **options(torch, no | given))
        cotangent = torch.randn_like(expected)
        (gradient,) = torch.autograd.grad(expected, theirs, cotangent)
        ours = tc.tensor(x, requires_grad=True)

        def run(x, given=no | given):
            return tc.istft(x, **options(tc, given))

        found = (tc.compile(run) if compiled else run)(ours)
        close(found, expected)
        close(tc.autograd.grad(found, ours, tc.from_numpy(cotangent.numpy()))[0], gradient)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["bartlett", "blackman", "hamming", "hann", "kaiser"])
def test_windows_equal_pytorchs(name):
    torch = pytest.importorskip("torch")
    for n in (0, 1, 5, 8):
        for periodic in (True, False):
            ours = getattr(tc, f"{name}_window")(n, periodic, dtype=tc.float64)
            close(ours, getattr(torch, f"{name}_window")(n, periodic, dtype=torch.float64))
    assert getattr(tc, f"{name}_window")(4).dtype is tc.float32


def test_istft_gives_back_the_signal():
    x = tc.from_numpy(signal(3, 64))
    window = tc.hann_window(16, dtype=tc.float64)
    spectrum = tc.stft(x, 16, 4, window=window, return_complex=True)
    assert spectrum.shape == (3, 9, 17)
    back = tc.istft(spectrum, 16, 4, window=window, length=64)
    np.testing.assert_allclose(back.numpy(), x.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: tc.stft(x, 16), "requires the return_complex parameter"),
        (lambda x: tc.stft(x, 90, return_complex=True, center=False), "0 < n_fft <= 40, given 90"),
        (lambda x: tc.stft(x, 16, 0, return_complex=True), "hop_length > 0"),
        (lambda x: tc.stft(x, 16, window=tc.ones(9), return_complex=True), "of size equal to win_"),
        (lambda x: tc.stft(x, 16, pad_mode="edge", return_complex=True), "pad_mode must be one of"),
        (lambda x: tc.stft(x * 1j, 16, onesided=True), "Cannot have onesided output"),
        (lambda x: tc.istft(tc.ones(9, 3), 16), "requires a complex-valued input"),
        (lambda x: tc.istft(tc.ones(8, 3) * 1j, 16), "to be 9 for n_fft=16, given 8"),
        (lambda x: tc.istft(tc.ones(9, 3) * 1j, 16, window=tc.zeros(16)), "overlap add min"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(RuntimeError, match=message):
        call(tc.ones(40))
