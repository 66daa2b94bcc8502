"""Tracing: what library code needs to be traceable without retracing.

Under a trace, operations append to a graph instead of computing. The functions here let optimisers
and modules say which Python values may change between calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tracecc.state import thread
from tracecc.trace.errors import TraceError

__all__ = ["TraceError", "is_tracing", "name_state", "nonzero", "scalar", "suspended"]


def is_tracing() -> bool:
    """Whether the running thread is inside a trace."""
    return thread.trace is not None


def read(owner: Any, key: Any) -> Any:
    """``owner[key]`` of a dict or list, else the attribute; ``(key, i)`` is item i of that."""
    if isinstance(key, tuple):
        return read(owner, key[0])[key[1]]
    return owner[key] if isinstance(owner, (dict, list)) else getattr(owner, key)


def scalar(owner: Any, key: Any, label: str = "") -> Any:
    """A number that users may change between calls, such as a learning rate.

    Eager: the number itself. Under a trace a float becomes a weak 0-d tensor, read anew at each
    call, so that a change never retraces; any other value is guarded and its change retraces.

    Args:
        owner: the dict, list or object that holds it.
        key: its key, index or attribute name.
        label: what dumps call it; by default ``key``.
    """
    value = read(owner, key)
    if thread.trace is None:
        return value
    if type(value) is float:
        return thread.trace.scalar(owner, key, label or str(key))
    thread.trace.guards.value(owner, key)
    return value


def nonzero(owner: Any, key: Any) -> bool:
    """Whether the number is not zero, as a Python bool; under a trace only this fact is guarded."""
    if thread.trace is not None:
        thread.trace.guards.nonzero(owner, key)
    return bool(read(owner, key))


def name_state(t: Any, label: str) -> None:
    """Gives a tensor the label that dumps show when a trace captures it."""
    if thread.trace is not None:
        thread.trace.labels[t._storage] = label


@contextmanager
def suspended() -> Iterator[None]:
    """Inside, operations are eager even under a trace: for state that a library creates lazily."""
    before, thread.trace = thread.trace, None
    try:
        yield
    finally:
        thread.trace = before
