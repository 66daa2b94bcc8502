"""Products of bfloat16 against float64, with the instruction for pairs of them and without it."""

from dataclasses import replace

import numpy as np
import pytest

from tracecc.backends.cpu import driver, gemm, toolchain
from tracecc.backends.cpu.library import plan, run_plan
from tracecc.backends.cpu.target import target
from tracecc_ir.graph import Node, Value
from tracecc_ir.op import OPS
from tracecc_ir.types import bf16, type_of_array

MATRIX = {"contract": ((1,), (0,)), "batch": ((), ())}


@pytest.fixture(autouse=True, params=["pairs", "widened"])
def instructions(request, monkeypatch):
    if request.param == "widened":
        monkeypatch.setenv("TRACECC_CPU_FEATURES", "-avx512bf16")
    elif not target().dots:
        pytest.skip("this CPU multiplies no pairs of bfloat16")
    assert gemm.tile_of("bf16").pairs is (request.param == "pairs")
    assert not gemm.tile_of("f32").pairs


@pytest.fixture
def threads():
    before = driver.get_num_threads()
    yield driver.set_num_threads
    driver.set_num_threads(before)


def draw(*shape):
    numbers = np.random.default_rng(sum(shape)).standard_normal(shape)
    return np.asarray(numbers).astype(bf16.numpy)


def node_of(name, arrays, attrs):
    op = OPS[name]
    bound = op.bind(attrs)
    types = [type_of_array(a) for a in arrays]
    return Node(op, [Value(t) for t in types], bound, op.result_types(types, bound))


def run(name, arrays, attrs):
    node = node_of(name, arrays, attrs)
    return run_plan(node, plan(node), arrays)[0]


def exact(name, arrays, attrs):
    """The result in float64, and what it would be if all terms were positive."""
    op = OPS[name]
    wide = [a.astype("f8") for a in arrays]
    bound = op.bind(attrs)
    return op.reference(*wide, **bound), op.reference(*map(np.abs, wide), **bound)


def check(name, arrays, attrs):
    found = run(name, arrays, attrs)
    wanted, size = exact(name, arrays, attrs)
    assert found.dtype == bf16.numpy
    np.testing.assert_array_less(
        np.abs(found.astype("f8") - wanted), np.abs(wanted) * 2.0**-8 + size * 1e-6 + 1e-30
    )


SIZES = [
    (2, 2, 1), (2, 3, 2), (14, 32, 512), (15, 33, 513), (13, 31, 1023), (3, 130, 5),
    (100, 129, 31), (200, 64, 33), (29, 32, 1), (0, 4, 3), (4, 5, 0), (1, 70, 65), (70, 1, 65),
]  # fmt: skip


@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_sizes_around_the_tile_in_all_transposes_are_exact_to_f32_sums(m, n, k):
    for i, left in ((1, (m, k)), (0, (k, m))):
        for j, right in ((0, (k, n)), (1, (n, k))):
            axes = {"contract": ((i,), (j,)), "batch": ((), ())}
            check("dot_general", (draw(*left), draw(*right)), axes)


@pytest.mark.parametrize("k", [6, 7, 66])
def test_batches_and_split_dimensions(k):
    batched = {"contract": ((3,), (2,)), "batch": ((0, 1), (0, 1))}
    check("dot_general", (draw(2, 3, 35, k), draw(2, 3, k, 34)), batched)
    inner = {"contract": ((1,), (0,)), "batch": ((2,), (1,))}
    check("dot_general", (draw(5, k, 3), draw(k, 3, 4)), inner)
    # k lies in two runs of the left operand, of even or odd length.
    split = {"contract": ((0, 2), (0, 1)), "batch": ((), ())}
    check("dot_general", (draw(3, 20, k), draw(3, k, 40)), split)
    split = {"contract": ((1, 2), (0, 2)), "batch": ((), ())}
    arrays = draw(20, 3, k), draw(3, 40, k)
    if k % 2 == 0 or not gemm.tile_of("bf16").pairs:
        check("dot_general", arrays, split)
    else:
        assert plan(node_of("dot_general", arrays, split)) is None


def test_one_and_two_threads_give_the_same_bits(threads):
    x, y = draw(301, 515), draw(515, 402)
    results = []
    for count in (1, 2):
        threads(count)
        results.append(run("dot_general", (x, y), MATRIX).view("u2"))
    np.testing.assert_array_equal(*results)


