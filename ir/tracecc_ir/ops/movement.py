"""Movement primitives: the same elements elsewhere. References return views wherever NumPy can.

Duals under differentiation: broadcast and reduce_sum, slice and pad; the others are their own.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tracecc_ir.dims import Size, product
from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import OPS, Expr, Op, Sample, Usual
from tracecc_ir.ops.rules import ALL, check_axes, check_axis, check_length, draw, narrow, others
from tracecc_ir.types import DType, Shape, TensorType

Ints = tuple[int, ...]


def _sizes(sizes: Sequence[Size]) -> str:
    return f"[{', '.join(map(str, sizes))}]"


def _reshape_type(x: TensorType, *, shape: Shape) -> TensorType:
    if product(tuple(shape)) != x.size or any(s < 0 for s in shape):
        raise TypeRuleError(
            f"reshape cannot give {x}, which has {x.size} elements, the shape {_sizes(shape)}"
        )
    return x.with_shape(shape)


def _reshape_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for before, after in (
        ((2, 3, 4), (6, 4)),
        ((6,), (1, 3, 1, 2)),
        ((), (1, 1)),
        ((1,), ()),
        ((0, 3), (7, 0)),
    ):
        yield Sample((draw(rng, dtype, *before),), {"shape": after})


reshape: Op = Op(
    "reshape",
    "movement",
    _reshape_type,
    lambda x, shape: x.reshape(shape),
    (lambda g, y, x, shape: reshape(g, shape=x.shape),),
    dtypes=ALL,
    samples=_reshape_samples,
    doc="the same elements in row-major order under another shape",
)


def _permute_type(x: TensorType, *, axes: Ints) -> TensorType:
    check_length("permute", x, x.ndim, axes=axes)
    return x.with_shape(x.shape[a] for a in check_axes("permute", x, axes))


def inverse(axes: Sequence[int]) -> Ints:
    """The permutation that undoes ``axes``."""
    return tuple(sorted(range(len(axes)), key=lambda i: axes[i]))


def _permute_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axes in (((2, 3, 4), (2, 0, 1)), ((3, 5), (1, 0)), ((), ()), ((0, 2), (1, 0))):
        yield Sample((draw(rng, dtype, *shape),), {"axes": axes})


permute: Op = Op(
    "permute",
    "movement",
    _permute_type,
    lambda x, axes: x.transpose(axes),
    (lambda g, y, x, axes: permute(g, axes=inverse(axes)),),
    dtypes=ALL,
    samples=_permute_samples,
    doc="reorders dimensions: result dimension i is operand dimension axes[i]",
)


def _broadcast_type(x: TensorType, *, shape: Shape, axes: Ints) -> TensorType:
    check_length("broadcast", x, x.ndim, axes=axes)
    result = x.with_shape(shape)
    check_axes("broadcast to", result, axes)
    if list(axes) != sorted(axes) or any(shape[a] != s for a, s in zip(axes, x.shape, strict=True)):
        raise TypeRuleError(
            f"broadcast of {x} to {_sizes(shape)} needs increasing axes of equal sizes, "
            f"given axes={axes}"
        )
    return result


def _broadcast(x: np.ndarray, shape: Ints, axes: Ints) -> np.ndarray:
    return np.broadcast_to(np.expand_dims(x, others(len(shape), axes)), shape)


def _broadcast_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for before, after, axes in (
        ((3,), (2, 3), (1,)),
        ((3,), (3, 2), (0,)),
        ((2, 5), (4, 2, 1, 5), (1, 3)),
        ((), (2, 3), ()),
        ((), (), ()),
        ((0,), (3, 0), (1,)),
        ((3,), (0, 3), (1,)),
    ):
        yield Sample((draw(rng, dtype, *before),), {"shape": after, "axes": axes})


broadcast: Op = Op(
    "broadcast",
    "movement",
    _broadcast_type,
    _broadcast,
    (lambda g, y, x, shape, axes: OPS["reduce_sum"](g, axes=others(len(shape), axes)),),
    dtypes=ALL,
    samples=_broadcast_samples,
    usual={"axes": Usual("() of one element", lambda operands, result, given: ())},
    doc="repeats along new dimensions: operand dimension i becomes result dimension axes[i]",
)


def _slice_type(x: TensorType, *, starts: Shape, limits: Shape, strides: Ints) -> TensorType:
    check_length("slice", x, x.ndim, starts=starts, limits=limits, strides=strides)
    shape: list[Size] = []
    for size, start, limit, stride in zip(x.shape, starts, limits, strides, strict=True):
        if stride < 1 or start < 0 or limit < start or limit > size:
            raise TypeRuleError(
                f"slice of {x} needs 0 <= start <= limit <= size and stride >= 1, "
                f"given {start}:{limit}:{stride} for size {size}"
            )
        shape.append((limit - start + stride - 1) // stride)
    return x.with_shape(shape)


def _slice(x: np.ndarray, starts: Ints, limits: Ints, strides: Ints) -> np.ndarray:
    index: tuple = (*map(builtins.slice, starts, limits, strides), ...)
    return x[index]


def _slice_vjp(g: Any, y: Any, x: Any, starts: Shape, limits: Shape, strides: Ints) -> Any:
    ends = [
        start + (n - 1) * stride + 1 if n != 0 else start
        for start, n, stride in zip(starts, y.shape, strides, strict=True)
    ]
    high = tuple(size - end for size, end in zip(x.shape, ends, strict=True))
    return pad(g, low=starts, high=high, interior=tuple(s - 1 for s in strides), value=0)


def _slice_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, starts, limits, strides in (
        ((5,), (1,), (4,), (1,)),
        ((7, 5), (1, 0), (7, 5), (2, 3)),
        ((4, 3), (2, 1), (2, 3), (1, 1)),
        ((9,), (0,), (9,), (4,)),
        ((), (), (), ()),
        ((0, 3), (0, 0), (0, 2), (1, 1)),
    ):
        x = draw(rng, dtype, *shape)
        yield Sample((x,), {"starts": starts, "limits": limits, "strides": strides})


slice: Op = Op(
    "slice",
    "movement",
    _slice_type,
    _slice,
    (_slice_vjp,),
    dtypes=ALL,
    samples=_slice_samples,
    usual={
        "starts": Usual("0s", lambda operands, result, given: (0,) * result.ndim),
        "limits": Usual("x's sizes", lambda operands, result, given: operands[0].shape),
        "strides": Usual("1s", lambda operands, result, given: (1,) * result.ndim),
    },
    doc="every stride-th element of start <= index < limit, in each dimension",
)


def _pad_type(
    x: TensorType, *, low: Shape, high: Shape, interior: Ints, value: float
) -> TensorType:
    check_length("pad", x, x.ndim, low=low, high=high, interior=interior)
    if any(p < 0 for p in (*low, *high, *interior)):
        raise TypeRuleError(
            f"pad of {x} takes no negative amounts, given low={_sizes(low)} high={_sizes(high)} "
            f"interior={interior}; slice removes elements"
        )
    between = [(n - 1) * gap if n != 0 else 0 for n, gap in zip(x.shape, interior, strict=True)]
    return x.with_shape(map(sum, zip(low, x.shape, between, high, strict=True)))


def _pad(x: np.ndarray, low: Ints, high: Ints, interior: Ints, value: float) -> np.ndarray:
    steps = [gap + 1 for gap in interior]
    spans = [(n - 1) * step + 1 if n else 0 for n, step in zip(x.shape, steps, strict=True)]
    shape = tuple(map(sum, zip(low, spans, high, strict=True)))
    result = np.full(shape, narrow(np.asarray(value), x.dtype))
    limits = [p + n for p, n in zip(low, spans, strict=True)]
    result[tuple(map(builtins.slice, low, limits, steps))] = x
    return result


def _pad_vjp(g: Any, y: Any, x: Any, low: Shape, high: Shape, interior: Ints, value: float) -> Any:
    strides = tuple(gap + 1 for gap in interior)
    limits = tuple(
        start + (n - 1) * step + 1 if n != 0 else start
        for start, n, step in zip(low, x.shape, strides, strict=True)
    )
    return slice(g, starts=low, limits=limits, strides=strides)


def _pad_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, low, high, interior, value in (
        ((3,), (1,), (2,), (0,), 0),
        ((2, 3), (0, 1), (1, 0), (0, 2), 1),
        ((), (), (), (), 0),
        ((0, 2), (1, 0), (2, 0), (3, 1), 0),
        ((1,), (0,), (0,), (4,), 1),
    ):
        attrs = {"low": low, "high": high, "interior": interior, "value": value}
        yield Sample((draw(rng, dtype, *shape),), attrs)


pad: Op = Op(
    "pad",
    "movement",
    _pad_type,
    _pad,
    (_pad_vjp,),
    dtypes=ALL,
    samples=_pad_samples,
    usual={
        "low": Usual("0s", lambda operands, result, given: (0,) * result.ndim),
        "high": Usual("0s", lambda operands, result, given: (0,) * result.ndim),
        "interior": Usual("0s", lambda operands, result, given: (0,) * result.ndim),
        "value": Usual("0", lambda operands, result, given: 0),
    },
    doc="adds a value: low before, high after and interior between the elements of a dimension",
)


def _flip_type(x: TensorType, *, axes: Ints) -> TensorType:
    check_axes("flip", x, axes)
    return x


def _flip_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axes in (((5,), (0,)), ((2, 3, 4), (0, 2)), ((3, 0), (0,)), ((), ())):
        yield Sample((draw(rng, dtype, *shape),), {"axes": axes})


flip: Op = Op(
    "flip",
    "movement",
    _flip_type,
    lambda x, axes: np.asarray(np.flip(x, axes)),
    (lambda g, y, x, axes: flip(g, axes=axes),),
    dtypes=ALL,
    samples=_flip_samples,
    doc="reverses the order along axes",
)


def _concat_type(*xs: TensorType, axis: int) -> TensorType:
    if not xs:
        raise TypeRuleError("concat needs at least one operand")
    check_axis("concat", xs[0], axis)
    for x in xs[1:]:
        if x.dtype is not xs[0].dtype or not _concatenates(xs[0].shape, x.shape, axis):
            raise TypeRuleError(
                f"concat along axis {axis} needs operands of one type but for that size, "
                f"given {xs[0]} and {x}"
            )
    shape = xs[0].shape
    return xs[0].with_shape((*shape[:axis], sum(x.shape[axis] for x in xs), *shape[axis + 1 :]))


def _concatenates(a: Shape, b: Shape, axis: int) -> bool:
    return len(a) == len(b) and all(
        s == t or i == axis for i, (s, t) in enumerate(zip(a, b, strict=True))
    )


def part(x: Expr, axis: int, start: Size, limit: Size) -> Any:
    """``x[start:limit]`` along one axis."""
    starts: list[Size] = [0] * x.ndim
    limits = list(x.shape)
    starts[axis], limits[axis] = start, limit
    return slice(x, starts=tuple(starts), limits=tuple(limits), strides=(1,) * x.ndim)


def _concat_vjp(g: Any, y: Any, *xs: Any, axis: int) -> tuple:
    parts, start = [], 0
    for x in xs:
        limit = start + x.shape[axis]
        parts.append(part(g, axis, start, limit))
        start = limit
    return tuple(parts)


def _concat_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shapes, axis in (
        (((2, 3), (2, 1), (2, 0)), 1),
        (((3,), (4,)), 0),
        (((2, 3, 1),), 2),
        (((0, 2), (0, 2)), 0),
    ):
        yield Sample(tuple(draw(rng, dtype, *s) for s in shapes), {"axis": axis})


concat: Op = Op(
    "concat",
    "movement",
    _concat_type,
    lambda *xs, axis: np.concatenate(xs, axis),
    _concat_vjp,
    dtypes=ALL,
    samples=_concat_samples,
    doc="operands one after the other along an axis",
)
