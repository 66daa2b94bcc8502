"""Guards: what a trace read from Python and relied on, checked again before its graph is reused.

Two kinds. Those whose every change bumps the guard epoch (module attributes, tensor flags, rebound
memory, gradients) are checked only when the epoch moved. What the user's code reads from closures,
globals and objects, and optimiser flags, are checked at every call.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from operator import is_not
from typing import Any

from tracecc.tensor import Tensor
from tracecc.trace.fingerprint import fingerprint, held, is_opaque, is_static, same
from tracecc.trace.reachable import MISSING, reachable_functions, variables


class Guards:
    """The conditions under which one graph is valid.

    Each check is a pair of a function that returns None while the condition holds, else one
    phrase that says what changed (shown by ``explain()``).
    """

    def __init__(self) -> None:
        self.each_call: list[Callable[[], str | None]] = []
        self.on_epoch: list[Callable[[], str | None]] = []
        self.on_arguments: list[Callable[[Sequence], str | None]] = []
        self.arguments: Sequence = ()  # of the call that is being traced
        self.described: list[str] = []
        self._seen: set = set()
        self._kept: list[Any] = []  # whose identity checks rely on

    def _first(self, *key: Any) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _add(self, checks: list, description: str, check: Callable[..., str | None]) -> None:
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

    def known(self, t: Tensor, read: Callable[[Sequence], Any], what: str) -> Any:
        """What ``read`` finds in the arguments; other calls must give the same."""
        expected = read(self.arguments)
        if self._first("known", id(t), what):
            self._kept.append(t)

            def check(arguments: Sequence) -> str | None:
                now = read(arguments)
                if now == expected:
                    return None
                return f"{what} changed from {expected!r} to {now!r}"

            self._add(self.on_arguments, f"{what} is {expected!r}", check)
        return expected

    def attribute(self, owner: Any, name: str, value: Any) -> None:
        """A module's attribute stays the same object (or scalar value)."""
        if not self._first("attribute", id(owner), name):
            return
        label = f"{type(owner).__name__}.{name}"

        def check() -> str | None:
            now = getattr(owner, name, MISSING)
            if now is value or (is_static(value) and same(now, value)):
                return None
            return f"{label} changed"

        shown = repr(value) if is_static(value) else type(value).__name__
        self._add(self.on_epoch, f"{label} is {shown}", check)

    def function(self, function: Any) -> None:
        """What a function reads from its closure, its globals and its ``self`` stays the same.

        The user's functions that it may call are followed, so that helpers, methods and the
        ``forward`` of modules are guarded as well.
        """
        owner = getattr(function, "__self__", None)
        if owner is not None:
            self._variable("self", lambda: owner)
        for f in reachable_functions(function):
            for name, get in variables(f):
                scope = id(f.__closure__) if name in f.__code__.co_freevars else id(f.__globals__)
                if self._first("variable", scope, name):
                    self._variable(name, get)

    def _variable(self, name: str, get: Callable[[], Any]) -> None:
        """A variable keeps its value: scalars compare by value, containers and plain objects by
        what they hold, everything else by identity."""
        expected = get()
        if isinstance(expected, types.ModuleType) or expected is MISSING:
            return
        self._kept.append(held(expected))
        check, described = self._comparison(name, get, expected)
        self._add(self.each_call, described, check)

    def _comparison(
        self, name: str, get: Callable[[], Any], expected: Any
    ) -> tuple[Callable[[], str | None], str]:
        changed = f"the variable {name} changed"
        if is_static(expected):

            def by_value() -> str | None:
                return None if same(get(), expected) else changed

            return by_value, f"{name} == {expected!r}"
        if is_opaque(expected):

            def by_identity() -> str | None:
                return None if get() is expected else changed

            return by_identity, f"{name} is the same {type(expected).__name__}"
        if isinstance(expected, list) and all(map(is_opaque, expected)):
            elements = list(expected)

            def by_elements() -> str | None:
                now = get()
                if type(now) is not list or len(now) != len(elements):
                    return changed
                return changed if any(map(is_not, now, elements)) else None

            return by_elements, f"{name} holds the same {len(expected)} elements"
        before = fingerprint(expected)

        def by_contents() -> str | None:
            return None if fingerprint(get()) == before else changed

        return by_contents, f"{name}: the contents of a {type(expected).__name__}"

    def failure(self, epoch_moved: bool) -> str | None:
        """What no longer holds, whatever the arguments are, or None."""
        for check in self.each_call:
            if (why := check()) is not None:
                return why
        if epoch_moved:
            for check in self.on_epoch:
                if (why := check()) is not None:
                    return why
        return None
