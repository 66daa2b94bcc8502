"""Scalar code: each operation as an expression over the vocabulary of `intrinsics.py`."""

from __future__ import annotations

import math
from typing import Any

from tracecc_ir.types import DType

_OPERATORS = {
    "div": "{0} / {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "isnan": "{0} != {0}",
    "square": "mul({0}, {0})",
}
_ON_BOOL = {"maximum": "bit_or", "minimum": "bit_and", "add": "bit_or", "mul": "bit_and"}
_COMBINE = {
    "reduce_sum": "add_fast",
    "reduce_prod": "mul_fast",
    "reduce_max": "max_fast",
    "reduce_min": "min_fast",
}


def register(dtype: DType) -> str:
    """The conversion to a register value of this dtype; 16-bit floats are f32 in registers."""
    return {"bool": "boolean", "f16": "f32", "bf16": "f32"}.get(dtype.name, dtype.name)


def literal(value: Any, dtype: DType) -> str:
    """A constant with its type spelled out."""
    if dtype.kind != "float":
        return f"{register(dtype)}({int(value)})"
    number = float(value)
    if math.isnan(number):
        text = "1e999 - 1e999"
    elif math.isinf(number):
        text = "1e999" if number > 0 else "-1e999"
    else:
        text = repr(number)
    return f"{register(dtype)}({text})"


def loaded(element: str, dtype: DType) -> str:
    """A memory element as a register value."""
    if dtype.name == "bool":
        return f"boolean({element})"
    return f"f32_from_{dtype.name}({element})" if dtype.name in ("f16", "bf16") else element


def stored(value: str, dtype: DType) -> str:
    """A register value as a memory element."""
    if dtype.name == "bool":
        return f"u8({value})"
    return f"{dtype.name}_from_f32({value})" if dtype.name in ("f16", "bf16") else value


def expression(op: str, args: list[str], source: DType, target: DType) -> str:
    """The result of an elementwise op.

    Args:
        op: its name.
        args: the operands, names of registers.
        source: dtype of the last operand (select's condition comes first).
        target: dtype of the result.
    """
    if op == "cast":
        return _cast(args[0], source, target)
    if source.name == "bool" and op in _ON_BOOL:
        return f"{_ON_BOOL[op]}({args[0]}, {args[1]})"
    if op == "neg":
        zero = register(source)
        return f"-{args[0]}" if source.kind == "float" else f"sub({zero}(0), {args[0]})"
    if op == "reciprocal":
        return f"{register(source)}(1.0) / {args[0]}"
    if op in ("shift_left", "shift_right"):
        sign = "<<" if op == "shift_left" else ">>"
        return f"{register(source)}({args[0]} {sign} {args[1]})"
    if op in _OPERATORS:
        return _OPERATORS[op].format(*args)
    return f"{op}({', '.join(args)})"


def _cast(value: str, source: DType, target: DType) -> str:
    if target.name in ("f16", "bf16"):
        wide = value if register(source) == "f32" else f"f32({value})"
        return f"f32_from_{target.name}({target.name}_from_f32({wide}))"
    if register(source) == register(target):
        return value
    return f"{register(target)}({value})"


def combine(op: str, dtype: DType, accumulator: str, value: str) -> str:
    """One step of a reduction; the order of steps is free."""
    if dtype.name == "bool":
        return f"{'bit_or' if op == 'reduce_max' else 'bit_and'}({accumulator}, {value})"
    return f"{_COMBINE[op]}({accumulator}, {value})"


def neutral(op: str, dtype: DType) -> str:
    """What a reduction starts from."""
    if op in ("reduce_sum", "reduce_prod"):
        return literal(int(op == "reduce_prod"), dtype)
    low = op == "reduce_max"
    if dtype.name == "bool":
        return literal(not low, dtype)
    if dtype.kind == "float":
        return literal(-math.inf if low else math.inf, dtype)
    if not dtype.is_signed:
        return literal(0 if low else 2**dtype.bits - 1, dtype)
    half = 2 ** (dtype.bits - 1)
    return f"{register(dtype)}({-half if low else half - 1})"


def watches_nan(op: str, dtype: DType) -> bool:
    """Whether a reduction must note NaN beside its fast maximum or minimum."""
    return op in ("reduce_max", "reduce_min") and dtype.kind == "float"
