"""Shapes: views that share memory, and functions that rearrange, join or repeat."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tracecc.functional.core import (
    broadcast_shapes,
    emit,
    expand_view,
    infer_size,
    permuted,
    reshaped,
    sizes_from,
    splat,
    to_dtype,
    variadic,
    wrap_dim,
)
from tracecc.functional.pointwise import clone
from tracecc.tensor import Tensor
from tracecc.trace.known import known
from tracecc.views import can_view, view
from tracecc_ir import ops
from tracecc_ir.types import DType, i64

# Views.


def view_reshape(x: Tensor, shape: Sequence[Any]) -> Tensor:
    return view(x, ops.reshape, {"shape": tuple(shape)})


def view_permute(x: Tensor, axes: Sequence[int]) -> Tensor:
    return view(x, ops.permute, {"axes": tuple(axes)})


def view_as_shape(self: Tensor, *shape: Any) -> Tensor:
    """The same memory under another shape, or read as another dtype of the same size."""
    if len(shape) == 1 and isinstance(shape[0], DType):
        return _view_dtype(self, shape[0])
    return view_reshape(self, infer_size(sizes_from(shape), self._type.size))


def _view_dtype(x: Tensor, dtype: DType) -> Tensor:
    from tracecc.tensor import _new, _setup
    from tracecc_ir.types import type_of_array

    if dtype.itemsize != x.dtype.itemsize and not x.ndim:
        raise RuntimeError(f"view: a 0-d tensor can't be read as {dtype.public}")
    ratio = max(dtype.itemsize // x.dtype.itemsize, 1)
    if ratio > 1 and x._type.shape[-1] % ratio:  # type: ignore[operator]
        raise RuntimeError(
            f"size(-1) must be divisible by {ratio} to view {x.dtype.public} as {dtype.public} "
            f"(different element sizes), but got {x._type.shape[-1]}"
        )
    array = x._numpy().view(dtype.numpy)
    v = _new(Tensor)
    _setup(v, array, type_of_array(array), x._storage)
    return v


def reshape(input: Tensor, *args: Any, shape: Any = None) -> Tensor:
    """The same elements under another shape: a view where strides allow it, else a copy.

    >>> import tracecc as tc
    >>> tc.reshape(tc.arange(6), (2, -1))
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    target = infer_size(variadic(args, shape), input._type.size)
    if can_view(input, target):
        return view_reshape(input, target)
    return emit(ops.reshape, input, shape=target)


def view_as(self: Tensor, other: Tensor) -> Tensor:
    """A view with the shape of ``other``."""
    return view_as_shape(self, *other._type.shape)


def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """Reshaped to the shape of ``other``."""
    return reshape(self, tuple(other._type.shape))


