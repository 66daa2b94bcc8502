"""Reductions over axes, which they drop. 16-bit floats accumulate in f32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import NO_GRADIENT, Expr, Op, Sample, Usual
from tracecc_ir.ops.cumulative import cumprod
from tracecc_ir.ops.elementwise import cast
from tracecc_ir.ops.movement import broadcast, inverse, pad, part, permute, reshape
from tracecc_ir.ops.rules import (
    ARITHMETIC,
    ORDERED,
    check_axes,
    check_axis,
    draw,
    others,
    wide,
    without,
)
from tracecc_ir.types import DType, TensorType, i64

Ints = tuple[int, ...]


def restore(reduced: Expr, x: Expr, axes: Ints) -> Any:
    """A reduction's result repeated along the axes it dropped: the shape of ``x`` again."""
    return broadcast(reduced, shape=x.shape, axes=others(x.ndim, axes))


def _type(name: str, needs_elements: bool) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, axes: Ints) -> TensorType:
        check_axes(name, x, axes)
        if needs_elements and any(x.shape[a] == 0 for a in axes):
            raise TypeRuleError(f"{name} of {x} over axes {axes} has no elements to choose from")
        return x.with_shape(without(x.shape, axes))

    return infer


def _reference(ufunc: np.ufunc) -> Callable[..., np.ndarray]:
    def reference(x: np.ndarray, axes: Ints) -> np.ndarray:
        with np.errstate(all="ignore"):
            w = wide(x)
            return np.asarray(ufunc.reduce(w, axis=axes, dtype=w.dtype)).astype(x.dtype, copy=False)

    return reference


def _samples(*cases: tuple[Ints, Ints]) -> Callable[..., Iterator[Sample]]:
    def samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
        for shape, axes in cases:
            yield Sample((draw(rng, dtype, *shape),), {"axes": axes})

    return samples


FULL = (((2, 3, 4), (1,)), ((3, 5), (0, 1)), ((7,), (0,)), ((2, 3), ()), ((), ()), ((0, 3), (1,)))
EMPTY = (((0, 3), (0,)), ((2, 0), (0, 1)))

ALL_AXES = {"axes": Usual("all", lambda operands, result, given: tuple(range(operands[0].ndim)))}

reduce_sum: Op = Op(
    "reduce_sum",
    "reduce",
    _type("reduce_sum", needs_elements=False),
    _reference(np.add),
    (lambda g, y, x, axes: restore(g, x, axes),),
    dtypes=ARITHMETIC,
    samples=_samples(*FULL, *EMPTY),
    usual=ALL_AXES,
    doc="sum over axes; 0 over none",
)


def _reduce_prod_vjp(g: Expr, y: Expr, x: Expr, axes: Ints) -> Any:
    """g times the product of the others, those before times those after: zeros do no harm."""
    kept = others(x.ndim, axes)
    rows = permute(x, axes=kept + axes)
    flat = reshape(rows, shape=(*y.shape, reduced_size(x, axes)))
    last, n = flat.ndim - 1, flat.shape[-1]
    if n == 0:
        return x.full(0)
    none = (0,) * flat.ndim
    one = (*none[1:], 1)
    before = pad(part(flat, last, 0, n - 1), low=one, high=none, interior=none, value=1)
    after = pad(part(flat, last, 1, n), low=none, high=one, interior=none, value=1)
    rest = cumprod(before, axis=last) * cumprod(after, axis=last, reverse=True)
    rest = permute(reshape(rest, shape=rows.shape), axes=inverse(kept + axes))
    return restore(g, x, axes) * rest


def reduced_size(x: Expr, axes: Ints) -> Any:
    total: Any = 1
    for axis in axes:
        total = total * x.shape[axis]
    return total


reduce_prod: Op = Op(
    "reduce_prod",
    "reduce",
    _type("reduce_prod", needs_elements=False),
    _reference(np.multiply),
    (_reduce_prod_vjp,),
    dtypes=ARITHMETIC,
    samples=_samples(*FULL, *EMPTY),
    usual=ALL_AXES,
    doc="product over axes; 1 over none",
    holomorphic=True,
)


def _extremum_vjp(g: Expr, y: Expr, x: Expr, axes: Ints) -> Any:
    """Spread evenly over the elements that are equal to the extremum."""
    chosen = cast(x.eq(restore(y, x, axes)), dtype=x.dtype)
    return chosen * restore(g / reduce_sum(chosen, axes=axes), x, axes)


reduce_max: Op = Op(
    "reduce_max",
    "reduce",
    _type("reduce_max", needs_elements=True),
    _reference(np.maximum),
    (_extremum_vjp,),
    dtypes=ORDERED,
    samples=_samples(*FULL),
    usual=ALL_AXES,
    doc="maximum over axes, NaN if there is one; any on bool",
)
reduce_min: Op = Op(
    "reduce_min",
    "reduce",
    _type("reduce_min", needs_elements=True),
    _reference(np.minimum),
    (_extremum_vjp,),
    dtypes=ORDERED,
    samples=_samples(*FULL),
    usual=ALL_AXES,
    doc="minimum over axes, NaN if there is one; all on bool",
)


def _arg_type(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, axis: int) -> TensorType:
        if x.shape[check_axis(name, x, axis)] == 0:
            raise TypeRuleError(f"{name} of {x} over axis {axis} has no elements to choose from")
        return TensorType(i64, without(x.shape, (axis,)))

    return infer


def _arg_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axis in (((2, 9, 3), 1), ((7,), 0), ((0, 3), 1)):
        yield Sample((draw(rng, dtype, *shape),), {"axis": axis})


argmax: Op = Op(
    "argmax",
    "reduce",
    _arg_type("argmax"),
    lambda x, axis: np.asarray(np.argmax(wide(x), axis)),
    NO_GRADIENT,
    dtypes=ORDERED,
    samples=_arg_samples,
    doc="index of the first maximum (the first NaN if there is one)",
)
argmin: Op = Op(
    "argmin",
    "reduce",
    _arg_type("argmin"),
    lambda x, axis: np.asarray(np.argmin(wide(x), axis)),
    NO_GRADIENT,
    dtypes=ORDERED,
    samples=_arg_samples,
    doc="index of the first minimum (the first NaN if there is one)",
)
