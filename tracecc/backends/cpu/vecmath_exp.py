"""Vector mathematics: exponentials, logarithms, hyperbolic functions, powers.

Arguments are reduced as in Cody & Waite, "Software Manual for the Elementary Functions" (1980).
"""

from __future__ import annotations

import math

from tracecc.backends.cpu import vecmath_coefficients as table
from tracecc.backends.cpu.vecmath_builder import Function, Value

LN2_HIGH = float.fromhex("0x1.62e42fefa4000p-1")  # 40 bits: products with exponents are exact
LN2_LOW = float.fromhex("-0x1.8432a1b0e2634p-43")
LOG10_2_HIGH = float.fromhex("0x1.34413509f8000p-2")
LOG10_2_LOW = float.fromhex("-0x1.80433b83b532ap-44")
LOG2E, LOG2E_LOW = float.fromhex("0x1.71547652b82fep+0"), float.fromhex("0x1.777d0ffda0d24p-56")
LOG10E, LOG10E_LOW = float.fromhex("0x1.bcb7b1526e50ep-2"), float.fromhex("0x1.95355baaafad3p-57")
# Adding it rounds to an integer, which the low bits of the sum then hold.
ROUND = {"double": 1.5 * 2.0**52, "float": 1.5 * 2.0**23}
_MANTISSA = {"double": 52, "float": 23}
_BIAS = {"double": 1023, "float": 127}


def nearest(f: Function, scaled: Value) -> tuple[Value, Value]:
    """The nearest integer of a number of moderate size, as a float and as an integer."""
    magic = ROUND[scaled.type]
    shifted = scaled + magic
    offset = f.value(magic, scaled.type).name
    bits = shifted.bits() - f.emit(
        f"bitcast {scaled.type} {offset} to {scaled.bits_type}", scaled.bits_type
    )
    return shifted - magic, bits


def power_of_two(n: Value, kind: str) -> Value:
    """2^n of an integer within the range of normal exponents."""
    return ((n + _BIAS[kind]) << _MANTISSA[kind]).as_float()


def scale(x: Value, n: Value) -> Value:
    """x * 2^n where results may be subnormal or overflow: one instruction, or two steps."""
    if x.function.target.scales:
        return x.function.ldexp(x, n)
    half = n.asr(1)
    return x * power_of_two(half, x.type) * power_of_two(n - half, x.type)


def clamp(f: Function, x: Value, low: float, high: float) -> Value:
    """x within bounds; NaN stays NaN."""
    x = f.select(x.lt(low), low, x)
    return f.select(x.gt(high), high, x)


def reduced_exp(f: Function, x: Value) -> tuple[Value, Value, Value]:
    """(r, e^r - 1, n) with x = n ln 2 + r, |r| <= ln(2) / 2."""
    coefficients: tuple[float, ...]
    if x.type == "double":
        high, low, coefficients = LN2_HIGH, LN2_LOW, table.EXP64
    else:
        high, low, coefficients = 0.693115234375, 3.194618329871446e-05, table.EXP32
    whole, n = nearest(f, x * LOG2E)
    r = f.mad(-whole, high, x)
    r = f.mad(-whole, low, r)
    return r, f.mad(r * r, f.polynomial(r, coefficients), r), n


def exp(f: Function, x: Value) -> Value:
    low, high = (-746.0, 710.0) if x.type == "double" else (-104.0, 89.0)
    _, e, n = reduced_exp(f, clamp(f, x, low, high))
    return scale(e + 1.0, n)


def exp2(f: Function, x: Value) -> Value:
    double = x.type == "double"
    low, high = (-1076.0, 1025.0) if double else (-151.0, 129.0)
    x = clamp(f, x, low, high)
    whole, n = nearest(f, x)
    r = (x - whole) * math.log(2)
    e = f.mad(r * r, f.polynomial(r, table.EXP64 if double else table.EXP32), r)
    return scale(e + 1.0, n)


def expm1(f: Function, x: Value) -> Value:
    """2 (2^(n-1) (e^r - 1) + (2^(n-1) - 1/2)): exact where n = 0, no overflow before the end."""
    _, e, n = reduced_exp(f, clamp(f, x, -745.0, 710.0))
    half = power_of_two(n - 1, x.type)
    half = f.select(n.lt(-1020), 0.0, half)
    y = (f.mad(half, e, half - 0.5)) * 2.0
    return f.select(x.abs().lt(2.0**-54), x, y)


def mantissa(f: Function, x: Value) -> tuple[Value, Value]:
    """(m, e) with x = m 2^e, m in [sqrt(1/2), sqrt(2)); x positive, maybe subnormal."""
    double = x.type == "double"
    bits_of_fraction = _MANTISSA[x.type]
    smallest = 2.0**-1022 if double else 2.0**-126
    tiny = x.lt(smallest)
    lift = 54 if double else 24
    bits = f.select(tiny, x * 2.0**lift, x).bits()
    start = 0x3FE6A09E667F3BCD if double else 0x3F3504F3
    e = (bits - start).asr(bits_of_fraction)
    m = (bits - (e << bits_of_fraction)).as_float()
    exponent = e.to("i32").to(x.type)
    return m, exponent - f.select(tiny, float(lift), f.value(0.0, x.type))


