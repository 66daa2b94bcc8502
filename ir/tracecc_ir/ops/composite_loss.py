"""Cross entropy and attention: the composites around a softmax."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tracecc_ir.dims import Size
from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Expr, Sample
from tracecc_ir.ops.composite import along, composite, narrow, spread, widen
from tracecc_ir.ops.composite_norm import log_softmax, softmax
from tracecc_ir.ops.constant import iota
from tracecc_ir.ops.contraction import dot_general
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


def _attention_type(
    q: TensorType, k: TensorType, v: TensorType, *, causal: bool = False, scale: float | None = None
) -> TensorType:
    fits = (
        q.ndim >= 2
        and q.ndim == k.ndim == v.ndim
        and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        and q.shape[-1] == k.shape[-1]
        and k.shape[-2] == v.shape[-2]
        and q.dtype is k.dtype is v.dtype
    )
    if not fits:
        raise TypeRuleError(
            f"attention needs q [.., T, d], k [.., S, d] and v [.., S, e], given {q}, {k}, {v}"
        )
    return q.with_shape((*q.shape[:-1], v.shape[-1]))


def _contract(x: Expr, y: Expr, a: int, b: int) -> Any:
    """The batched product over dimension ``a`` of x and ``b`` of y, of their last two."""
    batch = tuple(range(x.ndim - 2))
    n = len(batch)
    return dot_general(x, y, contract=((n + a,), (n + b,)), batch=(batch, batch))


def _known(size: Size) -> int:
    if not isinstance(size, int):
        raise TypeRuleError(f"attention of symbolic feature size {size} needs a scale")
    return size


def _weights(q: Expr, k: Expr, causal: bool, scale: float | None) -> tuple[Any, float]:
    """The softmax of scaled scores, [.., T, S], in the wide dtype, and the scale."""
    factor = 1 / math.sqrt(_known(q.shape[-1])) if scale is None else scale
    scores = _contract(widen(q), widen(k), 1, 1) * factor
    if causal:
        last = scores.ndim - 1
        row = iota(like=scores, shape=scores.shape, axis=last - 1, dtype=i64)
        column = iota(like=scores, shape=scores.shape, axis=last, dtype=i64)
        scores = select(column <= row, scores, scores.full(-math.inf))
    return softmax(scores, axis=scores.ndim - 1), factor


def _attention(q: Expr, k: Expr, v: Expr, causal: bool, scale: float | None) -> Any:
    weights, _ = _weights(q, k, causal, scale)
    return narrow(_contract(weights, widen(v), 1, 0), q)


def _attention_vjp(
    g: Expr, y: Expr, q: Expr, k: Expr, v: Expr, causal: bool, scale: float | None
) -> tuple:
    """Recomputes the weights instead of keeping them (arXiv:2205.14135)."""
    p, factor = _weights(q, k, causal, scale)
    gw = widen(g)
    dp = _contract(gw, widen(v), 1, 1)
    dot = reduce_sum(gw * widen(y), axes=(g.ndim - 1,))
    ds = p * (dp - spread(dot, dp, (dp.ndim - 1,))) * factor
    return (
        narrow(_contract(ds, widen(k), 1, 0), q),
        narrow(_contract(ds, widen(q), 0, 0), k),
        narrow(_contract(p, gw, 0, 0), v),
    )


def _attention_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for batch, t, s, d, e, causal in (((2,), 4, 4, 3, 3, True), ((2, 2), 3, 5, 2, 4, False)):
        shapes = ((*batch, t, d), (*batch, s, d), (*batch, s, e))
        yield Sample(tuple(draw(rng, dtype, *x) for x in shapes), {"causal": causal})


attention = composite(
    "attention",
    _attention_type,
    _attention,
    _attention_vjp,
    samples=_attention_samples,
    doc="softmax(q k^T * scale) v; scale None is 1 / sqrt(d)",
)
