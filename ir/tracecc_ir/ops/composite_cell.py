"""The LSTM cell: one step of the recurrence, with the products of its gates in one dot_general."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Expr, Sample
from tracecc_ir.ops.composite import composite, narrow, widen
from tracecc_ir.ops.contraction import dot_general
from tracecc_ir.ops.elementwise import tanh
from tracecc_ir.ops.elementwise_special import sigmoid
from tracecc_ir.ops.movement import concat, part
from tracecc_ir.ops.rules import draw
from tracecc_ir.types import DType, TensorType


def _lstm_cell_type(
    gates_x: TensorType, h: TensorType, c: TensorType, w_hh: TensorType
) -> tuple[TensorType, TensorType]:
    fits = (
        h.ndim == 2
        and c == h
        and gates_x == h.with_shape((h.shape[0], h.shape[1] * 4))
        and w_hh == h.with_shape((h.shape[1] * 4, h.shape[1]))
    )
    if not fits:
        raise TypeRuleError(
            f"lstm_cell needs gates [N, 4H], h and c [N, H] and w_hh [4H, H], "
            f"given {gates_x}, {h}, {c}, {w_hh}"
        )
    return h, h


def _gates(gates_x: Expr, h: Expr, w_hh: Expr) -> tuple[Any, Any, Any, Any]:
    """Input, forget, cell and output gates, in the wide dtype."""
    z = gates_x + dot_general(h, w_hh, contract=((1,), (1,)), batch=((), ()))
    z, n = widen(z), h.shape[1]
    i, f, g, o = (part(z, 1, k * n, (k + 1) * n) for k in range(4))
    return sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)


def _lstm_cell(gates_x: Expr, h: Expr, c: Expr, w_hh: Expr) -> tuple[Any, Any]:
    i, f, g, o = _gates(gates_x, h, w_hh)
    new = f * widen(c) + i * g
    return narrow(o * tanh(new), h), narrow(new, c)


def _lstm_cell_vjp(
    gs: tuple, outs: tuple, gates_x: Expr, h: Expr, c: Expr, w_hh: Expr
) -> tuple[Any, ...]:
    i, f, g, o = _gates(gates_x, h, w_hh)
    dh, t = widen(gs[0]), tanh(widen(outs[1]))
    dc = widen(gs[1]) + dh * o * (1.0 - t * t)
    pieces = (
        dc * g * i * (1.0 - i),
        dc * widen(c) * f * (1.0 - f),
        dc * i * (1.0 - g * g),
        dh * t * o * (1.0 - o),
    )
    dz = narrow(concat(*pieces, axis=1), h)
    return (
        dz,
        dot_general(dz, w_hh, contract=((1,), (0,)), batch=((), ())),
        narrow(dc * f, c),
        dot_general(dz, h, contract=((0,), (0,)), batch=((), ())),
    )


def _samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for n, size in ((2, 3), (1, 1)):
        shapes = ((n, 4 * size), (n, size), (n, size), (4 * size, size))
        yield Sample(tuple(draw(rng, dtype, *s) for s in shapes), {})


lstm_cell = composite(
    "lstm_cell",
    _lstm_cell_type,
    _lstm_cell,
    _lstm_cell_vjp,
    samples=_samples,
    doc="(h, c) after one step; gates are input, forget, cell, output (Hochreiter 1997)",
)
