"""Vector mathematics: trigonometric functions and their inverses.

Arguments up to 2^25 are reduced by Cody & Waite's method with fused multiply-adds; larger ones
after Payne & Hanek, "Radian Reduction for Trigonometric Functions" (1983), from a table of 2/pi's
bits by exponent.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

from tracecc.backends.cpu import vecmath_coefficients as table
from tracecc.backends.cpu.vecmath_builder import Function, Value, constant
from tracecc.backends.cpu.vecmath_exp import nearest

PI_2 = float.fromhex("0x1.921fb54442d18p+0")
PI_2_MIDDLE = float.fromhex("0x1.1a62633145c07p-54")
PI_2_LOW = float.fromhex("-0x1.f1976b7ed8fbcp-110")
TWO_OVER_PI = 2.0 / math.pi
_FRACTION = {"f32": 23, "f64": 52}
_FIRST = 25  # the binary exponent at which the table begins


@functools.cache
def _two_over_pi(bits: int) -> int:
    """floor(2 / pi * 2^bits), pi by Machin's formula in integers."""
    one = 1 << (bits + 32)

    def arctangent_of_inverse(n: int) -> int:
        power, total, k = one // n, 0, 0
        while power:
            total += (-power if k & 1 else power) // (2 * k + 1)
            power //= n * n
            k += 1
        return total

    pi = 4 * (4 * arctangent_of_inverse(5) - arctangent_of_inverse(239))
    return (2 << (bits + bits + 32)) // pi


@functools.cache
def _table(kind: str) -> tuple[tuple[float, ...], ...]:
    """By exponent k the parts of 2^(k - p) 2/pi mod 4; p = 23 for f32, 52 for f64."""
    last, widths = (127, (28, 53)) if kind == "f32" else (1023, (53, 53, 53))
    fraction = _FRACTION[kind]
    point = 1400
    digits = _two_over_pi(point)
    rows = []
    for k in range(_FIRST, last + 1):
        shift = point - (k - fraction)
        rest = Fraction(digits % (4 << shift), 1 << shift)
        row = []
        for width in widths:
            exponent = math.frexp(float(rest))[1]
            step = Fraction(2) ** (exponent - width)
            part = rest // step * step
            row.append(float(part))
            rest -= part
        rows.append(tuple(row))
    return tuple(zip(*rows, strict=True))


def _look_up(f: Function, kind: str, index: Value) -> list[Value]:
    """The table's parts at a row."""
    found = []
    for number, column in enumerate(_table(kind)):
        name = f"@tcc.two_over_pi.{kind}.{number}"
        numbers = ", ".join(f"double {constant(c, 'double')}" for c in column)
        size = f"[{len(column)} x double]"
        f.globals[name] = f"{name} = internal unnamed_addr constant {size} [{numbers}], align 64"
        place = f.emit(f"getelementptr {size}, ptr {name}, i64 0, i64 {index.name}", "ptr")
        found.append(f.emit(f"load double, ptr {place.name}", "double"))
    return found


def _split(f: Function, kind: str, a: Value) -> tuple[Value, list[Value]]:
    """(m, table parts) with a = m 2^(k - p), m a whole number below 2^(p + 1)."""
    bits = a.bits()
    row = (bits >> 52) - (1023 + _FIRST)
    last = len(_table(kind)[0]) - 1
    row = f.select(row.lt(0), 0, row)
    row = f.select(row.gt(last), last, row)
    mantissa = ((bits & ((1 << 52) - 1)) | (1023 << 52)).as_float()
    return mantissa * 2.0 ** _FRACTION[kind], _look_up(f, kind, row)


def _quarters(f: Function, p: Value) -> Value:
    """p less the nearest multiple of 4."""
    return f.fma((p * 0.25).rint(), -4.0, p)


