"""The matrix product kernels against NumPy: odd shapes, layouts, dtypes, threads, vector widths."""

from dataclasses import replace

import numpy as np
import pytest

from tracecc.backends.cpu import driver, toolchain
from tracecc.backends.cpu.library import plan, run_plan
from tracecc_ir.graph import Node, Value
from tracecc_ir.interpret import evaluate
from tracecc_ir.op import OPS
from tracecc_ir.types import dtype as named
from tracecc_ir.types import type_of_array

MATRIX = ((1,), (0,)), ((), ())


@pytest.fixture(autouse=True)
def threads():
    before = driver.get_num_threads()
    yield driver.set_num_threads
    driver.set_num_threads(before)


def node_of(arrays, contract, batch):
    op = OPS["dot_general"]
    attrs = op.bind({"contract": contract, "batch": batch})
    types = [type_of_array(a) for a in arrays]
    return Node(op, [Value(t) for t in types], attrs, op.result_types(types, attrs))


def product(x, y, contract, batch):
    node = node_of((x, y), contract, batch)
    found = plan(node)
    return None if found is None else run_plan(node, found, (x, y))[0]


def draw(dtype, *shape):
    values = np.random.default_rng(len(shape)).standard_normal(shape)
    return np.asarray(values).astype(named(dtype).numpy)


def check(x, y, contract, batch, tolerance):
    found = product(x, y, contract, batch)
    attrs = {"contract": contract, "batch": batch}
    (expected,) = evaluate(OPS["dot_general"], [x, y], attrs)
    k = max(1, np.prod([x.shape[d] for d in contract[0]]))
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found.astype("f8"), expected.astype("f8"), rtol=tolerance, atol=tolerance * np.sqrt(k) * 4
    )


SIZES = [
    (1, 1, 1), (1, 100, 37), (100, 1, 37), (14, 32, 256), (15, 33, 257), (13, 31, 255),
    (1, 300, 130), (300, 1, 131), (3, 130, 5), (200, 129, 300),
    (0, 4, 3), (4, 0, 3), (4, 5, 0), (128, 256, 96),
]  # fmt: skip


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 1e-6), ("f64", 1e-14)])
def test_sizes_around_the_tile_and_both_transposes_equal_numpy(m, n, k, dtype, tolerance):
    check(draw(dtype, m, k), draw(dtype, k, n), *MATRIX, tolerance)
    check(draw(dtype, k, m), draw(dtype, n, k), ((0,), (1,)), ((), ()), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("f16", 1e-3), ("bf16", 8e-3)])
def test_halves_accumulate_in_f32(dtype, tolerance):
    check(draw(dtype, 33, 300), draw(dtype, 300, 45), *MATRIX, tolerance)


def test_batches_with_dimensions_in_any_order():
    check(draw("f32", 2, 3, 5, 7), draw("f32", 2, 3, 7, 4), ((3,), (2,)), ((0, 1), (0, 1)), 1e-6)
    check(draw("f32", 5, 3, 7), draw("f32", 7, 4, 3), ((2,), (0,)), ((1,), (2,)), 1e-6)
    for k in (3, 33, 300):
        x, y, turned = draw("f32", 20, 3, k), draw("f32", 3, 40, k), draw("f32", k, 40, 3)
        check(x, y, ((1, 2), (0, 2)), ((), ()), 3e-6)
        check(x, turned, ((2, 1), (0, 2)), ((), ()), 3e-6)
    check(draw("f32", 5), draw("f32", 5), ((0,), (0,)), ((), ()), 1e-6)


def test_operands_whose_free_dimensions_have_no_single_stride_are_left_to_others():
    arrays = draw("f32", 6, 5, 4, 3), draw("f32", 4, 7)
    assert plan(node_of(arrays, ((2,), (0,)), ((), ()))) is None


def test_every_sample_of_the_op_that_has_a_plan_equals_the_reference():
    op, planned = OPS["dot_general"], 0
    for sample in op.samples(np.random.default_rng(0), named("f32")):
        arrays = [np.ascontiguousarray(a) for a in sample.inputs]
        if plan(node_of(arrays, **sample.attrs)) is not None:
            planned += 1
            check(*arrays, sample.attrs["contract"], sample.attrs["batch"], 1e-6)
    assert planned >= 7


def test_one_and_two_threads_give_the_same_bits(threads):
    x, y = draw("f32", 300, 500), draw("f32", 500, 400)
    results = []
    for count in (1, 2):
        threads(count)
        results.append(product(x, y, *MATRIX))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("bits", ["128", "256"])
def test_narrower_vectors_give_the_same_product(bits, monkeypatch):
    monkeypatch.setenv("TRACECC_VECTOR_BITS", bits)
    check(draw("f32", 45, 300), draw("f32", 300, 77), *MATRIX, 1e-6)


def test_a_cpu_without_fused_multiply_add_gives_the_same_product(monkeypatch):
    monkeypatch.setenv("TRACECC_CPU", "x86-64")
    check(draw("f32", 45, 300), draw("f32", 300, 77), *MATRIX, 1e-6)


BIAS_RELU = """
def bias_relu(args, tile, ldt, row0, rows, col0, cols):
    bias = f32_ptr(args, 0)
    out = f32_ptr(args, 1)
    n = i64_arg(args, 2)
    t = f32_at(tile)
    for i in range(rows):
        for j in range(cols):
            value = add(t[i * ldt + j], bias[col0 + j])
            out[(row0 + i) * n + col0 + j] = maximum(value, f32(0))
"""


@pytest.mark.parametrize("shape", [(1, 40, 64), (64, 40, 1), (45, 300, 77), (200, 520, 129)])
def test_an_epilogue_sees_every_finished_tile_once(shape):
    m, k, n = shape
    x, y, bias = draw("f32", m, k), draw("f32", k, n), draw("f32", n)
    node = node_of((x, y), *MATRIX)
    found = plan(node)
    slots = np.zeros(3, np.int64)
    kernel = toolchain.compile_epilogue(BIAS_RELU, "bias_relu", independent=True)
    last = found.stages[-1]
    values = {"epilogue": kernel.address, "epilogue_args": slots.ctypes.data}
    args = [values[a.where] if getattr(a, "where", 0) in values else a for a in last.args]
    out = np.full((m + 1, n), 7, np.float32)
    slots[:] = bias.ctypes.data, out.ctypes.data, n
    run_plan(node, replace(found, stages=[*found.stages[:-1], replace(last, args=args)]), (x, y))
    np.testing.assert_allclose(out[:m], np.maximum(x @ y + bias, 0), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(out[m], 7)
