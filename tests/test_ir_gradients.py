"""Derivatives of composites and control flow against finite differences, to second order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tracecc_ir.graph import Builder, Graph
from tracecc_ir.interpret import interpret
from tracecc_ir.op import Op, Sample
from tracecc_ir.ops import OPS
from tracecc_ir.passes.decompose import decompose
from tracecc_ir.passes.grad import gradient
from tracecc_ir.passes.pipeline import run
from tracecc_ir.text import parse
from tracecc_ir.types import TensorType, f64, type_of_array

COMPOSITES = [op for op in OPS.values() if op.kind == "composite" and op.differentiable]
SCAN = """
graph main(%p: bool[], %c: f64[3], %h: f64[3], %xs: f64[4, 3], %k: i64[]) {
  %f, %n, %ys = scan(%c, %h, %k, %xs) consts=1 carries=2 length=4 : f64[3], i64[], f64[4, 3] {
    body(%c: f64[3], %h: f64[3], %k: i64[], %x: f64[3]) {
      %a = mul(%h, %c) : f64[3]
      %b = tanh(%a) : f64[3]
      %d = add(%b, %x) : f64[3]
      %k2 = add(%k, 1) : i64[]
      %y = mul(%d, %h) : f64[3]
      return %d, %k2, %y
    }
  }
  %q = cond(%p, %f, %c) : f64[3] {
    then(%a: f64[3], %b: f64[3]) { %r = mul(%a, %b) : f64[3] return %r }
    otherwise(%a: f64[3], %b: f64[3]) { %r = sin(%a) : f64[3] return %r }
  }
  %z = call(%q, %ys) : f64[3] {
    %t = reduce_sum(%ys) axes=(0,) : f64[3]
    %u = mul(%t, %q) : f64[3]
    return %u
  }
  return %z
}"""


def check(graph: Graph, inputs: Sequence[np.ndarray], order: int, tolerance: float) -> None:
    """The derivative in a random direction equals the central difference; then the same of that."""
    rng = np.random.default_rng(order)
    wrt = [i for i, v in enumerate(graph.inputs) if v.dtype is f64]
    first = gradient(graph, wrt)
    weights = [rng.standard_normal(v.shape) for v in graph.outputs]
    direction = {i: rng.standard_normal(inputs[i].shape) for i in wrt}

    def total(step: float) -> float:
        moved = [x + step * direction[i] if i in direction else x for i, x in enumerate(inputs)]
        outs = interpret(graph, moved)[0]
        return sum(float((y * w).sum()) for y, w in zip(outs, weights, strict=True))

    expected = (total(1e-5) - total(-1e-5)) / 2e-5
    found = interpret(first, [*inputs, *weights])[0]
    along = sum(float((g * direction[i]).sum()) for g, i in zip(found, wrt, strict=True))
    assert along == pytest.approx(expected, rel=tolerance, abs=tolerance)
    if order > 1:
        check(first, [*inputs, *weights], order - 1, tolerance)


def samples(op: Op) -> list[Sample]:
    rng = np.random.default_rng(0)
    return list(op.samples(rng, f64)) if op.samples else [Sample((rng.standard_normal((3, 4)),))]


@pytest.mark.parametrize("op", COMPOSITES, ids=lambda op: op.name)
def test_composites_to_second_order(op: Op) -> None:
    for sample in samples(op):
        b = Builder(op.name)
        values = [b.input(type_of_array(x)) for x in sample.inputs]
        b.graph.outputs = [v for v in b.emit(op, values, sample.attrs) if v.dtype is f64]
        check(b.graph, sample.inputs, 2, 1e-5)


@pytest.mark.parametrize("op", COMPOSITES, ids=lambda op: op.name)
def test_the_rule_of_a_composite_agrees_with_its_decomposition(op: Op) -> None:
    rng = np.random.default_rng(3)
    for sample in samples(op):
        b = Builder(op.name)
        values = [b.input(type_of_array(x)) for x in sample.inputs]
        b.graph.outputs = list(b.emit(op, values, sample.attrs))
        wrt = [i for i, v in enumerate(values) if v.dtype is f64]
        arrays = [*sample.inputs, *(rng.standard_normal(v.shape) for v in b.graph.outputs)]
        ruled = interpret(gradient(b.graph, wrt), arrays)[0]
        derived = interpret(gradient(decompose(b.graph), wrt), arrays)[0]
        for a, c in zip(ruled, derived, strict=True):
            np.testing.assert_allclose(a, c, 1e-7, 1e-10)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("taken", [False, True])
def test_scan_cond_and_call_to_second_order(taken: bool, reverse: bool) -> None:
    text = SCAN.replace("length=4", "length=4 reverse=True") if reverse else SCAN
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal(s) for s in ((3,), (3,), (4, 3))]
    check(parse(text), [np.array(taken), *arrays, np.array(0)], 2, 1e-5)


def test_the_gradient_of_a_scan_runs_forward_once_and_back_once() -> None:
    graph = dict(run(gradient(parse(SCAN), [1, 2, 3]), until="simplified"))["simplified"]
    assert [n.op.name for n in graph.nodes].count("scan") == 2


RECURRENCE = """
graph recurrence(%w: f64[6, 6], %u: f64[2, 6], %h: f64[5, 6], %x: f64[4, 5, 2]) {
  %last, %all = scan(%w, %u, %h, %x) consts=2 carries=1 length=4 : f64[5, 6], f64[4, 5, 6] {
    body(%w: f64[6, 6], %u: f64[2, 6], %h: f64[5, 6], %x: f64[5, 2]) {
      %t = permute(%w) axes=(1, 0) : f64[6, 6]
      %a = dot_general(%h, %t) contract=((1,), (0,)) batch=((), ()) : f64[5, 6]
      %b = dot_general(%x, %u) contract=((1,), (0,)) batch=((), ()) : f64[5, 6]
      %s = add(%a, %b) : f64[5, 6]
      %y = tanh(%s) : f64[5, 6]
      return %y, %y
    }
  }
  return %last, %all
}
"""


@pytest.mark.parametrize("reverse", [False, True])
def test_the_gradient_of_a_weight_in_a_scan_is_one_product(reverse: bool) -> None:
    text = RECURRENCE.replace("length=4", "length=4 reverse=True") if reverse else RECURRENCE
    rng = np.random.default_rng(6)
    arrays = [rng.standard_normal(s) for s in ((6, 6), (2, 6), (5, 6), (4, 5, 2))]
    check(parse(text), arrays, 2, 1e-5)
    graph = dict(run(gradient(parse(text), [0, 1, 2, 3]), until="simplified"))["simplified"]
    products = [n.output.shape for n in graph.nodes if n.op.name == "dot_general"]
    assert sorted(products) == [(2, 6), (6, 6)]
    _, back = (n.attrs["body"] for n in graph.nodes if n.op.name == "scan")
    inside = [n.output.shape for n in back.nodes if n.op.name == "dot_general"]
    assert sorted(inside) == [(5, 2), (5, 6)]


def test_the_gradient_of_batch_norm_needs_two_sums() -> None:
    b = Builder("norm")
    values = [b.input(TensorType(f64, s)) for s in ((4, 3, 2), (3,), (3,))]
    b.graph.outputs = list(b.emit(OPS["batch_norm"], values, {})[:1])
    graph = dict(run(gradient(b.graph, [0, 1, 2]), until="simplified"))["simplified"]
    assert [n.op.name for n in graph.nodes].count("reduce_sum") == 2
