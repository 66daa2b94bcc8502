"""CUDA kernels of the schedule compute what the interpreter does, in the lock-step simulator."""

import ast
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from cuda_ops import (
    ELEMENTWISE,
    TESTED,
    TOLERANCE,
    arity,
    defined,
    draw,
    one_op,
    operand_dtypes,
    operands,
    result_dtype,
)
from cuda_programs import (
    PROGRAMS,
    Random,
    arrays_for,
    column_sums,
    graph_of,
    layer_norm,
    name_of,
    predicates,
    softmax,
    total,
    trigamma,
)

import tracecc.backends.cuda.emit
from tracecc.backends.cuda.emit import emit
from tracecc.backends.cuda.kernel import flat
from tracecc.backends.cuda.program import emit_program, execute, on_simulator
from tracecc.backends.cuda.simulator import SimulationError, simulate
from tracecc.backends.schedule import schedule
from tracecc.backends.schedule_body import lower_body
from tracecc_ir.interpret import interpret
from tracecc_ir.ops import cast
from tracecc_ir.passes.fuse import fuse
from tracecc_ir.types import DTYPES, TensorType, bf16, f16, f32, f64


def bare_literals(source):
    """Float literals that are not the argument of a type: a compiler would make them f64."""
    tree = ast.parse(source)
    wrapped = {
        id(n)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        for a in call.args
        for n in ast.walk(a)
        if call.func.id in ("float32", "float64")
        and all(
            isinstance(m, (ast.Constant, ast.UnaryOp, ast.USub, ast.BinOp, ast.Div))
            for m in ast.walk(a)
        )
    }
    floats = [
        n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, float)
    ]
    return [n.value for n in floats if id(n) not in wrapped]


def run_one(op, arrays, types, attrs=None):
    result = result_dtype(op, types, attrs)
    launch = one_op(op, types, arrays[0].size, attrs)
    assert bare_literals(launch.kernel.source) == []
    out = np.empty(arrays[0].size, result.numpy)
    on_simulator(launch, [flat(a) for a in arrays], [flat(out)])
    return out


def same(got, expected, dtype):
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    if dtype.is_floating_point:
        tolerance = TOLERANCE[dtype.name]
        got, expected = got.astype(np.float64), expected.astype(np.float64)
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", TESTED)
@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_every_elementwise_op_equals_its_reference(op, name):
    dtype = DTYPES[name]
    if not defined(op, dtype):
        return
    types = operand_dtypes(op, dtype)
    arrays = operands(op, types)
    result = result_dtype(op, types)
    same(run_one(op, arrays, types), op.reference(*arrays).astype(result.numpy), result)


SPECIAL = np.array([0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan, 1e30, 1e-30, 7.0], np.float64)


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_special_values_equal_the_reference(op, dtype):
    if op.name in ("select", "lgamma", "digamma") or dtype not in op.dtypes:
        return
    n = SPECIAL.size
    arrays = [SPECIAL.astype(dtype.numpy)]
    if arity(op) == 2:
        arrays = [np.repeat(arrays[0], n), np.tile(arrays[0], n)]
    expected = op.reference(*arrays)
    types = [dtype] * len(arrays)
    result = result_dtype(op, types)
    got = run_one(op, arrays, types)
    if op.name in ("remainder", "floor_div", "fmod", "pow"):
        both = np.isfinite(got) & np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
        got, expected = got[both], expected[both]
    same(got, expected.astype(result.numpy), result)


