"""Discrete Fourier transforms without normalisation, which is a product with a constant.

Forward is the sum of x[n] exp(-2 pi i k n / N), inverse that of x[k] exp(2 pi i k n / N). They are
linear, and each one's derivative is another of them. NumPy (pocketfft) computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Expr, Op, Sample
from tracecc_ir.ops.constant import iota
from tracecc_ir.ops.elementwise import bit_or, select
from tracecc_ir.ops.rules import check_axes, check_axis, draw
from tracecc_ir.types import COMPLEX, DType, TensorType, f32, f64, i64

Ints = tuple[int, ...]


def _check_points(name: str, x: TensorType, axes: Ints) -> None:
    for axis in axes:
        if x.shape[axis] == 0:
            raise TypeRuleError(f"{name} of {x} needs at least one point along axis {axis}")


def _known(name: str, x: TensorType, axis: int) -> int:
    size = x.shape[axis]
    if not isinstance(size, int):
        raise TypeRuleError(f"{name} of {x} needs a known size of axis {axis}; trace it concrete")
    return size


def _fft_type(x: TensorType, *, axes: Ints, inverse: bool = False) -> TensorType:
    _check_points("fft", x, check_axes("fft", x, axes))
    return x


def _fft(x: np.ndarray, axes: Ints, inverse: bool) -> np.ndarray:
    if inverse:
        return np.asarray(np.fft.ifftn(x, axes=axes, norm="forward"))
    return np.asarray(np.fft.fftn(x, axes=axes))


def _fft_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axes in (((7,), (0,)), ((2, 4, 3), (0, 2)), ((3, 1), (1,))):
        for inverse in (False, True):
            yield Sample((draw(rng, dtype, *shape),), {"axes": axes, "inverse": inverse})


fft: Op = Op(
    "fft",
    "fourier",
    _fft_type,
    _fft,
    (lambda g, y, x, axes, inverse: fft(g, axes=axes, inverse=not inverse),),
    dtypes=COMPLEX,
    samples=_fft_samples,
    doc="the discrete Fourier transform over axes; inverse: with the other sign, not divided",
)


def _twice(x: Expr, axis: int, size: int, factor: float) -> Any:
    """``x`` times ``factor`` at the frequencies that stand for two of ``size`` points."""
    k = iota(like=x, shape=x.shape, axis=axis, dtype=i64)
    alone = k.eq(0)
    if size % 2 == 0:
        alone = bit_or(alone, k.eq(size // 2))
    return select(alone, x, x * factor)


def _rfft_type(x: TensorType, *, axis: int) -> TensorType:
    check_axis("rfft", x, axis)
    _check_points("rfft", x, (axis,))
    half = _known("rfft", x, axis) // 2 + 1
    return TensorType(x.dtype.to_complex(), (*x.shape[:axis], half, *x.shape[axis + 1 :]))


def _samples(half: bool) -> Callable[..., Iterator[Sample]]:
    def samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
        for lead, n, rest in (((), 6, ()), ((), 7, (2,)), ((2,), 4, (3,)), ((3,), 1, ())):
            attrs = {"axis": len(lead), "size": n} if half else {"axis": len(lead)}
            points = n // 2 + 1 if half else n
            yield Sample((draw(rng, dtype, *lead, points, *rest),), attrs)

    return samples


rfft: Op = Op(
    "rfft",
    "fourier",
    _rfft_type,
    lambda x, axis: np.asarray(np.fft.rfft(x, axis=axis)),
    (
        lambda g, y, x, axis: irfft(
            _twice(g, axis, x.shape[axis], 0.5), axis=axis, size=x.shape[axis]
        ),
    ),
    dtypes=(f32, f64),
    samples=_samples(half=False),
    doc="the frequencies 0 .. n // 2 of the transform of real numbers along an axis",
)


def _irfft_type(x: TensorType, *, axis: int, size: int) -> TensorType:
    check_axis("irfft", x, axis)
    if size < 1 or x.shape[axis] != size // 2 + 1:
        raise TypeRuleError(
            f"irfft of {x} to {size} points along axis {axis} needs {size // 2 + 1} frequencies"
        )
    return TensorType(x.dtype.to_real(), (*x.shape[:axis], size, *x.shape[axis + 1 :]))


irfft: Op = Op(
    "irfft",
    "fourier",
    _irfft_type,
    lambda x, axis, size: np.asarray(np.fft.irfft(x, size, axis, norm="forward")),
    (lambda g, y, x, axis, size: _twice(rfft(g, axis=axis), axis, size, 2),),
    dtypes=COMPLEX,
    samples=_samples(half=True),
    doc="the inverse of rfft times size; ignores the imaginary parts of what stands for one point",
)
