"""Windows as columns and back: unfold, fold, and the inverse of max pooling."""

from __future__ import annotations

import itertools
import math
from typing import Any

import tracecc as tc
from tracecc.nn.functional.run import Ints, ntuple, run
from tracecc.nn.functional.shape import pad as pad_
from tracecc.tensor import Tensor


def _counts(
    sizes: Any, kernel: tuple, dilation: tuple, padding: tuple, stride: tuple
) -> tuple[int, ...]:
    found = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, p, s in zip(sizes, kernel, dilation, padding, stride, strict=True)
    )
    if any(c < 1 for c in found):
        raise RuntimeError(
            f"Given input with spatial size {tuple(sizes)}, kernel_size={kernel}, "
            f"dilation={dilation}, padding={padding}, stride={stride}, calculated shape of the "
            f"array of sliding blocks as {found}, but its components must be at least one."
        )
    return found


def unfold(
    input: Tensor, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1
) -> Tensor:
    """The windows of [N, C, H, W] as columns: [N, C * KH * KW, windows]."""
    if input.ndim == 3:
        return unfold(input.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)
    if input.ndim != 4:
        raise RuntimeError(f"unfold expects a 3D or 4D input, given {list(input.shape)}")
    kernel, dilations = ntuple(kernel_size, 2), ntuple(dilation, 2)
    pads, strides = ntuple(padding, 2), ntuple(stride, 2)
    oh, ow = _counts(input.shape[2:], kernel, dilations, pads, strides)
    x = pad_(input, (pads[1], pads[1], pads[0], pads[0])) if any(pads) else input
    parts = []
    for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
        top, left = i * dilations[0], j * dilations[1]
        rows = slice(top, top + strides[0] * (oh - 1) + 1, strides[0])
        columns = slice(left, left + strides[1] * (ow - 1) + 1, strides[1])
        parts.append(x[:, :, rows, columns])
    n, c = input.shape[:2]
    return tc.stack(parts, 2).reshape(n, c * len(parts), oh * ow)


def fold(
    input: Tensor,
    output_size: Ints,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> Tensor:
    """Columns [N, C * KH * KW, windows] added up where their windows lie: [N, C, H, W]."""
    if input.ndim == 2:
        x = input.unsqueeze(0)
        return fold(x, output_size, kernel_size, dilation, padding, stride).squeeze(0)
    size, kernel = ntuple(output_size, 2), ntuple(kernel_size, 2)
    dilations, pads, strides = ntuple(dilation, 2), ntuple(padding, 2), ntuple(stride, 2)
    oh, ow = _counts(size, kernel, dilations, pads, strides)
    count = kernel[0] * kernel[1]
    if input.ndim != 3 or input.shape[1] % count or input.shape[2] != oh * ow:
        raise RuntimeError(
            f"fold expects [N, C * {count}, {oh * ow}] for output_size={size}, "
            f"kernel_size={kernel}, dilation={dilations}, padding={pads}, stride={strides}, "
            f"given {list(input.shape)}"
        )
    n, c = input.shape[0], input.shape[1] // count
    x = input.reshape(n, c, count, oh, ow)
    full = [m + 2 * p for m, p in zip(size, pads, strict=True)]
    total: Any = None
    for k, (i, j) in enumerate(itertools.product(range(kernel[0]), range(kernel[1]))):
        low = (i * dilations[0], j * dilations[1])
        span = [(m - 1) * s + 1 for m, s in zip((oh, ow), strides, strict=True)]
        high = [m - a - b for m, a, b in zip(full, low, span, strict=True)]
        placed = run(
            "pad",
            x[:, :, k],
            low=(0, 0, *low),
            high=(0, 0, *high),
            interior=(0, 0, strides[0] - 1, strides[1] - 1),
            value=0.0,
        )
        total = placed if total is None else total + placed
    return total[:, :, pads[0] : pads[0] + size[0], pads[1] : pads[1] + size[1]].clone()


def _max_unpool(
    rank: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Ints,
    output_size: Any,
) -> Tensor:
    name = f"max_unpool{rank}d"
    if indices.shape != input.shape:
        raise RuntimeError(
            f"{name}: expected shape of indices to be the same as that of the input "
            f"{list(input.shape)}, but got {list(indices.shape)}"
        )
    kernel = ntuple(kernel_size, rank)
    strides = kernel if stride in (None, [], ()) else ntuple(stride, rank)  # type: ignore[arg-type]
    pads = ntuple(padding, rank)
    sizes = tuple(
        (n - 1) * s + k - 2 * p
        for n, s, k, p in zip(input.shape[-rank:], strides, kernel, pads, strict=True)
    )
    if output_size is not None:
        given = tuple(output_size)[-rank:]
        for got, usual, s in zip(given, sizes, strides, strict=True):
            if not usual - s < got < usual + s:
                raise ValueError(
                    f"invalid output_size {given}: each must be within a stride of {sizes}"
                )
        sizes = given
    lead = tuple(input.shape[:-rank])
    zeros = tc.zeros((*lead, math.prod(sizes)), dtype=input.dtype)
    flat = (*lead, math.prod(input.shape[-rank:]))
    placed = zeros.scatter(-1, indices.reshape(flat), input.reshape(flat))
    return placed.reshape(*lead, *sizes)


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Any = None,
) -> Tensor:
    """[.., L] put back where `max_pool1d` found it; zeros elsewhere."""
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Any = None,
) -> Tensor:
    """[.., H, W] put back where `max_pool2d` found it; zeros elsewhere."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Any = None,
) -> Tensor:
    """[.., D, H, W] put back where `max_pool3d` found it; zeros elsewhere."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)
