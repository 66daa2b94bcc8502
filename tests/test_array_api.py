"""The array API standard 2024.12: `tracecc.array_api` beside array-api-strict, the reference."""

import cmath
import inspect
import math
import operator

import numpy as np
import pytest
from array_reference import (
    ALL,
    SPECIAL,
    agree,
    check,
    mixes,
    name_of,
    numbers,
    reference_dtype,
    signs,
    strict,
)

import tracecc as tc
from tracecc import array_api as xp


def functions(module):
    hidden = ("set_array_api_strict_flags", "get_array_api_strict_flags")
    hidden += ("reset_array_api_strict_flags", "requires_api_version", "requires_extension")
    hidden += ("device_supports_dtype", "normalize_axis_tuple", "broadcast_shapes", "isin")
    found = inspect.getmembers(module, inspect.isfunction)
    return {n: f for n, f in found if n not in hidden and not n.startswith("_")}


# The extension modules of the reference import helpers from its main one.
MAIN = functions(strict)
LINALG = {n: f for n, f in functions(strict.linalg).items() if hasattr(xp.linalg, n)}
FFT = {n: f for n, f in functions(strict.fft).items() if "fft" in n}
UNARY = [n for n, f in MAIN.items() if list(inspect.signature(f).parameters) == ["x"]]
BINARY = [n for n, f in MAIN.items() if list(inspect.signature(f).parameters) == ["x1", "x2"]]
CASES = [("", n) for n in MAIN] + [("linalg", n) for n in LINALG] + [("fft", n) for n in FFT]
LINALG_NAMES = xp.linalg.__all__


def test_the_linear_algebra_of_the_standard_is_there():
    helpers = {"cast", "reshape", "isdtype", "result_type", "finfo"}
    assert set(LINALG) - helpers == set(LINALG_NAMES)


@pytest.mark.parametrize(("extension", "name"), CASES, ids=lambda part: part)
def test_every_function_is_there_with_the_parameters_of_the_standard(extension, name):
    module, reference = (getattr(xp, extension), getattr(strict, extension)) if extension else (
        xp, strict)  # fmt: skip
    try:
        found = inspect.signature(getattr(module, name)).parameters
    except ValueError:
        pytest.skip("a built-in")
    found = list(found.values())
    for i, p in enumerate(inspect.signature(getattr(reference, name)).parameters.values()):
        if p.kind is p.KEYWORD_ONLY:
            (match,) = [f for f in found if f.name == p.name]
            assert match.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
            if p.name not in ("device", "copy"):
                assert match.default == p.default
        elif p.kind is p.VAR_POSITIONAL:
            assert found[i].kind is p.VAR_POSITIONAL
        else:
            assert found[i].kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
            assert (found[i].default is p.empty) == (p.default is p.empty)


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_array_over_dtypes_and_shapes(name):
    compared = 4 * (name == "matrix_transpose")
    for seed, dtype in enumerate(ALL):
        for shape in ((), (0,), (5,), (2, 1, 3)):
            array = numbers(dtype, shape, seed)
            if name == "nonzero" and not shape:
                continue
            compared += agree(lambda p, x: getattr(p, name)(x), array)
    assert compared >= 4


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_array_at_special_values(name):
    if name.startswith("unique"):
        pytest.skip("the order of NaN is not prescribed")
    for dtype in ("float32", "float64"):
        array = np.array([*SPECIAL, math.nan], dtype)
        agree(lambda p, x: getattr(p, name)(x), array)
        agree(lambda p, x: signs(p, getattr(p, name)(x)), array)


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_arrays_over_dtypes_and_shapes(name):
    compared = 0
    shapes = (((4,), (4,)), ((), (3,)), ((2, 1), (1, 3)), ((0, 2), (2,)))
    for a in ALL:
        for b in (d for d in ALL if mixes(a, d)):
            for one, two in shapes if a == b else shapes[2:3]:
                left, right = numbers(a, one, 1), numbers(b, two, 2)
                if "shift" in name or name in ("floor_divide", "remainder", "pow"):
                    right = np.abs(right) % 5 + 1 if right.dtype.kind in "iu" else right
                    right = right.astype(name_of(b))
                compared += agree(lambda p, x, y: getattr(p, name)(x, y), left, right)
    assert compared >= 4


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_arrays_at_special_values(name):
    if name in ("matmul", "tensordot", "vecdot"):
        pytest.skip("not elementwise")
    grid = np.array([*SPECIAL, math.nan])
    x, y = np.meshgrid(grid, grid)
    agree(lambda p, a, b: getattr(p, name)(a, b), x, y)
    if name in ("atan2", "copysign", "multiply", "divide", "pow"):
        agree(lambda p, a, b: signs(p, getattr(p, name)(a, b)), x, y)


