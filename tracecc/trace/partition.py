"""Splitting a joint forward-and-backward graph in two, with the values that pass between them."""

from __future__ import annotations

from dataclasses import dataclass

from tracecc_ir.graph import Builder, Graph, Node, State, Update, Value


@dataclass
class Halves:
    """The two graphs. ``forward``'s outputs are its own, then the saved values that it computes;
    ``backward``'s inputs are all saved values, then the cotangents."""

    forward: Graph
    backward: Graph
    saved: list[tuple[str, int]]  # ("input", i), ("state", i) or ("output", i) of the forward graph


def partition(joint: Graph, outputs: int, cotangents: int) -> Halves:
    """Splits ``joint``, whose last ``cotangents`` inputs belong to the backward half and whose
    outputs after the first ``outputs`` are gradients.

    Saved state is not copied, but for what changes: what the call itself updates, and numbers.
    """
    inputs = joint.inputs[: len(joint.inputs) - cotangents]
    seeds = joint.inputs[len(joint.inputs) - cotangents :]
    first = _needed(joint, joint.outputs[:outputs] + [u.value for u in joint.updates])
    second = [n for n in _needed(joint, joint.outputs[outputs:]) if n not in set(first)]
    made = {v for n in second for v in n.outputs} | set(seeds)
    wants = [v for n in second for v in n.inputs] + joint.outputs[outputs:]
    saved = [v for v in dict.fromkeys(wants) if v not in made]
    parameters = {v: ("input", i) for i, v in enumerate(inputs)}
    updated = {u.state for u in joint.updates}
    parameters.update(
        (s.value, ("state", i))
        for i, s in enumerate(joint.state)
        if s.value not in updated and s.value.type.ndim
    )
    kept = joint.outputs[:outputs]
    where = []
    for v in saved:
        if v in parameters:
            where.append(parameters[v])
        else:
            where.append(("output", len(kept)))
            kept = [*kept, v]
    forward = _graph(joint.name, first, inputs, joint.state, kept, joint.updates)
    backward = _graph(
        joint.name + "_backward", second, saved + seeds, [], joint.outputs[outputs:], []
    )
    return Halves(forward, backward, where)


def _needed(graph: Graph, results: list[Value]) -> list[Node]:
    live = {v.node for v in results}
    for node in reversed(graph.nodes):
        if node in live:
            live.update(v.node for v in node.inputs)
    return [n for n in graph.nodes if n in live]


def _graph(
    name: str,
    nodes: list[Node],
    inputs: list[Value],
    state: list[State],
    outputs: list[Value],
    updates: list[Update],
) -> Graph:
    """A fresh graph of copies of these nodes."""
    b = Builder(name)
    values = {v: b.input(v.type, v.name) for v in inputs}
    for s in state:
        values[s.value] = b.state(s.value.type, s.label, s.value.name)
    for node in nodes:
        values.update(zip(node.outputs, b.copy(node, values), strict=True))
    b.graph.outputs = [values[v] for v in outputs]
    b.graph.updates = [Update(values[u.state], values[u.value]) for u in updates]
    return b.graph
