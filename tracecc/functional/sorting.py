"""Sorting, searching, counting, and functions whose result's size depends on the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracecc.dispatch import apply, own
from tracecc.functional.core import (
    broadcast_shapes,
    emit,
    expanded,
    lift,
    promoted,
    reshaped,
    splat,
    to_dtype,
    wrap_dim,
)
from tracecc.functional.creation import arange, full, tensor
from tracecc.functional.indexing import _extreme, gather, index_select
from tracecc.functional.logic import ge, le, logical_and
from tracecc.functional.pointwise import add, clamp, clone, div, mul, sub, where
from tracecc.functional.reductions import ValuesIndices, amax, amin, cumsum, picked
from tracecc.functional.reductions import any as _any
from tracecc.functional.shape import narrow, ravel, reshape
from tracecc.functional.subscript import nonzero_arrays
from tracecc.tensor import Tensor, wrap
from tracecc.trace.known import counted, known
from tracecc_ir import ops
from tracecc_ir.types import bool_, f32, f64, i32, i64

# Data-dependent sizes: eager only.


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The positions of nonzero elements: an n x ndim tensor, or one tensor per dimension."""
    if as_tuple and input.ndim == 0:
        input = reshape(input, 1)
    if as_tuple:
        return tuple(nonzero_arrays(input))
    return wrap(np.argwhere(counted(input, "nonzero")).astype(np.int64))


argwhere = nonzero


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask holds, as one dimension."""
    if mask.dtype is not bool_:
        raise RuntimeError(f"masked_select: expected a bool mask, given {mask.dtype.public}")

    shape = broadcast_shapes(input._type.shape, mask._type.shape)
    if not shape:
        return masked_select(reshape(input, 1), reshape(mask, 1))
    indices = nonzero_arrays(expanded(mask, shape))
    return emit(ops.gather, expanded(input, shape), *indices, axes=tuple(range(len(shape))))


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy with the elements where the mask holds replaced by those of ``source`` in order."""

    if mask.dtype is not bool_:
        raise RuntimeError("masked_scatter_ only supports boolean masks")
    shape = broadcast_shapes(input._type.shape, mask._type.shape)
    m = ravel(expanded(mask, shape))
    x = expanded(input, shape)
    if x._type.size == 0:
        return clone(x)
    position = emit(ops.cumsum, to_dtype(m, i64), axis=0)
    position = emit(ops.sub, position, splat(1, position._type.shape, i64))
    last: Any = source._type.size
    bounded = emit(ops.maximum, position, splat(0, position._type.shape, i64))
    bounded = emit(ops.minimum, bounded, splat(max(last - 1, 0), position._type.shape, i64))
    found = emit(ops.gather, ravel(source), bounded, axes=(0,))
    return where(reshape(m, shape), reshape(found, shape), x)


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct elements (or slices along ``dim``) in order, where they went, and how many.

    Each NaN is distinct from all others.
    """
    values, inverse, counts = np.unique(
        counted(input, "unique"),
        return_inverse=True,
        return_counts=True,
        axis=dim,
        equal_nan=False,
    )
    shape: Any = input._type.shape if dim is None else (-1,)
    inverse = inverse.reshape(shape)
    found = [wrap(np.ascontiguousarray(values))]
    found += [wrap(inverse)] if return_inverse else []
    found += [wrap(counts)] if return_counts else []
    return found[0] if len(found) == 1 else tuple(found)


def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element (or slice along ``dim``) repeated ``repeats`` times."""
    if repeats is None:
        return _repeated_positions(input, output_size)
    x, axis = (ravel(input), 0) if dim is None else (input, wrap_dim(dim, input.ndim))
    n: Any = x._type.shape[axis]
    if isinstance(repeats, int) or (isinstance(repeats, Tensor) and repeats._type.size == 1):
        times = repeats if isinstance(repeats, int) else known(repeats, _total, "the repeats")
        if times < 0:
            raise RuntimeError("Repeats must be non-negative")
        shape = x._type.shape
        wide = expanded(
            reshaped(x, (*shape[: axis + 1], 1, *shape[axis + 1 :])),
            (*shape[: axis + 1], times, *shape[axis + 1 :]),
        )
        return own(reshaped(wide, (*shape[:axis], n * times, *shape[axis + 1 :])))
    counts = repeats if isinstance(repeats, Tensor) else tensor(repeats)
    if counts._type.size != n:
        raise RuntimeError(
            "repeats must have the same size as input along dim, "
            f"given {counts._type.size} for dimension {axis} of size {n}"
        )
    return index_select(x, axis, _repeated_positions(counts, output_size))


def _repeated_positions(counts: Tensor, total: int | None) -> Tensor:
    """The position of each count, as often as it says."""
    if total is None:
        total = known(counts, _total, "the size of repeat_interleave's result")
    return searchsorted(cumsum(to_dtype(counts, i64), 0), arange(total), right=True)


