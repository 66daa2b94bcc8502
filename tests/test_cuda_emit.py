"""CUDA kernels of the schedule compute what the interpreter does, in the lock-step simulator."""

import ast

import numpy as np
import pytest

from tracecc.backends.cuda.kernel import flat
from tracecc.backends.cuda.simulator import simulate
from tracecc.backends.cuda.vocabulary import Scalar, load, store
from tracecc_ir.op import OPS
from tracecc_ir.ops import cast
from tracecc_ir.types import DTYPES, TensorType, bf16, bool_, f16, f32, f64

UNSUPPORTED = {"polygamma"}
ELEMENTWISE = [
    op
    for op in OPS.values()
    if op.kind == "elementwise" and op.name != "cast" and op.name not in UNSUPPORTED
]
TESTED = ("bool", "u8", "i32", "i64", "f16", "bf16", "f32", "f64")
TOLERANCE = {"f16": 2e-3, "bf16": 2e-2, "f32": 4e-6, "f64": 1e-12}


def draw(rng, dtype, size, domain=(-3.0, 3.0)):
    if dtype is bool_:
        return rng.integers(0, 2, size).astype(bool)
    low, high = domain
    if dtype.is_floating_point:
        return rng.uniform(low, high, size).astype(dtype.numpy)
    low = max(low, 0) if dtype.name == "u8" else low
    return rng.integers(int(np.ceil(low)), int(high) + 1, size).astype(dtype.numpy)


def operand_dtypes(op, dtype):
    return [bool_, dtype, dtype] if op.name == "select" else [dtype] * arity(op)


def arity(op):
    return 1 + max(int(c) for c in "012" if f"{{{c}}}" in op.scalar)


def one_op_kernel(name, dtype, types, attrs=None):
    """A kernel that applies one op to every element of its operands."""
    scalar = Scalar()
    lines = ["i = uint32(cuda.threadIdx.x)"]
    names = [f"x{k}" for k in range(len(types))]
    for k, t in enumerate(types):
        lines.append(f"x{k} = {load(f'p{k}', 'i', t)}")
    lines += scalar.statements(name, "z", dtype, names, types, attrs)
    lines += store("out", "i", "z", dtype, scalar.fresh)
    head = f"def one({', '.join(f'p{k}' for k in range(len(types)))}, out):\n"
    return head + "".join(f"    {line}\n" for line in lines)


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


def run_one(name, arrays, dtype, types, attrs=None):
    source = one_op_kernel(name, dtype, types, attrs)
    assert bare_literals(source) == []
    out = np.empty(arrays[0].size, dtype.numpy)
    simulate(source, "one", (1,), (out.size,), [*map(flat, arrays), flat(out)], (len(arrays),))
    return out


def same(got, expected, dtype):
    assert got.dtype == expected.dtype
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
    types = operand_dtypes(op, dtype)
    if op.name != "select" and dtype not in op.dtypes:
        return
    rng = np.random.default_rng(3)
    domains = op.domain if isinstance(op.domain[0], tuple) else (op.domain,) * len(types)
    arrays = [draw(rng, t, 16, d) for t, d in zip(types, domains, strict=True)]
    expected = op.reference(*arrays)
    result = op.result_types([TensorType(t, (16,)) for t in types], {})[0].dtype
    same(run_one(op.name, arrays, result, types), expected.astype(result.numpy), result)


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
    result = op.result_types([TensorType(dtype, (n,))] * len(arrays), {})[0].dtype
    got = run_one(op.name, arrays, result, [dtype] * len(arrays))
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
    np.testing.assert_array_equal(run_one("cast", [x], b, [a], {"dtype": b}), expected)


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_half_precision_rounds_to_nearest_even(dtype):
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.standard_normal(200), SPECIAL, [65519.0, 1.00390625, 1.01171875]])
    x = x.astype(np.float32)
    got = run_one("cast", [x], dtype, [f32])
    np.testing.assert_array_equal(
        got.view(np.uint16)[~np.isnan(x)], x.astype(dtype.numpy).view(np.uint16)[~np.isnan(x)]
    )
    assert np.isnan(got.astype(np.float32)).tolist() == np.isnan(x).tolist()