def _log_special(f: Function, x: Value, y: Value) -> Value:
    """The logarithm's values at 0 (-inf), below 0 (NaN), at infinity and NaN."""
    y = f.select(x.eq(0.0), -math.inf, y)
    y = f.select(x.lt(0.0), math.nan, y)
    return f.select(x.eq(math.inf) | x.isnan(), x, y)


def _log_core(f: Function, m: Value) -> tuple[Value, Value]:
    """log(m) = g - (g^2 / 2 - s (g^2 / 2 + R(s^2))), g = m - 1, s = g / (2 + g): g and the rest."""
    g = m - 1.0
    s = g / (g + 2.0)
    z = s * s
    half = g * g * 0.5
    r = z * f.polynomial(z, table.LOG64)
    return g, half - s * (half + r)


def log(f: Function, x: Value) -> Value:
    m, e = mantissa(f, x)
    if x.type == "float":
        g = m - 1.0
        tail = f.mad(g * g * g, f.polynomial(g, table.LOG32), e * 3.194618329871446e-05)
        tail = f.mad(g * g, -0.5, tail)
        return _log_special(f, x, f.mad(e, 0.693115234375, g + tail))
    g, rest = _log_core(f, m)
    y = f.mad(e, LN2_HIGH, g - (rest - e * LN2_LOW))
    return _log_special(f, x, y)


def log1p(f: Function, x: Value) -> Value:
    """log(u) + c / u, where u = 1 + x rounded and c is what the rounding lost."""
    u = x + 1.0
    c = f.select(x.lt(1.0), x - (u - 1.0), 1.0 - (u - x))
    m, e = mantissa(f, u)
    g, rest = _log_core(f, m)
    y = f.mad(e, LN2_HIGH, g - (rest - f.mad(e, LN2_LOW, c / u)))
    y = _log_special(f, u, y)
    return f.select(x.abs().lt(2.0**-54), x, y)


def _log_base(
    f: Function, x: Value, scale: float, scale_low: float, high: float, low: float
) -> Value:
    """The logarithm times a two-part constant, the exponent's part added last."""
    m, e = mantissa(f, x)
    g, rest = _log_core(f, m)
    natural = g - rest
    lost = (g - natural) - rest
    part = natural * scale
    error = f.fma(natural, scale, -part) + f.mad(natural, scale_low, lost * scale)
    big = f.mad(e, high, part)
    error = error + ((e * high - big) + part) + e * low
    return _log_special(f, x, big + error)


def log2(f: Function, x: Value) -> Value:
    return _log_base(f, x, LOG2E, LOG2E_LOW, 1.0, 0.0)


def log10(f: Function, x: Value) -> Value:
    return _log_base(f, x, LOG10E, LOG10E_LOW, LOG10_2_HIGH, LOG10_2_LOW)


def _half_exp(f: Function, x: Value) -> Value:
    """e^x / 2 without overflow before the result does."""
    _, e, n = reduced_exp(f, clamp(f, x, -746.0, 711.0))
    return scale(e + 1.0, n - 1)


def sinh(f: Function, x: Value) -> Value:
    a = x.abs()
    e = f.call("tcc.expm1.f64", "double", f.select(a.gt(23.0), 23.0, a))
    small = (e + e / (e + 1.0)) * 0.5
    return f.select(a.gt(22.0), _half_exp(f, a), small).copysign(x)


def cosh(f: Function, x: Value) -> Value:
    half = _half_exp(f, x.abs())
    return half + 0.25 / half


def tanh(f: Function, x: Value) -> Value:
    a = x.abs()
    if x.type == "double":
        a = f.select(a.gt(22.0), 22.0, a)
        e = f.call("tcc.expm1.f64", "double", a + a)
        return (e / (e + 2.0)).copysign(x)
    return _tanh32(f, x)


def _tanh32(f: Function, x: Value) -> Value:
    """m / (m + 2) with m = e^2x - 1 = 2^n (e^r - 1) + (2^n - 1): nothing cancels where n = 0.

    Within 2.5 ulp: a separate polynomial near zero would give 2 and cost a third more.
    """
    t = x.abs()
    t = f.select(t.gt(10.0), 10.0, t)
    _, e, n = reduced_exp(f, t + t)
    p = power_of_two(n, "float")
    m = f.mad(e, p, p - 1.0)
    return (m / (m + 2.0)).copysign(x)