STORE = """
def store(args, tile, ldt, row0, rows, col0, cols):
    t = f32_at(tile)
    out = f32_ptr(args, 0)
    n = i64_arg(args, 1)
    for i in range(rows):
        for j in range(cols):
            out[(row0 + i) * n + col0 + j] = t[i * ldt + j]
"""


@pytest.mark.parametrize("shape", [(2, 40, 64), (45, 1301, 77), (200, 520, 129)])
def test_an_epilogue_sees_sums_in_f32(shape):
    m, k, n = shape
    x, y = draw(m, k), draw(k, n)
    node = node_of("dot_general", (x, y), MATRIX)
    found = plan(node)
    slots, out = np.zeros(2, np.int64), np.full((m, n), 7, np.float32)
    kernel = toolchain.compile_epilogue(STORE, "store", independent=True)
    slots[:] = out.ctypes.data, n
    last = found.stages[-1]
    values = {"epilogue": kernel.address, "epilogue_args": slots.ctypes.data}
    args = [values[a.where] if getattr(a, "where", 0) in values else a for a in last.args]
    run_plan(node, replace(found, stages=[*found.stages[:-1], replace(last, args=args)]), (x, y))
    wanted, size = exact("dot_general", (x, y), MATRIX)
    assert np.abs(out - wanted).max() <= 1e-6 * size.max()


def test_infinity_and_nan_reach_only_what_they_belong_to():
    x, y = draw(40, 65), draw(65, 50)
    x[3, 64], x[7, 5] = np.inf, np.nan
    found = run("dot_general", (x, y), MATRIX).astype("f4")
    assert np.isinf(found[3]).all()
    assert np.isnan(found[7]).all()
    assert np.isfinite(np.delete(found, [3, 7], axis=0)).all()


# Images, channels and outputs of a group, groups, sizes, window, stride, padding, dilation.
CONVOLUTIONS = [
    (2, 6, 20, 1, (9, 11), (3, 3), 1, 1, 1),
    (3, 5, 17, 2, (10, 7), (3, 2), 2, 1, 1),
    (1, 9, 33, 1, (12, 12), (3, 3), 1, 0, 2),
    (4, 3, 5, 1, (8, 8), (1, 1), 2, 0, 1),
    (5, 7, 19, 1, (6, 7), (1, 1), 1, 0, 1),
    (2, 4, 6, 3, (5, 5), (1, 1), 1, 0, 1),
    (2, 1, 1, 6, (9, 9), (3, 3), 1, 1, 1),
    (3, 65, 40, 2, (6, 7), (1, 1), 1, 0, 1),
    (2, 65, 60, 1, (5, 5), (1, 1), 1, 0, 1),
    (2, 8, 3, 1, (40,), (5,), 1, 2, 1),
    (2, 3, 8, 1, (6, 5, 7), (3, 3, 3), 1, 1, 1),
    (5, 64, 64, 1, (15, 16), (3, 3), 1, 1, 1),  # by Winograd's algorithm
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions_and_their_gradients_are_exact_to_f32_sums(case):
    n, c, o, groups, sizes, window, stride, padding, dilation = case
    rank = len(sizes)
    attrs = {
        "stride": (stride,) * rank,
        "padding": ((padding, padding),) * rank,
        "dilation": (dilation,) * rank,
        "groups": groups,
    }
    x, w = draw(n, c * groups, *sizes), draw(o * groups, c, *window)
    check("conv", (x, w), attrs)
    g = draw(*exact("conv", (x, w), attrs)[0].shape)
    check("conv_input_grad", (g, w), {"x_spatial": sizes, **attrs})
    check("conv_weight_grad", (x, g), {"w_spatial": window, **attrs})


def test_convolutions_give_the_same_bits_on_one_and_two_threads(threads):
    x, w = draw(3, 20, 15, 17), draw(40, 20, 3, 3)
    attrs = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    g = draw(3, 40, 15, 17)
    results = []
    for count in (1, 2):
        threads(count)
        results += [
            run("conv", (x, w), attrs).view("u2"),
            run("conv_input_grad", (g, w), {"x_spatial": (15, 17), **attrs}).view("u2"),
            run("conv_weight_grad", (x, g), {"w_spatial": (3, 3), **attrs}).view("u2"),
        ]
    for one, two in zip(results[:3], results[3:], strict=True):
        np.testing.assert_array_equal(one, two)
