"""Elementwise ops as kernel text: intermediate results keep their dtype, literals are wrapped.

Half precision computes in f32; booleans are truth values between loads and stores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from tracecc.backends.schedule_index import Unfusable
from tracecc_ir.types import DType, bf16, bool_, f16, f32, f64, u8

COMPUTE = {
    "u8": "uint8",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "f16": "float32",
    "bf16": "float32",
    "f32": "float32",
    "f64": "float64",
}


def compute_type(dtype: DType) -> str:
    """The type of a value of ``dtype`` between load and store; booleans have none."""
    return COMPUTE[dtype.name]


def literal(value: Any, dtype: DType) -> str:
    """A constant, exact in its dtype.

    >>> literal(0.1, f32), literal(math.inf, f32), literal(1, bool_)
    ('float32(0.10000000149011612)', 'float32(inf)', 'True')
    """
    if dtype is bool_:
        return str(bool(value))
    exact = rounded(value, dtype)
    if exact == -(2**63):
        return "int64(-9223372036854775807 - 1)"
    return f"{compute_type(dtype)}({exact!r})"


def rounded(value: Any, dtype: DType) -> Any:
    """The Python number that a constant of this dtype is."""
    exact = np.asarray(value).astype(dtype.numpy).item()
    return float(exact) if dtype.is_floating_point else exact


def load(pointer: str, index: str, dtype: DType) -> str:
    """The expression that reads an element."""
    element = f"{pointer}[{index}]"
    if dtype is bool_:
        return f"{element} != uint8(0)"
    if dtype is f16:
        return f"libdevice.half2float({element})"
    if dtype is bf16:
        return _from_bfloat16(element)
    return element


def store(
    pointer: str, index: str, value: str, dtype: DType, fresh: Callable[[], str]
) -> list[str]:
    """The statements that write an element; ``fresh`` makes names."""
    if dtype is bool_:
        value = f"uint8(1) if {value} else uint8(0)"
    elif dtype is f16:
        value = f"libdevice.float2half_rn({value})"
    elif dtype is bf16:
        before, value = _to_bfloat16(value, fresh())
        return [*before, f"{pointer}[{index}] = {value}"]
    return [f"{pointer}[{index}] = {value}"]


def _from_bfloat16(bits: str) -> str:
    return f"libdevice.int_as_float(int32(uint32(uint32({bits}) << uint32(16))))"


def _to_bfloat16(value: str, b: str) -> tuple[list[str], str]:
    """To nearest, ties to even, on the bits (sm_75 has no instruction for it); NaN stays NaN."""
    before = [
        f"{b} = uint32(libdevice.float_as_int({value}))",
        f"{b}_odd = uint32(uint32({b} >> uint32(16)) & uint32(1))",
        f"{b} = uint32(uint32({b} + uint32(32767)) + {b}_odd)",
    ]
    return before, f"uint16(uint32({b} >> uint32(16))) if {value} == {value} else uint16(32704)"


class Scalar:
    """Renders one op at a time. Operands are names or literals, so repeating them costs nothing."""

    def __init__(self, fresh: Callable[[], str] | None = None):
        numbers = count()
        self.fresh = fresh or (lambda: f"t{next(numbers)}")

    def statements(
        self,
        name: str,
        result: str,
        dtype: DType,
        operands: Sequence[str],
        types: Sequence[DType],
        attrs: Any = None,
    ) -> list[str]:
        """The lines that leave the op's value in ``result``.

        >>> Scalar().statements("mul", "z", f32, ["x", "y"], [f32, f32])
        ['z = float32(x * y)']
        >>> Scalar().statements("exp", "z", f32, ["x"], [f32])
        ['z = libdevice.expf(x)']
        """
        x = types[0]
        if name == "cast":
            return self._cast(result, dtype, operands[0], x)
        if name == "select":
            return [f"{result} = {operands[1]} if {operands[0]} else {operands[2]}"]
        if name == "stop_gradient":
            return [f"{result} = {operands[0]}"]
        if name in COMPARISONS:
            return [f"{result} = {_compare(name, operands, x)}"]
        if x is bool_:
            return [f"{result} = {BOOLEAN[name].format(*operands)}"]
        lines = _FLOAT_BLOCKS.get(name) if x.is_floating_point else _INT_BLOCKS.get(name)
        if lines is not None:
            return self._block(lines, result, x, operands)
        return [f"{result} = {_expression(name, operands, x)}"]

    def _block(
        self, lines: Sequence[str], result: str, dtype: DType, operands: Sequence[str]
    ) -> list[str]:
        """A recipe of several lines, its temporaries renamed apart."""
        temporaries = {
            t: self.fresh() for t in ("p", "q", "r") if any(f"{{{t}}}" in x for x in lines)
        }
        suffix = "f" if compute_type(dtype) == "float32" else ""
        unsigned = "uint64" if dtype.bits == 64 else "uint32"
        names = {"U": unsigned, "z": result, "T": compute_type(dtype), "f": suffix, **temporaries}
        return [line.format(*operands, **names) for line in lines]

    def _cast(self, result: str, to: DType, value: str, source: DType) -> list[str]:
        if to is source:
            return [f"{result} = {value}"]
        if to is bool_:
            return [f"{result} = {value} != {literal(0, source)}"]
        if source is bool_:
            return [f"{result} = {literal(1, to)} if {value} else {literal(0, to)}"]
        if source.is_floating_point and not to.is_floating_point:
            through = "int64" if to.bits == 64 else "int32"
            return [f"{result} = {compute_type(to)}({through}({value}))"]
        if to is bf16:
            number = f"float32({value})"
            if source in (f32, f16):
                number = value
            half, bits = self.fresh(), self.fresh()
            before, rounded = _to_bfloat16(half, bits)
            lines = [f"{half} = {number}", *before, f"{bits}h = {rounded}"]
            return [*lines, f"{result} = {_from_bfloat16(bits + 'h')}"]
        if to is f16:
            number = value if source in (f32, bf16) else f"float32({value})"
            return [f"{result} = libdevice.half2float(libdevice.float2half_rn({number}))"]
        return [f"{result} = {compute_type(to)}({value})"]


def demands(name: str, dtype: DType) -> set[str]:
    """What an op of a dtype needs that a kernel otherwise should not have: see `compiler.lint`."""
    found = {"f64"} if dtype is f64 else set()
    if name in ("sin", "cos", "tan", "digamma"):  # the reduction of huge angles
        found |= {"f64", "local memory"}
    if name in _INT_BLOCKS and name != "pow" and dtype.bits == 64:
        found.add("64-bit division")
    return found


COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_ORDERED_BOOLEAN = {
    "lt": "not {0} and {1}",
    "le": "not {0} or {1}",
    "gt": "{0} and not {1}",
    "ge": "{0} or not {1}",
}


def _compare(name: str, operands: Sequence[str], dtype: DType) -> str:
    if dtype is bool_ and name in _ORDERED_BOOLEAN:
        return _ORDERED_BOOLEAN[name].format(*operands)
    return f"{operands[0]} {COMPARISONS[name]} {operands[1]}"


BOOLEAN = {
    "add": "{0} or {1}",
    "mul": "{0} and {1}",
    "maximum": "{0} or {1}",
    "minimum": "{0} and {1}",
    "bit_and": "{0} and {1}",
    "bit_or": "{0} or {1}",
    "bit_xor": "{0} != {1}",
    "bit_not": "not {0}",
}

# Names that libdevice has under (almost) our own: ours -> NVIDIA's.
LIBRARY = {
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "exp": "exp",
    "exp2": "exp2",
    "expm1": "expm1",
    "log": "log",
    "log2": "log2",
    "log10": "log10",
    "log1p": "log1p",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "asin": "asin",
    "acos": "acos",
    "atan": "atan",
    "sinh": "sinh",
    "cosh": "cosh",
    "tanh": "tanh",
    "asinh": "asinh",
    "acosh": "acosh",
    "atanh": "atanh",
    "erf": "erf",
    "erfc": "erfc",
    "erfinv": "erfinv",
    "lgamma": "lgamma",
    "pow": "pow",
    "fmod": "fmod",
    "atan2": "atan2",
    "abs": "fabs",
    "round": "rint",
}

OPERATORS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "square": "{0} * {0}",
    "reciprocal": "{one} / {0}",
    "bit_and": "{0} & {1}",
    "bit_or": "{0} | {1}",
    "bit_xor": "{0} ^ {1}",
    "bit_not": "~{0}",
    "shift_left": "{0} << {1}",
    "shift_right": "{0} >> {1}",
}

CHOICES = {
    # A comparison with NaN is false, so both pick NaN wherever it is.
    "maximum": "{0} if {0} > {1} or {0} != {0} else {1}",
    "minimum": "{0} if {0} < {1} or {0} != {0} else {1}",
    "sign": "{one} if {0} > {zero} else ({minus_one} if {0} < {zero} else {zero})",
    "isnan": "{0} != {0}",
    "isfinite": "{0} - {0} == {zero}",
}
_INT_CHOICES = {
    "maximum": "{0} if {0} > {1} else {1}",
    "minimum": "{0} if {0} < {1} else {1}",
    "abs": "{T}(-{0}) if {0} < {zero} else {0}",
}


def _expression(name: str, operands: Sequence[str], dtype: DType) -> str:
    kind = compute_type(dtype)
    parts = {"zero": f"{kind}(0)", "one": f"{kind}(1)", "minus_one": f"{kind}(-1)", "T": kind}
    floating = dtype.is_floating_point
    if floating and name in LIBRARY:
        suffix = "f" if kind == "float32" else ""
        return f"libdevice.{LIBRARY[name]}{suffix}({', '.join(operands)})"
    if not floating and name in ("abs", "sign") and dtype is u8:
        return (
            operands[0]
            if name == "abs"
            else f"{kind}(1) if {operands[0]} > {kind}(0) else {kind}(0)"
        )
    choices = CHOICES if floating else CHOICES | _INT_CHOICES
    if name in choices:
        return choices[name].format(*operands, **parts)
    if name not in OPERATORS:
        raise Unfusable(f"{name} of {dtype.name} has no CUDA text")
    return f"{kind}({OPERATORS[name].format(*operands, **parts)})"


# Recipes of several lines: {z} the result, {T} its type, {f} libdevice's suffix, {p} temporaries.
_FLOAT_BLOCKS: dict[str, tuple[str, ...]] = {
    "sigmoid": (
        "{p} = libdevice.exp{f}(-libdevice.fabs{f}({0}))",
        "{q} = {T}({T}(1) / {T}({T}(1) + {p}))",
        "{z} = {q} if {0} >= {T}(0) else {T}({p} * {q})",
    ),
    "remainder": (
        "{z} = libdevice.fmod{f}({0}, {1})",
        "if {z} != {T}(0) and ({1} < {T}(0)) != ({z} < {T}(0)):",
        "    {z} = {T}({z} + {1})",
    ),
    # The quotient that goes with the remainder above, snapped to the nearest integer.
    "floor_div": (
        "{p} = libdevice.fmod{f}({0}, {1})",
        "{q} = {T}({T}({0} - {p}) / {1})",
        "if {p} != {T}(0) and ({1} < {T}(0)) != ({p} < {T}(0)):",
        "    {q} = {T}({q} - {T}(1))",
        "{z} = libdevice.floor{f}({q})",
        "if {T}({q} - {z}) > {T}(0.5):",
        "    {z} = {T}({z} + {T}(1))",
        "if {1} == {T}(0):",
        "    {z} = {T}({0} / {1})",
    ),
    # Recurrence to x >= 10, asymptotic series, reflection (Abramowitz & Stegun 6.3).
    "digamma": (
        "{p} = {T}({T}(1) - {0}) if {0} < {T}(0) else {0}",
        "{q} = {T}(0)",
        "while {p} < {T}(10):",
        "    {q} = {T}({q} - {T}({T}(1) / {p}))",
        "    {p} = {T}({p} + {T}(1))",
        "{r} = {T}({T}(1) / {T}({p} * {p}))",
        "{z} = {T}({T}({q} + libdevice.log{f}({p})) - {T}({T}(0.5) / {p}))",
        "{q} = {T}({T}(1 / 240) - {T}({r} * {T}({T}(1 / 132) - {T}({r} * {T}(691 / 32760)))))",
        "{q} = {T}({T}(1 / 120) - {T}({r} * {T}({T}(1 / 252) - {T}({r} * {q}))))",
        "{z} = {T}({z} - {T}({r} * {T}({T}(1 / 12) - {T}({r} * {q}))))",
        "if {0} < {T}(0):",
        f"    {{q}} = libdevice.tan{{f}}({{T}}({{T}}({math.pi!r}) * {{0}}))",
        f"    {{z}} = {{T}}({{z}} - {{T}}({{T}}({math.pi!r}) / {{q}}))",
        "    if libdevice.floor{f}({0}) == {0}:",
        "        {z} = {T}(nan)",
        "if {0} == {T}(0):",
        "    {z} = {T}({T}(-1) / {0})",
    ),
}

# The quotient of magnitudes, rounded to zero: an unsigned division stays as narrow as its operands.
# Division by zero gives 0, as NumPy does.
_QUOTIENT = (
    "{p} = {U}({T}(-{0})) if {0} < {T}(0) else {U}({0})",
    "{q} = {U}({T}(-{1})) if {1} < {T}(0) else {U}({1})",
    "{z} = {T}(0)",
    "{r} = {T}(0)",
    "if {q} != {U}(0):",
    "    {z} = {T}({U}({p} // {q}))",
    "    if ({0} < {T}(0)) != ({1} < {T}(0)):",
    "        {z} = {T}(-{z})",
    "    {r} = {T}({0} - {T}({z} * {1}))",
)
_UNEVEN = "if {r} != {T}(0) and ({0} < {T}(0)) != ({1} < {T}(0)):"
_INT_BLOCKS: dict[str, tuple[str, ...]] = {
    "trunc_div": _QUOTIENT,
    "floor_div": (*_QUOTIENT, _UNEVEN, "    {z} = {T}({z} - {T}(1))"),
    "fmod": (*_QUOTIENT, "{z} = {r}"),
    "remainder": (*_QUOTIENT, "{z} = {r}", _UNEVEN, "    {z} = {T}({z} + {1})"),
    "pow": (
        "{z} = {T}(1)",
        "{p} = {0}",
        "{q} = {1}",
        "while {q} > {T}(0):",
        "    if {T}({q} & {T}(1)) == {T}(1):",
        "        {z} = {T}({z} * {p})",
        "    {p} = {T}({p} * {p})",
        "    {q} = {T}({q} >> {T}(1))",
    ),
}


def philox(result: str, key: Sequence[str], element: str, fresh: Callable[[], str]) -> list[str]:
    """Word 0 of Philox4x32-10 (Salmon et al., 2011): counter = (element, position), key = seed.

    Args:
        key: names of seed and position.
    """
    seed, position = key
    name = fresh()
    a, b, c, d, k, m, p, q = (f"{name}_{x}" for x in "abcdkmpq")
    low, high = "uint64(4294967295)", "uint64(32)"
    words = ((a, b, f"uint64({element})"), (c, d, f"uint64({position})"), (k, m, f"uint64({seed})"))
    lines = []
    for first, second, number in words:
        lines += [
            f"{second} = {number}",
            f"{first} = uint64({second} & {low})",
            f"{second} = uint64({second} >> {high})",
        ]
    return [
        *lines,
        "for _ in range(10):",
        f"    {p} = uint64({a} * uint64({0xD2511F53}))",
        f"    {q} = uint64({c} * uint64({0xCD9E8D57}))",
        f"    {a} = uint64(uint64(uint64({q} >> {high}) ^ {b}) ^ {k})",
        f"    {b} = uint64({q} & {low})",
        f"    {c} = uint64(uint64(uint64({p} >> {high}) ^ {d}) ^ {m})",
        f"    {d} = uint64({p} & {low})",
        f"    {k} = uint64(uint64({k} + uint64({0x9E3779B9})) & {low})",
        f"    {m} = uint64(uint64({m} + uint64({0xBB67AE85})) & {low})",
        f"{result} = int32(uint32({a}))",
    ]
