"""Scalarization: a short last dimension (the x, y, z of points) becomes values of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracecc_ir.graph import Builder, Graph, Node, Value, rebuild
from tracecc_ir.op import Expr
from tracecc_ir.ops import add, concat, constant, maximum, minimum, mul, reshape, slice
from tracecc_ir.passes.dce import dce
from tracecc_ir.passes.fuse_space import is_complex
from tracecc_ir.types import Shape

LONGEST = 4
# Work on fewer elements stays as it is: there is no long loop to gain.
LEAST = 512
# Values joined again afterwards are smaller than the largest one inside by this factor.
SMALLER = 8
_JOINS: dict[str, Callable[[Expr, Expr], Expr]] = {
    "reduce_sum": add,
    "reduce_prod": mul,
    "reduce_max": maximum,
    "reduce_min": minimum,
}


def scalarize(graph: Graph) -> Graph:
    """Splits elementwise work that ends in reductions along a last dimension of 2 to 4 elements.

    Loops then run along a long dimension, and a sum over the short one is a few additions.

    Before::

        graph main(%x: f32[512, 2]) {
          %0 = mul(%x, %x) : f32[512, 2]
          %1 = reduce_sum(%0) axes=(1,) : f32[512]
          return %1
        }

    After::

        graph main(%x: f32[512, 2]) {
          %0 = slice(%x) limits=(512, 1) : f32[512, 1]
          %1 = slice(%x) starts=(0, 1) : f32[512, 1]
          %2 = reshape(%0) : f32[512]
          %3 = reshape(%1) : f32[512]
          %4 = mul(%2, %2) : f32[512]
          %5 = mul(%3, %3) : f32[512]
          %6 = add(%4, %5) : f32[512]
          return %6
        }
    """
    chosen = _chosen(graph)
    if not chosen:
        return graph
    users, results = graph.users(), set(graph.results())
    new: dict[Value, Value] = {}
    parts: dict[Value, list[Expr]] = {}

    def visit(b: Builder, node: Node, inputs: Sequence[Value]) -> tuple[Value, ...] | None:
        new.update(zip(node.inputs, inputs, strict=True))
        if node not in chosen:
            return None
        if _sums_last(node):
            return (_reduced(b, node).value,)
        v = node.output
        outside = v in results or any(
            u not in chosen or v not in _split(u) for u in users.get(v, ())
        )
        if not outside:
            return None
        pieces = [reshape(e, shape=(*e.shape, 1)) for e in pieces_of(b, v)]
        return (concat(*pieces, axis=v.type.ndim - 1).value,)

    def pieces_of(b: Builder, v: Value) -> list[Expr]:
        """The values along the last dimension."""
        if v not in parts:
            inside = v.node is not None and v.node in chosen and not _sums_last(v.node)
            parts[v] = _pieces(b, v.node) if inside else _slices(b.expr(new[v]))  # type: ignore[arg-type]
        return parts[v]

    def _pieces(b: Builder, node: Node) -> list[Expr]:
        v, name, attrs = node.output, node.op.name, dict(node.attrs)
        count = _length(v.shape)
        split = _split(node)
        operands = [
            pieces_of(b, x) if x in split else [b.expr(new[x])] * count for x in node.inputs
        ]
        if name in ("broadcast", "constant"):
            attrs["shape"] = v.shape[:-1]
        if name == "broadcast" and split:
            attrs["axes"] = attrs["axes"][:-1]
        if name == "permute":
            attrs["axes"] = attrs["axes"][:-1]
        if name == "constant":
            return [b.expr(*b.emit(constant, (), attrs))] * count
        return [node.op(*xs, **attrs) for xs in zip(*operands, strict=True)]

    def _reduced(b: Builder, node: Node) -> Expr:
        (x,) = node.inputs
        total, *rest = pieces_of(b, x)
        for piece in rest:
            total = _JOINS[node.op.name](total, piece)
        axes = tuple(a for a in node.attrs["axes"] if a != x.type.ndim - 1)
        return node.op(total, axes=axes) if axes else total

    return dce(rebuild(graph, visit))


def _length(shape: Shape) -> int:
    last = shape[-1]
    assert isinstance(last, int)
    return last


def _slices(x: Expr) -> list[Expr]:
    rest, count = x.shape[:-1], _length(x.shape)
    low, ones = (0,) * len(rest), (1,) * (len(rest) + 1)
    pieces = [slice(x, starts=(*low, k), limits=(*rest, k + 1), strides=ones) for k in range(count)]
    return [reshape(p, shape=tuple(rest)) for p in pieces]


def _short(v: Value) -> bool:
    kind = v.dtype.name in ("f32", "f64", "i32", "i64", "bool")
    last = v.shape[-1] if v.shape else 0
    return kind and v.type.ndim > 1 and isinstance(last, int) and 2 <= last <= LONGEST


def _sums_last(node: Node) -> bool:
    """Whether a reduction ends the short dimension."""
    return node.op.name in _JOINS and node.inputs[0].type.ndim - 1 in node.attrs["axes"]


def _split(node: Node) -> list[Value]:
    """The operands that are read piece by piece."""
    if node.op.name == "broadcast":
        (x,) = node.inputs
        last = node.output.type.ndim - 1
        kept = bool(node.attrs["axes"]) and node.attrs["axes"][-1] == last
        return [x] if kept else []
    return list(node.inputs)


def _candidate(node: Node) -> bool:
    name = node.op.name
    if name in _JOINS:
        (x,) = node.inputs
        return _short(x) and x.dtype.name != "bool"
    if name == "permute":
        return _short(node.output) and node.attrs["axes"][-1] == node.output.type.ndim - 1
    if is_complex(node):
        return False
    elementwise = node.op.kind == "elementwise" and bool(node.inputs)
    return (elementwise or name in ("broadcast", "constant")) and _short(node.output)


def _chosen(graph: Graph) -> set[Node]:
    """The nodes of every connected part that gains."""
    group: dict[Node, list[Node]] = {n: [n] for n in graph.nodes if _candidate(n)}
    for node in list(group):
        for v in _split(node):
            if v.node in group and not _sums_last(v.node) and group[v.node] is not group[node]:
                merged = group[v.node] + group[node]
                group.update(dict.fromkeys(merged, merged))
    users, results = graph.users(), set(graph.results())
    chosen: set[Node] = set()
    for nodes in {id(g): g for g in group.values()}.values():
        inside = set(nodes)
        if not any(n.op.name in _JOINS for n in nodes):
            continue
        largest = max(v.type.size for n in nodes for v in (*n.outputs, *n.inputs))  # type: ignore[type-var]
        if largest < LEAST:  # type: ignore[operator]
            continue
        leaving = [
            n.output
            for n in nodes
            if not _sums_last(n)
            and (
                n.output in results
                or any(
                    u not in inside or n.output not in _split(u) for u in users.get(n.output, ())
                )
            )
        ]
        if all(v.type.size * SMALLER <= largest for v in leaving):  # type: ignore[operator]
            chosen |= inside
    return chosen
