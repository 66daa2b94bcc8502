"""Functions that make tensors: from data, from numbers, and like other tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracecc.devices import check_device
from tracecc.dispatch import own
from tracecc.functional.core import (
    check_keywords,
    default_dtype,
    defaults,
    emit,
    expand_view,
    expanded,
    is_number,
    number,
    promoted,
    reshaped,
    sizes_from,
    splat,
    to_dtype,
)
from tracecc.functional.pointwise import clone
from tracecc.state import epoch, no_grad, thread
from tracecc.tensor import Tensor, wrap
from tracecc_ir import ops
from tracecc_ir.types import DType, bool_, f64, from_numpy_dtype, i64


def set_default_dtype(dtype: DType) -> None:
    """Sets the dtype of floats that are made without one."""
    if not isinstance(dtype, DType) or dtype.kind != "float":
        raise TypeError(
            f"only floating-point types are supported as the default type, given {dtype}"
        )
    defaults.dtype = dtype
    epoch.bump()


def get_default_dtype() -> DType:
    """The dtype of floats that are made without one; float32 at first."""
    return default_dtype()


def check_dtype(dtype: Any) -> DType:
    if not isinstance(dtype, DType):
        default = default_dtype()
        python = {float: default, int: i64, bool: bool_, complex: default.to_complex()}
        if dtype in python:
            return python[dtype]
        raise TypeError(f"dtype must be a tracecc dtype, given {dtype!r}")
    return dtype


def _finish(t: Tensor, requires_grad: bool) -> Tensor:
    if requires_grad:
        t.requires_grad = True
    return t


# From data.


def _has_tensor(data: Any) -> bool:
    if isinstance(data, Tensor):
        return True
    return isinstance(data, (list, tuple)) and any(map(_has_tensor, data))


def _kind(data: Any) -> DType | None:
    """The dtype of nested Python data, complex over float over int over bool; None if empty."""
    if isinstance(data, np.generic):
        return from_numpy_dtype(data.dtype)
    if isinstance(data, bool):
        return bool_
    if isinstance(data, int):
        return i64
    if isinstance(data, float):
        return default_dtype()
    if isinstance(data, complex):
        return default_dtype().to_complex()
    if isinstance(data, (list, tuple)):
        kinds = [k for k in map(_kind, data) if k is not None]
        return max(kinds, key=lambda k: k.rank) if kinds else None
    kind = TypeError if isinstance(data, (str, bytes)) else RuntimeError
    raise kind(f"could not make a tensor of a {type(data).__name__}")


def _array(data: Any, dtype: DType | None) -> np.ndarray:
    if isinstance(data, np.ndarray):
        return np.array(data, dtype=None if dtype is None else dtype.numpy, order="C")
    found = dtype or _kind(data) or default_dtype()
    try:
        if dtype is not None and not dtype.is_inexact:
            raw = np.array(data)  # so that floats are truncated and numbers too large wrap around
            return np.asarray(raw != 0) if dtype is bool_ else raw.astype(dtype.numpy)
        return np.array(data, dtype=found.numpy)
    except ValueError:
        raise ValueError(
            f"the nested lists do not form a rectangular array{_uneven(data)}"
        ) from None


def _uneven(data: Any, dim: int = 1) -> str:
    """Which of some nested lists differ in length."""
    level = [part for part in data if isinstance(part, (list, tuple))]
    lengths = sorted({len(part) for part in level})
    if len(lengths) > 1:
        return f", given lengths {lengths[0]} and {lengths[-1]} at dim {dim}"
    if 0 < len(level) < len(data):
        return f", given lists and numbers at dim {dim}"
    return _uneven([item for part in level for item in part], dim + 1) if level else ""


def tensor(
    data: Any,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A new leaf tensor that holds a copy of ``data`` (numbers, nested lists, an array).

    >>> import tracecc as tc
    >>> tc.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    check_device(device)
    dtype = None if dtype is None else check_dtype(dtype)
    if isinstance(data, Tensor):
        return _finish(clone(to_dtype(data.detach(), dtype or data.dtype)), requires_grad)
    if _has_tensor(data):
        return _finish(_stacked(data, dtype), requires_grad)
    if thread.trace is not None and is_number(data):
        value = number(data)
        return splat(value, (), dtype or _kind(value) or default_dtype())
    return _finish(wrap(_array(data, dtype)), requires_grad)


def _stacked(data: Any, dtype: DType | None) -> Tensor:
    """Nested lists that hold tensors with one element, stacked without history."""
    from tracecc.functional.joining import stack

    def made(d: Any) -> Tensor:
        if isinstance(d, Tensor):
            if d._type.size != 1:
                raise ValueError(
                    "only one element tensors can be converted to Python scalars; use stack()"
                )
            return reshaped(d.detach(), ())
        if isinstance(d, (list, tuple)):
            return stack([made(e) for e in d])
        return tensor(d)

    with no_grad():
        parts = made(data)
        return to_dtype(parts, dtype) if dtype is not None else parts


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """``data`` as a tensor, sharing memory if it is a tensor or array of this dtype already."""
    check_device(device)
    if isinstance(data, Tensor):
        return data if dtype is None else to_dtype(data, check_dtype(dtype))
    if isinstance(data, np.ndarray):
        t = from_numpy(data)
        return t if dtype is None else to_dtype(t, check_dtype(dtype))
    return tensor(data, dtype=dtype)


asarray = as_tensor


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor over the array's memory: writing one writes the other.

    >>> import numpy as np, tracecc as tc
    >>> a = np.zeros(2, np.float32)
    >>> t = tc.from_numpy(a)
    >>> a[0] = 5
    >>> t
    tensor([5., 0.])
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    if any(s < 0 for s in ndarray.strides):
        raise ValueError("at least one stride of the array is negative; copy() it first")
    return wrap(ndarray)


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor over the memory of any object that speaks DLPack."""
    return wrap(np.from_dlpack(ext_tensor))


