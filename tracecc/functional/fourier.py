"""Discrete Fourier transforms of one and more dimensions, with PyTorch's arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tracecc.functional.complex import conj
from tracecc.functional.core import (
    check_tensor,
    default_dtype,
    emit,
    to_dtype,
    to_float,
    wrap_dim,
)
from tracecc.functional.creation import arange
from tracecc.functional.joining import roll
from tracecc.functional.pointwise import clone, mul
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.types import DType

Sizes = int | Sequence[int] | None
Dims = int | Sequence[int] | None
LAST_TWO = (-2, -1)


# What all have in common: types, sizes, normalisation.


def _number(name: str, input: Tensor, real: bool = False) -> Tensor:
    """The input in single or double precision."""
    x = to_float(check_tensor(name, input))
    if real and x.dtype.is_complex:
        raise RuntimeError(f"{name} expects a real input tensor, but got {x.dtype.public}")
    if x.dtype.bits == 16:
        raise RuntimeError(f"Unsupported dtype {x.dtype.public}: {name} needs float32 or float64")
    return x


def _complex(name: str, input: Tensor) -> Tensor:
    x = _number(name, input)
    return to_dtype(x, x.dtype.to_complex())


def _scaled(x: Tensor, norm: str | None, points: int, forward: bool) -> Tensor:
    """``x`` divided by all, by the square root or by none of the points."""
    if norm not in (None, "backward", "ortho", "forward"):
        raise RuntimeError(f'Invalid normalization mode: "{norm}"')
    if norm == "ortho":
        return mul(x, 1 / math.sqrt(points))
    return mul(x, 1 / points) if forward == (norm == "forward") else x


def _resized(x: Tensor, axis: int, n: int) -> Tensor:
    """Cut, or filled up with zeros, to ``n`` along an axis."""
    size: Any = x._type.shape[axis]
    if n == size:
        return x
    zeros = (0,) * x.ndim
    if n < size:
        limits = tuple(n if i == axis else s for i, s in enumerate(x._type.shape))
        return emit(ops.slice, x, starts=zeros, limits=limits, strides=(1,) * x.ndim)
    more = tuple(n - size if i == axis else 0 for i in range(x.ndim))
    return emit(ops.pad, x, low=zeros, high=more, interior=zeros, value=0)


def _length(n: Any) -> int:
    if n < 1:
        raise RuntimeError(f"Invalid number of data points ({n}) specified")
    return int(n)


def _axis(name: str, x: Tensor, dim: int) -> int:
    if x.ndim == 0:
        raise IndexError(f"{name}: Dimension specified as {dim} but tensor has no dimensions")
    return wrap_dim(dim, x.ndim)


def _plan(x: Tensor, s: Sizes, dim: Dims, name: str) -> tuple[list[int], list[int]]:
    """The dimensions to transform, in the order given, and the number of points of each."""
    shape: Any = x._type.shape
    sizes = [s] if isinstance(s, int) else s
    if dim is not None:
        axes = [wrap_dim(d, x.ndim) for d in ([dim] if isinstance(dim, int) else dim)]
        if len(set(axes)) != len(axes):
            raise RuntimeError("FFT dims must be unique")
    elif sizes is not None:
        if len(sizes) > x.ndim:
            raise RuntimeError(
                f"Got shape with {len(sizes)} values but input tensor only has {x.ndim} dimensions."
            )
        axes = list(range(x.ndim - len(sizes), x.ndim))
    else:
        axes = list(range(x.ndim))
    if sizes is None:
        return axes, [_length(shape[a]) for a in axes]
    if len(sizes) != len(axes):
        raise RuntimeError("When given, dim and shape arguments must have the same length")
    return axes, [shape[a] if n == -1 else _length(n) for a, n in zip(axes, sizes, strict=True)]


def _half_plan(x: Tensor, s: Sizes, dim: Dims, name: str) -> tuple[list[int], list[int]]:
    """The same for transforms whose last dimension holds the frequencies of real numbers."""
    axes, points = _plan(x, s, dim, name)
    if not axes:
        raise RuntimeError(f"{name} must transform at least one axis")
    last = s if isinstance(s, int) or s is None else s[-1]
    if last in (None, -1):
        points[-1] = _length(2 * (x._type.shape[axes[-1]] - 1))  # type: ignore[operator]
    return axes, points


def _transform(x: Tensor, axes: Sequence[int], inverse: bool) -> Tensor:
    return emit(ops.fft, x, axes=tuple(axes), inverse=inverse) if axes else x


# One dimension.


def fft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The discrete Fourier transform along a dimension.

    Args:
        input: real or complex; float32 gives complex64, float64 complex128.
        n: how many points; the input is cut or filled up with zeros.
        dim: the dimension.
        norm: "backward" (the default) divides the inverse by n, "forward" the transform, "ortho"
            both by sqrt(n).

    >>> import tracecc as tc
    >>> tc.fft.fft(tc.tensor([1.0, 0.0, -1.0, 0.0]))
    tensor([0.+0.j, 2.+0.j, 0.+0.j, 2.+0.j])
    """
    return _one("fft", input, n, dim, norm, inverse=False)


