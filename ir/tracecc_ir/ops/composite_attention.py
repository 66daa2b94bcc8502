"""Scaled dot-product attention and its gradient, which a backend may stream over tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tracecc_ir.dims import Size
from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Expr, Sample
from tracecc_ir.ops.composite import composite, narrow, spread, wide_dtype, widen
from tracecc_ir.ops.composite_norm import is_zero, logsumexp, softmax
from tracecc_ir.ops.constant import iota
from tracecc_ir.ops.contraction import dot_general
from tracecc_ir.ops.elementwise import select
from tracecc_ir.ops.reduce import reduce_sum
from tracecc_ir.ops.rules import draw
from tracecc_ir.types import DType, TensorType, i64


def _check_operands(name: str, q: TensorType, k: TensorType, v: TensorType) -> None:
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
            f"{name} needs q [.., T, d], k [.., S, d] and v [.., S, e], given {q}, {k}, {v}"
        )


def _rows(q: TensorType) -> TensorType:
    """One number per query."""
    return TensorType(wide_dtype(q.dtype), q.shape[:-1])


def _attention_type(
    q: TensorType, k: TensorType, v: TensorType, *, causal: bool = False, scale: float | None = None
) -> tuple[TensorType, ...]:
    _check_operands("attention", q, k, v)
    return q.with_shape((*q.shape[:-1], v.shape[-1])), _rows(q)


def _contract(x: Expr, y: Expr, a: int, b: int) -> Any:
    """The batched product over dimension ``a`` of x and ``b`` of y, of their last two."""
    batch = tuple(range(x.ndim - 2))
    n = len(batch)
    return dot_general(x, y, contract=((n + a,), (n + b,)), batch=(batch, batch))


def _known(size: Size) -> int:
    if not isinstance(size, int):
        raise TypeRuleError(f"attention of symbolic feature size {size} needs a scale")
    return size


def _factor(q: Expr, scale: float | None) -> float:
    return 1 / math.sqrt(_known(q.shape[-1])) if scale is None else scale


def _scores(q: Expr, k: Expr, causal: bool, scale: float | None) -> Any:
    """The scaled scores, [.., T, S]; -inf where a query does not look."""
    scores = _contract(q, k, 1, 1) * _factor(q, scale)
    if not causal:
        return scores
    last = scores.ndim - 1
    row = iota(like=scores, shape=scores.shape, axis=last - 1, dtype=i64)
    column = iota(like=scores, shape=scores.shape, axis=last, dtype=i64)
    return select(column <= row, scores, scores.full(-math.inf))


def _attention(q: Expr, k: Expr, v: Expr, causal: bool, scale: float | None) -> tuple:
    if wide_dtype(q.dtype) is not q.dtype:  # a backend may have a kernel for the wide dtype
        y, lse = attention(*map(widen, (q, k, v)), causal=causal, scale=scale)
        return narrow(y, q), lse
    scores = _scores(q, k, causal, scale)
    last = scores.ndim - 1
    weights = softmax(scores, axis=last)
    empty = k.shape[-2] == 0
    lse = scores.full(-math.inf, scores.shape[:-1]) if empty else logsumexp(scores, axis=last)
    return _contract(weights, v, 1, 0), lse


def _attention_vjp(
    gs: tuple, outs: tuple, q: Expr, k: Expr, v: Expr, causal: bool, scale: float | None
) -> tuple:
    """The gradient of the sums' logarithm adds to that of each score what ``dot`` subtracts."""
    (g, g_lse), (y, lse) = gs, outs
    dot = reduce_sum(widen(g) * widen(y), axes=(g.ndim - 1,))
    if not is_zero(g_lse):
        dot = dot - g_lse
    return attention_grad(g, q, k, v, lse, dot, causal=causal, scale=scale)


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
    doc="softmax(q k^T * scale) v, and logsumexp of the scores; scale None is 1 / sqrt(d)",
)


def _attention_grad_type(
    g: TensorType,
    q: TensorType,
    k: TensorType,
    v: TensorType,
    lse: TensorType,
    dot: TensorType,
    *,
    causal: bool = False,
    scale: float | None = None,
) -> tuple[TensorType, ...]:
    _check_operands("attention_grad", q, k, v)
    if g != q.with_shape((*q.shape[:-1], v.shape[-1])) or not lse == dot == _rows(q):
        raise TypeRuleError(
            f"attention_grad of {q}, {k}, {v} needs g of the result's type, lse and dot "
            f"{_rows(q)}, given {g}, {lse}, {dot}"
        )
    return q, k, v


def _attention_grad(
    g: Expr,
    q: Expr,
    k: Expr,
    v: Expr,
    lse: Expr,
    dot: Expr,
    causal: bool,
    scale: float | None,
) -> tuple:
    """Recomputes the weights instead of keeping them (arXiv:2205.14135)."""
    if wide_dtype(q.dtype) is not q.dtype:
        made = attention_grad(*map(widen, (g, q, k, v)), lse, dot, causal=causal, scale=scale)
        return tuple(narrow(d, x) for d, x in zip(made, (q, k, v), strict=True))
    scores = _scores(q, k, causal, scale)
    p = softmax(scores, axis=scores.ndim - 1)
    dp = _contract(g, v, 1, 1)
    ds = p * (dp - spread(dot, dp, (dp.ndim - 1,))) * _factor(q, scale)
    return _contract(ds, k, 1, 0), _contract(ds, q, 0, 0), _contract(p, g, 0, 0)


def _attention_grad_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    wide = wide_dtype(dtype)
    for sample in _attention_samples(rng, dtype):
        q, k, v = sample.inputs
        g = draw(rng, dtype, *q.shape[:-1], v.shape[-1])
        scores = q.astype(np.float64) @ k.astype(np.float64).swapaxes(-1, -2) / q.shape[-1] ** 0.5
        if sample.attrs["causal"]:
            scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
        lse = np.log(np.exp(scores).sum(-1)).astype(wide.numpy)
        yield Sample((g, q, k, v, lse, draw(rng, wide, *q.shape[:-1])), sample.attrs)


attention_grad = composite(
    "attention_grad",
    _attention_grad_type,
    _attention_grad,
    samples=_attention_grad_samples,
    doc="the gradients of attention's q, k, v from that of its result, its lse, sum(g * result)",
)
