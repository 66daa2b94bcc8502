"""The vector mathematics: error bounds in ulp, special values, and that loops over it vectorise."""

import math
import re

import numpy as np
import pytest

from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.target import target
from tracecc_ir.ops import op_named
from tracecc_ir.ops.random import philox as philox_op

KIND = {
    np.dtype(t): n
    for n, t in {
        "f32": "float32",
        "f64": "float64",
        "i8": "int8",
        "i16": "int16",
        "i32": "int32",
        "i64": "int64",
        "u8": "uint8",
        "u16": "uint16",
    }.items()
}


def source(expression: str, inputs: list[np.dtype], output: np.dtype) -> str:
    lines = ["def kernel(args, begin, end, scratch):"]
    for n, dtype in enumerate([*inputs, output]):
        lines.append(f"    p{n} = {KIND[np.dtype(dtype)]}_ptr(args, {n})")
    lines.append("    for i in range(begin, end):")
    given = [f"p{n}[i]" for n in range(len(inputs))]
    lines.append(f"        p{len(inputs)}[i] = " + expression.format(*given))
    return "\n".join(lines) + "\n"


def evaluate(expression: str, *arrays: np.ndarray, dtype: object = None) -> np.ndarray:
    arrays = tuple(np.ascontiguousarray(a) for a in arrays)
    out = np.empty(arrays[0].shape, dtype or arrays[0].dtype)
    text = source(expression, [a.dtype for a in arrays], out.dtype)
    kernel = toolchain.compile_kernel(text, "kernel", independent=True)
    args = np.array([a.ctypes.data for a in (*arrays, out)], np.int64)
    call(kernel.address, args, 0, out.size)
    return out


def call(address: int, args: np.ndarray, begin: int, end: int) -> None:
    import ctypes

    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(address)(args.ctypes.data, begin, end, 0)


def ulps(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The distance in units of the expected value's last place, 0 where both are one special."""
    exact = np.asarray(expected, np.longdouble)
    with np.errstate(all="ignore"):
        rounded = exact.astype(found.dtype)
        unit = np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, 1)))
        distance = np.abs(found.astype(np.longdouble) - exact) / unit.astype(np.longdouble)
    same = (found == rounded) | (np.isnan(found) & np.isnan(rounded))
    return np.where(
        same,
        np.minimum(np.nan_to_num(distance, nan=0, posinf=0), 1),
        np.nan_to_num(distance, nan=1e9, posinf=1e9),
    )


def scalar(f):
    def apply(x):
        return np.array([f(float(v)) for v in np.ravel(x)], np.longdouble).reshape(np.shape(x))

    return apply


def long_sigmoid(x):
    return 1 / (1 + np.exp(-x))


def spread(rng, low, high, n=20000):
    """Uniform in value, then uniform in exponent of both signs, within bounds."""
    values = rng.uniform(low, high, n)
    exponents = np.exp(rng.uniform(-80, math.log(max(abs(low), abs(high))), n))
    signed = np.concatenate([values, exponents, -exponents])
    return signed[(signed >= low) & (signed <= high)]


