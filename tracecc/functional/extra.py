"""Elementwise functions beyond the basic ones: signs, exponents, gamma and error functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tracecc.functional import core
from tracecc.functional.core import (
    arange_like,
    check_tensor,
    default_dtype,
    emit,
    match,
    promoted,
    to_dtype,
    to_float,
)
from tracecc.functional.logic import eq, gt, isnan, logical_and, lt, signbit
from tracecc.functional.pointwise import abs as abs_
from tracecc.functional.pointwise import (
    add,
    div,
    erfc,
    exp2,
    lgamma,
    log,
    log1p,
    log2,
    logaddexp,
    mul,
    neg,
    sin,
    sub,
    where,
)
from tracecc.functional.pointwise import pow as pow_
from tracecc.functional.reductions import sum as sum_
from tracecc.state import thread
from tracecc.tensor import Size, Tensor
from tracecc_ir import ops
from tracecc_ir.errors import NotDifferentiable
from tracecc_ir.op import Op
from tracecc_ir.ops.special_bessel import FAMILIES
from tracecc_ir.types import c128, f64, i32


def copysign(input: Any, other: Any) -> Tensor:
    """``input`` with the sign of ``other``, that of zeros included."""
    dtype = promoted(input, other)
    dtype = dtype if dtype.kind == "float" else default_dtype()
    x, y = match(input, other, dtype=dtype)
    flipped = emit(ops.ne, signbit(x), signbit(y))
    return where(flipped, neg(x), x)


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 below zero, 1 above, ``values`` at zero."""
    if input.dtype is not values.dtype:
        raise RuntimeError(
            "heaviside is not yet implemented for tensors with different dtypes, given "
            f"{input.dtype.public} and {values.dtype.public}"
        )
    x, v = match(input, values)
    step = to_dtype(gt(x, 0), x.dtype) if x.dtype.kind != "bool" else x
    return where(eq(x, 0), v, step)


def ldexp(input: Tensor, other: Any) -> Tensor:
    """``input * 2 ** other``."""
    return mul(input, pow_(2.0, other))


def frexp(input: Tensor) -> tuple[Tensor, Tensor]:
    """Mantissas in [0.5, 1) and int32 exponents with ``input = mantissa * 2 ** exponent``."""
    if check_tensor("frexp", input).dtype.kind != "float":
        raise RuntimeError(
            f"torch.frexp() only supports floating-point dtypes, given {input.dtype.public}"
        )
    size = abs_(input.detach())
    plain = logical_and(gt(size, 0), lt(size, math.inf))
    safe = where(plain, size, 1.0)
    exponent = add(emit(ops.floor, log2(safe)), 1)
    half = div(safe, exp2(exponent))
    exponent = where(lt(half, 0.5), sub(exponent, 1), exponent)
    exponent = where(lt(half, 1.0), exponent, add(exponent, 1))
    exponent = where(plain, exponent, 0.0)
    first = emit(ops.floor, div(exponent, 2.0))
    scaled = div(div(input, exp2(first)), exp2(sub(exponent, first)))
    return scaled, to_dtype(exponent, i32)


def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2 ** input + 2 ** other)."""
    two = math.log(2)
    return div(logaddexp(mul(input, two), mul(other, two)), two)


def float_power(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent`` in double precision."""
    dtype = c128 if promoted(input, exponent).is_complex else f64
    x, y = (to_dtype(v, dtype) if isinstance(v, Tensor) else v for v in (input, exponent))
    return pow_(x, y)


# Gamma functions.


def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of `digamma`."""
    if n < 0:
        raise RuntimeError(f"polygamma(n, x) does not support negative n, given {n}")
    return emit(ops.polygamma, to_float(input), n=n)


def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension ``p``."""
    if p < 1:
        raise RuntimeError(f"p has to be greater than or equal to 1, given {p}")
    x = to_float(input)
    shape = (*x._type.shape, p)
    halves = mul(to_dtype(arange_like(p, shape, x.ndim), x.dtype), -0.5)
    wide = emit(ops.broadcast, x, shape=shape, axes=tuple(range(x.ndim)))
    return add(sum_(lgamma(add(wide, halves)), -1), p * (p - 1) / 4 * math.log(math.pi))


def multigammaln(input: Tensor, p: int) -> Tensor:
    """`mvlgamma` under SciPy's name."""
    return mvlgamma(input, p)


# The normal distribution, entropy, and products with logarithms.


def ndtr(input: Tensor) -> Tensor:
    """The area under the standard normal density to the left."""
    return mul(erfc(mul(to_float(input), -math.sqrt(0.5))), 0.5)


def entr(input: Tensor) -> Tensor:
    """-x log x: 0 at zero, -inf below."""
    x = to_float(input)
    positive = gt(x, 0)
    found = neg(mul(x, log(where(positive, x, 1.0))))
    found = where(positive, found, where(eq(x, 0), 0.0, -math.inf))
    return where(isnan(x), x, found)


def xlog1py(input: Any, other: Any) -> Tensor:
    """``input * log1p(other)``, 0 where ``input`` is 0 unless ``other`` is NaN."""
    dtype = promoted(input, other)
    dtype = dtype if dtype.kind == "float" else default_dtype()
    x, y = match(input, other, dtype=dtype)
    zero = logical_and(eq(x, 0), emit(ops.bit_not, isnan(y)))
    return where(zero, 0.0, mul(x, log1p(where(zero, 0.0, y))))


