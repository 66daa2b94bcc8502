"""Reductions and normalisations of the elements that a mask picks (True takes part)."""

from __future__ import annotations

import math
from typing import Any

from tracecc.functional import FUNCTIONS as F
from tracecc.functional.core import expanded
from tracecc.tensor import Tensor
from tracecc_ir.types import DType, bool_, i64

__all__ = [
    "amax",
    "amin",
    "argmax",
    "argmin",
    "cumprod",
    "cumsum",
    "log_softmax",
    "logaddexp",
    "logsumexp",
    "mean",
    "median",
    "norm",
    "normalize",
    "prod",
    "softmax",
    "softmin",
    "std",
    "sum",
    "var",
]

Dim = int | tuple[int, ...] | None


def _picked(input: Tensor, mask: Tensor | None, fill: Any) -> Tensor:
    """``input`` with what the mask leaves out replaced by what does not count."""
    if mask is None:
        return input
    if mask.dtype is not bool_:
        raise TypeError(f"a mask must be a bool tensor, given {mask.dtype.public}")
    return F["where"](expanded(mask, input._type.shape), input, fill)


def _as(input: Tensor, dtype: DType | None) -> Tensor:
    return input if dtype is None else input.to(dtype)


def _summable(input: Tensor, dtype: DType | None) -> Tensor:
    """Sums of integers and bools are int64."""
    return input.to(i64) if dtype is None and not input.dtype.is_inexact else _as(input, dtype)


def _reduced(name: str, x: Tensor, dim: Dim, keepdim: bool) -> Tensor:
    dims = tuple(range(x.ndim)) if dim is None else dim
    if dims == () or (isinstance(dims, tuple) and not dims):
        return x.clone()
    return F[name](x, dims, keepdim)


def _extreme(dtype: DType, lowest: bool) -> Any:
    if dtype.kind == "float":
        return -math.inf if lowest else math.inf
    if dtype is bool_:
        return not lowest
    low = -(2 ** (dtype.bits - 1)) if dtype.is_signed else 0
    high = 2 ** (dtype.bits - dtype.is_signed) - 1
    return low if lowest else high