def frombuffer(buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0) -> Tensor:
    """A 1-d tensor over a bytes-like object."""
    n = memoryview(buffer).nbytes - offset
    if count < 0 and n % dtype.numpy.itemsize:
        raise ValueError(
            f"buffer length ({n} bytes after offset {offset}) must be a multiple of the element "
            f"size of {dtype.public} ({dtype.numpy.itemsize})"
        )
    return wrap(np.frombuffer(buffer, dtype.numpy, count, offset))


def scalar_tensor(
    s: Any, *, dtype: DType | None = None, device: Any = None, **keywords: Any
) -> Tensor:
    """A 0-d tensor, of the default dtype unless one is given."""
    return full((), s, dtype=dtype or default_dtype(), device=device, **keywords)


# From numbers.


def full(
    size: Any,
    fill_value: Any,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
) -> Tensor:
    """A tensor filled with one number; its dtype follows the number unless given.

    >>> import tracecc as tc
    >>> tc.full((2,), 7)
    tensor([7, 7])
    """
    check_device(device)
    if not isinstance(size, (tuple, list)):
        raise TypeError(f"full(): argument 'size' must be tuple of ints, not {type(size).__name__}")
    shape = sizes_from(size)
    _check_sizes(shape)
    if isinstance(fill_value, Tensor):
        found = fill_value.dtype if dtype is None else check_dtype(dtype)
        value = to_dtype(reshaped(fill_value.detach(), ()), found)
        return _finish(clone(expanded(value, shape)), requires_grad)
    fill_value = number(fill_value)
    if not is_number(fill_value):
        raise TypeError(f"full(): fill_value must be a number, not {type(fill_value).__name__}")
    found = check_dtype(type(fill_value)) if dtype is None else check_dtype(dtype)
    return _finish(own(splat(fill_value, shape, found)), requires_grad)


def _check_sizes(shape: Sequence[Any]) -> None:
    for n in shape:
        if isinstance(n, int) and n < 0:
            raise RuntimeError(
                f"Trying to create tensor with negative dimension {n}: {list(shape)}"
            )


def _sizes(size: tuple, keywords: dict) -> tuple[Any, ...]:
    if not size and "size" in keywords:
        size = (keywords.pop("size"),)
    return sizes_from(size)


def zeros(*size: Any, dtype: DType | None = None, **keywords: Any) -> Tensor:
    """A tensor of zeros; ``dtype``, ``device`` and ``requires_grad`` as in `full`."""
    shape = _sizes(size, keywords)
    check_keywords("zeros", keywords, "device", "requires_grad")
    return full(shape, 0, dtype=dtype or default_dtype(), **keywords)


def ones(*size: Any, dtype: DType | None = None, **keywords: Any) -> Tensor:
    """A tensor of ones; ``dtype``, ``device`` and ``requires_grad`` as in `full`."""
    shape = _sizes(size, keywords)
    check_keywords("ones", keywords, "device", "requires_grad")
    return full(shape, 1, dtype=dtype or default_dtype(), **keywords)


def empty(
    *size: Any, dtype: DType | None = None, memory_format: Any = None, **keywords: Any
) -> Tensor:
    """A tensor whose numbers are unspecified (here: zeros)."""
    return zeros(*size, dtype=dtype, **keywords)


