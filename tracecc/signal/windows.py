"""Window functions: ``M`` samples, symmetric or (``sym=False``) one period of a periodic window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tracecc.functional.core import default_dtype
from tracecc.functional.creation import asarray
from tracecc.lacking import unknown
from tracecc.tensor import Tensor
from tracecc_ir.types import DType

__all__ = [
    "bartlett",
    "blackman",
    "cosine",
    "exponential",
    "gaussian",
    "general_cosine",
    "general_hamming",
    "hamming",
    "hann",
    "kaiser",
    "nuttall",
]


def _made(
    name: str,
    M: int,
    sym: bool,
    formula: Callable[[np.ndarray, int], np.ndarray],
    dtype: DType | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The formula at 0 .. M-1 for a window whose last sample is at ``last``."""
    if M < 0:
        raise ValueError(f"{name} requires non-negative window length, got M={M}")
    found = default_dtype() if dtype is None else dtype
    if found.kind != "float":
        raise ValueError(f"{name} expects float32 or float64 dtypes, got: {found.public}")
    values = np.ones(M)
    if M > 1:
        values = formula(np.arange(M, dtype=np.float64), M - 1 if sym else M)
    t = asarray(values.astype(found.numpy), device=device)
    return t.requires_grad_(requires_grad)


def general_cosine(M: int, *, a: Iterable[float], sym: bool = True, **keywords: Any) -> Tensor:
    """The sum of ``(-1)^k a[k] cos(2 pi k n / last)``."""
    weights = list(a)
    if not weights:
        raise ValueError("Coefficients cannot be empty")

    def formula(n: np.ndarray, last: int) -> np.ndarray:
        terms = ((-1) ** k * w * np.cos(2 * math.pi * k * n / last) for k, w in enumerate(weights))
        return np.sum(list(terms), 0)

    return _made("general_cosine", M, sym, formula, **keywords)


def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True, **keywords: Any) -> Tensor:
    """``alpha - (1 - alpha) cos(2 pi n / last)``."""
    return general_cosine(M, a=[alpha, 1 - alpha], sym=sym, **keywords)


def hamming(M: int, *, sym: bool = True, **keywords: Any) -> Tensor:
    """The Hamming window: `general_hamming` with 0.54."""
    return general_hamming(M, sym=sym, **keywords)


def hann(M: int, *, sym: bool = True, **keywords: Any) -> Tensor:
    """The Hann window: `general_hamming` with 0.5."""
    return general_hamming(M, alpha=0.5, sym=sym, **keywords)


def blackman(M: int, *, sym: bool = True, **keywords: Any) -> Tensor:
    """The Blackman window."""
    return general_cosine(M, a=[0.42, 0.5, 0.08], sym=sym, **keywords)


def nuttall(M: int, *, sym: bool = True, **keywords: Any) -> Tensor:
    """The minimum 4-term Blackman-Harris window after Nuttall (1981)."""
    return general_cosine(M, a=[0.3635819, 0.4891775, 0.1365995, 0.0106411], sym=sym, **keywords)


def bartlett(M: int, *, sym: bool = True, **keywords: Any) -> Tensor:
    """The triangle ``1 - |2 n / last - 1|``."""
    return _made("bartlett", M, sym, lambda n, last: 1 - np.abs(2 * n / last - 1), **keywords)


def cosine(M: int, *, sym: bool = True, **keywords: Any) -> Tensor:
    """``sin(pi (n + 1/2) / (last + 1))``."""
    return _made(
        "cosine", M, sym, lambda n, last: np.sin(math.pi * (n + 0.5) / (last + 1)), **keywords
    )


def exponential(
    M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True, **keywords: Any
) -> Tensor:
    """``exp(-|n - center| / tau)``; the centre is the window's unless it is periodic and given."""
    if tau <= 0:
        raise ValueError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")

    def formula(n: np.ndarray, last: int) -> np.ndarray:
        middle = last / 2 if center is None else center
        return np.exp(-np.abs(n - middle) / tau)

    return _made("exponential", M, sym, formula, **keywords)


def gaussian(M: int, *, std: float = 1.0, sym: bool = True, **keywords: Any) -> Tensor:
    """``exp(-((n - last / 2) / std)^2 / 2)``."""
    if std <= 0:
        raise ValueError(f"Standard deviation must be positive, got: {std} instead.")
    return _made(
        "gaussian", M, sym, lambda n, last: np.exp(-(((n - last / 2) / std) ** 2) / 2), **keywords
    )


def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, **keywords: Any) -> Tensor:
    """``I0(beta sqrt(1 - (2 n / last - 1)^2)) / I0(beta)`` (Kaiser, 1966)."""
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")

    def formula(n: np.ndarray, last: int) -> np.ndarray:
        inside = np.maximum(1 - (2 * n / last - 1) ** 2, 0)
        return np.i0(beta * np.sqrt(inside)) / np.i0(beta)

    return _made("kaiser", M, sym, formula, **keywords)


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
