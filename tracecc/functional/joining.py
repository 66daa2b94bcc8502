"""Functions that join, repeat and reorder elements into memory of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracecc.dispatch import own
from tracecc.functional.core import (
    check_tensor,
    emit,
    expanded,
    reshaped,
    to_dtype,
    variadic,
    wrap_dim,
)
from tracecc.functional.pointwise import clone
from tracecc.functional.shape import narrow, ravel, reshape, transpose
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.types import promote_types


def cat(tensors: Sequence[Tensor], dim: int = 0, *, axis: int | None = None) -> Tensor:
    """The tensors one after the other along ``dim``, in their promoted dtype."""
    dim = dim if axis is None else axis
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(
            f"cat(): argument 'tensors' must be tuple of Tensors, not {type(tensors).__name__}"
        )
    if not tensors:
        raise ValueError("cat(): expected a non-empty list of Tensors")
    for i, x in enumerate(tensors):
        check_tensor("cat", x, f"tensors[{i}]")
        if x.ndim == 0:
            raise RuntimeError(f"zero-dimensional tensor (at position {i}) cannot be concatenated")
    dtype = tensors[0].dtype
    for x in tensors[1:]:
        dtype = promote_types(dtype, x.dtype)
    kept = [x for x in tensors if tuple(x._type.shape) != (0,)] or [tensors[0]]
    at = wrap_dim(dim, kept[0].ndim)
    for i, x in enumerate(kept):
        _check_joinable(kept[0], x, at, i)
    parts = [to_dtype(x, dtype) for x in kept]
    return own(emit(ops.concat, *parts, axis=at))


def _check_joinable(first: Tensor, x: Tensor, axis: int, position: int) -> None:
    if x.ndim != first.ndim:
        raise RuntimeError(
            f"Tensors must have same number of dimensions: got {first.ndim} and {x.ndim}"
        )
    for i, (m, n) in enumerate(zip(first._type.shape, x._type.shape, strict=True)):
        if i != axis and m != n:
            raise RuntimeError(
                f"Sizes of tensors must match except in dimension {axis}. Expected size {m} but "
                f"got size {n} for tensor number {position} in the list."
            )


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors, all of one shape, along a new dimension."""
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    first = tensors[0]
    at = wrap_dim(dim, first.ndim + 1)
    for i, x in enumerate(tensors):
        if tuple(x._type.shape) != tuple(first._type.shape):
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first._type.shape)} "
                f"at entry 0 and {list(x._type.shape)} at entry {i}"
            )
    shape = first._type.shape
    return cat([reshaped(x, (*shape[:at], 1, *shape[at:])) for x in tensors], at)


def atleast_1d(*tensors: Any) -> Any:
    """0-d tensors as one element."""
    return _each(tensors, lambda x: reshape(x, (1,)) if x.ndim == 0 else x)


def atleast_2d(*tensors: Any) -> Any:
    """Scalars and vectors as one row."""
    return _each(tensors, lambda x: reshape(x, (1, x._type.size)) if x.ndim < 2 else x)


def atleast_3d(*tensors: Any) -> Any:
    """Fewer than three dimensions filled up with ones."""

    def three(x: Tensor) -> Tensor:
        shapes: Any = {0: (1, 1, 1), 1: (1, x._type.size, 1), 2: (*x._type.shape, 1)}
        return reshape(x, shapes[x.ndim]) if x.ndim < 3 else x

    return _each(tensors, three)


def _each(tensors: tuple, f: Any) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], Tensor):
        return f(tensors[0])
    given = tensors[0] if len(tensors) == 1 else tensors
    return tuple(map(f, given))


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Along dimension 1 (0 for vectors)."""
    rows = [atleast_1d(x) for x in tensors]
    return cat(rows, 0 if rows[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Along dimension 0, vectors as rows."""
    return cat([atleast_2d(x) for x in tensors], 0)


row_stack = vstack


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Along dimension 2."""
    return cat([atleast_3d(x) for x in tensors], 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Along dimension 1, vectors as columns."""
    return cat([reshape(x, (x._type.size, 1)) if x.ndim < 2 else x for x in tensors], 1)


def repeat(self: Tensor, *sizes: Any, repeats: Any = None) -> Tensor:
    """Copies of the whole tensor, ``sizes[i]`` along dimension i."""
    times = variadic(sizes, repeats)
    if len(times) < self.ndim:
        raise RuntimeError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of "
            f"tensor, given {len(times)} and {self.ndim}"
        )
    if any(n < 0 for n in times):
        raise RuntimeError(f"Trying to create tensor with negative dimension: {list(times)}")
    shape = (1,) * (len(times) - self.ndim) + tuple(self._type.shape)
    paired = [n for pair in zip(times, shape, strict=True) for n in pair]
    spread = [n for size in shape for n in (1, size)]
    result = tuple(n * size for n, size in zip(times, shape, strict=True))
    return (
        own(reshaped(expanded(reshaped(self, spread), tuple(paired)), result))
        if any(n != 1 for n in times)
        else clone(reshaped(self, shape))
    )


def tile(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """`repeat`, where missing leading entries of ``dims`` are 1."""
    times = variadic(args, dims)
    return repeat(input, *((1,) * (input.ndim - len(times)) + tuple(times)))


def flip(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """A copy in reverse order along ``dims``."""
    axes = tuple(wrap_dim(d, input.ndim) for d in variadic(args, dims))
    if len(set(axes)) != len(axes):
        raise RuntimeError(f"dim appears multiple times in the list of dims, given {axes}")
    return own(emit(ops.flip, input, axes=axes if input.ndim else ()))


def fliplr(input: Tensor) -> Tensor:
    """Columns in reverse order."""
    if input.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """Rows in reverse order."""
    if input.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return flip(input, 0)


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Elements moved along ``dims``, those that fall off the end coming in at the start."""
    if dims is None or (not isinstance(dims, int) and not len(dims)):
        by = shifts if isinstance(shifts, int) else shifts[0]
        return reshape(roll(ravel(input), by, 0), tuple(input._type.shape))
    amounts = [shifts] if isinstance(shifts, int) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims)
    if len(amounts) != len(axes):
        raise RuntimeError(
            f"shifts and dimensions must align. shifts: {len(amounts)}, dims:{len(axes)}"
        )
    x = input
    for by, dim in zip(amounts, axes, strict=True):
        axis = wrap_dim(dim, x.ndim)
        n: Any = x._type.shape[axis]
        cut = -by % n if n else 0
        if cut:
            x = cat([narrow(x, axis, cut, n - cut), narrow(x, axis, 0, cut)], axis)
    return clone(x) if x is input else x


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Rotated by k quarter turns in the plane of ``dims``."""
    a, b = (wrap_dim(d, input.ndim) for d in dims)
    turns = {0: lambda: clone(input), 1: lambda: transpose(flip(input, b), a, b)}
    turns |= {2: lambda: flip(input, a, b), 3: lambda: flip(transpose(input, a, b), b)}
    return turns[k % 4]()
