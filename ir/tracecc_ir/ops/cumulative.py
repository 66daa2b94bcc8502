"""Running reductions along one axis, from its start or (reverse) from its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracecc_ir.op import Expr, Op, Sample
from tracecc_ir.ops.constant import iota
from tracecc_ir.ops.elementwise import bit_or, isnan, select
from tracecc_ir.ops.index import scatter_along
from tracecc_ir.ops.movement import pad, part
from tracecc_ir.ops.rules import ARITHMETIC, ORDERED, check_axis, draw, wide
from tracecc_ir.types import DType, TensorType, i64


def _type(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, axis: int, reverse: bool = False) -> TensorType:
        check_axis(name, x, axis)
        return x

    return infer


def _reference(ufunc: np.ufunc) -> Callable[..., np.ndarray]:
    def reference(x: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
        w = wide(np.flip(x, axis) if reverse else x)
        with np.errstate(all="ignore"):
            y = ufunc.accumulate(w, axis=axis, dtype=w.dtype).astype(x.dtype, copy=False)
        return np.flip(y, axis) if reverse else y

    return reference


def _samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axis in (((7,), 0), ((2, 5, 3), 1), ((3, 0), 1), ((0, 3), 1), ((1,), 0)):
        for reverse in (False, True):
            yield Sample((draw(rng, dtype, *shape),), {"axis": axis, "reverse": reverse})


def _op(name: str, ufunc: np.ufunc, vjp: Callable, dtypes: tuple[DType, ...], doc: str) -> Op:
    return Op(
        name,
        "scan",
        _type(name),
        _reference(ufunc),
        (vjp,),
        dtypes=dtypes,
        samples=_samples,
        doc=doc,
        holomorphic=True,
    )


cumsum: Op = _op(
    "cumsum",
    np.add,
    lambda g, y, x, axis, reverse: cumsum(g, axis=axis, reverse=not reverse),
    ARITHMETIC,
    "running sum",
)


def shift(x: Expr, axis: int, distance: int, fill: float, forward: bool) -> Any:
    """Moves ``x`` along an axis, to higher indices if forward; ``fill`` enters at the end."""
    n = x.shape[axis]
    kept = part(x, axis, 0, n - distance) if forward else part(x, axis, distance, n)
    none = [0] * x.ndim
    edge = [distance if i == axis else 0 for i in range(x.ndim)]
    low, high = (edge, none) if forward else (none, edge)
    return pad(kept, low=tuple(low), high=tuple(high), interior=tuple(none), value=fill)


def _cumprod_vjp(g: Expr, y: Expr, x: Expr, axis: int, reverse: bool) -> Any:
    """The product of all before x_i times s_i = g_i + x_{i+1} s_{i+1}: zeros in x do no harm.

    The recurrence is solved by doubling (Hillis & Steele, 1986): after k steps s_i holds the terms
    of the 2^k elements from i on, and ratio_i their product, so that log2(n) steps suffice.
    """
    n = x.shape[axis]
    if n == 0:
        return g
    before = shift(y, axis, 1, 1, forward=not reverse)
    total, ratio, distance = g, shift(x, axis, 1, 0, forward=reverse), 1
    while distance < n:
        total = total + ratio * shift(total, axis, distance, 0, forward=reverse)
        ratio = ratio * shift(ratio, axis, distance, 0, forward=reverse)
        distance *= 2
    return before * total


cumprod: Op = _op("cumprod", np.multiply, _cumprod_vjp, ARITHMETIC, "running product")


def _running_extremum_vjp(g: Expr, y: Expr, x: Expr, axis: int, reverse: bool) -> Any:
    """To the element that set the record, which is the latest of equal ones (PyTorch's choice)."""
    record = bit_or(x.eq(y), isnan(x))
    position = iota(like=x, shape=x.shape, axis=axis, dtype=i64)
    if reverse:
        origin = cummin(select(record, position, position.full(2**62)), axis=axis, reverse=True)
    else:
        origin = cummax(select(record, position, position.full(0)), axis=axis)
    return scatter_along(x.full(0), origin, g, axis=axis, mode="add")


cummax: Op = _op(
    "cummax", np.maximum, _running_extremum_vjp, ORDERED, "running maximum, NaN from NaN on"
)
cummin: Op = _op(
    "cummin", np.minimum, _running_extremum_vjp, ORDERED, "running minimum, NaN from NaN on"
)
