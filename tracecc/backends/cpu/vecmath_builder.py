"""Straight-line LLVM text from Python expressions: `Value` overloads the operators."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Union

import numpy as np

from tracecc.backends.cpu.target import Target

Operand = Union["Value", int, float]

FLOATS = {"f32": "float", "f64": "double"}
INTS = {
    "i8": "i8",
    "i16": "i16",
    "i32": "i32",
    "i64": "i64",
    "u8": "i8",
    "u16": "i16",
    "u32": "i32",
    "u64": "i64",
    "bool": "i1",
}
_SUFFIX = {"float": "f32", "double": "f64"}


class Function:
    """One function under construction.

    Attributes:
        target: the CPU; decides how `fma` is built.
        calls: the declarations that the module needs besides the library's own functions.
    """

    def __init__(self, target: Target):
        self.target = target
        self.lines: list[str] = []
        self.calls: dict[str, str] = {}
        self.globals: dict[str, str] = {}
        self._count = 0

    def emit(self, text: str, type: str) -> Value:
        """A new value defined by an instruction."""
        name = f"%v{self._count}"
        self._count += 1
        self.lines.append(f"  {name} = {text}")
        return Value(self, name, type)

    def value(self, x: Operand, type: str) -> Value:
        """An operand as a value: Python numbers become constants of the type."""
        return x if isinstance(x, Value) else Value(self, constant(x, type), type)

    def call(self, name: str, type: str, *arguments: Value) -> Value:
        """A call of an LLVM intrinsic, an external function, or a library function `tcc.*`."""
        kinds = ", ".join(a.type for a in arguments)
        if not name.startswith("tcc."):
            self.calls[name] = f"declare {type} @{name}({kinds})"
        values = ", ".join(f"{a.type} {a.name}" for a in arguments)
        return self.emit(f"call {type} @{name}({values})", type)

    def select(self, condition: Value, x: Operand, y: Operand) -> Value:
        kind = next(v.type for v in (x, y) if isinstance(v, Value))
        a, b = self.value(x, kind), self.value(y, kind)
        return self.emit(f"select i1 {condition.name}, {kind} {a.name}, {kind} {b.name}", kind)

    def fma(self, x: Value, y: Operand, z: Operand) -> Value:
        """x * y + z rounded once; without the instruction by double or the C library."""
        a, b = self.value(y, x.type), self.value(z, x.type)
        if x.type == "float" and not self.target.fma:
            return (x.to("double") * a.to("double") + b.to("double")).to("float")
        return self.call(f"llvm.fma.{_SUFFIX[x.type]}", x.type, x, a, b)

    def mad(self, x: Value, y: Operand, z: Operand) -> Value:
        """x * y + z, rounded once or twice, whichever is fast."""
        return self.fma(x, y, z) if self.target.fma else x * y + z

    def ldexp(self, x: Value, n: Value) -> Value:
        """x * 2^n rounded once, any n; only where the target has the instruction."""
        short = n if n.type == "i32" else n.to("i32")
        return self.call(f"llvm.ldexp.{_SUFFIX[x.type]}.i32", x.type, x, short)

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Horner's rule, highest power first."""
        total = self.value(coefficients[0], x.type)
        for c in coefficients[1:]:
            total = self.mad(total, x, c)
        return total


def constant(x: int | float, type: str) -> str:
    """LLVM's spelling of a number: floats are the hexadecimal bits of a double."""
    if type == "i1":
        return "true" if x else "false"
    if type.startswith("i"):
        bits = int(type[1:])
        wrapped = int(x) & ((1 << bits) - 1)
        return str(wrapped - (1 << bits) if wrapped >> (bits - 1) else wrapped)
    number = float(np.float32(x)) if type == "float" else float(x)
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


