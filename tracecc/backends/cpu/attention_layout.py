"""Attention reads heads where a packed projection wrote them, and writes its results likewise.

Before fusion, `adapt` puts attention and the movement around it into a `kernel` node of kind
"attention"; `plan_group` turns that movement into the strides of the one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tracecc.backends.cpu import attention
from tracecc.backends.cpu.views import MOVES, Rows, View, moved, rows_of, unmoved, whole
from tracecc.backends.schedule_types import Plan
from tracecc_ir.graph import Builder, Graph, Node, Value, rebuild
from tracecc_ir.op import OPS, Op, op_named
from tracecc_ir.ops import permute, reshape

KIND = "attention"
# The kernel op under a name that the scheduler takes for a library step; no graph's text has it.
GROUP: Op = object.__new__(Op)
GROUP.__dict__.update(OPS["kernel"].__dict__, name="attention_group")

Users = dict[Value, list[Node]]


def as_steps(graph: Graph) -> Graph:
    """The groups of `adapt` as nodes that the scheduler asks `plan_group` for."""

    def visit(b: Builder, node: Node, inputs: Sequence[Value]) -> tuple[Value, ...] | None:
        if node.op.name != "kernel" or _core(node.attrs["body"]) is None:
            return None
        types, names = [v.type for v in node.outputs], [v.name for v in node.outputs]
        return b.append(Node(GROUP, inputs, node.attrs, types, names, node.loc, node.why))

    return rebuild(graph, visit)


def plan_group(node: Node) -> Plan | None:
    """The plan of a group on contiguous operands."""
    body: Graph = node.attrs["body"]
    core = _core(body)
    places = _places(body, core) if core else None
    return attention.PLANS[core.op.name](core, *places) if core and places else None


def _core(body: Graph) -> Node | None:
    return next((n for n in body.nodes if n.op.name in attention.PLANS), None)


def _places(body: Graph, core: Node) -> tuple[list[Rows], list[Rows]] | None:
    """Where the operands and results of attention lie in those of the body."""
    seen: dict[Value, View] = {v: whole(v) for v in body.inputs}
    for node in body.nodes[: body.nodes.index(core)]:
        view = moved(node, seen[node.inputs[0]])
        if view is None:
            return None
        seen[node.output] = view
    targets: dict[Value, View] = {v: whole(v) for v in body.outputs}
    for node in reversed(body.nodes[body.nodes.index(core) + 1 :]):
        for v in node.inputs:
            back = unmoved(node, targets[node.output])
            if back is None:
                return None
            targets[v] = back
    found: list[list[Rows]] = [[], []]
    for side, values, views, ends in (
        (0, core.inputs, seen, body.inputs),
        (1, core.outputs, targets, body.outputs),
    ):
        for v in values:
            place = ends.index(views[v].source)
            vector = v.type.ndim < core.inputs[0].type.ndim
            rows = Rows(place, 0, (0, 0, 0)) if vector else rows_of(views[v], place)
            if rows is None:
                return None
            found[side].append(rows)
    return found[0], found[1]


# Before fusion.


@dataclass
class _Group:
    """An attention node with the movement that its kernel does.

    Attributes:
        before, after: the movement of operands and of results, in order.
        exits: per result the value that leaves the group.
    """

    core: Node
    before: list[Node] = field(default_factory=list)
    after: list[Node] = field(default_factory=list)
    exits: list[Value] = field(default_factory=list)

    def body(self) -> tuple[list[Value], Graph]:
        """What the group reads, and its graph."""
        nodes = [*self.before, self.core, *self.after]
        made = {v for n in nodes for v in n.outputs}
        reads = list(dict.fromkeys(v for n in nodes for v in n.inputs if v not in made))
        b = Builder(self.core.op.name)
        values = {v: b.input(v.type, v.name) for v in reads}
        for n in nodes:
            values.update(zip(n.outputs, b.copy(n, values), strict=True))
        b.graph.outputs = [values[v] for v in dict.fromkeys(self.exits)]
        return reads, b.graph


def adapt(graph: Graph) -> Graph:
    """Groups every attention that has a kernel with the movement around it.

    Before::

        %q = permute(%x) axes=(0, 2, 1, 3) : f32[8, 4, 128, 32]
        %y, %l = attention(%q, %k, %v) : f32[8, 4, 128, 32], f32[8, 4, 128]
        %z = permute(%y) axes=(0, 2, 1, 3) : f32[8, 128, 4, 32]

    after::

        %z, %l = kernel attention(%x, %k, %v) { ... } : f32[8, 128, 4, 32], f32[8, 4, 128]
    """
    users, results = graph.users(), set(graph.results())
    groups = {}
    for node in graph.nodes:
        if node.op.name in attention.PLANS:
            group = _group(node, users, results)
            if group.before or group.after:
                groups[node] = group
    if not groups:
        return graph
    inside = {n for g in groups.values() for n in g.after}

    b = Builder(graph.name)
    values = {v: b.input(v.type, v.name) for v in graph.inputs}
    for s in graph.state:
        values[s.value] = b.state(s.value.type, s.label, s.value.name)
    for node in graph.nodes:
        b.loc = node.loc
        if node in groups:
            _emit(b, groups[node], values)
        elif node not in inside:
            values.update(zip(node.outputs, b.copy(node, values), strict=True))
    b.graph.outputs = [values[v] for v in graph.outputs]
    b.graph.updates = [
        u._replace(state=values[u.state], value=values[u.value]) for u in graph.updates
    ]
    return b.graph


def _emit(b: Builder, group: _Group, values: dict[Value, Value]) -> None:
    """The kernel node, and what else reads a result as it was."""
    reads, body = group.body()
    attrs = {"body": body, "name": group.core.op.name, "kind": KIND}
    exits = list(dict.fromkeys(group.exits))
    node = Node(
        op_named("kernel"),
        [values[v] for v in reads],
        attrs,
        [v.type for v in exits],
        [v.name for v in exits],
        group.core.loc,
    )
    values.update(zip(exits, b.append(node), strict=True))
    for n in reversed(group.after):
        if n.op.name not in ("permute", "reshape") or n.output not in values:
            continue
        (x,) = n.inputs
        y = b.expr(values[n.output])
        if n.op.name == "reshape":
            values[x] = reshape(y, shape=x.shape).value
        else:
            axes = n.attrs["axes"]
            values[x] = permute(y, axes=tuple(axes.index(i) for i in range(len(axes)))).value


def _group(core: Node, users: Users, results: set[Value]) -> _Group:
    group = _Group(core, exits=list(core.outputs))
    chains = [_before(v) if v.type.ndim == core.inputs[0].type.ndim else [] for v in core.inputs]
    group.before = list(dict.fromkeys(n for chain in chains for n in chain))
    for i, v in enumerate(core.outputs):
        if v.type.ndim == core.inputs[0].type.ndim:
            chain = _after(v, users, results)
            group.after += chain
            group.exits[i] = chain[-1].output if chain else v
    packed = _packed(group, users, results)
    return packed or group


def _before(v: Value) -> list[Node]:
    """The longest chain of movement up to an operand that strides describe, in order."""
    chain: list[Node] = []
    best: list[Node] = []
    while v.node is not None and v.node.op.name in MOVES:
        chain.insert(0, v.node)
        v = v.node.inputs[0]
        view: View | None = whole(v)
        for n in chain:
            view = moved(n, view) if view is not None else None
        if view is not None and rows_of(view) is not None:
            best = list(chain)
    return best


def _after(v: Value, users: Users, results: set[Value]) -> list[Node]:
    """A permutation that reads a result, and the reshape of that if nothing else reads it."""
    chain: list[Node] = []
    for name in ("permute", "reshape"):
        readers = users.get(v, [])
        found = next((n for n in readers if n.op.name == name), None)
        if found is None or (chain and (len(readers) > 1 or v in results)):
            break
        longer = [*chain, found]
        view: View | None = whole(found.output)
        for n in reversed(longer):
            view = unmoved(n, view) if view is not None else None
        if view is None or rows_of(view) is None:
            break
        chain, v = longer, found.output
    return chain


def _packed(group: _Group, users: Users, results: set[Value]) -> _Group | None:
    """The group whose results are parts of one array: padded and added up, and read so only."""
    pads: list[Node] = []
    for v in (*group.core.outputs, *(n.output for n in group.after)):
        if v not in group.exits and (len(users.get(v, [])) != 1 or v in results):
            return None
    for v in group.exits:
        readers = users.get(v, [])
        if len(readers) != 1 or v in results or readers[0].op.name != "pad":
            return None
        pads.append(readers[0])
    if len(pads) < 2 or len(set(pads)) != len(pads):
        return None
    if any(any(p.attrs["interior"]) or p.attrs["value"] != 0 for p in pads):
        return None
    covered = sum(p.inputs[0].type.size for p in pads)  # type: ignore[misc]
    if covered != pads[0].output.type.size or not _apart(pads):
        return None
    parts, adds = {p.output for p in pads}, list[Node]()
    while len(parts) > 1:
        ready = [users[v] for v in parts if len(users.get(v, [])) == 1 and v not in results]
        sums = [n for (n,) in ready if n.op.name == "add" and parts.issuperset(n.inputs)]
        if not sums or sums[0].inputs[0] is sums[0].inputs[1]:
            return None
        adds.append(sums[0])
        parts = parts - set(sums[0].inputs) | {sums[0].output}
    exits = [adds[-1].output] * len(group.exits)
    return _Group(group.core, group.before, [*group.after, *pads, *adds], exits)


def _apart(pads: Sequence[Node]) -> bool:
    """Whether no two parts overlap."""
    boxes = [
        [(low, low + n) for low, n in zip(p.attrs["low"], p.inputs[0].type.sizes, strict=True)]
        for p in pads
    ]
    return all(
        any(a[1] <= c[0] or c[1] <= a[0] for a, c in zip(boxes[i], boxes[j], strict=True))
        for i in range(len(boxes))
        for j in range(i)
    )
