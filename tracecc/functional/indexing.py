"""Functions that read and write at computed positions, sort, and search."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracecc.dispatch import own
from tracecc.functional.core import (
    check_tensor,
    emit,
    expanded,
    is_number,
    lift,
    number,
    permuted,
    reshaped,
    splat,
    to_dtype,
    wrap_dim,
)
from tracecc.functional.pointwise import clone
from tracecc.functional.shape import narrow, ravel, reshape
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.types import DType, bool_, i32, i64


def _check_index(name: str, index: Any) -> Tensor:
    check_tensor(name, index, "index")
    if index.dtype not in (i32, i64):
        raise RuntimeError(
            f"{name}(): Expected dtype int32 or int64 for index, given {index.dtype.public}"
        )
    return index


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices of ``input`` along ``dim`` that a 1-d index names."""
    _check_index("index_select", index)
    if index.ndim > 1:
        raise IndexError(f"index_select(): Index is supposed to be a vector, given {index.ndim}D")
    axis = wrap_dim(dim, input.ndim)
    if input.ndim == 0:
        return reshape(index_select(reshape(input, 1), 0, index), ())
    found = emit(ops.gather, input, reshaped(index, (index._type.size,)), axes=(axis,))
    return permuted(found, [*range(1, axis + 1), 0, *range(axis + 1, found.ndim)])


