"""Every primitive compiled as a graph of its own gives what its reference gives, dtype by dtype.

TRACECC_OPS_DTYPES=all compiles every dtype of every op; by default two, which rotate with the op.
"""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from oracles import extreme_samples, run, samples_of

from tracecc.compile import lower
from tracecc_ir.graph import Builder
from tracecc_ir.op import OPS, Op, Sample
from tracecc_ir.types import INTS, DType, TensorType, bf16, f16, f32, f64, i64, type_of_array

PRIMITIVES = sorted((op for op in OPS.values() if op.reference is not None), key=lambda o: o.name)
FENCE = 256  # bytes
EVERY = os.environ.get("TRACECC_OPS_DTYPES") == "all"
TOLERANCE = {f64: 1e-11, f32: 2e-5, f16: 2e-3, bf16: 1.6e-2}


def dtypes_of(op: Op) -> list[DType]:
    """f32 where the op has it, and one of the others, by turns."""
    if EVERY:
        return list(op.dtypes)
    first = f32 if f32 in op.dtypes else op.dtypes[0]
    rest = [d for d in op.dtypes if d is not first]
    return [first, *rest[PRIMITIVES.index(op) % len(rest) :][:1]] if rest else [first]


class Fence:
    """Memory for one output between two stretches that nobody may write."""

    def __init__(self, type: TensorType):
        size = math.prod(type.sizes) * type.dtype.itemsize
        self.memory = np.full(size + 2 * FENCE, 0xA5, np.uint8)
        self.inside = slice(FENCE, FENCE + size)
        self.array = self.memory[self.inside].view(type.dtype.numpy).reshape(type.sizes)

    def stands(self) -> bool:
        outside = np.delete(self.memory, self.inside)
        return bool((outside == 0xA5).all())


def compiled(op: Op, samples: list[Sample]) -> list[list[np.ndarray]]:
    """One graph in which each sample is a node; the results of each node."""
    b = Builder(op.name)
    inputs: list[np.ndarray] = []
    counts = []
    for sample in samples:
        inputs += sample.inputs
        values = [b.input(type_of_array(a)) for a in sample.inputs]
        made = b.emit(op, values, op.bind(sample.attrs))
        b.graph.outputs += made
        counts.append(len(made))
    fenced = [Fence(v.type) for v in b.graph.outputs]
    executable = lower(b.graph)[1]
    memory = {i: fence.array for i, fence in enumerate(fenced)}
    results = iter(executable([np.array(a) for a in inputs], [], memory))
    assert all(fence.stands() for fence in fenced), f"{op.name} writes outside of its output"
    return [[next(results) for _ in range(n)] for n in counts]


def check(op: Op, dtype: DType, samples: list[Sample]) -> None:
    for sample, found in zip(samples, compiled(op, samples), strict=True):
        with np.errstate(all="ignore"):
            expected = run(op, sample.inputs, sample.attrs)
        for got, wanted in zip(found, expected, strict=True):
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
            note = f"{op.name} {dtype.name} {[a.shape for a in sample.inputs]} {sample.attrs}"
            tolerance = TOLERANCE.get(type_of_array(wanted).dtype, 0)
            wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
            got, wanted = (np.asarray(a).astype(wide) for a in (got, wanted))
            np.testing.assert_allclose(got, wanted, tolerance, tolerance, err_msg=note)


CASES = [(op, dtype) for op in PRIMITIVES for dtype in dtypes_of(op)]


@pytest.mark.parametrize(("op", "dtype"), CASES, ids=lambda x: x.name)
def test_compiled_op_equals_its_reference(op: Op, dtype: DType) -> None:
    samples = list(samples_of(op, np.random.default_rng(0), dtype))
    if op.kind == "elementwise" and dtype.kind == "float" and not op.attr_names:
        samples += extreme_samples(op, dtype)
    check(op, dtype, samples)


@pytest.mark.parametrize("source", [f16, bf16, f32, f64], ids=lambda d: d.name)
def test_floats_that_no_integer_can_hold_become_the_same_integers(source: DType) -> None:
    values = [np.nan, np.inf, -np.inf, 3e9, -3e9, 1e20, -1e20, 2.0**31, 2.0**63, -(2.0**63), -1.5]
    with np.errstate(over="ignore"):
        x = np.array(values).astype(source.numpy)
    check(OPS["cast"], source, [Sample((x,), {"dtype": d}) for d in INTS])
    (whole,) = run(OPS["cast"], [x[:3]], {"dtype": i64})
    assert whole.tolist() == [0, 2**63 - 1, -(2**63)]