# name: (reference in long double, domain for f32, domain for f64)
FUNCTIONS = {
    "exp": (np.exp, (-87, 88.7), (-708, 709.7)),
    "exp2": (np.exp2, (-125, 127.9), (-1020, 1023.9)),
    "expm1": (np.expm1, (-30, 88), (-40, 709)),
    "log": (np.log, (1e-37, 3e38), (1e-300, 1e300)),
    "log2": (np.log2, (1e-37, 3e38), (1e-300, 1e300)),
    "log10": (np.log10, (1e-37, 3e38), (1e-300, 1e300)),
    "log1p": (np.log1p, (-0.999, 1e30), (-0.9999, 1e300)),
    "sqrt": (np.sqrt, (0, 1e30), (0, 1e300)),
    "rsqrt": (lambda x: 1 / np.sqrt(x), (1e-30, 1e30), (1e-300, 1e300)),
    "sin": (np.sin, (-1e4, 1e4), (-1e5, 1e5)),
    "cos": (np.cos, (-1e4, 1e4), (-1e5, 1e5)),
    "tan": (np.tan, (-1e4, 1e4), (-1e5, 1e5)),
    "asin": (np.arcsin, (-1, 1), (-1, 1)),
    "acos": (np.arccos, (-1, 1), (-1, 1)),
    "atan": (np.arctan, (-1e9, 1e9), (-1e9, 1e9)),
    "sinh": (np.sinh, (-88, 88), (-709, 709)),
    "cosh": (np.cosh, (-88, 88), (-709, 709)),
    "tanh": (np.tanh, (-12, 12), (-25, 25)),
    "asinh": (np.arcsinh, (-1e30, 1e30), (-1e200, 1e200)),
    "acosh": (np.arccosh, (1, 1e30), (1, 1e200)),
    "atanh": (np.arctanh, (-0.99999, 0.99999), (-0.99999, 0.99999)),
    "sigmoid": (long_sigmoid, (-85, 85), (-700, 700)),
    "erf": (scalar(math.erf), (-5, 5), (-6, 6)),
    "erfc": (scalar(math.erfc), (-5, 9), (-6, 26)),
}
BOUND = {np.float32: 2.0, np.float64: 4.0}
WIDER = {("tanh", np.float32): 2.5}
SPECIALS = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 1e-310, -1e-310])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_stays_within_the_documented_ulps(name, dtype):
    reference, *domains = FUNCTIONS[name]
    low, high = domains[dtype is np.float64]
    x = spread(np.random.default_rng(1), low, high).astype(dtype)
    x = x[(x >= low) & (x <= high)]
    with np.errstate(all="ignore"):
        expected = reference(x.astype(np.longdouble))
    found = evaluate(f"{name}({{0}})", x)
    normal = np.abs(expected) >= np.finfo(dtype).tiny
    error = ulps(found, expected)[normal]
    bound = WIDER.get((name, dtype), BOUND[dtype])
    assert error.max() <= bound, (name, x[normal][error.argmax()], error.max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values_are_numpys(name, dtype):
    x = SPECIALS.astype(dtype)
    with np.errstate(all="ignore"):
        expected = np.asarray(FUNCTIONS[name][0](x.astype(np.longdouble)))
        if name in ("erf", "erfc"):
            expected = np.asarray([getattr(math, name)(float(v)) for v in x])
        expected = expected.astype(dtype)
    found = evaluate(f"{name}({{0}})", x)
    special = ~np.isfinite(expected) | (expected == 0)
    np.testing.assert_array_equal(found[special], expected[special])
    np.testing.assert_array_equal(
        np.signbit(found)[expected == 0], np.signbit(expected)[expected == 0]
    )
    np.testing.assert_allclose(found, expected, rtol=2e-6 if dtype is np.float32 else 1e-14)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_huge_arguments_are_reduced_exactly(name):
    rng = np.random.default_rng(2)
    wide = rng.uniform(1, 2, 3000) * 2.0 ** rng.integers(20, 1023, 3000)
    # Long double's own reduction is exact only within its range: compare with the C library.
    expected = np.array([getattr(math, name)(v) for v in wide])
    error = ulps(evaluate(f"{name}({{0}})", wide), expected)
    assert error.max() <= 4
    narrow = (rng.uniform(1, 2, 3000) * 2.0 ** rng.integers(20, 127, 3000)).astype(np.float32)
    expected = np.array([getattr(math, name)(float(v)) for v in narrow])
    assert ulps(evaluate(f"{name}({{0}})", narrow), expected).max() <= 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pow_and_atan2_in_ulps_and_special_values(dtype):
    rng = np.random.default_rng(3)
    x = np.exp(rng.uniform(-20, 20, 20000)).astype(dtype)
    y = rng.uniform(-4, 4, 20000).astype(dtype)
    expected = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
    assert ulps(evaluate("pow({0}, {1})", x, y), expected).max() <= BOUND[dtype]
    y = (y * 7).astype(dtype)
    expected = np.arctan2(y.astype(np.longdouble), -x.astype(np.longdouble))
    assert ulps(evaluate("atan2({0}, {1})", y, -x), expected).max() <= BOUND[dtype]
    grid = np.array([0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, np.inf, -np.inf, np.nan, 1e30], dtype)
    a, b = (g.ravel() for g in np.meshgrid(grid, grid))
    with np.errstate(all="ignore"):
        for name, reference in (("pow", np.power), ("atan2", np.arctan2)):
            found, wanted = evaluate(f"{name}({{0}}, {{1}})", a, b), reference(a, b)
            np.testing.assert_allclose(found, wanted, rtol=4 * np.finfo(dtype).eps)
            zero = wanted == 0
            np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(wanted[zero]))


def test_pow_of_large_results_keeps_its_precision():
    rng = np.random.default_rng(4)
    x = rng.uniform(1.0001, 3, 20000)
    y = rng.uniform(600, 709, 20000) / np.log(x)
    expected = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
    assert ulps(evaluate("pow({0}, {1})", x, y), expected).max() <= 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gamma_functions_and_erfinv_agree_with_the_reference(dtype):
    rng = np.random.default_rng(5)
    tolerance = 4 * np.finfo(dtype).eps
    x = rng.uniform(0.01, 30, 3000).astype(dtype)
    for name in ("lgamma", "digamma"):
        expected = op_named(name).reference(x.astype(np.float64))
        found = evaluate(f"{name}({{0}})", x)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=4 * tolerance)
    x = -rng.uniform(0.05, 0.95, 500).astype(dtype) - rng.integers(0, 5, 500).astype(dtype)
    expected = op_named("digamma").reference(x.astype(np.float64))
    np.testing.assert_allclose(
        evaluate("digamma({0})", x),
        expected,
        rtol=100 * tolerance,
        atol=1e-4 if dtype is np.float32 else 1e-13,
    )
    y = np.concatenate([rng.uniform(-1, 1, 3000), 1 - 10.0 ** -rng.uniform(1, 6, 300)]).astype(
        dtype
    )
    back = evaluate("erfinv({0})", y)
    assert np.abs(np.array([math.erf(v) for v in back]) - y).max() <= 2 * np.finfo(dtype).eps
    np.testing.assert_array_equal(
        evaluate("erfinv({0})", np.array([1, -1, 2, 0], dtype)),
        np.array([np.inf, -np.inf, np.nan, 0], dtype),
    )