def ifft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `fft`."""
    return _one("ifft", input, n, dim, norm, inverse=True)


def _one(name: str, input: Tensor, n: int | None, dim: int, norm: str | None, inverse: bool) -> Any:
    x = _complex(name, input)
    axis = _axis(name, x, dim)
    size: Any = x._type.shape[axis]
    points = _length(size if n is None else n)
    y = _transform(_resized(x, axis, points), (axis,), inverse)
    return _scaled(y, norm, points, not inverse)


def rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The frequencies 0 .. n // 2 of real numbers; the others are their conjugates.

    >>> import tracecc as tc
    >>> tc.fft.rfft(tc.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor([10.+0.j, -2.+2.j, -2.+0.j])
    """
    x = _number("rfft", input, real=True)
    return rfftn(x, None if n is None else (n,), (_axis("rfft", x, dim),), norm)


def irfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `rfft`: ``n`` real numbers, by default 2 * (frequencies - 1)."""
    x = _complex("irfft", input)
    return irfftn(x, None if n is None else (n,), (_axis("irfft", x, dim),), norm)


def hfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """`fft` of ``n`` numbers that are conjugates in time, given by the first n // 2 + 1: real."""
    x = _complex("hfft", input)
    return hfftn(x, None if n is None else (n,), (_axis("hfft", x, dim),), norm)


def ihfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `hfft`."""
    x = _number("ihfft", input, real=True)
    return ihfftn(x, None if n is None else (n,), (_axis("ihfft", x, dim),), norm)


# Several dimensions.


def fftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """`fft` over several dimensions, all by default; ``s`` are the numbers of points."""
    return _several("fftn", input, s, dim, norm, inverse=False)


def ifftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """The inverse of `fftn`."""
    return _several("ifftn", input, s, dim, norm, inverse=True)


def _several(
    name: str, input: Tensor, s: Sizes, dim: Dims, norm: str | None, inverse: bool
) -> Tensor:
    x = _complex(name, input)
    axes, points = _plan(x, s, dim, name)
    for axis, n in zip(axes, points, strict=True):
        x = _resized(x, axis, n)
    return _scaled(_transform(x, axes, inverse), norm, math.prod(points), not inverse)


def rfftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """`fftn` of real numbers; of the last dimension only the frequencies 0 .. n // 2."""
    return _from_real("rfftn", input, s, dim, norm, inverse=False)


def ihfftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """The inverse of `hfftn`."""
    return _from_real("ihfftn", input, s, dim, norm, inverse=True)


def _from_real(
    name: str, input: Tensor, s: Sizes, dim: Dims, norm: str | None, inverse: bool
) -> Tensor:
    x = _number(name, input, real=True)
    axes, points = _plan(x, s, dim, name)
    if not axes:
        raise RuntimeError(f"{name} must transform at least one axis")
    for axis, n in zip(axes, points, strict=True):
        x = _resized(x, axis, n)
    y = emit(ops.rfft, x, axis=axes[-1])
    y = _transform(conj(y) if inverse else y, axes[:-1], inverse)
    return _scaled(y, norm, math.prod(points), not inverse)


def irfftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """The inverse of `rfftn`: real numbers, by default 2 * (frequencies - 1) in the last dim."""
    return _to_real("irfftn", input, s, dim, norm, inverse=True)


def hfftn(input: Tensor, s: Sizes = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """`fftn` of numbers that are conjugates in time, given by the first half: real."""
    return _to_real("hfftn", input, s, dim, norm, inverse=False)


def _to_real(
    name: str, input: Tensor, s: Sizes, dim: Dims, norm: str | None, inverse: bool
) -> Tensor:
    x = _complex(name, input)
    axes, points = _half_plan(x, s, dim, name)
    for axis, n in zip(axes, (*points[:-1], points[-1] // 2 + 1), strict=True):
        x = _resized(x, axis, n)
    x = _transform(x, axes[:-1], inverse)
    y = emit(ops.irfft, x if inverse else conj(x), axis=axes[-1], size=points[-1])
    return _scaled(y, norm, math.prod(points), not inverse)


def fft2(input: Tensor, s: Sizes = None, dim: Dims = LAST_TWO, norm: str | None = None) -> Tensor:
    """`fftn` over two dimensions."""
    return fftn(input, s, dim, norm)


def ifft2(input: Tensor, s: Sizes = None, dim: Dims = LAST_TWO, norm: str | None = None) -> Tensor:
    """`ifftn` over two dimensions."""
    return ifftn(input, s, dim, norm)


def rfft2(input: Tensor, s: Sizes = None, dim: Dims = LAST_TWO, norm: str | None = None) -> Tensor:
    """`rfftn` over two dimensions."""
    return rfftn(input, s, dim, norm)


def irfft2(input: Tensor, s: Sizes = None, dim: Dims = LAST_TWO, norm: str | None = None) -> Tensor:
    """`irfftn` over two dimensions."""
    return irfftn(input, s, dim, norm)


def hfft2(input: Tensor, s: Sizes = None, dim: Dims = LAST_TWO, norm: str | None = None) -> Tensor:
    """`hfftn` over two dimensions."""
    return hfftn(input, s, dim, norm)


def ihfft2(input: Tensor, s: Sizes = None, dim: Dims = LAST_TWO, norm: str | None = None) -> Tensor:
    """`ihfftn` over two dimensions."""
    return ihfftn(input, s, dim, norm)


# Frequencies and shifts.


def fftfreq(
    n: int,
    d: float = 1.0,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
) -> Tensor:
    """The frequency of each of the n results of `fft`, for samples ``d`` apart.

    >>> import tracecc as tc
    >>> tc.fft.fftfreq(5)
    tensor([ 0.0000,  0.2000,  0.4000, -0.4000, -0.2000])
    """
    low = n // 2
    return _frequencies(-low, n - low, n * d, low, dtype, device, requires_grad)


def rfftfreq(
    n: int,
    d: float = 1.0,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
) -> Tensor:
    """The frequency of each of the n // 2 + 1 results of `rfft`, for samples ``d`` apart."""
    return _frequencies(0, n // 2 + 1, n * d, 0, dtype, device, requires_grad)


def _frequencies(
    start: int, end: int, time: float, turn: int, dtype: Any, device: Any, requires_grad: bool
) -> Tensor:
    whole = arange(start, end, dtype=dtype or default_dtype(), device=device)
    found = mul(roll(whole, -turn, 0), 1 / time)
    return found.requires_grad_() if requires_grad else found


def fftshift(input: Tensor, dim: Dims = None) -> Tensor:
    """Moves the frequency 0 to the middle, of all dimensions by default."""
    return _turned(input, dim, lambda n: n // 2)


def ifftshift(input: Tensor, dim: Dims = None) -> Tensor:
    """The inverse of `fftshift`."""
    return _turned(input, dim, lambda n: -(n // 2))


def _turned(input: Tensor, dim: Dims, by: Callable[[Any], Any]) -> Tensor:
    given = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = [wrap_dim(d, input.ndim) for d in given]
    return roll(input, [by(input._type.shape[a]) for a in axes], axes) if axes else clone(input)
