"""Library kernels against the references of their ops: dtypes, odd shapes, threads, bad indices."""

import numpy as np
import pytest
from oracles import samples_of

from tracecc.backends.cpu import driver
from tracecc.backends.cpu.library import PLANNERS, plan, run_plan
from tracecc.backends.cpu.lower import compile_graph
from tracecc_ir.graph import Builder, Node, Value
from tracecc_ir.interpret import evaluate
from tracecc_ir.op import OPS
from tracecc_ir.types import dtype as named
from tracecc_ir.types import type_of_array

CONTRACTIONS = {"dot_general", "conv", "conv_input_grad", "conv_weight_grad"}
WHERE = np.array([2, -1]), np.ones((2, 3), "f4")
NAMES = sorted(n for n in PLANNERS if n not in CONTRACTIONS and not n.startswith("attention"))
TOLERANCE = {"f64": 1e-13, "f32": 1e-6, "f16": 1e-3, "bf16": 8e-3}


@pytest.fixture(autouse=True)
def threads():
    before = driver.get_num_threads()
    yield driver.set_num_threads
    driver.set_num_threads(before)


def node_of(name, arrays, attrs):
    op = OPS[name]
    bound = op.bind(attrs)
    types = [type_of_array(a) for a in arrays]
    return Node(op, [Value(t) for t in types], bound, op.result_types(types, bound))


def planned(name, arrays, **attrs):
    node = node_of(name, arrays, attrs)
    found = plan(node)
    return None if found is None else run_plan(node, found, arrays)


def check(name, arrays, **attrs):
    arrays = [np.ascontiguousarray(a).reshape(np.shape(a)) for a in arrays]
    found = planned(name, arrays, **attrs)
    if found is None:
        return False
    for got, want in zip(found, evaluate(OPS[name], arrays, OPS[name].bind(attrs)), strict=True):
        kind = type_of_array(got).dtype
        if kind.kind == "float":
            t = TOLERANCE[kind.name]
            np.testing.assert_allclose(got.astype("f8"), want.astype("f8"), rtol=t, atol=t)
        else:
            np.testing.assert_array_equal(got, want)
    return True


def draw(dtype, *shape):
    rng = np.random.default_rng(len(shape))
    return np.asarray(rng.standard_normal(shape) * 3).astype(named(dtype).numpy)


def index(size, *shape, dtype=np.int64):
    return np.random.default_rng(size).integers(-size, size, shape).astype(dtype)


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_equals_the_reference(name):
    op = OPS[name]
    for dtype in (d for d in op.dtypes if not d.is_complex):  # they have no kernels
        found = [
            check(name, s.inputs, **s.attrs)
            for s in samples_of(op, np.random.default_rng(0), dtype)
            if all(v.size for v in evaluate(op, s.inputs, op.bind(s.attrs)))
        ]
        assert found
        assert all(found)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_embedding_gradients_add_rows_that_occur_often(dtype):
    args = draw(dtype, 50, 33), index(50, 40, 25, dtype=np.int32), draw(dtype, 40, 25, 33)
    assert check("scatter", args, axes=(0,), mode="add")
    args = draw(dtype, 3, 700), index(3, 90), draw(dtype, 90, 700)
    assert check("scatter", args, axes=(0,), mode="add")


def test_scatter_along_an_index_smaller_than_the_array():
    args = draw("f32", 4, 9, 5, 6), index(9, 3, 4, 2, 5), draw("f32", 3, 4, 2, 5)
    assert check("scatter_along", args, axis=1, mode="add")


@pytest.mark.parametrize("bad", [7, -8, 2**40, -(2**62)])
def test_an_index_out_of_range_is_an_error_and_touches_nothing_else(bad):
    x, where, updates = draw("f32", 7, 3), np.array([1, bad, 2]), np.ones((3, 3), "f4")
    with pytest.raises(IndexError, match="scatter: an index is out of range"):
        planned("scatter", [x, where, updates], axes=(0,), mode="add")
    along = np.array([[0, bad, 1]] * 2)
    with pytest.raises(IndexError, match="out of range"):
        planned("scatter_along", [x.T.copy(), along, updates[:2]], axis=1, mode="add")


POOL = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}


@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 1), (1, 0))])
def test_window_max_takes_the_first_nan_and_never_the_padding(padding):
    x = np.random.default_rng(0).choice([np.nan, -np.inf, 1, 2], (3, 9, 11)).astype("f4")
    assert check("window_max", [x], **{**POOL, "padding": padding})
    assert check("window_max", [np.full((1, 5, 5), -np.inf)], **{**POOL, "padding": padding})


