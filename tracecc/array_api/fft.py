"""The Fourier transforms of the array API: :mod:`tracecc.fft` with the standard's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tracecc as tc
from tracecc.tensor import Tensor


def _one(name: str, does: str) -> Callable[..., Tensor]:
    transform = getattr(tc.fft, name)

    def call(
        x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward"
    ) -> Tensor:
        return transform(x, n, axis, norm)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = does
    return call


def _several(name: str, does: str) -> Callable[..., Tensor]:
    transform = getattr(tc.fft, name)

    def call(
        x: Tensor,
        /,
        *,
        s: Sequence[int] | None = None,
        axes: Sequence[int] | None = None,
        norm: str = "backward",
    ) -> Tensor:
        return transform(x, s, axes, norm)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = does
    return call


fft = _one("fft", "The discrete Fourier transform along an axis.")
ifft = _one("ifft", "The inverse of ``fft``.")
rfft = _one("rfft", "The first half of the transform of real numbers, which decides the other.")
irfft = _one("irfft", "The inverse of ``rfft``: real.")
hfft = _one("hfft", "The transform of half of what is Hermitian: real.")
ihfft = _one("ihfft", "The inverse of ``hfft``.")
fftn = _several("fftn", "The discrete Fourier transform along axes.")
ifftn = _several("ifftn", "The inverse of ``fftn``.")
rfftn = _several("rfftn", "``rfft`` along the last of the axes and ``fft`` along the others.")
irfftn = _several("irfftn", "The inverse of ``rfftn``.")


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of the results of a transform of n samples a distance d apart."""
    return tc.fft.fftfreq(n, d, dtype=dtype, device=device)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The same for ``rfft``."""
    return tc.fft.rfftfreq(n, d, dtype=dtype, device=device)


def fftshift(x: Tensor, /, *, axes: int | Sequence[int] | None = None) -> Tensor:
    """Frequency 0 moved to the middle."""
    return tc.fft.fftshift(x, axes)


def ifftshift(x: Tensor, /, *, axes: int | Sequence[int] | None = None) -> Tensor:
    """The inverse of ``fftshift``."""
    return tc.fft.ifftshift(x, axes)