def spherical_bessel_j0(x: Tensor) -> Tensor:
    """sin(x) / x, 1 at zero."""
    y = to_float(x)
    zero = eq(y, 0)
    infinite = eq(abs_(y), math.inf)
    safe = where(zero, 1.0, where(infinite, 1.0, y))
    return where(zero, 1.0, where(infinite, 0.0, div(sin(safe), safe)))


def _library(name: str, op: Op, doc: str) -> Callable[[Tensor], Tensor]:
    def function(input: Tensor) -> Tensor:
        return emit(op, to_float(check_tensor(name, input)))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


i0 = _library("i0", ops.i0, "The modified Bessel function I_0.")
i0e = _library("i0e", ops.i0e, "exp(-|x|) I_0(x).")
i1 = _library("i1", ops.i1, "The modified Bessel function I_1.")
i1e = _library("i1e", ops.i1e, "exp(-|x|) I_1(x).")
bessel_j0 = _library("bessel_j0", ops.bessel_j0, "The Bessel function J_0.")
bessel_j1 = _library("bessel_j1", ops.bessel_j1, "The Bessel function J_1.")
bessel_y0 = _library("bessel_y0", ops.bessel_y0, "The Bessel function Y_0.")
bessel_y1 = _library("bessel_y1", ops.bessel_y1, "The Bessel function Y_1.")
modified_bessel_k0 = _library("modified_bessel_k0", ops.k0, "The modified Bessel function K_0.")
modified_bessel_k1 = _library("modified_bessel_k1", ops.k1, "The modified Bessel function K_1.")
scaled_modified_bessel_k0 = _library("scaled_modified_bessel_k0", ops.k0e, "exp(x) K_0(x).")
scaled_modified_bessel_k1 = _library("scaled_modified_bessel_k1", ops.k1e, "exp(x) K_1(x).")
airy_ai = _library("airy_ai", ops.airy, "The Airy function Ai.")
erfcx = _library("erfcx", ops.erfcx, "exp(x^2) erfc(x), which does not underflow.")
ndtri = _library("ndtri", ops.ndtri, "The inverse of `ndtr`.")


def log_ndtr(input: Tensor) -> Tensor:
    """The logarithm of `ndtr`, accurate in the left tail."""
    x = to_float(input)
    left = lt(x, -1.0)
    low, high = where(left, x, -1.0), where(left, 0.0, x)
    tail = log(mul(erfcx(mul(low, -math.sqrt(0.5))), 0.5))
    tail = sub(tail, mul(mul(low, low), 0.5))
    rest = log1p(mul(erfc(mul(high, math.sqrt(0.5))), -0.5))
    return where(isnan(x), x, where(left, tail, rest))


def _pair(name: str, input: Any, other: Any) -> list[Tensor]:
    dtype = promoted(input, other)
    return match(input, other, dtype=dtype if dtype.kind == "float" else default_dtype())


def _in_second(name: str, op: Op, doc: str) -> Callable[[Any, Any], Tensor]:
    def function(input: Any, other: Any) -> Tensor:
        if thread.grad_enabled and isinstance(input, Tensor) and input._requires_grad:
            raise NotDifferentiable(
                f"the derivative for '{name}' in its first argument is not implemented; detach() it"
            )
        return emit(op, *_pair(name, input, other))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc + " Differentiable in the second argument."
    return function


igamma = _in_second("igamma", ops.igamma, "The regularised lower incomplete gamma function.")
igammac = _in_second("igammac", ops.igammac, "The regularised upper incomplete gamma function.")
zeta = _in_second("zeta", ops.zeta, "Hurwitz's zeta: the sum of (other + k)^-input over k >= 0.")


def _polynomial(family: str, shifted: bool = False) -> Callable[[Any, Any], Tensor]:
    def function(input: Any, n: Any) -> Tensor:
        x, degree = _pair(family, input, n)
        return emit(ops.polynomial, sub(mul(x, 2.0), 1.0) if shifted else x, degree, family=family)

    kind, letter = family.rsplit("_", 1)
    name = f"{'shifted_' if shifted else ''}{kind}_polynomial_{letter}"
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The polynomial {letter.upper()}_n of the {kind} family; values only."
    return function


POLYNOMIALS = {
    f.__name__: f
    for f in [
        *map(_polynomial, FAMILIES),
        *(_polynomial(f"chebyshev_{k}", shifted=True) for k in "tuvw"),
    ]
}


def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor of integers."""
    return emit(ops.gcd, *_integers("gcd", input, other))


def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple of integers."""
    x, y = _integers("lcm", input, other)
    divisor = emit(ops.gcd, x, y)
    whole = emit(ops.trunc_div, x, where(eq(divisor, 0), 1, divisor))
    return abs_(mul(whole, y))


def _integers(name: str, input: Tensor, other: Tensor) -> list[Tensor]:
    x, y = match(input, other)
    if x.dtype.kind != "int":
        raise RuntimeError(f"{name}() expects integer tensors, given {x.dtype.public}")
    return [x, y]


def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The next number from ``input`` towards ``other``."""
    return emit(ops.nextafter, *match(input, other))


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that all of ``shapes`` broadcast to; a number is a shape of one dimension.

    >>> import tracecc as tc
    >>> tc.broadcast_shapes((3, 1), 4)
    tracecc.Size([3, 4])
    """
    return Size(core.broadcast_shapes(*[(s,) if isinstance(s, int) else tuple(s) for s in shapes]))
