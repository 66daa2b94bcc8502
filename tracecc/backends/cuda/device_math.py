"""The names that kernel text may use, with their NumPy meaning for the simulator.

Types are called to convert (``float32(1)``); ``libdevice`` is NVIDIA's maths library, where a
name's suffix fixes its type, so that nothing is promoted behind the emitter's back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

TYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
CONSTANTS = {"inf": math.inf, "nan": math.nan}
NAMES: dict[str, Any] = {t: getattr(np, t) for t in (*TYPES, "float32", "float64")} | CONSTANTS


def _in_double(f: Callable[..., float], at_pole: float = math.nan) -> Callable:
    def evaluate(*xs: Any) -> float:
        try:
            return f(*map(float, xs))
        except (ValueError, OverflowError):
            return at_pole

    return evaluate


def _erfinv(y: float) -> float:
    """Bisection on erf and erfc, exact to double precision: slow, but nobody else's formula."""
    if not -1 < y < 1:
        return math.copysign(math.inf, y) if abs(y) == 1 else math.nan
    low, high = 0.0, 6.5
    for _ in range(90):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < abs(y) else (low, middle)
    return math.copysign(low, y)


# One meaning for both precisions; the name in libdevice is this, with an f for float32.
_FUNCTIONS: dict[str, Callable] = {
    "fabs": np.abs,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "rint": np.rint,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: type(x)(1) / np.sqrt(x),
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": _in_double(math.erf),
    "erfc": _in_double(math.erfc),
    "erfinv": _erfinv,
    "lgamma": _in_double(math.lgamma, math.inf),
    "pow": np.power,
    "fmod": np.fmod,
    "atan2": np.arctan2,
    "fma": lambda x, y, z: np.float64(x) * np.float64(y) + np.float64(z),
}

# Conversions and reinterpretations: argument type, result type, meaning.
_CONVERSIONS: dict[str, tuple[type, type, Callable]] = {
    "int_as_float": (np.int32, np.float32, lambda x: x.view(np.float32)),
    "float_as_int": (np.float32, np.int32, lambda x: x.view(np.int32)),
    "half2float": (np.uint16, np.float32, lambda x: x.view(np.float16)),
    "float2half_rn": (np.float32, np.uint16, lambda x: x.astype(np.float16).view(np.uint16)),
}


def simulated_functions(fail: Callable[[str], None]) -> dict[str, Any]:
    """``libdevice`` for the simulator; ``fail`` is told of arguments of a wrong type."""

    def typed(name: str, meaning: Callable, given: type, result: type) -> Callable:
        def call(*xs: Any) -> Any:
            for x in xs:
                if type(x) is not given:
                    fail(f"{name} takes {given.__name__}, given {type(x).__name__}: convert it")
            return result(meaning(*xs))

        return call

    functions = {name: typed(name, f, a, b) for name, (a, b, f) in _CONVERSIONS.items()}
    for name, f in _FUNCTIONS.items():
        functions[name] = typed(name, f, np.float64, np.float64)
        functions[name + "f"] = typed(name + "f", f, np.float32, np.float32)
    return {"libdevice": SimpleNamespace(**functions)}
