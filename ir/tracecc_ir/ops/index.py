"""Reading and writing at computed positions.

Indices are i32 or i64; -n <= index < n, where negative ones count from the end. The reference
refuses others with an IndexError. The starts of dynamic_slice and dynamic_update are clamped.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tracecc_ir.dims import Size
from tracecc_ir.errors import OutOfBounds, TypeRuleError
from tracecc_ir.op import Expr, Op, Sample, Usual
from tracecc_ir.ops.elementwise import cast, select
from tracecc_ir.ops.rules import (
    ALL,
    check_axes,
    check_axis,
    check_index,
    check_length,
    check_same_dtype,
    draw,
    narrow,
    others,
    wide,
    without,
)
from tracecc_ir.types import DType, Shape, TensorType, i64

Ints = tuple[int, ...]

# How scatter combines an update with what is there. With "set" the last of several updates stays.
COMBINE: dict[str, np.ufunc | None] = {
    "set": None,
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def modes(dtype: DType) -> Sequence[str]:
    """How numbers of a dtype can be combined."""
    return [m for m in COMBINE if not (dtype.is_complex and m in ("max", "min"))]


def _check_mode(name: str, x: TensorType, mode: str) -> None:
    if mode not in COMBINE:
        raise TypeRuleError(f"{name} has no mode {mode!r}; it has {', '.join(COMBINE)}")
    if mode not in modes(x.dtype):
        raise TypeRuleError(f"{name} of {x}: complex numbers have no order, so there is no {mode}")


def _check_bounds(index: np.ndarray, axis: int, size: int) -> np.ndarray:
    wrong = (index < -size) | (index >= size)
    if wrong.any():
        first = index[wrong].flat[0]
        raise OutOfBounds(f"index {first} is out of bounds for dimension {axis} with size {size}")
    return index


def _combine(target: np.ndarray, index: tuple, updates: np.ndarray, mode: str) -> np.ndarray:
    """Writes updates into a copy of ``target`` at NumPy's ``index``."""
    result = np.array(wide(target))
    ufunc = COMBINE[mode]
    if ufunc is None:
        result[index] = updates
    else:
        with np.errstate(all="ignore"):
            ufunc.at(result, index, wide(updates))
    return narrow(result, target.dtype)


def _scatter_gradients(
    g: Expr,
    y: Expr,
    x: Expr,
    updates: Expr,
    mode: str,
    take: Callable[[Expr], Expr],
    put: Callable[[Expr, Expr, str], Expr],
) -> tuple[Any, Any]:
    """For x and updates, where ``take`` gathers and ``put`` scatters at the same positions."""
    if mode == "set":
        return put(g, updates.full(0), "set"), take(g)
    if mode == "add":
        return g, take(g)
    if mode == "mul":
        zero = updates.eq(0.0)
        zeros = cast(zero, dtype=updates.dtype)
        other_zeros = take(put(x.full(0), zeros, "add")) - zeros
        factor = select(zero, updates.full(1), updates)
        rest = take(g * put(x, factor, "mul")) / factor
        return put(g, updates, "mul"), select(other_zeros.eq(0.0), rest, rest.full(0))
    x_won = cast(x.eq(y), dtype=x.dtype)
    update_won = cast(updates.eq(take(y)), dtype=x.dtype)
    share = g / put(x_won, update_won, "add")
    return x_won * share, update_won * take(share)


def _gathered(name: str, x: TensorType, indices: Sequence[TensorType], axes: Ints) -> Shape:
    """The shape that gather gives: that of the index arrays, then x's other dimensions."""
    check_axes(name, x, axes)
    if not indices or len(indices) != len(axes):
        raise TypeRuleError(
            f"{name} of {x} needs one index array for each of axes={axes}, given {len(indices)}"
        )
    for index in indices:
        check_index(name, index)
        if index.shape != indices[0].shape:
            raise TypeRuleError(
                f"{name} needs index arrays of one shape, given {indices[0]} and {index}"
            )
    return (*indices[0].shape, *without(x.shape, axes))


