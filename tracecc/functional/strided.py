"""Memory by strides, and diagonals, which are even steps through it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracecc.devices import check_device
from tracecc.functional.core import wrap_dim
from tracecc.functional.creation import check_dtype, from_numpy, get_default_dtype, zeros
from tracecc.state import thread
from tracecc.tensor import Tensor, wrap
from tracecc_ir.types import DType


def empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    *,
    dtype: DType | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Unspecified numbers (here: zeros) with these steps between neighbours, in elements.

    Raises:
        RuntimeError: the numbers of sizes and strides differ, or a stride is negative.

    >>> import tracecc as tc
    >>> tc.empty_strided((2, 3), (1, 2)).stride()
    (1, 2)
    """
    check_device(device)
    size, stride = tuple(size), tuple(stride)
    if len(size) != len(stride) or any(s < 0 for s in stride):
        raise RuntimeError(
            f"empty_strided expects one stride >= 0 for each size, given size {list(size)} and "
            f"stride {list(stride)}"
        )
    kind = get_default_dtype() if dtype is None else check_dtype(dtype)
    if thread.trace is not None:  # a graph's values have no strides
        return zeros(size, dtype=kind, requires_grad=requires_grad)
    last = sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    memory = np.zeros(last + 1 if all(size) else 0, kind.numpy)
    steps = tuple(s * memory.itemsize for s in stride)
    t = wrap(np.lib.stride_tricks.as_strided(memory, size, steps))
    t.requires_grad = requires_grad
    return t


def empty_permuted(size: Sequence[int], physical_layout: Sequence[int], **options: Any) -> Tensor:
    """Unspecified numbers whose dimensions lie in memory in the order ``physical_layout``.

    >>> import tracecc as tc
    >>> tc.empty_permuted((2, 3, 4), (0, 2, 1)).stride()
    (12, 1, 3)
    """
    order = [wrap_dim(d, len(size)) for d in physical_layout]
    if sorted(order) != list(range(len(size))):
        raise RuntimeError(
            f"empty_permuted expects each of {len(size)} dimensions once in physical_layout, given "
            f"{tuple(physical_layout)}"
        )
    stride = [0] * len(size)
    for i, d in enumerate(order):
        stride[d] = math.prod(size[e] for e in order[i + 1 :])
    return empty_strided(size, stride, **options)


def new_empty_strided(
    self: Tensor, size: Sequence[int], stride: Sequence[int], **options: Any
) -> Tensor:
    """`empty_strided` with this tensor's dtype."""
    return empty_strided(size, stride, **{"dtype": self.dtype, **options})


def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Overwrites the main diagonal; with ``wrap`` it starts again below a square part.

    Raises:
        RuntimeError: fewer than two dimensions, or more than two of different sizes.

    >>> import tracecc as tc
    >>> tc.zeros(2, 3).fill_diagonal_(5)
    tensor([[5., 0., 0.],
            [0., 5., 0.]])
    """
    sizes: Any = self._type.shape
    if len(sizes) < 2 or (len(sizes) > 2 and len(set(sizes)) > 1):
        raise RuntimeError(
            "fill_diagonal_ expects a matrix, or more dimensions of one size, given shape "
            f"{list(sizes)}"
        )
    end = math.prod(sizes)
    if len(sizes) == 2 and not wrap:
        end = min(end, sizes[1] * sizes[1])
    mask = np.zeros(math.prod(sizes), np.bool_)
    mask[: end : sum(math.prod(sizes[i + 1 :]) for i in range(len(sizes)))] = True
    return self.masked_fill_(from_numpy(mask.reshape(sizes)), fill_value)


def resize_as_(self: Tensor, the_template: Tensor, memory_format: Any = None) -> Tensor:
    """`resize_` to the size of another tensor."""
    return self.resize_(*the_template.shape)
