"""Random numbers from Philox bits."""

from __future__ import annotations

import math
from typing import Any

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import NO_GRADIENT, Expr
from tracecc_ir.ops.composite import composite, wide_dtype
from tracecc_ir.ops.elementwise import bit_and, bit_xor, cast, cos, log, shift_right, sqrt
from tracecc_ir.ops.random import philox
from tracecc_ir.types import DType, Shape, TensorType, bf16, f16, f64, i64

SECOND_STREAM = 0x2545F4914F6CDD1D  # the key bits in which a draw's second word differs
MANTISSA = {f16: 11, bf16: 8}


def _draw_type(name: str) -> Any:
    def infer(seed: TensorType, position: TensorType, *, shape: Shape, dtype: DType) -> TensorType:
        if (seed, position) != (TensorType(i64, ()),) * 2:
            raise TypeRuleError(
                f"{name} needs a seed and a position i64[], given {seed}, {position}"
            )
        if dtype.kind != "float":
            raise TypeRuleError(f"{name} draws floats, given dtype {dtype.name}")
        return TensorType(dtype, tuple(shape))

    return infer


def _integers(seed: Expr, position: Expr, shape: Shape, bits: int) -> Any:
    """Uniform integers below 2 ** bits, bits < 32."""
    word = philox(seed, position, shape=shape)
    return bit_and(shift_right(word, word.full(32 - bits)), word.full(2**bits - 1))


def _second(seed: Expr) -> Any:
    return bit_xor(seed, seed.full(SECOND_STREAM))


def _uniform(seed: Expr, position: Expr, shape: Shape, dtype: DType) -> Any:
    if dtype is f64:
        high = cast(_integers(seed, position, shape, 26), dtype=f64)
        low = cast(_integers(_second(seed), position, shape, 27), dtype=f64)
        return (high * 2.0**27 + low) * 2.0**-53
    bits = MANTISSA.get(dtype, 24)
    return cast(_integers(seed, position, shape, bits), dtype=dtype) * 2.0**-bits


def _normal(seed: Expr, position: Expr, shape: Shape, dtype: DType) -> Any:
    """Box and Muller's transform (Annals of Mathematical Statistics, 1958), cosine branch."""
    work = wide_dtype(dtype)
    bits = 31 if work is f64 else 24
    radius = cast(_integers(seed, position, shape, bits), dtype=work) + 1.0
    angle = cast(_integers(_second(seed), position, shape, bits), dtype=work)
    z = sqrt(log(radius * 2.0**-bits) * -2.0) * cos(angle * (2 * math.pi * 2.0**-bits))
    return z if work is dtype else cast(z, dtype=dtype)


uniform = composite(
    "uniform",
    _draw_type("uniform"),
    _uniform,
    NO_GRADIENT,
    dtypes=(i64,),
    doc="uniform numbers in [0, 1)",
)
normal = composite(
    "normal",
    _draw_type("normal"),
    _normal,
    NO_GRADIENT,
    dtypes=(i64,),
    doc="standard normal numbers",
)