def _along(name: str, input: Tensor, dim: int, index: Tensor) -> tuple[Tensor, Tensor, int]:
    """Operands of the ops that index along one dimension, 0-d ones as 1-d."""
    _check_index(name, index)
    axis = wrap_dim(dim, input.ndim)
    x = reshaped(input, (1,)) if input.ndim == 0 else input
    i = reshaped(index, (1,)) if index.ndim == 0 else index
    if x.ndim != i.ndim and index._type.size != 0:
        raise RuntimeError(
            f"{name}(): Index tensor must have the same number of dimensions as input tensor, "
            f"given {i.ndim} and {x.ndim}"
        )
    return x, i, axis


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """``out[i][j] = input[index[i][j]][j]`` for dim 0, and likewise for others.

    >>> import tracecc as tc
    >>> tc.gather(tc.tensor([[1, 2], [3, 4]]), 1, tc.tensor([[0, 0], [1, 0]]))
    tensor([[1, 1],
            [4, 3]])
    """
    if index._type.size == 0:
        flat = reshaped(input, (input._type.size,))
        none = splat(0, index._type.shape, i64)
        return emit(ops.gather, flat, none, axes=(0,))
    x, i, axis = _along("gather", input, dim, index)
    for d, (m, n) in enumerate(zip(i._type.shape, x._type.shape, strict=True)):
        if d != axis and m > n:  # type: ignore[operator]
            raise RuntimeError(
                f"Size does not match at dimension {d} expected index {list(i._type.shape)} to be "
                f"no larger than self {list(x._type.shape)} apart from dimension {axis}"
            )
    return reshaped(emit(ops.gather_along, x, i, axis=axis), index._type.shape)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with both broadcast to each other; flattened if ``dim`` is None."""
    if dim is None:
        return gather(ravel(input), 0, ravel(indices))
    from tracecc.functional.core import broadcast_shapes

    axis = wrap_dim(dim, input.ndim)
    if input.ndim != indices.ndim:
        raise RuntimeError(
            "take_along_dim(): input and indices should have the same number of dimensions, "
            f"but got {input.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
        )
    a, b = list(input._type.shape), list(indices._type.shape)
    n, m = a[axis], b[axis]
    a[axis] = b[axis] = 1
    shape = list(broadcast_shapes(tuple(a), tuple(b)))
    x = expanded(input, (*shape[:axis], n, *shape[axis + 1 :]))
    return gather(x, axis, expanded(indices, (*shape[:axis], m, *shape[axis + 1 :])))


def _scatter(name: str, input: Tensor, dim: int, index: Tensor, src: Any, mode: str) -> Tensor:
    if index._type.size == 0:
        return clone(input)
    x, i, axis = _along(name, input, dim, index)
    if is_number(src) or (isinstance(src, Tensor) and src._weak):
        updates = lift(src if isinstance(src, Tensor) else number(src), x.dtype, i._type.shape)
    else:
        if src.dtype is not input.dtype:
            raise RuntimeError(
                f"{name}(): Expected self.dtype to be equal to src.dtype, "
                f"given {input.dtype.public} and {src.dtype.public}"
            )
        updates = reshaped(src, (1,)) if src.ndim == 0 else src
        sizes = zip(i._type.shape, updates._type.shape, strict=False)
        if updates.ndim != i.ndim or any(m > n for m, n in sizes):  # type: ignore[operator]
            raise RuntimeError(
                f"Expected index {list(i._type.shape)} to be no larger than src "
                f"{list(src._type.shape)} in every dimension"
            )
        for d, m in enumerate(i._type.shape):
            if updates._type.shape[d] != m:
                updates = narrow(updates, d, 0, m)  # type: ignore[arg-type]
    y = emit(ops.scatter_along, x, i, updates, axis=axis, mode=mode)
    return own(reshaped(y, input._type.shape))


_REDUCE = {"add": "add", "multiply": "mul", "sum": "add", "prod": "mul"} | {
    "amax": "max",
    "amin": "min",
}


def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Tensor:
    """A copy of ``input`` with ``src`` (or a number) written where `gather` would read."""
    if reduce is not None and reduce not in ("add", "multiply"):
        raise RuntimeError("reduce argument must be either add or multiply.")
    mode = "set" if reduce is None else _REDUCE[reduce]
    return _scatter("scatter", input, dim, index, value if src is None else src, mode)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy of ``input`` with ``src`` added where `gather` would read."""
    return _scatter("scatter_add", input, dim, index, src, "add")


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy of ``input`` with ``src`` combined in by sum, prod, mean, amax or amin."""
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise RuntimeError(
            f"reduce argument must be either sum, prod, mean, amax or amin, given {reduce!r}"
        )
    name = "scatter_reduce"
    base = input
    if not include_self:
        base = _neutral(input, dim, index, reduce)
    if reduce != "mean":
        return _scatter(name, base, dim, index, src, _REDUCE[reduce])
    total = _scatter(name, base, dim, index, src, "add")
    one = splat(1 if include_self else 0, input._type.shape, i64)
    ones = splat(1, src._type.shape, i64)
    n = _scatter(name, one, dim, index, ones, "add")
    return _divided(total, n)


def _divided(total: Tensor, n: Tensor) -> Tensor:
    """A mean from a total and a count; integers round towards minus infinity."""
    n = emit(ops.maximum, n, splat(1, n._type.shape, i64))
    op = ops.div if total.dtype.kind == "float" else ops.floor_div
    return emit(op, total, to_dtype(n, total.dtype))


def _neutral(input: Tensor, dim: int, index: Tensor, reduce: str) -> Tensor:
    """``input`` with the places that will be written set to what changes nothing."""
    value: Any = {"sum": 0, "mean": 0, "prod": 1}.get(reduce)
    if value is None:
        value = _extreme(input.dtype, lowest=reduce == "amax")
    return _scatter("scatter_reduce", input, dim, index, value, "set")


def _extreme(dtype: DType, lowest: bool) -> Any:
    if dtype.kind == "float":
        return float("-inf") if lowest else float("inf")
    if dtype is bool_:
        return not lowest
    info = np.iinfo(dtype.numpy)
    return int(info.min if lowest else info.max)


def _rows(name: str, input: Tensor, dim: int, index: Tensor, source: Any, mode: str) -> Tensor:
    """Scatters whole slices along ``dim``."""
    _check_index(name, index)
    axis = wrap_dim(dim, input.ndim)
    if input.ndim == 0:
        source = reshaped(source, (1,)) if isinstance(source, Tensor) else source
        return reshape(_rows(name, reshaped(input, (1,)), 0, index, source, mode), ())
    i = reshaped(index, (index._type.size,))
    shape = input._type.shape
    expected = (*shape[:axis], i._type.size, *shape[axis + 1 :])
    if isinstance(source, Tensor) and source.ndim:
        if tuple(source._type.shape) != expected:
            raise (IndexError if name == "index_copy" else RuntimeError)(
                f"{name}(): source of shape {list(source._type.shape)} does not match the "
                f"{list(expected)} that {list(index._type.shape)} indices along dim {axis} of "
                f"{list(shape)} need"
            )
        if source.dtype is not input.dtype:
            raise RuntimeError(f"{name}(): self and source expected to have the same dtype")
    updates = lift(source, input.dtype, expected)
    updates = permuted(updates, [axis, *(d for d in range(input.ndim) if d != axis)])
    return own(emit(ops.scatter, input, i, updates, axes=(axis,), mode=mode))


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy of ``input`` with ``alpha * source`` added to the slices that ``index`` names."""
    from tracecc.functional.pointwise import mul

    if not (is_number(alpha) and alpha == 1):
        source = to_dtype(mul(source, alpha), input.dtype)
    mode = "max" if input.dtype is bool_ else "add"
    return _rows("index_add", input, dim, index, source, mode)


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy of ``input`` with the slices that ``index`` names replaced by those of ``source``."""
    return _rows("index_copy", input, dim, index, source, "set")


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy of ``input`` with the slices that ``index`` names filled with one number."""
    if isinstance(value, Tensor) and value._requires_grad:  # an index given twice counts once
        from tracecc.functional.pointwise import where

        none = splat(False, input._type.shape, bool_)
        return where(_rows("index_fill", none, dim, index, True, "set"), value, input)
    return _rows("index_fill", input, dim, index, value, "set")


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements of the flattened tensor at ``index``."""
    return emit(ops.gather, ravel(input), _check_index("take", index), axes=(0,))


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with elements of the flattened tensor at ``index`` replaced (or added to)."""
    flat, i, u = ravel(input), ravel(index), ravel(source)
    y = emit(ops.scatter, flat, i, u, axes=(0,), mode="add" if accumulate else "set")
    return reshaped(y, input._type.shape)


