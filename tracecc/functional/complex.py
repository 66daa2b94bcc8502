"""Complex numbers: made of their parts or in polar form, taken apart, conjugated.

Gradients with respect to complex tensors are dL/dRe(z) + i dL/dIm(z), as in PyTorch, so that going
against them makes a real loss smaller.
"""

from __future__ import annotations

import math

from tracecc.functional.core import (
    check_tensor,
    emit,
    match,
    splat,
    to_float,
    view,
)
from tracecc.functional.logic import eq, isnan, lt
from tracecc.functional.pointwise import atan2, clone, cos, mul, sign, sin, where
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.types import bool_, f32, f64


def complex(real: Tensor, imag: Tensor) -> Tensor:
    """``real + i imag`` of two float32 or float64 tensors, which broadcast.

    >>> import tracecc as tc
    >>> tc.complex(tc.tensor([1.0, 2.0]), tc.tensor([3.0, -4.0]))
    tensor([1.+3.j, 2.-4.j])
    """
    x, y = check_tensor("complex", real, "real"), check_tensor("complex", imag, "imag")
    if x.dtype not in (f32, f64) or y.dtype not in (f32, f64):
        raise RuntimeError(
            "Expected both inputs to be Half, Float or Double tensors but got "
            f"{x.dtype.public} and {y.dtype.public}"
        )
    if x.dtype is not y.dtype:
        raise RuntimeError(
            f"Expected object of scalar type {x.dtype.public} but got scalar type "
            f"{y.dtype.public} for second argument"
        )
    return emit(ops.complex, *match(x, y))


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """``abs * exp(i angle)``, of two float32 or float64 tensors, which broadcast.

    >>> import math, tracecc as tc
    >>> tc.polar(tc.tensor([2.0]), tc.tensor([math.pi / 2])).imag
    tensor([2.])
    """
    check_tensor("polar", abs, "abs"), check_tensor("polar", angle, "angle")
    if abs.dtype is not angle.dtype:
        raise RuntimeError(
            f"Expected object of scalar type {abs.dtype.public} but got scalar type "
            f"{angle.dtype.public} for second argument"
        )
    return complex(mul(abs, cos(angle)), mul(abs, sin(angle)))


def real(input: Tensor) -> Tensor:
    """The real parts, as a view; a real tensor itself."""
    return view(input, ops.real, {}) if check_tensor("real", input).dtype.is_complex else input


def imag(input: Tensor) -> Tensor:
    """The imaginary parts, as a view.

    Raises:
        RuntimeError: the tensor is not complex.
    """
    if not check_tensor("imag", input).dtype.is_complex:
        raise RuntimeError(
            f"imag is only supported for complex tensors, given {input.dtype.public}"
        )
    return view(input, ops.imag, {})


def view_as_real(input: Tensor) -> Tensor:
    """The same memory as real numbers: a last dimension holds real and imaginary part.

    >>> import tracecc as tc
    >>> tc.view_as_real(tc.tensor([1 + 2j]))
    tensor([[1., 2.]])
    """
    if not check_tensor("view_as_real", input).dtype.is_complex:
        raise RuntimeError(
            f"view_as_real is only supported for complex tensors, given {input.dtype.public}"
        )
    return view(input, ops.view_as_real, {})


def view_as_complex(input: Tensor) -> Tensor:
    """The same memory as complex numbers: pairs along the last dimension become one each.

    Raises:
        RuntimeError: not float32 or float64, or the last dimension is not of size 2 and stride 1.
    """
    x = check_tensor("view_as_complex", input)
    if x.dtype not in (f32, f64):
        raise RuntimeError(
            "view_as_complex is only supported for half, float and double tensors, but got a "
            f"tensor of scalar type: {x.dtype.public}"
        )
    if not x._type.shape or x._type.shape[-1] != 2:
        raise RuntimeError(f"Tensor must have a last dimension of size 2, given {list(x.shape)}")
    if x._array is not None:
        if x._array.strides[-1] != x._array.itemsize:
            raise RuntimeError("Tensor must have a last dimension with stride 1")
        if any(s % (2 * x._array.itemsize) for s in x._array.strides[:-1]):
            raise RuntimeError(
                "Tensor must have a stride divisible by 2 for all but last dimension"
            )
    return view(x, ops.view_as_complex, {})


def conj(input: Tensor) -> Tensor:
    """The complex conjugate, computed at once; a real tensor itself."""
    return emit(ops.conj, input) if check_tensor("conj", input).dtype.is_complex else input


def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself: conjugates are computed at once here."""
    return check_tensor("resolve_conj", input)


def resolve_neg(input: Tensor) -> Tensor:
    """The tensor itself: negatives are computed at once here."""
    return check_tensor("resolve_neg", input)


def is_conj(input: Tensor) -> bool:
    """False: conjugates are computed at once here."""
    return False


def isreal(input: Tensor) -> Tensor:
    """Where the imaginary part is zero; everywhere in real tensors."""
    if check_tensor("isreal", input).dtype.is_complex:
        return eq(emit(ops.imag, input), 0)
    return clone(splat(True, input._type.shape, bool_))


def angle(input: Tensor) -> Tensor:
    """The angle in the complex plane; pi for negative real numbers, else 0; NaN for NaN.

    >>> import tracecc as tc
    >>> tc.angle(tc.tensor([1j, -1, 2]))
    tensor([1.5708, 3.1416, 0.0000])
    """
    x = to_float(check_tensor("angle", input))
    if x.dtype.is_complex:
        return atan2(emit(ops.imag, x), emit(ops.real, x))
    turned = where(lt(x, 0), math.pi, splat(0, x._type.shape, x.dtype))
    return where(isnan(x), x, turned)


def sgn(input: Tensor) -> Tensor:
    """``x / |x|``, 0 at 0: `sign` for complex numbers too."""
    if check_tensor("sgn", input).dtype.is_complex:
        return emit(ops.sign, input)
    return sign(input)


def adjoint(input: Tensor) -> Tensor:
    """The conjugate transpose of matrices; of real ones a view."""
    from tracecc.functional.shape import mT

    return conj(mT(check_tensor("adjoint", input)))