@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16", "i64", "u8"])
@pytest.mark.parametrize("descending", [False, True])
def test_sort_is_stable_and_puts_nan_last(dtype, descending):
    x = np.abs(np.round(draw(dtype, 3, 1000).astype("f8") * 4))
    if named(dtype).kind == "float":
        x[:, ::7] *= -1
        x[:, ::50], x[:, 3::90], x[0, 5::70], x[1, 5::60] = np.nan, -0.0, np.inf, -np.inf
    x = x.astype(named(dtype).numpy)
    assert check("sort", [x], axis=1, descending=descending)
    assert check("sort", [x], axis=0, descending=descending)


def test_sort_orders_the_extremes_of_integers():
    x = np.array([0, -(2**63), 2**63 - 1, -1, 2**63 - 1, -(2**63)])
    assert check("sort", [x], axis=0, descending=False)
    assert check("sort", [x], axis=0, descending=True)


@pytest.mark.parametrize("name", ["argmax", "argmin", "cummax", "cummin", "cumsum"])
@pytest.mark.parametrize("axis", [0, 1])
def test_rows_with_nan_and_ties_longer_than_a_block(name, axis):
    x = np.random.default_rng(0).choice([np.nan, 1, 2, 3], (37, 1100), p=[0.01, 0.33, 0.33, 0.33])
    assert check(name, [x.astype("f4")], axis=axis)


@pytest.mark.parametrize("length", [1, 5, 63, 64, 65, 127, 128, 200])
@pytest.mark.parametrize("dtype", ["f32", "u8", "f16"])
def test_argmax_of_rows_around_the_number_of_lanes(length, dtype):
    x = np.random.default_rng(length).integers(0, 3, (20, length)).astype(named(dtype).numpy)
    if named(dtype).kind == "float":
        x[5, length // 2 :] = x[6, -1] = np.nan
    assert check("argmax", [x], axis=1)
    assert check("argmin", [x], axis=1)


THREADED = [
    ("scatter", (draw("f32", 500, 64), index(500, 4000), draw("f32", 4000, 64)),
     {"axes": (0,), "mode": "add"}),
    ("scatter", (draw("f16", 2, 3000), index(2, 300), draw("f16", 300, 3000)),
     {"axes": (0,), "mode": "add"}),
    ("scatter_along", (draw("f32", 40, 900), index(900, 40, 2000), draw("f32", 40, 2000)),
     {"axis": 1, "mode": "add"}),
    ("scatter_along", (draw("f32", 9, 9000), index(9, 8, 9000), draw("f32", 8, 9000)),
     {"axis": 0, "mode": "add"}),
    ("window_max", (draw("f32", 8, 16, 34, 33),), POOL),
    ("window_sum", (draw("f16", 8, 16, 34, 33),), {**POOL, "padding": ((1, 1), (0, 1))}),
    ("cumsum", (draw("f16", 9, 5, 1300),), {"axis": 1, "reverse": True}),
    ("argmax", (draw("f32", 9, 50, 1300),), {"axis": 1}),
    ("sort", (draw("f32", 90, 700),), {"axis": 1}),
    ("concat", (draw("i16", 100, 333), draw("i16", 100, 267)), {"axis": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arrays", "attrs"), THREADED)
def test_one_and_two_threads_give_the_same_bits(name, arrays, attrs, threads):
    results = []
    for count in (1, 2):
        threads(count)
        results.append(planned(name, arrays, **attrs))
    for one, two in zip(*results, strict=True):
        assert one.tobytes() == two.tobytes()


def test_a_compiled_graph_raises_for_an_index_out_of_range_and_runs_again():
    b = Builder("g")
    x, where, updates = (b.input(t) for t in map(type_of_array, (draw("f32", 7, 3), *WHERE)))
    attrs = OPS["scatter"].bind({"axes": (0,), "mode": "add"})
    b.graph.outputs += b.emit(OPS["scatter"], (x, where, updates), attrs)
    run = compile_graph(b.graph)
    zeros = np.zeros((7, 3), "f4")
    with pytest.raises(IndexError, match="out of range"):
        run([zeros, np.array([0, 7]), WHERE[1]])
    (found,) = run([zeros, *WHERE])
    np.testing.assert_array_equal(found.sum(1), [0, 0, 3, 0, 0, 0, 3])
