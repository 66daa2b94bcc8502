"""Fusion: nodes that can share one loop over memory become `kernel` nodes with a body graph.

A group has one space: the elements of a map, those of a reduction together with its rows, or the
tiles of a product. Groups grow along the edges that save most bytes, products last, and stay convex
(no path leaves and comes back).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from tracecc_ir.dims import Dim
from tracecc_ir.graph import Graph, Node, Update, Value, topological
from tracecc_ir.op import op_named
from tracecc_ir.passes.anchor import is_anchor
from tracecc_ir.passes.cse import frozen
from tracecc_ir.passes.fuse_space import (
    Group,
    fusible,
    group_of,
    moves,
    refuse,
    repeats,
    same_space,
)


def fuse(graph: Graph) -> Graph:
    """Groups the nodes of a graph of concrete sizes into kernels.

    Before::

        %a = exp(%x) : f32[8]
        %b = mul(%a, %a) : f32[8]

    after::

        %b = kernel exp_mul(%x) { ... } : f32[8]

    Barriers go, as what follows one stays in order after it. Sizes decide what is worth fusing, so
    a graph that still holds symbolic sizes is returned as it is.
    """
    values = [*graph.parameters(), *(v for n in graph.nodes for v in n.outputs)]
    if any(v.type.is_symbolic for v in values):
        return graph
    copied, results = _private_copies(graph)
    plan = _Plan(copied, results)
    plan.grow()
    return plan.graph(graph)


def _private_copies(graph: Graph) -> tuple[list[Node], list[Value]]:
    """Gives every reader its own copy of what costs less than memory: constants, movement, cheap
    operations on one large operand."""
    new: dict[Value, Value] = {v: v for v in graph.parameters()}
    nodes: list[Node] = []
    free: dict[Node, int] = {}
    for node in graph.nodes:
        length = repeats(node, free)
        if length:
            free[node] = length

    def copy(node: Node, seen: dict[Value, Value]) -> Node:
        inputs = [read(v, seen) for v in node.inputs]
        types, names = [v.type for v in node.outputs], [v.name for v in node.outputs]
        made = Node(node.op, inputs, node.attrs, types, names, node.loc, node.why)
        nodes.append(made)
        return made

    def read(v: Value, seen: dict[Value, Value]) -> Value:
        if v in new:
            return new[v]
        if v not in seen:
            assert v.node is not None
            seen[v] = copy(v.node, seen).output
        return seen[v]

    for node in graph.nodes:
        if node not in free:
            new.update(zip(node.outputs, copy(node, {}).outputs, strict=True))
    shared: dict[Value, Value] = {}
    results = [read(v, shared) for v in graph.results()]
    return nodes, results


class _Plan:
    """The groups while they grow."""

    def __init__(self, nodes: list[Node], results: list[Value]):
        self.nodes, self.results = topological(nodes), results
        self.kept = set(results)
        self.users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for v in dict.fromkeys(node.inputs):
                self.users.setdefault(v, []).append(node)
        self.position = {node: i for i, node in enumerate(self.nodes)}
        self.group = {node: group_of(node, i) for node, i in self.position.items()}
        self.fuses = functools.cache(fusible)
        self.refused: dict[tuple[Node, Node], str] = {}
        self.tried: set[tuple[Group, int, Group, int]] = set()
        self._link()

    def _link(self) -> None:
        self.after: dict[Group, set[Group]] = {g: set() for g in self.group.values()}
        self.before: dict[Group, set[Group]] = {g: set() for g in self.after}
        for node in self.nodes:
            for v in node.inputs:
                if v.node is not None and self.group[v.node] is not self.group[node]:
                    self.after[self.group[v.node]].add(self.group[node])
                    self.before[self.group[node]].add(self.group[v.node])

    def grow(self) -> None:
        """Merges along edges by bytes saved until nothing changes, then siblings sharing reads."""
        edges = [(v.node, n) for n in self.nodes for v in dict.fromkeys(n.inputs) if v.node]
        edges = [e for e in edges if (self.fuses(e[0]) or is_anchor(e[0])) and self.fuses(e[1])]
        edges.sort(key=_worth)
        changed = True
        while changed:
            changed = False
            for producer, consumer in edges:
                changed |= self._merge(producer, consumer)
            if not changed:
                changed = self._merge_siblings()

    def _merge_siblings(self) -> bool:
        changed = False
        for readers in self.users.values():
            first = next((n for n in readers if self.fuses(n)), None)
            if first is None or len(readers) > 64:
                continue
            for other in readers:
                a, b = self.group[first], self.group[other]
                if a is not b and self.fuses(other) and same_space(a, b):
                    changed |= self._merge(first, other)
        return changed

    def _merge(self, producer: Node, consumer: Node) -> bool:
        a, b = self.group[producer], self.group[consumer]
        # What other groups do cannot make two groups fit that did not.
        attempt = a, len(a.nodes), b, len(b.nodes)
        if a is b or attempt in self.tried:
            return False
        reason = self._cycle(a, b) or refuse(a, b, self.users, self.kept, self.position)
        if reason:
            self.refused[producer, consumer] = reason
            self.tried.add(attempt)
            return False
        a.absorb(b, self.users, self.kept)
        for node in b.nodes:
            self.group[node] = a
        for there, back in ((self.after, self.before), (self.before, self.after)):
            there[a].discard(b)
            for g in there.pop(b) - {a}:
                there[a].add(g)
                back[g].discard(b)
                back[g].add(a)
        return True

    def _cycle(self, a: Group, b: Group) -> str:
        """Refuses if a third group lies on a path between the two; no path runs against an edge."""
        linked = b in self.after[a]
        ways = ((a, b),) if linked else ((a, b), (b, a))
        found = any(self._detour(start, end) for start, end in ways)
        return "another step lies between the two" if found else ""

    def _detour(self, start: Group, end: Group) -> bool:
        """Whether a path of two edges or more leads there, looked for from both ends in turn."""
        below, above = self.after[start] - {end}, self.before[end] - {start}
        if not below.isdisjoint(above):
            return True
        down, up = list(below), list(above)
        while down and up:
            for g in self.after[down.pop()] - below:
                if g in above:
                    return True
                below.add(g)
                down.append(g)
            for g in self.before[up.pop()] - above:
                if g in below:
                    return True
                above.add(g)
                up.append(g)
        return False

    def _between(self, producer: Node, consumer: Node) -> str:
        """The reason that was found for another edge of the same two groups."""
        a, b = self.group[producer], self.group[consumer]
        for (first, second), reason in self.refused.items():
            if self.group[first] is a and self.group[second] is b:
                return reason
        return ""

    def graph(self, old: Graph) -> Graph:
        """The fused graph: one kernel node per group that does any work."""
        new: dict[Value, Value] = {v: v for v in old.parameters()}
        made = Graph(old.name, old.inputs, old.state)
        for group in self._order():
            if len(group.nodes) == 1 and not fusible(group.nodes[0]):
                (node,) = group.nodes
                if node.op.name == "barrier":
                    new.update((v, new[x]) for v, x in zip(node.outputs, node.inputs, strict=True))
                    continue
                made.nodes.append(_plain(node, new))
                made.nodes[-1].why = self._why([node], {node}, list(node.outputs))
            elif all(moves(n) for n in group.nodes):
                made.nodes.extend(_plain(n, new) for n in group.nodes)
            else:
                made.nodes.append(self._kernel(group, new))
        results = [new[v] for v in self.results]
        made.outputs = results[: len(old.outputs)]
        made.updates = [
            Update(u.state, v)
            for u, v in zip(old.updates, results[len(old.outputs) :], strict=True)
        ]
        return made

    def _order(self) -> list[Group]:
        """Groups in dependency order, by first node where free."""
        waiting = dict.fromkeys(self.after, 0)
        for targets in self.after.values():
            for g in targets:
                waiting[g] += 1
        ready = sorted((g for g, n in waiting.items() if n == 0), key=lambda g: -g.first)
        order = []
        while ready:
            g = ready.pop()
            order.append(g)
            free = []
            for t in self.after[g]:
                waiting[t] -= 1
                if waiting[t] == 0:
                    free.append(t)
            ready = sorted([*ready, *free], key=lambda t: -t.first)
        return order

    def _kernel(self, group: Group, new: dict[Value, Value]) -> Node:
        inside = set(group.nodes)
        nodes = sorted(group.nodes, key=self.position.__getitem__)
        outer = dict.fromkeys(v for n in nodes for v in n.inputs if v.node not in inside)
        leaving = [
            v
            for n in nodes
            for v in n.outputs
            if v in self.kept or any(u not in inside for u in self.users.get(v, ()))
        ]
        name = _name(nodes)
        body = Graph(name)
        values: dict[Value, Value] = {}
        for v in outer:
            values[v] = Value(v.type, v.name)
            body.inputs.append(values[v])
        # Readers' own copies of a node that came to lie in one group are one node again.
        known: dict[Any, tuple[Value, ...]] = {}
        for n in nodes:
            key = (n.op, *(values[v] for v in n.inputs), *map(frozen, n.attrs.values()))
            if key in known:
                values.update(zip(n.outputs, known[key], strict=True))
            else:
                body.nodes.append(_plain(n, values))
                known[key] = body.nodes[-1].outputs
        body.outputs = list(dict.fromkeys(values[v] for v in leaving))
        attrs = {"body": body, "name": name, "kind": group.kind}
        kernel = Node(
            op_named("kernel"),
            [new[v] for v in outer],
            attrs,
            [v.type for v in body.outputs],
            [v.name for v in body.outputs],
            next((n.loc for n in reversed(nodes) if n.loc), None),
            self._why(nodes, inside, leaving),
        )
        results = dict(zip(body.outputs, kernel.outputs, strict=True))
        new.update((v, results[values[v]]) for v in leaving)
        return kernel

    def _why(self, nodes: list[Node], inside: set[Node], leaving: list[Value]) -> str:
        saved = sum(
            v.type.nbytes
            for n in nodes
            for v in n.outputs
            if v not in leaving and not moves(n) and self.users.get(v)
        )
        notes = [f"{saved} bytes stay in registers"] if saved else []
        for node in nodes:
            for v in node.inputs:
                if v.node is not None and v.node not in inside and not moves(v.node):
                    names = f"{v.node.op.name} not fused into {node.op.name}"
                    notes.append(f"{names}: {self._reason(v.node, node)}")
        return "; ".join(dict.fromkeys(notes))

    def _reason(self, producer: Node, consumer: Node) -> str:
        """Why an edge between two groups stayed."""
        found = self.refused.get((producer, consumer)) or self._between(producer, consumer)
        if found:
            return found
        own = consumer if not fusible(consumer) else producer
        return f"{own.op.name} has a kernel of its own"


def _worth(edge: tuple[Node, Node]) -> tuple[bool, int | Dim]:
    """The order of edges: by bytes saved; products last, as a reduction cannot store less than it
    already does, while a product's reader may read what it would have written."""
    producer, consumer = edge
    saved = sum(v.type.nbytes for v in producer.outputs if v in consumer.inputs)  # type: ignore[misc]
    return is_anchor(producer), -saved


def _plain(node: Node, values: dict[Value, Value]) -> Node:
    inputs = [values[v] for v in node.inputs]
    types, names = [v.type for v in node.outputs], [v.name for v in node.outputs]
    made = Node(node.op, inputs, node.attrs, types, names, node.loc, node.why)
    values.update(zip(node.outputs, made.outputs, strict=True))
    return made


def _name(nodes: Iterable[Node]) -> str:
    """The ops that do the work, costliest kept, in order: ``exp_reduce_sum_div``."""
    names = list(dict.fromkeys(n.op.name for n in nodes if not moves(n)))
    while len(names) > 4:
        weight = [op_named(n).cost + 20 * n.startswith("reduce") for n in names]
        names.pop(weight.index(min(weight)))
    return "_".join(names) or "copy"
