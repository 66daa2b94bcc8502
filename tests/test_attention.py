"""Attention as one streaming kernel: values, gradients, strides, threads, special values."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tracecc as tc
import tracecc.nn.functional as F
from tracecc.backends.cpu import attention, library
from tracecc.backends.cpu.attention_layout import adapt
from tracecc.compile import lower
from tracecc_ir.graph import Builder, Graph, Node
from tracecc_ir.interpret import evaluate, interpret
from tracecc_ir.op import OPS
from tracecc_ir.passes import pipeline
from tracecc_ir.passes.decompose import decompose
from tracecc_ir.types import type_of_array

SIZES = [(1, 1), (7, 7), (16, 16), (65, 65), (257, 257), (5, 140), (140, 5)]
FEATURES = [(1, 1), (5, 5), (16, 16), (64, 64), (80, 80), (32, 48)]


def drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(map(sum, shapes)))
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def node_of(name: str, arrays: list[np.ndarray], **attrs) -> Node:
    b = Builder(name)
    b.emit(OPS[name], [b.input(type_of_array(a)) for a in arrays], attrs)
    return b.graph.nodes[-1]


def planned(name: str, arrays: list[np.ndarray], **attrs) -> list[np.ndarray]:
    node = node_of(name, arrays, **attrs)
    plan = library.plan(node)
    assert plan is not None
    return library.run_plan(node, plan, arrays)


def exact(name: str, arrays: list[np.ndarray], **attrs) -> tuple[np.ndarray, ...]:
    wide = [a.astype(np.float64) for a in arrays]
    return evaluate(OPS[name], wide, OPS[name].bind(attrs))


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    """Within the tolerance of the largest entry of each row, as sums in f32 round."""
    scale = np.maximum(np.abs(expected).max(-1, keepdims=True), 1.0)
    assert (np.abs(found - expected) / scale).max() < tolerance


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients_agree_with_the_decomposition_in_double(sizes, causal):
    t, s = sizes
    for d, e in FEATURES:
        q, k, v, g = drawn((2, 3, t, d), (2, 3, s, d), (2, 3, s, e), (2, 3, t, e))
        y, lse = planned("attention", [q, k, v], causal=causal)
        expected = exact("attention", [q, k, v], causal=causal)
        close(y, expected[0])
        close(lse[..., None], expected[1][..., None])
        operands = [g, q, k, v, lse, (g * y).sum(-1)]
        found = planned("attention_grad", operands, causal=causal)
        for a, b in zip(found, exact("attention_grad", operands, causal=causal), strict=True):
            assert np.abs(a - b).max() < 4e-6 * max(1.0, np.abs(b).max())


@pytest.mark.oracle
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("t", [1, 16, 65, 257])
def test_compiled_eager_and_torch_agree(t, causal):
    torch = pytest.importorskip("torch")
    arrays = drawn((2, 2, t, 16), (2, 2, t, 16), (2, 2, t, 16), (2, 2, t, 16))

    def run(library, f):
        *xs, g = [library.from_numpy(a.copy()) for a in arrays]
        for x in xs:
            x.requires_grad_(True)
        y = f(*xs)
        (y * g).sum().backward()
        return [x.detach().numpy() for x in (y, *(x.grad for x in xs))]

    def ours(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    def theirs(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    expected = run(torch, theirs)
    for found in (run(tc, ours), run(tc, tc.compile(ours))):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, 1e-5, 4e-6)


def test_one_and_two_threads_give_the_same_bits():
    arrays = drawn(*[(3, 2, 200, 24)] * 4)
    made = []
    before = tc.get_num_threads()
    for threads in (1, 2):
        tc.set_num_threads(threads)
        y, lse = planned("attention", arrays[:3], causal=True)
        operands = [arrays[3], *arrays[:3], lse, (arrays[3] * y).sum(-1)]
        made.append([y, lse, *planned("attention_grad", operands, causal=True)])
    tc.set_num_threads(before)
    for one, two in zip(*made, strict=True):
        assert one.tobytes() == two.tobytes()


def test_large_scores_neither_overflow_nor_lose_the_weights():
    q, k, v = drawn(*[(2, 70, 16)] * 3)
    q *= 1e4
    y, lse = planned("attention", [q, k, v], causal=False)
    expected = exact("attention", [q, k, v], causal=False)
    np.testing.assert_allclose(lse, expected[1], 1e-6)
    # A score of 1e4 is rounded to 1e-3, so the weights have that relative error.
    close(y, expected[0], 2e-3)


def test_not_a_number_and_infinity_stay_in_their_rows():
    q, k, v = drawn(*[(1, 40, 8)] * 3)
    q[0, 3, 0] = np.nan
    q[0, 33, 1] = np.inf
    y, lse = planned("attention", [q, k, v], causal=True)
    bad = {3, 33}
    for row in range(40):
        assert np.isnan(y[0, row]).all() == (row in bad)
        assert np.isfinite(lse[0, row]) == (row not in bad)


def test_a_row_whose_first_keys_weigh_nothing_is_exact():
    """Scores of -inf in a whole block of keys shrink nothing that comes later."""
    q, k, v = np.ones((1, 1, 1), np.float32), drawn((1, 300, 1))[0], drawn((1, 300, 4))[0]
    k[0, :280] = -np.inf
    y, _ = planned("attention", [q, k, v], scale=1.0)
    kept = np.exp(k[0, 280:, 0] - k[0, 280:, 0].max())
    close(y[0], (kept @ v[0, 280:] / kept.sum())[None])
    k[:] = -np.inf
    y, lse = planned("attention", [q, k, v], scale=1.0)
    assert np.isnan(y).all()
    assert lse[0, 0] == -np.inf


def test_second_order_gradients_agree_with_the_decomposition():
    q, k, v = drawn(*[(2, 65, 16)] * 3)

    def second(run):
        xs = [tc.from_numpy(a.copy()).requires_grad_(True) for a in (q, k, v)]
        y = run(*xs)
        (g,) = tc.autograd.grad((y * y).sum(), xs[:1], create_graph=True)
        return [x.numpy() for x in tc.autograd.grad((g * g).sum(), xs)]

    def spelled_out(q, k, v):
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        mask = tc.ones(65, 65).tril() > 0
        return F.softmax(tc.where(mask, scores, -math.inf), -1) @ v

    found = second(lambda *xs: F.scaled_dot_product_attention(*xs, is_causal=True))
    for a, b in zip(found, second(spelled_out), strict=True):
        np.testing.assert_allclose(a, b, 1e-3, 1e-5 * np.abs(b).max())


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes_are_decomposed_or_widened_and_right(dtype):
    xs = [tc.from_numpy(a).to(getattr(tc, dtype)) for a in drawn(*[(2, 40, 8)] * 3)]
    f = tc.compile(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))
    found = f(*xs)
    assert ("attention(" in str(f.ir("fused"))) is (dtype != "float64")
    expected = exact("attention", [x.to(tc.float64).numpy() for x in xs], causal=True)[0]
    np.testing.assert_allclose(found.to(tc.float64).numpy(), expected, 2e-2, 2e-2)


@pytest.mark.parametrize("scale", [-0.5, 0.0])
def test_a_scale_that_is_not_positive_is_decomposed(scale):
    arrays = drawn(*[(2, 40, 8)] * 3)
    assert library.plan(node_of("attention", arrays, scale=scale)) is None
    y = F.scaled_dot_product_attention(*map(tc.from_numpy, arrays), scale=scale)
    close(y.numpy(), exact("attention", arrays, scale=scale)[0])


def test_new_sizes_compile_nothing():
    arrays = drawn(*[(2, 40, 24)] * 3)
    planned("attention", arrays)
    kernels = {s.kernel.symbol for s in library.plan(node_of("attention", arrays)).stages}
    arrays = drawn(*[(5, 77, 24)] * 3)
    assert {s.kernel.symbol for s in library.plan(node_of("attention", arrays)).stages} == kernels


# Layouts.

HEADS, SIZE = 4, 8


def packed(t: int, dtype: type = np.float32) -> Graph:
    """Attention of one projection's parts and its gradient, as a transformer's block has them."""
    b = Builder("block")
    ops, shape, width = OPS, (2, t, HEADS, SIZE), HEADS * SIZE
    x = b.expr(b.input(type_of_array(np.zeros((2, t, 3 * width), dtype)), "qkv"))
    g = b.expr(b.input(type_of_array(np.zeros((2, t, width), dtype)), "g"))
    parts = []
    for i in range(3):
        part = ops["slice"](
            x, starts=(0, 0, i * width), limits=(2, t, (i + 1) * width), strides=(1, 1, 1)
        )
        parts.append(ops["permute"](ops["reshape"](part, shape=shape), axes=(0, 2, 1, 3)))
    heads = ops["permute"](ops["reshape"](g, shape=shape), axes=(0, 2, 1, 3))
    y, lse = ops["attention"](*parts, causal=True)
    dot = ops["reduce_sum"](heads * y, axes=(3,))
    found = ops["attention_grad"](heads, *parts, lse, dot, causal=True)

    def flat(v):
        return ops["reshape"](ops["permute"](v, axes=(0, 2, 1, 3)), shape=(2, t, width))

    total = None
    for i, v in enumerate(found):
        pad = ops["pad"](
            flat(v),
            low=(0, 0, i * width),
            high=(0, 0, (2 - i) * width),
            interior=(0, 0, 0),
            value=0.0,
        )
        total = pad if total is None else total + pad
    b.graph.outputs = [flat(y).value, total.value]
    return b.graph


def test_a_packed_projection_is_read_and_written_in_place():
    graph = packed(50)
    arrays = drawn((2, 50, 3 * HEADS * SIZE), (2, 50, HEADS * SIZE))
    stages, executable = lower(graph)
    kinds = [n.op.name for n in stages["fused"].nodes]
    assert kinds == ["kernel", "kernel", "kernel"]  # forward, dot, backward
    expected = interpret(packed(50, np.float64), [a.astype(np.float64) for a in arrays])[0]
    for found in (executable(arrays), interpret(stages["fused"], arrays)[0]):
        for a, b in zip(found, expected, strict=True):
            close(a, b, 1e-5)


def test_adapting_changes_no_meaning_and_prints_and_parses():
    graph = pipeline.clean(packed(9))
    adapted = adapt(graph)
    assert str(tc.ir.parse(str(adapted))) == str(adapted)
    arrays = drawn((2, 9, 3 * HEADS * SIZE), (2, 9, HEADS * SIZE))
    for a, b in zip(interpret(graph, arrays)[0], interpret(adapted, arrays)[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_result_read_in_both_orders_is_right():
    q, k, v = drawn(*[(2, 33, 4, 8)] * 3)

    @tc.compile
    def f(q, k, v):
        y = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
        return y, y.transpose(1, 2).reshape(2, 33, 32), y.transpose(1, 2) * 2

    found = f(*map(tc.from_numpy, (q, k, v)))
    y = exact("attention", [x.swapaxes(1, 2) for x in (q, k, v)])[0]
    expected = y, y.swapaxes(1, 2).reshape(2, 33, 32), 2 * y.swapaxes(1, 2)
    for a, b in zip(found, expected, strict=True):
        close(a.numpy(), b, 4e-6)


def test_attention_in_a_loop_has_its_kernel_too():
    q, k, v = drawn(*[(2, 40, 8)] * 3)

    @tc.compile
    def f(q, k, v):
        def body(carry, _):
            carry = F.scaled_dot_product_attention(carry, k, v, is_causal=True)
            return carry, carry.sum()

        return tc.scan(body, q, tc.zeros(3))[0]

    found = f(*map(tc.from_numpy, (q, k, v)))
    expected = q
    for _ in range(3):
        expected = exact("attention", [expected, k, v], causal=True)[0]
    close(found.numpy(), expected, 1e-5)
    assert "attention" in str(f.kernels())


def test_repeated_heads_and_columns_are_read_as_they_lie():
    q, k, v = drawn((2, 4, 20, 8), (2, 1, 20, 8), (2, 4, 8, 20))

    @tc.compile
    def f(q, k, v):
        return F.scaled_dot_product_attention(q, k.expand(2, 4, 20, 8), v.transpose(2, 3))

    found = f(*map(tc.from_numpy, (q, k, v)))
    expected = exact("attention", [q, np.broadcast_to(k, q.shape), v.swapaxes(2, 3)])[0]
    close(found.numpy(), expected)


def test_every_float_but_f32_and_empty_operands_are_left_to_the_decomposition():
    node = node_of("attention", drawn(*[(2, 4, 8)] * 3))
    assert attention.takes(node)
    for arrays in ([np.zeros((2, 4, 8))] * 3, [np.zeros((0, 4, 8), np.float32)] * 3):
        assert not attention.takes(node_of("attention", arrays))
    opened = decompose(packed(9))
    assert all(n.op.kind != "composite" for n in opened.nodes)
