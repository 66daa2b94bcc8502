"""The graph: values, nodes and graphs in SSA form, and the builder that appends to one.

Values are immutable; a node's attributes may hold graphs (the regions of control flow and of fused
kernels), which see nothing but their own inputs. Effects are explicit: a graph has inputs, captured
state, outputs and updates (state <- value). Passes make new graphs and leave the old ones alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

from tracecc_ir.op import Attrs, Expr, Op
from tracecc_ir.types import TensorType


class Loc(NamedTuple):
    """Where in the user's program a node comes from; printed ``digits.py:31 forward``."""

    file: str
    line: int
    function: str = ""
    grad: bool = False

    def __str__(self) -> str:
        name = self.file.replace("\\", "/").rsplit("/", 1)[-1]
        text = f"{name}:{self.line}" + (f" {self.function}" if self.function else "")
        return f"grad of {text}" if self.grad else text


class Value:
    """One SSA value: a graph input, a state, or a node's result. Compared by identity.

    ``name`` is a readable hint; the printer makes names unique. ``node`` is None for inputs and state.
    """

    __slots__ = ("type", "name", "node", "index")

    def __init__(
        self, type: TensorType, name: str = "", node: "Node | None" = None, index: int = 0
    ):
        self.type, self.name, self.node, self.index = type, name, node, index

    @property
    def shape(self) -> tuple:
        return self.type.shape

    @property
    def dtype(self) -> Any:
        return self.type.dtype

    def __repr__(self) -> str:
        return f"%{self.name or '_'}: {self.type}"


class Node:
    """One application of an op. ``why`` is a note for readers (why a group was fused or not)."""

    __slots__ = ("op", "inputs", "attrs", "outputs", "loc", "why")

    def __init__(
        self,
        op: Op,
        inputs: Sequence[Value],
        attrs: Attrs,
        types: Sequence[TensorType],
        names: Sequence[str] = (),
        loc: Loc | None = None,
        why: str = "",
    ):
        self.op, self.inputs, self.attrs = op, tuple(inputs), dict(attrs)
        self.loc, self.why = loc, why
        self.outputs = tuple(
            Value(t, names[i] if i < len(names) else "", self, i) for i, t in enumerate(types)
        )

    @property
    def output(self) -> Value:
        (value,) = self.outputs
        return value

    def regions(self) -> Iterator["Graph"]:
        """The graphs held in attributes."""
        return (a for a in self.attrs.values() if isinstance(a, Graph))

    def __repr__(self) -> str:
        results = ", ".join(map(repr, self.outputs))
        return (
            f"{results} = {self.op.name}({', '.join('%' + (v.name or '_') for v in self.inputs)})"
        )


class State(NamedTuple):
    """A captured tensor (parameter, buffer, optimiser or generator state) and the label users know it by."""

    value: Value
    label: str


class Update(NamedTuple):
    """An effect: after the graph ran, ``state`` holds ``value``."""

    state: Value
    value: Value


@dataclass(eq=False)
class Graph:
    """A function in SSA form. ``nodes`` are in execution order."""

    name: str = "graph"
    inputs: list[Value] = field(default_factory=list)
    state: list[State] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)

    def parameters(self) -> list[Value]:
        """Every value that exists before the first node: inputs, then state."""
        return self.inputs + [s.value for s in self.state]

    def results(self) -> list[Value]:
        """Every value that must be computed: outputs, then update values."""
        return self.outputs + [u.value for u in self.updates]

    def users(self) -> dict[Value, list[Node]]:
        """For each value, the nodes that read it, in order (a node appears once per value)."""
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                users.setdefault(value, []).append(node)
        return users

    def __eq__(self, other: object) -> bool:
        """Graphs are equal if they print the same."""
        return isinstance(other, Graph) and str(self) == str(other)

    __hash__ = object.__hash__

    def __str__(self) -> str:
        from tracecc_ir.text import print_graph

        return print_graph(self)


class Builder:
    """Appends nodes to a graph. It is an Emitter, so op rules and Exprs can target it.

    >>> from tracecc_ir.ops import exp
    >>> from tracecc_ir.types import f32
    >>> b = Builder("demo")
    >>> x = b.input(TensorType(f32, (3,)), "x")
    >>> b.graph.outputs = [(exp(b.expr(x)) * 2.0).value]
    >>> len(b.graph.nodes)
    3
    """

    def __init__(self, name: str = "graph"):
        self.graph = Graph(name)
        self.loc: Loc | None = None

    def input(self, type: TensorType, name: str = "") -> Value:
        value = Value(type, name)
        self.graph.inputs.append(value)
        return value

    def state(self, type: TensorType, label: str, name: str = "") -> Value:
        value = Value(type, name)
        self.graph.state.append(State(value, label))
        return value

    def expr(self, value: Value) -> Expr:
        return Expr(value, self)

    def type_of(self, value: Value) -> TensorType:
        return value.type

    def emit(
        self, op: Op, inputs: Sequence[Value], attrs: Attrs, names: Sequence[str] = ()
    ) -> tuple[Value, ...]:
        attrs = op.bind(attrs)
        types = op.result_types([v.type for v in inputs], attrs)
        return self.append(Node(op, inputs, attrs, types, names, self.loc))

    def append(self, node: Node) -> tuple[Value, ...]:
        self.graph.nodes.append(node)
        return node.outputs

    def copy(self, node: Node, values: Mapping[Value, Value]) -> tuple[Value, ...]:
        """Appends ``node`` with its operands replaced through ``values``; types, names and location are kept."""
        inputs = [values[v] for v in node.inputs]
        types = [v.type for v in node.outputs]
        return self.append(
            Node(
                node.op,
                inputs,
                node.attrs,
                types,
                [v.name for v in node.outputs],
                node.loc,
                node.why,
            )
        )

    def inline(self, graph: Graph, arguments: Sequence[Value]) -> list[Value]:
        """Appends a copy of ``graph``'s nodes; returns the values of its outputs then of its updates."""
        values = dict(zip(graph.parameters(), arguments, strict=True))
        for node in graph.nodes:
            values.update(zip(node.outputs, self.copy(node, values), strict=True))
        return [values[v] for v in graph.results()]


def topological(nodes: Iterable[Node]) -> list[Node]:
    """The nodes in dependency order, keeping the given order where it is free."""
    pending = list(nodes)
    members = set(map(id, pending))
    done: set[int] = set()
    order: list[Node] = []

    for root in pending:
        stack = [root]
        while stack:
            node = stack[-1]
            if id(node) in done:
                stack.pop()
                continue
            waiting = [
                v.node
                for v in node.inputs
                if v.node is not None and id(v.node) in members and id(v.node) not in done
            ]
            if waiting:
                stack.extend(waiting)
            else:
                done.add(id(node))
                order.append(node)
                stack.pop()
    return order