def _total(counts: np.ndarray) -> int:
    if counts.size and counts.min() < 0:
        raise RuntimeError("repeats can not be negative")
    return int(counts.sum())


# Sorting and searching.


def sort(
    input: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = None
) -> ValuesIndices:
    """The elements in order along ``dim`` and where they were; always stable."""
    axis = wrap_dim(dim, input.ndim)
    if input.ndim == 0:
        return ValuesIndices(clone(input), own(splat(0, (), i64)))

    return ValuesIndices(*apply(ops.sort, (input,), {"axis": axis, "descending": descending}))


def argsort(
    input: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = None
) -> Tensor:
    """The positions that put the elements in order along ``dim``."""
    return sort(input, dim, descending, stable).indices


def msort(input: Tensor) -> Tensor:
    """Sorted along dimension 0."""
    return sort(input, 0).values


def topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> ValuesIndices:
    """The ``k`` largest (or smallest) elements along ``dim`` and where they were."""
    axis = wrap_dim(dim, input.ndim)
    n: Any = input._type.shape[axis] if input.ndim else 1
    if not 0 <= k <= n:
        raise RuntimeError(f"selected index k out of range: k={k}, dimension {axis} has size {n}")
    if input.ndim == 0:
        return ValuesIndices(clone(input), own(splat(0, (), i64)))
    values, indices = sort(input, axis, descending=largest)
    return ValuesIndices(_first(values, axis, k), _first(indices, axis, k))


def _first(x: Tensor, axis: int, k: int) -> Tensor:
    return clone(narrow(x, axis, 0, k)) if x._type.shape[axis] != k else x


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """The k-th smallest element along ``dim`` (k from 1) and where it was."""
    axis = wrap_dim(dim, input.ndim)
    if input.ndim == 0:
        return ValuesIndices(clone(input), own(splat(0, (), i64)))
    if not 1 <= k <= input._type.shape[axis]:  # type: ignore[operator]
        raise RuntimeError(
            f"kthvalue(): selected number k out of range for dimension {axis}: "
            f"k={k}, expected 1 to {input._type.shape[axis]}"
        )
    indices = sort(input, axis).indices
    return picked(input, own(_at(indices, axis, k - 1)), axis, keepdim)


def _at(x: Tensor, axis: int, i: int) -> Tensor:
    shape = x._type.shape
    return reshaped(narrow(x, axis, i, 1), (*shape[:axis], *shape[axis + 1 :]))


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of all, or along ``dim`` with its position; NaN if there is a NaN."""
    return _median(input, dim, keepdim, ignore_nan=False)


def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median without NaN."""
    return _median(input, dim, keepdim, ignore_nan=True)


