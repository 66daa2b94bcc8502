"""`torch.hann_window` and its kin: the windows of `signal.windows`, periodic by default."""

from __future__ import annotations

from typing import Any

from tracecc.signal import windows
from tracecc.tensor import Tensor

__all__ = ["bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window"]


def bartlett_window(window_length: int, periodic: bool = True, **keywords: Any) -> Tensor:
    """A triangle; ``dtype``, ``device`` and ``requires_grad`` as in `zeros`."""
    return windows.bartlett(window_length, sym=not periodic, **keywords)


def blackman_window(window_length: int, periodic: bool = True, **keywords: Any) -> Tensor:
    """``0.42 - 0.5 cos(2 pi n / N) + 0.08 cos(4 pi n / N)``."""
    return windows.blackman(window_length, sym=not periodic, **keywords)


def hamming_window(
    window_length: int,
    periodic: bool = True,
    alpha: float = 0.54,
    beta: float = 0.46,
    **keywords: Any,
) -> Tensor:
    """``alpha - beta cos(2 pi n / N)``."""
    return windows.general_cosine(window_length, a=[alpha, beta], sym=not periodic, **keywords)


def hann_window(window_length: int, periodic: bool = True, **keywords: Any) -> Tensor:
    """``sin(pi n / N)^2``, where N is one more than the last n if ``periodic``.

    >>> import tracecc as tc
    >>> tc.hann_window(4)
    tensor([0.0000, 0.5000, 1.0000, 0.5000])
    """
    return windows.hann(window_length, sym=not periodic, **keywords)


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, **keywords: Any
) -> Tensor:
    """``I0(beta sqrt(1 - (2 n / N - 1)^2)) / I0(beta)``."""
    return windows.kaiser(window_length, beta=beta, sym=not periodic, **keywords)
