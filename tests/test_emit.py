"""Emitted kernels: their text, what it depends on, and their numbers."""

import itertools

import numpy as np
import pytest

import tracecc as tc
from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.lower import compile_graph
from tracecc_ir import ops
from tracecc_ir.graph import Builder
from tracecc_ir.interpret import interpret
from tracecc_ir.op import OPS
from tracecc_ir.types import DTYPES, TensorType, bool_, f16, f32

SHAPE = (3, 4, 5)
SUBSETS = [s for n in range(4) for s in itertools.combinations(range(3), n)]


def build(function, *types):
    """A graph of inputs of these types."""
    b = Builder("test")
    made = function(*[b.expr(b.input(t, f"x{i}")) for i, t in enumerate(types)])
    b.graph.outputs = [e.value for e in (made if isinstance(made, tuple) else (made,))]
    return b.graph


def draw(type, seed=0):
    rng = np.random.default_rng(seed)
    if type.dtype.kind == "float":
        return rng.standard_normal(type.shape).astype(type.dtype.numpy)
    return rng.integers(0, 2 if type.dtype is bool_ else 9, type.shape).astype(type.dtype.numpy)


def check(function, *types, tolerance=1e-5):
    """Compiled equals interpreted, on kernels alone; returns the executable."""
    graph = build(function, *types)
    inputs = [draw(t, i) for i, t in enumerate(types)]
    executable = compile_graph(graph)
    assert all(launch.kind != "host" for launch in executable.program.launches)
    for found, wanted in zip(executable(inputs), interpret(graph, inputs)[0], strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(
            found.astype(np.float64), wanted.astype(np.float64), rtol=tolerance, atol=tolerance
        )
    return executable


def rows_softmax(x):
    top = ops.broadcast(ops.reduce_max(x, axes=(1,)), shape=x.shape, axes=(0,))
    e = ops.exp(x - top)
    return e / ops.broadcast(ops.reduce_sum(e, axes=(1,)), shape=x.shape, axes=(0,))


def normalised_columns(x):
    def mean(v):
        total = ops.reduce_sum(v, axes=(0,)) * (1 / x.shape[0])
        return ops.broadcast(total, shape=x.shape, axes=(1,))

    d = x - mean(x)
    return d / ops.sqrt(mean(d * d) + 1e-5)


def test_the_text_of_a_contiguous_map_is_one_flat_loop():
    executable = check(lambda x, y: x * y + x * 2.0, *[TensorType(f32, SHAPE)] * 2)
    (kernel,) = executable.kernels()
    body = kernel.source.split("\n", 1)[1]
    assert body == (
        "    p0 = f32_ptr(args, 1)\n"
        "    p1 = f32_ptr(args, 2)\n"
        "    p2 = f32_ptr(args, 3)\n"
        "    t3 = f32_arg(args, 0)\n"
        "    for i0 in range(begin, end):\n"
        "        t0 = p1[i0]\n"
        "        t1 = p2[i0]\n"
        "        t2 = mul(t0, t1)\n"
        "        t4 = mul(t0, t3)\n"
        "        t5 = add(t2, t4)\n"
        "        p0[i0] = t5\n"
    )


@pytest.mark.parametrize("function", [rows_softmax, normalised_columns])
def test_loops_use_the_widest_vectors_of_the_host(function):
    names = {512: "zmm", 256: "ymm"}
    if toolchain.vector_bits() not in names:
        pytest.skip("the host has neither 512- nor 256-bit vectors")
    executable = compile_graph(build(function, TensorType(f32, (300, 70))))
    for kernel in executable.kernels():
        text = toolchain.assembly(kernel.source, kernel.name, independent=True)
        assert text.count(names[toolchain.vector_bits()]) > 10


@pytest.mark.parametrize("function", [rows_softmax, normalised_columns])
def test_another_size_has_the_same_text_and_compiles_nothing(function):
    first, second = (
        compile_graph(build(function, TensorType(f32, (rows, 70)))) for rows in (64, 29)
    )
    assert [k.source for k in first.kernels()] == [k.source for k in second.kernels()]
    assert second.kernels_compiled == 0


@pytest.mark.parametrize("shape", [(70_000, 9), (40, 3000), (5000, 130)])
def test_columns_and_rows_have_the_same_bits_for_any_number_of_threads(shape):
    type = TensorType(f32, shape)
    executable = compile_graph(
        build(lambda x: (rows_softmax(x), ops.reduce_sum(x, axes=(0,))), type)
    )
    x, found = draw(type), []
    before = tc.get_num_threads()
    for threads in (1, 2, 3):
        tc.set_num_threads(threads)
        found.append(executable([x]))
    tc.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))


