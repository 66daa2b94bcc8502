"""Eager optimizer steps as compiled kernels: one graph per type of parameter, captured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracecc.backends import Executable
from tracecc.compile import lower
from tracecc.state import thread
from tracecc.tensor import Storage, Tensor
from tracecc.trace import TraceError, read
from tracecc.trace.tracer import Tracer

State = dict[str, Any]
Group = dict[str, Any]
PARAMETER, GRADIENT = 0, 1  # positions among an update's tensors; its state tensors follow


class Update:
    """The compiled update of every parameter of one type in one group.

    Attributes:
        slots: for each array of the executable: the position of a tensor, or a place in
            ``numbers``, which hold the group's floats, counted from the end (-1 is the first).
        guards: what else the captured update read; each is None while it holds.
    """

    def __init__(
        self,
        executable: Executable,
        slots: list[int],
        written: list[int],
        numbers: list[tuple[Any, Any, np.ndarray]],
        guards: list[Callable[[], str | None]],
    ):
        self.executable, self.slots, self.written = executable, slots, written
        self.numbers, self.guards = numbers, guards

    def prepare(self) -> bool:
        """Reads the group's numbers for a step; whether the update is still valid."""
        if any(check() is not None for check in self.guards):
            return False
        for owner, key, held in self.numbers:
            value = read(owner, key)
            if type(value) is not float:
                return False
            held[()] = value
        return True

    def run(self, tensors: Sequence[Tensor]) -> None:
        arrays: list[Any] = [
            tensors[i]._array if i >= 0 else self.numbers[-1 - i][2] for i in self.slots
        ]
        self.executable([], arrays)
        for i in self.written:
            tensors[i]._storage.version += 1


def capture(tensors: Sequence[Tensor], group: Group, update: Callable[[], None]) -> Update | None:
    """The update as a compiled graph; None if it depends on anything else or cannot be traced.

    Args:
        tensors: the parameter, its gradient and its state.
        group: whose floats are read anew at each step.
        update: one op-by-op update of exactly these tensors.
    """
    tracer = Tracer("update")
    try:
        with tracer.active():
            update()
    except TraceError:
        return None
    position = {t._storage: i for i, t in enumerate(tensors)}
    numbers: list[tuple[Any, Any, np.ndarray]] = []
    slots: list[int] = []
    for source in tracer.sources:
        if source.kind == "scalar":
            numbers.append((source.owner, source.key, np.zeros((), np.float64)))
            slots.append(-len(numbers))
        elif isinstance(source.owner, Storage) and source.owner in position:
            slots.append(position[source.owner])
        else:
            return None
    graph = tracer.finish([])
    changed = {u.state for u in graph.updates}
    written = [i for i, s in zip(slots, graph.state, strict=True) if s.value in changed]
    return Update(lower(graph)[1], slots, written, numbers, tracer.guards.each_call)


class Updates:
    """The compiled updates of one optimizer, by group and types."""

    def __init__(self) -> None:
        self._known: dict[Any, Update | None] = {}
        self._ready: dict[Any, bool] = {}

    def begin(self) -> None:
        """A step begins: guards and numbers are looked at again at their first use in it."""
        self._ready.clear()

    def run(
        self, p: Tensor, g: Tensor, state: State, group: Group, update: Callable[[], None]
    ) -> bool:
        """Whether a compiled update ran; if not, ``update`` is to be called."""
        if thread.trace is not None:
            return False
        tensors = (p, g, *state.values())
        if not all(map(_is_plain, tensors)):
            return False
        key = (id(group), *state, *(t._type for t in tensors))
        ready = self._ready.get(key)
        if ready is None:
            ready = self._ready[key] = self._prepared(key, tensors, group, update)
        if ready:
            found = self._known[key]
            assert found is not None
            found.run(tensors)
        return ready

    def _prepared(
        self, key: Any, tensors: Sequence[Tensor], group: Group, update: Callable[[], None]
    ) -> bool:
        found = self._known.get(key)
        if found is not None and found.prepare():
            return True
        if key in self._known and found is None:
            return False
        found = self._known[key] = capture(tensors, group, update)
        return found is not None and found.prepare()


def _is_plain(t: Any) -> bool:
    """Whether a tensor is all of its memory, so that its type says all about it."""
    if not isinstance(t, Tensor):
        return False
    return not t._chain and t._array is not None and t._array is t._storage.array