def _median(input: Tensor, dim: int | None, keepdim: bool, ignore_nan: bool) -> Any:
    if dim is None:
        if input._type.size == 0:
            is_float = input.dtype.kind == "float"
            lowest = float("nan") if is_float else _extreme(input.dtype, lowest=True)
            return full((), lowest, dtype=input.dtype)
        return _median(ravel(input), 0, False, ignore_nan).values
    axis = wrap_dim(dim, input.ndim)
    if input.ndim == 0:
        return ValuesIndices(clone(input), own(splat(0, (), i64)))
    n: Any = input._type.shape[axis]
    if n == 0:
        raise IndexError(f"median(): Expected reduction dim {dim} to have non-zero size.")
    values, indices = sort(input, axis)
    middle = _at(indices, axis, (n - 1) // 2)
    if input.dtype.kind == "float":
        nan = to_dtype(emit(ops.isnan, values), i64)
        nans = emit(ops.reduce_sum, nan, axes=(axis,))
        shape = nans._type.shape
        if ignore_nan:
            kept = emit(ops.sub, splat(n - 1, shape, i64), nans)
            kept = emit(ops.maximum, kept, splat(0, shape, i64))
            position = emit(ops.floor_div, kept, splat(2, shape, i64))
        else:
            some = emit(ops.gt, nans, splat(0, shape, i64))
            first = emit(ops.sub, splat(n, shape, i64), nans)
            position = emit(ops.select, some, first, splat((n - 1) // 2, shape, i64))
        column = reshaped(position, (*shape[:axis], 1, *shape[axis:]))
        middle = reshaped(emit(ops.gather_along, indices, column, axis=axis), shape)
    return picked(input, own(middle), axis, keepdim)


def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where each number would go in a sorted sequence (the last dimension) to keep it sorted."""
    if side is not None and side not in ("left", "right"):
        raise RuntimeError(f"searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError("searchsorted(): side and right can't be set to opposites")

    if sorter is not None:
        sorted_sequence = gather(sorted_sequence, -1, sorter)
    dtype = promoted(sorted_sequence, input)
    value = lift(input, dtype, input._type.shape if isinstance(input, Tensor) else ())
    sequence = to_dtype(sorted_sequence, dtype)
    if sequence.ndim != 1 and sequence._type.shape[:-1] != value._type.shape[:-1]:
        raise RuntimeError(
            "searchsorted(): sorted_sequence must be 1-d or have the input's dimensions but the "
            f"last, given {list(sequence.shape)} and {list(value.shape)}"
        )
    found = _bisect(sequence, value, right or side == "right")
    return to_dtype(found, i32) if out_int32 else found


def _bisect(sequence: Tensor, value: Tensor, right: bool) -> Tensor:
    """How many elements of each sorted row come before each value; NaN comes last."""
    n: Any = sequence._type.shape[-1]
    shape = value._type.shape
    rows = sequence
    if sequence.ndim == 1:
        flat, rows = reshaped(value, (1, value._type.size)), reshaped(sequence, (1, n))
    else:
        flat = value
    low = splat(0, flat._type.shape, i64)
    high = splat(n, flat._type.shape, i64)
    one, last = splat(1, flat._type.shape, i64), splat(max(n - 1, 0), flat._type.shape, i64)
    for _ in range(int(n).bit_length()):
        middle = emit(ops.shift_right, emit(ops.add, low, high), one)
        probe = emit(ops.gather_along, rows, emit(ops.minimum, middle, last), axis=rows.ndim - 1)
        before = emit(ops.le if right else ops.lt, probe, flat)
        if flat.dtype.kind == "float":
            proper = emit(ops.bit_not, emit(ops.isnan, probe))
            above = emit(ops.isnan, flat)
            before = emit(ops.bit_or, before, above if right else emit(ops.bit_and, above, proper))
        open_ = emit(ops.lt, low, high)
        before = emit(ops.bit_and, before, open_)
        after = emit(ops.bit_and, open_, emit(ops.bit_not, before))
        low = emit(ops.select, before, emit(ops.add, middle, one), low)
        high = emit(ops.select, after, middle, high)
    return own(reshaped(low, shape))


def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """The bucket of each number between sorted boundaries."""
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Where elements are among the test elements."""

    x = elements if isinstance(elements, Tensor) else tensor(elements)
    y = test_elements if isinstance(test_elements, Tensor) else tensor(test_elements)
    if y._type.size == 0:
        return full(tuple(x._type.shape), invert, dtype=bool_)
    dtype = promoted(x, y)
    shape = (*x._type.shape, y._type.size)
    column = expanded(reshaped(to_dtype(x, dtype), (*x._type.shape, 1)), shape)
    found = emit(ops.eq, column, expanded(reshaped(to_dtype(y, dtype), shape[-1:]), shape))
    result = _any(found, -1)
    return emit(ops.bit_not, result) if invert else result


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each non-negative integer occurs, or the sum of its weights."""
    if input.dtype.kind != "int" or input.ndim != 1:
        raise RuntimeError(
            f"bincount only supports 1-d non-negative integral inputs, given {input._type!r}"
        )
    if minlength < 0:
        raise RuntimeError(f"minlength should be >= 0, given {minlength}")
    n = max(known(input, _bins, "the number of bins of bincount"), minlength)
    if weights is None:
        ones, zeros = splat(1, input._type.shape, i64), splat(0, (n,), i64)
    elif weights._type.shape != input._type.shape:
        raise RuntimeError(
            "weights should be 1-d and have the same length as input, given shapes "
            f"{list(weights.shape)} and {list(input.shape)}"
        )
    else:
        dtype = f32 if weights.dtype is f32 else f64
        ones, zeros = to_dtype(weights.detach(), dtype), splat(0, (n,), dtype)
    return emit(ops.scatter, zeros, to_dtype(input, i64), ones, axes=(0,), mode="add")


def _bins(array: np.ndarray) -> int:
    if array.size and array.min() < 0:
        raise RuntimeError(
            f"bincount only supports 1-d non-negative integral inputs, given {array.min()}"
        )
    return int(array.max()) + 1 if array.size else 0


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements fall into each of ``bins`` equal bins of [min, max] (or of the data)."""
    if bins <= 0:
        raise RuntimeError(f"bins must be > 0, given {bins}")
    low, high = float(min), float(max)
    if low > high:
        raise RuntimeError("max must be larger than min")
    if input.dtype.kind != "float":
        raise RuntimeError(f"\"histogram_cpu\" not implemented for '{input.dtype.public}'")
    x = ravel(input.detach())
    if not x._type.size:
        return clone(splat(0, (bins,), x.dtype))
    start, end = splat(low, (), x.dtype), splat(high, (), x.dtype)
    if low == high:
        start, end = amin(x, 0), amax(x, 0)
        flat = emit(ops.eq, start, end)
        start, end = where(flat, sub(start, 1), start), where(flat, add(end, 1), end)
    place = emit(ops.floor, mul(div(sub(x, start), sub(end, start)), bins))
    inside = logical_and(ge(x, start), le(x, end))
    index = to_dtype(clamp(where(inside, place, 0.0), 0, bins - 1), i64)
    zeros = splat(0, (bins,), x.dtype)
    return emit(ops.scatter, zeros, index, to_dtype(inside, x.dtype), axes=(0,), mode="add")
