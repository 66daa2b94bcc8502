"""The tracer: operations append to a graph; memory that exists already becomes captured state.

Values are immutable, so memory is functionalised: each storage has a current value, an in-place
write replaces it, a view is recomputed from its base's current value, and at the end every
captured storage whose value changed becomes an update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracecc.dispatch import emitter, expr
from tracecc.state import thread
from tracecc.tensor import Storage, Tensor, ViewStep, _new, _setup, wrap_traced
from tracecc.trace import suspended
from tracecc.trace.errors import TraceError
from tracecc.trace.guards import Guards
from tracecc.trace.location import assigned_name, user_location
from tracecc.views import replay, view, write_through
from tracecc_ir.graph import Builder, Graph, Node, State, Update, Value
from tracecc_ir.op import Attrs, Expr, Op
from tracecc_ir.ops import barrier
from tracecc_ir.types import TensorType, f64, type_of_array


@dataclass
class Source:
    """Where the array of a state slot comes from at each call.

    Kinds: ``storage`` (``owner`` is the Storage), ``grad`` (``owner`` is the tensor), ``input``
    (``key`` is the argument's index, its memory is written), ``scalar`` (a float read from
    ``owner`` by ``key``).
    """

    kind: str
    owner: Any = None
    key: Any = None


@dataclass
class Memory:
    """One storage inside the trace: its value now and at the start."""

    value: Value
    type: TensorType
    initial: Value | None = None
    source: Source | None = None
    views: dict[tuple, tuple[Value, Value]] = field(default_factory=dict)


class Tracer:
    """Builds one graph from the operations of one thread.

    Attributes:
        builder: what nodes are appended to.
        sources: one entry per state slot of the graph.
        guards: what the trace relied on.
        labels: names that libraries gave to storages.
        grads: the tensors whose ``grad`` was set, with the value from before.
        arguments: the position of each argument in the call, by the storage that stands for it.
    """

    def __init__(self, name: str):
        self.builder = Builder(name)
        self.memory: dict[Storage, Memory] = {}
        self.sources: list[Source] = []
        self.guards = Guards()
        self.labels: dict[Storage, str] = {}
        self.grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.arguments: dict[Storage, int] = {}
        self._grad_owner: dict[Storage, Tensor] = {}
        self._scalars: dict[tuple[int, Any], Tensor] = {}
        self._kept: list[Any] = []  # keeps ids in the tables above alive

    # Values of tensors.

    def input(self, type: TensorType, name: str) -> Tensor:
        """A new argument of the graph."""
        t = wrap_traced(type)
        value = self.builder.input(type, name)
        self.memory[t._storage] = Memory(value, type, value)
        return t

    def value(self, t: Tensor) -> Value:
        """The current value of a tensor; concrete memory is captured at its first use."""
        memory = self.memory.get(t._storage)
        if memory is None:
            memory = self.capture(t)
        if not t._chain:
            return memory.value
        key = tuple((op.name, tuple(attrs.items())) for op, attrs in t._chain)
        cached = memory.views.get(key)
        if cached is None or cached[0] is not memory.value:
            view = replay(self.builder.expr(memory.value), t._chain).value
            cached = memory.views[key] = (memory.value, view)
        return cached[1]

    def capture(self, t: Tensor) -> Memory:
        """Makes concrete memory a state slot of the graph."""
        storage = t._storage
        array = storage.array
        if array is None:
            raise TraceError(
                f"{user_location()}: a tensor made in another trace that has ended is used here; "
                "return it from the compiled function instead of storing it elsewhere"
            )
        self.guards.tensor(t._base if t._base is not None else t)
        owner = self._grad_owner.get(storage)
        source = Source("storage", storage) if owner is None else Source("grad", owner)
        label = self.labels.get(storage) or ("grad" if owner is not None else "")
        return self._slot(storage, type_of_array(array), source, label)

    def _slot(self, storage: Storage, type: TensorType, source: Source, label: str) -> Memory:
        value = self.builder.state(type, label or f"captured.{len(self.sources)}", _hint(label))
        self.sources.append(source)
        memory = self.memory[storage] = Memory(value, type, value, source)
        return memory

    def scalar(self, owner: Any, key: Any, label: str) -> Tensor:
        """A float that is read anew at each call, as a weak 0-d tensor."""
        found = self._scalars.get((id(owner), key))
        if found is None:
            found = wrap_traced(TensorType(f64, ()))
            found._weak = True
            self._slot(found._storage, found._type, Source("scalar", owner, key), label)
            self._scalars[id(owner), key] = found
            self._kept.append(owner)
        return found

    def origin(self, t: Tensor) -> Callable[[Sequence], np.ndarray] | None:
        """From the arguments of a call to the numbers of ``t``; None if the graph computes them."""
        memory = self.memory.get(t._storage)
        if memory is not None and memory.value is not memory.initial:
            return None
        if t._array is not None:
            return lambda leaves: _viewed(t, ())
        index, chain = self.arguments.get(t._storage), t._chain
        return None if index is None else lambda leaves: _viewed(leaves[index], chain)

    def adopt(self, value: Value) -> Tensor:
        """A tensor whose memory starts out as ``value``."""
        t = wrap_traced(value.type)
        self.memory[t._storage] = Memory(value, value.type)
        return t

    def snapshot(self, t: Tensor) -> Tensor:
        """A tensor that keeps ``t``'s present value whatever is written to ``t`` later."""
        return self.adopt(self.value(t))

    # Operations.

    def emit(
        self, op: Op, inputs: Sequence[Tensor], attrs: Attrs, where: Any = None
    ) -> tuple[Tensor, ...]:
        """Appends one node; ``where`` is the forward line if the node computes a gradient."""
        values = [self.value(t) for t in inputs]
        if where is not None:
            self.builder.loc, name = where._replace(grad=True) if where else None, ""
        else:
            self.builder.loc, name = user_location(), assigned_name()
        return tuple(self.adopt(v) for v in self.builder.emit(op, values, attrs, [name]))

    def location(self) -> Any:
        return user_location()

    def write(self, t: Tensor, result: Tensor) -> Tensor | None:
        """An in-place write; returns the whole base after it if ``t`` is a view."""
        self.value(t)  # captures concrete memory, so that it can become an update
        memory = self.memory[t._storage]
        if not t._chain:
            memory.value = self.value(result)
            return None
        base = t._base if t._base is not None else self._base_of(t._storage, memory)
        updated = write_through(Expr(base, emitter), t._chain, expr(result)).value
        memory.value = self.value(updated)
        return updated

    @staticmethod
    def _base_of(storage: Storage, memory: Memory) -> Tensor:
        base = _new(Tensor)
        _setup(base, storage.array, memory.type, storage)
        return base

    def base(self, t: Tensor) -> Tensor:
        """The tensor over all of ``t``'s memory, with its history if it requires grad."""
        self.value(t)
        if not t._chain:
            return t
        return (
            t._base if t._base is not None else self._base_of(t._storage, self.memory[t._storage])
        )

    @contextmanager
    def apart(self, after: Sequence[Tensor]) -> Iterator[None]:
        """What is emitted inside is computed once ``after`` is there, never taken from before.

        Every value that it reads from outside passes a barrier with ``after``. What it writes to
        memory from outside is forgotten.
        """
        waits = [self.value(t) for t in after]
        nodes = self.builder.graph.nodes
        first = len(nodes)
        before = [(memory, memory.value) for memory in self.memory.values()]
        yield
        for memory, value in before:
            memory.value = value
        emitted = nodes[first:]
        made = {v for node in emitted for v in node.outputs}
        read = [v for v in dict.fromkeys(v for n in emitted for v in n.inputs) if v not in made]
        if not read:
            return
        operands = [*read, *waits]
        wall = Node(barrier, operands, {}, [v.type for v in operands])
        passed = dict(zip(read, wall.outputs, strict=False))
        for node in emitted:
            node.inputs = tuple(passed.get(v, v) for v in node.inputs)
        nodes.insert(first, wall)

    # Gradients of leaves are effects on Python objects; the compiled call repeats them.

    def reads_grad(self, t: Tensor) -> None:
        if id(t) in self.grads or t._array is None:
            return
        self.guards.grad(t)
        if t._grad is not None and t._grad._array is not None:
            self._grad_owner[t._grad._storage] = t

    def writes_grad(self, t: Tensor) -> None:
        if id(t) not in self.grads:
            self.grads[id(t)] = (t, t._grad)

    def restore(self) -> None:
        """Puts every gradient back as it was before the trace."""
        for t, before in self.grads.values():
            t._grad = before

    # The end.

    def finish(self, outputs: Sequence[Value]) -> Graph:
        """The graph with these outputs and an update for every captured storage that changed."""
        graph = self.builder.graph
        graph.outputs = list(outputs)
        graph.updates = [
            Update(m.initial, m.value)
            for m in self.memory.values()
            if m.initial is not None and m.source is not None and m.value is not m.initial
        ]
        for state, value in graph.updates:
            value.name = value.name or state.name
        return graph

    def written_inputs(self) -> list[Storage]:
        """Argument memory that was written in place."""
        return [
            s
            for s, m in self.memory.items()
            if m.initial is not None and m.source is None and m.value is not m.initial
        ]

    def make_state(self, storage: Storage, index: int) -> None:
        """Turns a written argument into a state slot, so that its write is an update."""
        memory = self.memory[storage]
        assert memory.initial is not None
        graph = self.builder.graph
        graph.inputs.remove(memory.initial)
        graph.state.append(State(memory.initial, f"input.{index}"))
        memory.source = Source("input", key=index)
        self.sources.append(memory.source)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Routes the thread's operations here; gradients are restored whatever happens."""
        before, thread.trace = thread.trace, self
        try:
            yield
        finally:
            thread.trace = before
            self.restore()


def _viewed(t: Tensor, chain: Sequence[ViewStep]) -> np.ndarray:
    """The memory of a view of an argument."""
    with suspended():
        t = t.detach()
        for op, attrs in chain:
            t = view(t, op, attrs)
        return t._numpy()


def _hint(label: str) -> str:
    """A readable value name from a state label: ``0.weight`` gives ``weight``."""
    parts = [p for p in label.replace("-", "_").split(".") if p.isidentifier()]
    return parts[-1] if parts else ""
