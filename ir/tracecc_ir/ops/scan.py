"""Scan, a loop of a known number of turns, and its derivative: a scan the other way round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracecc_ir.dims import Size
from tracecc_ir.errors import TypeRuleError
from tracecc_ir.graph import Builder, Graph, Node, Value
from tracecc_ir.op import Expr, Op
from tracecc_ir.ops.contraction import dot_general
from tracecc_ir.ops.control import inexact_positions, region_types, tupled
from tracecc_ir.ops.movement import permute
from tracecc_ir.passes.decompose import decompose
from tracecc_ir.passes.grad import gradient, zeros
from tracecc_ir.types import TensorType


def _scan_type(
    *operands: TensorType,
    body: Graph,
    consts: int,
    carries: int,
    length: Size,
    reverse: bool = False,
) -> tuple[TensorType, ...]:
    fixed, xs = operands[: consts + carries], operands[consts + carries :]
    for x in xs:
        if x.ndim == 0 or x.shape[0] != length:
            raise TypeRuleError(f"scan of length {length} needs operands that long, given {x}")
    results = region_types("scan", body, [*fixed, *(x.with_shape(x.shape[1:]) for x in xs)])
    if results[:carries] != operands[consts : consts + carries]:
        raise TypeRuleError(
            f"the body of scan must return its carries {operands[consts : consts + carries]} "
            f"first, not {results[:carries]}"
        )
    return (*results[:carries], *(y.with_shape((length, *y.shape)) for y in results[carries:]))


# What the reverse scan reads from memory rather than computes again.
_COSTLY = ("dot_general", "conv", "conv_input_grad", "conv_weight_grad")


def _with_outputs(graph: Graph, more: Sequence[Value]) -> Graph:
    """The same nodes with more results."""
    outputs = [*graph.outputs, *more]
    return Graph(graph.name, graph.inputs, nodes=graph.nodes, outputs=outputs)


def _with_history(body: Graph, consts: int, carries: int, kept: Sequence[Value]) -> Graph:
    """The body of scan with the carries it was given, and values it computes, as more outputs."""
    b = Builder(body.name)
    inputs = [b.input(v.type, v.name) for v in body.inputs]
    made = b.inline(_with_outputs(body, kept), inputs)
    count = len(body.outputs)
    b.graph.outputs = made[:count] + inputs[consts : consts + carries] + made[count:]
    return b.graph


def _keeping(body: Graph, wrt: list[int]) -> tuple[Graph, list[Value]]:
    """The gradient of a body, and the costly values of the body that are its last inputs."""
    step = gradient(body, wrt)
    count = len(body.nodes)
    if [n.op for n in step.nodes[:count]] != [n.op for n in body.nodes]:
        return step, []
    forward = {
        v: old
        for copy, node in zip(step.nodes[:count], body.nodes, strict=True)
        for v, old in zip(copy.outputs, node.outputs, strict=True)
    }
    users: dict[Value, list[Node]] = {}
    for node in step.nodes:
        for v in node.inputs:
            users.setdefault(v, []).append(node)
    found = [v for v in forward if v.node is not None and v.node.op.name in _COSTLY]
    costly = {v: forward[v] for v in (_downstream(v, users, forward) for v in found)}
    needed = set(step.outputs)
    nodes = []
    for node in reversed(step.nodes):
        if needed & set(node.outputs) and not costly.keys() & set(node.outputs):
            needed.update(node.inputs)
            nodes.append(node)
    kept = {copy: old for copy, old in costly.items() if copy in needed}
    b = Builder(step.name)
    values = {v: b.input(v.type, v.name) for v in (*step.inputs, *kept)}
    for node in reversed(nodes):
        values.update(zip(node.outputs, b.copy(node, values), strict=True))
    b.graph.outputs = [values[v] for v in step.outputs]
    return b.graph, list(kept.values())


def _downstream(v: Value, users: Mapping[Value, list[Node]], forward: Mapping) -> Value:
    """What is made of v alone where nothing else wants v: keeping that saves making it again."""
    while len(users.get(v, ())) == 1:
        (user,) = users[v]
        if (
            user.op.kind != "elementwise"
            or user.output not in forward
            or user.output.type != v.type
        ):
            break
        v = user.output
    return v


@dataclass
class _Late:
    """Gradients of consts that are one product over all turns instead of a sum of products.

    Attributes:
        consts: how many of the results of a turn are gradients of consts; they come first.
        products: the product of one turn by the number of the const's gradient among the results,
            and the permutations that follow it.
        stacked: its operands that the loop must return turn by turn for that.
    """

    consts: int
    products: dict[int, tuple[Node, list[tuple[int, ...]]]] = field(default_factory=dict)
    stacked: list[Value] = field(default_factory=list)

    @staticmethod
    def of(step: Graph, consts: int, fixed: Sequence[Value], known: set[Value]) -> _Late:
        """Finds them among the first results of a step.

        Args:
            step, consts: the gradient of a turn, and how many of its results are those of consts.
            fixed: inputs that are the same at every turn.
            known: values that are stacked anyway. Others may be if they are no larger than the
                gradient: the loop then writes one of them a turn in place of a sum.
        """
        late = _Late(consts)
        for i, result in enumerate(step.outputs[:consts]):
            value, moves = result, list[tuple[int, ...]]()
            while value.node is not None and value.node.op is permute:
                moves.append(value.node.attrs["axes"])
                value = value.node.inputs[0]
            node = value.node
            if node is None or node.op is not dot_general or set(node.inputs) & set(fixed):
                continue
            more = [v for v in node.inputs if v not in known and v not in late.stacked]
            if all(_fits(v.type, result.type) for v in more):
                late.products[i] = node, moves[::-1]
                late.stacked += more
        return late

    def summed(self, step: Graph) -> dict[int, Value]:
        """The other gradients of consts, by their number."""
        found = enumerate(step.outputs[: self.consts])
        return {i: v for i, v in found if i not in self.products}

    def gradients(self, stacked: Mapping[Value, Expr]) -> dict[int, Expr]:
        """The products over all turns, of their operands with the turns as first dimension."""
        found = {}
        for i, (node, moves) in self.products.items():
            (cx, cy), (bx, by) = node.attrs["contract"], node.attrs["batch"]
            total = dot_general(
                *(stacked[v] for v in node.inputs),
                contract=((0, *_inner(cx)), (0, *_inner(cy))),
                batch=(_inner(bx), _inner(by)),
            )
            for axes in moves:
                total = permute(total, axes=axes)
            found[i] = total
        return found


def _fits(x: TensorType, room: TensorType) -> bool:
    return isinstance(x.size, int) and isinstance(room.size, int) and x.size <= room.size


def _inner(dims: Sequence[int]) -> tuple[int, ...]:
    """Dimensions of one turn as dimensions of all turns stacked."""
    return tuple(d + 1 for d in dims)


def _reverse_body(
    step: Graph,
    consts: Sequence[Value],
    flowing: Sequence[Value],
    slices: Sequence[Value],
    late: _Late,
) -> Graph:
    """One turn of the reverse scan.

    Args:
        step: its gradient, from what a turn knows and cotangents of its results.
        consts, flowing, slices: the inputs of the step that are consts of the reverse scan, that
            are carries (the cotangents of carries), and that differ from turn to turn.
        late: the gradients that it need not sum, and what it returns for them instead.

    Returns:
        From consts, carries, then the sums so far of the consts' gradients, and slices, to new
        carries, sums, the slices' gradients, and what is to be stacked.
    """
    b = Builder(step.name)
    made = {v: b.input(v.type, v.name) for v in (*consts, *flowing)}
    sums = {i: b.input(v.type, v.name) for i, v in late.summed(step).items()}
    made.update((v, b.input(v.type, v.name)) for v in slices)
    inputs = [made[v] if v in made else zeros(b, v.type) for v in step.inputs]
    found = b.inline(_with_outputs(step, late.stacked), inputs)
    added = [(b.expr(s) + b.expr(found[i])).value for i, s in sums.items()]
    first = late.consts + len(flowing)
    b.graph.outputs = found[late.consts : first] + added + found[first:]
    return b.graph


def _scan_vjp(
    g: Any,
    y: Any,
    *operands: Expr,
    body: Graph,
    consts: int,
    carries: int,
    length: Size,
    reverse: bool,
) -> tuple:
    """A scan the other way round, over the carries and products that a forward scan keeps."""
    wrt = inexact_positions(operands)
    if not wrt:
        return (None,) * len(operands)
    gs, fixed, count = tupled(g), consts + carries, len(operands)
    options: Any = {"consts": consts, "length": length}
    body = decompose(body)
    step, kept = _keeping(body, wrt)
    history = tupled(
        scan(
            *operands,
            body=_with_history(body, consts, carries, kept),
            carries=carries,
            reverse=reverse,
            **options,
        )
    )[len(gs) :]
    seeds = dict(zip(step.inputs[count : count + len(gs)], gs, strict=True))
    flowing = [v for v in list(seeds)[:carries] if v.dtype.is_inexact]
    stacked = dict(zip(step.inputs[consts:fixed], history[:carries], strict=True))
    stacked.update(zip(step.inputs[count + len(gs) :], history[carries:], strict=True))
    stacked.update(zip(step.inputs[fixed:count], operands[fixed:], strict=True))
    stacked.update((v, seeds[v]) for v in list(seeds)[carries:] if v.dtype.is_inexact)
    slices = list(stacked)
    held = sum(i < consts for i in wrt)
    ys = step.outputs[held + len(flowing) :]
    late = _Late.of(step, held, step.inputs[:consts], {*slices, *ys})
    sums = late.summed(step)
    found = tupled(
        scan(
            *operands[:consts],
            *(seeds[v] for v in flowing),
            *(operands[wrt[i]].full(0) for i in sums),
            *stacked.values(),
            body=_reverse_body(step, step.inputs[:consts], flowing, slices, late),
            carries=len(flowing) + len(sums),
            reverse=not reverse,
            **options,
        )
    )
    turned = found[len(flowing) + len(sums) :]
    stacked.update(zip((*ys, *late.stacked), turned, strict=True))
    of_consts = late.gradients(stacked) | dict(zip(sums, found[len(flowing) :], strict=False))
    in_order = [of_consts[i] for i in range(held)]
    in_order += [*found[: len(flowing)], *turned[: len(ys)]]
    by_operand = dict(zip(wrt, in_order, strict=True))
    return tuple(by_operand.get(i) for i in range(count))


scan = Op(
    "scan",
    "control",
    _scan_type,
    vjp=_scan_vjp,
    doc="folds `body(consts, carries, slices) -> (carries, ys)`; last carries, stacked ys",
)
