"""What every function needs: promotion, broadcasting, casts, constants and dimension checks.

Ops of the table neither promote nor broadcast; the functions here emit the explicit nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracecc.dispatch import apply, expr, own
from tracecc.state import thread
from tracecc.tensor import Tensor
from tracecc.views import view
from tracecc_ir import ops
from tracecc_ir.dims import Dim, product
from tracecc_ir.op import Op
from tracecc_ir.types import DType, Operand, Shape, bool_, c128, f32, f64, i64, result_type

Number = bool | int | float | complex
Dims = int | Sequence[int] | None


class _Defaults:
    """What creation functions use when no dtype is given."""

    dtype: DType = f32


defaults = _Defaults()


def default_dtype() -> DType:
    """The default floating point dtype; a trace that reads it is guarded by it."""
    if thread.trace is not None:
        thread.trace.guards.attribute(defaults, "dtype", defaults.dtype)
    return defaults.dtype


# Emitting.


def emit(op: Op, *inputs: Tensor, **attrs: Any) -> Tensor:
    """The first result of one op; it may share memory with an input (see `dispatch.own`)."""
    return apply(op, inputs, attrs)[0]


def splat(value: Any, shape: Shape, dtype: DType) -> Tensor:
    """A constant for internal use: one number in memory, whatever the shape."""
    return emit(ops.constant, value=value, shape=tuple(shape), dtype=dtype)


def is_number(x: Any) -> bool:
    return isinstance(x, (bool, int, float, complex, np.number, np.bool_)) and not isinstance(
        x, Tensor
    )


def number(x: Any) -> Number:
    """A Python number from a Python or NumPy scalar."""
    return x.item() if isinstance(x, np.generic) else x


def check_tensor(name: str, x: Any, argument: str = "input") -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}(): argument '{argument}' must be Tensor, not {type(x).__name__}")
    return x


# Accepted for PyTorch's sake: there is one layout, and memory is neither pinned nor permuted.
_NO_EFFECT = frozenset(("layout", "memory_format", "pin_memory"))


def check_keywords(name: str, given: dict[str, Any], *more: str) -> None:
    """Refuses keywords that neither have no effect here nor are among ``more``."""
    for key in given:
        if key not in _NO_EFFECT and key not in more:
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")


def to_dtype(x: Tensor, dtype: DType) -> Tensor:
    """``x`` converted to ``dtype``; ``x`` itself if it has it already."""
    return x if x._type.dtype is dtype else emit(ops.cast, x, dtype=dtype)


def to_float(x: Tensor) -> Tensor:
    """``x``, with integers and bools converted to the default floating point dtype."""
    return x if x._type.dtype.is_inexact else to_dtype(x, default_dtype())


# Promotion.


class NotANumber(TypeError):
    """Neither a Tensor nor a number; ``obj`` is what it is, so that callers can name it."""

    def __init__(self, obj: Any):
        super().__init__(f"expected a Tensor or a number, given {type(obj).__name__}")
        self.obj = obj


def operand(x: Any) -> Operand:
    """How ``x`` counts in promotion; a weak tensor counts like the Python number it stands for."""
    if isinstance(x, Tensor):
        if x._weak:
            return Operand(x._type.dtype, 0)
        return Operand(x._type.dtype, 2 if x._type.shape else 1)
    x = number(x)
    if isinstance(x, bool):
        return Operand(bool_, 0)
    if isinstance(x, int):
        return Operand(i64, 0)
    if isinstance(x, float):
        return Operand(f64, 0)
    if isinstance(x, complex):
        return Operand(c128, 0)
    raise NotANumber(x)


def promoted(*xs: Any) -> DType:
    """The result dtype of an operation on tensors and numbers."""
    return result_type([operand(x) for x in xs], default_dtype())


def lift(x: Any, dtype: DType, shape: Shape) -> Tensor:
    """A tensor or number as a tensor of exactly this dtype and shape (broadcasting to it)."""
    if isinstance(x, Tensor):
        return expanded(to_dtype(x, dtype), shape)
    return splat(number(x), shape, dtype)


def shape_of(x: Any) -> Shape:
    return x._type.shape if isinstance(x, Tensor) else ()


def match(*xs: Any, dtype: DType | None = None) -> list[Tensor]:
    """The operands promoted to one dtype and broadcast to one shape."""
    dtype = promoted(*xs) if dtype is None else dtype
    shape = broadcast_shapes(*map(shape_of, xs))
    return [lift(x, dtype, shape) for x in xs]


# Shapes.


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that all of ``shapes`` broadcast to; raises RuntimeError if there is none."""
    result: list[Any] = []
    for shape in shapes:
        if list(shape) == result[-len(shape) :] if len(shape) <= len(result) else False:
            continue
        longer = max(len(shape), len(result))
        a = [1] * (longer - len(result)) + result
        b = [1] * (longer - len(shape)) + list(shape)
        result = [_broadcast_size(s, t, i) for i, (s, t) in enumerate(zip(a, b, strict=True))]
    return tuple(result)


def _broadcast_size(a: Any, b: Any, dim: int) -> Any:
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    raise RuntimeError(
        f"The size of tensor a ({a}) must match the size of tensor b ({b}) "
        f"at non-singleton dimension {dim}"
    )


def _expansion(x: Tensor, shape: Shape) -> tuple[Shape | None, tuple[int, ...]]:
    """How to broadcast: the shape without the dimensions that grow (None: as is), and the axes."""
    old = x._type.shape
    offset = len(shape) - len(old)
    if offset < 0:
        raise RuntimeError(f"a tensor of shape {list(old)} can't be expanded to {list(shape)}")
    kept = [i for i, s in enumerate(old) if not (s == 1 and shape[offset + i] != 1)]
    for i in kept:
        if old[i] != shape[offset + i]:
            raise RuntimeError(
                f"The expanded size of the tensor ({shape[offset + i]}) must match the existing "
                f"size ({old[i]}) at non-singleton dimension {offset + i}. "
                f"Target sizes: {list(shape)}.  Tensor sizes: {list(old)}"
            )
    squeezed = None if len(kept) == len(old) else tuple(old[i] for i in kept)
    return squeezed, tuple(offset + i for i in kept)


