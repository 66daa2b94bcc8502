"""The names that kernel source may use: typed pointers and arguments, conversions, arithmetic, mathematics.

A kernel is `def name(args, begin, end, scratch)`, four i64. Slots of `args` are read by `f32_ptr(args,
0)`, `i64_arg(args, 3)` and their kin; pointers are indexed, `p[i]`. bool is stored as u8, f16 and bf16
as u16 bits. Importing this module imports Numba; only a compilation does.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

Emit = Callable[[ir.IRBuilder, list[ir.Value], list[types.Type]], ir.Value]

SCALARS: dict[str, types.Type] = {
    "f32": types.float32,
    "f64": types.float64,
    "i8": types.int8,
    "i16": types.int16,
    "i32": types.int32,
    "i64": types.int64,
    "u8": types.uint8,
    "u16": types.uint16,
    "u32": types.uint32,
    "u64": types.uint64,
}
_NAMES = {kind: name for name, kind in SCALARS.items()}
_I64 = ir.IntType(64)

# Everything a kernel sees; filled below.
VOCABULARY: dict[str, Any] = {"range": range, "min": min, "max": max, "True": True, "False": False}


def _plain(kind: types.Type) -> types.Type:
    return types.unliteral(kind)


def _llvm(kind: types.Type) -> ir.Type:
    """The type of a scalar in registers."""
    if kind == types.boolean:
        return ir.IntType(1)
    if isinstance(kind, types.Float):
        return ir.FloatType() if kind.bitwidth == 32 else ir.DoubleType()
    return ir.IntType(kind.bitwidth)


def _call(
    builder: ir.IRBuilder, name: str, result: ir.Type, values: list[ir.Value]
) -> ir.CallInstr:
    """A call of a function that the module need not have declared yet."""
    function = builder.module.globals.get(name)
    if function is None:
        signature = ir.FunctionType(result, [v.type for v in values])
        function = ir.Function(builder.module, signature, name)
    return builder.call(function, values)


def _define(name: str, arity: int, result: Callable[..., types.Type], emit: Emit) -> None:
    """Adds a function to the vocabulary.

    Args:
        name: what kernels call it.
        arity: the number of parameters.
        result: the result type from the (non-literal) parameter types; raises TypingError.
        emit: builds the value from the builder, values and parameter types.
    """

    def typed(*kinds: types.Type) -> tuple[Any, Any]:
        plain = [_plain(k) for k in kinds]
        signature = result(*plain)(*plain)
        return signature, lambda context, builder, s, values: emit(builder, list(values), plain)

    parameters = ", ".join("abcd"[:arity])
    body = f"def {name}(typing, {parameters}):\n    return typed({parameters})\n"
    namespace: dict[str, Any] = {"typed": typed}
    exec(body, namespace)
    VOCABULARY[name] = intrinsic(namespace[name])


def _integer(kind: types.Type) -> types.Type:
    if not isinstance(kind, types.Integer):
        raise TypingError(f"expected an integer, given {kind}")
    return kind


# Slots of `args`.


def _slot(builder: ir.IRBuilder, values: list[ir.Value], kind: ir.Type) -> ir.Value:
    base = builder.inttoptr(values[0], kind.as_pointer())
    offset = builder.mul(values[1], ir.Constant(values[1].type, 8))
    address = builder.add(builder.ptrtoint(base, _I64), offset)
    return builder.load(builder.inttoptr(address, kind.as_pointer()))


def _slots(name: str, kind: types.Type) -> None:
    data = _llvm(kind)
    pointer = types.CPointer(kind)

    def from_slot(b: ir.IRBuilder, v: list[ir.Value], _: list[types.Type]) -> ir.Value:
        return b.inttoptr(_slot(b, [v[0], _widen(b, v[1])], _I64), data.as_pointer())

    def argument(b: ir.IRBuilder, v: list[ir.Value], _: list[types.Type]) -> ir.Value:
        return _slot(b, [v[0], _widen(b, v[1])], data)

    def at(b: ir.IRBuilder, v: list[ir.Value], _: list[types.Type]) -> ir.Value:
        return b.inttoptr(v[0], data.as_pointer())

    _define(f"{name}_ptr", 2, lambda a, k: pointer, from_slot)
    _define(f"{name}_arg", 2, lambda a, k: kind, argument)
    _define(f"{name}_at", 1, lambda a: pointer, at)


def _widen(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.sext(value, _I64) if value.type.width < 64 else value


for _name, _kind in SCALARS.items():
    _slots(_name, _kind)
VOCABULARY["bool_ptr"] = VOCABULARY["u8_ptr"]
VOCABULARY["f16_ptr"] = VOCABULARY["bf16_ptr"] = VOCABULARY["u16_ptr"]

_define(
    "address",
    1,
    lambda p: types.int64,
    lambda b, v, k: b.ptrtoint(v[0], _I64),
)
_define(
    "offset",
    2,
    lambda p, n: p,
    lambda b, v, k: b.gep(v[0], [_widen(b, v[1])], source_etype=_llvm(k[0].dtype)),
)