@pytest.mark.parametrize("to", TESTED)
@pytest.mark.parametrize("source", TESTED)
def test_every_cast_equals_numpys(source, to):
    a, b = DTYPES[source], DTYPES[to]
    x = draw(np.random.default_rng(1), a, 32, (0.0, 100.0) if to == "u8" else (-100.0, 100.0))
    expected = cast.reference(x, dtype=b)
    np.testing.assert_array_equal(run_one(cast, [x], [a], {"dtype": b}), expected)


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_half_precision_rounds_to_nearest_even(dtype):
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.standard_normal(200), SPECIAL, [65519.0, 1.00390625, 1.01171875]])
    x = x.astype(np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(dtype.numpy)
    got = run_one(cast, [x], [f32], {"dtype": dtype})
    np.testing.assert_array_equal(
        got.view(np.uint16)[~np.isnan(x)], expected.view(np.uint16)[~np.isnan(x)]
    )
    assert np.isnan(got.astype(np.float32)).tolist() == np.isnan(x).tolist()


# Whole programs: fused, scheduled, emitted, and run by the simulator.


def compiled(graph, block=64):
    program = schedule(fuse(graph))
    return program, emit_program(program, block)


def check(graph, arrays, blocks=4):
    program, launches = compiled(graph)
    for launch in launches:
        if launch is not None:
            assert bare_literals(launch.kernel.source) == []
    got = execute(program, launches, arrays, [], partial(on_simulator, blocks=blocks))
    expected, _ = interpret(graph, arrays)
    for a, b, value in zip(got, expected, graph.outputs, strict=True):
        same(a, np.asarray(b), value.dtype)
    return program


@pytest.mark.parametrize("case", PROGRAMS, ids=name_of)
def test_a_scheduled_program_equals_the_interpreter(case):
    build, types = case
    graph = graph_of(build, *types)
    program = check(graph, arrays_for(graph))
    assert all(step.body is not None for step in program.launches)


@pytest.mark.parametrize("seed", range(80))
def test_random_graphs_equal_the_interpreter(seed):
    graph = Random(seed).graph(steps=8)
    check(graph, arrays_for(graph, seed))


def test_an_op_without_scalar_code_runs_on_the_host():
    graph = graph_of(trigamma, TensorType(f32, (2, 5)))
    program = check(graph, arrays_for(graph))
    assert [s.node.op.name for s in program.launches if s.body is None] == ["polygamma"]


@pytest.mark.parametrize("case", PROGRAMS[::3], ids=name_of)
def test_indices_beyond_32_bits_are_computed_in_64(case, monkeypatch):
    monkeypatch.setattr(tracecc.backends.cuda.emit, "WIDE", 1)
    build, types = case
    graph = graph_of(build, *types)
    check(graph, arrays_for(graph))
    launches = compiled(graph)[1]
    assert all("uint64(cuda.blockIdx.x)" in launch.kernel.source for launch in launches)


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_grid_changes_no_bit(blocks):
    graph = graph_of(layer_norm, *PROGRAMS[4][1])
    arrays = arrays_for(graph)
    program, launches = compiled(graph)
    runs = [
        execute(program, launches, arrays, [], partial(on_simulator, blocks=b)) for b in (blocks, 7)
    ]
    for a, b in zip(*runs, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("worker", ["thread", "warp", "block"])
@pytest.mark.parametrize("build", [softmax, column_sums, predicates], ids=lambda b: b.__name__)
def test_any_worker_reduces_any_layout(build, worker):
    graph = graph_of(build, TensorType(f32, (5, 70)))
    arrays = arrays_for(graph)
    body = lower_body(graph)
    launch = emit(body, build.__name__, 64, worker)
    expected, _ = interpret(graph, arrays)
    got = [np.empty(e.shape, e.dtype) for e in expected]
    on_simulator(launch, [flat(a) for a in arrays], [flat(a) for a in got])
    for a, b, v in zip(got, expected, graph.outputs, strict=True):
        same(a, np.asarray(b), v.dtype)


def test_one_text_serves_every_size():
    texts = set()
    for rows, columns in ((3, 40), (8, 64), (65, 129)):
        types = [TensorType(f32, s) for s in ((rows, columns), (columns,), (columns,))]
        texts.add(emit(lower_body(graph_of(layer_norm, *types)), "layer_norm").kernel.source)
    assert len(texts) == 1


def test_a_row_kernel_reads_each_operand_from_memory_once_a_pass():
    graph = graph_of(softmax, TensorType(f32, (4, 70)))
    (launch,) = compiled(graph)[1]
    x, y = arrays_for(graph)[0], np.empty((4, 70), np.float32)
    report = simulate(
        launch.kernel.source,
        launch.kernel.name,
        (2,),
        (64,),
        [flat(x), flat(y), *launch.values()],
        (1,),
    )
    assert report.reads == [3 * x.size, 0]
    assert report.writes == [0, x.size]


def test_a_long_reduction_is_cut_into_chunks_whose_last_is_short():
    graph = graph_of(total, TensorType(f32, (70001,)))
    program, launches = compiled(graph, block=256)
    assert [step.kind for step in program.launches] == ["rows", "rows"]
    (x,) = arrays_for(graph)
    (got,) = execute(program, launches, [x], [], on_simulator)
    assert got == pytest.approx(np.square(x.astype(np.float64)).sum(), rel=1e-6)


@pytest.mark.parametrize("build", [softmax, layer_norm], ids=lambda b: b.__name__)
def test_every_barrier_and_bound_of_an_emitted_kernel_is_needed(build):
    """Without one of them the kernel is refused or computes something else. Two rows a block."""
    columns = 70
    types = [TensorType(f32, s) for s in ((4, columns), (columns,), (columns,))]
    graph = graph_of(build, *types[: 1 if build is softmax else 3])
    launch = emit(lower_body(graph), build.__name__, 64, "block")
    arrays = arrays_for(graph)
    expected, _ = interpret(graph, arrays)
    lines = launch.kernel.source.splitlines()
    barriers = [i for i, line in enumerate(lines) if "syncthreads" in line]
    bounds = [i for i, line in enumerate(lines) if "< units" in line or "< length" in line]
    assert len(barriers) >= 4
    assert len(bounds) >= 3

    def survives(text):
        kernel = replace(launch.kernel, source="\n".join(text))
        got = [np.zeros(e.shape, e.dtype) for e in expected]
        on_simulator(
            replace(launch, kernel=kernel), [flat(a) for a in arrays], [flat(a) for a in got], 2
        )
        return all(
            np.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(got, expected, strict=True)
        )

    assert survives(lines)
    for i in barriers:
        with pytest.raises(SimulationError, match=r"race|before anything"):
            survives(lines[:i] + lines[i + 1 :])
    for i in bounds:
        changed = lines[i].replace("units:", "uint32(units + uint32(1)):")
        changed = changed.replace("length:", "uint32(length + uint32(1)):")
        try:
            assert not survives([*lines[:i], changed, *lines[i + 1 :]])
        except SimulationError:
            continue
