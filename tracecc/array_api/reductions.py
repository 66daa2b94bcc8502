"""Statistical and utility functions of the array API."""

from __future__ import annotations

import builtins
from typing import Any

import tracecc as tc
from tracecc.tensor import Tensor

Axes = int | tuple[int, ...] | None


def _axes(x: Tensor, axis: Axes) -> tuple[int, ...]:
    """The axes as a tuple; an empty one stands for none."""
    if axis is None:
        return tuple(range(x.ndim))
    return (axis,) if isinstance(axis, int) else tuple(axis)


def _widened(x: Tensor, dtype: Any) -> Tensor:
    """What is summed up: integers in the default integer type."""
    if dtype is None and not (x.dtype.is_floating_point or x.dtype.is_complex):
        dtype = tc.int64
    return x if dtype is None else x.to(dtype)


def all(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether everything along axes is true."""
    axes = _axes(x, axis)
    x = x.to(tc.bool)
    return tc.all(x, axes, keepdims) if axes else x


def any(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether anything along axes is true."""
    axes = _axes(x, axis)
    x = x.to(tc.bool)
    return tc.any(x, axes, keepdims) if axes else x


def _place(find: Any, x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    if axis is not None:
        return find(x, axis, keepdims)
    found = find(x.reshape(-1), 0)
    return found.reshape((1,) * x.ndim) if keepdims else found


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The first place of the largest element along an axis."""
    return _place(tc.argmax, x, axis, keepdims)


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The first place of the smallest element along an axis."""
    return _place(tc.argmin, x, axis, keepdims)


def count_nonzero(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """How many elements along axes are not zero."""
    return sum(x.to(tc.bool), axis=axis, keepdims=keepdims)


def _cumulative(
    run: Any, first: int, x: Tensor, axis: int | None, dtype: Any, include_initial: bool
) -> Tensor:
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"axis must be given for an array of {x.ndim} dimensions")
        axis = 0
    found = run(_widened(x, dtype), axis)
    if not include_initial:
        return found
    sizes = list(found.shape)
    sizes[axis] = 1
    return tc.cat([tc.full(sizes, first, dtype=found.dtype), found], axis)


def cumulative_prod(
    x: Tensor, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """Products of all elements up to each along an axis; with ``include_initial`` 1 comes first."""
    return _cumulative(tc.cumprod, 1, x, axis, dtype, include_initial)


def cumulative_sum(
    x: Tensor, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """Sums of all elements up to each along an axis; with ``include_initial`` 0 comes first.

    >>> cumulative_sum(tc.tensor([1, 2, 3]), include_initial=True)
    tensor([0, 1, 3, 6])
    """
    return _cumulative(tc.cumsum, 0, x, axis, dtype, include_initial)


def diff(
    x: Tensor,
    /,
    *,
    axis: int = -1,
    n: int = 1,
    prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:
    """Differences of neighbours along an axis, n times over."""
    return tc.diff(x, n, axis, prepend, append)


def max(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The largest element along axes."""
    axes = _axes(x, axis)
    return tc.amax(x, axes, keepdims) if axes else x.clone()


def mean(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The mean along axes."""
    axes = _axes(x, axis)
    return tc.mean(x, axes, keepdims) if axes else x.clone()


def min(x: Tensor, /, *, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The smallest element along axes."""
    axes = _axes(x, axis)
    return tc.amin(x, axes, keepdims) if axes else x.clone()


def prod(x: Tensor, /, *, axis: Axes = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The product along axes; of integers in the default integer type."""
    axes = sorted((a % builtins.max(x.ndim, 1) for a in _axes(x, axis)), reverse=True)
    x = _widened(x, dtype)
    for a in axes:
        x = tc.prod(x, a, keepdims)
    return x if axes else x.clone()


def std(
    x: Tensor, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> Tensor:
    """The standard deviation along axes, of n - correction degrees of freedom."""
    return tc.sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


def sum(x: Tensor, /, *, axis: Axes = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The sum along axes; of integers in the default integer type.

    >>> sum(tc.tensor([[1, 2], [3, 4]], dtype=tc.int8), axis=1)
    tensor([3, 7])
    """
    axes, x = _axes(x, axis), _widened(x, dtype)
    return tc.sum(x, axes, keepdims) if axes else x.clone()


def var(
    x: Tensor, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False
) -> Tensor:
    """The variance along axes, of n - correction degrees of freedom."""
    axes = _axes(x, axis)
    return tc.var(x, axes, keepdim=keepdims, correction=correction) if axes else tc.zeros_like(x)
