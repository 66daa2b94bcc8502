"""The array API at its edges: special values, extreme integers, empty matrices, real consumers."""

import math
import operator
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from array_reference import agree, name_of, numbers, signs

import tracecc as tc
from tracecc import array_api as xp

BINARY = """
    add atan2 copysign divide equal floor_divide greater greater_equal hypot less less_equal
    logaddexp maximum minimum multiply nextafter not_equal pow remainder subtract
"""
OPERATORS = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
]
VALUES = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 3.0, -3.0, 1e-40, -1e-40, math.pi, 1e30, -1e30]
VALUES += [88.0, -88.0, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BINARY.split())
def test_two_special_values_meet_as_in_the_reference(name, dtype):
    x, y = np.meshgrid(np.array(VALUES, dtype), np.array(VALUES, dtype))
    assert agree(lambda p, a, b: getattr(p, name)(a, b), x, y)
    if name not in ("equal", "not_equal") and "less" not in name and "greater" not in name:
        assert agree(lambda p, a, b: signs(p, getattr(p, name)(a, b)), x, y)


@pytest.mark.parametrize("scalar", [0.0, -0.0, 2.0, -1.0, 0.5, 3, math.inf, math.nan])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_with_special_numbers_on_either_side(name, scalar):
    apply, x = getattr(operator, name), np.array(VALUES, np.float32)
    assert agree(lambda _, a: apply(a, scalar), x)
    assert agree(lambda _, a: apply(scalar, a), x)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8"])
def test_extreme_integers(dtype):
    limits = np.iinfo(dtype)
    values = [limits.min, limits.min + 1, 0, 1, 3, 5, limits.max - 1, limits.max]
    x, y = np.meshgrid(np.array(values, dtype), np.array(values, dtype))
    for name in ("add", "subtract", "multiply", "maximum", "less", "bitwise_xor"):
        assert agree(lambda p, a, b, n=name: getattr(p, n)(a, b), x, y)
    divisors = np.where(y == 0, np.array(1, dtype), y)
    for name in ("floor_divide", "remainder"):
        assert agree(lambda p, a, b, n=name: getattr(p, n)(a, b), x, divisors)
    shifts = np.where(y < 0, np.array(1, dtype), y)  # also by more bits than there are
    for name in ("bitwise_left_shift", "bitwise_right_shift"):
        assert agree(lambda p, a, b, n=name: getattr(p, n)(a, b), x, shifts)
    for name in ("abs", "negative", "square", "sign", "bitwise_invert"):
        assert agree(lambda p, a, n=name: getattr(p, n)(a), np.array(values, dtype))


@pytest.mark.parametrize("dtype", [xp.float32, xp.complex128], ids=name_of)
@pytest.mark.parametrize("batch", [(), (0,), (2,)])
@pytest.mark.parametrize("size", [0, 1, 3])
def test_linear_algebra_of_empty_and_small_matrices(size, batch, dtype):
    a = numbers(dtype, (*batch, size, size), size)
    a = a @ np.conj(np.swapaxes(a, -1, -2)) + np.eye(size, dtype=a.dtype) * (size + 1)
    a = a / (2 * size + 1)
    for name in ("inv", "det", "cholesky", "eigvalsh", "pinv", "svdvals", "matrix_rank", "trace"):
        if name == "matrix_rank" and 0 in a.shape:
            continue
        agree(lambda p, x, n=name: getattr(p.linalg, n)(x), a)
    for power in (-1, 0, 3):
        assert agree(lambda p, x, k=power: p.linalg.matrix_power(x, k), a)
    for shape in ((size,), (size, 2), (*batch, size, 2)):
        b = numbers(dtype, shape, 1)
        assert agree(lambda p, x, y: p.linalg.solve(x, y), a, b)


def test_matrices_of_right_hand_sides_are_no_batches_of_vectors():
    a, b = numbers(xp.float64, (2, 2, 2), 3), numbers(xp.float64, (2, 2), 4)
    assert agree(lambda p, x, y: p.linalg.solve(x, y), a, b)


def test_inner_products_of_small_integers_stay_small_and_wrap():
    x = np.full((2, 3), 9, np.int8)
    assert agree(lambda p, a: p.vecdot(a, a), x)
    assert xp.vecdot(xp.asarray(x), xp.asarray(x)).tolist() == [-13, -13]


def test_complex_numbers_are_not_cast_to_real_ones():
    with pytest.raises(TypeError, match=r"cannot make .*float32 of .*complex64; take real"):
        xp.astype(xp.asarray([1j]), xp.float32)


def test_small_terms_of_logaddexp_are_kept_and_equal_infinities_have_gradients():
    x = tc.tensor([-88.0, -20.0, math.inf, -math.inf, 0.0], requires_grad=True)
    y = tc.tensor([0.0, 0.0, math.inf, -math.inf, 0.0])
    out = tc.logaddexp(x, y)
    expected = np.logaddexp(x.detach().numpy().astype(np.float64), y.numpy())
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-6)
    out.sum().backward()
    np.testing.assert_allclose(
        x.grad.numpy(), [math.exp(-88), math.exp(-20), 1.0, 1.0, 0.5], rtol=1e-5
    )


def test_functions_and_methods_take_numpys_names_of_arguments():
    x = tc.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert tc.sum(x, axis=0, keepdims=True).tolist() == [[4.0, 7.0]]
    assert x.mean(axis=1).tolist() == [1.5, 4.0]
    assert tc.add(x1=x, x2=x).tolist() == [[2.0, 4.0], [6.0, 10.0]]
    assert tc.linalg.norm(x, axis=(0, 1), keepdims=True).shape == (1, 1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'axis'"):
        tc.sum(x, dim=0, axis=0)


def test_scipy_and_scikit_learn_work_on_tensors():
    pytest.importorskip("scipy")
    pytest.importorskip("sklearn")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(pathlib.Path(__file__).parent / "array_consumers.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 29
    for name, kind, distance in lines:
        assert (name, kind) == (name, "Tensor")
        assert float(distance) < 1e-13, name
