"""Reductions: sums, extrema, statistics, norms, and running versions of them."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tracecc.dispatch import own
from tracecc.functional.core import (
    Dims,
    check_tensor,
    emit,
    expanded,
    reshaped,
    splat,
    to_dtype,
    to_float,
    wrap_dim,
    wrap_dims,
)
from tracecc.functional.pointwise import abs as _abs
from tracecc.functional.pointwise import (
    add,
    clamp,
    clone,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    sign,
    square,
    sub,
)
from tracecc.functional.pointwise import pow as _pow
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.op import Op
from tracecc_ir.types import DType, bool_, i64


class ValuesIndices(NamedTuple):
    """Chosen elements and where they were."""

    values: Tensor
    indices: Tensor


def reduce(op: Op, x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """One reduction over wrapped dimensions."""
    kept = tuple(1 if i in dims else n for i, n in enumerate(x._type.shape))
    y = emit(op, x, axes=dims) if dims else clone(x)
    return reshaped(y, kept) if keepdim else y


def _summed(input: Tensor, dtype: DType | None) -> Tensor:
    """What is added up: integers and bools as int64 unless a dtype is given."""
    if dtype is not None:
        return to_dtype(input, dtype)
    return input if input.dtype.is_inexact else to_dtype(input, i64)


def sum(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The sum over ``dim`` (all by default); sums of integers are int64.

    >>> import tracecc as tc
    >>> tc.sum(tc.ones(2, 3), dim=1)
    tensor([3., 3.])
    """
    x = _summed(check_tensor("sum", input), dtype)
    if x.dtype is bool_:
        return reduce(ops.reduce_max, x, wrap_dims(dim, x.ndim), keepdim)
    return reduce(ops.reduce_sum, x, wrap_dims(dim, x.ndim), keepdim)


