"""Fingerprints: what a Python value looked like at trace time, so that a change is noticed."""

from __future__ import annotations

import types
from typing import Any

from tracecc.tensor import Tensor
from tracecc.trace.reachable import is_library

LARGE = 1000  # containers with more elements are told apart by identity and length alone
DEPTH = 3  # how many containers or objects deep contents are looked at
_SCALARS = (int, float, complex, bool, str, bytes, type(None))


def is_static(value: Any) -> bool:
    """Whether a value is compared by value: a scalar, or a tuple of scalars."""
    if isinstance(value, tuple):
        return all(is_static(v) for v in value)
    return isinstance(value, _SCALARS)


def same(a: Any, b: Any) -> bool:
    """Equality that tells 1 from 1.0 and True, and NaN from nothing but NaN."""
    return type(a) is type(b) and (a == b or (a != a and b != b))


def is_opaque(value: Any) -> bool:
    """Whether only identity matters: tensors, modules, functions and library objects, which report
    their own changes or have none."""
    if isinstance(value, (list, tuple, dict)):
        return len(value) > LARGE
    if isinstance(value, type):
        return is_library(value.__module__)
    if isinstance(value, (Tensor, types.FunctionType, types.ModuleType)):
        return True
    if hasattr(value, "named_parameters") or is_library(type(value).__module__):
        return True
    return not hasattr(value, "__dict__")


def fingerprint(value: Any, depth: int = DEPTH) -> Any:
    """A value equal to itself as long as ``value`` and what it holds stay the same.

    >>> settings = {"rate": 0.1, "sizes": [1, 2]}
    >>> before = fingerprint(settings)
    >>> settings["sizes"].append(3)
    >>> fingerprint(settings) == before
    False
    """
    if isinstance(value, _SCALARS):
        return (type(value), value if value == value else "nan")
    if depth == 0 or is_opaque(value):
        size = len(value) if isinstance(value, (list, tuple, dict)) else 0
        return (id(value), size)
    if isinstance(value, dict):
        items = list(value.items())
        return (dict, tuple((fingerprint(k, 0), fingerprint(v, depth - 1)) for k, v in items))
    if isinstance(value, (list, tuple)):
        return (type(value), tuple(fingerprint(v, depth - 1) for v in value))
    if isinstance(value, type):
        return (id(value), _statics(value))
    return (id(value), fingerprint(vars(value), depth), _statics(type(value)))


def _statics(cls: type) -> tuple:
    """The scalars among the attributes of a user's class."""
    return tuple(
        (name, fingerprint(v))
        for base in cls.__mro__
        if not is_library(base.__module__)
        for name, v in list(vars(base).items())
        if is_static(v) and not name.startswith("__")
    )


def held(value: Any, depth: int = DEPTH) -> list[Any]:
    """Everything whose identity a fingerprint uses: whoever holds it knows they are not reused."""
    found = [value]
    if depth == 0 or isinstance(value, _SCALARS) or is_opaque(value):
        return found
    inner: Any = value
    if isinstance(value, type):
        return found
    if not isinstance(value, (list, tuple, dict)):
        inner = vars(value)
    if isinstance(inner, dict):
        found.extend(inner)
        inner = list(inner.values())
    for v in inner:
        found.extend(held(v, depth - 1))
    return found
