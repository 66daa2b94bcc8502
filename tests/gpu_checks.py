"""What tests/gpu/run.py does on a GPU: numerics of every kernel, bandwidth of fused ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cuda_ops import (
    ELEMENTWISE,
    TESTED,
    TOLERANCE,
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
    gelu,
    graph_of,
    layer_norm,
    name_of,
    softmax,
)

from tracecc.backends.cuda.device import Gpu
from tracecc.backends.cuda.emit import CudaLaunch, emit
from tracecc.backends.cuda.kernel import flat
from tracecc.backends.cuda.program import emit_program, execute
from tracecc.backends.schedule import schedule
from tracecc.backends.schedule_body import lower_body
from tracecc_ir.graph import Graph
from tracecc_ir.interpret import interpret
from tracecc_ir.op import Attrs, Op
from tracecc_ir.ops import cast
from tracecc_ir.passes.fuse import fuse
from tracecc_ir.types import DTYPES, DType, TensorType, f32

Check = tuple[str, Callable[[], None]]


@dataclass
class Tally:
    passed: int = 0
    failed: list[str] = field(default_factory=list)


def check(gpu: Gpu, graphs: int, size: int = 64) -> Tally:
    """Runs every check; prints those that fail and goes on."""
    tally = Tally()
    for name, work in (*_ops(gpu, size), *_programs(gpu, graphs)):
        try:
            work()
            tally.passed += 1
        except Exception as error:
            tally.failed.append(name)
            print(f"FAILED {name}: {type(error).__name__}: {str(error)[:800]}")
    return tally


def equal(got: np.ndarray, expected: np.ndarray, dtype: DType) -> None:
    """The simulator's tolerances, three times wider: a GPU rounds its functions in its own way."""
    if not dtype.is_floating_point:
        np.testing.assert_array_equal(got, expected)
        return
    limit = 3 * TOLERANCE[dtype.name]
    a, b = got.astype(np.float64), np.asarray(expected).astype(np.float64)
    np.testing.assert_allclose(a, b, rtol=limit, atol=limit)


def _ops(gpu: Gpu, size: int) -> Iterator[Check]:
    """Every elementwise op in every dtype, and every cast."""
    rng = np.random.default_rng(0)
    for name in TESTED:
        dtype = DTYPES[name]
        for op in ELEMENTWISE:
            if defined(op, dtype):
                types = operand_dtypes(op, dtype)
                arrays = operands(op, types, size)
                yield f"{op.name} {name}", functools.partial(_op, gpu, op, types, arrays, {})
        for to in TESTED:
            x, attrs = draw(rng, dtype, size, (0.0, 100.0)), {"dtype": DTYPES[to]}
            yield f"cast {name} {to}", functools.partial(_op, gpu, cast, [dtype], [x], attrs)


def _op(gpu: Gpu, op: Op, types: list[DType], arrays: list[np.ndarray], attrs: Attrs) -> None:
    assert op.reference is not None
    result = result_dtype(op, types, attrs)
    out = np.empty(arrays[0].size, result.numpy)
    gpu.run(one_op(op, types, out.size, attrs), [flat(a) for a in arrays], [flat(out)])
    equal(out, op.reference(*arrays, **attrs).astype(result.numpy), result)


def _programs(gpu: Gpu, graphs: int) -> Iterator[Check]:
    for case in PROGRAMS:
        yield name_of(case), functools.partial(_program, gpu, graph_of(case[0], *case[1]), 0)
    for seed in range(graphs):
        graph = Random(seed).graph(steps=8)
        yield f"random graph {seed}", functools.partial(_program, gpu, graph, seed)
    for rows, columns in ((4099, 70), (257, 5000), (3, 200_003)):
        types = [TensorType(f32, s) for s in ((rows, columns), (columns,), (columns,))]
        for build, n in ((softmax, 1), (layer_norm, 3), (column_sums, 1)):
            graph = graph_of(build, *types[:n])
            name = f"{build.__name__} {rows}x{columns}"
            yield name, functools.partial(_program, gpu, graph, 0)


def _program(gpu: Gpu, graph: Graph, seed: int) -> None:
    program, arrays = schedule(fuse(graph)), arrays_for(graph, seed)
    got = execute(program, emit_program(program), arrays, [], gpu.run)
    expected, _ = interpret(graph, arrays)
    for a, b, v in zip(got, expected, graph.outputs, strict=True):
        equal(a, b, v.dtype)


def copy(x: Any) -> Any:
    return x


def bandwidth(gpu: Gpu, elements: int) -> list[tuple[str, float, float, float]]:
    """Name, GB/s, share of a copy kernel's GB/s and milliseconds of fused kernels on f32."""
    rows = elements // 1024
    matrix, vector = TensorType(f32, (rows, 1024)), TensorType(f32, (1024,))
    cases = [
        ("copy", copy, [matrix]),
        ("gelu, product", gelu, [matrix, matrix]),
        ("softmax rows of 1024", softmax, [matrix]),
        ("layer_norm of 1024", layer_norm, [matrix, vector, vector]),
        ("sums of columns", column_sums, [matrix]),
    ]
    table: list[tuple[str, float, float, float]] = []
    for name, build, types in cases:
        graph = graph_of(build, *types)
        launch = emit(lower_body(graph), build.__name__)
        values = [*graph.inputs, *graph.outputs]
        moved = sum(int(v.type.nbytes) for v in values)  # type: ignore[arg-type]
        milliseconds = _time(gpu, launch, graph)
        rate = moved / milliseconds / 1e6
        table.append((name, rate, rate / (table[0][1] if table else rate), milliseconds))
    return table


def _time(gpu: Gpu, launch: CudaLaunch, graph: Graph) -> float:
    """Four sets of buffers in turn, so that the L2 cache holds none of the inputs."""
    values = [*graph.inputs, *graph.outputs]
    sets = [[gpu.upload(np.zeros(v.shape, v.dtype.numpy)) for v in values] for _ in range(4)]
    milliseconds = gpu.milliseconds(lambda i: gpu.launch(launch, sets[i]))
    for buffers in sets:
        for buffer in buffers:
            buffer.close()
    return milliseconds