def nansum(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The sum without NaN."""
    if input.dtype.kind == "float":
        zero = splat(0, input._type.shape, input.dtype)
        input = emit(ops.select, emit(ops.isnan, input), zero, input)
    return sum(input, dim, keepdim, dtype=dtype)


def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The product over ``dim`` (all by default); products of integers are int64."""
    x = _summed(input, dtype)
    if x.dtype is bool_:
        return reduce(ops.reduce_min, x, wrap_dims(dim, x.ndim), keepdim)
    return reduce(ops.reduce_prod, x, wrap_dims(dim, x.ndim), keepdim)


def _length(x: Tensor, dims: Sequence[int]) -> Any:
    return math.prod(x._type.shape[d] for d in dims)  # type: ignore[misc]


def mean(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The mean over ``dim`` (all by default), of floats only unless ``dtype`` is a float type."""
    x = input if dtype is None else to_dtype(input, dtype)
    if not x.dtype.is_inexact:
        raise RuntimeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point "
            f"or complex dtype. Got: {x.dtype.public}"
        )
    dims = wrap_dims(dim, x.ndim)
    return reduce(ops.mean, x, dims, keepdim)


def nanmean(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The mean without NaN."""
    x = input if dtype is None else to_dtype(input, dtype)
    kept = to_dtype(emit(ops.bit_not, emit(ops.isnan, x)), x.dtype)
    return div(nansum(x, dim, keepdim), sum(kept, dim, keepdim))


def _variance(
    input: Tensor, dim: Any, unbiased: Any, correction: Any, keepdim: bool
) -> tuple[Tensor, Tensor]:
    if isinstance(dim, bool):  # var(input, unbiased)
        dim, unbiased = None, dim
    if not input.dtype.is_inexact:
        raise RuntimeError("std and var only support floating point and complex dtypes")
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    dims = wrap_dims(dim, input.ndim)
    centre = mean(input, dims, True) if dims else input
    deviation = emit(ops.sub, input, expanded(centre, input._type.shape))
    distance = _abs(deviation) if input.dtype.is_complex else deviation
    total = reduce(ops.reduce_sum, square(distance), dims, keepdim)
    n = builtins.max(_length(input, dims) - correction, 0)
    shape = total._type.shape
    return emit(ops.div, total, splat(n, shape, total.dtype)), reshaped(centre, shape)


def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The variance over ``dim``: squared deviations divided by n - ``correction`` (1)."""
    return _variance(input, dim, unbiased, correction, keepdim)[0]


def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The square root of `var`."""
    return _root(_variance(input, dim, unbiased, correction, keepdim)[0])


def _root(x: Tensor) -> Tensor:
    """The square root, with gradient 0 at 0."""
    zero = splat(0, x._type.shape, x.dtype)
    is_zero = emit(ops.eq, x, zero)
    safe = emit(ops.select, is_zero, splat(1, x._type.shape, x.dtype), x)
    return emit(ops.select, is_zero, zero, emit(ops.sqrt, safe))


def var_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`var` and `mean` together."""
    return _variance(input, dim, unbiased, correction, keepdim)


def std_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`std` and `mean` together."""
    variance, centre = _variance(input, dim, unbiased, correction, keepdim)
    return _root(variance), centre


# Extrema.


def _check_elements(name: str, input: Tensor, dims: Sequence[int]) -> None:
    for d in dims:
        if input._type.shape[d] == 0:
            raise IndexError(f"{name}(): Expected reduction dim {d} to have non-zero size.")


def amax(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The maximum over ``dim``; the gradient is shared by equal maxima."""
    dims = wrap_dims(dim, input.ndim)
    _check_elements("amax", input, dims)
    return reduce(ops.reduce_max, input, dims, keepdim)


def amin(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The minimum over ``dim``; the gradient is shared by equal minima."""
    dims = wrap_dims(dim, input.ndim)
    _check_elements("amin", input, dims)
    return reduce(ops.reduce_min, input, dims, keepdim)


def aminmax(
    input: Tensor, *, dim: int | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """`amin` and `amax` together."""
    return MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))


class MinMax(NamedTuple):
    """The smallest and the largest element."""

    min: Tensor
    max: Tensor


def _chosen(name: str, arg: Op, whole: Op, input: Tensor, dim: Any, keepdim: bool) -> Any:
    if dim is None:
        if input._type.size == 0:
            raise RuntimeError(
                f"{name}(): Expected reduction dim to be specified for input.numel() == 0. "
                "Specify the reduction dim with the 'dim' argument."
            )
        return reduce(whole, input, tuple(range(input.ndim)), False)
    axis = wrap_dim(dim, input.ndim)
    if input.ndim == 0:
        return ValuesIndices(clone(input), splat(0, (), i64))
    _check_elements(name, input, (axis,))
    indices = emit(arg, input, axis=axis)
    return picked(input, indices, axis, keepdim)


def picked(input: Tensor, indices: Tensor, axis: int, keepdim: bool) -> ValuesIndices:
    """The elements at ``indices`` (``axis`` dropped) and those, with or without the axis."""
    shape = input._type.shape
    kept = (*shape[:axis], 1, *shape[axis + 1 :])
    index = reshaped(indices, kept)
    values = emit(ops.gather_along, input, index, axis=axis)
    if keepdim:
        return ValuesIndices(values, index)
    return ValuesIndices(reshaped(values, indices._type.shape), indices)


def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The maximum of all; values and indices along ``dim``; or elementwise with another tensor.

    >>> import tracecc as tc
    >>> tc.max(tc.tensor([[1, 5], [7, 2]]), dim=1).values
    tensor([5, 7])
    """
    dim = other if dim is None else dim
    if isinstance(dim, Tensor):
        return maximum(input, dim)
    return _chosen("max", ops.argmax, ops.reduce_max, input, dim, keepdim)


def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The minimum of all; values and indices along ``dim``; or elementwise with another tensor."""
    dim = other if dim is None else dim
    if isinstance(dim, Tensor):
        return minimum(input, dim)
    return _chosen("min", ops.argmin, ops.reduce_min, input, dim, keepdim)


def _arg(op: Op, name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    ndim = input.ndim
    if dim is None:
        if input._type.size == 0:
            raise IndexError(
                f"{name}(): Expected reduction dim to be specified for input.numel() == 0. "
                "Specify the reduction dim with the 'dim' argument."
            )
        index = emit(op, reshaped(input, (input._type.size,)), axis=0)
        return reshaped(index, (1,) * ndim) if keepdim else index
    axis = wrap_dim(dim, ndim)
    if ndim == 0:
        return own(splat(0, (), i64))
    _check_elements(name, input, (axis,))
    index = emit(op, input, axis=axis)
    shape = input._type.shape
    return reshaped(index, (*shape[:axis], 1, *shape[axis + 1 :])) if keepdim else index


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first maximum, in the flattened tensor or along ``dim``."""
    return _arg(ops.argmax, "argmax", input, dim, keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the first minimum, in the flattened tensor or along ``dim``."""
    return _arg(ops.argmin, "argmin", input, dim, keepdim)


def _truth(op: Op, empty: bool, input: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    x = to_dtype(input, bool_)
    dims = wrap_dims(dim, x.ndim)
    if builtins.any(x._type.shape[d] == 0 for d in dims):
        from tracecc.functional.creation import full

        shape = [1 if i in dims else n for i, n in enumerate(x._type.shape)]
        kept = shape if keepdim else [n for i, n in enumerate(x._type.shape) if i not in dims]
        return full(tuple(kept), empty, dtype=bool_)
    y = reduce(op, x, dims, keepdim)
    return to_dtype(y, input.dtype) if input.dtype.name == "u8" else y


def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are nonzero."""
    return _truth(ops.reduce_min, True, input, dim, keepdim)


def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether some element is nonzero."""
    return _truth(ops.reduce_max, False, input, dim, keepdim)


def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """How many elements are nonzero, int64."""
    return sum(to_dtype(input, bool_), dim)


# Norms and logarithms of sums.


def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) over ``dim`` without overflow."""
    x = to_float(input)
    dims = wrap_dims(dim, x.ndim)
    if not dims and not x.dtype.is_complex:
        return clone(x)
    if _length(x, dims) == 0:
        return log(sum(exp(x), dims, keepdim))
    high = amax(emit(ops.real, x) if x.dtype.is_complex else x, dims, True).detach()
    high = emit(ops.select, emit(ops.isfinite, high), high, splat(0, high._type.shape, high.dtype))
    total = log(sum(exp(sub(x, high)), dims, keepdim))
    return add(total, reshaped(high, total._type.shape))


def vector_norm(
    x: Tensor,
    ord: Any = 2,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    """(sum |x|^ord)^(1/ord) over ``dim``; ord may be inf, -inf or 0 (the number of nonzeros)."""
    if dtype is not None:
        x = to_dtype(x, dtype)
    if not x.dtype.is_inexact:
        raise RuntimeError(
            "linalg.vector_norm: Expected a floating point or complex tensor as input. "
            f"Got {x.dtype.public}"
        )
    x = _abs(x) if x.dtype.is_complex else x
    dims = wrap_dims(dim, x.ndim)
    ord = float(ord)
    if ord == math.inf:
        return amax(_abs(x), dims, keepdim) if _length(x, dims) else sum(x, dims, keepdim)
    if ord == -math.inf:
        return amin(_abs(x), dims, keepdim)
    if ord == 0:
        return sum(_abs(sign(x)), dims, keepdim)
    if ord == 1:
        return sum(_abs(x), dims, keepdim)
    if ord == 2:
        return _root(sum(square(x), dims, keepdim))
    return _pow(sum(_pow(_abs(x), ord), dims, keepdim), 1 / ord)


def norm(
    input: Tensor,
    p: Any = "fro",
    dim: Dims = None,
    keepdim: bool = False,
    dtype: DType | None = None,
) -> Tensor:
    """The p-norm of vectors along ``dim`` (of all elements by default)."""
    if p == "nuc":
        from tracecc.functional.solving import nuclear_norm

        return nuclear_norm(input, dim, keepdim)
    return vector_norm(input, 2 if p in ("fro", None) else p, dim, keepdim, dtype=dtype)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of the difference."""
    return vector_norm(sub(input, other), p)


# Running reductions.


def _running(op: Op, input: Tensor, dim: int, dtype: DType | None) -> Tensor:
    x = _summed(input, dtype)
    axis = wrap_dim(dim, x.ndim)
    return clone(x) if x.ndim == 0 else emit(op, x, axis=axis)


def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Running sums along ``dim``."""
    return _running(ops.cumsum, input, dim, dtype)


def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Running products along ``dim``."""
    return _running(ops.cumprod, input, dim, dtype)


def _record(op: Op, better: Op, input: Tensor, dim: int) -> ValuesIndices:
    axis = wrap_dim(dim, input.ndim)
    if input.ndim == 0:
        return ValuesIndices(clone(input), splat(0, (), i64))
    values = emit(op, input, axis=axis)
    here = emit(ops.eq, input, values)
    if input.dtype.kind == "float":
        here = emit(ops.bit_or, here, emit(ops.isnan, input))
    position = emit(ops.iota, shape=input._type.shape, axis=axis, dtype=i64)
    origin = emit(ops.select, here, position, splat(0, input._type.shape, i64))
    return ValuesIndices(values, emit(ops.cummax, origin, axis=axis))


def cummax(input: Tensor, dim: int) -> ValuesIndices:
    """Running maxima along ``dim`` and where they were found last."""
    return _record(ops.cummax, ops.gt, input, dim)


def cummin(input: Tensor, dim: int) -> ValuesIndices:
    """Running minima along ``dim`` and where they were found last."""
    return _record(ops.cummin, ops.lt, input, dim)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log(cumsum(exp(x))) along ``dim``, relative to the maximum of all."""
    x = to_float(input)
    if x.ndim == 0 or x._type.size == 0:
        return clone(x)
    axis = wrap_dim(dim, x.ndim)
    high = amax(emit(ops.real, x) if x.dtype.is_complex else x, axis, True).detach()
    return add(log(cumsum(exp(sub(x, high)), axis)), high)


def diff(
    input: Tensor,
    n: int = 1,
    dim: int = -1,
    prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:
    """Differences of neighbours along ``dim``, ``n`` times, with what is to be put at the ends."""
    from tracecc.functional.joining import cat
    from tracecc.functional.logic import logical_xor
    from tracecc.functional.shape import narrow

    if input.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional, given 0 dimensions")
    if n == 0:
        return clone(input)
    if prepend is not None or append is not None:
        input = cat([x for x in (prepend, input, append) if x is not None], dim)
    axis = wrap_dim(dim, input.ndim)
    length: Any = input._type.shape[axis]
    if length == 0:
        return clone(input)
    for _ in range(builtins.min(n, length)):
        length = input._type.shape[axis]
        pair = narrow(input, axis, 1, length - 1), narrow(input, axis, 0, length - 1)
        input = logical_xor(*pair) if input.dtype is bool_ else sub(*pair)
    return input


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Slices along ``dim`` scaled down so that no p-norm exceeds ``maxnorm``."""
    axis = wrap_dim(dim, input.ndim)
    rest = [i for i in range(input.ndim) if i != axis]
    size = vector_norm(input, p, rest, True)
    return mul(input, clamp(div(maxnorm, add(size, 1e-7)), max=1.0))
