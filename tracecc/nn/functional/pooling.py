"""Pooling over sliding windows and over adaptive bins."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tracecc as tc
from tracecc.nn.functional.run import Ints, ntuple, run
from tracecc.tensor import Tensor


def _check_rank(name: str, input: Tensor, rank: int) -> None:
    if input.ndim not in (rank + 1, rank + 2):
        raise RuntimeError(
            f"{name} expects {rank + 1}D (unbatched) or {rank + 2}D (batched) input, "
            f"given {list(input.shape)}"
        )


def _highs(
    spatial: Sequence[Any],
    window: tuple,
    stride: tuple,
    pad: tuple,
    dilation: tuple,
    ceil_mode: bool,
) -> tuple[int, ...]:
    """The padding at the end of each dimension: more in ceil mode, for a last partial window."""
    if not ceil_mode:
        return pad
    found = []
    for n, k, s, p, d in zip(spatial, window, stride, pad, dilation, strict=True):
        free = n + 2 * p - d * (k - 1) - 1
        count = -(-free // s) + 1
        if (count - 1) * s >= n + p:  # the last window would start in the padding
            count -= 1
        found.append(p + max(0, (count - 1) * s - free))
    return tuple(found)


def _max_pool(
    rank: int,
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    _check_rank(f"max_pool{rank}d", input, rank)
    window = ntuple(kernel_size, rank, "kernel_size")
    strides = window if stride in (None, [], ()) else ntuple(stride, rank, "stride")
    pad, dilations = ntuple(padding, rank, "padding"), ntuple(dilation, rank, "dilation")
    if any(2 * p > k for p, k in zip(pad, window, strict=True)):
        raise RuntimeError(
            f"pad should be at most half of kernel size, given padding={pad} and "
            f"kernel_size={window}"
        )
    highs = _highs(input.shape[-rank:], window, strides, pad, dilations, ceil_mode)
    values, indices = run(
        "window_max",
        input,
        window=window,
        stride=strides,
        padding=tuple(zip(pad, highs, strict=True)),
        dilation=dilations,
    )
    return (values, indices) if return_indices else values


def max_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """input [.., L]; with ``return_indices`` also the position of each maximum."""
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """input [.., H, W]; with ``return_indices`` also the flat position of each maximum."""
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """input [.., D, H, W]; with ``return_indices`` also the flat position of each maximum."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _avg_pool(
    rank: int,
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Tensor:
    _check_rank(f"avg_pool{rank}d", input, rank)
    window = ntuple(kernel_size, rank, "kernel_size")
    strides = window if stride in (None, [], ()) else ntuple(stride, rank, "stride")
    pad, ones = ntuple(padding, rank, "padding"), (1,) * rank
    highs = _highs(input.shape[-rank:], window, strides, pad, ones, ceil_mode)
    slide = {"window": window, "stride": strides, "dilation": ones}
    total = run("window_sum", input, padding=tuple(zip(pad, highs, strict=True)), **slide)
    size = 1
    for k in window:
        size *= k
    mode = None if input.dtype.kind == "float" else "trunc"
    if divisor_override is not None:
        return tc.div(total, divisor_override, rounding_mode=mode)
    if not any(highs) or (count_include_pad and highs == pad):
        return tc.div(total, size, rounding_mode=mode)
    spatial = tuple(input.shape[-rank:])
    counted = tuple(zip(pad, highs, strict=True))
    if count_include_pad:
        spatial = tuple(n + 2 * p for n, p in zip(spatial, pad, strict=True))
        counted = tuple((0, h - p) for p, h in zip(pad, highs, strict=True))
    ones_of = tc.ones(spatial, dtype=input.dtype)
    return tc.div(total, run("window_sum", ones_of, padding=counted, **slide), rounding_mode=mode)


