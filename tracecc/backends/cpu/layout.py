"""Matrix products whose operands no pair of strides describes get transposed operands."""

from __future__ import annotations

from collections.abc import Sequence

from tracecc.backends.cpu import gemm
from tracecc_ir.graph import Builder, Graph, Node, Value, rebuild
from tracecc_ir.ops import dot_general, permute
from tracecc_ir.passes.anchor import anchor_of, epilogue_of


def plain_products(graph: Graph) -> Graph:
    """Moves the dims of both operands to batch, free, contracted order where a product needs it."""

    def visit(b: Builder, node: Node, inputs: Sequence[Value]) -> tuple[Value, ...] | None:
        if node.op.name != "kernel":
            return moved(b, node, inputs)
        body = node.attrs["body"]
        anchor = anchor_of(body)
        if anchor is None:
            return None
        outer = dict(zip(body.inputs, inputs, strict=True))
        found = moved(b, anchor, [outer[v] for v in anchor.inputs])
        if found is None:
            return None
        rest = epilogue_of(body, anchor)
        types = [v.type for v in node.outputs]
        attrs = {**node.attrs, "body": rest}
        reads = [*found, *(outer[v] for v in rest.inputs[1:])]
        return b.append(Node(node.op, reads, attrs, types, (), node.loc, node.why))

    def moved(b: Builder, node: Node, inputs: Sequence[Value]) -> tuple[Value, ...] | None:
        if node.op is not dot_general or node.inputs[0].dtype.name not in gemm.KINDS:
            return None
        if any(n == 0 for v in node.inputs for n in v.shape) or gemm.plan_dot(node) is not None:
            return None
        sides = zip(inputs, node.attrs["batch"], node.attrs["contract"], strict=True)
        x, y = (_ordered(b, *side) for side in sides)
        batch = tuple(range(len(node.attrs["batch"][0])))
        count = len(node.attrs["contract"][0])
        contract = tuple(tuple(range(v.type.ndim - count, v.type.ndim)) for v in (x, y))
        made = dot_general(b.expr(x), b.expr(y), contract=contract, batch=(batch, batch))
        return (made.value,)

    return rebuild(graph, visit)


def _ordered(b: Builder, v: Value, batch: Sequence[int], contract: Sequence[int]) -> Value:
    free = [d for d in range(v.type.ndim) if d not in batch and d not in contract]
    axes = (*batch, *free, *contract)
    if axes == tuple(range(v.type.ndim)):
        return v
    return permute(b.expr(v), axes=axes).value
