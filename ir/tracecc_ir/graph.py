"""The graph: values, nodes and graphs in SSA form, and the builder that appends to one.

Values are immutable; a node's attributes may hold graphs (the regions of control flow and of fused
kernels), which see nothing but their own inputs. Effects are explicit: a graph has inputs, captured
state, outputs and updates (state <- value). Passes make new graphs and leave the old ones alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tracecc_ir.dims import Dim
from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Attrs, Expr, Op
from tracecc_ir.types import TensorType, type_of_array

HOLDERS = ("control", "kernel")  # the kinds of op whose attributes may hold graphs


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

    ``name`` is a readable hint; the printer makes names unique. ``node`` is None for parameters.
    """

    __slots__ = ("index", "name", "node", "type")

    def __init__(self, type: TensorType, name: str = "", node: Node | None = None, index: int = 0):
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

    __slots__ = ("attrs", "inputs", "loc", "op", "outputs", "why")

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
        named = len(names)
        self.outputs = tuple(
            [Value(t, names[i] if i < named else "", self, i) for i, t in enumerate(types)]
        )

    @property
    def output(self) -> Value:
        (value,) = self.outputs
        return value

    def regions(self) -> Iterator[Graph]:
        """The graphs held in attributes."""
        return (a for a in self.attrs.values() if isinstance(a, Graph))

    def __repr__(self) -> str:
        results = ", ".join(map(repr, self.outputs))
        return (
            f"{results} = {self.op.name}({', '.join('%' + (v.name or '_') for v in self.inputs)})"
        )


class State(NamedTuple):
    """A captured tensor (parameter, buffer, optimiser state) and the label users know it by."""

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
        """Appends ``node`` with its operands replaced through ``values``; all else is kept."""
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
        """Appends a copy of ``graph``'s nodes; returns its outputs, then its update values."""
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


# Rebuilding: what passes, substitution and inlining have in common.

Visit = Callable[[Builder, Node, Sequence[Value]], "Sequence[Value] | None"]


def rebuild(
    graph: Graph,
    visit: Visit | None = None,
    builder: Builder | None = None,
    regions: Callable[[Graph], Graph] | None = None,
) -> Graph:
    """A copy of ``graph`` in which ``visit`` may replace nodes.

    Args:
        graph: what to copy; it stays as it is.
        visit: called with the builder, each node and its new operands; returns the values that
            stand for the node's outputs, or None to copy the node.
        builder: what to build with, for example one whose ``emit`` rewrites.
        regions: applied to every graph held in the attributes of copied nodes.
    """
    b = builder or Builder(graph.name)
    values = {v: b.input(v.type, v.name) for v in graph.inputs}
    for s in graph.state:
        values[s.value] = b.state(s.value.type, s.label, s.value.name)
    for node in graph.nodes:
        b.loc = node.loc
        inputs = [values[v] for v in node.inputs]
        found = visit(b, node, inputs) if visit is not None else None
        if found is None:
            attrs = node.attrs if regions is None else map_regions(node, regions)
            types, names = [v.type for v in node.outputs], [v.name for v in node.outputs]
            found = b.append(Node(node.op, inputs, attrs, types, names, node.loc, node.why))
        for old, new in zip(node.outputs, found, strict=True):
            new.name = new.name or (old.name if new.node is not None else "")
            values[old] = new
    b.graph.outputs = [values[v] for v in graph.outputs]
    b.graph.updates = [Update(values[u.state], values[u.value]) for u in graph.updates]
    return b.graph


def replay(graph: Graph, arguments: Sequence[Expr]) -> tuple[Expr, ...]:
    """Emits a graph's nodes where ``arguments`` (one per parameter) live; returns its outputs."""
    exprs = dict(zip(graph.parameters(), arguments, strict=True))
    emitter = arguments[0].emitter if arguments else Builder()
    for node in graph.nodes:
        made = emitter.emit(node.op, [exprs[v].value for v in node.inputs], node.attrs)
        exprs.update((v, Expr(m, emitter)) for v, m in zip(node.outputs, made, strict=True))
    return tuple(exprs[v] for v in graph.outputs)


