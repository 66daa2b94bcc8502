"""Scalarization: what is split, what stays, and that symbolic sizes pass."""

import numpy as np
import pytest

import tracecc as tc
from tracecc_ir.interpret import interpret
from tracecc_ir.parser import parse
from tracecc_ir.passes.scalarize import scalarize


@pytest.fixture(autouse=True)
def small_too(monkeypatch):
    monkeypatch.setattr("tracecc_ir.passes.scalarize.LEAST", 0)


PAIRS = """
graph pairs(%x: f32[6, 3]) {
  %a = broadcast(%x) axes=(0, 2) : f32[6, 6, 3]
  %b = broadcast(%x) axes=(1, 2) : f32[6, 6, 3]
  %d = sub(%a, %b) : f32[6, 6, 3]
  %s = mul(%d, %d) : f32[6, 6, 3]
  %r = REDUCE(%s) axes=(2,) : f32[6, 6]
  return %r
}"""


@pytest.mark.parametrize("reduce", ["reduce_sum", "reduce_prod", "reduce_max", "reduce_min"])
def test_a_reduction_over_a_short_dimension_is_spelled_out(reduce):
    graph = parse(PAIRS.replace("REDUCE", reduce))
    split = scalarize(graph)
    long = [n for n in split.nodes if n.op.name == "sub" and n.output.shape == (6, 6)]
    assert len(long) == 3
    assert not any(n.op.name.startswith("reduce") for n in split.nodes)
    x = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    (want,), _ = interpret(graph, [x])
    (got,), _ = interpret(split, [x])
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_sum_over_a_long_dimension_joins_small_results_again():
    graph = parse(
        "graph f(%x: f32[64, 3]) { %y = exp(%x) : f32[64, 3] "
        "%s = reduce_sum(%y) axes=(0,) : f32[3] return %s }"
    )
    # The result has one dimension, which is the short one: nothing is gained by splitting it.
    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    for made in (graph, scalarize(graph)):
        (got,), _ = interpret(made, [x])
        np.testing.assert_allclose(got, np.exp(x).sum(0), rtol=1e-5)


def test_large_results_stay_whole():
    graph = parse(
        "graph f(%x: f32[64, 3]) { %y = exp(%x) : f32[64, 3] "
        "%s = reduce_sum(%y) axes=(1,) : f32[64] return %s, %y }"
    )
    assert scalarize(graph) is graph


def test_little_work_stays_as_it_is(monkeypatch):
    monkeypatch.undo()
    graph = parse(PAIRS.replace("REDUCE", "reduce_sum"))
    assert scalarize(graph) is graph


def test_points_of_any_number_compile_and_agree_with_eager():
    def energy(x):
        d = x.unsqueeze(0) - x.unsqueeze(1)
        e = (1.0 / ((d * d).sum(-1) + 0.1).sqrt()).sum()
        return e.detach(), tc.autograd.grad(e, (x,))[0]

    for n in (1, 2, 17, 40):
        x = tc.randn(n, 3, requires_grad=True)
        for got, want in zip(tc.compile(energy)(x), energy(x), strict=True):
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-5, atol=1e-4)
