"""Cross entropy, the composite of classifiers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Expr, Sample
from tracecc_ir.ops.composite import along, composite, narrow, spread, widen
from tracecc_ir.ops.composite_norm import log_softmax, softmax
from tracecc_ir.ops.constant import iota
from tracecc_ir.ops.elementwise import cast, select
from tracecc_ir.ops.index import gather_along
from tracecc_ir.ops.movement import reshape
from tracecc_ir.ops.reduce import reduce_sum
from tracecc_ir.ops.rules import draw
from tracecc_ir.types import DType, TensorType, i64


def _cross_entropy_type(
    logits: TensorType,
    target: TensorType,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> TensorType:
    if logits.ndim != 2 or target != TensorType(i64, logits.shape[:1]):
        raise TypeRuleError(
            f"cross_entropy needs logits [N, C] and targets i64[N], given {logits}, {target}"
        )
    return logits.with_shape(())


def _valid(logits: Expr, target: Expr, ignore_index: int) -> tuple[Any, Any, Any]:
    """The targets with 0 for ignored ones, which count (as 0 and 1), and how many."""
    counts = target.ne(ignore_index)
    valid = cast(counts, dtype=logits.dtype)
    return select(counts, target, target.full(0)), valid, reduce_sum(valid, axes=(0,))


def _cross_entropy(logits: Expr, target: Expr, ignore_index: int, label_smoothing: float) -> Any:
    w = widen(logits)
    scores = log_softmax(w, axis=1)
    safe, _, total = _valid(w, target, ignore_index)
    column = reshape(safe, shape=(target.shape[0], 1))
    loss = -reshape(gather_along(scores, column, axis=1), shape=target.shape)
    if label_smoothing:
        smooth = reduce_sum(scores, axes=(1,)) * (-label_smoothing / w.shape[1])
        loss = loss * (1 - label_smoothing) + smooth
    loss = select(target.ne(ignore_index), loss, loss.full(0))
    return narrow(reduce_sum(loss, axes=(0,)) / total, logits)


def _cross_entropy_vjp(
    g: Expr, y: Expr, logits: Expr, target: Expr, ignore_index: int, label_smoothing: float
) -> tuple:
    """(softmax - the wanted distribution) / how many count, in rows that count."""
    w = widen(logits)
    safe, valid, total = _valid(w, target, ignore_index)
    classes = iota(like=w, shape=w.shape, axis=1, dtype=i64)
    hit = cast(classes.eq(spread(safe, classes, (1,))), dtype=w.dtype)
    if label_smoothing:
        hit = hit * (1 - label_smoothing) + label_smoothing / w.shape[1]
    scale = valid * along(widen(g) / total, valid, ())
    row = spread(scale, w, (1,))
    return narrow((softmax(w, axis=1) - hit) * row, logits), None


def _cross_entropy_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for n, c in ((4, 5), (1, 3)):
        target = rng.integers(0, c, n)
        yield Sample((draw(rng, dtype, n, c), target), {})
        yield Sample((draw(rng, dtype, n, c), target), {"label_smoothing": 0.1})
    ignored = np.array([1, -100, 2, 0])
    yield Sample((draw(rng, dtype, 4, 3), ignored), {"ignore_index": -100})


cross_entropy = composite(
    "cross_entropy",
    _cross_entropy_type,
    _cross_entropy,
    _cross_entropy_vjp,
    samples=_cross_entropy_samples,
    doc="mean over the rows that count of -log softmax(logits)[target]",
)
