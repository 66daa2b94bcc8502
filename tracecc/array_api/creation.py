"""Creation functions of the array API."""

from __future__ import annotations

from typing import Any

import numpy as np

import tracecc as tc
from tracecc.functional.creation import tensor
from tracecc.tensor import Tensor

Shape = int | tuple[int, ...]


def _sizes(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def arange(
    start: float,
    /,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """Numbers from start (or 0) to before stop, a step apart.

    >>> arange(2, 8, 3)
    tensor([2, 5])
    """
    if stop is None:
        start, stop = 0, start
    if (stop - start) * step <= 0:  # PyTorch refuses what is empty here
        whole = all(isinstance(v, int) for v in (start, stop, step))
        return tc.empty(0, dtype=dtype or (tc.int64 if whole else None), device=device)
    return tc.arange(start, stop, step, dtype=dtype, device=device)


def asarray(
    obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None
) -> Tensor:
    """An array of numbers, of nested sequences of them, or of anything that shares its memory.

    Args:
        copy: True to copy, False never to, None to do so where it is needed.

    Raises:
        ValueError: a copy is needed and must not be made.

    >>> asarray([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    """
    shares = isinstance(obj, Tensor | np.ndarray) or hasattr(obj, "__dlpack__")
    if not shares and copy is False:
        raise ValueError(
            f"copy=False needs an array, given a {type(obj).__name__}, which has to be copied"
        )
    if isinstance(obj, (bool, int, float, complex)) or not shares:
        return tensor(obj, dtype=dtype, device=device)
    made = obj if isinstance(obj, Tensor) else tc.asarray(obj)
    if copy is False and dtype is not None and made.dtype != dtype:
        raise ValueError(f"copy=False cannot make an array of {dtype} from one of {made.dtype}")
    given = made
    made = made.to(device=device, dtype=dtype) if device or dtype else made
    return made.clone() if copy and made is given else made


def empty(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An array whose numbers are whatever its memory held."""
    return tc.empty(_sizes(shape), dtype=dtype, device=device)


def empty_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An array of x's shape whose numbers are whatever its memory held."""
    return tc.empty_like(x, dtype=dtype, device=device)


def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None
) -> Tensor:
    """Ones on diagonal k, zeros elsewhere.

    >>> eye(2, 3, k=1)
    tensor([[0., 1., 0.],
            [0., 0., 1.]])
    """
    n_cols = n_rows if n_cols is None else n_cols
    rows = tc.arange(n_rows, device=device).reshape(-1, 1)
    here = tc.arange(n_cols, device=device).reshape(1, -1) - rows == k
    return here.to(dtype or tc.get_default_dtype())


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """An array over the memory of another library's; a copy of it if asked."""
    made = tc.from_dlpack(x)
    made = made if device is None else made.to(device)
    return made.clone() if copy else made


def full(shape: Shape, fill_value: complex, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An array of one number.

    >>> full((2,), 7)
    tensor([7, 7])
    """
    return tc.full(_sizes(shape), fill_value, dtype=dtype, device=device)


def full_like(
    x: Tensor, /, fill_value: complex, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """An array of x's shape of one number."""
    return tc.full_like(x, fill_value, dtype=dtype, device=device)


def linspace(
    start: complex,
    stop: complex,
    /,
    num: int,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
) -> Tensor:
    """Numbers at equal distances, with or without the last.

    >>> linspace(0.0, 1.0, 4, endpoint=False)
    tensor([0.0000, 0.2500, 0.5000, 0.7500])
    """
    if endpoint:
        return tc.linspace(start, stop, num, dtype=dtype, device=device)
    return tc.linspace(start, stop, num + 1, dtype=dtype, device=device)[:-1]


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> list[Tensor]:
    """The coordinates of a grid: by default the first array runs along columns."""
    return list(tc.meshgrid(*arrays, indexing=indexing))


def ones(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An array of ones."""
    return tc.ones(_sizes(shape), dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An array of ones of x's shape."""
    return tc.ones_like(x, dtype=dtype, device=device)


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The matrices on and below diagonal k, zeros above."""
    return tc.tril(x, k)


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The matrices on and above diagonal k, zeros below."""
    return tc.triu(x, k)


def zeros(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An array of zeros."""
    return tc.zeros(_sizes(shape), dtype=dtype, device=device)


def zeros_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """An array of zeros of x's shape."""
    return tc.zeros_like(x, dtype=dtype, device=device)
