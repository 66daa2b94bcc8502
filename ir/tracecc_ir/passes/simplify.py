"""Algebraic simplification: runs the table of rules in `rules.py` wherever they match."""

from __future__ import annotations

from collections.abc import Sequence

from tracecc_ir.graph import Builder, Graph, Value, rebuild
from tracecc_ir.op import Attrs, Op
from tracecc_ir.passes.fold import folded
from tracecc_ir.passes.rules import ELEMENTWISE_RULES, RULES


def simplify(graph: Graph) -> Graph:
    """Rewrites until no rule matches. No rule changes NaN, infinity or the sign of zero.

    Before::

        graph main(%x: f32[3, 2]) {
          %a = permute(%x) axes=(1, 0) : f32[2, 3]
          %b = permute(%a) axes=(1, 0) : f32[3, 2]
          %c = mul(%b, 1.0) : f32[3, 2]
          %d = neg(%c) : f32[3, 2]
          %e = add(%x, %d) : f32[3, 2]
          return %e
        }

    After (and dce)::

        graph main(%x: f32[3, 2]) {
          %e = sub(%x, %x) : f32[3, 2]
          return %e
        }
    """
    return rebuild(
        graph,
        lambda b, node, inputs: rewritten(b, node.op, inputs, node.attrs),
        Simplifier(graph.name),
        regions=simplify,
    )


class Simplifier(Builder):
    """Applies the rules to every node that it is asked to emit, those of rules included."""

    def emit(
        self, op: Op, inputs: Sequence[Value], attrs: Attrs, names: Sequence[str] = ()
    ) -> tuple[Value, ...]:
        found = rewritten(self, op, inputs, op.bind(attrs))
        return super().emit(op, inputs, attrs, names) if found is None else tuple(found)


def rewritten(b: Builder, op: Op, inputs: Sequence[Value], attrs: Attrs) -> Sequence[Value] | None:
    """What the first matching rule gives for a node, or None."""
    made_by = [v.node and v.node.op.name for v in inputs]
    if inputs and made_by.count("constant") == len(inputs):
        types = op.result_types([v.type for v in inputs], attrs)
        found = folded(b, op, inputs, attrs, types)
        if found is not None:
            return found
    rules, spread = RULES.get(op.name, ()), op.kind == "elementwise" and "broadcast" in made_by
    if not rules and not spread:
        return None
    xs = [b.expr(v) for v in inputs]
    for rule in rules:
        made = rule(*xs, **attrs)
        if made is not None:
            return (made.value,)
    if spread:
        for general in ELEMENTWISE_RULES:
            made = general(op, xs, attrs)
            if made is not None:
                return (made.value,)
    return None
