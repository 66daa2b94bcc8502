"""Random graphs mean the same before and after every pass, and their text parses back exactly.

TRACECC_RANDOM_GRAPHS sets how many graphs each test draws (100 by default).
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_graphs import Drawn, array, graphs

from tracecc_ir.graph import Graph
from tracecc_ir.interpret import interpret
from tracecc_ir.passes.grad import gradient
from tracecc_ir.passes.pipeline import PASSES, STAGES
from tracecc_ir.text import parse, print_graph
from tracecc_ir.verify import verify

COUNT = int(os.environ.get("TRACECC_RANDOM_GRAPHS", "100"))


@pytest.fixture(autouse=True)
def small_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes with a least size work on these small graphs as well."""
    monkeypatch.setattr("tracecc_ir.passes.scalarize.LEAST", 0)


many = settings(
    max_examples=COUNT,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def check(before: Graph, inputs: list, state: list) -> None:
    """Every pass alone and the pipeline in order leave outputs and updates as they were."""
    expected = interpret(before, inputs, state)
    # Passes may change the order of a sum, so that a double that came from floats differs as they.
    made_of_f32 = any(v.dtype.name == "f32" for n in before.nodes for v in (*n.inputs, *n.outputs))
    tolerance = 2e-4 if made_of_f32 else 1e-9
    alone = [(name, each(before)) for name, each in PASSES.items() if name != "fuse"]
    graph, after = before, []
    for stage in STAGES:
        for each in stage.passes:
            graph = each(graph)
        after.append((stage.name, graph))
    for name, made in (*alone, *after):
        verify(made)
        text = print_graph(made)
        assert print_graph(parse(text)) == text, name
        found = interpret(made, inputs, state)
        for wanted, got in zip((*expected[0], *expected[1]), (*found[0], *found[1]), strict=True):
            np.testing.assert_allclose(got, wanted, tolerance, tolerance, err_msg=name)


@many
@given(graphs())
def test_every_pass_keeps_values_and_updates(drawn: Drawn) -> None:
    check(drawn.graph, drawn.inputs, drawn.state)


@many
@given(graphs(size=6))
def test_every_pass_keeps_gradients(drawn: Drawn) -> None:
    graph = gradient(drawn.graph, drawn.floats())
    rng = np.random.default_rng(0)
    seeds = [array(rng, v.type) for v in drawn.graph.outputs]
    check(graph, [*drawn.inputs, *seeds], drawn.state)


@pytest.mark.parametrize("name", sorted(set(PASSES) - {"fuse"}))
def test_a_pass_leaves_its_argument_alone(name: str) -> None:
    graph = parse(
        "graph f(%x: f32[3]) { %y = mul(%x, 1.0) : f32[3] %z = silu(%y) : f32[3] return %z }"
    )
    text = print_graph(graph)
    PASSES[name](graph)
    assert print_graph(graph) == text
