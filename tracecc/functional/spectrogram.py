"""Short-time Fourier transforms: frames of a signal under a window, and back by overlapping."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracecc.functional.complex import view_as_real
from tracecc.functional.core import check_tensor, promoted, reshaped, splat, to_dtype
from tracecc.functional.creation import ones, zeros
from tracecc.functional.fourier import fft, ifft, irfft, rfft
from tracecc.functional.indexing import index_add, index_select
from tracecc.functional.joining import cat
from tracecc.functional.pointwise import abs as abs_
from tracecc.functional.pointwise import div, mul
from tracecc.functional.reductions import amin
from tracecc.functional.shape import narrow, transpose, unfold
from tracecc.state import thread
from tracecc.tensor import Tensor, wrap

_PADDING: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _check(name: str, holds: bool, what: str) -> None:
    if not holds:
        raise RuntimeError(f"{name}(): expected {what}")


def _window(
    name: str, n_fft: int, win_length: int | None, window: Tensor | None, like: Tensor
) -> Tensor | None:
    """The window in the middle of ``n_fft`` points; None if it is one everywhere."""
    length = n_fft if win_length is None else win_length
    _check(name, 0 < length <= n_fft, f"0 < win_length <= n_fft={n_fft}, given {length}")
    if window is None:
        if length == n_fft:
            return None
        window = ones(length, dtype=like.dtype.to_real())
    _check(
        name,
        tuple(window._type.shape) == (length,),
        f"a 1D window tensor of size equal to win_length={length}, given {list(window.shape)}",
    )
    left = (n_fft - length) // 2
    parts = [zeros(n, dtype=window.dtype) for n in (left, n_fft - length - left)]
    return cat([parts[0], window, parts[1]]) if length < n_fft else window


def _padded(x: Tensor, by: int, mode: str) -> Tensor:
    """[batch, time] with more time before and after."""
    if mode == "constant":
        edge = splat(0, (x._type.shape[0], by), x.dtype)
        return cat([edge, x, edge], 1)
    if mode not in _PADDING:
        known = ", ".join(("constant", *_PADDING))
        raise RuntimeError(f"stft(): pad_mode must be one of {known}, given {mode!r}")
    n: Any = x._type.shape[1]
    _check(
        "stft", mode != "reflect" or by < n, f"a signal longer than n_fft // 2 = {by} to reflect"
    )
    return index_select(x, 1, wrap(np.pad(np.arange(n), by, mode=_PADDING[mode])))


def stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
) -> Tensor:
    """The Fourier transforms of overlapping frames of a signal.

    Args:
        input: [time] or [batch, time].
        n_fft: points of each transform.
        hop_length: distance of frames; n_fft // 4 by default.
        win_length: length of the window, which is put in the middle of each frame; n_fft by
            default.
        window: factors [win_length]; ones by default.
        center: whether frame t lies around time t * hop_length, by padding n_fft // 2 on both
            sides as ``pad_mode`` says ("reflect", "replicate", "circular" or "constant").
        pad_mode: see ``center``.
        normalized: whether to divide by sqrt(n_fft).
        onesided: only frequencies up to n_fft // 2; by default for real signals.
        return_complex: must be given for real signals; False gives pairs of real numbers.

    Returns:
        [batch, frequencies, frames], complex.

    >>> import tracecc as tc
    >>> tc.stft(tc.ones(8), 4, 2, return_complex=True, center=False).shape
    tracecc.Size([3, 3])
    """
    x = check_tensor("stft", input)
    _check(
        "stft", x.dtype.is_inexact, f"a floating point or complex tensor, given {x.dtype.public}"
    )
    is_complex = x.dtype.is_complex or (window is not None and window.dtype.is_complex)
    if return_complex is None and not is_complex:
        raise RuntimeError(
            "stft requires the return_complex parameter be given for real inputs, and will further "
            "require that return_complex=True in a future PyTorch release."
        )
    hop = n_fft // 4 if hop_length is None else hop_length
    _check("stft", x.ndim in (1, 2), f"a 1D or 2D tensor, given {x.ndim}D")
    single = x.ndim == 1
    x = reshaped(x, (1, *x._type.shape)) if single else x
    if center:
        x = _padded(x, n_fft // 2, pad_mode)
    time: Any = x._type.shape[1]
    _check("stft", 0 < n_fft <= time, f"0 < n_fft <= {time}, given {n_fft}")
    _check("stft", hop > 0, f"hop_length > 0, given {hop}")
    factors = _window("stft", n_fft, win_length, window, x)
    frames = unfold(x, 1, n_fft, hop)
    frames = frames if factors is None else mul(frames, factors)
    if onesided and is_complex:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    half = not is_complex if onesided is None else onesided
    found = (rfft if half else fft)(frames, norm="ortho" if normalized else None)
    found = transpose(found, 1, 2)
    found = reshaped(found, found._type.shape[1:]) if single else found
    return view_as_real(found) if return_complex is False else found


def istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """The signal of least squared error to what `stft` gave with the same arguments.

    Frames are transformed back, multiplied by the window and added where they overlap; the sum is
    divided by that of the squared windows (Griffin & Lim, 1984).

    Args:
        input: [batch, frequencies, frames] or [frequencies, frames], complex.
        n_fft, hop_length, win_length, window, center, normalized, onesided: as in `stft`.
        length: of the signal; what the frames cover by default.
        return_complex: whether the signal is complex.

    Raises:
        RuntimeError: wrong sizes, or the windows leave a gap.
    """
    x = check_tensor("istft", input)
    if not x.dtype.is_complex:
        raise RuntimeError(
            "istft requires a complex-valued input tensor matching the output from stft with "
            "return_complex=True."
        )
    hop = n_fft // 4 if hop_length is None else hop_length
    _check("istft", x.ndim in (2, 3), f"a tensor with 2 or 3 dimensions, given {x.ndim}")
    single = x.ndim == 2
    x = reshaped(x, (1, *x._type.shape)) if single else x
    batch, frequencies, count = (int(n) for n in x._type.shape)  # type: ignore[arg-type]
    half = frequencies != n_fft if onesided is None else onesided
    points = n_fft // 2 + 1 if half else n_fft
    _check(
        "istft",
        frequencies == points,
        f"the frequency dimension (3rd to the last) to be {points} for n_fft={n_fft}, "
        f"given {frequencies}",
    )
    _check("istft", 0 < hop <= (win_length or n_fft), f"0 < hop_length <= win_length, given {hop}")
    if return_complex and half:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    norm = "ortho" if normalized else None
    x = transpose(x, 1, 2)
    frames = (
        ifft(x, norm=norm)
        if return_complex
        else irfft(narrow(x, 2, 0, n_fft // 2 + 1), n_fft, norm=norm)
    )
    factors = _window("istft", n_fft, win_length, window, x)
    if factors is None:
        factors = ones(n_fft, dtype=frames.dtype.to_real())
    if factors.dtype.is_complex and not return_complex:
        raise RuntimeError("Complex windows are incompatible with return_complex=False")
    total = n_fft + hop * (count - 1)
    place = wrap((np.arange(count)[:, None] * hop + np.arange(n_fft)).reshape(-1))
    dtype = promoted(frames, factors)
    signal = reshaped(mul(to_dtype(frames, dtype), factors), (batch, count * n_fft))
    signal = index_add(zeros(batch, total, dtype=dtype), 1, place, signal)
    squares = mul(factors, factors)
    squares = reshaped(mul(ones(count, 1, dtype=squares.dtype), squares), (count * n_fft,))
    envelope = index_add(zeros(total, dtype=squares.dtype), 0, place, squares)
    start = n_fft // 2 if center else 0
    end = total - start if length is None else min(start + length, total)
    signal, envelope = (
        narrow(signal, 1, start, end - start),
        narrow(envelope, 0, start, end - start),
    )
    _check_gaps(envelope)
    signal = div(signal, envelope)
    if length is not None and length > end - start:
        rest = splat(0, (batch, length - (end - start)), signal.dtype)
        signal = cat([signal, rest], 1)
    return reshaped(signal, signal._type.shape[1:]) if single else signal


def _check_gaps(envelope: Tensor) -> None:
    """Refuses windows that add up to zero somewhere, where that is known before the graph runs."""
    if thread.trace is not None:
        return
    least = amin(abs_(envelope.detach())).item()  # type: ignore[attr-defined]
    if least <= 1e-11:
        raise RuntimeError(
            f"istft(): window overlap add min: {least}: the windows leave a gap; use a smaller "
            "hop_length or center=True"
        )
