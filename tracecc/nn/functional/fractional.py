"""Max pooling over windows at pseudo-random places (Graham, 2014)."""

from __future__ import annotations

import math
from typing import Any

import tracecc as tc
from tracecc.nn.functional.run import Ints, ntuple
from tracecc.tensor import Tensor


def _starts(sample: Tensor, size: int, window: int, count: int) -> Tensor:
    """Where each of ``count`` windows begins: [N, C, count] from numbers in [0, 1) [N, C]."""
    if count == 1:
        return tc.full((*sample.shape, 1), size - window, dtype=tc.int64)
    step = (size - window) / (count - 1)
    u = sample.unsqueeze(-1)
    inner = ((tc.arange(count - 1) + u) * step).long() - (u * step).long()
    last = tc.full((*sample.shape, 1), size - window, dtype=tc.int64)
    return tc.cat([inner, last], -1)


def _output_size(rank: int, sizes: tuple, window: tuple, output_size: Any, ratio: Any) -> tuple:
    if (output_size is None) == (ratio is None):
        raise ValueError(
            f"fractional_max_pool{rank}d requires specifying either an output_size or an "
            "output_ratio, and not both"
        )
    if output_size is not None:
        found = ntuple(output_size, rank, "output_size")
    else:
        ratios = (ratio,) * rank if isinstance(ratio, float) else tuple(ratio)
        found = tuple(int(n * r) for n, r in zip(sizes, ratios, strict=True))
    for n, k, m in zip(sizes, window, found, strict=True):
        if m < 1 or m + k - 1 > n:
            raise RuntimeError(
                f"fractional_max_pool{rank}d: a kernel of size {k} and an output of size {m} do "
                f"not fit an input of size {n}"
            )
    return found


def _fractional(
    rank: int,
    input: Tensor,
    kernel_size: Ints,
    output_size: Ints | None,
    output_ratio: Any,
    return_indices: bool,
    samples: Tensor | None,
) -> Any:
    if input.ndim not in (rank + 1, rank + 2):
        raise RuntimeError(
            f"fractional_max_pool{rank}d expects {rank + 1}D or {rank + 2}D input, "
            f"given {list(input.shape)}"
        )
    x = input if input.ndim == rank + 2 else input.unsqueeze(0)
    sizes: Any = tuple(x.shape[2:])
    window = ntuple(kernel_size, rank, "kernel_size")
    outputs = _output_size(rank, sizes, window, output_size, output_ratio)
    if samples is None:
        samples = tc.rand(*x.shape[:2], rank, dtype=x.dtype)
    order = (1, 0) if rank == 2 else (0, 1, 2)  # the numbers of a plane: first width, then height
    place = tc.zeros((), dtype=tc.int64)
    for d in range(rank):
        starts = _starts(samples[..., order[d]], sizes[d], window[d], outputs[d])
        shape = [*x.shape[:2], *[1] * (2 * rank)]
        shape[2 + d], shape[2 + rank + d] = outputs[d], window[d]
        along = starts.unsqueeze(-1) + tc.arange(window[d])
        place = place + along.reshape(shape) * math.prod(sizes[d + 1 :])
    place = place.reshape(*x.shape[:2], math.prod(outputs), math.prod(window))
    flat = x.flatten(2).unsqueeze(2).expand(*x.shape[:2], place.shape[2], -1)
    values, best = flat.gather(3, place).max(-1)
    index = place.gather(3, best.unsqueeze(-1))
    shape = [*input.shape[: input.ndim - rank], *outputs]
    return (
        (values.reshape(shape), index.reshape(shape)) if return_indices else values.reshape(shape)
    )


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Ints,
    output_size: Ints | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """input [N, C, H, W] or [C, H, W]; one of ``output_size`` and ``output_ratio`` is needed.

    ``_random_samples`` [N, C, 2] in [0, 1) decide where windows lie; they are drawn by default.
    """
    return _fractional(
        2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Ints,
    output_size: Ints | None = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """input [N, C, D, H, W] or [C, D, H, W]; see `fractional_max_pool2d`."""
    return _fractional(
        3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples
    )