def _gather_type(x: TensorType, *indices: TensorType, axes: Ints) -> TensorType:
    return x.with_shape(_gathered("gather", x, indices, axes))


def _positions(x: np.ndarray, indices: Sequence[np.ndarray], axes: Ints) -> tuple:
    """Flat index arrays, so that NumPy always copies and puts their dimension first."""
    pairs = zip(indices, axes, strict=True)
    return tuple(_check_bounds(i, a, x.shape[a]).reshape(-1) for i, a in pairs)


def _gather(x: np.ndarray, *indices: np.ndarray, axes: Ints) -> np.ndarray:
    rest = others(x.ndim, axes)
    found = x.transpose(axes + rest)[_positions(x, indices, axes)]
    return found.reshape(indices[0].shape + tuple(x.shape[a] for a in rest))


def _gather_vjp(g: Expr, y: Expr, x: Expr, *indices: Expr, axes: Ints) -> tuple:
    dx = scatter(x.full(0), *indices, g, axes=axes, mode="add")
    return (dx, *[None] * len(indices))


# Shape of x, shape of the index arrays, axes.
GATHERS: tuple[tuple[Ints, Ints, Ints], ...] = (
    ((5, 3), (4,), (0,)),
    ((5, 3), (2, 2), (1,)),
    ((4, 2, 3), (3,), (0, 2)),
    ((4, 2, 3), (), (1,)),
    ((6,), (2, 3), (0,)),
    ((5, 3), (0,), (0,)),
    ((3, 0), (2,), (0,)),
)


def _index(rng: np.random.Generator, size: int, shape: Ints, unique: bool) -> np.ndarray:
    """Index samples, some of them negative."""
    count = int(np.prod(shape))
    index = rng.permutation(max(size, count))[:count] if unique else rng.integers(0, size, count)
    return (index - size * rng.integers(0, 2, count)).reshape(shape)


def _gather_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, index, axes in GATHERS:
        indices = [_index(rng, shape[a], index, unique=False) for a in axes]
        yield Sample((draw(rng, dtype, *shape), *indices), {"axes": axes})


gather: Op = Op(
    "gather",
    "index",
    _gather_type,
    _gather,
    _gather_vjp,
    dtypes=ALL,
    samples=_gather_samples,
    usual={
        "axes": Usual("the first", lambda operands, result, given: tuple(range(len(operands) - 1)))
    },
    doc="x[index, ...] along axes; result = shape of the index arrays, then the other dimensions",
)


def _scatter_type(
    x: TensorType, *operands: TensorType, axes: Ints, mode: str = "set"
) -> TensorType:
    _check_mode("scatter", x, mode)
    if not operands:
        raise TypeRuleError("scatter needs a target, index arrays and updates")
    *indices, updates = operands
    check_same_dtype("scatter", x, updates)
    expected = x.with_shape(_gathered("scatter", x, indices, axes))
    if updates != expected:
        raise TypeRuleError(f"scatter into {x} needs updates {expected}, given {updates}")
    return x


def _scatter(x: np.ndarray, *operands: np.ndarray, axes: Ints, mode: str) -> np.ndarray:
    *indices, updates = operands
    if not updates.size:
        return x.copy()
    order = axes + others(x.ndim, axes)
    target = x.transpose(order)
    rows = updates.reshape(-1, *target.shape[len(axes) :])
    result = _combine(target, _positions(x, indices, axes), rows, mode)
    return result.transpose(np.argsort(order))


def _scatter_vjp(g: Expr, y: Expr, x: Expr, *operands: Expr, axes: Ints, mode: str) -> tuple:
    *indices, updates = operands
    dx, du = _scatter_gradients(
        g,
        y,
        x,
        updates,
        mode,
        lambda a: gather(a, *indices, axes=axes),
        lambda a, u, how: scatter(a, *indices, u, axes=axes, mode=how),
    )
    return (dx, *[None] * len(indices), du)


