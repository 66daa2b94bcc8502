"""How tensors print: PyTorch's layout, with 4 digits, 80 columns and summaries of large ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracecc.tensor import Tensor
from tracecc_ir.types import bool_, c64, f32, i64


class _Options:
    precision = 4
    threshold = 1000
    edgeitems = 3
    linewidth = 80
    sci_mode: bool | None = None


options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Sets how tensors print; None leaves a setting as it is."""
    profiles: dict[str, tuple[int, float, int, int]] = {
        "default": (4, 1000, 3, 80),
        "short": (2, 1000, 2, 80),
        "full": (4, math.inf, 3, 80),
    }
    if profile is not None:
        first = profiles[profile]
        options.precision, options.threshold, options.edgeitems, options.linewidth = first  # type: ignore[assignment]
    given = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    for name, value in given.items():
        if value is not None:
            setattr(options, name, value)
    options.sci_mode = sci_mode


class _Format:
    """One format for all numbers of a tensor."""

    def __init__(self, shown: np.ndarray):
        self.floating = shown.dtype.kind not in "biu"
        self.whole = self.scientific = False
        values = shown.reshape(-1)
        if self.floating:
            values = values.astype(np.float64)
            regular = np.abs(values[np.isfinite(values) & (values != 0)])
            if regular.size:
                high, low = float(regular.max()), float(regular.min())
                self.whole = bool((np.ceil(regular) == regular).all())
                small = not self.whole and low < 1e-4
                self.scientific = high / low > 1e3 or high > 1e8 or small
            else:
                self.whole = True
            if options.sci_mode is not None:
                self.scientific = options.sci_mode
        self.width = 0
        self.width = max((len(self(v)) for v in values), default=1)

    def __call__(self, value: Any) -> str:
        return f"{self._text(value):>{self.width}}"

    def _text(self, value: Any) -> str:
        if not self.floating:
            return str(bool(value)) if isinstance(value, (bool, np.bool_)) else str(int(value))
        value = float(value)
        if not math.isfinite(value):
            return str(value)
        if self.scientific:
            return f"{value:.{options.precision}e}"
        return f"{value:.0f}." if self.whole else f"{value:.{options.precision}f}"


class _ComplexFormat:
    """One format for all real parts, and one for all imaginary parts."""

    def __init__(self, shown: np.ndarray):
        self.real, self.imag = _Format(shown.real), _Format(shown.imag)
        self.width = self.real.width + self.imag.width + 1

    def __call__(self, value: Any) -> str:
        imag = self.imag(value.imag).lstrip()
        sign = "" if imag[0] in "+-" else "+"
        return f"{self.real(value.real)}{sign}{imag}j"


def _edges(array: np.ndarray) -> np.ndarray:
    """The elements that a summary shows."""
    keep = options.edgeitems
    for axis, n in enumerate(array.shape):
        if n > 2 * keep:
            index = np.r_[0:keep, n - keep : n]
            array = np.take(array, index, axis)
    return array


def _lines(array: np.ndarray, form: _Format | _ComplexFormat, indent: int, summary: bool) -> str:
    if array.ndim == 0:
        return form(array[()])
    keep, n = options.edgeitems, len(array)
    cut = summary and n > 2 * keep
    if array.ndim == 1:
        per_line = max(1, (options.linewidth - indent) // max(1, form.width + 2))
        items = [form(v) for v in (array if not cut else array[:keep])]
        if cut:
            items += [" ...", *(form(v) for v in array[-keep:])]
        rows = [", ".join(items[i : i + per_line]) for i in range(0, len(items), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(rows) + "]"
    parts = [_lines(a, form, indent + 1, summary) for a in (array[:keep] if cut else array)]
    if cut:
        parts += ["...", *(_lines(a, form, indent + 1, summary) for a in array[-keep:])]
    gap = "," + "\n" * (array.ndim - 1) + " " * (indent + 1)
    return "[" + gap.join(parts) + "]"


def describe(t: Tensor) -> str:
    """``repr(t)``."""
    name = type(t).__name__
    if t._array is None:
        return f"{name}(traced {t._type!r})"
    array, dtype = t._array, t.dtype
    suffixes = []
    prefix = "tensor("
    if array.size == 0:
        text = "[]"
        if array.ndim != 1:
            suffixes.append(f"size={tuple(array.shape)}")
        default = dtype is f32
    else:
        summary = array.size > options.threshold
        shown = _edges(array) if summary else array
        form = _ComplexFormat(shown) if dtype.is_complex else _Format(shown)
        text = _lines(array, form, len(prefix), summary)
        default = dtype in (f32, c64, i64, bool_)
    if not default:
        suffixes.append(f"dtype={dtype!r}")
    if t.grad_fn is not None:
        suffixes.append(f"grad_fn={t.grad_fn!r}")
    elif t.requires_grad:
        suffixes.append("requires_grad=True")
    return prefix + ", ".join([text, *suffixes]) + ")"