@pytest.mark.parametrize("name", [n for n in BINARY if n not in ("matmul", "nextafter")])
def test_python_numbers_on_either_side(name):
    for dtype in ALL:
        array = numbers(dtype, (3,), 3)
        kind = array.dtype.kind
        scalars = {"b": [True], "i": [3, 2], "u": [3, 2], "f": [2, 1.5], "c": [2, 1.5, 1 + 2j]}
        for scalar in scalars[kind]:
            agree(lambda p, x, s=scalar: getattr(p, name)(x, s), array)
            if "shift" not in name and name not in ("floor_divide", "remainder", "pow"):
                agree(lambda p, x, s=scalar: getattr(p, name)(s, x), array)


OPERATORS = "add sub mul truediv floordiv mod pow and_ or_ xor lshift rshift eq ne lt le gt ge"


@pytest.mark.parametrize("name", OPERATORS.split())
def test_operators(name):
    apply = getattr(operator, name)
    for dtype in ALL:
        left, right = numbers(dtype, (2, 3), 4), numbers(dtype, (3,), 5)
        if right.dtype.kind in "iu":
            right = (np.abs(right) % 5 + 1).astype(right.dtype)
        agree(lambda _, x, y: apply(x, y), left, right)
        scalar = {"b": True, "i": 2, "u": 2, "f": 1.5, "c": 1.5j}[left.dtype.kind]
        agree(lambda _, x, s=scalar: apply(x, s), left)
        in_place = getattr(operator, "i" + name.strip("_"), None)
        if in_place is not None:
            agree(lambda _, x, y, f=in_place: f(x, y), left, right)


@pytest.mark.parametrize("name", ["neg", "pos", "abs", "invert"])
def test_unary_operators(name):
    for dtype in ALL:
        agree(lambda _, x: getattr(operator, name)(x), numbers(dtype))


@pytest.mark.parametrize(
    "name",
    [
        *("sum", "prod", "max", "min", "mean", "std", "var"),
        *("all", "any", "count_nonzero", "argmax", "argmin"),
    ],
)
def test_reductions_over_axes(name):
    # There is no uint64 for the sums of uint8.
    for dtype in [d for d in ALL if d != xp.uint8 or name not in ("sum", "prod")]:
        array = numbers(dtype, (2, 3, 4), 6)
        axes = [None, 0, -1] + ([] if name.startswith("arg") else [(0, 2), (1,), ()])
        for axis in axes:
            for keep in (False, True):
                agree(lambda p, x, a=axis, k=keep: getattr(p, name)(x, axis=a, keepdims=k), array)
    empty = np.zeros((0, 3), np.float32)
    if name in ("sum", "prod", "all", "any", "count_nonzero"):
        agree(lambda p, x: getattr(p, name)(x, axis=0), empty)


