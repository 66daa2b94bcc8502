"""Groups around a product: elementwise code finishes its tiles (the epilogue of the product)."""

from __future__ import annotations

from tracecc_ir.graph import Graph, Node

ANCHORS = ("dot_general", "conv", "conv_input_grad", "conv_weight_grad")


def is_anchor(node: Node) -> bool:
    """Whether elementwise code can be applied to this op's tiles while they are in the cache."""
    return node.op.name in ANCHORS and node.output.dtype.kind == "float"


def anchor_of(body: Graph) -> Node | None:
    """The product in a group's body, if it has one."""
    return next((n for n in body.nodes if n.op.name in ANCHORS), None)


def epilogue_of(body: Graph, anchor: Node) -> Graph:
    """The body without its anchor, whose result becomes the first input, and its own operands."""
    nodes = [n for n in body.nodes if n is not anchor]
    read = {v for n in nodes for v in n.inputs} | set(body.outputs)
    inputs = [anchor.output, *(v for v in body.inputs if v in read)]
    return Graph(body.name, inputs, nodes=nodes, outputs=list(body.outputs))
