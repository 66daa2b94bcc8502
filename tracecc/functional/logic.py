"""Comparisons, logical and bitwise functions, and tests for equality."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tracecc.functional.core import (
    check_tensor,
    emit,
    match,
    promoted,
    splat,
    to_dtype,
)
from tracecc.functional.pointwise import abs as _abs
from tracecc.functional.pointwise import add, mul, sub
from tracecc.state import thread
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.op import Op
from tracecc_ir.types import bool_


def _comparison(name: str, op: Op, doc: str) -> Callable[[Any, Any], Tensor]:
    def function(input: Any, other: Any) -> Tensor:
        return emit(op, *match(input, other))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


eq = _comparison("eq", ops.eq, "Where the elements are equal, as bool.")
ne = _comparison("ne", ops.ne, "Where the elements differ, as bool.")
lt = _comparison("lt", ops.lt, "Where input < other, as bool.")
le = _comparison("le", ops.le, "Where input <= other, as bool.")
gt = _comparison("gt", ops.gt, "Where input > other, as bool.")
ge = _comparison("ge", ops.ge, "Where input >= other, as bool.")
not_equal, less, less_equal, greater, greater_equal = ne, lt, le, gt, ge


def _logical(name: str, op: Op, doc: str) -> Callable[[Tensor, Tensor], Tensor]:
    def function(input: Any, other: Any) -> Tensor:
        x, y = (to_dtype(v, bool_) for v in match(input, other))
        return emit(op, x, y)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


logical_and = _logical("logical_and", ops.bit_and, "Where both are nonzero, as bool.")
logical_or = _logical("logical_or", ops.bit_or, "Where at least one is nonzero, as bool.")
logical_xor = _logical("logical_xor", ops.bit_xor, "Where exactly one is nonzero, as bool.")


def logical_not(input: Tensor) -> Tensor:
    """Where the elements are zero, as bool."""
    return emit(ops.bit_not, to_dtype(check_tensor("logical_not", input), bool_))


def _bitwise(name: str, op: Op, doc: str) -> Callable[[Any, Any], Tensor]:
    def function(input: Any, other: Any) -> Tensor:
        dtype = promoted(input, other)
        if dtype.is_inexact:
            raise NotImplementedError(f"{name}() is not defined for {dtype.public}")
        return emit(op, *match(input, other, dtype=dtype))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


bitwise_and = _bitwise("bitwise_and", ops.bit_and, "The bitwise and; logical on bool.")
bitwise_or = _bitwise("bitwise_or", ops.bit_or, "The bitwise or; logical on bool.")
bitwise_xor = _bitwise("bitwise_xor", ops.bit_xor, "The bitwise exclusive or; logical on bool.")
bitwise_left_shift = _bitwise("bitwise_left_shift", ops.shift_left, "input << other.")
bitwise_right_shift = _bitwise("bitwise_right_shift", ops.shift_right, "input >> other.")


def bitwise_not(input: Tensor) -> Tensor:
    """Every bit flipped; logical not on bool."""
    if input.dtype.is_inexact:
        raise TypeError(
            "bitwise_not() (the `~` operator) is defined for integers and bool, "
            f"given {input.dtype.public}"
        )
    return emit(ops.bit_not, input)


def _everywhere(value: bool, like: Tensor) -> Tensor:
    from tracecc.functional.creation import full

    return full(like._type.shape, value, dtype=bool_)


def isnan(input: Tensor) -> Tensor:
    """Where the elements are NaN."""
    return emit(ops.isnan, input) if input.dtype.is_inexact else _everywhere(False, input)


def isfinite(input: Tensor) -> Tensor:
    """Where the elements are neither NaN nor infinite."""
    return emit(ops.isfinite, input) if input.dtype.is_inexact else _everywhere(True, input)


def isinf(input: Tensor) -> Tensor:
    """Where the elements are infinite."""
    if not input.dtype.is_inexact:
        return _everywhere(False, input)
    infinity = splat(math.inf, input._type.shape, input.dtype.to_real())
    return emit(ops.eq, emit(ops.abs, input), infinity)


def isposinf(input: Tensor) -> Tensor:
    """Where the elements are plus infinity."""
    return logical_and(isinf(input), gt(input, 0))


def isneginf(input: Tensor) -> Tensor:
    """Where the elements are minus infinity."""
    return logical_and(isinf(input), lt(input, 0))


def signbit(input: Tensor) -> Tensor:
    """Where the elements are negative; minus zero counts as negative."""
    if input.dtype.kind != "float":
        return lt(input, 0) if input.dtype.is_signed else _everywhere(False, input)
    zero = splat(0, input._type.shape, input.dtype)
    minus = emit(ops.lt, emit(ops.reciprocal, input), zero)
    return emit(ops.select, emit(ops.eq, input, zero), minus, emit(ops.lt, input, zero))


def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Where ``|input - other| <= atol + rtol * |other|``, or both are equal."""
    if input.dtype is not other.dtype:
        raise RuntimeError(
            f"isclose(): expected both tensors of one dtype, given {input.dtype.public} and "
            f"{other.dtype.public}"
        )
    same = eq(input, other)
    if equal_nan and input.dtype.is_inexact:
        same = logical_or(same, logical_and(isnan(input), isnan(other)))
    if input.dtype is bool_:
        return same
    allowed = add(mul(_abs(other), rtol), atol)
    difference = _abs(sub(input, other))
    near = logical_and(le(difference, allowed), isfinite(difference))
    return logical_or(same, near)


def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether `isclose` holds everywhere, as a Python bool.

    Inside a compiled function it is not known yet: it can be returned or given to ``tc.where`` and
    ``tc.cond``; ``if`` raises a TraceError.
    """
    return _everywhere_true(isclose(input, other, rtol, atol, equal_nan))


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and elements, as a Python bool (see `allclose`)."""
    if tuple(input._type.shape) != tuple(other._type.shape):
        return False
    return _everywhere_true(eq(input, other))


def _everywhere_true(t: Tensor) -> Any:
    """A Python bool; under a trace what becomes one when a call returns it."""
    if thread.trace is None:
        return bool(t._numpy().all())
    found = emit(ops.reduce_min, t.detach(), axes=tuple(range(t.ndim)))
    found._weak = True
    return found
