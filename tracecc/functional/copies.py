"""Views as copies, copies with a part replaced, and matrices and choices built from parts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracecc.functional import shape as shapes
from tracecc.functional.core import (
    arange_like,
    check_tensor,
    emit,
    expanded,
    reshaped,
    splat,
    to_dtype,
    wrap_dim,
)
from tracecc.functional.indexing import diag
from tracecc.functional.joining import cat
from tracecc.functional.pointwise import add, clone, mul
from tracecc.functional.reductions import sum as sum_
from tracecc.tensor import Tensor, wrap
from tracecc_ir import ops
from tracecc_ir.types import bool_, i64


def _copying(view: Callable, name: str) -> Callable[..., Any]:
    """A function of PyTorch's that copies what another one views."""

    def function(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        found = view(input, *args, **kwargs)
        return tuple(map(clone, found)) if isinstance(found, tuple) else clone(found)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"A copy of what `{view.__name__}` views."
    return function


def _alias(input: Tensor) -> Tensor:
    return input


as_strided_copy = _copying(shapes.as_strided, "as_strided_copy")
alias_copy = _copying(_alias, "alias_copy")
diagonal_copy = _copying(shapes.diagonal, "diagonal_copy")
expand_copy = _copying(shapes.expand, "expand_copy")
narrow_copy = _copying(shapes.narrow, "narrow_copy")
permute_copy = _copying(shapes.permute, "permute_copy")
select_copy = _copying(shapes.select, "select_copy")
split_copy = _copying(shapes.split, "split_copy")
split_with_sizes_copy = _copying(shapes.split_with_sizes, "split_with_sizes_copy")
squeeze_copy = _copying(shapes.squeeze, "squeeze_copy")
t_copy = _copying(shapes.t, "t_copy")
transpose_copy = _copying(shapes.transpose, "transpose_copy")
unbind_copy = _copying(shapes.unbind, "unbind_copy")
unfold_copy = _copying(shapes.unfold, "unfold_copy")
unsqueeze_copy = _copying(shapes.unsqueeze, "unsqueeze_copy")
view_copy = _copying(shapes.view_as_shape, "view_copy")

unsafe_chunk = shapes.chunk
unsafe_split = shapes.split
unsafe_split_with_sizes = shapes.split_with_sizes


# A part replaced.


def _replaced(
    input: Tensor, src: Tensor, axes: tuple[int, ...], indices: Sequence[Tensor], part: Tensor
) -> Tensor:
    """``input`` with ``src``, of the shape of ``part``, at positions along ``axes``.

    The positions' dimension of ``src`` is already its first.
    """
    if src._type.shape != part._type.shape:
        raise RuntimeError(
            f"expected src to have a size equal to the slice of self. src size = "
            f"{list(src.shape)}, slice size = {list(part.shape)}"
        )
    src = to_dtype(src, input.dtype)
    if indices[0].ndim:
        src = shapes.movedim(src, axes[0] if len(axes) == 1 else -1, 0)
    return emit(ops.scatter, input, *indices, src, axes=axes, mode="set")


def _span(start: int, count: int, step: int = 1) -> Tensor:
    return add(mul(arange_like(count, (count,), 0), step), start)


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy with ``select(dim, index)`` replaced by ``src``."""
    part = shapes.select(input.detach(), dim, index)
    return _replaced(input, src, (wrap_dim(dim, input.ndim),), [splat(index, (), i64)], part)


def slice_scatter(
    input: Tensor,
    src: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    """A copy with the slice [start:end:step] along ``dim`` replaced by ``src``."""
    axis = wrap_dim(dim, input.ndim)
    n: Any = input._type.shape[axis]
    low, high, _ = slice(start, end, step).indices(n)
    part = shapes.slice_view(input.detach(), axis, low, max(low, high), step)
    count: Any = part._type.shape[axis]
    return _replaced(input, src, (axis,), [_span(low, count, step)], part)


def diagonal_scatter(
    input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """A copy with a diagonal replaced by ``src``."""
    part = shapes.diagonal(input.detach(), offset, dim1, dim2)
    count: Any = part._type.shape[-1]
    axes = wrap_dim(dim1, input.ndim), wrap_dim(dim2, input.ndim)
    index = [_span(max(-offset, 0), count), _span(max(offset, 0), count)]
    return _replaced(input, src, axes, index, part)


def as_strided_scatter(
    input: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None
) -> Tensor:
    """A copy whose elements at the places of ``as_strided(size, stride)`` are those of ``src``."""
    offset = storage_offset or 0
    steps = [np.arange(n) * s for n, s in zip(size, stride, strict=True)]
    place = np.asarray(offset + sum(np.ix_(*steps)) if steps else offset, np.int64)
    flat = reshaped(input, (input._type.size,))
    index = wrap(place.reshape(-1))
    values = reshaped(to_dtype(src, input.dtype), (place.size,))
    return reshaped(emit(ops.scatter, flat, index, values, axes=(0,)), input._type.shape)


# Built from parts.


def block_diag(*tensors: Any) -> Tensor:
    """One matrix with the given matrices, vectors (as rows) and numbers on its diagonal."""
    from tracecc.functional.core import promoted
    from tracecc.functional.creation import zeros

    if not tensors:
        return zeros(1, 0)
    parts = [check_tensor("block_diag", t, "tensors") for t in tensors]
    dtype = promoted(*parts)
    blocks = []
    for t in parts:
        if t.ndim > 2:
            raise RuntimeError(
                "torch.block_diag: Input tensors must have 2 or fewer dimensions, given "
                f"{t.ndim} dimensions"
            )
        blocks.append(to_dtype(reshaped(t, (1,) * (2 - t.ndim) + t._type.shape), dtype))
    width: Any = sum(b._type.shape[1] for b in blocks)  # type: ignore[misc]
    rows: list[Tensor] = []
    left: Any = 0
    for b in blocks:
        n = b._type.shape[1]
        right = width - left - n
        none = (0, 0)
        attrs = {"low": (0, left), "high": (0, right), "interior": none, "value": 0}
        rows.append(emit(ops.pad, b, **attrs) if b.dtype is not bool_ else _padded_bool(b, attrs))
        left += n
    return cat(rows)


def _padded_bool(b: Tensor, attrs: dict) -> Tensor:
    return to_dtype(emit(ops.pad, to_dtype(b, i64), **attrs), bool_)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of ``r`` elements of a vector, as rows."""
    if input.ndim != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.shape)}")
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    n: Any = input._type.size
    rows = np.array(list(choose(range(n), r)), np.int64).reshape(-1, r)
    if not r:
        return clone(splat(0, (0,), input.dtype))
    return emit(ops.gather, input, wrap(rows), axes=(0,))


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with the flattened tensor on a diagonal."""
    return diag(reshaped(input, (input._type.size,)), offset)


def sum_to_size(self: Tensor, *size: Any) -> Tensor:
    """Summed over the dimensions that broadcasting ``size`` to this shape would add or expand."""
    shape = tuple(size[0]) if len(size) == 1 and isinstance(size[0], Sequence) else size
    old = self._type.shape
    lead = len(old) - len(shape)
    if lead < 0 or any(s not in (1, n) for s, n in zip(shape, old[lead:], strict=True)):
        raise RuntimeError(f"size {{{list(shape)}}} is not expandable to size {{{list(old)}}}.")
    dims = list(range(lead))
    dims += [lead + i for i, s in enumerate(shape) if s == 1 and old[lead + i] != 1]
    x = to_dtype(self, i64) if self.dtype is bool_ else self
    return reshaped(sum_(x, dims), shape) if dims else clone(x)


# Positions.


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first ``size`` positions of nonzero elements, filled up with ``fill_value``."""
    found = np.argwhere(input.detach()._numpy()).astype(np.int64)[:size]
    result = np.full((size, input.ndim), fill_value, np.int64)
    result[: len(found)] = found
    return wrap(result)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Flat positions as one tensor per dimension of ``shape``."""
    from tracecc.functional.pointwise import floor_divide, remainder

    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    parts: list[Tensor] = []
    rest = indices
    for n in reversed(sizes):
        parts.append(to_dtype(remainder(rest, n), i64))
        rest = floor_divide(rest, n)
    return tuple(reversed(parts))


def index_reduce(
    input: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Tensor:
    """A copy with the slices that ``index`` names combined by prod, mean, amax or amin."""
    from tracecc.functional.indexing import scatter_reduce

    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError(
            f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got "
            f"{reduce}."
        )
    axis = wrap_dim(dim, input.ndim)
    if input.ndim == 0:
        flat = index_reduce(
            reshaped(input, (1,)),
            0,
            index,
            reshaped(source, (-1,) if source.ndim else (1,)),
            reduce,
            include_self=include_self,
        )
        return reshaped(flat, ())
    shape = tuple(-1 if d == axis else 1 for d in range(input.ndim))
    count = index._type.size
    wide = reshaped(index, tuple(count if n == -1 else 1 for n in shape))
    wide = expanded(wide, source._type.shape)
    return scatter_reduce(input, axis, wide, source, reduce, include_self=include_self)


def unique_consecutive(
    input: Tensor,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The elements (or slices along ``dim``) that differ from the one before."""
    array = input.detach()._numpy()
    rows = array.reshape(-1) if dim is None else np.moveaxis(array, dim, 0)
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    new = np.ones(len(rows), bool)
    new[1:] = (flat[1:] != flat[:-1]).any(1) if flat.shape[1] else False
    inverse = np.cumsum(new) - 1
    starts = np.flatnonzero(new)
    values = rows[new] if dim is None else np.moveaxis(rows[new], 0, dim)
    found = [wrap(np.ascontiguousarray(values))]
    if return_inverse:
        shape: Any = input._type.shape if dim is None else (-1,)
        found.append(wrap(inverse.reshape(shape).astype(np.int64)))
    if return_counts:
        found.append(wrap(np.diff(np.append(starts, len(rows))).astype(np.int64)))
    return found[0] if len(found) == 1 else tuple(found)
