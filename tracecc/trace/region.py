"""Tracing a Python function into a region: a graph inside a control flow op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracecc.pytree import flatten, unflatten
from tracecc.state import no_grad, thread
from tracecc.tensor import Tensor
from tracecc.trace.errors import TraceError
from tracecc.trace.location import user_location
from tracecc.trace.tracer import Memory, Tracer
from tracecc_ir.graph import Builder, Graph, Value
from tracecc_ir.types import TensorType


class RegionTracer(Tracer):
    """Traces into a region; tensors from around it become its free operands."""

    def __init__(self, name: str, outer: Tracer):
        super().__init__(name)
        self.outer = outer
        self.guards, self.labels = outer.guards, outer.labels
        self.free: list[tuple[Tensor, Value]] = []

    def capture(self, t: Tensor) -> Memory:
        """Lifts a tensor of the enclosing trace: its base's value now is one more operand."""
        outer = self.outer.base(t)
        value = Value(outer._type, "")
        self.free.append((outer, value))
        memory = self.memory[t._storage] = Memory(value, outer._type, value)
        return memory

    def scalar(self, owner: Any, key: Any, label: str) -> Tensor:
        return self.outer.scalar(owner, key, label)

    def origin(self, t: Tensor) -> Callable[[Sequence], np.ndarray] | None:
        return super().origin(t) or self.outer.origin(t)

    def reads_grad(self, t: Tensor) -> None:
        raise TraceError(f"{user_location()}: .grad is read inside a control flow function")

    def writes_grad(self, t: Tensor) -> None:
        raise TraceError(f"{user_location()}: backward() is called inside a control flow function")


class Region:
    """One traced branch or body.

    Attributes:
        arguments: the operands as tensors of the enclosing trace.
        free: tensors from around the function that it reads.
        types: the types of its results.
        structure: the structure of its result.
    """

    def __init__(self, function: Callable, leaves: list[Any], structure: Any, pair: bool = False):
        outer = thread.trace
        assert outer is not None
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise TraceError(
                    f"{user_location()}: control flow operands must be tensors, "
                    f"given {type(leaf).__name__}"
                )
        self.arguments: list[Tensor] = list(leaves)
        tracer = RegionTracer(getattr(function, "__name__", "body").strip("<>"), outer)
        proxies = [tracer.input(t._type, "") for t in leaves]
        with tracer.active(), no_grad():
            args = unflatten(structure, iter(proxies))
            result = function(*args)
            if pair and not (isinstance(result, tuple) and len(result) == 2):
                raise TraceError(
                    f"{user_location()}: the function of scan must return (carry, output), "
                    f"given {type(result).__name__}"
                )
            outs, self.structure = flatten(result)
            bad = next((o for o in outs if not isinstance(o, Tensor)), None)
            if bad is not None:
                raise TraceError(
                    f"{user_location()}: control flow functions must return tensors, "
                    f"given {type(bad).__name__}; wrap it with tc.tensor"
                )
            self._outputs = [tracer.value(t) for t in outs]
        if any(m.value is not m.initial for m in tracer.memory.values() if m.initial is not None):
            raise TraceError(
                f"{user_location()}: a control flow function writes a tensor in place that was "
                "made outside of it (or draws random numbers); return the new value instead"
            )
        self._builder, self._free = tracer.builder, tracer.free
        self.free = [t for t, _ in tracer.free]

    @property
    def types(self) -> list[TensorType]:
        return [v.type for v in self._outputs]

    def graph(
        self, free: list[Tensor], free_first: bool = False, carry_free: bool = False
    ) -> Graph:
        """The region as a closed graph whose operands are the arguments and then ``free``."""
        known = {t._storage: v for t, v in self._free}
        extra = [known.get(t._storage) or Value(t._type, "") for t in free]
        own = self._builder.graph
        inputs = [*extra, *own.inputs] if free_first else [*own.inputs, *extra]
        outputs = [*self._outputs, *extra] if carry_free else self._outputs
        closed = Builder(own.name)
        values = {v: closed.input(v.type, v.name) for v in inputs}
        for node in own.nodes:
            values.update(zip(node.outputs, closed.copy(node, values), strict=True))
        closed.graph.outputs = [values[v] for v in outputs]
        return closed.graph
