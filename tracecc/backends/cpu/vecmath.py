"""Vector mathematics: LLVM functions `tcc.NAME.TYPE`, branch-free so that their loops vectorise.

Error bounds in units in the last place, tested: f32 at most 2, f64 at most 4. Functions without a
float version of their own run in double. `lgamma`, float `fmod`, `remainder` and
`floor_div` call the C library, and integer `pow` loops: loops over these stay scalar.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from tracecc.backends.cpu import vecmath_basic as basic
from tracecc.backends.cpu import vecmath_exp as exponential
from tracecc.backends.cpu import vecmath_special as special
from tracecc.backends.cpu import vecmath_trig as trig
from tracecc.backends.cpu.target import Target
from tracecc.backends.cpu.vecmath_builder import FLOATS, INTS, Function, Value

Build = Callable[..., Value]


def _named(*functions: Build) -> dict[str, Build]:
    return {f.__name__: f for f in functions}


# On f32 and f64 alike.
_BOTH = _named(
    exponential.exp,
    exponential.exp2,
    exponential.log,
    exponential.tanh,
    exponential.sigmoid,
    trig.sin,
    trig.cos,
    special.erf,
    basic.sqrt,
    basic.rsqrt,
    basic.floor,
    basic.ceil,
    basic.trunc,
    basic.round,
    basic.fma,
    basic.isfinite,
)
# On f64; f32 goes through it.
_DOUBLE = _named(
    exponential.expm1,
    exponential.log1p,
    exponential.log2,
    exponential.log10,
    exponential.sinh,
    exponential.cosh,
    exponential.asinh,
    exponential.acosh,
    exponential.atanh,
    exponential.pow,
    trig.tan,
    trig.asin,
    trig.acos,
    trig.atan,
    trig.atan2,
    special.erfc,
    special.erfinv,
    special.lgamma,
    special.digamma,
)
_ARITY = {"pow": 2, "atan2": 2, "fma": 3}
_REFERENCE = re.compile(r'@"?(tcc\.(\w+)\.(\w+))"?\(')
# Loads from constant tables join the group of independent accesses (see frontend.py), if any.
_GROUP = "!llvm.access.group !9000"
_TABLE_LOAD = re.compile(r"^  %\w+ = load .*$", re.MULTILINE)
_DECLARATION = re.compile(r'^declare [^\n]*@"?(?:tcc\.)[^\n]*\n', re.MULTILINE)


def link(text: str, goal: Target) -> str:
    """The module text with the definitions of the `tcc.` functions that it calls."""
    wanted = {m[1] for m in _REFERENCE.finditer(text)}
    if not wanted:
        return text
    definitions: dict[str, str] = {}
    declared: dict[str, str] = {}
    constants: dict[str, str] = {}
    while wanted:
        name = wanted.pop()
        body, calls, tables = _definition(name, goal)
        definitions[name] = body
        declared.update(calls)
        constants.update(tables)
        wanted |= {m[1] for m in _REFERENCE.finditer(body)} - definitions.keys()
    text = _DECLARATION.sub("", text)
    if _GROUP in text:
        definitions = {n: _TABLE_LOAD.sub(rf"\g<0>, {_GROUP}", d) for n, d in definitions.items()}
    missing = [
        d
        for n, d in declared.items()
        if not re.search(rf'^declare .*@"?{re.escape(n)}"?\(', text, re.M)
    ]
    return "\n".join([text, *constants.values(), *missing, *definitions.values(), ""])


def names() -> list[str]:
    """Every function defined on floats."""
    return sorted({*_BOTH, *_DOUBLE, *basic.NUMBER})


@functools.cache
def _definition(full: str, goal: Target) -> tuple[str, dict[str, str], dict[str, str]]:
    """The text of one function, the declarations and the constants that it needs.

    Raises:
        KeyError: there is no such function.
    """
    _, name, kind = full.split(".")
    if name == "pow" and kind in INTS:
        unsigned = kind.startswith("u")
        return basic.integer_power(full, INTS[kind], unsigned), {}, {}
    f = Function(goal)
    parameters, result = _build(f, name, kind)
    signature = ", ".join(f"{p.type} {p.name}" for p in parameters)
    lines = "\n".join(f.lines)
    text = (
        f"define internal {result.type} @{full}({signature}) alwaysinline nounwind {{\n"
        f"{lines}\n  ret {result.type} {result.name}\n}}\n"
    )
    return text, f.calls, f.globals


def _build(f: Function, name: str, kind: str) -> tuple[list[Value], Value]:
    """The parameters and the result of a function under construction."""
    if name in basic.NUMBER:
        type = FLOATS.get(kind) or INTS[kind]
        count = 1 if name in ("abs", "sign") else 2
        parameters = [Value(f, f"%p{n}", type) for n in range(count)]
        return parameters, basic.NUMBER[name](f, *parameters, unsigned=kind.startswith("u"))
    if name in ("from_f16", "from_bf16"):
        parameters = [Value(f, "%p0", "i16")]
        return parameters, getattr(special, name)(f, *parameters)
    if name in ("to_f16", "to_bf16"):
        parameters = [Value(f, "%p0", "float")]
        return parameters, getattr(special, name)(f, *parameters)
    if name == "philox":
        parameters = [Value(f, f"%p{n}", "i64") for n in range(3)]
        return parameters, special.philox(f, *parameters)
    parameters = [Value(f, f"%p{n}", FLOATS[kind]) for n in range(_ARITY.get(name, 1))]
    if name in _BOTH:
        return parameters, _BOTH[name](f, *parameters)
    if kind == "f64":
        return parameters, _DOUBLE[name](f, *parameters)
    if name not in _DOUBLE:
        raise KeyError(name)
    wide = f.call(f"tcc.{name}.f64", "double", *(p.to("double") for p in parameters))
    return parameters, wide.to("float")