@pytest.mark.parametrize(
    "call",
    [
        lambda p, x: p.sum(x, dtype=p.float64),
        lambda p, x: p.prod(x, axis=1, dtype=p.float64),
        lambda p, x: p.std(x, axis=0, correction=1),
        lambda p, x: p.var(x, correction=1.0, keepdims=True),
        lambda p, x: p.cumulative_sum(x, axis=1, include_initial=True),
        lambda p, x: p.cumulative_sum(x, axis=0, dtype=p.float64),
        lambda p, x: p.cumulative_prod(x, axis=-1, include_initial=True),
        lambda p, x: p.diff(x, axis=0, n=2),
        lambda p, x: p.diff(x, prepend=x[:, :1], append=x[:, :2]),
        lambda p, x: p.sort(x, axis=0, descending=True),
        lambda p, x: p.argsort(x, axis=1),
        lambda p, x: p.argsort(p.astype(x, p.int8), descending=True, stable=True),
        lambda p, x: p.searchsorted(p.sort(p.reshape(x, (-1,))), x[0, :], side="right"),
        lambda p, x: p.nonzero(x > 0),
        lambda p, x: p.where(x > 0, x, 0.0),
        lambda p, x: p.where(x > 0, p.astype(x, p.int8), p.astype(x, p.int32)),
        lambda p, x: p.concat([x, p.astype(x, p.float64)], axis=1),
        lambda p, x: p.concat((x, x[:1, :]), axis=None),
        lambda p, x: p.stack([x, x], axis=-1),
        lambda p, x: p.unstack(x, axis=1),
        lambda p, x: p.expand_dims(x, axis=-1),
        lambda p, x: p.squeeze(p.expand_dims(x, axis=1), 1),
        lambda p, x: p.flip(x),
        lambda p, x: p.flip(x, axis=(0,)),
        lambda p, x: p.roll(x, 2),
        lambda p, x: p.roll(x, (1, -1), axis=(0, 1)),
        lambda p, x: p.repeat(x, 2, axis=1),
        lambda p, x: p.repeat(x, 3),
        lambda p, x: p.repeat(x, p.asarray([1, 0, 2, 1]), axis=1),
        lambda p, x: p.tile(x, (2, 1, 3)),
        lambda p, x: p.moveaxis(p.reshape(x, (3, 2, 2)), (0, 1), (-1, 0)),
        lambda p, x: p.permute_dims(x, (1, 0)),
        lambda p, x: p.matrix_transpose(x),
        lambda p, x: x.mT @ x,
        lambda p, x: p.broadcast_to(x, (2, 3, 4)),
        lambda p, x: p.broadcast_arrays(x, x[:1, :], x[0, 0]),
        lambda p, x: p.meshgrid(x[0, :], x[:, 0]),
        lambda p, x: p.meshgrid(x[0, :], x[:, 0], indexing="ij"),
        lambda p, x: p.take(x, p.asarray([2, 0, 1]), axis=1),
        lambda p, x: p.take_along_axis(x, p.argsort(x, axis=0), axis=0),
        lambda p, x: p.tril(x, k=1),
        lambda p, x: p.triu(x, k=-1),
        lambda p, x: p.clip(x, -0.5, 0.5),
        lambda p, x: p.clip(x, max=p.asarray([0.0, 1.0, 2.0, 3.0], dtype=p.float32)),
        lambda p, x: p.tensordot(x, x, axes=((0,), (0,))),
        lambda p, x: p.tensordot(x, p.matrix_transpose(x), axes=1),
        lambda p, x: p.vecdot(x, x, axis=-2),
        lambda p, x: p.full_like(x, 3.5, dtype=p.float64),
        lambda p, x: p.zeros_like(x, dtype=p.int32),
        lambda p, x: p.astype(x, p.int32),
        lambda p, x: x[..., None, 1:],
        lambda p, x: x[x > 0],
    ],
)  # fmt: skip
def test_calls_with_arguments(call):
    assert agree(call, numbers(xp.float32, (3, 4), 7))


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.arange(5),
        lambda p: p.arange(2.0, 8, 1.5),
        lambda p: p.arange(3, 3),
        lambda p: p.arange(5, 0, -2, dtype=p.int8),
        lambda p: p.linspace(0, 1, 5),
        lambda p: p.linspace(2.0, 3.0, 4, endpoint=False, dtype=p.float32),
        lambda p: p.eye(3, 4, k=-1, dtype=p.float32),
        lambda p: p.full((2, 2), 5),
        lambda p: p.full(3, True),
        lambda p: p.full((), 2j, dtype=p.complex64),
        lambda p: p.ones(3, dtype=p.int16),
        lambda p: p.zeros((2, 0), dtype=p.bool),
        lambda p: p.asarray([[True, False]]),
        lambda p: p.asarray([1, 2, 3]),
        lambda p: p.asarray([[1.5], [2]], dtype=p.float64),
        lambda p: p.asarray(7, dtype=p.uint8),
    ],
)
def test_creation(call):
    check(call(xp), call(strict)) if call(strict).dtype not in (
        strict.float64, strict.complex128) or "float64" in name_of(call(xp).dtype) else (
        check(call(xp), strict.astype(call(strict), strict.float32)))  # fmt: skip


