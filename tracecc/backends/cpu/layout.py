"""Matrix products whose operands no pair of strides describes get transposed operands."""

from __future__ import annotations

from collections.abc import Sequence

from tracecc.backends.cpu import gemm
from tracecc_ir.graph import Builder, Graph, Node, Value, rebuild
from tracecc_ir.ops import dot_general, permute


def plain_products(graph: Graph) -> Graph:
    """Moves the dims of both operands to batch, free, contracted order where a product needs it."""

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

    return rebuild(graph, moved)


def _ordered(b: Builder, v: Value, batch: Sequence[int], contract: Sequence[int]) -> Value:
    free = [d for d in range(v.type.ndim) if d not in batch and d not in contract]
    axes = (*batch, *free, *contract)
    if axes == tuple(range(v.type.ndim)):
        return v
    return permute(b.expr(v), axes=axes).value
