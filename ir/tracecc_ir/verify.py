"""The verifier: SSA form and every op's type rule again; errors show the graph around the fault."""

from __future__ import annotations

from typing import Any, NoReturn

from tracecc_ir.dims import Dim
from tracecc_ir.errors import IRError, VerifyError
from tracecc_ir.graph import Graph, Node, Value
from tracecc_ir.printer import Printer
from tracecc_ir.types import DType

CONTEXT = 3  # lines shown before and after the fault
ATTRIBUTES = (int, float, complex, bool, str, type(None), DType, Dim)


def verify(graph: Graph) -> None:
    """Checks a graph and all its regions.

    Raises:
        VerifyError: a value is used before it is defined or defined twice, a recorded type is not
            what the op's type rule gives, attributes are incomplete, or an update is none. The
            message shows the graph around the fault.
    """
    defined: set[Value] = set()
    for value in graph.parameters():
        _define(graph, None, defined, value)
    for node in graph.nodes:
        _node(graph, node, defined)
    for what, values in (("output", graph.outputs), ("update", [u.value for u in graph.updates])):
        for value in values:
            if value not in defined:
                _fail(graph, None, f"an {what} is {value}, which is not defined")
    _updates(graph)


def _updates(graph: Graph) -> None:
    known = {s.value for s in graph.state}
    for update in graph.updates:
        if update.state not in known:
            _fail(graph, None, f"{update.state} is updated, but it is not a state or updated twice")
        known.discard(update.state)
        if update.state.type != update.value.type:
            _fail(graph, None, f"the state {update.state} is updated with {update.value}")


def _node(graph: Graph, node: Node, defined: set[Value]) -> None:
    for value in node.inputs:
        if value not in defined:
            _fail(graph, node, f"{node.op.name} uses {value} before it is defined")
    if tuple(node.attrs) != node.op.attr_names:
        _fail(
            graph,
            node,
            f"{node.op.name} has the attributes {', '.join(node.attrs) or 'none'}; "
            f"expected {', '.join(node.op.attr_names) or 'none'} in this order",
        )
    for key, attr in node.attrs.items():
        _attribute(graph, node, key, attr)
    try:
        expected = node.op.result_types([v.type for v in node.inputs], node.attrs)
    except IRError as error:
        _fail(graph, node, str(error))
    except (TypeError, ValueError, IndexError) as error:
        _fail(graph, node, f"{node.op.name} refuses its operands: {error}")
    found = tuple(v.type for v in node.outputs)
    if found != expected:
        _fail(
            graph, node, f"{node.op.name} gives {_types(expected)}, but {_types(found)} is recorded"
        )
    for index, value in enumerate(node.outputs):
        if value.node is not node or value.index != index:
            _fail(graph, node, f"{value} does not know {node.op.name} as its origin")
        _define(graph, node, defined, value)


def _attribute(graph: Graph, node: Node, key: str, attr: Any) -> None:
    if isinstance(attr, Graph):
        verify(attr)
    elif isinstance(attr, tuple):
        for item in attr:
            _attribute(graph, node, key, item)
    elif not isinstance(attr, ATTRIBUTES):
        _fail(graph, node, f"{node.op.name} has {key}={attr!r}, which is no attribute value")


def _define(graph: Graph, node: Node | None, defined: set[Value], value: Value) -> None:
    if value in defined:
        _fail(graph, node, f"{value} is defined twice")
    defined.add(value)


def _types(types: tuple) -> str:
    return ", ".join(map(str, types)) or "no result"


def _fail(graph: Graph, node: Node | None, message: str) -> NoReturn:
    lines = Printer(mark=node).function(f"graph {graph.name}", graph, "  ")
    marked = next((i for i, line in enumerate(lines) if line.startswith(">>")), len(lines) - 1)
    shown = lines[max(0, marked - CONTEXT) : marked + CONTEXT + 1]
    where = f"{node.loc}: " if node is not None and node.loc is not None else ""
    raise VerifyError("\n".join([f"{where}{message}", *shown]))
