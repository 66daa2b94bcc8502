"""Complex arithmetic as arithmetic on real and imaginary parts, which fuses like any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tracecc_ir.dims import Dim
from tracecc_ir.graph import HOLDERS, Builder, Graph, Node, Value, rebuild
from tracecc_ir.op import Expr, Op
from tracecc_ir.ops import (
    bit_and,
    bit_or,
    broadcast,
    cast,
    complex,
    eq,
    imag,
    iota,
    ne,
    real,
    reshape,
    select,
    slice,
)
from tracecc_ir.passes.dce import dce
from tracecc_ir.types import bool_, i64


class Pair(NamedTuple):
    """The parts of a complex value.

    Attributes:
        re: the real part.
        im: the imaginary part; None where it is zero because real numbers were converted.
    """

    re: Expr
    im: Expr | None

    def imag(self) -> Expr:
        """The imaginary part."""
        return self.re.full(0.0) if self.im is None else self.im


def split_complex(graph: Graph) -> Graph:
    """Computes with pairs of real values wherever that takes fewer steps outside of loops.

    Loops have no complex numbers: each complex operation is a step of its own. What only such steps
    compute (transforms, products of matrices) stays, and takes and gives complex values.

    Before::

        graph main(%x: f32[8, 2], %a: f32[8]) {
          %z = view_as_complex(%x) : c64[8]
          %t = cast(%a) : c64[8]
          %s = mul(%z, %t) : c64[8]
          %c = conj(%s) : c64[8]
          %y = imag(%c) : f32[8]
          return %y
        }

    After::

        graph main(%x: f32[8, 2], %a: f32[8]) {
          %0 = slice(%x) starts=(0, 1) : f32[8, 1]
          %1 = reshape(%0) : f32[8]
          %2 = mul(%1, %a) : f32[8]
          %y = neg(%2) : f32[8]
          return %y
        }
    """
    chosen = _chosen(graph)
    if not chosen and all(n.op.kind not in HOLDERS for n in graph.nodes):
        return graph
    pairs: dict[Value, Pair] = {}
    wanted = {v for n in graph.nodes if n not in chosen for v in n.inputs} | set(graph.results())

    def visit(b: Builder, node: Node, inputs: Sequence[Value]) -> Sequence[Value] | None:
        if node not in chosen:
            return None

        def operand(old: Value, new: Value) -> Expr | Pair:
            if not old.dtype.is_complex:
                return b.expr(new)
            if old not in pairs:
                pairs[old] = Pair(real(b.expr(new)), imag(b.expr(new)))
            return pairs[old]

        operands = [operand(*v) for v in zip(node.inputs, inputs, strict=True)]
        found = RULES[node.op.name](node, b, *operands, **node.attrs)
        if isinstance(found, Expr):
            return (found.value,)
        pairs[node.output] = found
        whole = complex(found.re, found.imag()) if node.output in wanted else found.re
        return (whole.value,)

    found = rebuild(graph, visit, regions=split_complex)
    return dce(found) if chosen else found


# What can be split, and where that is worth it.


def _chosen(graph: Graph) -> set[Node]:
    """The nodes of every connected part that has more steps than values on its border."""
    candidates = [n for n in graph.nodes if _splits(n)]
    part: dict[Node, list[Node]] = {n: [n] for n in candidates}
    for node in candidates:
        for v in node.inputs:
            if v.dtype.is_complex and v.node in part and part[v.node] is not part[node]:
                merged = part[v.node] + part[node]
                part.update(dict.fromkeys(merged, merged))
    users, results = graph.users(), set(graph.results())
    chosen: set[Node] = set()
    for nodes in {id(p): p for p in part.values()}.values():
        inside = set(nodes)
        entering = {v for n in nodes for v in n.inputs if v.dtype.is_complex} - {
            n.output for n in nodes
        }
        leaving = [
            n
            for n in nodes
            if n.output.dtype.is_complex
            and (n.output in results or any(u not in inside for u in users.get(n.output, ())))
        ]
        if len(nodes) > 2 * len(entering) + len(leaving):
            chosen |= inside
    return chosen


def _splits(node: Node) -> bool:
    if not any(v.dtype.is_complex for v in (*node.inputs, *node.outputs)):
        return False
    if node.op.name == "constant":
        return not isinstance(node.attrs["value"], Dim)
    return node.op.name in RULES and (node.op.name != "div" or _is_real(node.inputs[1]))


def _is_real(v: Value) -> bool:
    """Whether a complex value is known to have no imaginary part."""
    if v.node is None:
        return False
    if v.node.op.name == "constant":
        return _splits(v.node) and v.node.attrs["value"].imag == 0
    if v.node.op.name in ("broadcast", "reshape"):
        return _is_real(v.node.inputs[0])
    return v.node.op.name == "cast" and not v.node.inputs[0].dtype.is_complex


# One rule per op: from the node, the builder, its operands and attributes to a Pair or a real Expr.


def _both(x: Pair, y: Pair, join: Callable[[Expr, Expr], Any]) -> Pair:
    """One operation on the real and on the imaginary parts."""
    im = None if x.im is None and y.im is None else join(x.imag(), y.imag())
    return Pair(join(x.re, y.re), im)


def _moved(node: Node, b: Builder, *operands: Any, **attrs: Any) -> Pair:
    """The op itself on each part."""

    def part(take: Callable[[Pair], Expr]) -> Expr:
        return node.op(*(take(x) if isinstance(x, Pair) else x for x in operands), **attrs)

    plain = all(x.im is None for x in operands if isinstance(x, Pair))
    return Pair(part(lambda x: x.re), None if plain else part(Pair.imag))


def _constant(node: Node, b: Builder, value: Any, **attrs: Any) -> Pair:
    dtype = attrs.pop("dtype").to_real()

    def number(part: float) -> Expr:
        return b.expr(*b.emit(node.op, (), {"value": part, "dtype": dtype, **attrs}))

    return Pair(number(value.real), number(value.imag) if value.imag else None)


def _add(node: Node, b: Builder, x: Pair, y: Pair) -> Pair:
    if x.im is None or y.im is None:
        return Pair(x.re + y.re, y.im if x.im is None else x.im)
    return _both(x, y, Expr.__add__)


def _mul(node: Node, b: Builder, x: Pair, y: Pair) -> Pair:
    if y.im is None:
        return Pair(x.re * y.re, None if x.im is None else x.im * y.re)
    if x.im is None:
        return Pair(x.re * y.re, x.re * y.im)
    return Pair(x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re)


def _compared(op: Op, join: Op) -> Callable[..., Expr]:
    return lambda node, b, x, y: join(op(x.re, y.re), op(x.imag(), y.imag()))


def _cast(node: Node, b: Builder, x: Expr | Pair, dtype: Any) -> Expr | Pair:
    if isinstance(x, Expr):
        return Pair(_as(x, dtype.to_real()), None)
    if dtype is bool_:
        return bit_or(x.re.ne(0.0), x.imag().ne(0.0))
    re = _as(x.re, dtype.to_real())
    if not dtype.is_complex:
        return re
    return Pair(re, None if x.im is None else _as(x.im, dtype.to_real()))


def _as(x: Expr, dtype: Any) -> Any:
    return x if x.dtype is dtype else cast(x, dtype=dtype)


def _side_by_side(node: Node, b: Builder, x: Pair) -> Any:
    shape = node.output.shape
    axes = tuple(range(len(shape) - 1))
    re, im = (broadcast(part, shape=shape, axes=axes) for part in (x.re, x.imag()))
    return select(iota(like=re, shape=shape, axis=len(shape) - 1, dtype=i64).eq(0), re, im)


def _of_pairs(node: Node, b: Builder, x: Expr) -> Pair:
    rest = x.shape[:-1]
    low, ones = (0,) * len(rest), (1,) * x.ndim
    parts = (slice(x, starts=(*low, k), limits=(*rest, k + 1), strides=ones) for k in range(2))
    return Pair(*(reshape(p, shape=rest) for p in parts))


def _select(node: Node, b: Builder, condition: Expr, x: Pair, y: Pair) -> Pair:
    return _both(x, y, lambda p, q: select(condition, p, q))


def _opposite(x: Expr | None) -> Any:
    return None if x is None else -x


RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("reshape", "permute", "broadcast", "slice", "flip", "reduce_sum"), _moved),
    "constant": _constant,
    "add": _add,
    "sub": lambda node, b, x, y: _both(x, y, Expr.__sub__),
    "mul": _mul,
    "square": lambda node, b, x: _mul(node, b, x, x),
    "div": lambda node, b, x, y: Pair(x.re / y.re, None if x.im is None else x.im / y.re),
    "neg": lambda node, b, x: Pair(-x.re, _opposite(x.im)),
    "conj": lambda node, b, x: Pair(x.re, _opposite(x.im)),
    "select": _select,
    "cast": _cast,
    "eq": _compared(eq, bit_and),
    "ne": _compared(ne, bit_or),
    "real": lambda node, b, x: x.re,
    "imag": lambda node, b, x: x.imag(),
    "complex": lambda node, b, x, y: Pair(x, y),
    "view_as_real": _side_by_side,
    "view_as_complex": _of_pairs,
}