@pytest.mark.parametrize("name", ["floor", "ceil", "trunc", "round", "sign", "abs"])
def test_rounding_is_exact(name):
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.4, -2.6, 1e30, np.inf, -np.inf, np.nan, 0.0])
    for dtype in (np.float32, np.float64):
        given = x.astype(dtype)
        expected = op_named(name).reference(given)
        np.testing.assert_array_equal(evaluate(f"{name}({{0}})", given), expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("name", ["floor_div", "remainder", "fmod", "maximum", "minimum"])
def test_division_and_extremes_are_numpys(name, dtype):
    info = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else None
    grid = np.array([0, 1, 2, 3, 5, 7, 100], dtype)
    if info is None:
        grid = np.concatenate(
            [grid, -grid, np.array([0.3, -2.5, np.inf, -np.inf, np.nan, 1e20], dtype)]
        )
    elif info.min < 0:
        grid = np.concatenate([grid, -grid, np.array([info.min, info.max], dtype)])
    a, b = (g.ravel() for g in np.meshgrid(grid, grid))
    expected = op_named(name).reference(a, b)
    np.testing.assert_array_equal(evaluate(f"{name}({{0}}, {{1}})", a, b), expected)


def test_integer_powers_wrap_as_numpys():
    a, b = (g.ravel() for g in np.meshgrid(np.arange(-5, 6), np.arange(0, 70)))
    np.testing.assert_array_equal(evaluate("pow({0}, {1})", a, b), np.power(a, b))
    found = evaluate("pow({0}, {1})", np.array([1, -1, -1, 2]), np.array([-3, -3, -2, -1]))
    np.testing.assert_array_equal(found, [1, -1, 1, 0])


def test_conversions_saturate_and_halves_round_to_even():
    x = np.array([1.9, -1.9, 3e9, -3e9, np.nan, 300.7], np.float32)
    assert evaluate("i32({0})", x, dtype=np.int32).tolist() == [1, -1, 2**31 - 1, -(2**31), 0, 300]
    assert evaluate("u8({0})", x, dtype=np.uint8)[[0, 5]].tolist() == [1, 44]
    rng = np.random.default_rng(6)
    x = (rng.standard_normal(5000) * 10.0 ** rng.integers(-9, 6, 5000)).astype(np.float32)
    x[:4] = [np.inf, -np.inf, 65519.0, 65520.0]
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    found = evaluate("f16_from_f32({0})", x, dtype=np.uint16)
    np.testing.assert_array_equal(found, expected.view(np.uint16))
    every = np.arange(65536).astype(np.uint16)
    back = evaluate("f32_from_f16({0})", every, dtype=np.float32)
    np.testing.assert_array_equal(back, every.view(np.float16).astype(np.float32))
    ml_dtypes = pytest.importorskip("ml_dtypes")
    found = evaluate("bf16_from_f32({0})", x, dtype=np.uint16)
    np.testing.assert_array_equal(found, x.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_philox_is_the_references():
    seed, position = np.int64(-7), np.int64(2**40 + 3)
    index = np.arange(1000)
    found = evaluate(f"philox(i64({seed}), i64({position}), {{0}})", index, dtype=np.int32)
    np.testing.assert_array_equal(found, philox_op.reference(seed, position, shape=(1000,)))


VECTORISED = [
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "sigmoid",
    "erf",
    "erfc",
    "erfinv",
    "digamma",
    "floor",
    "ceil",
    "trunc",
    "round",
    "abs",
    "sign",
]


@pytest.mark.parametrize("name", VECTORISED)
def test_loops_use_full_width_vector_registers(name):
    if not re.match("x86_64|i686", target().triple):
        pytest.skip("reads x86 assembly")
    register = {512: "zmm", 256: "ymm", 128: "xmm"}[toolchain.vector_bits()]
    for dtype in (np.float32, np.float64):
        text = toolchain.assembly(
            source(f"{name}({{0}})", [dtype], dtype), "kernel", independent=True
        )
        assert len(re.findall(rf"%{register}\d+", text)) > 1, (name, dtype)
