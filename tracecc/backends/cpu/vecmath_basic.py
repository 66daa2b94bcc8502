"""Vector mathematics: rounding, signs, extremes, division with remainder, integer powers."""

from __future__ import annotations

import math
from collections.abc import Callable

from tracecc.backends.cpu.vecmath_builder import Function, Value


def sqrt(f: Function, x: Value) -> Value:
    return x.sqrt()


def rsqrt(f: Function, x: Value) -> Value:
    return 1.0 / x.sqrt()


def floor(f: Function, x: Value) -> Value:
    return x.floor()


def ceil(f: Function, x: Value) -> Value:
    return x.ceil()


def trunc(f: Function, x: Value) -> Value:
    return x.trunc()


def round(f: Function, x: Value) -> Value:
    """To the nearest integer, ties to even."""
    return x.rint()


def fma(f: Function, x: Value, y: Value, z: Value) -> Value:
    return f.fma(x, y, z)


def isfinite(f: Function, x: Value) -> Value:
    return x.abs().lt(math.inf)


# The rest is defined on every number; `unsigned` tells u8 from i8, whose LLVM type is the same.


def less(f: Function, x: Value, y: Value, unsigned: bool) -> Value:
    if unsigned or x.type == "i1":
        return f.emit(f"icmp ult {x.type} {x.name}, {y.name}", "i1")
    return x.lt(y)


def abs(f: Function, x: Value, unsigned: bool) -> Value:
    if x.is_float:
        return x.abs()
    return x if unsigned or x.type == "i1" else f.select(x.lt(0), 0 - x, x)


def sign(f: Function, x: Value, unsigned: bool) -> Value:
    """-1, 0 or 1; 0 for NaN."""
    if x.is_float:
        y = f.select(x.gt(0.0), f.value(1.0, x.type), -1.0)
        return f.select(x.eq(0.0) | x.isnan(), 0.0, y)
    if unsigned or x.type == "i1":
        return f.select(x.ne(0), f.value(1, x.type), 0)
    return f.select(x.gt(0), f.value(1, x.type), f.select(x.lt(0), f.value(-1, x.type), 0))


def maximum(f: Function, x: Value, y: Value, unsigned: bool) -> Value:
    """NaN if either is."""
    if x.is_float:
        return f.select(x.gt(y) | x.isnan(), x, y)
    return f.select(less(f, x, y, unsigned), y, x)


def minimum(f: Function, x: Value, y: Value, unsigned: bool) -> Value:
    """NaN if either is."""
    if x.is_float:
        return f.select(x.lt(y) | x.isnan(), x, y)
    return f.select(less(f, x, y, unsigned), x, y)


def _divided(f: Function, x: Value, y: Value, unsigned: bool) -> tuple[Value, Value]:
    """(quotient towards zero, remainder) of integers; 0 and 0 where y = 0; nothing traps."""
    if unsigned or x.type == "i1":
        safe = f.select(y.eq(0), 1, y)
        q = f.emit(f"udiv {x.type} {x.name}, {safe.name}", x.type)
        r = x - q * safe
    else:
        safe = f.select(y.eq(0) | y.eq(-1), 1, y)
        q = x / safe
        r = x - q * safe
        q = f.select(y.eq(-1), 0 - q, q)
    return f.select(y.eq(0), 0, q), f.select(y.eq(0), 0, r)


def _opposite(f: Function, r: Value, y: Value) -> Value:
    return r.ne(0) & (r ^ y).lt(0)


def _float_remainder(f: Function, x: Value, y: Value) -> Value:
    """The C library's fmod, exact."""
    return f.emit(f"frem {x.type} {x.name}, {y.name}", x.type)


def trunc_div(f: Function, x: Value, y: Value, unsigned: bool) -> Value:
    return (x / y).trunc() if x.is_float else _divided(f, x, y, unsigned)[0]


def fmod(f: Function, x: Value, y: Value, unsigned: bool) -> Value:
    return _float_remainder(f, x, y) if x.is_float else _divided(f, x, y, unsigned)[1]


def floor_div(f: Function, x: Value, y: Value, unsigned: bool) -> Value:
    """NumPy's: from the exact remainder, so that it agrees with `remainder`."""
    if not x.is_float:
        q, r = _divided(f, x, y, unsigned)
        return q if unsigned or x.type == "i1" else f.select(_opposite(f, r, y), q - 1, q)
    r = _float_remainder(f, x, y)
    q = (x - r) / y
    q = f.select(r.ne(0.0) & (y.lt(0.0) ^ r.lt(0.0)), q - 1.0, q)
    down = q.floor()
    whole = f.select((q - down).gt(0.5), down + 1.0, down)
    ratio = x / y
    zero = f.value(0.0, x.type).copysign(ratio)
    return f.select(y.eq(0.0), ratio, f.select(q.eq(0.0), zero, whole))


def remainder(f: Function, x: Value, y: Value, unsigned: bool) -> Value:
    """x - y floor(x / y), with the sign of y."""
    if not x.is_float:
        _, r = _divided(f, x, y, unsigned)
        return r if unsigned or x.type == "i1" else f.select(_opposite(f, r, y), r + y, r)
    r = _float_remainder(f, x, y)
    shifted = f.select(y.lt(0.0) ^ r.lt(0.0), r + y, r)
    zero = f.value(0.0, x.type).copysign(y)
    return f.select(r.eq(0.0), zero, f.select(r.isnan(), r, shifted))


def integer_power(name: str, type: str, unsigned: bool) -> str:
    """A function's text: square and multiply, wrapping; a negative exponent gives 1 / x^|y|."""
    negative = "false" if unsigned or type == "i1" else "%is.negative"
    compare = "" if negative == "false" else f"  %is.negative = icmp slt {type} %y, 0\n"
    one = "true" if type == "i1" else "1"
    zero = "false" if type == "i1" else "0"
    minus = "true" if type == "i1" else "-1"
    return f"""define internal {type} @{name}({type} %x, {type} %y) nounwind {{
entry:
{compare}  br i1 {negative}, label %inverse, label %loop
inverse:
  %is.one = icmp eq {type} %x, {one}
  %is.minus = icmp eq {type} %x, {minus}
  %odd = and {type} %y, {one}
  %is.odd = icmp ne {type} %odd, {zero}
  %unit = select i1 %is.odd, {type} {minus}, {type} {one}
  %other = select i1 %is.minus, {type} %unit, {type} {zero}
  %inverted = select i1 %is.one, {type} {one}, {type} %other
  ret {type} %inverted
loop:
  %n = phi {type} [ %y, %entry ], [ %n.next, %step ]
  %base = phi {type} [ %x, %entry ], [ %base.next, %step ]
  %total = phi {type} [ {one}, %entry ], [ %total.next, %step ]
  %done = icmp eq {type} %n, {zero}
  br i1 %done, label %finish, label %step
step:
  %bit = and {type} %n, {one}
  %set = icmp ne {type} %bit, {zero}
  %product = mul {type} %total, %base
  %total.next = select i1 %set, {type} %product, {type} %total
  %base.next = mul {type} %base, %base
  %n.next = {"xor" if type == "i1" else "lshr"} {type} %n, {"%n" if type == "i1" else "1"}
  br label %loop
finish:
  ret {type} %total
}}
"""


NUMBER: dict[str, Callable[..., Value]] = {
    "abs": abs,
    "sign": sign,
    "maximum": maximum,
    "minimum": minimum,
    "trunc_div": trunc_div,
    "fmod": fmod,
    "floor_div": floor_div,
    "remainder": remainder,
}