def expanded(x: Tensor, shape: Shape) -> Tensor:
    """``x`` broadcast to ``shape`` by explicit nodes, or itself; for internal use."""
    if x._type.shape == tuple(shape):
        return x
    squeezed, axes = _expansion(x, shape)
    if squeezed is not None:
        x = emit(ops.reshape, x, shape=squeezed)
    if x._type.shape == tuple(shape):
        return x
    return emit(ops.broadcast, x, shape=tuple(shape), axes=axes)


def expand_view(x: Tensor, shape: Shape) -> Tensor:
    """``x`` broadcast to ``shape`` as a view."""
    if x._type.shape == tuple(shape):
        return view(x, ops.reshape, {"shape": tuple(shape)})
    squeezed, axes = _expansion(x, shape)
    if squeezed is not None:
        x = view(x, ops.reshape, {"shape": squeezed})
    return view(x, ops.broadcast, {"shape": tuple(shape), "axes": axes})


def reshaped(x: Tensor, shape: Sequence[Any]) -> Tensor:
    """``x`` under another shape, for internal use; itself if nothing changes."""
    return x if x._type.shape == tuple(shape) else emit(ops.reshape, x, shape=tuple(shape))


def permuted(x: Tensor, axes: Sequence[int]) -> Tensor:
    """``x`` with reordered dimensions, for internal use; itself if nothing changes."""
    if list(axes) == list(range(x.ndim)):
        return x
    return emit(ops.permute, x, axes=tuple(axes))


def wrap_dim(dim: Any, ndim: int) -> int:
    """A dimension counted from the front; raises IndexError if there is none such."""
    if not isinstance(dim, (int, np.integer)):
        raise TypeError(f"a dimension must be an int, given {type(dim).__name__}")
    span = max(ndim, 1)
    if not -span <= dim < span:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-span}, {span - 1}], "
            f"but got {dim})"
        )
    return int(dim) % span


def wrap_dims(dim: Dims, ndim: int) -> tuple[int, ...]:
    """Distinct dimensions, sorted; None or an empty sequence means all of them."""
    if dim is None or (not isinstance(dim, (int, np.integer)) and not len(dim)):
        return tuple(range(ndim))
    given = [dim] if isinstance(dim, (int, np.integer)) else list(dim)
    wrapped = [wrap_dim(d, ndim) for d in given]
    for d in wrapped:
        if wrapped.count(d) > 1:
            raise RuntimeError(f"dim {d} appears multiple times in the list of dims")
    return tuple(sorted(wrapped)) if ndim else ()


def sizes_from(args: Sequence[Any]) -> tuple[Any, ...]:
    """Sizes given as separate arguments or as one sequence."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = args[0]
    for n in args:
        if isinstance(n, bool) or not isinstance(n, (int, np.integer, Dim, Tensor)):
            raise TypeError(f"sizes must be ints, given {type(n).__name__}")
    return tuple(n if isinstance(n, Dim) else int(n) for n in args)


def variadic(args: Sequence[Any], keyword: Any) -> tuple[Any, ...]:
    """Sizes or dimensions given as arguments, as one sequence, or by keyword."""
    return sizes_from((keyword,) if keyword is not None and not args else args)


def infer_size(shape: Sequence[Any], total: Any) -> tuple[Any, ...]:
    """``shape`` with one -1 replaced so that it has ``total`` elements."""
    holes = [i for i, n in enumerate(shape) if isinstance(n, int) and n < 0]
    if not holes:
        if product(tuple(shape)) != total:
            raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {total}")
        return tuple(shape)
    if len(holes) > 1:
        raise RuntimeError(f"only one dimension can be inferred, given {list(shape)}")
    if shape[holes[0]] != -1:
        raise RuntimeError(f"invalid shape dimension {shape[holes[0]]} in {list(shape)}")
    known = product(tuple(n for i, n in enumerate(shape) if i != holes[0]))
    if known == 0:
        raise RuntimeError(
            f"cannot reshape tensor of {total} elements into shape {list(shape)} because the "
            "unspecified dimension size -1 can be any value"
        )
    try:
        whole = total // known
    except ValueError:
        whole = None
    if whole is None or whole * known != total:
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {total}")
    return tuple(whole if i == holes[0] else n for i, n in enumerate(shape))


def count(shape: Shape) -> int:
    """The number of elements of a concrete shape."""
    return math.prod(shape)  # type: ignore[arg-type]


def arange_like(n: Any, shape: Shape, axis: int) -> Tensor:
    """Positions 0 .. n-1 along ``axis`` of ``shape``, i64, for internal use."""
    return emit(ops.iota, shape=tuple(shape), axis=axis, dtype=i64)


__all__ = [
    "Dims",
    "Number",
    "apply",
    "arange_like",
    "broadcast_shapes",
    "check_tensor",
    "count",
    "default_dtype",
    "defaults",
    "emit",
    "expand_view",
    "expanded",
    "expr",
    "infer_size",
    "is_number",
    "lift",
    "match",
    "number",
    "operand",
    "own",
    "permuted",
    "promoted",
    "reshaped",
    "shape_of",
    "sizes_from",
    "splat",
    "to_dtype",
    "to_float",
    "variadic",
    "view",
    "wrap_dim",
    "wrap_dims",
]
