"""The names that kernel source may use: pointers, arguments, conversions, arithmetic, mathematics.

A kernel is `def name(args, begin, end, scratch)`, four i64. Slots of `args` are read by
`f32_ptr(args, 0)`, `i64_arg(args, 3)` and their kin; pointers are indexed, `p[i]`. bool is stored
as u8, f16 and bf16 as u16 bits. A name has one type in the whole of a kernel. Importing this module
imports Numba; only a compilation does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError

from tracecc.backends.cpu.contexts import Emit, Primitive

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


def _llvm(kind: Any) -> ir.Type:
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
    """Adds a function to the vocabulary; see `Primitive`."""
    VOCABULARY[name] = Primitive(name, arity, result, emit)


def _integer(kind: types.Type) -> types.Type:
    if not isinstance(kind, types.Integer):
        raise TypingError(f"expected an integer, given {kind}")
    return kind


# Slots of `args`.


def _slot(builder: ir.IRBuilder, values: list[ir.Value], kind: ir.Type) -> ir.Value:
    if isinstance(values[1], ir.Constant):
        offset = ir.Constant(_I64, 8 * values[1].constant)
    else:
        offset = builder.mul(values[1], ir.Constant(_I64, 8))
    return builder.load(builder.inttoptr(builder.add(values[0], offset), kind.as_pointer()))


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


# Conversions: `f32(x)`, `i64(x)`, `boolean(x)`. Float to integer truncates; NaN gives 0, what does
# not fit saturates at 32 or 64 bits, and narrower results keep the low bits of the 32-bit one.


def _convert(b: ir.IRBuilder, value: ir.Value, source: types.Type, target: types.Type) -> ir.Value:
    if source == target:
        return value
    to = _llvm(target)
    if target == types.boolean:
        zero = ir.Constant(value.type, 0)
        if isinstance(source, types.Float):
            return b.fcmp_unordered("!=", value, zero)
        return b.icmp_signed("!=", value, zero)
    if isinstance(source, types.Float):
        return _from_float(b, value, target)
    signed = getattr(source, "signed", False)
    if isinstance(target, types.Float):
        return b.sitofp(value, to) if signed else b.uitofp(value, to)
    if to.width == value.type.width:
        return value
    if to.width < value.type.width:
        return b.trunc(value, to)
    return b.sext(value, to) if signed else b.zext(value, to)


def _from_float(b: ir.IRBuilder, value: ir.Value, target: Any) -> ir.Value:
    to = _llvm(target)
    source = "f32" if value.type == ir.FloatType() else "f64"
    if isinstance(target, types.Float):
        return b.fptrunc(value, to) if target.bitwidth == 32 else b.fpext(value, to)
    wide = ir.IntType(max(to.width, 32))
    sign = "s" if target.signed or to.width < 32 else "u"
    whole = _call(b, f"llvm.fpto{sign}i.sat.i{wide.width}.{source}", wide, [value])
    return whole if wide == to else b.trunc(whole, to)


def _conversion(name: str, target: types.Type) -> None:
    _define(name, 1, lambda a: target, lambda b, v, k: _convert(b, v[0], k[0], target))


for _name, _kind in SCALARS.items():
    _conversion(_name, _kind)
_conversion("boolean", types.boolean)
for _name in ("f16", "bf16"):
    _define(
        f"f32_from_{_name}",
        1,
        lambda a: types.float32,
        lambda b, v, k, n=_name: _call(b, f"tcc.from_{n}.f32", ir.FloatType(), v),  # type: ignore
    )
    _define(
        f"{_name}_from_f32",
        1,
        lambda a: types.uint16,
        lambda b, v, k, n=_name: _call(b, f"tcc.to_{n}.f32", ir.IntType(16), v),  # type: ignore
    )


def _pair(b: ir.IRBuilder, v: list[ir.Value], k: list[types.Type]) -> ir.Value:
    """Two numbers of 16 bits as one of 32, the first in its low half."""
    low, high = (b.zext(x, ir.IntType(32)) for x in v)
    return b.or_(low, b.shl(high, ir.Constant(ir.IntType(32), 16)))


_define("pair", 2, lambda low, high: types.uint32, _pair)


# Arithmetic that keeps its operands' type. (Numba's own operators widen small integers to 64 bits.)


def _same(*kinds: types.Type) -> types.Type:
    if any(k != kinds[0] for k in kinds):
        raise TypingError(f"operands must have one type, given {', '.join(map(str, kinds))}")
    return kinds[0]


def _select_type(c: types.Type, x: types.Type, y: types.Type) -> types.Type:
    return _same(x, y)


_define("select", 3, _select_type, lambda b, v, k: b.select(*v))


def _flagged(method: str, flags: tuple[str, ...]) -> Emit:
    return lambda b, v, k: getattr(b, method)(v[0], v[1], flags=flags)


def _binary(name: str, on_float: str, on_int: str) -> None:
    """`name(x, y)` on two scalars of one type; `name_fast` lets LLVM reorder a chain of them."""

    def emit(flags: tuple[str, ...]) -> Emit:
        def build(b: ir.IRBuilder, v: list[ir.Value], k: list[types.Type]) -> ir.Value:
            if isinstance(k[0], types.Float):
                return getattr(b, on_float)(v[0], v[1], flags=flags)
            if k[0] == types.boolean:
                return b.or_(v[0], v[1]) if name == "add" else b.and_(v[0], v[1])
            return getattr(b, on_int)(v[0], v[1])

        return build

    _define(name, 2, _same, emit(("contract",)))
    _define(f"{name}_fast", 2, _same, emit(("contract", "reassoc", "nsz")))


_binary("add", "fadd", "add")
_binary("sub", "fsub", "sub")
_binary("mul", "fmul", "mul")


def _fmax_fast(kind: str) -> Emit:
    """Maximum or minimum in a reduction; NaN may get lost, see `maximum`."""
    sign = ">" if kind == "max" else "<"

    def build(b: ir.IRBuilder, v: list[ir.Value], k: list[types.Type]) -> ir.Value:
        if isinstance(k[0], types.Float):
            test = b.fcmp_ordered(sign, v[0], v[1], flags=("nnan", "nsz"))
            return b.select(test, v[0], v[1], flags=("nnan", "nsz"))
        return b.select(_compare(b, sign, v, k[0]), v[0], v[1])

    return build


def _compare(b: ir.IRBuilder, sign: str, v: list[ir.Value], kind: types.Type) -> ir.Value:
    signed = getattr(kind, "signed", False)
    return (b.icmp_signed if signed else b.icmp_unsigned)(sign, v[0], v[1])


_define("max_fast", 2, _same, _fmax_fast("max"))
_define("min_fast", 2, _same, _fmax_fast("min"))


# Mathematics: `exp(x)` calls `tcc.exp.f32` or `tcc.exp.f64` of vecmath.


def _suffix(kind: types.Type) -> str:
    if kind == types.boolean:
        return "bool"
    if kind not in _NAMES:
        raise TypingError(f"no vector mathematics for {kind}")
    return _NAMES[kind]


def _library(name: str, arity: int, accepts: type[types.Type], returns: types.Type | None) -> None:
    def result(*kinds: types.Type) -> types.Type:
        kind = _same(*kinds)
        if not isinstance(kind, accepts):
            raise TypingError(f"{name} is not defined on {kind}")
        return kind if returns is None else returns

    def emit(b: ir.IRBuilder, v: list[ir.Value], k: list[types.Type]) -> ir.Value:
        kind = k[0] if returns is None else returns
        return _call(b, f"tcc.{name}.{_suffix(k[0])}", _llvm(kind), v)

    _define(name, arity, result, emit)


UNARY = [
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "sigmoid",
    "erf",
    "erfc",
    "erfinv",
    "lgamma",
    "digamma",
    "floor",
    "ceil",
    "trunc",
    "round",
]
ANY_UNARY = ("abs", "sign")
ANY_BINARY = ("maximum", "minimum", "floor_div", "trunc_div", "remainder", "fmod", "pow")

for _name in UNARY:
    _library(_name, 1, types.Float, None)
_library("atan2", 2, types.Float, None)
_library("isfinite", 1, types.Float, types.boolean)
for _name in ANY_UNARY:
    _library(_name, 1, types.Number, None)
for _name in ANY_BINARY:
    _library(_name, 2, types.Type, None)


def _invert(b: ir.IRBuilder, v: list[ir.Value], k: list[types.Type]) -> ir.Value:
    return b.not_(v[0])


_define("bit_not", 1, lambda x: x, _invert)


def _bits(name: str, method: str) -> None:
    _define(name, 2, _same, lambda b, v, k: getattr(b, method)(v[0], v[1]))


for _name, _method in (("bit_and", "and_"), ("bit_or", "or_"), ("bit_xor", "xor")):
    _bits(_name, _method)


def _fma(b: ir.IRBuilder, v: list[ir.Value], k: list[types.Type]) -> ir.Value:
    return _call(b, f"tcc.fma.{_suffix(k[0])}", v[0].type, v)


_define("fma", 3, _same, _fma)
_define(
    "philox",
    3,
    lambda seed, position, index: types.int32,
    lambda b, v, k: _call(b, "tcc.philox.i64", ir.IntType(32), v),
)


def _checked(b: ir.IRBuilder, v: list[ir.Value], k: list[types.Type]) -> ir.Value:
    """An index within a dimension, negative ones from the end; a bad one is reported, giving 0."""
    at, size, error = (_widen(b, x) for x in v)
    zero = ir.Constant(_I64, 0)
    wrapped = b.select(b.icmp_signed("<", at, zero), b.add(at, size), at)
    bad = b.icmp_unsigned(">=", wrapped, size)
    with b.if_then(bad, likely=False):
        b.store(ir.Constant(_I64, 1), b.inttoptr(error, _I64.as_pointer()))
    return b.select(bad, zero, wrapped)


_define("checked", 3, lambda at, size, error: types.int64, _checked)


# Calls by address: kernels and epilogues.


def _calls(name: str, arity: int) -> None:
    def emit(b: ir.IRBuilder, v: list[ir.Value], k: list[types.Type]) -> ir.Value:
        kind = ir.FunctionType(ir.VoidType(), [_I64] * arity)
        b.call(b.inttoptr(v[0], kind.as_pointer()), v[1:])
        return ir.Constant(_I64, 0)

    def result(*kinds: types.Type) -> types.Type:
        return types.int64

    VOCABULARY[name] = Primitive(name, arity + 1, result, emit, widens=True)


_calls("call_kernel", 4)
_calls("call_epilogue", 7)
