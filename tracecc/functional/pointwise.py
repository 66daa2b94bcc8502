"""Elementwise functions of numbers: unary, binary, clamping and choice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tracecc.dispatch import own
from tracecc.functional.core import (
    apply,
    broadcast_shapes,
    check_tensor,
    default_dtype,
    emit,
    is_number,
    lift,
    match,
    number,
    promoted,
    shape_of,
    splat,
    to_dtype,
    to_float,
)
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.op import Op
from tracecc_ir.types import bool_, i64


def unary(name: str, op: Op, doc: str) -> Callable[[Tensor], Tensor]:
    """A function of real numbers; integers are converted to the default float first."""

    def function(input: Tensor) -> Tensor:
        return emit(op, to_float(check_tensor(name, input)))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _kept(name: str, op: Op, doc: str, on_int: bool) -> Callable[[Tensor], Tensor]:
    """A function that keeps integer dtypes; without ``on_int`` it is the identity on them."""

    def function(input: Tensor) -> Tensor:
        kind = check_tensor(name, input)._type.dtype.kind
        if kind == "complex" and name == "sign":
            raise RuntimeError("sign() is not defined for complex tensors; use sgn() instead")
        if kind == "bool" and name != "sign":
            raise RuntimeError(f"{name}() is not defined for bool tensors")
        if kind == "bool" or (kind == "int" and not on_int):
            return clone(input)
        return emit(op, input)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy in memory of its own; gradients flow through it."""
    return own(emit(ops.reshape, input, shape=input._type.shape))


exp = unary("exp", ops.exp, "e to the power of each element.")
exp2 = unary("exp2", ops.exp2, "2 to the power of each element.")
expm1 = unary("expm1", ops.expm1, "exp(x) - 1, accurate near zero.")
log = unary("log", ops.log, "The natural logarithm.")
log2 = unary("log2", ops.log2, "The logarithm to base 2.")
log10 = unary("log10", ops.log10, "The logarithm to base 10.")
log1p = unary("log1p", ops.log1p, "log(1 + x), accurate near zero.")
sqrt = unary("sqrt", ops.sqrt, "The square root; NaN for negative numbers.")
rsqrt = unary("rsqrt", ops.rsqrt, "1 / sqrt(x).")
reciprocal = unary("reciprocal", ops.reciprocal, "1 / x.")
sin = unary("sin", ops.sin, "The sine, of radians.")
cos = unary("cos", ops.cos, "The cosine, of radians.")
tan = unary("tan", ops.tan, "The tangent, of radians.")
asin = unary("asin", ops.asin, "The inverse sine, in radians.")
acos = unary("acos", ops.acos, "The inverse cosine, in radians.")
atan = unary("atan", ops.atan, "The inverse tangent, in radians.")
sinh = unary("sinh", ops.sinh, "The hyperbolic sine.")
cosh = unary("cosh", ops.cosh, "The hyperbolic cosine.")
tanh = unary("tanh", ops.tanh, "The hyperbolic tangent.")
asinh = unary("asinh", ops.asinh, "The inverse hyperbolic sine.")
acosh = unary("acosh", ops.acosh, "The inverse hyperbolic cosine.")
atanh = unary("atanh", ops.atanh, "The inverse hyperbolic tangent.")
sigmoid = unary("sigmoid", ops.sigmoid, "1 / (1 + exp(-x)).")
erf = unary("erf", ops.erf, "The error function.")
erfc = unary("erfc", ops.erfc, "1 - erf(x), accurate for large x.")
erfinv = unary("erfinv", ops.erfinv, "The inverse of the error function, on (-1, 1).")
lgamma = unary("lgamma", ops.lgamma, "log |gamma(x)|.")
digamma = unary("digamma", ops.digamma, "The derivative of lgamma.")

