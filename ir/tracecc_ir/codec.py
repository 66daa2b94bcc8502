"""Graphs as JSON, for caches: smaller than the text and read many times faster, but not for people.

Nothing in it is executed, and ops are looked up by name, so that a wrong file can only be refused.
"""

from __future__ import annotations

import json
from typing import Any

from tracecc_ir.dims import Dim
from tracecc_ir.errors import IRError
from tracecc_ir.graph import Graph, Loc, Node, State, Update, Value
from tracecc_ir.ops import op_named
from tracecc_ir.types import DTYPES, DType, TensorType

Json = Any


def encode(graph: Graph) -> str:
    """The JSON text of a graph; equal texts mean equal graphs, names and locations included.

    >>> from tracecc_ir.text import parse
    >>> graph = parse("graph f(%x: f32[3]) { %y = exp(%x) : f32[3] return %y }")
    >>> decode(encode(graph)) == graph
    True
    """
    return _Encoder().text(graph)


def decode(text: str) -> Graph:
    """The graph that a text of `encode` stands for.

    Raises:
        IRError: the text is not one, or names an op or dtype that does not exist.
    """
    try:
        types, locs, graph = json.loads(text)
        return _Decoder(types, locs).graph(graph)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise IRError(f"this is no encoded graph: {error!r}") from error


class _Encoder:
    """Values are numbered within their graph: inputs, state, then the results of each node; types
    and locations are numbered once for the graph and its regions."""

    def __init__(self) -> None:
        self.types: dict[TensorType, int] = {}
        self.locs: dict[Loc | None, int] = {}

    def text(self, graph: Graph) -> str:
        encoder = json.JSONEncoder(default=self.special, separators=(",", ":"))
        body = encoder.encode(self.graph(graph))
        return f"[{encoder.encode(list(self.types))},{encoder.encode(list(self.locs))},{body}]"

    def type(self, type: TensorType) -> int:
        return self.types.setdefault(type, len(self.types))

    def graph(self, graph: Graph) -> Json:
        number = {v: i for i, v in enumerate(graph.parameters())}
        nodes = []
        for n in graph.nodes:
            operands = [number[v] for v in n.inputs]
            results = [x for v in n.outputs for x in (v.name, self.type(v.type))]
            loc = self.locs.setdefault(n.loc, len(self.locs))
            nodes.append((n.op.name, operands, list(n.attrs.values()), results, loc, n.why))
            for v in n.outputs:
                number[v] = len(number)
        return (
            graph.name,
            [(v.name, self.type(v.type)) for v in graph.inputs],
            [(s.value.name, self.type(s.value.type), s.label) for s in graph.state],
            nodes,
            [number[v] for v in graph.outputs],
            [(number[u.state], number[u.value]) for u in graph.updates],
        )

    def special(self, item: Any) -> Json:
        """What JSON has no notation for."""
        if isinstance(item, DType):
            return {"dtype": item.name}
        if isinstance(item, Dim):
            return {"dim": item.terms}
        if isinstance(item, complex):
            return {"complex": (item.real, item.imag)}
        if isinstance(item, Graph):
            return {"graph": self.graph(item)}
        raise TypeError(f"{item!r} is no attribute value")


class _Decoder:
    def __init__(self, types: Json, locs: Json) -> None:
        self.types = [TensorType(*self.item(t)) for t in types]
        self.locs = [None if loc is None else Loc(*loc) for loc in locs]

    def item(self, item: Json) -> Any:
        """An attribute value or a part of a type."""
        if isinstance(item, list):
            return tuple([self.item(i) for i in item])
        if not isinstance(item, dict):
            return item
        ((kind, value),) = item.items()
        if kind == "dtype":
            return DTYPES[value]
        if kind == "dim":
            return Dim({tuple(monomial): c for monomial, c in value})
        return complex(*value) if kind == "complex" else self.graph(value)

    def graph(self, item: Json) -> Graph:
        name, inputs, state, nodes, outputs, updates = item
        graph = Graph(name)
        graph.inputs = [Value(self.types[t], n) for n, t in inputs]
        graph.state = [State(Value(self.types[t], n), label) for n, t, label in state]
        values = graph.parameters()
        for n in nodes:
            graph.nodes.append(self.node(values, *n))
            values.extend(graph.nodes[-1].outputs)
        graph.outputs = [values[i] for i in outputs]
        graph.updates = [Update(values[s], values[v]) for s, v in updates]
        return graph

    def node(
        self, values: list[Value], name: str, inputs: Json, attrs: Json, results: Json, *rest: Any
    ) -> Node:
        op, (loc, why) = op_named(name), rest
        named = dict(zip(op.attr_names, self.item(attrs), strict=True))
        types = [self.types[t] for t in results[1::2]]
        operands = [values[i] for i in inputs]
        return Node(op, operands, named, types, results[::2], self.locs[loc], why)