def sum(
    input: Tensor,
    dim: Dim = None,
    *,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The sum over ``dim``; 0 where nothing is picked.

    >>> import tracecc as tc
    >>> tc.masked.sum(tc.tensor([1.0, 2.0, 4.0]), mask=tc.tensor([True, False, True]))
    tensor(5.)
    """
    return _reduced("sum", _picked(_summable(input, dtype), mask, 0), dim, keepdim)


def prod(
    input: Tensor,
    dim: Dim = None,
    *,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The product over ``dim``; 1 where nothing is picked."""
    x = _picked(_summable(input, dtype), mask, 1)
    dims = range(x.ndim) if dim is None else (dim if isinstance(dim, tuple) else (dim,))
    for d in sorted((d % max(x.ndim, 1) for d in dims), reverse=True):
        x = F["prod"](x, d, keepdim)
    return x


def _bounded(
    name: str, input: Tensor, dim: Dim, keepdim: bool, dtype: DType | None, mask: Tensor | None
) -> Tensor:
    x = _as(input, dtype)
    return _reduced(name, _picked(x, mask, _extreme(x.dtype, name == "amax")), dim, keepdim)


def amax(
    input: Tensor,
    dim: Dim = None,
    *,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The maximum over ``dim``."""
    return _bounded("amax", input, dim, keepdim, dtype, mask)


def amin(
    input: Tensor,
    dim: Dim = None,
    *,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The minimum over ``dim``."""
    return _bounded("amin", input, dim, keepdim, dtype, mask)


def argmax(
    input: Tensor,
    dim: int | None = None,
    *,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The position of the maximum, in the input's dtype as in PyTorch."""
    x = _as(input, dtype)
    return F["argmax"](_picked(x, mask, _extreme(x.dtype, True)), dim, keepdim).to(x.dtype)


def argmin(
    input: Tensor,
    dim: int | None = None,
    *,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The position of the minimum, in the input's dtype as in PyTorch."""
    x = _as(input, dtype)
    return F["argmin"](_picked(x, mask, _extreme(x.dtype, False)), dim, keepdim).to(x.dtype)


def cumsum(
    input: Tensor, dim: int, *, dtype: DType | None = None, mask: Tensor | None = None
) -> Tensor:
    """Running sums."""
    return F["cumsum"](_picked(_summable(input, dtype), mask, 0), dim)


def cumprod(
    input: Tensor, dim: int, *, dtype: DType | None = None, mask: Tensor | None = None
) -> Tensor:
    """Running products."""
    return F["cumprod"](_picked(_summable(input, dtype), mask, 1), dim)


def _count(input: Tensor, dim: Dim, keepdim: bool, mask: Tensor | None) -> Tensor:
    ones = F["ones"](tuple(input.shape), dtype=i64)
    return _reduced("sum", _picked(ones, mask, 0), dim, keepdim)


def mean(
    input: Tensor,
    dim: Dim = None,
    *,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The mean over ``dim``; NaN where nothing is picked."""
    x = _as(input, dtype)
    x = x.to(i64) if x.dtype is bool_ else x
    total = _reduced("sum", _picked(x, mask, 0), dim, keepdim)
    return total / _count(x, dim, keepdim, mask)


def median(
    input: Tensor,
    dim: int = -1,
    *,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The lower median; NaN where nothing is picked. Floats only."""
    x = _as(input, dtype)
    if x.dtype.kind != "float":
        raise ValueError(f"masked median expects a floating point tensor, given {x.dtype.public}")
    if mask is None:
        return F["median"](x, dim, keepdim).values
    found = F["nanmedian"](_picked(x, mask, math.nan), dim, keepdim).values
    return found


def logsumexp(
    input: Tensor,
    dim: Dim = None,
    *,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """log of the sum of exponentials, in the input's dtype; -inf where nothing is picked."""
    x = _as(input, dtype)
    found = x.dtype
    x = x if found.is_inexact else x.to(F["get_default_dtype"]())
    dims = tuple(range(x.ndim)) if dim is None else dim
    return F["logsumexp"](_picked(x, mask, -math.inf), dims, keepdim).to(found)


def logaddexp(
    input: Tensor,
    other: Tensor,
    *,
    dtype: DType | None = None,
    input_mask: Tensor | None = None,
    other_mask: Tensor | None = None,
) -> Tensor:
    """log(exp(input) + exp(other)), where what is left out of either counts for nothing."""
    x = _picked(_as(input, dtype), input_mask, -math.inf)
    y = _picked(_as(other, dtype), other_mask, -math.inf)
    return F["logaddexp"](x, y)


def norm(
    input: Tensor,
    ord: float = 2.0,
    dim: Dim = None,
    *,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The vector norm over ``dim``."""
    from tracecc.functional.reductions import vector_norm

    x = _picked(_as(input, dtype), mask, math.inf if ord < 0 else 0.0)
    return vector_norm(x, ord, dim, keepdim)


def _variance(
    input: Tensor,
    dim: Dim,
    unbiased: bool | None,
    correction: Any,
    keepdim: bool,
    dtype: DType | None,
    mask: Tensor | None,
) -> Tensor:
    if unbiased is not None and correction is not None:
        raise ValueError("var and std take unbiased or correction, given both")
    correction = (1 if unbiased is not False else 0) if correction is None else correction
    x = _as(input, dtype)
    x = x if x.dtype.is_inexact else x.to(F["get_default_dtype"]())
    count = _count(x, dim, True, mask)
    total = _reduced("sum", _picked(x, mask, 0.0), dim, True)
    away = _picked(x - total / count, mask, 0.0)
    squares = _reduced("sum", away * away.conj(), dim, keepdim)
    free = _count(x, dim, keepdim, mask) - correction
    return squares / free.clamp(min=0)


def var(
    input: Tensor,
    dim: Dim = None,
    unbiased: bool | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The variance over ``dim``."""
    return _variance(input, dim, unbiased, correction, keepdim, dtype, mask)


def std(
    input: Tensor,
    dim: Dim = None,
    unbiased: bool | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The standard deviation over ``dim``."""
    return F["sqrt"](_variance(input, dim, unbiased, correction, keepdim, dtype, mask))


def softmax(
    input: Tensor, dim: int, *, dtype: DType | None = None, mask: Tensor | None = None
) -> Tensor:
    """Softmax; 0 where left out, NaN where nothing is picked."""
    return F["softmax"](_picked(_as(input, dtype), mask, -math.inf), dim)


def log_softmax(
    input: Tensor, dim: int, *, dtype: DType | None = None, mask: Tensor | None = None
) -> Tensor:
    """The logarithm of `softmax`."""
    return F["log_softmax"](_picked(_as(input, dtype), mask, -math.inf), dim)


def softmin(
    input: Tensor, dim: int, *, dtype: DType | None = None, mask: Tensor | None = None
) -> Tensor:
    """`softmax` of the negative."""
    return F["softmax"](-_picked(_as(input, dtype), mask, math.inf), dim)


def normalize(
    input: Tensor,
    ord: float,
    dim: int,
    *,
    eps: float = 1e-12,
    dtype: DType | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """``input`` divided by its norm; 0 where left out."""
    x = _as(input, dtype)
    size = norm(x, ord, dim, keepdim=True, mask=mask).clamp(min=eps)
    return _picked(x, mask, 0.0) / size