neg = _kept("neg", ops.neg, "The negative of each element.", True)
abs = _kept("abs", ops.abs, "The absolute value.", True)
sign = _kept("sign", ops.sign, "-1, 0 or 1 by the sign of each element.", True)
floor = _kept("floor", ops.floor, "The largest integer that is not larger.", False)
ceil = _kept("ceil", ops.ceil, "The smallest integer that is not smaller.", False)
trunc = _kept("trunc", ops.trunc, "The integer part.", False)
_round = _kept("round", ops.round, "The nearest integer, ties to even.", False)


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Rounds to the nearest multiple of ``10 ** -decimals``, ties to even.

    >>> import tracecc as tc
    >>> tc.round(tc.tensor([0.5, 1.5, -2.7]))
    tensor([ 0.,  2., -3.])
    """
    if decimals == 0 or input._type.dtype.kind != "float":
        return _round(input)
    scale = 10.0 ** math.fabs(decimals)
    if decimals > 0:
        return div(_round(mul(input, scale)), scale)
    return mul(_round(div(input, scale)), scale)


def square(input: Tensor) -> Tensor:
    """x * x."""
    if input._type.dtype is bool_:
        return to_dtype(input, i64)
    return emit(ops.square, input)


def frac(input: Tensor) -> Tensor:
    """The fractional part, with the sign of each element."""
    return sub(input, trunc(input))


def deg2rad(input: Tensor) -> Tensor:
    """Degrees to radians."""
    return mul(input, math.pi / 180)


def rad2deg(input: Tensor) -> Tensor:
    """Radians to degrees."""
    return mul(input, 180 / math.pi)


def positive(input: Tensor) -> Tensor:
    """The tensor itself."""
    if input._type.dtype is bool_:
        raise RuntimeError("positive() is not defined for bool tensors")
    return input


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), with x clamped to [eps, 1 - eps] if ``eps`` is given."""
    x = to_float(input)
    if eps is not None:
        x = clamp(x, eps, 1 - eps)
    return log(div(x, sub(1, x)))


def sinc(input: Tensor) -> Tensor:
    """sin(pi x) / (pi x), 1 at zero."""
    x = mul(to_float(input), math.pi)
    zero = emit(ops.eq, x, splat(0, x._type.shape, x.dtype))
    one = splat(1, x._type.shape, x.dtype)
    safe = emit(ops.select, zero, one, x)
    return emit(ops.select, zero, one, div(sin(safe), safe))