def _like(input: Tensor, value: Any, dtype: DType | None, keywords: dict) -> Tensor:
    keywords.pop("memory_format", None)
    return full(input._type.shape, value, dtype=dtype or input.dtype, **keywords)


def zeros_like(input: Tensor, *, dtype: DType | None = None, **keywords: Any) -> Tensor:
    """Zeros of the shape and dtype of ``input``."""
    return _like(input, 0, dtype, keywords)


def ones_like(input: Tensor, *, dtype: DType | None = None, **keywords: Any) -> Tensor:
    """Ones of the shape and dtype of ``input``."""
    return _like(input, 1, dtype, keywords)


def empty_like(input: Tensor, *, dtype: DType | None = None, **keywords: Any) -> Tensor:
    """Unspecified numbers (here: zeros) of the shape and dtype of ``input``."""
    return _like(input, 0, dtype, keywords)


def full_like(
    input: Tensor, fill_value: Any, *, dtype: DType | None = None, **keywords: Any
) -> Tensor:
    """One number everywhere, of the shape and dtype of ``input``."""
    return _like(input, fill_value, dtype, keywords)


def new_zeros(self: Tensor, *size: Any, dtype: DType | None = None, **keywords: Any) -> Tensor:
    """Zeros with this tensor's dtype."""
    return zeros(*size, dtype=dtype or self.dtype, **keywords)


def new_ones(self: Tensor, *size: Any, dtype: DType | None = None, **keywords: Any) -> Tensor:
    """Ones with this tensor's dtype."""
    return ones(*size, dtype=dtype or self.dtype, **keywords)


def new_empty(self: Tensor, *size: Any, dtype: DType | None = None, **keywords: Any) -> Tensor:
    """Unspecified numbers (here: zeros) with this tensor's dtype."""
    return zeros(*size, dtype=dtype or self.dtype, **keywords)


def new_full(
    self: Tensor, size: Any, fill_value: Any, *, dtype: DType | None = None, **keywords: Any
) -> Tensor:
    """One number everywhere with this tensor's dtype."""
    return full(size, fill_value, dtype=dtype or self.dtype, **keywords)


def new_tensor(self: Tensor, data: Any, *, dtype: DType | None = None, **keywords: Any) -> Tensor:
    """A copy of ``data`` with this tensor's dtype."""
    return tensor(data, dtype=dtype or self.dtype, **keywords)


def arange(
    start: Any,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    **ignored: Any,
) -> Tensor:
    """start, start + step, ... below ``end``; int64 if all three are integers.

    >>> import tracecc as tc
    >>> tc.arange(1, 7, 2)
    tensor([1, 3, 5])
    """
    check_keywords("arange", ignored)
    check_device(device)
    if end is None:
        start, end = 0, start
    start, end, step = (
        number(v.item() if isinstance(v, Tensor) else v) for v in (start, end, step)
    )
    if dtype is None:
        whole = all(isinstance(v, int) for v in (start, end, step))
        dtype = i64 if whole else default_dtype()
    if step == 0:
        raise RuntimeError(f"step must be nonzero, given {step}")
    if not all(map(math.isfinite, (start, end))):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise RuntimeError(
            "upper bound and lower bound inconsistent with step sign: "
            f"start={start}, end={end}, step={step}"
        )
    n = max(0, math.ceil((end - start) / step))
    if dtype is bool_:
        raise RuntimeError("arange is not defined for bool")
    return _finish(own(_progression(n, start, step, check_dtype(dtype))), requires_grad)


def _progression(n: int, start: Any, step: Any, dtype: DType) -> Tensor:
    """start + i * step, computed exactly for integers and in float64 for floats."""
    wide = f64 if dtype.is_inexact else i64
    if wide is i64:
        start, step = int(start), int(step)
    if start == 0 and step == 1:
        return emit(ops.iota, shape=(n,), axis=0, dtype=dtype)
    t = emit(ops.iota, shape=(n,), axis=0, dtype=wide)
    if step != 1:
        t = emit(ops.mul, t, splat(step, (n,), wide))
    if start != 0:
        t = emit(ops.add, t, splat(start, (n,), wide))
    return to_dtype(t, dtype)


