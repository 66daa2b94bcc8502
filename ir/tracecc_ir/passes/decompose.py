"""Opening of composites: what a backend has no kernel for is spelled out in primitives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracecc_ir.graph import Builder, Graph, Node, Value, rebuild
from tracecc_ir.op import Attrs, Op

# What a backend says of a composite node: whether it has a kernel for these types and attributes.
Keep = Callable[[Node], bool]


def nothing(node: Node) -> bool:
    """What a backend without kernels for composites keeps."""
    return False


def decompose(graph: Graph, keep: Keep = nothing) -> Graph:
    """Replaces every composite by its decomposition, but those that ``keep`` answers for.

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
        if op.decomposition is None or op.kind == "kernel":
            return None
        attrs = op.bind(attrs)
        if op.kind == "composite":
            types = op.result_types([v.type for v in inputs], attrs)
            if keep(Node(op, inputs, attrs, types)):
                return None
        made: Any = op.decomposition(*map(b.expr, inputs), **attrs)
        return tuple(e.value for e in (made if isinstance(made, tuple) else (made,)))

    return rebuild(
        graph,
        lambda b, node, inputs: opened(b, node.op, inputs, node.attrs),
        Opener(graph.name),
        regions=lambda region: decompose(region, keep),
    )