def _two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _reduce_double(f: Function, x: Value) -> tuple[Value, Value, Value]:
    """(r, low, n): |x| = n pi/2 + r + low, |r| <= pi/4; n's low bits count."""
    a = x.abs()
    whole, n = nearest(f, a * TWO_OVER_PI)
    y = f.fma(-whole, PI_2, a)
    r = f.fma(-whole, PI_2_MIDDLE, y)
    low = f.fma(-whole, PI_2_MIDDLE, y - r) - whole * PI_2_LOW
    m, (c0, c1, c2) = _split(f, "f64", a)
    p0, p1 = m * c0, m * c1
    e0, e1 = f.fma(m, c0, -p0), f.fma(m, c1, -p1)
    q = _quarters(f, p0)
    big_whole, big_n = nearest(f, q + e0 + p1)
    s, s_low = _two_sum(q - big_whole, e0)
    t, t_low = _two_sum(s, p1)
    t_low = t_low + s_low + (e1 + m * c2)
    u = t + t_low
    u_low = t_low - (u - t)
    big_r = u * PI_2
    big_low = f.fma(u, PI_2, -big_r) + f.mad(u, PI_2_MIDDLE, u_low * PI_2)
    big = a.ge(2.0**_FIRST)
    return f.select(big, big_r, r), f.select(big, big_low, low), f.select(big, big_n, n)


def _reduce_float(f: Function, x: Value) -> tuple[Value, Value]:
    """(r, n) in double for a float's magnitude."""
    a = x.abs().to("double")
    whole, n = nearest(f, a * TWO_OVER_PI)
    r = f.mad(-whole, PI_2_MIDDLE, f.fma(-whole, PI_2, a))
    m, (c0, c1) = _split(f, "f32", a)
    q = _quarters(f, m * c0)
    low = m * c1
    big_whole, big_n = nearest(f, q + low)
    big_r = ((q - big_whole) + low) * PI_2
    big = a.ge(2.0**_FIRST)
    return f.select(big, big_r, r), f.select(big, big_n, n)


def _sine_cosine(f: Function, x: Value) -> tuple[Value, Value, Value]:
    """(sin r, cos r, n) of the reduced magnitude of x."""
    if x.type == "float":
        wide, n = _reduce_float(f, x)
        r = wide.to("float")
        z = r * r
        sine = f.mad(r * z, f.polynomial(z, table.SIN32), r)
        cosine = f.mad(z * z, f.polynomial(z, table.COS32), f.mad(z, -0.5, 1.0))
        return sine, cosine, n.to("i32")
    r, low, n = _reduce_double(f, x)
    z = r * r
    half = z * 0.5
    w = 1.0 - half
    sine = r + f.mad(r * z, f.polynomial(z, table.SIN64), low * w)
    cosine = w + (((1.0 - w) - half) + f.mad(z * z, f.polynomial(z, table.COS64), -(r * low)))
    return sine, cosine, n


def _with_sign(f: Function, y: Value, n: Value, x: Value, odd: bool) -> Value:
    """y, negated where bit 1 of n is set and by an odd function's sign; NaN at infinity."""
    width = 31 if y.type == "float" else 63
    flip = (n & 2) << (width - 1)
    bits = y.bits() ^ flip
    if odd:
        bits = bits ^ (x.bits() & (-1 << width))
    return f.select(x.abs().eq(math.inf), math.nan, bits.as_float())


def sin(f: Function, x: Value) -> Value:
    sine, cosine, n = _sine_cosine(f, x)
    y = _with_sign(f, f.select((n & 1).eq(0), sine, cosine), n, x, odd=True)
    return f.select(x.eq(0.0), x, y)


def cos(f: Function, x: Value) -> Value:
    sine, cosine, n = _sine_cosine(f, x)
    return _with_sign(f, f.select((n & 1).eq(0), cosine, sine), n + (n & 1), x, odd=False)


def tan(f: Function, x: Value) -> Value:
    sine, cosine, n = _sine_cosine(f, x)
    even = (n & 1).eq(0)
    y = f.select(even, sine, -cosine) / f.select(even, cosine, sine)
    y = (y.bits() ^ (x.bits() & (-1 << 63))).as_float()
    y = f.select(x.abs().eq(math.inf), math.nan, y)
    return f.select(x.eq(0.0), x, y)


