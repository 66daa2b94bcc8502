"""Kernels of one elementwise op each, drawn from the op table."""

from __future__ import annotations

import numpy as np

from tracecc.backends.cuda.emit import CudaLaunch
from tracecc.backends.cuda.kernel import CudaKernel, Parameter, storage
from tracecc.backends.cuda.vocabulary import Scalar, demands, load, store
from tracecc_ir.op import OPS, Attrs, Op
from tracecc_ir.types import DType, TensorType, bool_

UNSUPPORTED = {"polygamma"}
ELEMENTWISE = [
    op
    for op in OPS.values()
    if op.kind == "elementwise" and op.name != "cast" and op.name not in UNSUPPORTED
]
TESTED = ("bool", "u8", "i32", "i64", "f16", "bf16", "f32", "f64")
TOLERANCE = {"f16": 2e-3, "bf16": 2e-2, "f32": 4e-6, "f64": 1e-12}


def arity(op: Op) -> int:
    assert op.scalar is not None
    return 1 + max(int(c) for c in "012" if f"{{{c}}}" in op.scalar)


def defined(op: Op, dtype: DType) -> bool:
    return op.name == "select" or dtype in op.dtypes


def operand_dtypes(op: Op, dtype: DType) -> list[DType]:
    return [bool_, dtype, dtype] if op.name == "select" else [dtype] * arity(op)


def result_dtype(op: Op, types: list[DType], attrs: Attrs | None = None) -> DType:
    return op.result_types([TensorType(t, (1,)) for t in types], attrs or {})[0].dtype


def draw(rng: np.random.Generator, dtype: DType, size: int, domain=(-3.0, 3.0)) -> np.ndarray:
    if dtype is bool_:
        return rng.integers(0, 2, size).astype(bool)
    low, high = domain
    if dtype.is_floating_point:
        return rng.uniform(low, high, size).astype(dtype.numpy)
    low = max(low, 0) if dtype.name == "u8" else low
    return rng.integers(int(np.ceil(low)), int(high) + 1, size).astype(dtype.numpy)


def operands(op: Op, types: list[DType], size: int = 16) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    domains = op.domain if isinstance(op.domain[0], tuple) else (op.domain,) * len(types)
    return [draw(rng, t, size, d) for t, d in zip(types, domains, strict=True)]


def one_op(op: Op, types: list[DType], size: int, attrs: Attrs | None = None) -> CudaLaunch:
    """A kernel that applies one op to every element of its operands, one thread each."""
    result, scalar = result_dtype(op, types, attrs), Scalar()
    names = [f"x{k}" for k in range(len(types))]
    lines = ["i = uint32(cuda.threadIdx.x)"]
    lines += [f"x{k} = {load(f'p{k}', 'i', t)}" for k, t in enumerate(types)]
    lines += scalar.statements(op.name, "z", result, names, types)
    lines += store("out", "i", "z", result, scalar.fresh)
    pointers = [Parameter(f"p{k}", storage(t), True) for k, t in enumerate(types)]
    parameters = (*pointers, Parameter("out", storage(result), True))
    head = f"def {op.name}_({', '.join(p.name for p in parameters)}):\n"
    source = head + "".join(f"    {line}\n" for line in lines)
    allows = demands(op.name, types[-1]) | demands(op.name, result)
    kernel = CudaKernel(f"{op.name}_", source, parameters, size, frozenset(allows))
    return CudaLaunch(kernel, (), size, size)