def avg_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    return _avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    return _avg_pool(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def lp_pool1d(
    input: Tensor,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The p-norm of each window."""
    size = ntuple(kernel_size, 1)[0]
    powers = avg_pool1d(input**norm_type, kernel_size, stride, 0, ceil_mode)
    return (powers.relu() * size) ** (1.0 / norm_type)


def lp_pool3d(
    input: Tensor,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The p-norm of each window."""
    size = math.prod(ntuple(kernel_size, 3))
    powers = avg_pool3d(input**norm_type, kernel_size, stride, 0, ceil_mode)
    return (powers.relu() * size) ** (1.0 / norm_type)


def lp_pool2d(
    input: Tensor,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The p-norm of each window."""
    kh, kw = ntuple(kernel_size, 2)
    powers = avg_pool2d(input**norm_type, kernel_size, stride, 0, ceil_mode)
    return (powers.relu() * (kh * kw)) ** (1.0 / norm_type)


def _adaptive_sizes(rank: int, name: str, input: Tensor, output_size: Any) -> tuple[int, ...]:
    _check_rank(name, input, rank)
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * rank
    sizes = zip(given, input.shape[-rank:], strict=True)
    return tuple(n if o is None else o for o, n in sizes)


def _by_bins(x: Tensor, dim: int, out: int, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Reduces ``out`` bins along ``dim``; bin i is [floor(i n / out), ceil((i + 1) n / out))."""
    n = x.shape[dim]
    if out == n:
        return x
    if out == 1:
        return reduce(x, dim)
    bins = [(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]
    return tc.cat([reduce(x.narrow(dim, lo, hi - lo), dim) for lo, hi in bins], dim)


def _adaptive_avg(rank: int, input: Tensor, output_size: Any) -> Tensor:
    sizes = _adaptive_sizes(rank, f"adaptive_avg_pool{rank}d", input, output_size)
    spatial = input.shape[-rank:]
    if all(o == 1 for o in sizes):
        return input.mean(tuple(range(-rank, 0)), keepdim=True)
    if all(n % o == 0 for n, o in zip(spatial, sizes, strict=True)):
        return _avg_pool(
            rank, input, [n // o for n, o in zip(spatial, sizes, strict=True)], None, 0, False, True
        )
    for i, out in enumerate(sizes):
        dim = input.ndim - rank + i
        input = _by_bins(input, dim, out, lambda x, d: x.mean(d, keepdim=True))
    return input


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    return _adaptive_avg(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    return _adaptive_avg(2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    return _adaptive_avg(3, input, output_size)


def _adaptive_max(rank: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    sizes = _adaptive_sizes(rank, f"adaptive_max_pool{rank}d", input, output_size)
    spatial = input.shape[-rank:]
    if all(n % o == 0 for n, o in zip(spatial, sizes, strict=True)):
        window = [n // o for n, o in zip(spatial, sizes, strict=True)]
        return _max_pool(rank, input, window, None, 0, 1, False, return_indices)
    if return_indices:
        return _max_of_bins(rank, input, sizes)
    for i, out in enumerate(sizes):
        dim = input.ndim - rank + i
        input = _by_bins(input, dim, out, lambda x, d: x.amax(d, keepdim=True))
    return input


def _max_of_bins(rank: int, input: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Maxima of uneven bins and their flat positions.

    Short bins repeat their last element: the first maximum comes before its repetitions.
    """
    spatial, lead = tuple(input.shape[-rank:]), tuple(input.shape[:-rank])
    position = tc.arange(math.prod(spatial)).reshape(spatial)
    x, widths = input, []
    for i, (n, out) in enumerate(zip(spatial, sizes, strict=True)):
        bins = [(j * n // out, -(-(j + 1) * n // out)) for j in range(out)]
        width = max(hi - lo for lo, hi in bins)
        index = tc.as_tensor([min(lo + k, hi - 1) for lo, hi in bins for k in range(width)])
        x = x.index_select(len(lead) + i, index)
        position = position.index_select(i, index)
        widths.append(width)
    split = [n for pair in zip(sizes, widths, strict=True) for n in pair]
    order = [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]
    k = len(lead)
    x = x.reshape(*lead, *split).permute(*range(k), *(k + i for i in order))
    x = x.reshape(*lead, *sizes, -1)
    position = position.reshape(split).permute(*order).reshape(*sizes, -1).expand(x.shape)
    at = x.argmax(-1, keepdim=True)
    return x.gather(-1, at).squeeze(-1), position.gather(-1, at).squeeze(-1)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    return _adaptive_max(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    return _adaptive_max(3, input, output_size, return_indices)
