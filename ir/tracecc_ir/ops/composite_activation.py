"""Activation functions: elementwise composites with their derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Expr, Op
from tracecc_ir.ops.composite import composite, narrow, widen
from tracecc_ir.ops.elementwise import abs as absolute
from tracecc_ir.ops.elementwise import (
    bit_and,
    exp,
    expm1,
    log1p,
    maximum,
    minimum,
    select,
    tanh,
)
from tracecc_ir.ops.elementwise_special import erf, sigmoid
from tracecc_ir.ops.rules import NUMBERS
from tracecc_ir.types import TensorType


def _same(x: TensorType) -> TensorType:
    return x


def _wide(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one operand computed in f32 for 16-bit floats."""
    return lambda x, **attrs: narrow(f(widen(x), **attrs), x)


def _wide_vjp(f: Callable[..., Any]) -> tuple:
    """The rule ``g * f(x)``, computed in f32 for 16-bit floats."""
    return (lambda g, y, x, **attrs: narrow(widen(g) * f(widen(x), **attrs), x),)


relu = composite(
    "relu",
    _same,
    lambda x: maximum(x, x.full(0)),
    (lambda g, y, x: select(y > 0, g, g.full(0)),),
    dtypes=NUMBERS,
    doc="max(x, 0)",
)


def _leaky_relu_type(x: TensorType, *, slope: float = 0.01) -> TensorType:
    return x


leaky_relu = composite(
    "leaky_relu",
    _leaky_relu_type,
    lambda x, slope: select(x > 0, x, x * slope),
    (lambda g, y, x, slope: select(x > 0, g, g * slope),),
    doc="x where positive, else slope * x",
)


def _elu_type(x: TensorType, *, alpha: float = 1.0) -> TensorType:
    return x


elu = composite(
    "elu",
    _elu_type,
    _wide(lambda x, alpha: select(x > 0, x, expm1(minimum(x, x.full(0))) * alpha)),
    (lambda g, y, x, alpha: select(x > 0, g, g * (y + alpha)),),
    doc="x where positive, else alpha * (exp(x) - 1)",
)

ROOT_HALF = math.sqrt(0.5)
TANH_SCALE, TANH_CUBE = math.sqrt(2 / math.pi), 0.044715


def _gelu_type(x: TensorType, *, approximate: str = "none") -> TensorType:
    if approximate not in ("none", "tanh"):
        raise TypeRuleError(f"gelu knows approximate='none' and 'tanh', given {approximate!r}")
    return x


def _gelu(x: Expr, approximate: str) -> Any:
    if approximate == "tanh":
        inner = (x + x * x * x * TANH_CUBE) * TANH_SCALE
        return x * 0.5 * (tanh(inner) + 1.0)
    return x * 0.5 * (erf(x * ROOT_HALF) + 1.0)


def _gelu_slope(x: Expr, approximate: str) -> Any:
    if approximate == "tanh":
        square = x * x
        t = tanh((x + square * x * TANH_CUBE) * TANH_SCALE)
        inner_slope = (square * (3 * TANH_CUBE) + 1.0) * TANH_SCALE
        return (t + 1.0) * 0.5 + x * 0.5 * (1.0 - t * t) * inner_slope
    density = exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
    return (erf(x * ROOT_HALF) + 1.0) * 0.5 + x * density


gelu = composite(
    "gelu",
    _gelu_type,
    _wide(_gelu),
    _wide_vjp(_gelu_slope),
    doc="x times the normal distribution function of x (arXiv:1606.08415)",
)


def _silu_slope(x: Expr) -> Any:
    s = sigmoid(x)
    return s * (x * (1.0 - s) + 1.0)


silu = composite(
    "silu", _same, _wide(lambda x: x * sigmoid(x)), _wide_vjp(_silu_slope), doc="x * sigmoid(x)"
)


def _softplus_type(x: TensorType, *, beta: float = 1.0, threshold: float = 20.0) -> TensorType:
    return x


def _softplus(x: Expr, beta: float, threshold: float) -> Any:
    z = x * beta
    smooth = (maximum(z, z.full(0)) + log1p(exp(-absolute(z)))) / beta
    return select(z > threshold, x, smooth)


softplus = composite(
    "softplus",
    _softplus_type,
    _wide(_softplus),
    _wide_vjp(
        lambda x, beta, threshold: select(x * beta > threshold, x.full(1.0), sigmoid(x * beta))
    ),
    doc="log(1 + exp(beta * x)) / beta; x itself where beta * x exceeds the threshold",
)
logsigmoid = composite(
    "logsigmoid",
    _same,
    _wide(lambda x: minimum(x, x.full(0)) - log1p(exp(-absolute(x)))),
    _wide_vjp(lambda x: sigmoid(-x)),
    doc="log(sigmoid(x)) without overflow",
)


def _clamp_type(
    x: TensorType, *, low: float | None = None, high: float | None = None
) -> TensorType:
    return x


def _clamp(x: Expr, low: float | None, high: float | None) -> Any:
    y = x if low is None else maximum(x, x.full(low))
    return y if high is None else minimum(y, y.full(high))


def _clamp_vjp(g: Expr, y: Expr, x: Expr, low: float | None, high: float | None) -> Any:
    inside = [x >= low] if low is not None else []
    inside += [x <= high] if high is not None else []
    if not inside:
        return g
    return select(inside[0] if len(inside) == 1 else bit_and(*inside), g, g.full(0))


clamp: Op = composite(
    "clamp",
    _clamp_type,
    _clamp,
    (_clamp_vjp,),
    dtypes=NUMBERS,
    doc="x limited to low <= x <= high; either may be None",
)