def _scatter_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, index, axes in GATHERS:
        for mode in modes(dtype):
            indices = [_index(rng, shape[a], index, mode == "set") for a in axes]
            rest = [shape[a] for a in others(len(shape), axes)]
            updates = draw(rng, dtype, *index, *rest)
            operands = (draw(rng, dtype, *shape), *indices, updates)
            if mode != "set" or all(np.prod(index) <= shape[a] for a in axes):
                yield Sample(operands, {"axes": axes, "mode": mode})


scatter: Op = Op(
    "scatter",
    "index",
    _scatter_type,
    _scatter,
    _scatter_vjp,
    dtypes=ALL,
    samples=_scatter_samples,
    usual={
        "axes": Usual("the first", lambda operands, result, given: tuple(range(len(operands) - 2)))
    },
    doc="a copy of x with updates combined in (set, add, mul, max or min) where gather reads",
    holomorphic=True,
)


def _along_type(name: str, x: TensorType, index: TensorType, axis: int) -> TensorType:
    check_axis(name, x, axis)
    check_index(name, index)
    fits = index.ndim == x.ndim and all(
        i == axis or n <= size for i, (n, size) in enumerate(zip(index.shape, x.shape, strict=True))
    )
    if not fits:
        raise TypeRuleError(
            f"{name} of {x} needs an index no larger than it but along axis {axis}, given {index}"
        )
    return x.with_shape(index.shape)


def _gather_along_type(x: TensorType, index: TensorType, *, axis: int) -> TensorType:
    return _along_type("gather_along", x, index, axis)


def _along(x: np.ndarray, index: np.ndarray, axis: int) -> tuple:
    """NumPy's index for "at these positions along an axis, and here in the other dimensions"."""
    _check_bounds(index, axis, x.shape[axis])
    here = np.ogrid[tuple(map(builtins.slice, index.shape))]
    return (*here[:axis], index, *here[axis + 1 :])


def _along_shapes() -> Iterator[tuple[Ints, Ints, int]]:
    yield from (
        ((3, 5), (3, 2), 1),
        ((3, 5), (7, 4), 0),
        ((2, 3, 4), (2, 1, 3), 1),
        ((4,), (6,), 0),
        ((3, 5), (3, 0), 1),
        ((0, 5), (0, 2), 1),
    )


def _gather_along_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, index, axis in _along_shapes():
        position = _index(rng, shape[axis], index, unique=False)
        yield Sample((draw(rng, dtype, *shape), position), {"axis": axis})


gather_along: Op = Op(
    "gather_along",
    "index",
    _gather_along_type,
    lambda x, index, axis: x[_along(x, index, axis)],
    (
        lambda g, y, x, index, axis: scatter_along(x.full(0), index, g, axis=axis, mode="add"),
        None,
    ),
    dtypes=ALL,
    samples=_gather_along_samples,
    doc="x at an index along one axis, position by position in the others (torch.gather)",
)


def _scatter_along_type(
    x: TensorType, index: TensorType, updates: TensorType, *, axis: int, mode: str = "set"
) -> TensorType:
    _check_mode("scatter_along", x, mode)
    expected = _along_type("scatter_along", x, index, axis)
    if updates != expected:
        raise TypeRuleError(f"scatter_along into {x} needs updates {expected}, given {updates}")
    return x


def _scatter_along(
    x: np.ndarray, index: np.ndarray, updates: np.ndarray, axis: int, mode: str
) -> np.ndarray:
    return _combine(x, _along(x, index, axis), updates, mode)


def _scatter_along_vjp(
    g: Expr, y: Expr, x: Expr, index: Expr, updates: Expr, axis: int, mode: str
) -> tuple:
    dx, du = _scatter_gradients(
        g,
        y,
        x,
        updates,
        mode,
        lambda a: gather_along(a, index, axis=axis),
        lambda a, u, how: scatter_along(a, index, u, axis=axis, mode=how),
    )
    return dx, None, du


def _scatter_along_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, index, axis in _along_shapes():
        for mode in modes(dtype):
            position = _index(rng, shape[axis], index, unique=False)
            if mode == "set":
                index = tuple(map(min, index, shape))
                position = np.argsort(rng.random(shape), axis)[tuple(map(builtins.slice, index))]
            operands = (draw(rng, dtype, *shape), position, draw(rng, dtype, *index))
            yield Sample(operands, {"axis": axis, "mode": mode})


