"""Constant folding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracecc_ir.graph import Builder, Graph, Node, Value, rebuild
from tracecc_ir.interpret import evaluate
from tracecc_ir.op import OPS, Attrs, Op
from tracecc_ir.types import TensorType

MOVES = frozenset(("reshape", "permute", "broadcast", "slice", "flip"))
PICKS = frozenset(("reduce_max", "reduce_min", "stop_gradient"))


def fold(graph: Graph) -> Graph:
    """Computes what depends on constants alone; a constant stays one number everywhere.

    Before::

        graph main(%x: f32[3]) {
          %a = 2.0 : f32[3]
          %b = exp2(%a) : f32[3]
          %c = mul(%x, %b) : f32[3]
          return %c
        }

    After (and dce)::

        graph main(%x: f32[3]) {
          %c = mul(%x, 4.0) : f32[3]
          return %c
        }
    """

    def visit(b: Builder, node: Node, inputs: Sequence[Value]) -> Sequence[Value] | None:
        return folded(b, node.op, inputs, node.attrs, [v.type for v in node.outputs])

    return rebuild(graph, visit, regions=fold)


def folded(
    b: Builder, op: Op, inputs: Sequence[Value], attrs: Attrs, types: Sequence[TensorType]
) -> Sequence[Value] | None:
    """The constant that an op on constants is, if it is one."""
    numbers = [number(v) for v in inputs]
    if not numbers or any(n is None for n in numbers) or op.name == "stop_gradient":
        return None
    if op.kind == "elementwise":
        arrays = [np.asarray(n).astype(v.dtype.numpy) for n, v in zip(numbers, inputs, strict=True)]
        return (splat(b, evaluate(op, arrays, attrs)[0].item(), types[0]),)
    same = len({repr(n) for n in numbers}) == 1
    if op.name in MOVES or op.name in PICKS or (op.name == "concat" and same):
        return (splat(b, numbers[0], types[0]),)
    if op.name == "pad" and repr(attrs["value"]) == repr(numbers[0]):
        return (splat(b, numbers[0], types[0]),)
    if op.name == "reduce_sum" and numbers[0] == 0:
        return (splat(b, 0, types[0]),)
    return None


def number(v: Value) -> Any:
    """The number that a value is everywhere, or None."""
    return v.node.attrs["value"] if v.node is not None and v.node.op.name == "constant" else None


def splat(b: Builder, number: Any, type: TensorType) -> Value:
    attrs = {"value": number, "shape": type.shape, "dtype": type.dtype}
    return b.emit(OPS["constant"], (), attrs)[0]