def _asin_parts(f: Function, x: Value) -> tuple[Value, Value, Value, Value]:
    """(is small, s, s_low, asin tail): asin on [0, 1/2] of |x| or of sqrt((1 - |x|) / 2)."""
    a = x.abs()
    small = a.lt(0.5)
    half = (1.0 - a) * 0.5
    z = f.select(small, a * a, half)
    root = half.sqrt()
    safe = f.select(root.gt(0.0), root, 1.0)
    s = f.select(small, a, root)
    low = f.select(small, 0.0, f.fma(-root, root, half) / (safe + safe))
    tail = f.mad(s * z, f.polynomial(z, table.ASIN64), low)
    return small, s, low, tail


def asin(f: Function, x: Value) -> Value:
    small, s, _, tail = _asin_parts(f, x)
    large = PI_2 - (2.0 * s - (PI_2_MIDDLE - 2.0 * tail))
    y = f.select(small, s + tail, large)
    return f.select(x.abs().gt(1.0), math.nan, y).copysign(x)


def acos(f: Function, x: Value) -> Value:
    small, s, _, tail = _asin_parts(f, x)
    signed, signed_tail = s.copysign(x), f.select(x.lt(0.0), -tail, tail)
    middle = PI_2 - (signed - (PI_2_MIDDLE - signed_tail))
    top = 2.0 * (s + tail)
    bottom = math.pi - (2.0 * s - (2.0 * PI_2_MIDDLE - 2.0 * tail))
    y = f.select(small, middle, f.select(x.lt(0.0), bottom, top))
    return f.select(x.abs().gt(1.0), math.nan, y)


def _atan_ratio(f: Function, y: Value, x: Value) -> Value:
    """atan(y / x) for y, x >= 0 as base + atan(u), |u| <= tan(pi / 8)."""
    steep = y.gt(x * 2.414213562373095)
    middle = y.gt(x * 0.4142135623730951)
    numerator = f.select(steep, -x, f.select(middle, y - x, y))
    denominator = f.select(steep, y, f.select(middle, y + x, x))
    base = f.select(steep, PI_2, f.select(middle, f.value(PI_2 / 2, "double"), 0.0))
    low = f.select(steep, PI_2_MIDDLE, f.select(middle, f.value(PI_2_MIDDLE / 2, "double"), 0.0))
    u = numerator / denominator
    z = u * u
    return base + (u + f.mad(u * z, f.polynomial(z, table.ATAN64), low))


def atan(f: Function, x: Value) -> Value:
    a = x.abs()
    y = _atan_ratio(f, a, f.value(1.0, "double"))
    y = f.select(a.eq(math.inf), PI_2, y)
    return f.select(a.lt(2.0**-54), a, y).copysign(x)


def atan2(f: Function, y: Value, x: Value) -> Value:
    a, b = y.abs(), x.abs()
    both = a.eq(math.inf) & b.eq(math.inf)
    a1, b1 = f.select(both, 1.0, a), f.select(both, 1.0, b)
    # Powers of two keep sums and products of the two in range.
    huge = a1.gt(2.0**1000) | b1.gt(2.0**1000)
    tiny = a1.lt(2.0**-900) & b1.lt(2.0**-900)
    factor = f.select(huge, f.value(2.0**-100, "double"), 1.0)
    factor = f.select(tiny, 2.0**100, factor)
    a1, b1 = a1 * factor, b1 * factor
    angle = _atan_ratio(f, a1, b1)
    angle = f.select(a1.eq(math.inf), PI_2, angle)
    angle = f.select(b1.eq(math.inf), 0.0, angle)
    angle = f.select(a1.eq(0.0), 0.0, angle)
    negative = x.bits().lt(0)
    angle = f.select(negative, math.pi - (angle - 2.0 * PI_2_MIDDLE), angle)
    return f.select(x.isnan() | y.isnan(), math.nan, angle).copysign(y)
