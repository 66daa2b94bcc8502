"""``x[...]`` and ``x[...] = y``: basic indexing makes views, tensor indices gather and scatter."""

from __future__ import annotations

import builtins
from typing import Any, NamedTuple

import numpy as np

from tracecc.dispatch import own
from tracecc.functional.core import (
    broadcast_shapes,
    emit,
    expanded,
    is_number,
    lift,
    number,
    permuted,
    reshaped,
    splat,
    to_dtype,
)
from tracecc.functional.creation import tensor
from tracecc.state import thread
from tracecc.tensor import Tensor, wrap
from tracecc.trace.known import counted
from tracecc.views import view
from tracecc_ir import ops
from tracecc_ir.types import bool_, i32, i64


class Parsed(NamedTuple):
    """A subscript split in two: a view, and index tensors for some of the view's dimensions."""

    view: Tensor
    indices: list[Tensor]
    axes: list[int]


def nonzero_arrays(mask: Tensor) -> list[Tensor]:
    """Where a mask holds, one index tensor per dimension; eager only, as sizes depend on data."""
    return [wrap(np.ascontiguousarray(i)) for i in np.nonzero(counted(mask, "indexing by a mask"))]


def _as_index(item: Any) -> Any:
    """Sequences and arrays as tensors, NumPy integers as ints; anything else unchanged."""
    if isinstance(item, (list, tuple, range)) and not _holds_slices(item):
        return tensor(list(item)) if len(item) else tensor([], dtype=i64)
    if isinstance(item, np.ndarray):
        return tensor(item)
    if isinstance(item, np.bool_):
        return bool(item)
    return int(item) if isinstance(item, np.integer) else item


def _holds_slices(item: Any) -> bool:
    return any(i is None or i is Ellipsis or isinstance(i, builtins.slice) for i in item)