scatter_along: Op = Op(
    "scatter_along",
    "index",
    _scatter_along_type,
    _scatter_along,
    _scatter_along_vjp,
    dtypes=ALL,
    samples=_scatter_along_samples,
    doc="a copy of x with updates combined in (modes as scatter) where gather_along reads",
    holomorphic=True,
)


def _check_starts(name: str, x: TensorType, starts: Sequence[TensorType], sizes: Shape) -> None:
    check_length(name, x, x.ndim, starts=starts, sizes=sizes)
    if any(s != TensorType(i64, ()) for s in starts):
        raise TypeRuleError(f"{name} of {x} needs starts of type i64[], given {list(starts)}")
    if any(n > size or n < 0 for n, size in zip(sizes, x.shape, strict=True)):
        raise TypeRuleError(f"{name} of {x} cannot hold a window of sizes {list(sizes)}")


def _dynamic_slice_type(x: TensorType, *starts: TensorType, sizes: Shape) -> TensorType:
    _check_starts("dynamic_slice", x, starts, sizes)
    return x.with_shape(sizes)


def _window(x: np.ndarray, starts: Sequence[np.ndarray], sizes: Sequence[int]) -> tuple:
    firsts = [min(max(int(s), 0), n - k) for s, n, k in zip(starts, x.shape, sizes, strict=True)]
    return (*(builtins.slice(f, f + k) for f, k in zip(firsts, sizes, strict=True)), ...)


def _dynamic_slice_vjp(g: Expr, y: Expr, x: Expr, *starts: Expr, sizes: tuple[Size, ...]) -> tuple:
    return (dynamic_update(x.full(0), g, *starts), *[None] * len(starts))


def _starts(rng: np.random.Generator, shape: Ints) -> list[np.ndarray]:
    return [np.asarray(rng.integers(-1, n + 1)) for n in shape]


WINDOWS: tuple[tuple[Ints, Ints], ...] = (
    ((7,), (3,)),
    ((4, 5), (2, 5)),
    ((3, 4, 2), (1, 0, 2)),
    ((), ()),
    ((0, 3), (0, 1)),
)


def _dynamic_slice_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, sizes in WINDOWS:
        yield Sample((draw(rng, dtype, *shape), *_starts(rng, shape)), {"sizes": sizes})


dynamic_slice: Op = Op(
    "dynamic_slice",
    "index",
    _dynamic_slice_type,
    lambda x, *starts, sizes: x[_window(x, starts, sizes)].copy(),
    _dynamic_slice_vjp,
    dtypes=ALL,
    samples=_dynamic_slice_samples,
    usual={"sizes": Usual("the result's", lambda operands, result, given: result.shape)},
    doc="a window of fixed sizes at computed starts, which are clamped so that it fits",
)


def _dynamic_update_type(x: TensorType, update: TensorType, *starts: TensorType) -> TensorType:
    check_same_dtype("dynamic_update", x, update)
    _check_starts("dynamic_update", x, starts, update.shape)
    return x


def _dynamic_update(x: np.ndarray, update: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    result = x.copy()
    result[_window(x, starts, update.shape)] = update
    return result


def _dynamic_update_vjp(g: Expr, y: Expr, x: Expr, update: Expr, *starts: Expr) -> tuple:
    dx = dynamic_update(g, update.full(0), *starts)
    du = dynamic_slice(g, *starts, sizes=update.shape)
    return (dx, du, *[None] * len(starts))


def _dynamic_update_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, sizes in WINDOWS:
        yield Sample((draw(rng, dtype, *shape), draw(rng, dtype, *sizes), *_starts(rng, shape)))


dynamic_update: Op = Op(
    "dynamic_update",
    "index",
    _dynamic_update_type,
    _dynamic_update,
    _dynamic_update_vjp,
    dtypes=ALL,
    samples=_dynamic_update_samples,
    doc="a copy of x with a window replaced, at computed starts, which are clamped so that it fits",
)