def map_regions(node: Node, change: Callable[[Graph], Graph]) -> dict[str, Any]:
    """A node's attributes with ``change`` applied to every graph in them."""
    if node.op.kind not in HOLDERS:
        return node.attrs
    return {k: _map_region(v, change) for k, v in node.attrs.items()}


def _map_region(value: Any, change: Callable[[Graph], Graph]) -> Any:
    if isinstance(value, Graph):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_map_region(v, change) for v in value)
    return value


# Symbolic sizes.


def specialize(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph with every symbolic size that ``sizes`` names replaced by its number.

    >>> from tracecc_ir.dims import Dim
    >>> from tracecc_ir.types import f32
    >>> b = Builder("demo")
    >>> x = b.input(TensorType(f32, (Dim.symbol("b"), 3)), "x")
    >>> specialize(b.graph, {"b": 64}).inputs
    [%x: f32[64, 3]]
    """
    b = Builder(graph.name)

    def copied(v: Value) -> TensorType:
        return substitute(v.type, sizes)

    values = {v: b.input(copied(v), v.name) for v in graph.inputs}
    for s in graph.state:
        values[s.value] = b.state(copied(s.value), s.label, s.value.name)
    for node in graph.nodes:
        inputs = [values[v] for v in node.inputs]
        attrs = {k: substitute(a, sizes) for k, a in node.attrs.items()}
        types, names = map(copied, node.outputs), [v.name for v in node.outputs]
        made = Node(node.op, inputs, attrs, list(types), names, node.loc, node.why)
        values.update(zip(node.outputs, b.append(made), strict=True))
    b.graph.outputs = [values[v] for v in graph.outputs]
    b.graph.updates = [Update(values[u.state], values[u.value]) for u in graph.updates]
    return b.graph


def substitute(item: Any, sizes: Mapping[str, int]) -> Any:
    """A size, type, graph, attribute value or tuple of them with symbolic sizes replaced."""
    if isinstance(item, Dim):
        return item.evaluate(sizes)
    if isinstance(item, TensorType):
        return TensorType(item.dtype, substitute(item.shape, sizes))
    if isinstance(item, Graph):
        return specialize(item, sizes)
    if isinstance(item, tuple):
        return tuple(substitute(i, sizes) for i in item)
    return item


def bind_sizes(graph: Graph, arrays: Sequence[np.ndarray]) -> dict[str, int]:
    """The numbers of the graph's symbolic sizes in ``arrays``: its inputs and then its state.

    Raises:
        TypeRuleError: an array does not have its parameter's type, or two sizes disagree.
    """
    parameters = graph.parameters()
    if len(parameters) != len(arrays):
        raise TypeRuleError(
            f"{graph.name} takes {len(graph.inputs)} inputs and {len(graph.state)} state arrays, "
            f"given {len(arrays)} arrays together"
        )
    sizes: dict[str, int] = {}
    for value, array in zip(parameters, arrays, strict=True):
        if value.type.is_symbolic and len(array.shape) == value.type.ndim:
            _solve(value.type, array.shape, sizes)
    for value, array in zip(parameters, arrays, strict=True):
        expected, given = substitute(value.type, sizes), type_of_array(array)
        if given != expected:
            bound = "".join(f", where {s} = {n}" for s, n in sizes.items())
            raise TypeRuleError(
                f"%{value.name} of {graph.name} is {value.type}{bound}, given an array of {given}"
            )
    return sizes


def _solve(type: TensorType, shape: Sequence[int], sizes: dict[str, int]) -> None:
    """Reads sizes of the form ``a*s + c`` off a shape."""
    for size, number in zip(type.shape, shape, strict=True):
        left = size.evaluate(sizes) if isinstance(size, Dim) else size
        terms = dict(left.terms) if isinstance(left, Dim) else {}
        constant = terms.pop((), 0)
        if len(terms) == 1:
            ((monomial, coefficient),) = terms.items()
            if len(monomial) == 1:
                sizes[monomial[0]] = (number - constant) // coefficient
