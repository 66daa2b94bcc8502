"""What tests of the array API compare with: array-api-strict, the standard's reference."""

import math

import numpy as np
import pytest

import tracecc as tc
from tracecc import array_api as xp

strict = pytest.importorskip("array_api_strict")

DTYPES = {
    "bool": (xp.bool,),
    "integer": (xp.int8, xp.int16, xp.int32, xp.int64, xp.uint8),
    "real": (xp.float32, xp.float64),
    "complex": (xp.complex64, xp.complex128),
}
ALL = [d for group in DTYPES.values() for d in group]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, 1e30, -1e30, math.inf, -math.inf]


def reference_dtype(dtype):
    return getattr(strict, str(dtype).split(".")[-1])


def name_of(dtype):
    return str(dtype).split(".")[-1]


def both(array):
    """The same numbers for us and for the reference."""
    return xp.asarray(array.copy()), strict.asarray(array.copy())


def numbers(dtype, shape=(2, 3), seed=0):
    rng = np.random.default_rng(seed)
    kind = name_of(dtype)
    if kind == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.startswith(("int", "uint")):
        return rng.integers(0 if kind[0] == "u" else -9, 10, shape).astype(kind)
    values = rng.normal(size=shape) * 2
    if kind.startswith("complex"):
        values = values + 1j * rng.normal(size=shape)
    return values.astype(kind)


def check(found, expected, exact=False):
    """Equal structure, dtype, shape and values."""
    if isinstance(expected, (tuple, list)):
        assert len(found) == len(expected)
        for f, e in zip(found, expected, strict=True):
            check(f, e, exact)
        return
    assert isinstance(found, tc.Tensor)
    e = np.asarray(expected._array)
    assert name_of(found.dtype) == e.dtype.name
    assert tuple(found.shape) == e.shape
    f = found.numpy()
    if exact or e.dtype.kind in "biu":
        np.testing.assert_array_equal(f, e)
    else:
        tolerance = 2e-6 if e.dtype.name in ("float32", "complex64") else 1e-12
        np.testing.assert_allclose(f, e, rtol=tolerance, atol=tolerance)


def agree(call, *arrays, exact=False):
    """A call on our arrays and on the reference's; what that refuses is not compared."""
    ours, theirs = zip(*map(both, arrays), strict=True) if arrays else ((), ())
    try:
        with np.errstate(all="ignore"):
            expected = call(strict, *theirs)
    except (TypeError, ValueError):
        return False
    check(call(xp, *ours), expected, exact)
    return True


def mixes(a, b):
    """Whether the standard defines what two dtypes are promoted to."""
    try:
        strict.result_type(reference_dtype(a), reference_dtype(b))
    except TypeError:
        return False
    return True


def signs(p, x):
    """Where the sign bit is set; NaN has none to speak of."""
    return p.signbit(p.where(p.isnan(x), 1.0, x))
