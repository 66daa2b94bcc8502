"""What the type rules, references and samples of the op families share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracecc_ir.dims import Size
from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Attrs, Usual
from tracecc_ir.types import COMPLEX, DTYPES, FLOATS, INTS, DType, TensorType, bool_, i32, i64

ALL = tuple(DTYPES.values())
NUMBERS = INTS + FLOATS
INEXACT = FLOATS + COMPLEX
ARITHMETIC = NUMBERS + COMPLEX
ORDERED = (bool_, *NUMBERS)
BITS = (bool_, *INTS)
HALVES = tuple(d.numpy for d in FLOATS if d.bits == 16)


def check_axis(name: str, x: TensorType, axis: int) -> int:
    """``axis``, if it is a dimension of ``x``; negative axes are for the layers above."""
    if not 0 <= axis < x.ndim:
        raise TypeRuleError(f"{name} of {x} has no axis {axis}; it has {x.ndim} dimensions")
    return axis


def check_axes(name: str, x: TensorType, axes: Sequence[int]) -> tuple[int, ...]:
    for axis in axes:
        check_axis(name, x, axis)
    if len(set(axes)) != len(axes):
        raise TypeRuleError(f"{name} of {x} was given an axis twice: axes={tuple(axes)}")
    return tuple(axes)


def spatial_usuals(rank: Callable[[Sequence[TensorType], Attrs], int]) -> dict[str, Usual]:
    """Stride and dilation 1 and no padding, for sliding windows of ``rank`` dimensions."""

    def each(item: Any) -> Callable[[Sequence[TensorType], TensorType, Attrs], Any]:
        return lambda operands, result, given: (item,) * rank(operands, given)

    return {
        "stride": Usual("1s", each(1)),
        "padding": Usual("0s", each((0, 0))),
        "dilation": Usual("1s", each(1)),
    }


def check_length(name: str, x: TensorType, rank: int, **attributes: Sequence) -> None:
    """Each attribute has one entry for each of ``rank`` dimensions."""
    for key, entries in attributes.items():
        if len(entries) != rank:
            raise TypeRuleError(
                f"{name} of {x} needs {rank} entries in {key}, given {key}={tuple(entries)}"
            )


def check_index(name: str, index: TensorType) -> None:
    if index.dtype not in (i32, i64):
        raise TypeRuleError(f"{name} needs i32 or i64 indices, given {index}")


def check_same_dtype(name: str, x: TensorType, *rest: TensorType) -> None:
    for y in rest:
        if y.dtype is not x.dtype:
            raise TypeRuleError(
                f"{name} needs operands of one dtype, given {x} and {y}; cast first"
            )


def without(sizes: Sequence[Size], axes: Sequence[int]) -> tuple[Size, ...]:
    return tuple(s for i, s in enumerate(sizes) if i not in axes)


def others(rank: int, axes: Sequence[int]) -> tuple[int, ...]:
    """The dimensions of a rank that are not among ``axes``, in order."""
    return tuple(i for i in range(rank) if i not in axes)


def wide(x: np.ndarray) -> np.ndarray:
    """16-bit floats as f32, which is what they are computed in; anything else unchanged."""
    return x.astype(np.float32) if x.dtype in HALVES else x


def narrow(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """``x`` rounded to ``dtype``, quietly where it overflows."""
    with np.errstate(all="ignore"):
        return x.astype(dtype, copy=False)


def draw(rng: np.random.Generator, dtype: DType, *shape: int) -> np.ndarray:
    """Test data: normal floats and complex numbers, small integers, fair coins."""
    if dtype.is_complex:
        parts = rng.standard_normal((2, *shape))
        return np.asarray(parts[0] + 1j * parts[1]).astype(dtype.numpy)
    if dtype.kind == "float":
        return np.asarray(rng.standard_normal(shape)).astype(dtype.numpy)
    if dtype is bool_:
        return np.asarray(rng.integers(0, 2, shape)).astype(np.bool_)
    low = -4 if dtype.is_signed else 0
    return np.asarray(rng.integers(low, low + 9, shape)).astype(dtype.numpy)