# Triangles and diagonals.


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of matrices; zeros above."""
    return _triangle(input, diagonal, ops.ge, "tril")


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of matrices; zeros below."""
    return _triangle(input, diagonal, ops.le, "triu")


def _triangle(input: Tensor, diagonal: int, op: Any, name: str) -> Tensor:
    if input.ndim < 2:
        raise RuntimeError(f"{name}: input must have at least 2 dimensions, given {input.ndim}")
    shape = input._type.shape[-2:]
    rows = emit(ops.iota, shape=shape, axis=0, dtype=i64)
    columns = emit(ops.iota, shape=shape, axis=1, dtype=i64)
    rows = emit(ops.add, rows, splat(diagonal, shape, i64))
    kept = expanded(emit(op, rows, columns), input._type.shape)
    return emit(ops.select, kept, input, splat(0, input._type.shape, input.dtype))


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix (a copy), or the matrix with a vector on its diagonal."""
    from tracecc.functional.shape import diagonal as diagonal_view

    if input.ndim == 2:
        return clone(diagonal_view(input, diagonal))
    if input.ndim != 1:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    return diag_embed(input, diagonal)


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension of ``input`` on a diagonal, zeros elsewhere."""
    from tracecc.functional.shape import movedim

    n: Any = input._type.shape[-1]
    m = n + abs(offset)
    batch = input._type.shape[:-1]
    at = emit(ops.iota, shape=(n,), axis=0, dtype=i64)
    rows = emit(ops.add, at, splat(max(-offset, 0), (n,), i64))
    columns = emit(ops.add, at, splat(max(offset, 0), (n,), i64))
    zero = splat(0, (*batch, m, m), input.dtype)
    updates = permuted(input, [input.ndim - 1, *range(input.ndim - 1)])
    axes = (len(batch), len(batch) + 1)
    y = own(emit(ops.scatter, zero, rows, columns, updates, axes=axes, mode="set"))
    first, second = wrap_dim(dim1, y.ndim), wrap_dim(dim2, y.ndim)
    return y if (first, second) == axes else movedim(y, (-2, -1), (first, second))


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of elements of 1-d tensors, one a row."""
    from tracecc.functional.creation import meshgrid
    from tracecc.functional.joining import stack

    for t in tensors:
        if check_tensor("cartesian_prod", t, "tensors").ndim != 1:
            raise RuntimeError(f"cartesian_prod(): Expect 1D vectors, given shape {list(t.shape)}")
    if len(tensors) == 1:
        return tensors[0]
    return stack([ravel(g) for g in meshgrid(*tensors)], 1)


def one_hot_positions(index: Tensor, classes: int) -> Tensor:
    """Whether each class is the index, along a new last dimension, as bool."""
    shape = (*index._type.shape, classes)
    column = expanded(reshaped(to_dtype(index, i64), (*index._type.shape, 1)), shape)
    return emit(ops.eq, column, emit(ops.iota, shape=shape, axis=len(shape) - 1, dtype=i64))
