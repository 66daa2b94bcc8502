"""dot_general: sums of products over contracted dimensions, with batch dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Expr, Op, Sample, Usual
from tracecc_ir.ops.movement import inverse, permute
from tracecc_ir.ops.rules import (
    ARITHMETIC,
    check_axes,
    check_same_dtype,
    draw,
    narrow,
    others,
    wide,
    without,
)
from tracecc_ir.types import DType, TensorType

Ints = tuple[int, ...]
Pair = tuple[Ints, Ints]


def _dot_general_type(x: TensorType, y: TensorType, *, contract: Pair, batch: Pair) -> TensorType:
    check_same_dtype("dot_general", x, y)
    for what, (xs, ys) in (("contract", contract), ("batch", batch)):
        check_axes("dot_general", x, xs)
        check_axes("dot_general", y, ys)
        if [x.shape[a] for a in xs] != [y.shape[a] for a in ys]:
            raise TypeRuleError(
                f"dot_general of {x} and {y} needs pairs of dimensions of equal size, "
                f"given {what}={(tuple(xs), tuple(ys))}"
            )
    used = check_axes("dot_general", x, contract[0] + batch[0])
    y_used = check_axes("dot_general", y, contract[1] + batch[1])
    shared = tuple(x.shape[a] for a in batch[0])
    return x.with_shape(shared + without(x.shape, used) + without(y.shape, y_used))


def _dot_general(x: np.ndarray, y: np.ndarray, contract: Pair, batch: Pair) -> np.ndarray:
    """One batched matrix product of [batch, x free, contracted] and [batch, contracted, y free]."""
    x_free = others(x.ndim, contract[0] + batch[0])
    y_free = others(y.ndim, contract[1] + batch[1])
    left = wide(x).transpose(batch[0] + x_free + contract[0])
    right = wide(y).transpose(batch[1] + contract[1] + y_free)
    b, m, n = ([a.shape[i] for i in axes] for a, axes in ((x, batch[0]), (x, x_free), (y, y_free)))
    k = math.prod(x.shape[a] for a in contract[0])
    with np.errstate(all="ignore"):
        z = np.matmul(left.reshape([*b, math.prod(m), k]), right.reshape([*b, k, math.prod(n)]))
    return narrow(z.reshape([*b, *m, *n]), x.dtype)


def _operand_gradient(
    g: Expr, x: Expr, y: Expr, axes: tuple[Ints, Ints], partners: tuple[Ints, Ints], first: bool
) -> Any:
    """The gradient of operand x: (contract, batch) are its ``axes`` and ``partners`` those of y.

    g is contracted with y over y's free dimensions, which come last in g if x is the first operand.
    """
    contract, batch = axes
    y_contract, y_batch = partners
    x_free = others(x.ndim, contract + batch)
    y_free = others(y.ndim, y_contract + y_batch)
    start = len(batch) + (len(x_free) if first else 0)
    g_axes = tuple(range(start, start + len(y_free)))
    shared = (tuple(range(len(batch))), y_batch)
    dx = dot_general(g, y, contract=(g_axes, y_free), batch=shared)
    order = sorted(range(len(contract)), key=lambda i: y_contract[i])
    return permute(dx, axes=inverse(batch + x_free + tuple(contract[i] for i in order)))


def _samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for x, y, contract, batch in (
        ((3, 5), (5, 4), ((1,), (0,)), ((), ())),
        ((5, 3), (4, 5), ((0,), (1,)), ((), ())),
        ((2, 3, 4), (2, 4, 5), ((2,), (1,)), ((0,), (0,))),
        ((4, 3, 2, 5), (5, 2, 3, 4), ((0, 3), (3, 0)), ((2,), (1,))),
        ((2, 3), (4,), ((), ()), ((), ())),
        ((), (), ((), ()), ((), ())),
        ((5,), (5,), ((0,), (0,)), ((), ())),
        ((3, 0), (0, 2), ((1,), (0,)), ((), ())),
        ((0, 3), (3, 2), ((1,), (0,)), ((), ())),
    ):
        operands = (draw(rng, dtype, *x), draw(rng, dtype, *y))
        yield Sample(operands, {"contract": contract, "batch": batch})


USUAL = {
    "contract": Usual(
        "x's last, y's first dimension",
        lambda operands, result, given: ((operands[0].ndim - 1,), (0,)),
    ),
    "batch": Usual("none", lambda operands, result, given: ((), ())),
}

dot_general: Op = Op(
    "dot_general",
    "contraction",
    _dot_general_type,
    _dot_general,
    (
        lambda g, z, x, y, contract, batch: _operand_gradient(
            g, x, y, (contract[0], batch[0]), (contract[1], batch[1]), first=True
        ),
        lambda g, z, x, y, contract, batch: _operand_gradient(
            g, y, x, (contract[1], batch[1]), (contract[0], batch[0]), first=False
        ),
    ),
    dtypes=ARITHMETIC,
    samples=_samples,
    usual=USUAL,
    doc="sum of products over paired dimensions; result = batch, free dimensions of x, then of y",
    holomorphic=True,
)
