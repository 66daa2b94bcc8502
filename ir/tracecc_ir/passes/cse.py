"""Common subexpression elimination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracecc_ir.graph import Builder, Graph, Node, Value, rebuild


def cse(graph: Graph) -> Graph:
    """Computes equal nodes once: same op, same operands, same attributes.

    Every op is a pure function (random bits included: they are counter-based). A scan whose body
    also returns what an earlier, otherwise equal scan returns takes that one's place.

    Before::

        graph main(%x: f32[3]) {
          %a = exp(%x) : f32[3]
          %b = exp(%x) : f32[3]
          %c = add(%a, %b) : f32[3]
          return %c
        }

    After::

        graph main(%x: f32[3]) {
          %a = exp(%x) : f32[3]
          %c = add(%a, %a) : f32[3]
          return %c
        }
    """
    known: dict[Any, Sequence[Value]] = {}
    wider = _wider_scans(graph)

    def visit(b: Builder, node: Node, inputs: Sequence[Value]) -> Sequence[Value] | None:
        if node in wider:
            return (visit(b, wider[node], inputs) or ())[: len(node.outputs)]
        key = (node.op, tuple(inputs), tuple(map(frozen, node.attrs.values())))
        found = known.get(key)
        if found is None:
            names, types = [v.name for v in node.outputs], [v.type for v in node.outputs]
            attrs = {k: cse(a) if isinstance(a, Graph) else a for k, a in node.attrs.items()}
            made = Node(node.op, inputs, attrs, types, names, node.loc, node.why)
            found = known[key] = b.append(made)
        return found

    return rebuild(graph, visit)


def _wider_scans(graph: Graph) -> dict[Node, Node]:
    """For scans that compute a part of what another scan over the same operands does, the other."""
    groups: dict[Any, list[Node]] = {}
    for node in graph.nodes:
        if node.op.name == "scan":
            rest = [(k, frozen(a)) for k, a in node.attrs.items() if k != "body"]
            groups.setdefault((node.inputs, *rest), []).append(node)
    found: dict[Node, Node] = {}
    for first, *others in groups.values():
        count = len(first.outputs)
        for other in others:
            whole = other.attrs["body"]
            start = Graph(whole.name, whole.inputs, [], whole.nodes, whole.outputs[:count])
            if len(other.outputs) > count and frozen(start) == frozen(first.attrs["body"]):
                found[first] = other
    return found


def frozen(attr: Any) -> Any:
    """An attribute as a key that tells 1 from 1.0 and 0.0 from -0.0; equal graphs are equal."""
    if isinstance(attr, tuple):
        return tuple(map(frozen, attr))
    if isinstance(attr, Graph):
        return str(attr)
    return type(attr).__name__, repr(attr)
