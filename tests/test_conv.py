"""Convolution kernels against the op references: shapes, strides, groups, dtypes, threads."""

import numpy as np
import pytest
from oracles import samples_of

from tracecc.backends.cpu import driver
from tracecc.backends.cpu.library import plan, run_plan
from tracecc_ir.graph import Node, Value
from tracecc_ir.interpret import evaluate
from tracecc_ir.op import OPS
from tracecc_ir.ops.convolution import Case
from tracecc_ir.types import dtype as named
from tracecc_ir.types import type_of_array

DIRECTIONS = ("conv", "conv_input_grad", "conv_weight_grad")


@pytest.fixture(autouse=True)
def threads():
    before = driver.get_num_threads()
    yield driver.set_num_threads
    driver.set_num_threads(before)


def node_of(name, arrays, attrs):
    op = OPS[name]
    attrs = op.bind(attrs)
    types = [type_of_array(a) for a in arrays]
    return Node(op, [Value(t) for t in types], attrs, op.result_types(types, attrs))


def result(name, arrays, attrs):
    node = node_of(name, arrays, attrs)
    found = plan(node)
    return None if found is None else run_plan(node, found, arrays)[0]


def draw(dtype, *shape):
    values = np.random.default_rng(sum(shape)).standard_normal(shape)
    return values.astype(named(dtype).numpy)


def operands(name, case, dtype):
    shapes = {
        "conv": (case.x, case.w),
        "conv_input_grad": (case.y, case.w),
        "conv_weight_grad": (case.x, case.y),
    }[name]
    more = {
        "conv_input_grad": {"x_spatial": case.x[2:]},
        "conv_weight_grad": {"w_spatial": case.w[2:]},
    }
    return [draw(dtype, *s) for s in shapes], case.attrs | more.get(name, {})


def check(name, case, dtype="f32", tolerance=1e-6):
    arrays, attrs = operands(name, case, dtype)
    found = result(name, arrays, attrs)
    (expected,) = evaluate(OPS[name], arrays, attrs)
    assert found.shape == expected.shape
    found, expected = found.astype("f8"), expected.astype("f8")
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale * 4)


PLAIN = ((0, 0), (0, 0))
CASES = (
    Case((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), PLAIN, (1, 1), 1),
    Case((3, 5, 9, 7), (17, 5, 1, 1), (1, 1), PLAIN, (1, 1), 1),
    Case((2, 5, 9, 7), (3, 5, 1, 1), (2, 3), PLAIN, (1, 1), 1),
    Case((2, 3, 40, 37), (20, 3, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    Case((1, 40, 6, 5), (33, 40, 3, 3), (1, 1), ((1, 2), (0, 3)), (1, 1), 1),
    Case((1, 3, 33, 31), (5, 3, 7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1), 1),
    Case((2, 4, 13, 14), (6, 4, 2, 3), (3, 2), ((2, 0), (1, 4)), (2, 4), 1),
    Case((2, 6, 12, 11), (6, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 6),
    Case((2, 2, 45, 40), (4, 1, 1, 1), (1, 1), PLAIN, (1, 1), 2),
    Case((1, 3, 10, 9), (9, 1, 3, 3), (2, 1), ((1, 1), (1, 1)), (1, 2), 3),
    Case((1, 2, 3000), (2, 1, 3), (1,), ((1, 1),), (1,), 2),
    Case((2, 4, 9, 9), (8, 2, 3, 2), (4, 2), ((0, 1), (5, 0)), (3, 2), 2),
    Case((4, 3, 8, 8), (7, 3, 4, 4), (4, 4), PLAIN, (1, 1), 1),
    Case((2, 3, 90), (4, 3, 5), (2,), ((4, 4),), (1,), 1),
    Case((2, 3, 5, 6, 40), (4, 3, 3, 2, 3), (1, 2, 1), ((1, 1), (0, 1), (2, 0)), (1, 1, 2), 1),
)  # fmt: skip


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_shapes_strides_dilations_and_groups_equal_the_reference(name, dtype):
    for case in CASES:
        check(name, case, dtype, 1e-6 if dtype == "f32" else 1e-14)


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("f16", 1e-3), ("bf16", 8e-3)])
def test_halves_accumulate_in_f32(name, dtype, tolerance):
    for case in CASES[3:9]:
        check(name, case, dtype, tolerance)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_every_sample_of_the_ops_that_has_a_plan_equals_the_reference(name):
    planned = 0
    for sample in samples_of(OPS[name], np.random.default_rng(0), named("f32")):
        arrays = [np.ascontiguousarray(a) for a in sample.inputs]
        found = result(name, arrays, sample.attrs)
        if found is not None:
            planned += 1
            (expected,) = evaluate(OPS[name], arrays, sample.attrs)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert planned >= 5


def test_an_empty_batch_is_left_to_others():
    case = Case((0, 2, 3, 3), (2, 2, 1, 1), (1, 1), PLAIN, (1, 1), 1)
    for name in DIRECTIONS:
        assert plan(node_of(name, *operands(name, case, "f32"))) is None


@pytest.mark.parametrize("name", DIRECTIONS)
def test_one_and_two_threads_give_the_same_bits(name, threads):
    for case in (
        Case((4, 16, 20, 19), (24, 16, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        Case((1, 8, 30, 31), (8, 4, 3, 3), (2, 1), ((1, 1), (1, 1)), (1, 1), 2),
    ):
        arrays, attrs = operands(name, case, "f32")
        found = []
        for count in (1, 2):
            threads(count)
            found.append(result(name, arrays, attrs))
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("bits", ["128", "256"])
def test_narrower_vectors_give_the_same_result(name, bits, monkeypatch):
    monkeypatch.setenv("TRACECC_VECTOR_BITS", bits)
    for case in CASES[3:7]:
        check(name, case)


def test_kernels_are_compiled_once_for_all_shapes():
    sources = [
        {s.kernel.symbol for s in plan(node_of(name, *operands(name, case, "f32"))).stages}
        for name in DIRECTIONS
        for case in (CASES[3], CASES[5])
    ]
    assert all(later <= set().union(*sources[:6]) for later in sources)
    assert len(set().union(*sources)) <= 10