@pytest.mark.parametrize("axes", SUBSETS, ids=str)
@pytest.mark.parametrize("name", ["reduce_sum", "reduce_prod", "reduce_max", "reduce_min"])
def test_reductions_over_every_subset_of_axes(name, axes):
    check(lambda x: OPS[name](x * 0.5, axes=axes), TensorType(f32, SHAPE))


@pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if not d.is_complex], ids=str)
def test_arithmetic_and_maxima_of_every_real_dtype(dtype):
    low = dtype.kind == "float" and dtype.bits == 16
    type = TensorType(dtype, (5, 7))
    check(lambda x, y: x * y + x, type, type, tolerance=2e-2 if low else 1e-6)
    check(lambda x: ops.reduce_max(x, axes=(0,)), type)
    check(lambda x: ops.reduce_min(x, axes=(1,)), type)


def each(x, first, rest):
    """One number per dimension: ``first``, then ``rest``."""
    return (first, *(rest,) * (x.ndim - 1))


MOVEMENT = {
    "permute": lambda x: ops.permute(x, axes=(*range(1, x.ndim), 0)),
    "slice": lambda x: ops.slice(x, starts=each(x, 1, 0), limits=x.shape, strides=each(x, 1, 2)),
    "pad": lambda x: ops.pad(
        x, low=each(x, 1, 0), high=each(x, 0, 2), interior=each(x, 0, 0), value=2
    ),
    "flip": lambda x: ops.flip(x, axes=(0, x.ndim - 1)),
    "flatten": lambda x: ops.reshape(x, shape=(x.shape[0], x.size // x.shape[0])),
    "broadcast": lambda x: ops.broadcast(
        x, shape=(x.shape[0], 2, *x.shape[1:]), axes=(0, *range(2, x.ndim + 1))
    ),
}


@pytest.mark.parametrize("outer", MOVEMENT)
@pytest.mark.parametrize("inner", MOVEMENT)
def test_movement_of_moved_and_computed_values(outer, inner):
    check(lambda x: MOVEMENT[outer](MOVEMENT[inner](x) * 3.0) + 1.0, TensorType(f32, SHAPE))


def test_nan_wins_maxima_and_minima_of_rows_columns_and_all():
    x = draw(TensorType(f32, (70, 90)))
    x[3, 5] = np.nan
    for axes in ((0,), (1,), (0, 1)):
        graph = build(
            lambda v, a=axes: (ops.reduce_max(v, axes=a), ops.reduce_min(v, axes=a)),
            TensorType(f32, x.shape),
        )
        for found, ufunc in zip(compile_graph(graph)([x]), (np.max, np.min), strict=True):
            np.testing.assert_array_equal(found, ufunc(x, axis=axes))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (3, 0), (1, 1)])
def test_scalars_and_empty_arrays(shape):
    graph = build(lambda x: (ops.exp(x) * 2.0, ops.reduce_sum(x, axes=())), TensorType(f32, shape))
    x = draw(TensorType(f32, shape))
    for found, wanted in zip(compile_graph(graph)([x]), interpret(graph, [x])[0], strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_halves_are_rounded_once_when_they_are_stored():
    x = np.full(8, 1.001, np.float16)
    (found,) = compile_graph(build(lambda v: v * v * v, TensorType(f16, (8,))))([x])
    np.testing.assert_array_equal(found, (x.astype(np.float32) ** 3).astype(np.float16))