def asinh(f: Function, x: Value) -> Value:
    a = x.abs()
    huge = a.gt(2.0**28)
    b = f.select(huge, 1.0, a)
    square = b * b
    small = f.call("tcc.log1p.f64", "double", b + square / ((square + 1.0).sqrt() + 1.0))
    large = f.call("tcc.log.f64", "double", a) + math.log(2)
    return f.select(huge, large, small).copysign(x)


def acosh(f: Function, x: Value) -> Value:
    huge = x.gt(2.0**28)
    t = f.select(huge, 1.0, x - 1.0)
    small = f.call("tcc.log1p.f64", "double", t + (t * (t + 2.0)).sqrt())
    large = f.call("tcc.log.f64", "double", x) + math.log(2)
    y = f.select(huge, large, small)
    return f.select(x.lt(1.0), math.nan, y)


def atanh(f: Function, x: Value) -> Value:
    a = x.abs()
    y = f.call("tcc.log1p.f64", "double", (a + a) / (1.0 - a)) * 0.5
    return f.select(a.gt(1.0), math.nan, y).copysign(x)


def sigmoid(f: Function, x: Value) -> Value:
    kind = "f64" if x.type == "double" else "f32"
    return 1.0 / (f.call(f"tcc.exp.{kind}", x.type, -x) + 1.0)


# Powers.


def _two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and its rounding error, |a| >= |b| (Dekker)."""
    total = a + b
    return total, b - (total - a)


def _two_product(f: Function, a: Value, b: Value) -> tuple[Value, Value]:
    product = a * b
    return product, f.fma(a, b, -product)


def _long_log(f: Function, x: Value) -> tuple[Value, Value]:
    """log(x) for positive finite x as the sum of two doubles, to about 2^-66.

    log m = 2 s + s^3 (2/3 + z P(z)), s = (m - 1) / (m + 1) in two doubles, the 2/3 term too.
    """
    m, e = mantissa(f, x)
    g, d = m - 1.0, m + 1.0
    d_low = m - (d - 1.0)
    s = g / d
    s_low = (f.fma(-s, d, g) - s * d_low) / d
    z, z_low = _two_product(f, s, s)
    z_low = f.mad(s + s, s_low, z_low)
    c, c_low = _two_sum(f.value(2.0 / 3.0, "double"), z * f.polynomial(z, _LOG_TAIL))
    c_low = c_low + 3.700743415417188e-17
    p, p_low = _two_product(f, z, s)
    p_low = p_low + f.mad(z, s_low, z_low * s)
    t, t_low = _two_product(f, p, c)
    t_low = t_low + f.mad(p, c_low, p_low * c)
    high, low = _two_sum(s + s, t)
    low = low + (s_low + s_low + t_low)
    base = e * LN2_HIGH
    total, rest = _two_sum_any(base, high)
    return _two_sum(total, rest + f.mad(e, LN2_LOW, low))


def _two_sum_any(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b and its rounding error in any order of size (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


# (2 atanh(s) - 2 s - 2 s^3 / 3) / s^5 as a Taylor series: 2/5, 2/7, ...
_LOG_TAIL = tuple(2.0 / (2 * k + 5) for k in reversed(range(10)))


def pow(f: Function, x: Value, y: Value) -> Value:
    """x^y by e^(y log x) with the product in two doubles; special values as in C99 and NumPy."""
    a = x.abs()
    safe = f.select(a.gt(0.0) & a.lt(math.inf), a, 1.0)
    high, low = _long_log(f, safe)
    product, error = _two_product(f, y, high)
    error = f.mad(y, low, error)
    product = clamp(f, product, -800.0, 800.0)
    error = f.select(product.abs().lt(799.0), error, 0.0)
    _, e, n = reduced_exp(f, clamp(f, product, -747.0, 711.0))
    result = scale((e + f.mad(e, error, error)) + 1.0, n)
    infinity = f.select(y.gt(0.0), f.value(math.inf, "double"), 0.0)
    zero = f.select(y.gt(0.0), f.value(0.0, "double"), math.inf)
    result = f.select(a.eq(math.inf), infinity, result)
    result = f.select(a.eq(0.0), zero, result)
    grows = f.select(y.gt(0.0), a.gt(1.0), a.lt(1.0))
    at_infinity = f.select(grows, f.value(math.inf, "double"), 0.0)
    at_infinity = f.select(a.eq(1.0), 1.0, at_infinity)
    result = f.select(y.abs().eq(math.inf), at_infinity, result)
    whole = y.eq(y.floor())
    half = y * 0.5
    odd = whole & half.ne(half.floor()) & y.abs().lt(2.0**53)
    sign = f.select(odd, x, f.value(1.0, "double"))
    result = result.copysign(sign)
    undefined = x.lt(0.0) & x.ne(-math.inf) & y.ne(y.floor())
    result = f.select(undefined, math.nan, result)
    result = f.select(x.isnan() | y.isnan(), math.nan, result)
    return f.select(x.eq(1.0) | y.eq(0.0), 1.0, result)
