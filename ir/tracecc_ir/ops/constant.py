"""Primitives without operands: values that are known from their attributes alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tracecc_ir.dims import Dim
from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import NO_GRADIENT, Op, Sample
from tracecc_ir.ops.rules import ALL, NUMBERS, check_axis, narrow
from tracecc_ir.types import DType, Shape, TensorType, bool_


def _constant_type(*, value: complex | Dim, shape: Shape, dtype: DType) -> TensorType:
    if not isinstance(value, (bool, int, float, complex, Dim)):
        raise TypeRuleError(f"constant needs a number, given {value!r}")
    if isinstance(value, complex) and not dtype.is_complex:
        raise TypeRuleError(f"constant of {dtype.name} needs a real number, given {value!r}")
    return TensorType(dtype, tuple(shape))


def _constant(value: complex, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    return np.full(shape, narrow(np.asarray(value), dtype.numpy))


def _constant_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((), (0, 3), (2, 5)):
        yield Sample((), {"value": dtype is bool_ or 3, "shape": shape, "dtype": dtype})


constant: Op = Op(
    "constant",
    "constant",
    _constant_type,
    _constant,
    NO_GRADIENT,
    dtypes=ALL,
    samples=_constant_samples,
    doc="one number everywhere; it may be a symbolic size",
)


def _iota_type(*, shape: Shape, axis: int, dtype: DType) -> TensorType:
    result = TensorType(dtype, tuple(shape))
    check_axis("iota", result, axis)
    if dtype is bool_:
        raise TypeRuleError(f"iota counts, so it needs a number dtype, given {dtype.name}")
    return result


def _iota(shape: tuple[int, ...], axis: int, dtype: DType) -> np.ndarray:
    count = np.arange(shape[axis]).astype(dtype.numpy)
    return np.broadcast_to(count.reshape([-1] + [1] * (len(shape) - axis - 1)), shape)


def _iota_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, axis in (((5,), 0), ((2, 3, 4), 1), ((0,), 0), ((3, 0), 1), ((3, 0), 0)):
        yield Sample((), {"shape": shape, "axis": axis, "dtype": dtype})


iota: Op = Op(
    "iota",
    "constant",
    _iota_type,
    _iota,
    NO_GRADIENT,
    dtypes=NUMBERS,
    samples=_iota_samples,
    doc="0, 1, 2, ... along an axis",
)
