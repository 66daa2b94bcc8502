"""Vector mathematics: the error function and its kin, gamma functions, half precision, Philox."""

from __future__ import annotations

import math

from tracecc.backends.cpu import vecmath_coefficients as table
from tracecc.backends.cpu.vecmath_builder import Function, Value
from tracecc.backends.cpu.vecmath_exp import clamp, reduced_exp, scale

SQRT_PI_2 = math.sqrt(math.pi) / 2


def _erf_small(f: Function, x: Value) -> Value:
    z = x * x
    coefficients = table.ERF64 if x.type == "double" else table.ERF32
    return f.mad(x, f.polynomial(z, coefficients), x)


def _erfc_large(f: Function, a: Value) -> Value:
    """erfc of a >= 0 as e^(-a^2) P(t) / (1 + 2 a), t = (a - 4) / (a + 4).

    After Shepherd & Laframboise, "Chebyshev Approximation of (1 + 2x) exp(x^2) erfc(x)" (1981).
    """
    a = clamp(f, a, 0.0, 28.0)
    t = (a - 4.0) / (a + 4.0)
    square = a * a
    lost = f.fma(a, a, -square)
    _, e, n = reduced_exp(f, -square)
    power = e + 1.0
    power = power - power * lost
    return scale(power * (f.polynomial(t, table.ERFC64) / f.mad(a, 2.0, 1.0)), n)


def erf(f: Function, x: Value) -> Value:
    a = x.abs()
    if x.type == "double":
        large = (1.0 - _erfc_large(f, a)).copysign(x)
        return f.select(a.lt(1.0), _erf_small(f, x), large)
    b = clamp(f, a, 0.0, 4.0)
    _, e, n = reduced_exp(f, -f.polynomial(b, table.ERFQ32))
    large = (1.0 - scale(e + 1.0, n)).copysign(x)
    return f.select(a.lt(1.0), _erf_small(f, x), large)


def erfc(f: Function, x: Value) -> Value:
    large = _erfc_large(f, x.abs())
    y = f.select(x.lt(0.0), 2.0 - large, large)
    return f.select(x.abs().lt(0.4), 1.0 - _erf_small(f, x), y)


# Giles, "Approximating the erfinv function" (GPU Computing Gems, 2011): single precision, then two
# steps of Halley's method in double.
_GILES_CENTRE = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_GILES_TAIL = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


def erfinv(f: Function, y: Value) -> Value:
    a = y.abs()
    inside = a.lt(1.0)
    b = f.select(inside, a, 0.5)
    rest = 1.0 - b
    w = -f.call("tcc.log.f64", "double", rest * (1.0 + b))
    centre = f.polynomial(w - 2.5, _GILES_CENTRE)
    tail = f.polynomial(w.sqrt() - 3.0, _GILES_TAIL)
    x = f.select(w.lt(5.0), centre, tail) * b
    for _ in range(2):
        # erf(x) - b, from whichever side does not cancel.
        gap = f.select(b.lt(0.5), _erf_small(f, x) - b, rest - f.call("tcc.erfc.f64", "double", x))
        step = gap * f.call("tcc.exp.f64", "double", x * x) * SQRT_PI_2
        x = x - step / (1.0 + x * step)
    x = f.select(inside, x, f.select(a.eq(1.0), f.value(math.inf, "double"), math.nan))
    return f.select(a.lt(1e-300), a * SQRT_PI_2, x).copysign(y)


def lgamma(f: Function, x: Value) -> Value:
    """The C library's: not vectorised."""
    return f.call("lgamma", "double", x)


_DIGAMMA = tuple(
    reversed([1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160])
)


def digamma(f: Function, x: Value) -> Value:
    """Ten steps of the recurrence where x < 10, then the asymptotic series; reflection below 0.

    Abramowitz & Stegun, "Handbook of Mathematical Functions", 6.3.
    """
    negative = x.lt(0.0)
    y = f.select(negative, 1.0 - x, x)
    # sum of 1 / (y + k) as one fraction: two terms at a time keep the divisions few.
    low = y.lt(10.0)
    total = f.value(0.0, "double")
    base = f.select(low, y, 1.0)
    for k in range(0, 10, 2):
        p, q = base + float(k), base + float(k + 1)
        total = total + (p + q) / (p * q)
    shifted = f.select(low, y + 10.0, y)
    r = 1.0 / (shifted * shifted)
    series = f.call("tcc.log.f64", "double", shifted) - (
        0.5 / shifted + r * f.polynomial(r, _DIGAMMA)
    )
    series = series - f.select(low, total, 0.0)
    fraction = (x - x.rint()) * math.pi
    reflected = series - math.pi / f.call("tcc.tan.f64", "double", fraction)
    result = f.select(negative, reflected, series)
    result = f.select(negative & x.eq(x.floor()), math.nan, result)
    result = f.select(x.eq(math.inf), math.inf, result)
    pole = -f.value(math.inf, "double").copysign(x)
    return f.select(x.eq(0.0), pole, result)


# Half precision: bits in i16.


def from_bf16(f: Function, bits: Value) -> Value:
    return (bits.to("i32", unsigned=True) << 16).as_float()


def to_bf16(f: Function, x: Value) -> Value:
    """Round to nearest even; NaN stays a quiet NaN."""
    bits = x.bits()
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40
    return f.select(x.isnan(), quiet, rounded).to("i16")


def from_f16(f: Function, bits: Value) -> Value:
    if f.target.half:
        half = f.emit(f"bitcast i16 {bits.name} to half", "half")
        return f.emit(f"fpext half {half.name} to float", "float")
    wide = bits.to("i32", unsigned=True)
    magnitude = (wide & 0x7FFF) << 13
    value = magnitude.as_float() * 2.0**112
    special = magnitude | 0x7F800000
    value_bits = f.select(magnitude.ge(0x7C00 << 13), special, value.bits())
    return (value_bits | ((wide & 0x8000) << 16)).as_float()


def to_f16(f: Function, x: Value) -> Value:
    """Round to nearest even."""
    if f.target.half:
        # What keeps LLVM from merging this with a rounding from double, which takes a library call.
        x = f.call("llvm.canonicalize.f32", "float", x)
        half = f.emit(f"fptrunc float {x.name} to half", "half")
        return f.emit(f"bitcast half {half.name} to i16", "i16")
    a = x.abs()
    bits = a.bits()
    normal = (bits + 0xFFF + ((bits >> 13) & 1) - (112 << 23)) >> 13
    subnormal = (a + 0.5).bits() - 0x3F000000
    y = f.select(bits.lt(113 << 23), subnormal, normal)
    y = f.select(bits.ge(0x477FF000), 0x7C00, y)
    y = f.select(x.isnan(), 0x7E00, y)
    return (y | ((x.bits() >> 16) & 0x8000)).to("i16")


def philox(f: Function, seed: Value, position: Value, index: Value) -> Value:
    """Word 0 of Philox4x32-10: Salmon et al., "Parallel Random Numbers" (SC 2011)."""
    low = 0xFFFFFFFF
    c0, c1 = index & low, index >> 32
    c2, c3 = position & low, position >> 32
    k0, k1 = seed & low, seed >> 32
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & low, (p0 >> 32) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return c0.to("i32")