def _items(x: Tensor, index: Any) -> list[Any]:
    """The subscript as a list with one entry per dimension (None and bools take none)."""
    items = [_as_index(i) for i in (index if isinstance(index, tuple) else (index,))]
    used = sum(_consumes(i) for i in items)
    if used > x.ndim:
        raise IndexError(f"too many indices for tensor of dimension {x.ndim}: {used} given")
    dots = [k for k, i in enumerate(items) if i is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    at = dots[0] if dots else len(items)
    fill = [builtins.slice(None)] * (x.ndim - used)
    return items[:at] + fill + items[at + 1 :]


def _consumes(item: Any) -> int:
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if isinstance(item, Tensor) and item.dtype in (bool_,):
        return item.ndim
    return 1


def parse(x: Tensor, index: Any) -> Parsed:
    """Splits a subscript of ``x`` into a view and index tensors."""
    shape: Any = x._type.shape
    starts, limits, strides = [0] * x.ndim, list(shape), [1] * x.ndim
    result: list[Any] = []  # sizes of the view's dimensions
    indices: list[Tensor] = []
    axes: list[int] = []
    axis = 0
    for item in _items(x, index):
        if item is None:
            result.append(1)
        elif isinstance(item, bool) or (isinstance(item, Tensor) and _is_flag(item)):
            axes.append(len(result))
            result.append(1)
            flag = item if isinstance(item, bool) else bool(item._numpy())
            indices.append(tensor([0] if flag else [], dtype=i64))
        elif isinstance(item, builtins.slice):
            starts[axis], limits[axis], strides[axis], n = _range(item, shape[axis])
            result.append(n)
            axis += 1
        elif isinstance(item, Tensor) and (item.ndim or thread.trace is not None or item._weak):
            for part in _index_tensors(item, shape, axis):
                indices.append(part)
                axes.append(len(result))
                result.append(shape[axis])
                axis += 1
        else:
            starts[axis], limits[axis] = _position(item, shape[axis], axis)
            axis += 1
    return Parsed(_basic(x, starts, limits, strides, tuple(result)), indices, axes)


def _is_flag(item: Tensor) -> bool:
    return item.dtype is bool_ and item.ndim == 0


def _basic(x: Tensor, starts: list, limits: list, strides: list, result: tuple) -> Tensor:
    shape = x._type.shape
    if any(starts) or tuple(limits) != tuple(shape) or any(s != 1 for s in strides):
        attrs = {"starts": tuple(starts), "limits": tuple(limits), "strides": tuple(strides)}
        x = view(x, ops.slice, attrs)
    if x._type.shape != result:
        x = view(x, ops.reshape, {"shape": result})
    return x


def _range(item: builtins.slice, size: Any) -> tuple[Any, Any, int, Any]:
    """Start, limit, stride and length of a Python slice of a dimension."""
    step = 1 if item.step is None else int(item.step)
    if step <= 0:
        raise ValueError(f"step must be greater than zero, given {step}")
    if item.start is None and item.stop is None and step == 1:
        return 0, size, 1, size
    parts = [None if p is None else int(p) for p in (item.start, item.stop)]
    if not isinstance(size, int):
        start, stop = parts[0] or 0, size if parts[1] is None else parts[1]
        start, stop = (size + p if isinstance(p, int) and p < 0 else p for p in (start, stop))
        return start, stop, step, (stop - start + step - 1) // step
    start, stop, _ = builtins.slice(parts[0], parts[1], step).indices(size)
    stop = max(start, stop)
    return start, stop, step, -(-(stop - start) // step)


def _position(item: Any, size: Any, axis: int) -> tuple[Any, Any]:
    """The range of one element that an int names."""
    if isinstance(item, Tensor):
        if item.dtype.kind != "int":
            raise IndexError(
                "tensors used as indices must be long, int, byte or bool tensors, "
                f"given {item.dtype.public}"
            )
        item = int(item._numpy())
    try:
        i = item.__index__()
    except AttributeError:
        kind = TypeError if isinstance(item, str) else IndexError
        raise kind(
            "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are "
            f"valid indices (got {type(item).__name__})"
        ) from None
    if isinstance(size, int) and not -size <= i < size:
        raise IndexError(f"index {i} is out of bounds for dimension {axis} with size {size}")
    i = i + size if i < 0 else i
    return i, i + 1


def _index_tensors(item: Tensor, shape: Any, axis: int) -> list[Tensor]:
    """A long tensor as it is; a mask as one index tensor for each of its dimensions."""
    if item.dtype is bool_:
        for d, (m, n) in enumerate(zip(item._type.shape, shape[axis:], strict=False)):
            if m != n:
                raise IndexError(
                    f"The shape of the mask {list(item._type.shape)} at index {d} does not match "
                    f"the shape of the indexed tensor {list(shape)} at index {axis + d}"
                )
        return nonzero_arrays(item)
    if item.dtype.kind != "int":
        raise IndexError(
            "tensors used as indices must be long, int, byte or bool tensors, "
            f"given {item.dtype.public}"
        )
    return [item if item.dtype in (i32, i64) else to_dtype(item, i64)]


def _together(parsed: Parsed) -> tuple[list[Tensor], tuple, int]:
    """Index tensors broadcast to one shape, that shape, and where it goes in the result."""
    try:
        shape = broadcast_shapes(*(i._type.shape for i in parsed.indices))
    except RuntimeError:
        shapes = ", ".join(str(list(i._type.shape)) for i in parsed.indices)
        raise IndexError(
            f"shape mismatch: indexing tensors could not be broadcast together with shapes {shapes}"
        ) from None
    indices = [expanded(to_dtype(i, i64), shape) for i in parsed.indices]
    first, n = parsed.axes[0], len(parsed.axes)
    adjacent = parsed.axes == list(range(first, first + n))
    return indices, shape, first if adjacent else 0


def getitem(self: Tensor, index: Any) -> Tensor:
    """``self[index]``: a view for ints, slices, None and Ellipsis, a copy with tensor indices."""
    parsed = parse(self, index)
    if not parsed.indices:
        v = parsed.view
        return view(v, ops.reshape, {"shape": v._type.shape}) if v is self else v
    indices, shape, place = _together(parsed)
    found = emit(ops.gather, parsed.view, *indices, axes=tuple(parsed.axes))
    k = len(shape)
    return permuted(found, [*range(k, k + place), *range(k), *range(k + place, found.ndim)])


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """``self[index] = value``, with ``value`` converted and broadcast."""
    if is_number(value):
        value = number(value)
    elif not isinstance(value, Tensor):
        if not isinstance(value, np.ndarray):
            raise TypeError(
                f"can't assign a {type(value).__name__} to a {self.dtype.public} tensor"
            )
        value = tensor(value)
    if isinstance(index, Tensor) and index.dtype is bool_ and _fills_mask(index, value):
        _fill(self, index, value)
        return
    if thread.trace is not None and isinstance(index, Tensor) and index.dtype is bool_:
        _fill_in_order(self, index, value, accumulate=False)
        return
    parsed = parse(self, index)
    if parsed.indices:
        _scatter_into(parsed, value, "set")
        return
    v = parsed.view
    target = view(v, ops.reshape, {"shape": v._type.shape}) if v is self and self._chain else v
    store(target, value)


def _fills_mask(mask: Tensor, value: Any) -> bool:
    return mask.ndim > 0 and (not isinstance(value, Tensor) or value._type.size == 1)


def _fill(x: Tensor, mask: Tensor, value: Any) -> None:
    """One number wherever a mask over the leading dimensions holds: a select, so traceable."""
    c, shape = _over(x, mask), x._type.shape
    new = lift(reshaped(value, ()) if isinstance(value, Tensor) else value, x.dtype, shape)
    write(x, emit(ops.select, c, new, x))


def _over(x: Tensor, mask: Tensor) -> Tensor:
    """A mask over the leading dimensions of ``x``, broadcast to all of them."""
    shape = x._type.shape
    if tuple(mask._type.shape) != tuple(shape[: mask.ndim]):
        raise IndexError(
            f"The shape of the mask {list(mask._type.shape)} at index 0 does not match the shape "
            f"of the indexed tensor {list(shape)} at index 0"
        )
    if mask.ndim == x.ndim:
        return mask
    return emit(ops.broadcast, mask, shape=shape, axes=tuple(range(mask.ndim)))


def _fill_in_order(x: Tensor, mask: Tensor, value: Tensor, accumulate: bool) -> None:
    """The rows of ``value``, one after another, where a mask holds, without counting it.

    There must be as many rows as the mask has true elements, which a trace cannot check.
    """
    c, shape = _over(x, mask), x._type.shape
    rest = shape[mask.ndim :]
    if value.ndim <= len(rest) or value._type.shape[0] == 1:
        found = lift(_fit(value, rest) if value.ndim <= len(rest) else value, x.dtype, shape)
    else:
        n: Any = value._type.shape[0]
        rows = lift(value, x.dtype, (n, *rest))
        flat = reshaped(mask, (mask._type.size,))
        at = emit(ops.cumsum, emit(ops.cast, flat, dtype=i64), axis=0)
        at = emit(ops.sub, at, splat(1, at._type.shape, i64))
        at = emit(ops.maximum, at, splat(0, at._type.shape, i64))
        at = emit(ops.minimum, at, splat(n - 1, at._type.shape, i64))
        found = reshaped(emit(ops.gather, rows, at, axes=(0,)), shape)
    if accumulate:
        found = emit(ops.maximum if x.dtype is bool_ else ops.add, x, found)
    write(x, emit(ops.select, c, found, x))


def store(target: Tensor, value: Any) -> None:
    """Overwrites all of ``target`` with ``value``, converted and broadcast."""
    shape = target._type.shape
    if isinstance(value, Tensor):
        value = _fit(value, shape)
    new = lift(value, target.dtype, shape)
    whole = target._base is None
    if whole and thread.grad_enabled and target._requires_grad and not new._requires_grad:
        # The tensor still requires grad, though all of what it was is gone: nothing is selected.
        new = emit(ops.select, lift(False, bool_, shape), target, new)
    write(target, new)


def _fit(value: Tensor, shape: Any) -> Tensor:
    """``value`` without leading ones that ``shape`` has no dimensions for."""
    given = value._type.shape
    while len(given) > len(shape) and given[0] == 1:
        given = given[1:]
    if len(given) > len(shape):
        raise RuntimeError(
            f"expand({value._type!r}, size={list(shape)}): the number of sizes provided "
            f"({len(shape)}) must be greater or equal to the number of dimensions in the tensor "
            f"({len(given)})"
        )
    return reshaped(value, given)


def write(target: Tensor, result: Tensor) -> Tensor:
    """Stores ``result`` into ``target``, which has its type, as every in-place operation does."""
    target._check_writable()
    return target._write(result)


def _scatter_into(parsed: Parsed, value: Any, mode: str) -> None:
    target, axes = parsed.view, tuple(parsed.axes)
    indices, shape, place = _together(parsed)
    rest = [n for i, n in enumerate(target._type.shape) if i not in axes]
    result = (*rest[:place], *shape, *rest[place:])
    if isinstance(value, Tensor):
        value = _fit(value, result)
        try:
            updates = lift(value, target.dtype, result)
        except RuntimeError:
            raise RuntimeError(
                f"shape mismatch: value tensor of shape {list(value._type.shape)} cannot be "
                f"broadcast to indexing result of shape {list(result)}"
            ) from None
    else:
        updates = lift(value, target.dtype, result)
    k = len(shape)
    order = [*range(place, place + k), *range(place), *range(place + k, len(result))]
    new = emit(ops.scatter, target, *indices, permuted(updates, order), axes=axes, mode=mode)
    write(target, own(new))


def index_put_(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """``self[indices] = values`` in place; with ``accumulate`` values are added."""
    index = tuple(builtins.slice(None) if i is None else i for i in indices)
    only: Any = index[0] if len(index) == 1 else None
    masked = thread.trace is not None and isinstance(only, Tensor) and only.dtype is bool_
    if masked and values.dtype is self.dtype:
        _fill_in_order(self, only, values, accumulate)
        return self
    parsed = parse(self, index)
    if values.dtype is not self.dtype:
        raise RuntimeError(
            "Index put requires the source and destination dtypes match, got "
            f"{self.dtype.public} for the destination and {values.dtype.public} for the source."
        )
    if self.dtype is bool_ and accumulate:
        _scatter_into(parsed, values, "max")
    else:
        _scatter_into(parsed, values, "add" if accumulate else "set")
    return self


def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """`index_put_` on a copy."""
    from tracecc.functional.pointwise import clone

    return index_put_(clone(input), indices, values, accumulate)