@pytest.mark.parametrize("name", LINALG_NAMES)
def test_linear_algebra(name):
    a = numbers(xp.float64, (2, 4, 4), 8)
    positive = a @ a.swapaxes(-1, -2) + 4 * np.eye(4)
    vector = numbers(xp.float64, (2, 3), 9)
    calls = {
        "cross": [lambda p, x, v: p.linalg.cross(v, p.flip(v, axis=0))],
        "outer": [lambda p, x, v: p.linalg.outer(v[0, :], v[1, :])],
        "matmul": [lambda p, x, v: p.linalg.matmul(x, x)],
        "solve": [
            lambda p, x, v: p.linalg.solve(x, x[:, :, :2]),
            lambda p, x, v: p.linalg.solve(x[0, :, :], x[0, :, 1]),
        ],
        "matrix_power": [lambda p, x, v, n=n: p.linalg.matrix_power(x, n) for n in (0, 3, -2)],
        "matrix_norm": [
            lambda p, x, v, o=o: p.linalg.matrix_norm(x, ord=o, keepdims=True)
            for o in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)
        ],
        "vector_norm": [
            lambda p, x, v, o=o, a=a: p.linalg.vector_norm(x, ord=o, axis=a)
            for o in (0, 1, 2, 3, math.inf, -math.inf)
            for a in (None, 0, (1, 2))
        ],
        "tensordot": [lambda p, x, v: p.linalg.tensordot(x, x, axes=((0, 1), (0, 1)))],
        "vecdot": [lambda p, x, v: p.linalg.vecdot(v, v)],
        "cholesky": [lambda p, x, v, u=u: p.linalg.cholesky(x, upper=u) for u in (False, True)],
        "diagonal": [lambda p, x, v: p.linalg.diagonal(x, offset=1)],
        "trace": [lambda p, x, v: p.linalg.trace(x, offset=-1)],
        "eigh": [lambda p, x, v: p.linalg.eigh(x).eigenvalues],
        "qr": [lambda p, x, v: p.abs(p.linalg.qr(x).R)],
        "svd": [
            lambda p, x, v: p.linalg.svd(x).S,
            lambda p, x, v: p.abs(p.linalg.svd(x[:, :, :2], full_matrices=False).Vh),
        ],
        "slogdet": [lambda p, x, v: tuple(p.linalg.slogdet(x))],
    }
    for call in calls.get(name, [lambda p, x, v: getattr(p.linalg, name)(x)]):
        assert agree(call, positive, vector)


def test_decompositions_give_named_results():
    x = xp.asarray(numbers(xp.float64, (4, 3), 10))
    u, s, vh = xp.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose((u * s @ vh).numpy(), x.numpy(), atol=1e-12)
    q, r = xp.linalg.qr(x, mode="complete")
    assert tuple(q.shape) == (4, 4)
    np.testing.assert_allclose((q @ r).numpy(), x.numpy(), atol=1e-12)
    symmetric = x.mT @ x
    values, vectors = xp.linalg.eigh(symmetric)
    np.testing.assert_allclose((symmetric @ vectors).numpy(), (vectors * values).numpy(), atol=1e-9)
    assert xp.linalg.slogdet(symmetric)._fields == ("sign", "logabsdet")


