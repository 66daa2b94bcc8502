"""Elementwise functions that the interpreter alone computes: Bessel, zeta, polynomials, gcd."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import NO_GRADIENT, Expr, Op, Sample
from tracecc_ir.ops import special, special_bessel
from tracecc_ir.ops.elementwise import exp, log, select, sign, square
from tracecc_ir.ops.elementwise_special import lgamma
from tracecc_ir.ops.rules import check_same_dtype
from tracecc_ir.types import FLOATS, INTS, DType, TensorType, f32, f64

Domain = tuple[float, float]


def _samples(*domains: Domain) -> Callable[..., Iterator[Sample]]:
    def samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
        for shape in ((), (3, 0), (7,), (2, 5)):
            yield Sample(
                tuple(np.asarray(rng.uniform(*d, shape)).astype(dtype.numpy) for d in domains)
            )

    return samples


def _through_f64(f: Callable) -> Callable:
    def reference(*arrays: np.ndarray, **attrs: Any) -> np.ndarray:
        with np.errstate(all="ignore"):
            y = f(*(x.astype(np.float64) for x in arrays), **attrs)
            return np.asarray(y).astype(arrays[0].dtype)

    return reference


def _unary(name: str, f: Callable, vjp: Any, domain: Domain, doc: str) -> Op:
    rules = vjp if vjp is NO_GRADIENT else (vjp,)
    return Op(
        name,
        "library",
        lambda x: x,
        _through_f64(f),
        rules,
        dtypes=FLOATS,
        samples=_samples(domain),
        doc=doc,
    )


def _over(y: Expr, x: Expr, limit: float) -> Any:
    """y / x, and at zero the limit."""
    zero = x.eq(0)
    return select(zero, x.full(limit), y / select(zero, x.full(1), x))


def _i(n: int, scaled: bool) -> Callable[[np.ndarray], np.ndarray]:
    def f(x: np.ndarray) -> np.ndarray:
        y = special_bessel.modified_i(x, n)
        return y if scaled else y * np.exp(np.abs(x))

    return f


def _k(n: int, scaled: bool) -> Callable[[np.ndarray], np.ndarray]:
    def f(x: np.ndarray) -> np.ndarray:
        y = special_bessel.modified_k(x, n)
        return y if scaled else y * np.exp(-x)

    return f


i0: Op = _unary(
    "i0", _i(0, False), lambda g, y, x: g * i1(x), (-6.0, 6.0), "modified Bessel function I_0"
)
i1: Op = _unary(
    "i1",
    _i(1, False),
    lambda g, y, x: g * (i0(x) - _over(y, x, 0.5)),
    (-6.0, 6.0),
    "modified Bessel function I_1",
)
i0e: Op = _unary(
    "i0e",
    _i(0, True),
    lambda g, y, x: g * (i1e(x) - sign(x) * y),
    (0.5, 40.0),
    "exp(-|x|) I_0(x)",
)
i1e: Op = _unary(
    "i1e",
    _i(1, True),
    lambda g, y, x: g * (i0e(x) - sign(x) * y - _over(y, x, 0.5)),
    (0.5, 40.0),
    "exp(-|x|) I_1(x)",
)
k0: Op = _unary(
    "k0", _k(0, False), lambda g, y, x: -g * k1(x), (0.5, 6.0), "modified Bessel function K_0"
)
k1: Op = _unary(
    "k1",
    _k(1, False),
    lambda g, y, x: -g * (k0(x) + y / x),
    (0.5, 6.0),
    "modified Bessel function K_1",
)
k0e: Op = _unary("k0e", _k(0, True), lambda g, y, x: g * (y - k1e(x)), (0.5, 40.0), "exp(x) K_0(x)")
k1e: Op = _unary(
    "k1e", _k(1, True), lambda g, y, x: g * (y - k0e(x) - y / x), (0.5, 40.0), "exp(x) K_1(x)"
)
bessel_j0: Op = _unary(
    "bessel_j0",
    lambda x: special_bessel.bessel_j(x, 0),
    lambda g, y, x: -g * bessel_j1(x),
    (-60.0, 60.0),
    "Bessel function J_0",
)
bessel_j1: Op = _unary(
    "bessel_j1",
    lambda x: special_bessel.bessel_j(x, 1),
    lambda g, y, x: g * (bessel_j0(x) - _over(y, x, 0.5)),
    (-60.0, 60.0),
    "Bessel function J_1",
)
bessel_y0: Op = _unary(
    "bessel_y0",
    lambda x: special_bessel.bessel_y(x, 0),
    lambda g, y, x: -g * bessel_y1(x),
    (0.5, 60.0),
    "Bessel function Y_0",
)
bessel_y1: Op = _unary(
    "bessel_y1",
    lambda x: special_bessel.bessel_y(x, 1),
    lambda g, y, x: g * (bessel_y0(x) - y / x),
    (0.5, 60.0),
    "Bessel function Y_1",
)
airy: Op = _unary("airy", special_bessel.airy, NO_GRADIENT, (-30.0, 5.0), "Airy function Ai")


def _erfcx(x: np.ndarray) -> np.ndarray:
    y = special.scaled_erfc(np.abs(x))
    return np.where(x < 0, 2 * np.exp(x * x) - y, y)


erfcx: Op = _unary(
    "erfcx",
    _erfcx,
    lambda g, y, x: g * (x * y * 2 - special.TWO_OVER_ROOT_PI),
    (-3.0, 20.0),
    "exp(x^2) erfc(x)",
)


def _log_ndtr(x: np.ndarray) -> np.ndarray:
    tail = np.log(_erfcx(-np.minimum(x, 0) / math.sqrt(2)) / 2) - x * x / 2
    return np.where(x < -1, tail, np.log1p(-special.erfc(x / math.sqrt(2)) / 2))


def _ndtri(p: np.ndarray) -> np.ndarray:
    """By erfinv in the middle; in the tails Newton's method on the logarithm."""
    small = np.minimum(p, 1 - p)
    valid = (small > 0) & (small < 0.1)
    target = np.log(np.where(valid, small, 0.05))
    x = -np.sqrt(-2 * target)
    for _ in range(12):
        found = _log_ndtr(x)
        x = x + (target - found) * np.exp(found + x * x / 2) * math.sqrt(2 * math.pi)
    middle = math.sqrt(2) * special.erfinv(2 * p - 1)
    return np.where(valid, np.where(p < 0.5, x, -x), middle)


