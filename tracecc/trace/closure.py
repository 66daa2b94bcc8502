"""A closure that computes a loss and its gradients, as a graph of the parameters' values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tracecc as tc
from tracecc.dispatch import apply
from tracecc.state import enable_grad, no_grad, thread
from tracecc.tensor import Storage, Tensor
from tracecc.trace.errors import TraceError
from tracecc.trace.location import user_location
from tracecc.trace.region import RegionTracer
from tracecc.trace.tracer import Tracer
from tracecc_ir.graph import Builder
from tracecc_ir.ops import call


class _ClosureTracer(RegionTracer):
    """A region inside of which gradients are computed; they are put back afterwards.

    Attributes:
        gradients: the memory of gradients from before that were looked at.
    """

    writes_grad = Tracer.writes_grad

    def __init__(self, name: str, outer: Tracer):
        super().__init__(name, outer)
        self.gradients: set[Storage] = set()

    def reads_grad(self, t: Tensor) -> None:
        Tracer.reads_grad(self, t)
        if t._grad is not None:
            self.gradients.add(t._grad._storage)


class Closure:
    """What an optimiser's closure computes wherever its parameters are.

    Gradients that it leaves at other tensors are forgotten.

    Args:
        function: clears the gradients, computes the loss, calls backward, returns the loss.
        params: the parameters, which are put where each call says.

    Raises:
        TraceError: it writes other memory (running statistics, a generator of random numbers).
    """

    def __init__(self, function: Callable[[], Any], params: Sequence[Tensor]):
        outer = thread.trace
        assert outer is not None
        at = flat(params)
        tracer = _ClosureTracer("closure", outer)
        with tracer.active():
            place(params, tracer.input(at._type, "at"))
            own = {p._storage for p in params}
            with enable_grad():
                loss = function()
            with no_grad():
                results = [loss.detach().double().reshape(()), gradient(params)]
            outputs = [tracer.value(t) for t in results]
        own |= tracer.gradients
        for storage, m in tracer.memory.items():
            if storage not in own and m.initial is not None and m.value is not m.initial:
                raise TraceError(
                    f"{user_location()}: the closure of LBFGS writes other memory than its "
                    "parameters' (running statistics, random draws), and how often it runs is not "
                    "known to a trace; compile the closure and call step(closure) outside"
                )
        self._free = [t for t, _ in tracer.free]
        graph, region = Builder("closure"), tracer.builder.graph
        inputs = [*region.inputs, *(v for _, v in tracer.free)]
        values = {v: graph.input(v.type, v.name) for v in inputs}
        for node in region.nodes:
            values.update(zip(node.outputs, graph.copy(node, values), strict=True))
        graph.graph.outputs = [values[v] for v in outputs]
        self._body = graph.graph

    def __call__(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """The loss (float64) and its gradient where the parameters, in one row, are ``at``."""
        loss, found = apply(call, (at, *self._free), {"body": self._body})
        return loss, found


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as one row."""
    return tc.cat([t.detach().reshape(-1) for t in tensors])


def gradient(params: Sequence[Tensor]) -> Tensor:
    """All gradients as one row."""
    return tc.cat(
        [
            tc.zeros(p.numel(), dtype=p.dtype) if p.grad is None else p.grad.reshape(-1)
            for p in params
        ]
    )


@no_grad()
def place(params: Sequence[Tensor], at: Tensor) -> None:
    """Overwrites parameters by the numbers in one row."""
    start = 0
    for p in params:
        p.copy_(at[start : start + p.numel()].reshape(p.shape))
        start += p.numel()
