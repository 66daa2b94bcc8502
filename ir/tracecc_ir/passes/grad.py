"""Symbolic differentiation: the reverse walk over a graph, which knows no op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.graph import Builder, Graph, Node, Update, Value, rebuild, replay
from tracecc_ir.op import OPS, Attrs, Expr, Op
from tracecc_ir.types import TensorType


def expand_vjp(graph: Graph) -> Graph:
    """Opens every `vjp` node by the derivative rule of its op; an absent gradient is zeros.

    Before::

        graph main(%x: f32[3], %g: f32[3]) {
          %y = exp(%x) : f32[3]
          %d = vjp exp(%x, %y, %g) wrt=(0,) : f32[3]
          return %d
        }

    After::

        graph main(%x: f32[3], %g: f32[3]) {
          %y = exp(%x) : f32[3]
          %d = mul(%g, %y) : f32[3]
          return %d
        }
    """

    def visit(b: Builder, node: Node, inputs: Sequence[Value]) -> list[Value] | None:
        if node.op.name != "vjp":
            return None
        decomposition = node.op.decomposition
        assert decomposition is not None
        found = decomposition(*map(b.expr, inputs), **node.attrs)
        return [e.value for e in found] if isinstance(found, tuple) else [found.value]

    opened = rebuild(graph, visit, regions=expand_vjp)
    return expand_vjp(opened) if any(n.op.name == "vjp" for n in opened.nodes) else opened


def gradient(graph: Graph, wrt: Sequence[int]) -> Graph:
    """The graph of a vector-Jacobian product.

    Args:
        graph: what to differentiate; its updates are left out.
        wrt: indices of the float inputs whose gradients are wanted.

    Returns:
        A graph with the inputs of ``graph`` and then one cotangent per output; it returns one
        gradient per entry of ``wrt`` (zeros where nothing flows).

    Raises:
        NotDifferentiable: an op on the way has no derivative rule.
    """
    graph = expand_vjp(graph)
    b = Builder(graph.name + "_grad")
    inputs = [b.input(v.type, v.name) for v in graph.inputs]
    state = [b.state(s.value.type, s.label, s.value.name) for s in graph.state]
    copied = b.inline(graph, inputs + state)[: len(graph.outputs)]
    seeds = [b.input(v.type, f"{v.name}.g" if v.name else "") for v in graph.outputs]
    targets = [inputs[i] for i in wrt]
    found = differentiate(b, list(zip(copied, seeds, strict=True)), targets)
    b.loc = None
    b.graph.outputs = [
        zeros(b, t.type) if f is None else f for f, t in zip(found, targets, strict=True)
    ]
    b.graph.updates = list[Update]()
    return b.graph


def differentiate(
    b: Builder, seeds: Sequence[tuple[Value, Value]], targets: Sequence[Value]
) -> list[Value | None]:
    """Appends the reverse walk to a builder's graph.

    Args:
        b: holds the forward nodes.
        seeds: values of the graph with their cotangents.
        targets: the values whose gradients are wanted.

    Returns:
        One gradient per target; None where nothing flows.
    """
    live = {t for t in targets if _is_inexact(t)}
    for node in b.graph.nodes:
        if node.op.differentiable and any(v in live for v in node.inputs):
            live.update(v for v in node.outputs if _is_inexact(v))
    grads: dict[Value, Value] = {}
    for value, g in seeds:
        if value in live:
            _add(b, grads, value, g)
    for node in reversed(list(b.graph.nodes)):
        if any(v in grads for v in node.outputs):
            _step(b, node, live, grads)
    return [grads.get(t) for t in targets]


def _step(b: Builder, node: Node, live: set[Value], grads: dict[Value, Value]) -> None:
    """Sends the cotangents of a node's outputs on to its operands."""
    wanted = [v in live for v in node.inputs]
    if not any(wanted):
        return
    b.loc = node.loc._replace(grad=True) if node.loc is not None else None
    gs = [b.expr(grads[v] if v in grads else zeros(b, v.type)) for v in node.outputs]
    outs, xs = [b.expr(v) for v in node.outputs], [b.expr(v) for v in node.inputs]
    found = node.op.gradients(wanted, gs, outs, xs, node.attrs)
    for value, g in zip(node.inputs, found, strict=True):
        if g is None:
            continue
        if g.type != value.type:
            raise TypeRuleError(
                f"the derivative rule of {node.op.name} gave {g.type} for an operand {value.type}"
            )
        _add(b, grads, value, g.value)


def _add(b: Builder, grads: dict[Value, Value], value: Value, g: Value) -> None:
    if value in grads:
        g = (b.expr(grads[value]) + b.expr(g)).value
    if not g.name and g.node is not None and value.name:
        g.name = f"{value.name.removesuffix('.g')}.g"
    grads[value] = g


def _is_inexact(v: Value) -> bool:
    return v.type.dtype.is_inexact


def zeros(b: Builder, type: TensorType) -> Value:
    attrs = {"value": 0, "shape": type.shape, "dtype": type.dtype}
    return b.emit(OPS["constant"], (), attrs)[0]


class Derived:
    """A derivative rule made by differentiating the op's decomposition, once per operand types."""

    def __init__(self) -> None:
        self._graphs: dict[Any, Graph] = {}

    def gradients(
        self, op: Op, wanted: Sequence[bool], gs: Sequence[Expr], xs: Sequence[Expr], attrs: Attrs
    ) -> list[Expr | None]:
        """As `Op.gradients`; the results of the op are recomputed where they are needed."""
        wrt = [i for i, w in enumerate(wanted) if w and xs[i].dtype.is_inexact]
        if not wrt:
            return [None] * len(xs)
        types = tuple(x.type for x in xs)
        key = (op.name, types, tuple(wrt), tuple((k, type(a), a) for k, a in attrs.items()))
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = _prune(gradient(_opened(op, types, attrs), wrt))
        found = dict(zip(wrt, replay(graph, [*xs, *gs]), strict=True))
        return [found.get(i) for i in range(len(xs))]


def _opened(op: Op, types: Sequence[TensorType], attrs: Attrs) -> Graph:
    """The op's decomposition as a graph."""
    b = Builder(op.name)
    xs = [b.expr(b.input(t)) for t in types]
    assert op.decomposition is not None
    made = op.decomposition(*xs, **attrs)
    b.graph.outputs = [e.value for e in (made if isinstance(made, tuple) else (made,))]
    return b.graph


def _prune(graph: Graph) -> Graph:
    """Leaves out the nodes that no result needs."""
    needed = {v.node for v in graph.results()}
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(v.node for v in node.inputs)
    graph.nodes = [n for n in graph.nodes if n in needed]
    return graph
