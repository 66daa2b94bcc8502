"""Opening of composites: what a backend has no kernel for is spelled out in primitives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from tracecc_ir.graph import Builder, Graph, Value, rebuild
from tracecc_ir.op import Attrs, Op


def decompose(graph: Graph, keep: Collection[str] = frozenset()) -> Graph:
    """Replaces every composite that ``keep`` does not name by its decomposition.

    Calls are inlined, and stop_gradient goes, as only autodiff reads it.

    Before::

        graph main(%x: f32[3]) {
          %y = silu(%x) : f32[3]
          return %y
        }

    After::

        graph main(%x: f32[3]) {
          %0 = sigmoid(%x) : f32[3]
          %y = mul(%x, %0) : f32[3]
          return %y
        }
    """

    class Opener(Builder):
        def emit(
            self, op: Op, inputs: Sequence[Value], attrs: Attrs, names: Sequence[str] = ()
        ) -> tuple[Value, ...]:
            return opened(self, op, inputs, attrs) or super().emit(op, inputs, attrs, names)

    def opened(
        b: Builder, op: Op, inputs: Sequence[Value], attrs: Attrs
    ) -> tuple[Value, ...] | None:
        if op.name == "stop_gradient":
            return tuple(inputs)
        if op.decomposition is None or op.kind == "kernel" or op.name in keep:
            return None
        made: Any = op.decomposition(*map(b.expr, inputs), **op.bind(attrs))
        return tuple(e.value for e in (made if isinstance(made, tuple) else (made,)))

    return rebuild(
        graph,
        lambda b, node, inputs: opened(b, node.op, inputs, node.attrs),
        Opener(graph.name),
        regions=lambda region: decompose(region, keep),
    )
