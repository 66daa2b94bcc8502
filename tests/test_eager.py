"""Eager mode: compiled kernels give what the references give, and are kept within bounds."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from oracles import extreme_samples, samples_of

import tracecc as tc
from tracecc import eager, nn
from tracecc_ir.interpret import evaluate as reference
from tracecc_ir.op import OPS, Expr, Op, Sample
from tracecc_ir.types import DType, bf16, f16, f32, f64, type_of_array

TOLERANCE = {f64: 1e-11, f32: 2e-5, f16: 2e-3, bf16: 1.6e-2}
HEAVY = sorted({*eager._WEIGHTS, *eager._WORK} - {"call"})


@pytest.fixture
def everything_heavy(monkeypatch):
    """Every op that can run as a kernel does, however small; the first process compiles it."""
    monkeypatch.setattr(eager, "HEAVY", 0)
    eager.clear()
    yield
    eager.clear()


@pytest.fixture
def counted(monkeypatch):
    """The names of the ops that ran as kernels, in order."""
    names: list[str] = []
    prepared = eager._prepared

    def counting(kind, op, arrays, attrs):
        names.append(f"vjp {op.name}" if kind else op.name)
        return prepared(kind, op, arrays, attrs)

    monkeypatch.setattr(eager, "_prepared", counting)
    return names


def assert_equal(found, expected, note=""):
    for got, wanted in zip(found, expected, strict=True):
        got, wanted = np.asarray(got), np.asarray(wanted)
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), note
        tolerance = TOLERANCE.get(type_of_array(wanted).dtype, 0)
        got, wanted = got.astype(np.float64), wanted.astype(np.float64)
        np.testing.assert_allclose(got, wanted, tolerance, tolerance, err_msg=note)


def samples(op: Op, dtype: DType) -> list[Sample]:
    found = list(itertools.islice(samples_of(op, np.random.default_rng(0), dtype), 6))
    if op.kind == "elementwise" and dtype.kind == "float" and not op.attr_names:
        found += extreme_samples(op, dtype)
    return found


def cases() -> list[tuple[Op, DType]]:
    """Each op with f32, or the first dtype it has; and one of the others, by turns."""
    found = []
    for i, name in enumerate(HEAVY):
        op = OPS[name]
        if op.kind == "random" or name in ("uniform", "normal"):
            continue
        allowed = op.dtypes or (f32, f64, bf16)
        first = f32 if f32 in allowed else allowed[0]
        rest = [d for d in allowed if d is not first and not d.is_complex]
        if rest and op.kind not in ("composite", "window"):
            found.append((op, rest[i % len(rest)]))
        found.append((op, first))
    return found


@pytest.mark.parametrize(("op", "dtype"), cases(), ids=lambda x: x.name)
def test_a_kernel_equals_the_reference(everything_heavy, counted, op, dtype):
    for sample in samples(op, dtype):
        attrs = op.bind(sample.attrs)
        expected = reference(op, sample.inputs, attrs)
        assert_equal(eager.evaluate(op, sample.inputs, attrs), expected, f"{op.name} {sample}")
    assert set(counted) == {op.name}


@pytest.mark.parametrize("name", ["philox", "uniform", "normal"])
def test_random_numbers_are_the_same_numbers(everything_heavy, counted, name):
    attrs = {"shape": (3, 50)} if name == "philox" else {"shape": (3, 50), "dtype": f32}
    operands = np.array(7), np.array(3)
    found = eager.evaluate(OPS[name], operands, attrs)
    assert_equal(found, reference(OPS[name], operands, attrs), name)
    assert counted == [name]


LAYOUTS = {
    "permuted": lambda a: np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0),
    "sliced": lambda a: np.concatenate([a, a], 2)[:, :, 2 : 2 + a.shape[2]],
    "stepped": lambda a: np.repeat(a, 2, 1)[:, ::2],
    "reversed": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
    "head": lambda a: np.concatenate([a, a])[: a.shape[0]],
    "repeated": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "one number": lambda a: np.broadcast_to(a[0, 0, 0], a.shape),
    "a repeated slice": lambda a: np.broadcast_to(
        np.tile(a, 2)[:, :1, 1 : 1 + a.shape[2]], a.shape
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_operands_may_lie_in_memory_in_any_way(everything_heavy, layout):
    a, b = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype("f")
    x = LAYOUTS[layout](a)
    assert x.shape == a.shape
    for op, operands, attrs in (
        ("add", (x, b), {}),
        ("mul", (b, x), {}),
        ("erf", (x,), {}),
        ("gelu", (x,), {"approximate": "none"}),
        ("softmax", (x,), {"axis": 1}),
        ("reduce_sum", (x,), {"axes": (0, 2)}),
        ("dot_general", (x, b), {"contract": ((2,), (2,)), "batch": ((0,), (0,))}),
        ("dot_general", (b, x), {"contract": ((1,), (1,)), "batch": ((), ())}),
        ("pad", (x,), {"low": (1, 0, 2), "high": (0, 3, 0), "interior": (0, 1, 0), "value": 2.0}),
    ):
        bound = OPS[op].bind(attrs)
        made = eager.evaluate(OPS[op], operands, bound)
        assert_equal(made, reference(OPS[op], operands, bound), op)
        assert not any(np.shares_memory(m, o) for m in made for o in operands)


def test_elementwise_results_keep_the_layout_of_permuted_operands(everything_heavy):
    x = tc.randn(3, 4, 5)
    for y in (
        x.permute(2, 0, 1) * 2,
        tc.exp(x.permute(2, 0, 1)),
        nn.functional.gelu(x.permute(2, 0, 1)),
    ):
        assert y.stride() == (1, 20, 5)
    assert (x.permute(2, 0, 1) + tc.randn(5, 3, 4)).permute(1, 2, 0).shape == (3, 4, 5)


def test_empty_and_zero_dimensional_operands(everything_heavy):
    empty, scalar = tc.zeros(0, 3), tc.tensor(2.0)
    assert (empty + 1).shape == (0, 3)
    assert (empty @ tc.ones(3, 2)).shape == (0, 2)
    assert tc.zeros(2, 0).sum(1).tolist() == [0.0, 0.0]
    assert nn.functional.softmax(empty, 1).shape == (0, 3)
    assert scalar.exp().item() == pytest.approx(np.exp(2.0), rel=1e-6)
    assert (scalar * scalar).item() == 4.0


# Derivatives.


def derivative_cases() -> list[str]:
    return sorted(eager._JOINT - {"call", "lgamma", "digamma", "polygamma"})


@pytest.mark.parametrize("name", derivative_cases())
def test_a_derivative_as_one_kernel_equals_the_rule(everything_heavy, counted, name):
    op = OPS[name]
    rng = np.random.default_rng(1)
    for sample in itertools.islice(samples_of(op, rng, f32), 4):
        attrs = op.bind(sample.attrs)
        xs = [np.asarray(a) for a in sample.inputs]
        ys = [np.asarray(a) for a in reference(op, xs, attrs)]
        gs = [rng.standard_normal(y.shape).astype(y.dtype) for y in ys]
        wanted = [x.dtype.kind == "f" for x in xs]
        exprs = [[Expr(a, References()) for a in part] for part in (gs, ys, xs)]
        expected = [None if e is None else e.value for e in op.gradients(wanted, *exprs, attrs)]
        memory, counts = [*xs, *ys, *gs], (len(xs), len(ys))
        compute, used, operands, _ = eager.derivative(op, attrs, wanted, memory, counts)
        assert set(used) <= set(range(len(memory)))
        made = dict(zip(operands, compute(), strict=True))
        found = [made.get(i) for i in range(len(xs))]
        assert [e is None for e in found] == [e is None for e in expected]
        assert_equal(made.values(), [e for e in expected if e is not None], name)


class References:
    """Runs derivative rules by the references alone."""

    def emit(self, op, inputs, attrs):
        return reference(op, inputs, attrs)

    def type_of(self, value):
        return type_of_array(value)


def test_a_saved_tensor_that_was_overwritten_is_refused_only_if_it_is_read(everything_heavy):
    x = tc.randn(8, requires_grad=True)
    y = x * 2
    z = tc.sigmoid(y)
    y.detach().add_(1.0)  # the derivative of sigmoid reads its result only
    tc.autograd.grad(z.sum(), x)
    y = x * 2
    z = nn.functional.gelu(y)
    y.detach().add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        tc.autograd.grad(z.sum(), x)


def test_second_derivatives_go_through_kernels(everything_heavy):
    x = tc.tensor([0.3, -1.2, 2.0], dtype=tc.float64, requires_grad=True)
    (g,) = tc.autograd.grad((x.tanh() * x).sum(), x, create_graph=True)
    (h,) = tc.autograd.grad(g.sum(), x)
    t = np.tanh(x.detach().numpy())
    expected = 2 * (1 - t**2) - 2 * x.detach().numpy() * t * (1 - t**2)
    np.testing.assert_allclose(h.numpy(), expected, rtol=1e-12)


def test_results_own_their_memory():
    x = tc.ones(600, 600)
    y, z = x + 1, x.sin()
    y.mul_(0)
    z.mul_(0)
    assert x.sum().item() == 360_000.0
    first = (x + 1).numpy()
    second = (x + 2).numpy()
    assert first.min() == 2.0
    assert second.max() == 3.0


def test_a_gradient_never_shares_memory_with_another():
    a = tc.ones(600, 600, requires_grad=True)
    b = tc.ones(600, 600, requires_grad=True)
    (a + b).sum().backward()
    assert not np.shares_memory(a.grad.numpy(), b.grad.numpy())
    a.grad.mul_(0)
    assert b.grad.min().item() == 1.0


def test_gradients_that_hooks_saw_are_copied():
    a = tc.ones(600, 600, requires_grad=True)
    seen = []
    a.register_hook(seen.append)
    (a * tc.full((600, 600), 2.0)).sum().backward()
    a.grad.mul_(0)
    assert seen[0].min().item() == 2.0


# Errors, threads, bounds.


def test_an_index_out_of_range_raises_the_words_of_the_reference():
    table, at = tc.ones(100, 64), tc.zeros(4096, dtype=tc.int64)
    at[5] = 100
    with pytest.raises(IndexError) as small:
        nn.functional.embedding(at[:8], table)
    with pytest.raises(IndexError) as large:
        nn.functional.embedding(at, table)
    assert str(large.value) == str(small.value)


def test_integer_products_wrap_around_as_the_reference_does(everything_heavy):
    x = tc.full((300,), 2**31 - 1, dtype=tc.int32)
    assert (x * x).tolist() == [1] * 300
    assert (tc.full((300,), 200, dtype=tc.uint8) + 100).tolist() == [44] * 300


@pytest.mark.parametrize("name", ["gelu", "cross_entropy", "layer_norm", "softmax"])
def test_a_composite_that_runs_again_gives_the_same_bits(name):
    eager.clear()
    op = OPS[name]
    sample = next(iter(samples_of(op, np.random.default_rng(1), f32)))
    attrs = op.bind(sample.attrs)
    xs = list(sample.inputs)
    first, second, third = (eager.evaluate(op, xs, attrs) for _ in range(3))
    assert len(eager._programs) == 1
    for a, b, c in zip(first, second, third, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_derivatives_of_small_work_give_the_same_bits_again():
    x = tc.randn(5, 7, requires_grad=True)
    at = tc.tensor([0, 6, 2, 2, 1])
    found = []
    for _ in range(4):
        loss = nn.functional.cross_entropy(nn.functional.layer_norm(x, (7,)).tanh() * x, at)
        found.append(tc.autograd.grad(loss, x)[0].numpy())
    for again in found[1:]:
        np.testing.assert_array_equal(found[0], again)


def test_what_has_no_gradient_stays_without_one():
    x, y = tc.ones(3, requires_grad=True), tc.ones(3, requires_grad=True)
    for _ in range(3):
        (x + y.detach()).sum().backward()
        assert y.grad is None


def test_small_work_compiles_nothing(counted):
    x = tc.randn(32, 64).requires_grad_()
    nn.functional.cross_entropy(x.tanh() @ tc.randn(64, 8), tc.zeros(32, dtype=tc.int64)).backward()
    assert counted == []


def test_heavy_work_and_its_derivative_run_as_kernels(counted):
    x = tc.randn(512, 512, requires_grad=True)
    nn.functional.gelu(x).sum().backward()
    assert {"gelu", "reduce_sum", "vjp gelu"} <= set(counted)


def test_the_same_shapes_use_the_same_kernel(everything_heavy):
    x = tc.ones(40)
    before = len(eager._kernels)
    for value in (1.0, 2.0, 3.0):
        x * value + value
    assert len(eager._kernels) == before + 2
    nn.functional.leaky_relu(x, 0.1)
    nn.functional.leaky_relu(x, 0.2)
    assert len(eager._kernels) == before + 4


def test_attributes_that_compare_equal_but_differ_have_kernels_of_their_own(everything_heavy):
    attrs = {"low": (1,), "high": (0,), "interior": (0,)}
    x = np.ones(2, np.float32)
    for value in (0.0, -0.0, np.nan, np.nan):
        (y,) = eager.evaluate(OPS["pad"], [x], {**attrs, "value": value})
        np.testing.assert_array_equal(y[0], np.float32(value))
        assert value != 0 or np.signbit(y[0]) == np.signbit(value)
    assert len(eager._kernels) == 3


def test_the_cache_of_kernels_is_bounded(everything_heavy, monkeypatch):
    monkeypatch.setattr(eager, "MOST_KERNELS", 3)
    for n in range(1, 9):
        assert (tc.ones(n) + 1).sum().item() == 2 * n
        assert len(eager._kernels) <= 3


def test_threads_may_share_a_kernel():
    x = tc.randn(400, 400)
    expected = nn.functional.softmax(x, 1).numpy()
    wrong = []

    def work():
        for _ in range(10):
            if not np.array_equal(nn.functional.softmax(x, 1).numpy(), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


# Compiled functions called from outside, differentiated more than once.


def penalty(f, x, parameters):
    """A gradient and the gradients of a loss that contains its norm."""
    y = f(x)
    (g,) = tc.autograd.grad(y, x, create_graph=True)
    return [g, *tc.autograd.grad((g * g).sum() + y, [x, *parameters], allow_unused=True)]


def test_create_graph_goes_through_a_compiled_function():
    layers = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    weights = [p for n, p in layers.named_parameters() if n != "2.bias"]
    x = tc.randn(4, 3, dtype=tc.float64).requires_grad_()

    def loss(x):
        return layers(x).sum()

    compiled = tc.compile(loss)
    for _ in range(2):
        for a, b in zip(penalty(compiled, x, weights), penalty(loss, x, weights), strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12)
    assert compiled.traces == 1


def test_a_third_derivative_through_a_compiled_function():
    t = tc.tensor([0.3, 0.7], dtype=tc.float64, requires_grad=True)
    f = tc.compile(lambda t: (t**4).sum())
    (g,) = tc.autograd.grad(f(t), t, create_graph=True)
    (h,) = tc.autograd.grad(g.sum(), t, create_graph=True)
    (k,) = tc.autograd.grad(h.sum(), t)
    np.testing.assert_allclose(k.numpy(), [24 * 0.3, 24 * 0.7], rtol=1e-12)


def test_create_graph_refuses_a_compiled_function_that_writes_state():
    layer = nn.BatchNorm1d(3)
    x = tc.randn(4, 3).requires_grad_()
    y = tc.compile(layer)(x)
    with pytest.raises(RuntimeError, match=r"writes state \(num_batches_tracked\)"):
        tc.autograd.grad(y.sum(), x, create_graph=True)


def test_create_graph_refuses_operands_that_were_overwritten_since_the_call():
    x = tc.ones(3, requires_grad=True)
    w = tc.ones(3)
    y = tc.compile(lambda x: (x * x * w).sum())(x)
    w.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        tc.autograd.grad(y, x, create_graph=True)