def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    **ignored: Any,
) -> Tensor:
    """``steps`` numbers from ``start`` to ``end``, both included, evenly spaced."""
    check_keywords("linspace", ignored)
    check_device(device)
    if not isinstance(steps, int):
        raise TypeError(f"linspace(): argument 'steps' must be int, not {type(steps).__name__}")
    if steps < 0:
        raise RuntimeError(f"number of steps must be non-negative, given {steps}")
    found = promoted(start, end, 1.0) if dtype is None else check_dtype(dtype)
    dtype = found if dtype is not None or found.is_complex else default_dtype()
    if steps == 0:
        return full((0,), 0, dtype=dtype, requires_grad=requires_grad)
    if dtype.is_complex:
        bounds = zip(_parts(start), _parts(end), strict=True)
        parts = [linspace(low, high, steps, dtype=dtype.to_real()) for low, high in bounds]
        return _finish(emit(ops.complex, *parts), requires_grad)
    first, last = (_bound(v, steps, whole=dtype.kind != "float") for v in (start, end))
    count = splat(max(steps - 1, 1), (steps,), f64)
    step = emit(ops.div, emit(ops.sub, last, first), count)
    i = emit(ops.iota, shape=(steps,), axis=0, dtype=f64)
    up = emit(ops.add, emit(ops.mul, i, step), first)
    # The upper half counts down from the end, so that both ends are exact.
    left = emit(ops.sub, splat(steps - 1, (steps,), f64), i)
    down = emit(ops.sub, last, emit(ops.mul, left, step))
    low = emit(ops.lt, i, splat(steps // 2 if steps > 1 else 1, (steps,), f64))
    return _finish(to_dtype(emit(ops.select, low, up, down), dtype), requires_grad)


def _parts(x: Any) -> tuple[Any, Any]:
    """The real and imaginary part of a number or tensor."""
    is_real = isinstance(x, Tensor) and not x.dtype.is_complex
    return x.real, 0.0 if is_real else x.imag


def _bound(x: Any, steps: int, whole: bool) -> Tensor:
    """A number or 0-d tensor, ``steps`` times in f64; without its fraction if ``whole``."""
    if not isinstance(x, Tensor):
        return splat(int(x) if whole else x, (steps,), f64)
    x = to_dtype(x.detach(), f64)
    return expanded(emit(ops.trunc, x) if whole else x, (steps,))


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    dtype: DType | None = None,
    **keywords: Any,
) -> Tensor:
    """``base`` to the power of `linspace`."""
    dtype = dtype or default_dtype()
    exponents = linspace(start, end, steps, dtype=f64)
    powers = emit(ops.pow, splat(base, (steps,), f64), exponents)
    requires_grad = keywords.pop("requires_grad", False)
    return _finish(to_dtype(powers, dtype), requires_grad)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    **ignored: Any,
) -> Tensor:
    """Ones on the diagonal of an n x m matrix, zeros elsewhere."""
    check_keywords("eye", ignored)
    check_device(device)
    m = n if m is None else m
    if n < 0 or m < 0:
        raise RuntimeError(f"n and m must be greater or equal to 0, given {n} and {m}")
    rows, columns = _grid(n, m)
    t = to_dtype(emit(ops.eq, rows, columns), default_dtype() if dtype is None else dtype)
    return _finish(own(t), requires_grad)


def _grid(n: Any, m: Any) -> tuple[Tensor, Tensor]:
    rows = emit(ops.iota, shape=(n, m), axis=0, dtype=i64)
    return rows, emit(ops.iota, shape=(n, m), axis=1, dtype=i64)


def tril_indices(row: int, col: int, offset: int = 0, **keywords: Any) -> Tensor:
    """The row and column numbers of the lower triangle, as a 2 x n tensor."""
    return wrap(np.stack(np.tril_indices(row, offset, col)).astype(np.int64))


def triu_indices(row: int, col: int, offset: int = 0, **keywords: Any) -> Tensor:
    """The row and column numbers of the upper triangle, as a 2 x n tensor."""
    return wrap(np.stack(np.triu_indices(row, offset, col)).astype(np.int64))


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate grids of 1-d tensors: grid i varies along dimension i ("xy" swaps two)."""
    from tracecc.functional.shape import view_reshape

    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    if not tensors:
        raise ValueError("meshgrid() expects a non-empty sequence of tensors")
    if any(t.ndim > 1 for t in tensors):
        raise RuntimeError("meshgrid() expects 0-d or 1-d tensors")
    if any(t.dtype is not tensors[0].dtype for t in tensors):
        raise RuntimeError("meshgrid() expects all tensors to have the same dtype")
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f"meshgrid(): indexing must be 'ij' or 'xy', given {indexing!r}")
    swap = indexing == "xy" and len(tensors) >= 2
    order = list(tensors)
    if swap:
        order[0], order[1] = order[1], order[0]
    shape = tuple(t._type.size for t in order)
    grids = []
    for i, t in enumerate(order):
        column = [1] * len(order)
        column[i] = shape[i]
        grids.append(expand_view(view_reshape(t, tuple(column)), shape))
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def detach(input: Tensor) -> Tensor:
    """The same memory without history."""
    return input.detach()