class Value:
    """An LLVM value with Python's operators; integers compare and divide as signed."""

    def __init__(self, function: Function, name: str, type: str):
        self.function = function
        self.name = name
        self.type = type

    @property
    def is_float(self) -> bool:
        return self.type in ("float", "double")

    @property
    def bits_type(self) -> str:
        return {"float": "i32", "double": "i64"}[self.type]

    def _binary(self, on_float: str, on_int: str, x: Operand, swap: bool = False) -> Value:
        other = self.function.value(x, self.type)
        a, b = (other, self) if swap else (self, other)
        name = on_float if self.is_float else on_int
        return self.function.emit(f"{name} {self.type} {a.name}, {b.name}", self.type)

    def __add__(self, x: Operand) -> Value:
        return self._binary("fadd", "add", x)

    def __sub__(self, x: Operand) -> Value:
        return self._binary("fsub", "sub", x)

    def __rsub__(self, x: Operand) -> Value:
        return self._binary("fsub", "sub", x, swap=True)

    def __mul__(self, x: Operand) -> Value:
        return self._binary("fmul", "mul", x)

    def __truediv__(self, x: Operand) -> Value:
        return self._binary("fdiv", "sdiv", x)

    def __rtruediv__(self, x: Operand) -> Value:
        return self._binary("fdiv", "sdiv", x, swap=True)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Value:
        if self.is_float:
            return self.function.emit(f"fneg {self.type} {self.name}", self.type)
        return 0 - self

    def __and__(self, x: Operand) -> Value:
        return self._binary("", "and", x)

    def __or__(self, x: Operand) -> Value:
        return self._binary("", "or", x)

    def __xor__(self, x: Operand) -> Value:
        return self._binary("", "xor", x)

    def __lshift__(self, x: Operand) -> Value:
        return self._binary("", "shl", x)

    def __rshift__(self, x: Operand) -> Value:
        """The logical shift; see `asr`."""
        return self._binary("", "lshr", x)

    def asr(self, x: Operand) -> Value:
        """The arithmetic shift to the right."""
        return self._binary("", "ashr", x)

    def _compare(self, on_float: str, on_int: str, x: Operand) -> Value:
        other = self.function.value(x, self.type)
        head = f"fcmp {on_float}" if self.is_float else f"icmp {on_int}"
        return self.function.emit(f"{head} {self.type} {self.name}, {other.name}", "i1")

    def lt(self, x: Operand) -> Value:
        return self._compare("olt", "slt", x)

    def le(self, x: Operand) -> Value:
        return self._compare("ole", "sle", x)

    def gt(self, x: Operand) -> Value:
        return self._compare("ogt", "sgt", x)

    def ge(self, x: Operand) -> Value:
        return self._compare("oge", "sge", x)

    def eq(self, x: Operand) -> Value:
        return self._compare("oeq", "eq", x)

    def ne(self, x: Operand) -> Value:
        """Not equal; true for NaN."""
        return self._compare("une", "ne", x)

    def isnan(self) -> Value:
        return self._compare("uno", "", self)

    def bits(self) -> Value:
        """The bits of a float as an integer."""
        kind = self.bits_type
        return self.function.emit(f"bitcast {self.type} {self.name} to {kind}", kind)

    def as_float(self) -> Value:
        """The float whose bits this integer holds."""
        kind = {"i32": "float", "i64": "double"}[self.type]
        return self.function.emit(f"bitcast {self.type} {self.name} to {kind}", kind)

    def to(self, kind: str, unsigned: bool = False) -> Value:
        """Converted to a type: between floats, between integers, or a (small) integer to float."""
        if kind == self.type:
            return self
        if self.is_float:
            name = "fpext" if kind == "double" else "fptrunc"
        elif kind in ("float", "double"):
            name = "uitofp" if unsigned else "sitofp"
        elif int(kind[1:]) < int(self.type[1:]):
            name = "trunc"
        else:
            name = "zext" if unsigned else "sext"
        return self.function.emit(f"{name} {self.type} {self.name} to {kind}", kind)

    def _intrinsic(self, name: str, *rest: Value) -> Value:
        return self.function.call(f"llvm.{name}.{_SUFFIX[self.type]}", self.type, self, *rest)

    def abs(self) -> Value:
        return self._intrinsic("fabs")

    def copysign(self, sign: Value) -> Value:
        return self._intrinsic("copysign", sign)

    def floor(self) -> Value:
        return self._intrinsic("floor")

    def ceil(self) -> Value:
        return self._intrinsic("ceil")

    def trunc(self) -> Value:
        return self._intrinsic("trunc")

    def rint(self) -> Value:
        """To the nearest integer, ties to even."""
        return self._intrinsic("roundeven" if self.function.target.has("sse4.1") else "rint")

    def sqrt(self) -> Value:
        return self._intrinsic("sqrt")