def nan_to_num(
    input: Tensor,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:
    """NaN becomes ``nan`` (0), infinities the largest finite numbers, or what is given."""
    dtype, shape = input._type.dtype, input._type.shape
    if dtype.is_complex:
        parts = (emit(part, input) for part in (ops.real, ops.imag))
        return emit(ops.complex, *(nan_to_num(x, nan, posinf, neginf) for x in parts))
    if dtype.kind != "float":
        return clone(input)
    import ml_dtypes

    largest = float(ml_dtypes.finfo(dtype.numpy).max)
    high = splat(largest if posinf is None else posinf, shape, dtype)
    low = splat(-largest if neginf is None else neginf, shape, dtype)
    x = emit(ops.select, emit(ops.isnan, input), splat(nan or 0.0, shape, dtype), input)
    infinite = splat(math.inf, shape, dtype)
    x = emit(ops.select, emit(ops.eq, input, infinite), high, x)
    return emit(ops.select, emit(ops.eq, input, splat(-math.inf, shape, dtype)), low, x)


# Binary arithmetic.


def _arithmetic(op: Op, input: Any, other: Any, as_float: bool = False) -> Tensor:
    if _alike(input, other) and (not as_float or input._type.dtype.is_inexact):
        return apply(op, (input, other))[0]
    if type(other) is float and _is_float(input):
        return apply(op, (input, splat(other, input._type.shape, input._type.dtype)))[0]
    dtype = promoted(input, other)
    if as_float and not dtype.is_inexact:
        dtype = default_dtype()
    return emit(op, *match(input, other, dtype=dtype))


def _alike(x: Any, y: Any) -> bool:
    """Whether these are tensors of one type, which neither promote nor broadcast."""
    return (
        isinstance(x, Tensor)
        and isinstance(y, Tensor)
        and x._type == y._type
        and not (x._weak or y._weak)
    )


def _is_float(x: Any) -> bool:
    """Whether this is a tensor whose dtype a Python number takes."""
    return isinstance(x, Tensor) and x._type.dtype.is_inexact and not x._weak


def _scaled(other: Any, alpha: Any) -> Any:
    return other if is_number(alpha) and alpha == 1 else mul(other, alpha)


def _check_alpha(name: str, alpha: Any, *xs: Any) -> None:
    if isinstance(alpha, float) and not promoted(*xs).is_inexact:
        raise RuntimeError(
            f"{name}(): for integral input tensors, argument alpha must not be a floating point "
            "number"
        )


def add(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """``input + alpha * other``.

    >>> import tracecc as tc
    >>> tc.add(tc.tensor([1, 2]), 0.5)
    tensor([1.5000, 2.5000])
    """
    _check_alpha("add", alpha, input, other)
    return _arithmetic(ops.add, input, _scaled(other, alpha))


def sub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """``input - alpha * other``."""
    if any(isinstance(x, Tensor) and x.dtype is bool_ for x in (input, other)):
        if promoted(input, other) is bool_:
            raise RuntimeError(
                "Subtraction, the `-` operator, with two bool tensors is not supported; "
                "use the `^` or `logical_xor()` operator instead"
            )
        if isinstance(input, Tensor) != isinstance(other, Tensor):
            raise RuntimeError(
                "Subtraction, the `-` operator, with a bool tensor is not supported; "
                "use the `~` or `logical_not()` operator instead"
            )
    _check_alpha("sub", alpha, input, other)
    return _arithmetic(ops.sub, input, _scaled(other, alpha))


def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """``other - alpha * input``."""
    return sub(other, input, alpha=alpha)


def mul(input: Any, other: Any) -> Tensor:
    """``input * other``."""
    return _arithmetic(ops.mul, input, other)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``: a float, or rounded with ``rounding_mode`` "trunc" or "floor"."""
    if rounding_mode is None:
        return _arithmetic(ops.div, input, other, as_float=True)
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode != "trunc":
        raise RuntimeError(
            f"div expected rounding_mode to be one of None, 'trunc', or 'floor' "
            f"but found '{rounding_mode}'"
        )
    if promoted(input, other).kind == "float":
        return emit(ops.trunc, _arithmetic(ops.div, input, other))
    _check_divisor(other)
    x, y = match(input, other)
    return emit(ops.trunc_div, x, y)


true_divide = divide = div
subtract, multiply, negative, absolute = sub, mul, neg, abs
arccos, arcsin, arctan, arccosh, arcsinh, arctanh = acos, asin, atan, acosh, asinh, atanh
fix = trunc


def _check_divisor(other: Any) -> None:
    if is_number(other) and other == 0:
        raise RuntimeError("ZeroDivisionError: integers can't be divided by 0")


def floor_divide(input: Any, other: Any) -> Tensor:
    """``input / other`` rounded towards minus infinity."""
    if promoted(input, other).kind != "float":
        _check_divisor(other)
    return emit(ops.floor_div, *match(input, other))


def remainder(input: Any, other: Any) -> Tensor:
    """``input - other * floor(input / other)``: the sign of ``other``, as Python's ``%``."""
    if promoted(input, other).kind != "float":
        _check_divisor(other)
    return emit(ops.remainder, *match(input, other))


def fmod(input: Any, other: Any) -> Tensor:
    """``input - other * trunc(input / other)``: the sign of ``input``, as C's fmod."""
    if promoted(input, other).kind != "float":
        _check_divisor(other)
    return emit(ops.fmod, *match(input, other))


_ROOTS = {0.5: ops.sqrt, -1: ops.reciprocal, -0.5: ops.rsqrt}


def pow(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``; small constant exponents become multiplications."""
    if isinstance(input, Tensor) and is_number(exponent):
        exponent = number(exponent)
        dtype = promoted(input, exponent)
        x = to_dtype(input, dtype)
        if not dtype.is_inexact and exponent < 0:
            raise RuntimeError(
                f"Integers to negative integer powers are not allowed, given {exponent}"
            )
        if dtype is not bool_:
            if exponent == 2:
                return emit(ops.square, x)
            if exponent == 1:
                return clone(x)
            if exponent == 3:
                return emit(ops.mul, emit(ops.square, x), x)
            if exponent in _ROOTS and dtype.is_inexact:
                return emit(_ROOTS[exponent], x)
    return emit(ops.pow, *match(input, exponent))


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two elements; NaN if either is NaN."""
    return emit(ops.maximum, *match(input, other))


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two elements; NaN if either is NaN."""
    return emit(ops.minimum, *match(input, other))


def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two elements; NaN only if both are."""
    x, y = match(input, other)
    return _ignoring_nan(x, y, emit(ops.maximum, x, y))


def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two elements; NaN only if both are."""
    x, y = match(input, other)
    return _ignoring_nan(x, y, emit(ops.minimum, x, y))


def _ignoring_nan(x: Tensor, y: Tensor, both: Tensor) -> Tensor:
    if x.dtype.kind != "float":
        return both
    one = emit(ops.select, emit(ops.isnan, y), x, both)
    return emit(ops.select, emit(ops.isnan, x), y, one)


def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle of the vector (other, input), in radians."""
    return _arithmetic(ops.atan2, input, other, as_float=True)


arctan2 = atan2


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(input^2 + other^2), without overflow between; infinite if either is."""
    x, y = match(input, other)
    endless = splat(math.inf, x._type.shape, x.dtype)
    largest = emit(ops.stop_gradient, emit(ops.maximum, emit(ops.abs, x), emit(ops.abs, y)))
    one = splat(1, x._type.shape, x.dtype)
    usual = emit(ops.bit_and, emit(ops.gt, largest, splat(0, x._type.shape, x.dtype)),
                 emit(ops.lt, largest, endless))  # fmt: skip
    scale = emit(ops.select, usual, largest, one)
    length = mul(scale, sqrt(add(square(div(x, scale)), square(div(y, scale)))))
    is_endless = emit(ops.bit_or, *(emit(ops.eq, emit(ops.abs, v), endless) for v in (x, y)))
    return emit(ops.select, is_endless, endless, length)


def xlogy(input: Any, other: Any) -> Tensor:
    """``input * log(other)``, 0 where input is 0 (and other is not NaN)."""
    x, y = (to_float(v) for v in match(input, other))
    zero = splat(0, x._type.shape, x.dtype)
    keep = emit(ops.bit_and, emit(ops.eq, x, zero), emit(ops.eq, y, y))
    one = splat(1, x._type.shape, x.dtype)
    return emit(ops.select, keep, zero, mul(x, log(emit(ops.select, keep, one, y))))


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(input) + exp(other)) without overflow."""
    x, y = match(input, other)
    if x.dtype.is_complex:
        first = emit(ops.ge, *(emit(ops.real, v) for v in (x, y)))
    else:
        first = emit(ops.ge, x, y)
    high, low = emit(ops.select, first, x, y), emit(ops.select, first, y, x)
    # Of two equal infinities the difference would be NaN.
    differ = emit(ops.bit_or, emit(ops.isfinite, high), emit(ops.ne, x, y))
    gap = emit(ops.select, differ, sub(low, high), splat(0, high._type.shape, high.dtype))
    return add(log1p(exp(gap)), high)


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """``input + weight * (end - input)``."""
    if end.dtype is not input.dtype:
        raise RuntimeError(
            f"expected dtype {input.dtype.public} for `end` but got dtype {end.dtype.public}"
        )
    near = add(input, mul(weight, sub(end, input)))
    far = sub(end, mul(sub(end, input), sub(1, weight)))
    if is_number(weight):
        w = number(weight)
        return near if math.hypot(w.real, w.imag) < 0.5 else far
    shape = near._type.shape
    small = emit(ops.lt, *match(abs(weight), 0.5, dtype=weight.dtype.to_real()))
    return emit(ops.select, lift(small, bool_, shape), near, far)


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """``input + value * tensor1 * tensor2``."""
    _check_alpha("addcmul", value, input, tensor1, tensor2)
    return add(input, _scaled(mul(tensor1, tensor2), value))


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Tensor:
    """``input + value * tensor1 / tensor2``."""
    if not promoted(tensor1, tensor2).is_inexact:
        raise RuntimeError(
            "Integer division with addcdiv is no longer supported; use div() and add() instead"
        )
    return add(input, _scaled(div(tensor1, tensor2), value))


# Choice.


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """``input`` where the condition holds, else ``other``; alone, the indices where it holds."""
    if input is None and other is None:
        from tracecc.functional.sorting import nonzero

        return nonzero(condition, as_tuple=True)
    check_tensor("where", condition, "condition")
    if condition.dtype is not bool_:
        if condition.dtype.name != "u8":
            raise RuntimeError(
                f"where expected condition to be a boolean tensor, but got a tensor with dtype "
                f"{condition.dtype.public}"
            )
        condition = to_dtype(condition, bool_)
    dtype = promoted(input, other)
    shape = broadcast_shapes(condition._type.shape, shape_of(input), shape_of(other))
    c = lift(condition, bool_, shape)
    return emit(ops.select, c, lift(input, dtype, shape), lift(other, dtype, shape))


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value`` where the mask is True, else ``input``."""
    if mask.dtype is not bool_:
        raise RuntimeError(
            f"masked_fill_ only supports boolean masks, but got mask with dtype {mask.dtype.public}"
        )
    if isinstance(value, Tensor) and value._type.shape:
        raise RuntimeError(
            "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
            f"{value.ndim} dimension(s)."
        )
    shape = broadcast_shapes(input._type.shape, mask._type.shape)
    x = lift(input, input.dtype, shape)
    return emit(ops.select, lift(mask, bool_, shape), lift(value, input.dtype, shape), x)


def fill(input: Tensor, value: Any) -> Tensor:
    """One number everywhere, of the shape and dtype of ``input``."""
    return masked_fill(input, clone(splat(True, input._type.shape, bool_)), value)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Limits each element to [min, max]; where min > max the result is max.

    >>> import tracecc as tc
    >>> tc.clamp(tc.tensor([-2.0, 0.5, 3.0]), 0, 1)
    tensor([0.0000, 0.5000, 1.0000])
    """
    bounds = [b for b in (min, max) if b is not None]
    if not bounds:
        raise RuntimeError("clamp: At least one of 'min' or 'max' must not be None")
    dtype = promoted(input, *bounds)
    shape = broadcast_shapes(input._type.shape, *map(shape_of, bounds))
    x = lift(input, dtype, shape)
    if min is not None:
        low = lift(min, dtype, shape)
        x = emit(ops.select, _beyond(ops.lt, x, low, min), low, x)
    if max is not None:
        high = lift(max, dtype, shape)
        x = emit(ops.select, _beyond(ops.gt, x, high, max), high, x)
    return x


def _beyond(op: Op, x: Tensor, bound: Tensor, given: Any) -> Tensor:
    """Where the bound applies; a NaN bound always does."""
    beyond = emit(op, x, bound)
    if x.dtype.kind == "float" and (isinstance(given, Tensor) or given != given):
        beyond = emit(ops.bit_or, beyond, emit(ops.isnan, bound))
    return beyond


clip = clamp


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """Each element, or ``min`` if it is smaller."""
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """Each element, or ``max`` if it is larger."""
    return clamp(input, max=max)


def relu(input: Tensor) -> Tensor:
    """max(x, 0), with gradient 0 at 0."""
    if check_tensor("relu", input).dtype.kind == "bool":
        raise RuntimeError("Boolean inputs not supported for relu")
    return emit(ops.relu, input)