ndtri: Op = _unary(
    "ndtri",
    _ndtri,
    lambda g, y, x: g * exp(square(y) * 0.5) * math.sqrt(2 * math.pi),
    (0.01, 0.99),
    "the inverse of the standard normal distribution function",
)


# Of two operands. Where the first has no rule, functions above refuse to differentiate in it.


def _same(name: str) -> Callable[[TensorType, TensorType], TensorType]:
    def infer(x: TensorType, y: TensorType) -> TensorType:
        check_same_dtype(name, x, y)
        if x.shape != y.shape:
            raise TypeRuleError(f"{name} needs operands of one shape, given {x} and {y}")
        return x

    return infer


def _gamma_density(g: Expr, a: Expr, x: Expr) -> Any:
    return g * exp((a - 1) * log(x) - x - lgamma(a))


igamma: Op = Op(
    "igamma",
    "library",
    _same("igamma"),
    _through_f64(lambda a, x: special_bessel.incomplete_gamma(a, x, False)),
    (None, lambda g, y, a, x: _gamma_density(g, a, x)),
    dtypes=FLOATS,
    samples=_samples((0.3, 9.0), (0.3, 9.0)),
    doc="the regularised lower incomplete gamma function P(a, x)",
)
igammac: Op = Op(
    "igammac",
    "library",
    _same("igammac"),
    _through_f64(lambda a, x: special_bessel.incomplete_gamma(a, x, True)),
    (None, lambda g, y, a, x: -_gamma_density(g, a, x)),
    dtypes=FLOATS,
    samples=_samples((0.3, 9.0), (0.3, 9.0)),
    doc="the regularised upper incomplete gamma function Q(a, x)",
)
zeta: Op = Op(
    "zeta",
    "library",
    _same("zeta"),
    _through_f64(special_bessel.zeta),
    (None, lambda g, y, s, q: -g * s * zeta(s + 1, q)),
    dtypes=FLOATS,
    samples=_samples((1.5, 9.0), (0.3, 9.0)),
    doc="Hurwitz's zeta: the sum of (q + k)^-s",
)


def _polynomial_type(x: TensorType, n: TensorType, *, family: str) -> TensorType:
    if family not in special_bessel.FAMILIES:
        known = ", ".join(special_bessel.FAMILIES)
        raise TypeRuleError(f"polynomial has no family {family!r}; expected one of {known}")
    return _same("polynomial")(x, n)


def _polynomial_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for family in special_bessel.FAMILIES:
        x = rng.uniform(-1.5, 1.5, (3, 9)).astype(dtype.numpy)
        n = np.broadcast_to(np.arange(-1, 8), (3, 9)).astype(dtype.numpy)
        yield Sample((x, n), {"family": family})


polynomial: Op = Op(
    "polynomial",
    "library",
    _polynomial_type,
    _through_f64(special_bessel.polynomial),
    NO_GRADIENT,
    dtypes=(f32, f64),
    samples=_polynomial_samples,
    doc="the n-th orthogonal polynomial of a family at x; 0 for negative n",
)
nextafter: Op = Op(
    "nextafter",
    "library",
    _same("nextafter"),
    lambda x, y: np.asarray(np.nextafter(x, y)),
    NO_GRADIENT,
    dtypes=(f32, f64),
    samples=_samples((-3, 3), (-3, 3)),
    doc="the next number from x towards y",
)
gcd: Op = Op(
    "gcd",
    "library",
    _same("gcd"),
    lambda x, y: np.asarray(np.gcd(x, y)),
    NO_GRADIENT,
    dtypes=INTS,
    samples=_samples((0, 60), (0, 60)),
    doc="the greatest common divisor",
)
