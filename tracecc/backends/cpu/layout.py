"""Matrix products whose operands no pair of strides describes get transposed operands."""

from __future__ import annotations

from collections.abc import Sequence

from tracecc.backends.cpu import dot, gemm
from tracecc_ir.graph import Builder, Graph, Node, Value, rebuild
from tracecc_ir.op import Attrs
from tracecc_ir.ops import dot_general, permute
from tracecc_ir.passes.anchor import anchor_of, epilogue_of


def plain_products(graph: Graph) -> Graph:
    """Transposes the smaller operand of a product, or both, where its kernel needs that."""

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
        if any(n == 0 for v in node.inputs for n in v.shape) or dot.plan_dot(node) is not None:
            return None
        small = int(inputs[1].type.size > inputs[0].type.size)  # type: ignore[operator]
        for moves in ((small == 1, small == 0), (small == 0, small == 1)):
            trial = Builder("trial")
            made = _product(trial, [trial.input(v.type) for v in inputs], node.attrs, moves)
            assert made.node is not None
            if dot.plan_dot(made.node) is not None:
                return (_product(b, inputs, node.attrs, moves),)
        return (_product(b, inputs, node.attrs, (True, True)),)

    return rebuild(graph, visit)


def _product(b: Builder, inputs: Sequence[Value], attrs: Attrs, moves: tuple[bool, bool]) -> Value:
    """The product with one or both operands transposed.

    A left operand goes to batch, free, contracted order, a right one to batch, contracted, free.
    An operand that stays decides the order of the contracted dimensions.
    """
    pairs = list(zip(*attrs["contract"], strict=True))
    if moves != (True, True):
        pairs.sort(key=lambda pair: pair[moves.index(False)])
    operands, contract, batch = [], [], []
    for side, (v, moved) in enumerate(zip(inputs, moves, strict=True)):
        dims, first = [pair[side] for pair in pairs], attrs["batch"][side]
        if moved:
            free = [d for d in range(v.type.ndim) if d not in dims and d not in first]
            axes = (*first, *free, *dims) if side == 0 else (*first, *dims, *free)
            v = v if axes == tuple(range(v.type.ndim)) else permute(b.expr(v), axes=axes).value
            dims, first = [axes.index(d) for d in dims], tuple(range(len(first)))
        operands.append(b.expr(v))
        contract.append(tuple(dims))
        batch.append(tuple(first))
    return dot_general(*operands, contract=tuple(contract), batch=tuple(batch)).value
