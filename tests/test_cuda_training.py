"""A whole training step as CUDA kernels: the same schedule as on the CPU, in the simulator."""

import functools

import numpy as np
import pytest

import tracecc as tc
import tracecc.nn.functional as F
from tracecc import nn, optim
from tracecc.backends.cuda import compiler
from tracecc.backends.cuda.program import emit_program, execute, on_simulator
from tracecc.backends.schedule import schedule
from tracecc_ir.interpret import interpret
from tracecc_ir.passes import pipeline

LIBRARY = {"conv", "conv_weight_grad", "dot_general", "window_max", "scatter_along", "concat"}


def batch(size):
    rng = np.random.default_rng(size)
    return rng.random((size, 1, 8, 8)).astype(np.float32), rng.integers(0, 10, size)


@functools.cache
def traced(size=6):
    """The graph of one step of a small digits classifier: clipped gradients, Adam, dropout."""
    tc.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64, 10),
    )
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    @tc.compile
    def train_step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    train_step(*map(tc.tensor, batch(size)))
    return train_step.ir("traced")


def state_of(graph):
    rng = np.random.default_rng(1)
    return [
        np.asarray(rng.random(v.shape) if v.dtype.is_floating_point else np.zeros(v.shape)).astype(
            v.dtype.numpy
        )
        for v in (s.value for s in graph.state)
    ]


@functools.cache
def program(size=6):
    scheduled = schedule(pipeline.run(traced(size))[-1][1])
    return scheduled, emit_program(scheduled)


def test_a_training_step_equals_the_interpreter():
    graph, inputs = traced(), list(batch(6))
    state = state_of(graph)
    expected, updates = interpret(graph, inputs, [a.copy() for a in state])
    got = execute(*program(), inputs, state, on_simulator)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    place = {s.value: i for i, s in enumerate(graph.state)}
    assert len(updates) > 20
    for update, value in zip(graph.updates, updates, strict=True):
        np.testing.assert_allclose(state[place[update.state]], value, rtol=2e-5, atol=1e-6)


def test_only_what_a_library_does_is_left_to_the_host():
    steps = [step for step in program()[0].launches if step.body is None]
    assert {step.node.op.name for step in steps} <= LIBRARY


def test_a_short_last_batch_needs_no_new_kernel():
    texts, short = ({c.kernel.source for c in program(n)[1] if c is not None} for n in (6, 5))
    assert short == texts


@pytest.mark.skipif(bool(compiler.missing()), reason=compiler.missing())
def test_the_kernels_of_a_training_step_are_clean():
    kernels = {launch.kernel for launch in program()[1] if launch is not None}
    for i, kernel in enumerate(sorted(kernels, key=lambda k: k.source)):
        ptx = compiler.compile_ptx(kernel, compiler.CAPABILITIES[i % 3])
        assert compiler.lint(ptx, compiler.link(ptx), kernel.allows, 96) == [], kernel.name
