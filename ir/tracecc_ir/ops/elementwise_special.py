"""Elementwise special functions: the logistic sigmoid, error and gamma functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Op, Sample
from tracecc_ir.ops import special
from tracecc_ir.ops.elementwise import elementwise, exp, through_f32, unary
from tracecc_ir.types import FLOATS, DType, TensorType


def through_f64(f: Callable) -> Callable:
    return lambda x, **attrs: f(x.astype(np.float64), **attrs).astype(x.dtype)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "c":
        return 1 / (1 + np.exp(-x))
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _polygamma_type(x: TensorType, *, n: int) -> TensorType:
    if n < 0:
        raise TypeRuleError(f"polygamma needs an order n >= 0, given {n}")
    return x


def _polygamma_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for n in range(4):
        yield Sample((rng.uniform(0.3, 6.0, (2, 5)).astype(dtype.numpy),), {"n": n})


sigmoid: Op = unary("sigmoid", through_f32(_sigmoid), lambda g, y, x: g * y * (1.0 - y))
erf: Op = unary(
    "erf",
    through_f64(special.erf),
    lambda g, y, x: g * exp(-x * x) * special.TWO_OVER_ROOT_PI,
    cost=15,
    dtypes=FLOATS,
)
erfc: Op = unary(
    "erfc",
    through_f64(special.erfc),
    lambda g, y, x: g * exp(-x * x) * -special.TWO_OVER_ROOT_PI,
    cost=15,
    dtypes=FLOATS,
    doc="1 - erf(x)",
)
erfinv: Op = unary(
    "erfinv",
    through_f64(special.erfinv),
    lambda g, y, x: g * exp(y * y) / special.TWO_OVER_ROOT_PI,
    cost=20,
    dtypes=FLOATS,
    domain=(-0.9, 0.9),
)
lgamma: Op = unary(
    "lgamma",
    through_f64(special.lgamma),
    lambda g, y, x: g * digamma(x),
    cost=30,
    dtypes=FLOATS,
    domain=(0.3, 6.0),
    doc="log |gamma(x)|",
)
digamma: Op = unary(
    "digamma",
    through_f64(special.digamma),
    lambda g, y, x: g * polygamma(x, n=1),
    cost=30,
    dtypes=FLOATS,
    domain=(0.3, 6.0),
    doc="the derivative of lgamma",
)
polygamma: Op = elementwise(
    "polygamma",
    through_f64(special.polygamma),
    (lambda g, y, x, n: g * polygamma(x, n=n + 1),),
    "polygamma({0}, {n})",
    _polygamma_type,
    cost=60,
    dtypes=FLOATS,
    domain=(0.3, 6.0),
    samples=_polygamma_samples,
    doc="the n-th derivative of digamma",
)