@pytest.mark.parametrize("name", sorted(FFT))
def test_fourier_transforms(name):
    real = name in ("rfft", "rfftn", "ihfft")
    array = numbers(xp.float64 if real else xp.complex128, (4, 6), 11)
    if name in ("fftfreq", "rfftfreq"):
        assert agree(lambda p: getattr(p.fft, name)(7, d=0.5, dtype=p.float64))
    elif name.endswith("shift"):
        assert agree(lambda p, x: getattr(p.fft, name)(x, axes=0), array)
        assert agree(lambda p, x: getattr(p.fft, name)(x), array)
    elif name.endswith("n"):
        assert agree(lambda p, x: getattr(p.fft, name)(x, axes=(0, 1), norm="ortho"), array)
        assert agree(lambda p, x: getattr(p.fft, name)(x, s=(3, 8), axes=(0, 1)), array)
    else:
        assert agree(lambda p, x: getattr(p.fft, name)(x, n=5, axis=0, norm="forward"), array)
        assert agree(lambda p, x: getattr(p.fft, name)(x), array)


def test_sets_tell_every_nan_apart():
    x = xp.asarray([3.0, math.nan, 1.0, 3.0, math.nan, -0.0, 0.0])
    values, first, inverse, counts = xp.unique_all(x)
    assert values.shape[0] == 5
    assert sorted(counts.tolist()) == [1, 1, 1, 2, 2]
    assert int(xp.sum(xp.isnan(values))) == 2
    for i, v in enumerate(x[first].tolist()):
        assert v == values[i].item() or math.isnan(v)
    for i, v in enumerate(values[inverse].tolist()):
        assert v == x[i].item() or math.isnan(v)
    for i, f in enumerate(first.tolist()):
        assert f == min(k for k, n in enumerate(inverse.tolist()) if n == i)


@pytest.mark.parametrize("dtype", ALL, ids=name_of)
def test_sets_of_every_dtype(dtype):
    array = numbers(dtype, (4, 5), 12)
    if array.dtype.kind == "c":
        array = np.round(array.real).astype(array.dtype)
    agree(lambda p, x: tuple(p.unique_all(x)), array)
    agree(lambda p, x: tuple(p.unique_counts(x)), array)
    agree(lambda p, x: tuple(p.unique_inverse(x)), array)


def test_promotion_is_the_standards():
    for a in ALL:
        for b in ALL:
            if not mixes(a, b):
                continue
            expected = strict.result_type(reference_dtype(a), reference_dtype(b))
            assert name_of(xp.result_type(a, b)) == expected._np_dtype.name
            assert xp.can_cast(a, b) == strict.can_cast(reference_dtype(a), reference_dtype(b))
    assert xp.result_type(xp.int8, 1, xp.asarray([1], dtype=xp.int16)) == xp.int16
    assert xp.result_type(xp.asarray([1.0], dtype=xp.float32), 2.5) == xp.float32


@pytest.mark.parametrize("dtype", ALL, ids=name_of)
def test_dtypes_describe_themselves(dtype):
    kinds = ("bool", "signed integer", "unsigned integer", "integral", "real floating")
    for kind in (*kinds, "complex floating", "numeric", ("bool", "integral")):
        assert xp.isdtype(dtype, kind) == strict.isdtype(reference_dtype(dtype), kind)
    if xp.isdtype(dtype, "integral"):
        found, expected = xp.iinfo(dtype), strict.iinfo(reference_dtype(dtype))
        assert (found.bits, found.min, found.max) == (expected.bits, expected.min, expected.max)
        assert found.dtype is dtype
    elif xp.isdtype(dtype, ("real floating", "complex floating")):
        found, expected = xp.finfo(dtype), strict.finfo(reference_dtype(dtype))
        assert found.bits == expected.bits
        for field in ("eps", "max", "min", "smallest_normal"):
            assert getattr(found, field) == getattr(expected, field)
        assert found.dtype in ALL
        assert name_of(found.dtype) == expected.dtype._np_dtype.name


