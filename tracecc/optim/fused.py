"""Eager optimizer steps as one compiled graph: each type of parameter is captured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tracecc.backends import Executable, get_backend
from tracecc.state import thread
from tracecc.tensor import Storage, Tensor
from tracecc.trace import TraceError, read
from tracecc.trace.debug import run_passes
from tracecc.trace.tracer import Tracer
from tracecc_ir.graph import Builder, Graph, Value
from tracecc_ir.graph import Update as Effect
from tracecc_ir.types import TensorType

Options = dict[str, Any]
MOST_STEPS = 32  # different sets of updates that one optimizer may compile


class Update:
    """The fused update of every parameter of one type in one group.

    Attributes:
        graph: whose state is the tensors and numbers of ``slots``.
        slots: for each state, the position of a tensor, or -1 - i for ``numbers[i]``.
        written: the positions of the tensors that it changes.
        numbers: floats of the group, read anew at each step into an array.
    """

    def __init__(self, tracer: Tracer, graph: Graph, slots: list[int], group: Options):
        self.graph, self.slots = graph, slots
        changed = {u.state for u in graph.updates}
        self.written = [i for i, s in zip(slots, graph.state, strict=True) if s.value in changed]
        self.numbers = [
            (s.owner, s.key, np.zeros((), np.float64)) for s in tracer.sources if s.kind == "scalar"
        ]
        self._guards = tracer.guards.each_call
        self._group = group
        self._options = _static(group)

    def prepare(self) -> bool:
        """Reads the group's numbers for a step; whether the update is still valid."""
        if any(check() is not None for check in self._guards):
            return False
        if _static(self._group) != self._options:
            return False
        for owner, key, held in self.numbers:
            value = read(owner, key)
            if type(value) is not float:
                return False
            held[()] = value
        return True


def _static(group: Options) -> list[Any]:
    """What is not read anew at each step; tensors and lists by their identity."""
    plain = (bool, int, str, tuple, type(None))
    return [v if type(v) in plain else id(v) for v in group.values() if type(v) is not float]


def capture(tensors: Sequence[Tensor], group: Options, update: Callable[[], None]) -> Update | None:
    """The update as a fused graph; None if it depends on anything else or cannot be traced.

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
    slots: list[int] = []
    for source in tracer.sources:
        if source.kind == "scalar":
            slots.append(-1 - sum(i < 0 for i in slots))
        elif isinstance(source.owner, Storage) and source.owner in position:
            slots.append(position[source.owner])
        else:
            return None
    return Update(tracer, run_passes(tracer.finish([]))[-1][1], slots, group)


class Step:
    """The updates of one step as one executable."""

    def __init__(self, updates: Sequence[Update]):
        b = Builder("step")
        numbers: dict[int, list[Value]] = {}
        self._places: list[tuple[int, int]] = []  # (job, position) of each array that varies
        self._arrays: list[np.ndarray | None] = []
        for job, u in enumerate(updates):
            known = numbers.setdefault(id(u), [])
            arguments = []
            for slot, (value, label) in zip(u.slots, u.graph.state, strict=True):
                if slot < 0 and -1 - slot < len(known):
                    arguments.append(known[-1 - slot])
                    continue
                arguments.append(b.state(value.type, label, value.name))
                if slot < 0:
                    known.append(arguments[-1])
                    self._arrays.append(u.numbers[-1 - slot][2])
                else:
                    self._places.append((job, slot))
                    self._arrays.append(None)
            copied = b.inline(u.graph, arguments)
            states = dict(zip((s.value for s in u.graph.state), arguments, strict=True))
            b.graph.updates += [
                Effect(states[e.state], v) for e, v in zip(u.graph.updates, copied, strict=True)
            ]
        self._updates = list(updates)  # their ids are this step's key
        self._executable: Executable = get_backend("cpu").compile_graph(b.graph)

    def run(self, jobs: Sequence[Sequence[Tensor]]) -> None:
        places = iter(self._places)
        arrays = []
        for a in self._arrays:
            if a is None:
                job, position = next(places)
                a = jobs[job][position]._storage.array
            arrays.append(a)
        self._executable([], arrays)  # type: ignore[arg-type]
        for u, tensors in zip(self._updates, jobs, strict=True):
            for i in u.written:
                tensors[i]._storage.version += 1


class Record(NamedTuple):
    """What is known of one parameter: its update, and what that is valid for."""

    parameter: Tensor
    state: Options
    update: Update
    types: list[TensorType]


class Updates:
    """The compiled steps of one optimizer."""

    def __init__(self) -> None:
        self._known: dict[Any, Update | None] = {}
        self._records: dict[int, Record] = {}
        self._steps: dict[tuple[int, ...], Step] = {}
        self._ready: dict[int, bool] = {}
        self._jobs: list[tuple[Update, Sequence[Tensor]]] = []

    def begin(self) -> None:
        """A step begins: guards and numbers are looked at again at their first use in it."""
        self._ready.clear()
        self._jobs.clear()

    def take(self, p: Tensor, g: Tensor) -> bool:
        """Whether the update of ``p`` is known and will run at the end of the step."""
        record = self._records.get(id(p))
        if record is None or len(record.state) + 2 != len(record.types):
            return False
        tensors = (p, g, *record.state.values())
        for t, type_ in zip(tensors, record.types, strict=True):
            if not _is_plain(t) or t._type != type_:
                return False
        return self._queue(record.update, tensors)

    def learn(
        self, p: Tensor, g: Tensor, state: Options, group: Options, update: Callable[[], None]
    ) -> bool:
        """Like ``take``, for a parameter whose update is not known; it may have none."""
        tensors = (p, g, *state.values())
        if thread.trace is not None or not all(map(_is_plain, tensors)):
            return False
        types = [t._type for t in tensors]
        key = (id(group), *state, *types)
        found = self._known.get(key)
        if (found is None and key in self._known) or len(self._steps) >= MOST_STEPS:
            return False
        if found is None or not self._is_ready(found):
            found = self._known[key] = capture(tensors, group, update)
        if found is None:
            return False
        self._records[id(p)] = Record(p, state, found, types)
        return self._queue(found, tensors)

    def _queue(self, update: Update, tensors: Sequence[Tensor]) -> bool:
        ready = self._is_ready(update)
        if ready:
            self._jobs.append((update, tensors))
        return ready

    def _is_ready(self, update: Update) -> bool:
        ready = self._ready.get(id(update))
        if ready is None:
            ready = self._ready[id(update)] = update.prepare()
        return ready

    def run(self) -> None:
        """Runs the updates that were taken."""
        if not self._jobs:
            return
        key = tuple([id(u) for u, _ in self._jobs])
        step = self._steps.get(key)
        if step is None:
            step = self._steps[key] = Step([u for u, _ in self._jobs])
        step.run([tensors for _, tensors in self._jobs])
        self._jobs.clear()


def _is_plain(t: Any) -> bool:
    """Whether a tensor is all of its memory, so that its type says all about it."""
    return isinstance(t, Tensor) and not t._chain and t._array is t._storage.array is not None
