"""What a Python function reads from around itself: its variables, and the user code it may call."""

from __future__ import annotations

import dis
import functools
import sysconfig
import types
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

MISSING = object()
_LIBRARIES = ("tracecc", "tracecc_ir", "numpy", "builtins")
_INSTALLED = tuple({sysconfig.get_path(k) for k in ("stdlib", "platstdlib", "purelib", "platlib")})


def is_library(module: str | None) -> bool:
    """Whether a module's objects guard themselves, or do not change."""
    return (module or "").split(".")[0] in _LIBRARIES


def is_users(function: Any) -> bool:
    """Whether a function is the user's own code rather than an installed package's."""
    if not isinstance(function, types.FunctionType) or is_library(function.__module__):
        return False
    return not function.__code__.co_filename.startswith(_INSTALLED)


@lru_cache(maxsize=1024)
def global_names(code: types.CodeType) -> tuple[str, ...]:
    """The globals that a function's code reads, those of its inner functions included."""
    names = {
        str(i.argval)
        for i in dis.get_instructions(code)
        if i.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_CLASSDEREF")
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(global_names(constant))
    return tuple(sorted(names))


def variables(f: types.FunctionType) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each closure variable and global that ``f`` reads: its name and what gives its value now."""
    for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
        yield name, functools.partial(_contents, cell)
    for name in global_names(f.__code__):
        if name in f.__globals__:
            yield name, functools.partial(f.__globals__.get, name, MISSING)


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that is not assigned yet
        return MISSING


def reachable_functions(function: Any) -> list[types.FunctionType]:
    """The user's functions that ``function`` may call, itself first."""
    found: list[types.FunctionType] = []
    stack, seen = [function], set()
    while stack:
        f = stack.pop()
        if id(f) in seen:
            continue
        seen.add(id(f))
        if is_users(f):
            found.append(f)
            stack.extend(get() for _, get in variables(f))
        else:
            stack.extend(_behind(f))
    return found


def _behind(value: Any) -> Iterator[Any]:
    """The functions that calling ``value`` may run."""
    for name in ("__func__", "__self__", "__wrapped__", "func"):
        if callable(value) and name in _attributes(value):
            yield getattr(value, name)
    if hasattr(value, "named_parameters") and not isinstance(value, type):
        for module in value.modules():
            yield from _methods(type(module))
    elif not isinstance(value, types.ModuleType):
        yield from _methods(value if isinstance(value, type) else type(value))


def _attributes(value: Any) -> Any:
    if isinstance(value, types.MethodType):
        return ("__func__", "__self__")
    if isinstance(value, functools.partial):
        return ("func",)
    return getattr(value, "__dict__", ())


def _methods(cls: type) -> Iterator[Any]:
    for base in cls.__mro__:
        if not is_library(base.__module__):
            yield from (f for f in vars(base).values() if isinstance(f, types.FunctionType))