def test_the_namespace_describes_itself():
    info = xp.__array_namespace_info__()
    assert info.capabilities()["boolean indexing"] is True
    assert info.default_device() in info.devices()
    assert info.default_dtypes()["real floating"] == xp.float32
    assert info.dtypes(kind="real floating") == {"float32": xp.float32, "float64": xp.float64}
    assert set(info.dtypes(kind=("bool", "integral"))) == {
        "bool", "int8", "int16", "int32", "int64", "uint8"}  # fmt: skip
    assert len(info.dtypes()) == len(ALL)
    assert (xp.pi, xp.e, xp.inf, xp.newaxis) == (math.pi, math.e, math.inf, None)
    assert math.isnan(xp.nan)


def test_arrays_know_their_namespace():
    x = xp.asarray([1.0, 2.0])
    assert x.__array_namespace__() is xp
    assert x.__array_namespace__(api_version="2023.12") is xp
    with pytest.raises(ValueError, match=r"2024\.12 or one before it, given '1999\.01'"):
        x.__array_namespace__(api_version="1999.01")
    assert x.to_device(x.device) is x
    assert x.ndim == 1


def test_scalars_of_python():
    assert bool(xp.asarray(True)) is True
    assert int(xp.asarray(-3)) == -3
    assert operator.index(xp.asarray(5)) == 5
    assert float(xp.asarray(0.5)) == 0.5
    assert cmath.isclose(complex(xp.asarray(1 + 2j)), 1 + 2j)
    assert complex(xp.asarray(2.0)) == 2


def test_copies_are_made_as_asked():
    array = np.ones(3, np.float32)
    shared = xp.asarray(array)
    copied = xp.asarray(array, copy=True)
    array[0] = 7
    assert (shared[0].item(), copied[0].item()) == (7.0, 1.0)
    assert xp.asarray(shared, copy=False) is shared
    with pytest.raises(ValueError, match="copy=False needs an array, given a list"):
        xp.asarray([1.0], copy=False)
    with pytest.raises(ValueError, match="copy=False cannot make an array"):
        xp.asarray(shared, dtype=xp.float64, copy=False)
    assert xp.astype(shared, xp.float32, copy=False) is shared
    assert xp.astype(shared, xp.float32) is not shared
    view = xp.reshape(shared, (3, 1), copy=False)
    view[0, 0] = 9.0
    assert shared[0].item() == 9.0
    with pytest.raises(ValueError, match="cannot be seen as"):
        xp.reshape(xp.ones((2, 3)).mT, (6,), copy=False)


def test_memory_is_exchanged_through_dlpack():
    x = xp.asarray([1.0, 2.0])
    array = np.from_dlpack(x)
    assert array.tolist() == [1.0, 2.0]
    assert x.__dlpack_device__() == (1, 0)
    back = xp.from_dlpack(array)
    x[0] = 5.0
    assert back[0].item() == 5.0
    assert xp.from_dlpack(array, copy=True)[0].item() == 5.0
    assert np.from_dlpack(x, copy=True).tolist() == [5.0, 2.0]


def test_it_differentiates_and_compiles():
    def loss(x):
        return xp.sum(xp.where(x > 0, xp.exp(-x), xp.square(x)) * xp.var(x, axis=0, keepdims=True))

    x = tc.tensor(numbers(xp.float64, (5, 3)), requires_grad=True)
    eager = tc.func.grad(loss)(x)
    compiled = tc.compile(tc.func.grad(loss))(x)
    np.testing.assert_allclose(compiled.detach().numpy(), eager.detach().numpy(), rtol=1e-10)


def test_other_libraries_find_it():
    compat = pytest.importorskip("array_api_compat")
    x = xp.asarray([3.0, 1.0])
    assert compat.array_namespace(x) is xp
    extra = pytest.importorskip("array_api_extra")
    np.testing.assert_allclose(extra.cov(xp.asarray([[1.0, 2.0, 4.0]])).numpy(), 7 / 3, rtol=1e-6)
