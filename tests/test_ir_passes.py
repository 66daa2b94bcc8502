"""The before and after of each pass's docstring; derivatives of small networks come out lean."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections import Counter

import numpy as np
import pytest

from tracecc_ir import ops
from tracecc_ir.errors import IRError, NotDifferentiable, VerifyError
from tracecc_ir.graph import Builder, Graph
from tracecc_ir.interpret import interpret
from tracecc_ir.passes import pipeline
from tracecc_ir.passes.grad import gradient
from tracecc_ir.text import parse, print_graph
from tracecc_ir.types import TensorType, f32, i64

OWN = ("expand_vjp", "simplify", "fold", "cse", "dce", "decompose", "split_complex", "scalarize")


@pytest.mark.parametrize("name", OWN)
def test_the_docstring_of_a_pass_is_true(name: str) -> None:
    each = pipeline.PASSES[name]
    doc = inspect.getdoc(each) or ""
    before, after = (
        textwrap.dedent(block).strip() + "\n"
        for block in re.findall(r"^(?:Before|After)[^\n]*::\n\n((?:    .*\n?)+)", doc, re.MULTILINE)
    )
    assert print_graph(parse(before)) == before
    result = each(parse(before))
    if name in ("simplify", "fold"):
        result = pipeline.PASSES["dce"](result)
    assert print_graph(result) == after


def mlp() -> Graph:
    b = Builder("mlp")
    x = b.expr(b.input(TensorType(f32, (8, 5)), "x"))
    y = b.expr(b.input(TensorType(i64, (8,)), "y"))
    w, c = (b.expr(b.input(TensorType(f32, s), n)) for s, n in (((6, 5), "w"), ((6,), "b")))
    v = b.expr(b.input(TensorType(f32, (3, 6)), "v"))
    plain = {"contract": ((1,), (0,)), "batch": ((), ())}
    h = ops.dot_general(x, ops.permute(w, axes=(1, 0)), **plain)
    h = ops.relu(h + ops.broadcast(c, shape=(8, 6), axes=(1,)))
    z = ops.dot_general(h, ops.permute(v, axes=(1, 0)), **plain)
    b.graph.outputs = [ops.cross_entropy(z, y).value]
    return gradient(b.graph, [2, 3, 4])


def test_the_gradient_of_an_mlp_has_no_transposes_and_five_products() -> None:
    graph = dict(pipeline.run(mlp(), until="simplified"))["simplified"]
    count = Counter(n.op.name for n in graph.nodes)
    assert (count["dot_general"], count["permute"], count["reshape"]) == (5, 0, 0)
    assert len(graph.nodes) - count["constant"] <= 26


def test_every_stage_of_the_pipeline_computes_the_same() -> None:
    graph = mlp()
    rng = np.random.default_rng(1)
    inputs = [
        np.asarray(rng.integers(0, 3, v.shape))
        if v.dtype is i64
        else rng.standard_normal(v.shape).astype(np.float32)
        for v in graph.inputs
    ]
    expected = interpret(graph, inputs)[0]
    for name, made in pipeline.run(graph):
        for got, wanted in zip(interpret(made, inputs)[0], expected, strict=True):
            np.testing.assert_allclose(got, wanted, 1e-5, 1e-6, err_msg=name)


def test_adding_zero_keeps_the_sign_of_zero() -> None:
    graph = parse("graph f(%x: f32[1]) { %y = add(%x, 0.0) : f32[1] return %y }")
    (got,) = interpret(pipeline.PASSES["simplify"](graph), [np.array([-0.0], np.float32)])[0]
    assert not np.signbit(got[0])
    graph = parse("graph f(%x: f32[1]) { %y = add(%x, -0.0) : f32[1] return %y }")
    kept = pipeline.PASSES["simplify"](graph)
    assert kept.outputs == kept.inputs


def test_multiplying_by_zero_keeps_nan() -> None:
    graph = parse("graph f(%x: f32[1]) { %y = mul(%x, 0.0) : f32[1] return %y }")
    (got,) = interpret(pipeline.PASSES["simplify"](graph), [np.array([np.nan], np.float32)])[0]
    assert np.isnan(got[0])


def test_while_refuses_to_be_differentiated() -> None:
    graph = parse("""
        graph f(%x: f32[]) {
          %y = while(%x) : f32[] {
            condition(%a: f32[]) { %c = lt(%a, 9.0) : bool[] return %c }
            body(%a: f32[]) { %b = mul(%a, 2.0) : f32[] return %b }
          }
          return %y
        }""")
    assert interpret(graph, [np.array(1.5, np.float32)])[0][0] == 12
    with pytest.raises(NotDifferentiable, match="use scan"):
        gradient(graph, [0])


def test_the_pipeline_refuses_a_malformed_graph_and_an_unknown_stage() -> None:
    graph = parse("graph f(%x: f32[3]) { %y = exp(%x) : f32[4] return %y }")
    with pytest.raises(VerifyError, match=r"exp gives f32\[3\], but f32\[4\] is recorded"):
        pipeline.run(graph)
    with pytest.raises(IRError, match="no stage 'best'"):
        pipeline.run(mlp(), until="best")