def permute(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """A view with reordered dimensions."""
    order = variadic(args, dims)
    if len(order) != input.ndim:
        raise RuntimeError(
            "permute: number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {input.ndim} is "
            f"not equal to len(dims) = {len(order)}"
        )
    axes = [wrap_dim(d, input.ndim) for d in order]
    if len(set(axes)) != len(axes):
        raise RuntimeError(f"permute(): duplicate dims are not allowed, given {axes}")
    return view_permute(input, axes)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """A view with two dimensions swapped."""
    a, b = wrap_dim(dim0, input.ndim), wrap_dim(dim1, input.ndim)
    axes = list(range(input.ndim))
    if axes:
        axes[a], axes[b] = b, a
    return view_permute(input, axes)


swapaxes = swapdims = transpose


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and scalars as they are."""
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return view_permute(input, range(input.ndim)[::-1])


def T(self: Tensor) -> Tensor:
    """All dimensions reversed."""
    return view_permute(self, range(self.ndim)[::-1])


def mT(self: Tensor) -> Tensor:
    """The last two dimensions swapped."""
    if self.ndim < 2:
        raise RuntimeError(
            f"tensor.mT is only supported on matrices or batches of matrices. "
            f"Got {self.ndim}-D tensor."
        )
    return transpose(self, -2, -1)


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """A view with dimensions moved to other places."""
    sources = [source] if isinstance(source, int) else list(source)
    targets = [destination] if isinstance(destination, int) else list(destination)
    if len(sources) != len(targets):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({sources} dims) should contain "
            f"the same number of dims as destination ({targets} dims)"
        )
    n = input.ndim
    sources, targets = [wrap_dim(d, n) for d in sources], [wrap_dim(d, n) for d in targets]
    for what, dims in (("source", sources), ("destination", targets)):
        if len(set(dims)) != len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{what}` ({dims})")
    rest = iter(i for i in range(n) if i not in sources)
    places = dict(zip(targets, sources, strict=True))
    return view_permute(input, [places[i] if i in places else next(rest) for i in range(n)])


moveaxis = movedim


def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """A view without dimensions of size 1: all of them, or those given."""
    shape = input._type.shape
    given = range(input.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    dims = {wrap_dim(d, input.ndim) for d in given}
    if dim is not None and not isinstance(dim, int) and len(dims) != len(tuple(given)):
        raise RuntimeError("dim appears multiple times in the list of dims")
    return view_reshape(input, [n for i, n in enumerate(shape) if i not in dims or n != 1])


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A view with a dimension of size 1 put in at ``dim``."""
    at = wrap_dim(dim, input.ndim + 1)
    shape = input._type.shape
    return view_reshape(input, (*shape[:at], 1, *shape[at:]))


def expand(self: Tensor, *sizes: Any, size: Any = None, implicit: bool = False) -> Tensor:
    """A view with dimensions of size 1 repeated, without memory; -1 keeps a size."""
    target = list(variadic(sizes, size))
    offset = len(target) - self.ndim
    if offset < 0:
        raise RuntimeError(
            f"expand({self._type!r}, size={target}): the number of sizes provided ({len(target)}) "
            f"must be greater or equal to the number of dimensions in the tensor ({self.ndim})"
        )
    for i, n in enumerate(target):
        if isinstance(n, int) and n < 0:
            if i < offset or n != -1:
                raise RuntimeError(
                    f"The expanded size of the tensor ({n}) isn't allowed in a leading, "
                    f"non-existing dimension {i}"
                )
            target[i] = self._type.shape[i - offset]
    return expand_view(self, tuple(target))


def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """`expand` as a function."""
    return expand(input, *sizes_from((size,)))


def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """Expanded to the shape of ``other``."""
    return expand(self, *other._type.shape)


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """All tensors expanded to their common shape."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    shape = broadcast_shapes(*(x._type.shape for x in tensors))
    return tuple(expand_view(x, shape) for x in tensors)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions ``start_dim`` to ``end_dim`` (included) as one."""
    n = input.ndim
    first, last = wrap_dim(start_dim, n), wrap_dim(end_dim, n)
    if first > last:
        raise RuntimeError(
            "flatten() has invalid args: start_dim cannot come after end_dim, "
            f"given {first} and {last}"
        )
    if n == 0:
        return reshape(input, 1)
    if first == last:
        return input
    shape = input._type.shape
    merged: Any = 1
    for size in shape[first : last + 1]:
        merged = merged * size
    return reshape(input, (*shape[:first], merged, *shape[last + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """One dimension."""
    return reshape(input, (input._type.size,))


def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """Dimension ``dim`` split into several; one of ``sizes`` may be -1."""
    axis = wrap_dim(dim, input.ndim)
    shape = input._type.shape
    if not len(sizes):
        raise RuntimeError("unflatten: sizes must be non-empty")
    try:
        parts = infer_size(sizes_from((sizes,)), shape[axis])
    except RuntimeError:
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {axis} "
            f"({shape[axis]}) in the input tensor"
        ) from None
    return reshape(input, (*shape[:axis], *parts, *shape[axis + 1 :]))


def slice_view(x: Tensor, axis: int, start: Any, limit: Any, stride: int = 1) -> Tensor:
    """``x[start:limit:stride]`` along one axis as a view."""
    shape = x._type.shape
    starts, limits, strides = [0] * x.ndim, list(shape), [1] * x.ndim
    starts[axis], limits[axis], strides[axis] = start, limit, stride
    attrs = {"starts": tuple(starts), "limits": tuple(limits), "strides": tuple(strides)}
    return view(x, ops.slice, attrs)


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """A view of ``length`` elements from ``start`` along ``dim``."""
    if input.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    axis = wrap_dim(dim, input.ndim)
    size: Any = input._type.shape[axis]
    if isinstance(start, Tensor) and start._array is None:
        return _dynamic_narrow(input, axis, start, length)
    start = int(start)
    if not -size <= start <= size:
        raise IndexError(
            f"start out of range (expected to be in range of [{-size}, {size}], but got {start})"
        )
    start = start + size if start < 0 else start
    if length < 0 or start + length > size:
        raise RuntimeError(
            f"start ({start}) + length ({length}) exceeds dimension size ({size})."
            if length >= 0
            else "narrow(): length must be non-negative."
        )
    return slice_view(input, axis, start, start + length)


def _dynamic_narrow(input: Tensor, axis: int, start: Tensor, length: int) -> Tensor:
    """`narrow` from a start that is known only when the graph runs: a copy."""
    at = to_dtype(reshaped(start, ()), i64)
    zero = splat(0, (), i64)
    starts = [at if i == axis else zero for i in range(input.ndim)]
    shape = input._type.shape
    sizes = (*shape[:axis], length, *shape[axis + 1 :])
    return emit(ops.dynamic_slice, input, *starts, sizes=sizes)


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """A view of one index along ``dim``, which is dropped."""
    if input.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    axis = wrap_dim(dim, input.ndim)
    shape: Any = input._type.shape
    if not -shape[axis] <= index < shape[axis]:
        raise IndexError(
            f"select(): index {index} out of range for tensor of size {list(shape)} at "
            f"dimension {axis}"
        )
    index = index + shape[axis] if index < 0 else index
    return view_reshape(
        slice_view(input, axis, index, index + 1), (*shape[:axis], *shape[axis + 1 :])
    )


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of pieces along ``dim``: of one size (the last may be smaller), or of given sizes."""
    axis = wrap_dim(dim, tensor.ndim)
    if tensor.ndim == 0:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    size: Any = tensor._type.shape[axis]
    if isinstance(split_size_or_sections, (list, tuple)):
        return split_with_sizes(tensor, split_size_or_sections, axis)
    step = split_size_or_sections
    if step < 0 or (step == 0 and size != 0):
        raise RuntimeError(
            f"split expects split_size be non-negative, but got split_size={step}"
            if step < 0
            else f"split_size can only be 0 if dimension size is 0, but got size {size}"
        )
    if size == 0:
        return (slice_view(tensor, axis, 0, 0),)
    return tuple(
        slice_view(tensor, axis, i, i + step if i + step < size else size)
        for i in range(0, size, step)
    )


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive pieces of the given sizes along ``dim``."""
    axis = wrap_dim(dim, input.ndim)
    size = input._type.shape[axis]
    if sum(split_sizes) != size:
        raise RuntimeError(
            f"split_with_sizes expects split_sizes to sum exactly to {size} (input tensor's size "
            f"at dimension {dim}), but got split_sizes={list(split_sizes)}"
        )
    if min(split_sizes, default=0) < 0:
        raise RuntimeError(
            "split_with_sizes expects split_sizes have only non-negative entries, but got "
            f"split_sizes={list(split_sizes)}"
        )
    found, at = [], 0
    for n in split_sizes:
        found.append(slice_view(input, axis, at, at + n))
        at += n
    return tuple(found)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of at most ``chunks`` equal pieces along ``dim``."""
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    if input.ndim == 0:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    size: Any = input._type.shape[wrap_dim(dim, input.ndim)]
    if size == 0:
        return tuple(narrow(input, dim, 0, 0) for _ in range(chunks))
    return split(input, -(-size // chunks), dim)


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of nearly equal pieces along ``dim``, or of pieces between given indices."""
    if input.ndim == 0:
        raise RuntimeError(
            "tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims"
        )
    axis = wrap_dim(dim, input.ndim)
    size: Any = input._type.shape[axis]
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = known(
            indices_or_sections, np.ndarray.tolist, "the indices of tensor_split"
        )
    if isinstance(indices_or_sections, int):
        n = indices_or_sections
        if n <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {n}")
        sizes = [size // n + (i < size % n) for i in range(n)]
        return split_with_sizes(input, sizes, axis)
    edges = [0, *(min(max(i + size if i < 0 else i, 0), size) for i in indices_or_sections), size]
    return tuple(slice_view(input, axis, a, max(a, b)) for a, b in pairwise(edges))


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of every index along ``dim``."""
    if input.ndim == 0:
        raise RuntimeError("Dimension specified as 0 but tensor has no dimensions")
    size: Any = input._type.shape[wrap_dim(dim, input.ndim)]
    return tuple(select(input, dim, i) for i in range(size))


def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along dimension 1 (0 for vectors)."""
    return tensor_split(input, indices_or_sections, 0 if input.ndim == 1 else 1)


def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along dimension 0."""
    return tensor_split(input, indices_or_sections, 0)


def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along dimension 2."""
    return tensor_split(input, indices_or_sections, 2)


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of dimensions ``dim1`` and ``dim2``, as the last dimension.

    The square part is flattened, and every (n + 1)-th element of it taken.
    """
    a, b = wrap_dim(dim1, input.ndim), wrap_dim(dim2, input.ndim)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    x = movedim(input, (a, b), (-2, -1))
    shape: Any = x._type.shape
    rows, columns = shape[-2:]
    first = max(-offset, 0), max(offset, 0)
    n = max(min(rows - first[0], columns - first[1]), 0)
    if n == 0:
        return (
            view_reshape(slice_view(x, x.ndim - 1, 0, 0), (*shape[:-2], 0))
            if rows
            else (view_reshape(x, (*shape[:-2], 0)))
        )
    # Row i of the part holds its diagonal element in column i: cut the columns to one more than
    # the rows need, or the rows to what the columns allow, and walk with stride columns + 1.
    part = slice_view(x, x.ndim - 2, first[0], first[0] + n)
    flat_start, stride = first[1], columns + 1
    flat = (*shape[:-2], n * columns)
    if part._array is None or can_view(part, flat):  # traced, any chain of movements is a view
        line = view_reshape(part, flat)
        end = flat_start + (n - 1) * stride + 1
        return slice_view(line, line.ndim - 1, flat_start, end, stride)
    return _diagonal_copy(part, first[1], n)


def _diagonal_copy(part: Tensor, column: int, n: int) -> Tensor:
    """The diagonal gathered, where strides allow no view."""
    index = emit(ops.iota, shape=(n,), axis=0, dtype=i64)
    columns = emit(ops.add, index, emit(ops.constant, value=column, shape=(n,), dtype=i64))
    found = emit(ops.gather, part, index, columns, axes=(part.ndim - 2, part.ndim - 1))
    return permuted(found, [*range(1, found.ndim), 0])


def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of ``size`` elements, ``step`` apart, along a dimension; they become the last."""
    axis = wrap_dim(dimension, self.ndim)
    x = reshape(self, (1,)) if self.ndim == 0 else self
    length: Any = x._type.shape[axis]
    if size > length or step <= 0:
        raise RuntimeError(
            f"maximum size for tensor at dimension {dimension} is {length} but size is {size}"
            if size > length
            else f"step is {step} but must be > 0"
        )
    n = (length - size) // step + 1
    rows = emit(ops.iota, shape=(n, size), axis=0, dtype=i64)
    at = emit(ops.iota, shape=(n, size), axis=1, dtype=i64)
    steps = emit(ops.constant, value=step, shape=(n, size), dtype=i64)
    index = emit(ops.add, emit(ops.mul, rows, steps), at)
    found = emit(ops.gather, x, index, axes=(axis,))
    order = [*range(2, 2 + axis), 0, *range(2 + axis, found.ndim), 1]
    result = permuted(found, order)
    return reshaped(result, (size,)) if self.ndim == 0 else result


def as_strided(
    input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Tensor:
    """Elements picked from the flat memory of a contiguous tensor by strides (gathered)."""
    offset = 0 if storage_offset is None else storage_offset
    grids = [
        n * np.arange(m).reshape([-1] + [1] * (len(size) - i - 1))
        for i, (m, n) in enumerate(zip(size, stride, strict=True))
    ]
    index = np.broadcast_to(sum(grids, np.asarray(offset)), tuple(size))
    from tracecc.tensor import wrap

    flat = reshape(input, (-1,))
    return emit(ops.gather, flat, wrap(np.ascontiguousarray(index, np.int64)), axes=(0,))


def contiguous(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself if its memory is in row-major order, else a copy that is."""
    if is_contiguous(self):
        return self
    return clone(self)


def is_contiguous(self: Tensor, memory_format: Any = None) -> bool:
    """Whether the elements lie in memory in row-major order without gaps."""
    if self._array is None:
        return all(op is ops.reshape for op, _ in self._chain)
    return bool(self._array.flags.c_contiguous)
