"""Guards: what a trace read from Python and relied on, checked again before its graph is reused.

Two kinds. Those whose every change bumps the guard epoch (module attributes, tensor flags, rebound
memory, gradients) are checked only when the epoch moved. Plain Python values (closures, globals,
optimiser flags) are checked at every call.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

from tracecc.tensor import Tensor

_MISSING = object()
_LIBRARIES = ("tracecc", "tracecc_ir", "numpy", "math")
_SCALARS = (int, float, bool, str, bytes, type(None))


def is_static(value: Any) -> bool:
    """Whether a value is compared by value: a scalar, or a tuple of scalars."""
    if isinstance(value, tuple):
        return all(is_static(v) for v in value)
    return isinstance(value, _SCALARS)


def same(a: Any, b: Any) -> bool:
    """Equality that tells 1 from 1.0 and True, and NaN from nothing but NaN."""
    return type(a) is type(b) and (a == b or (a != a and b != b))


class Guards:
    """The conditions under which one graph is valid.

    Each check is a pair of a function that returns None while the condition holds, else one
    phrase that says what changed (shown by ``explain()``).
    """

    def __init__(self) -> None:
        self.each_call: list[Callable[[], str | None]] = []
        self.on_epoch: list[Callable[[], str | None]] = []
        self.described: list[str] = []
        self._seen: set = set()

    def _first(self, *key: Any) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _add(self, checks: list, description: str, check: Callable[[], str | None]) -> None:
        checks.append(check)
        self.described.append(description)

    def value(self, owner: Any, key: Any) -> None:
        """``owner[key]`` (or the attribute) keeps its value."""
        from tracecc.trace import read

        if not self._first("value", id(owner), key):
            return
        expected = read(owner, key)

        def check() -> str | None:
            now = read(owner, key)
            return None if same(now, expected) else f"{key} changed from {expected!r} to {now!r}"

        self._add(self.each_call, f"{key} == {expected!r}", check)

    def nonzero(self, owner: Any, key: Any) -> None:
        """``owner[key]`` stays zero or stays nonzero."""
        from tracecc.trace import read

        if not self._first("nonzero", id(owner), key):
            return
        expected = bool(read(owner, key))

        def check() -> str | None:
            word = "zero" if expected else "nonzero"
            return None if bool(read(owner, key)) == expected else f"{key} became {word}"

        self._add(self.each_call, f"{key} {'!=' if expected else '=='} 0", check)

    def tensor(self, t: Tensor) -> None:
        """A captured tensor keeps its memory and its requires_grad."""
        if not self._first("tensor", id(t)):
            return
        storage, flag, type_ = t._storage, t._requires_grad, t._type

        def check() -> str | None:
            if t._storage is not storage or t._type != type_:
                return f"a captured tensor ({type_!r}) was given other memory"
            return (
                None if t._requires_grad == flag else "requires_grad of a captured tensor changed"
            )

        self._add(self.on_epoch, f"captured {type_!r}, requires_grad={flag}", check)

    def grad(self, t: Tensor) -> None:
        """The gradient of ``t`` stays None, or stays a tensor of this type."""
        if not self._first("grad", id(t)):
            return
        before = t._grad
        type_ = None if before is None else before._type

        def check() -> str | None:
            now = t._grad
            if (None if now is None else now._type) == type_:
                return None
            return f"the gradient of a tensor {'appeared' if type_ is None else 'was set to None'}"

        self._add(self.on_epoch, f"grad is {type_!r}", check)

    def attribute(self, owner: Any, name: str, value: Any) -> None:
        """A module's attribute stays the same object (or scalar value)."""
        if not self._first("attribute", id(owner), name):
            return
        label = f"{type(owner).__name__}.{name}"

        def check() -> str | None:
            now = getattr(owner, name, _MISSING)
            if now is value or (is_static(value) and same(now, value)):
                return None
            return f"{label} changed"

        shown = repr(value) if is_static(value) else type(value).__name__
        self._add(self.on_epoch, f"{label} is {shown}", check)

    def function(self, function: Any) -> None:
        """The scalars that a Python function reads from its closure and globals keep their values.

        Functions that it refers to are followed, so that helpers are guarded as well.
        """
        for f in reachable_functions(function):
            if not self._first("function", id(f)):
                continue
            for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
                self._cell(name, cell)
            for name in _global_names(f.__code__):
                if name in f.__globals__ and is_static(f.__globals__[name]):
                    self.value(f.__globals__, name)

    def _cell(self, name: str, cell: types.CellType) -> None:
        try:
            expected = cell.cell_contents
        except ValueError:
            return
        static = is_static(expected)
        if not static and not isinstance(expected, Tensor):
            return

        def check() -> str | None:
            now = cell.cell_contents
            if now is expected or (static and same(now, expected)):
                return None
            return f"closure variable {name} changed"

        self._add(
            self.each_call, f"{name} == {expected!r}" if static else f"{name} is a tensor", check
        )

    def failure(self, epoch_moved: bool) -> str | None:
        """What no longer holds, or None."""
        for check in self.each_call:
            if (why := check()) is not None:
                return why
        if epoch_moved:
            for check in self.on_epoch:
                if (why := check()) is not None:
                    return why
        return None


def _global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def reachable_functions(function: Any) -> list[types.FunctionType]:
    """The user's Python functions that ``function`` may call, through closures and globals."""
    found: list[types.FunctionType] = []
    stack, seen = [function], set()
    while stack:
        f = stack.pop()
        f = getattr(f, "__func__", f)
        if not isinstance(f, types.FunctionType) or id(f) in seen:
            continue
        seen.add(id(f))
        if (f.__module__ or "").split(".")[0] in _LIBRARIES:
            continue
        found.append(f)
        stack.extend(_contents(f))
    return found


def _contents(f: types.FunctionType) -> Iterator[Any]:
    for cell in f.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that is not assigned yet
            continue
    for name in _global_names(f.__code__):
        if name in f.__globals__:
            yield f.__globals__[name]
