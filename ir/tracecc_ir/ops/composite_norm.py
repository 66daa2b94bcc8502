"""Softmax and its kin, statistics and normalisation layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Expr, Sample
from tracecc_ir.ops.composite import (
    Ints,
    along,
    averaged,
    composite,
    count,
    divided,
    narrow,
    rest,
    spread,
    wide_dtype,
    widen,
)
from tracecc_ir.ops.elementwise import exp, isfinite, log, rsqrt, select, stop_gradient
from tracecc_ir.ops.reduce import ALL_AXES, reduce_max, reduce_sum
from tracecc_ir.ops.rules import INEXACT, check_axes, check_axis, draw, without
from tracecc_ir.types import DType, TensorType

# Along one axis.


def _rowwise_type(name: str) -> Any:
    def infer(x: TensorType, *, axis: int) -> TensorType:
        check_axis(name, x, axis)
        return x

    return infer


def _row_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axis in (((3, 5), 1), ((3, 5), 0), ((2, 4, 3), 1), ((7,), 0), ((0, 3), 1)):
        yield Sample((draw(rng, dtype, *shape),), {"axis": axis})


def _shifted(x: Expr, axis: int) -> tuple[Any, Any]:
    """x less its maximum along the axis, and that maximum; one that is not finite counts as 0."""
    top = stop_gradient(reduce_max(x, axes=(axis,)))
    top = select(isfinite(top), top, top.full(0))
    return x - spread(top, x, (axis,)), top


def _softmax(x: Expr, axis: int) -> Any:
    if x.shape[axis] == 0:
        return x
    w = widen(x)
    e = exp(w - spread(stop_gradient(reduce_max(w, axes=(axis,))), w, (axis,)))
    return narrow(e / spread(reduce_sum(e, axes=(axis,)), e, (axis,)), x)


def _softmax_vjp(g: Expr, y: Expr, x: Expr, axis: int) -> Any:
    gw, yw = widen(g), widen(y)
    dot = reduce_sum(gw * yw, axes=(axis,))
    return narrow((gw - spread(dot, gw, (axis,))) * yw, x)


softmax = composite(
    "softmax",
    _rowwise_type("softmax"),
    _softmax,
    (_softmax_vjp,),
    samples=_row_samples,
    doc="exp(x) over its sum along an axis",
)


def _log_softmax(x: Expr, axis: int) -> Any:
    if x.shape[axis] == 0:
        return x
    w = widen(x)
    w = w - spread(stop_gradient(reduce_max(w, axes=(axis,))), w, (axis,))
    return narrow(w - spread(log(reduce_sum(exp(w), axes=(axis,))), w, (axis,)), x)


def _log_softmax_vjp(g: Expr, y: Expr, x: Expr, axis: int) -> Any:
    gw = widen(g)
    total = reduce_sum(gw, axes=(axis,))
    return narrow(gw - exp(widen(y)) * spread(total, gw, (axis,)), x)


log_softmax = composite(
    "log_softmax",
    _rowwise_type("log_softmax"),
    _log_softmax,
    (_log_softmax_vjp,),
    samples=_row_samples,
    doc="log of softmax",
)


def _logsumexp_type(x: TensorType, *, axis: int) -> TensorType:
    if x.shape[check_axis("logsumexp", x, axis)] == 0:
        raise TypeRuleError(f"logsumexp of {x} over axis {axis} has no elements")
    return x.with_shape(without(x.shape, (axis,)))


def _logsumexp(x: Expr, axis: int) -> Any:
    low, top = _shifted(widen(x), axis)
    return narrow(log(reduce_sum(exp(low), axes=(axis,))) + top, x)


def _logsumexp_vjp(g: Expr, y: Expr, x: Expr, axis: int) -> Any:
    return spread(g, x, (axis,)) * exp(x - spread(y, x, (axis,)))


logsumexp = composite(
    "logsumexp",
    _logsumexp_type,
    _logsumexp,
    (_logsumexp_vjp,),
    samples=_row_samples,
    doc="log of the sum of exp(x) along an axis, which it drops",
)

# Statistics.


def _mean_type(x: TensorType, *, axes: Ints) -> TensorType:
    return x.with_shape(without(x.shape, check_axes("mean", x, axes)))


def _axes_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axes in (((3, 5), (1,)), ((3, 5), (0, 1)), ((2, 4, 3), (0, 2)), ((7,), (0,))):
        yield Sample((draw(rng, dtype, *shape),), {"axes": axes})


mean = composite(
    "mean",
    _mean_type,
    lambda x, axes: narrow(averaged(widen(x), axes), x),
    (lambda g, y, x, axes: spread(narrow(divided(widen(g), count(widen(x), axes)), x), x, axes),),
    dtypes=INEXACT,
    samples=_axes_samples,
    usual=ALL_AXES,
    doc="mean over axes, which it drops",
)


def _var_type(x: TensorType, *, axes: Ints, correction: float = 1) -> TensorType:
    return x.with_shape(without(x.shape, check_axes("var", x, axes)))


def _freedom(x: Expr, axes: Ints, correction: float) -> Any:
    n = count(x, axes)
    return n - float(correction) if isinstance(n, Expr) else max(n - correction, 0)


def _var(x: Expr, axes: Ints, correction: float) -> Any:
    w = widen(x)
    d = w - spread(averaged(w, axes), w, axes)
    return narrow(divided(reduce_sum(d * d, axes=axes), _freedom(w, axes, correction)), x)


def _var_vjp(g: Expr, y: Expr, x: Expr, axes: Ints, correction: float) -> Any:
    w = widen(x)
    d = w - spread(averaged(w, axes), w, axes)
    scale = divided(widen(g) * 2.0, _freedom(w, axes, correction))
    return narrow(d * spread(scale, w, axes), x)


var = composite(
    "var",
    _var_type,
    _var,
    (_var_vjp,),
    samples=_axes_samples,
    usual=ALL_AXES,
    doc="variance over axes, which it drops; divided by n - correction",
)

# Layers. `axes` are reduced, `features` are the dimensions of the weight.


def _normalise(x: Expr, weight: Expr, bias: Expr, axes: Ints, features: Ints, eps: float) -> tuple:
    """y, mean and biased variance, and 1 / sqrt(var + eps)."""
    w = widen(x)
    mu = averaged(w, axes)
    d = w - spread(mu, w, axes)
    variance = averaged(d * d, axes)
    rstd = rsqrt(variance + eps)
    hat = d * spread(rstd, w, axes)
    y = hat * along(widen(weight), w, features) + along(widen(bias), w, features)
    return narrow(y, x), mu, variance, rstd


def _normalise_vjp(
    g: Expr, x: Expr, weight: Expr, mu: Expr, rstd: Expr, axes: Ints, features: Ints
) -> tuple:
    """Gradients of x, weight and bias through y alone."""
    w, gw = widen(x), widen(g)
    hat = (w - spread(mu, w, axes)) * spread(rstd, w, axes)
    scaled = gw * along(widen(weight), gw, features)
    outer = rest(x, features)
    dw, db = reduce_sum(gw * hat, axes=outer), reduce_sum(gw, axes=outer)
    if outer == axes:  # the same sums serve dx
        n = count(gw, axes)
        first, second = divided(widen(weight) * db, n), divided(widen(weight) * dw, n)
    else:
        first, second = averaged(scaled, axes), averaged(scaled * hat, axes)
    dx = scaled - spread(first, w, axes) - hat * spread(second, w, axes)
    return dx * spread(rstd, w, axes), narrow(dw, weight), narrow(db, weight)


def _layer_norm_type(
    x: TensorType, weight: TensorType, bias: TensorType, *, axes: int, eps: float = 1e-5
) -> tuple[TensorType, ...]:
    if not 0 < axes <= x.ndim:
        raise TypeRuleError(
            f"layer_norm of {x} takes 1 to {x.ndim} trailing dimensions, not {axes}"
        )
    shape, wide = x.shape[x.ndim - axes :], wide_dtype(x.dtype)
    if weight.shape != shape or bias != weight or weight.dtype not in (x.dtype, wide):
        raise TypeRuleError(
            f"layer_norm of {x} needs weight and bias {x.with_shape(shape)}, given {weight}, {bias}"
        )
    statistic = TensorType(wide, x.shape[: x.ndim - axes])
    return x, statistic, statistic


def _split(x: Expr, trailing: int) -> tuple[Ints, Ints]:
    cut = x.ndim - trailing
    return tuple(range(cut)), tuple(range(cut, x.ndim))


def _layer_norm(x: Expr, weight: Expr, bias: Expr, axes: int, eps: float) -> tuple:
    _, inner = _split(x, axes)
    y, mu, _, rstd = _normalise(x, weight, bias, inner, inner, eps)
    return y, mu, rstd


def _layer_norm_vjp(
    gs: tuple, outs: tuple, x: Expr, weight: Expr, bias: Expr, axes: int, eps: float
) -> tuple:
    """Through y; and through mean and rstd, whose cotangents are zeros unless they were used."""
    _, inner = _split(x, axes)
    (g, g_mean, g_rstd), (_, mu, rstd) = gs, outs
    dx, dw, db = _normalise_vjp(g, x, weight, mu, rstd, inner, inner)
    n = count(dx, inner)
    if not is_zero(g_mean):
        dx = dx + spread(divided(g_mean, n), dx, inner)
    if not is_zero(g_rstd):
        d = widen(x) - spread(mu, dx, inner)
        dx = dx + d * spread(divided(-g_rstd * rstd * rstd * rstd, n), dx, inner)
    return narrow(dx, x), dw, db


def is_zero(x: Expr) -> bool:
    """Whether this is known to be zeros: a constant node, or an array of them."""
    value = x.value
    if isinstance(value, np.ndarray):
        return not value.any()
    node = getattr(value, "node", None)
    return node is not None and node.op.name == "constant" and node.attrs["value"] == 0


def _layer_norm_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axes in (((3, 5), 1), ((2, 3, 4), 2), ((7,), 1)):
        x, w, b = (draw(rng, dtype, *s) for s in (shape, shape[-axes:], shape[-axes:]))
        yield Sample((x, w, b), {"axes": axes, "eps": 1e-5})


layer_norm = composite(
    "layer_norm",
    _layer_norm_type,
    _layer_norm,
    _layer_norm_vjp,
    samples=_layer_norm_samples,
    doc="(y, mean, 1 / std) normalised over trailing dimensions (arXiv:1607.06450)",
)


def _batch_norm_type(
    x: TensorType, weight: TensorType, bias: TensorType, *, eps: float = 1e-5
) -> tuple[TensorType, ...]:
    if x.ndim < 2:
        raise TypeRuleError(f"batch_norm needs at least 2 dimensions, given {x}")
    channels = x.with_shape(x.shape[1:2])
    if weight.shape != channels.shape or bias != weight:
        raise TypeRuleError(
            f"batch_norm of {x} needs weight and bias {channels}, given {weight}, {bias}"
        )
    statistic = TensorType(wide_dtype(x.dtype), channels.shape)
    return x, statistic, statistic


def _batch_norm(x: Expr, weight: Expr, bias: Expr, eps: float) -> tuple:
    return _normalise(x, weight, bias, rest(x, (1,)), (1,), eps)[:3]


def _batch_norm_vjp(gs: tuple, outs: tuple, x: Expr, weight: Expr, bias: Expr, eps: float) -> tuple:
    axes = rest(x, (1,))
    (g, g_mean, g_var), (_, mu, variance) = gs, outs
    dx, dw, db = _normalise_vjp(g, x, weight, mu, rsqrt(variance + eps), axes, (1,))
    if not is_zero(g_mean):
        dx = dx + spread(divided(g_mean, count(dx, axes)), dx, axes)
    if not is_zero(g_var):
        d = widen(x) - spread(mu, dx, axes)
        dx = dx + d * spread(divided(g_var * 2.0, count(dx, axes)), dx, axes)
    return narrow(dx, x), dw, db


def _batch_norm_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((6, 3), (2, 3, 4), (2, 3, 4, 2)):
        x, w, b = draw(rng, dtype, *shape), draw(rng, dtype, 3), draw(rng, dtype, 3)
        yield Sample((x, w, b), {"eps": 1e-5})


batch_norm = composite(
    "batch_norm",
    _batch_norm_type,
    _batch_norm,
    _batch_norm_vjp,
    samples=_batch_norm_samples,
    doc="(y, mean, biased variance) normalised over all dimensions but 1 (arXiv:1502.03167)",
)
