"""Random graphs compiled for the CPU give what the interpreter gives, values and gradients.

TRACECC_RANDOM_GRAPHS sets how many graphs each test draws (12 by default: every one is compiled).
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_graphs import Drawn, array, graphs

import tracecc as tc
from tracecc.compile import lower
from tracecc_ir.graph import Graph
from tracecc_ir.interpret import interpret
from tracecc_ir.passes.grad import gradient
from tracecc_ir.types import f64

COUNT = int(os.environ.get("TRACECC_RANDOM_GRAPHS", "12"))
many = settings(
    max_examples=COUNT,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def _threads():
    before = tc.get_num_threads()
    yield
    tc.set_num_threads(before)


def check(graph: Graph, inputs: list[np.ndarray], state: list[np.ndarray]) -> None:
    """Outputs and updates equal the interpreter's, and are the same bits on one and two threads."""
    outputs, updates = interpret(graph, inputs, state)
    expected = list(outputs)
    after = [np.array(a) for a in state]
    places = [s.value for s in graph.state]
    for update, value in zip(graph.updates, updates, strict=True):
        after[places.index(update.state)] = value
    expected += after
    executable = lower(graph)[1]
    found = []
    for threads in (1, 2):
        tc.set_num_threads(threads)
        held = [np.array(a) for a in state]
        found.append([np.array(a) for a in (*executable(inputs, held), *held)])
    for one, two in zip(*found, strict=True):
        assert one.tobytes() == two.tobytes()
    values = [v for node in graph.nodes for v in (*node.inputs, *node.outputs)]
    narrow = any(v.dtype.is_floating_point and v.dtype is not f64 for v in values)
    for got, wanted in zip(found[0], expected, strict=True):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        tolerance = 2e-4 if narrow else 1e-9
        np.testing.assert_allclose(got, wanted, tolerance, tolerance)


@many
@given(graphs())
def test_compiled_values_and_updates_equal_the_interpreter(drawn: Drawn) -> None:
    check(drawn.graph, drawn.inputs, drawn.state)


@many
@given(graphs(size=6))
def test_compiled_gradients_equal_the_interpreter(drawn: Drawn) -> None:
    graph = gradient(drawn.graph, drawn.floats())
    rng = np.random.default_rng(0)
    seeds = [array(rng, v.type) for v in drawn.graph.outputs]
    check(graph, [*drawn.inputs, *seeds], drawn.state)
