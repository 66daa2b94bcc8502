"""Winograd convolution: its transforms, values and gradients, blocks, threads and epilogues."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import tracecc as tc
import tracecc.nn.functional as F
from tracecc.backends.cpu import library, winograd
from tracecc.backends.cpu.winograd_transform import DATA, FILTER, RESULT, transform
from tracecc_ir import ops
from tracecc_ir.graph import Builder, Node
from tracecc_ir.interpret import evaluate
from tracecc_ir.types import TensorType, f32

# images, channels, outputs, height, width, padding
CASES = [
    (1, 16, 32, 8, 8, 1),
    (2, 16, 32, 9, 7, 1),
    (1, 3, 5, 4, 4, 1),
    (3, 20, 40, 13, 17, 0),
    (2, 33, 65, 10, 6, 2),
    (5, 24, 200, 12, 12, 1),
    (2, 17, 30, 5, 70, 1),
    (16, 8, 8, 4, 4, 1),
    (1, 16, 16, 1, 1, 1),
]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_pays", lambda *sizes: True)


def planned(op: str, arrays: tuple[np.ndarray, ...], padding: int, **sizes: tuple) -> Node:
    b = Builder("one")
    xs = [b.expr(b.input(TensorType(f32, a.shape), "x")) for a in arrays]
    made = getattr(ops, op)(
        *xs,
        **sizes,
        stride=(1, 1),
        padding=((padding, padding),) * 2,
        dilation=(1, 1),
        groups=1,
    )
    return made.value.node


def operands(case: tuple) -> dict[str, tuple]:
    n, c, o, h, w, p = case
    rng = np.random.default_rng(sum(case))
    x, k, g = (
        rng.standard_normal(s).astype(np.float32)
        for s in ((n, c, h, w), (o, c, 3, 3), (n, o, h + 2 * p - 2, w + 2 * p - 2))
    )
    return {
        "conv": ((x, k), {}),
        "conv_input_grad": ((g, k), {"x_spatial": (h, w)}),
        "conv_weight_grad": ((x, g), {"w_spatial": (3, 3)}),
    }


def test_the_transforms_compute_a_correlation_exactly():
    def combine(terms: list) -> Fraction:
        return sum((c * v for c, v in terms), Fraction(0))

    rng = np.random.default_rng(0)
    data = [[Fraction(int(v)) for v in row] for row in rng.integers(-9, 9, (6, 6))]
    taps = [[Fraction(int(v)) for v in row] for row in rng.integers(-9, 9, (3, 3))]
    d, g = transform(DATA, data, combine), transform(FILTER, taps, combine)
    products = [[a * b for a, b in zip(*rows, strict=True)] for rows in zip(d, g, strict=True)]
    for i, row in enumerate(transform(RESULT, products, combine)):
        for j, value in enumerate(row):
            direct = sum(data[i + a][j + b] * taps[a][b] for a in range(3) for b in range(3))
            assert value == direct


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("op", ["conv", "conv_input_grad", "conv_weight_grad"])
def test_values_are_near_those_of_a_direct_sum_in_double(op, case):
    arrays, sizes = operands(case)[op]
    node = planned(op, arrays, case[-1], **sizes)
    plan = library.plan(node)
    assert any("winograd" in s.kernel.name for s in plan.stages)
    (got,) = library.run_plan(node, plan, arrays)
    (want,) = evaluate(node.op, [a.astype(np.float64) for a in arrays], node.attrs)
    assert np.abs(got - want).max() <= 3e-6 * np.abs(want).max()


@pytest.mark.parametrize("op", ["conv", "conv_input_grad", "conv_weight_grad"])
def test_one_and_two_threads_give_the_same_bits(op):
    arrays, sizes = operands((9, 40, 70, 21, 18, 1))[op]
    node = planned(op, arrays, 1, **sizes)
    results = []
    for threads in (1, 2):
        tc.set_num_threads(threads)
        results.append(library.run_plan(node, library.plan(node), arrays)[0])
    np.testing.assert_array_equal(*results)


def test_filters_through_memory_and_in_place_give_the_same_bits(monkeypatch):
    arrays, _ = operands((9, 40, 70, 21, 18, 1))["conv"]
    node = planned("conv", arrays, 1)
    through = library.run_plan(node, library.plan(node), arrays)[0]
    monkeypatch.setattr(winograd, "LARGE", 0)
    monkeypatch.setattr(winograd, "MOST_AGAIN", 1000)
    np.testing.assert_array_equal(through, library.run_plan(node, library.plan(node), arrays)[0])


@pytest.mark.parametrize("size", [8, 9, 30, 70])
def test_an_epilogue_finishes_the_tiles(size):
    x, w, b = tc.randn(3, 16, size, size), tc.randn(40, 16, 3, 3), tc.randn(40)
    residual = tc.randn(3, 40, size, size)

    def step(x, w, b, r):
        return F.relu(F.conv2d(x, w, b, padding=1) + r)

    compiled = tc.compile(step)
    got = compiled(x, w, b, residual)
    assert "1 launches" in compiled.ir("scheduled")
    np.testing.assert_allclose(got.numpy(), step(x, w, b, residual).numpy(), atol=1e-4)
