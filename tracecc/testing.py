"""`torch.testing`: comparing results in tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tracecc as tc
from tracecc.lacking import unknown
from tracecc.tensor import Tensor

__all__ = ["assert_close"]

# PyTorch's relative and absolute tolerances by dtype; all others are compared exactly.
_TOLERANCES = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | None = None,
) -> None:
    """Asserts that ``|actual - expected| <= atol + rtol * |expected|`` everywhere.

    Args:
        actual: a tensor, array or number, or a sequence or mapping of them.
        expected: the same.
        rtol: the relative tolerance; by default PyTorch's for the dtype.
        atol: the absolute tolerance; given together with ``rtol``.
        equal_nan: whether NaN equals NaN.
        check_dtype: whether different dtypes are an error.
        check_stride: whether different strides are an error.
        msg: what to say instead.

    Raises:
        AssertionError: they differ in value, shape, dtype, stride, length or keys.
        ValueError: only one of the tolerances is given.

    >>> import tracecc as tc
    >>> assert_close(tc.tensor([1.0, 2.0]), tc.tensor([1.0, 2.0 + 1e-6]))
    """
    if (rtol is None) != (atol is None):
        raise ValueError(
            f"rtol and atol must both be specified or both be unspecified, given {rtol} and {atol}"
        )

    def fail(place: str, why: str) -> None:
        raise AssertionError(msg or f"{why}{f' at {place}' if place else ''}")

    def compare(a: Any, b: Any, place: str) -> None:
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if a.keys() != b.keys():
                fail(place, f"The keys differ: {sorted(a)} and {sorted(b)}")
            for key in a:
                compare(a[key], b[key], f"{place}[{key!r}]")
        elif _many(a) and _many(b):
            if len(a) != len(b):
                fail(place, f"The lengths differ: {len(a)} and {len(b)}")
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                compare(x, y, f"{place}[{i}]")
        else:
            why = _difference(tc.as_tensor(a), tc.as_tensor(b))
            if why is not None:
                fail(place, why)

    def _difference(a: Tensor, b: Tensor) -> str | None:
        """Why two tensors are not close, or None."""
        if a.shape != b.shape:
            return f"The values for attribute 'shape' do not match: {a.shape} != {b.shape}"
        if check_dtype and a.dtype is not b.dtype:
            return f"The values for attribute 'dtype' do not match: {a.dtype} != {b.dtype}"
        if check_stride and a.stride() != b.stride():
            return f"The values for attribute 'stride()' do not match: {a.stride()} != {b.stride()}"
        known = [_TOLERANCES.get(t.dtype.public.rpartition(".")[2], (0.0, 0.0)) for t in (a, b)]
        relative = max(r for r, _ in known) if rtol is None else rtol
        absolute = max(t for _, t in known) if atol is None else atol
        x, y = (_wide(t) for t in (a, b))
        wrong = ~np.isclose(x, y, relative, absolute, equal_nan)
        if not wrong.any():
            return None
        with np.errstate(invalid="ignore"):
            gap = np.where(wrong, np.abs(x - y), 0)
        worst = np.unravel_index(np.argmax(gap), gap.shape)
        return (
            f"Tensor-likes are not close: {int(wrong.sum())} of {wrong.size} elements differ; "
            f"greatest absolute difference {gap[worst]} at index {tuple(map(int, worst))} "
            f"(rtol={relative}, atol={absolute})"
        )

    compare(actual, expected, "")


def _many(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _wide(t: Tensor) -> np.ndarray:
    """The numbers with enough bits to subtract them."""
    array = t.detach().numpy()
    if t.dtype.is_complex:
        return array.astype(np.complex128)
    return array.astype(np.float64 if t.dtype.is_floating_point else np.int64)


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
