"""Sorting along one axis."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tracecc_ir.op import Expr, Op, Sample
from tracecc_ir.ops.index import scatter_along
from tracecc_ir.ops.rules import ORDERED, check_axis, draw, wide
from tracecc_ir.types import DType, TensorType, i64


def _sort_type(
    x: TensorType, *, axis: int, descending: bool = False
) -> tuple[TensorType, TensorType]:
    check_axis("sort", x, axis)
    return x, x.with_dtype(i64)


def _sort(x: np.ndarray, axis: int, descending: bool) -> tuple[np.ndarray, np.ndarray]:
    if descending:  # sorting the reversed axis keeps equal elements in order, and NaN comes first
        order = np.flip(np.argsort(np.flip(wide(x), axis), axis, kind="stable"), axis)
        order = x.shape[axis] - 1 - order
    else:
        order = np.argsort(wide(x), axis, kind="stable")
    return np.take_along_axis(x, order, axis), order


def _sort_vjp(
    gs: tuple[Expr, Expr], outs: tuple[Expr, Expr], x: Expr, axis: int, descending: bool
) -> tuple:
    return (scatter_along(x.full(0), outs[1], gs[0], axis=axis, mode="set"),)


def _sort_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axis in (((9,), 0), ((2, 5, 3), 1), ((3, 0), 1), ((0, 3), 1)):
        for descending in (False, True):
            yield Sample((draw(rng, dtype, *shape),), {"axis": axis, "descending": descending})


sort: Op = Op(
    "sort",
    "index",
    _sort_type,
    _sort,
    _sort_vjp,
    dtypes=ORDERED,
    samples=_sort_samples,
    doc="values in order and where they were; stable; NaN counts as the largest",
)
