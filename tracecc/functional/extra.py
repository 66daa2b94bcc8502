"""Elementwise functions beyond the basic ones: signs, exponents, gamma and error functions."""

from __future__ import annotations

import math
from typing import Any

from tracecc.functional.core import (
    arange_like,
    check_tensor,
    default_dtype,
    emit,
    match,
    promoted,
    splat,
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
    sign,
    sin,
    sub,
    where,
)
from tracecc.functional.pointwise import pow as pow_
from tracecc.functional.reductions import sum as sum_
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.types import f64, i32

sgn = sign


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
    x, y = (to_dtype(v, f64) if isinstance(v, Tensor) else float(v) for v in (input, exponent))
    return pow_(x, y)


def angle(input: Tensor) -> Tensor:
    """pi for negative numbers, else 0; NaN for NaN."""
    x = to_float(input)
    turned = where(lt(x, 0), math.pi, splat(0, x._type.shape, x.dtype))
    return where(isnan(x), x, turned)


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
