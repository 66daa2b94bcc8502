"""Complex numbers: made of two real ones, taken apart, and read as pairs in the same memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Op, Sample
from tracecc_ir.ops.rules import check_same_dtype, draw
from tracecc_ir.types import COMPLEX, DType, TensorType, f32, f64


def _samples(operands: int, *ends: tuple[int, ...]) -> Callable[..., Iterator[Sample]]:
    def samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
        for shape in ((), (3, 0), (7,), (2, 5)):
            for end in ends or ((),):
                yield Sample(tuple(draw(rng, dtype, *shape, *end) for _ in range(operands)))

    return samples


def _part(x: TensorType) -> TensorType:
    return x.with_dtype(x.dtype.to_real())


real: Op = Op(
    "real",
    "library",
    _part,
    lambda x: x.real,
    (lambda g, y, x: complex(g, g.full(0)),),
    dtypes=COMPLEX,
    samples=_samples(1),
    doc="the real part",
)
imag: Op = Op(
    "imag",
    "library",
    _part,
    lambda x: x.imag,
    (lambda g, y, x: complex(g.full(0), g),),
    dtypes=COMPLEX,
    samples=_samples(1),
    doc="the imaginary part",
)


def _complex_type(x: TensorType, y: TensorType) -> TensorType:
    check_same_dtype("complex", x, y)
    if x.shape != y.shape:
        raise TypeRuleError(f"complex needs parts of one shape, given {x} and {y}")
    return x.with_dtype(x.dtype.to_complex())


def _complex(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    z = np.empty(x.shape, np.result_type(x, np.complex64))
    z.real, z.imag = x, y
    return z


complex: Op = Op(
    "complex",
    "library",
    _complex_type,
    _complex,
    (lambda g, z, x, y: real(g), lambda g, z, x, y: imag(g)),
    dtypes=(f32, f64),
    samples=_samples(2),
    doc="x + iy",
)
conj: Op = Op(
    "conj",
    "library",
    lambda x: x,
    lambda x: np.asarray(np.conj(x)),
    (lambda g, y, x: conj(g),),
    dtypes=COMPLEX,
    samples=_samples(1),
    doc="the complex conjugate",
)


def _pairs_type(x: TensorType) -> TensorType:
    return TensorType(x.dtype.to_real(), (*x.shape, 2))


def _pairs(x: np.ndarray) -> np.ndarray:
    """A view, whatever the strides of ``x``."""
    strides = (*x.strides, x.itemsize // 2)
    return np.lib.stride_tricks.as_strided(x.real, (*x.shape, 2), strides)


view_as_real: Op = Op(
    "view_as_real",
    "movement",
    _pairs_type,
    _pairs,
    (lambda g, y, x: view_as_complex(g),),
    dtypes=COMPLEX,
    samples=_samples(1),
    doc="real and imaginary parts along a new last dimension",
)


def _of_pairs_type(x: TensorType) -> TensorType:
    if not x.shape or x.shape[-1] != 2:
        raise TypeRuleError(f"view_as_complex needs a last dimension of size 2, given {x}")
    return TensorType(x.dtype.to_complex(), x.shape[:-1])


def _of_pairs(x: np.ndarray) -> Any:
    """A view where the pairs lie side by side."""
    if x.strides[-1] != x.itemsize:
        x = np.ascontiguousarray(x)
    return x.view(np.result_type(x, np.complex64))[..., 0]


view_as_complex: Op = Op(
    "view_as_complex",
    "movement",
    _of_pairs_type,
    _of_pairs,
    (lambda g, y, x: view_as_real(g),),
    dtypes=(f32, f64),
    samples=_samples(1, (2,)),
    doc="x[..., 0] + i x[..., 1]",
)
