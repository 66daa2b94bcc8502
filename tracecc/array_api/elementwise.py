"""Elementwise functions of the array API: PyTorch's, with Python numbers on either side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tracecc as tc
from tracecc.functional.creation import tensor
from tracecc.tensor import Tensor


def paired(x1: Any, x2: Any) -> tuple[Tensor, Tensor]:
    """Both operands as arrays: a Python number takes the other's dtype, or its own kind's."""
    if isinstance(x1, Tensor) and not isinstance(x2, Tensor):
        return x1, tensor(x2, dtype=tc.result_type(x1, x2))
    if isinstance(x2, Tensor) and not isinstance(x1, Tensor):
        return tensor(x1, dtype=tc.result_type(x2, x1)), x2
    return x1, x2


def _binary(function: Callable[..., Tensor], name: str, does: str) -> Callable[..., Tensor]:
    def call(x1: Any, x2: Any, /) -> Tensor:
        return function(*paired(x1, x2))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = does
    return call


add = _binary(tc.add, "add", "x1 + x2.")
atan2 = _binary(tc.atan2, "atan2", "The angle of the point (x2, x1), in [-pi, pi].")
bitwise_and = _binary(tc.bitwise_and, "bitwise_and", "x1 & x2.")
bitwise_left_shift = _binary(tc.bitwise_left_shift, "bitwise_left_shift", "x1 << x2.")
bitwise_or = _binary(tc.bitwise_or, "bitwise_or", "x1 | x2.")
bitwise_right_shift = _binary(tc.bitwise_right_shift, "bitwise_right_shift", "x1 >> x2.")
bitwise_xor = _binary(tc.bitwise_xor, "bitwise_xor", "x1 ^ x2.")
copysign = _binary(tc.copysign, "copysign", "x1 with the sign of x2.")
divide = _binary(tc.divide, "divide", "x1 / x2.")
equal = _binary(tc.eq, "equal", "x1 == x2, element by element.")
floor_divide = _binary(tc.floor_divide, "floor_divide", "x1 // x2.")
greater = _binary(tc.gt, "greater", "x1 > x2.")
greater_equal = _binary(tc.ge, "greater_equal", "x1 >= x2.")
hypot = _binary(tc.hypot, "hypot", "sqrt(x1 ** 2 + x2 ** 2) without overflow between.")
less = _binary(tc.lt, "less", "x1 < x2.")
less_equal = _binary(tc.le, "less_equal", "x1 <= x2.")
logaddexp = _binary(tc.logaddexp, "logaddexp", "log(exp(x1) + exp(x2)) without overflow between.")
logical_and = _binary(tc.logical_and, "logical_and", "Whether x1 and x2 are both true.")
logical_or = _binary(tc.logical_or, "logical_or", "Whether x1 or x2 is true.")
logical_xor = _binary(tc.logical_xor, "logical_xor", "Whether one of x1 and x2 is true.")
maximum = _binary(tc.maximum, "maximum", "The larger of x1 and x2; NaN if either is.")
minimum = _binary(tc.minimum, "minimum", "The smaller of x1 and x2; NaN if either is.")
multiply = _binary(tc.multiply, "multiply", "x1 * x2.")
nextafter = _binary(tc.nextafter, "nextafter", "The next number after x1 towards x2.")
not_equal = _binary(tc.ne, "not_equal", "x1 != x2.")
pow = _binary(tc.pow, "pow", "x1 ** x2.")
remainder = _binary(tc.remainder, "remainder", "x1 % x2, with the sign of x2.")
subtract = _binary(tc.subtract, "subtract", "x1 - x2.")


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """x no smaller than min and no larger than max, in x's dtype.

    >>> clip(tc.tensor([1, 5, 9]), 2, 6)
    tensor([2, 5, 6])
    """
    for limit, choose in ((min, tc.maximum), (max, tc.minimum)):
        if limit is not None:
            if not isinstance(limit, Tensor):
                limit = tensor(limit, dtype=x.dtype)
            x = choose(x, limit.to(x.dtype))
    return x.clone() if min is max is None else x


def conj(x: Tensor, /) -> Tensor:
    """The complex conjugate."""
    return tc.conj(x)


def imag(x: Tensor, /) -> Tensor:
    """The imaginary part: zeros of a real array."""
    return tc.imag(x) if x.dtype.is_complex else tc.zeros_like(x)


def sign(x: Tensor, /) -> Tensor:
    """-1, 0, 1 or NaN; of a complex number the one of absolute value 1 in its direction."""
    if x.dtype.is_complex:
        return tc.sgn(x)
    return tc.where(tc.isnan(x), x, tc.sign(x)) if x.dtype.is_floating_point else tc.sign(x)


def round(x: Tensor, /) -> Tensor:
    """The nearest whole number, the even one of two; of a complex number for both parts."""
    if not x.dtype.is_complex:
        return tc.round(x)
    return tc.complex(tc.round(x.real), tc.round(x.imag))
