"""Padding, resampling and rearranging of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tracecc as tc
from tracecc.nn.functional.run import ntuple, run
from tracecc.tensor import Tensor


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Pads the last dimensions: ``pad`` is (low, high) of the last one, then of the one before, ...

    Args:
        input: any shape.
        pad: negative numbers crop.
        mode: "constant", "reflect", "replicate" or "circular".
        value: what constant padding holds; 0 by default.
    """
    if len(pad) % 2 or len(pad) // 2 > input.ndim:
        raise RuntimeError(
            f"pad expects two ints per dimension, last dimension first, given {list(pad)} "
            f"for an input of shape {tuple(input.shape)}"
        )
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    dims = [input.ndim - 1 - i for i in range(len(pairs))]
    if mode != "constant":
        for dim, (low, high) in zip(dims, pairs, strict=True):
            if mode == "circular":  # what wraps around is what cropping leaves
                input = _crop(input, dim, min(low, 0), min(high, 0))
            input = _pad_by_index(input, dim, max(low, 0), max(high, 0), mode)
            if mode != "circular":
                input = _crop(input, dim, min(low, 0), min(high, 0))
        return input
    for dim, (low, high) in zip(dims, pairs, strict=True):
        input = _crop(input, dim, min(low, 0), min(high, 0))
    lows, highs = [0] * input.ndim, [0] * input.ndim
    for dim, (low, high) in zip(dims, pairs, strict=True):
        lows[dim], highs[dim] = max(low, 0), max(high, 0)
    if not any(lows) and not any(highs):
        return input.clone()
    number = 0 if value is None else value
    fill = float(number) if input.dtype.kind == "float" else int(number)
    return run(
        "pad",
        input,
        low=tuple(lows),
        high=tuple(highs),
        interior=(0,) * input.ndim,
        value=fill,
    )


_pad = pad


def _crop(x: Tensor, dim: int, low: int, high: int) -> Tensor:
    """Without the first -low and the last -high elements."""
    return x.narrow(dim, -low, x.shape[dim] + low + high) if low or high else x


def _pad_by_index(x: Tensor, dim: int, low: int, high: int, mode: str) -> Tensor:
    n = x.shape[dim]
    if mode == "reflect":
        if low >= n or high >= n:
            raise RuntimeError(
                f"Padding size should be less than the corresponding input dimension, but got "
                f"padding ({low}, {high}) at dimension {dim} of input {list(x.shape)}"
            )
        parts = [x.narrow(dim, 1, low).flip(dim)] if low else []
        parts += [x] + ([x.narrow(dim, n - 1 - high, high).flip(dim)] if high else [])
    elif mode == "replicate":
        parts = [x.narrow(dim, 0, 1)] * low + [x] + [x.narrow(dim, n - 1, 1)] * high
    elif mode == "circular":
        parts = [x.narrow(dim, n - low, low)] if low else []
        parts += [x] + ([x.narrow(dim, 0, high)] if high else [])
    else:
        raise NotImplementedError(
            f"pad mode must be constant, reflect, replicate or circular, given {mode!r}"
        )
    return tc.cat(parts, dim) if len(parts) > 1 else x


def _coordinates(n: int, out: int, scale: float | None, align_corners: bool) -> list[float]:
    """Where each of ``out`` samples lies in an axis of ``n``."""
    if align_corners:
        step = (n - 1) / (out - 1) if out > 1 else 0.0
        return [i * step for i in range(out)]
    step = 1.0 / scale if scale is not None else n / out
    return [(i + 0.5) * step - 0.5 for i in range(out)]


def _resample(x: Tensor, dim: int, out: int, scale: float | None, mode: str, align: bool) -> Tensor:
    n = x.shape[dim]
    if out == n and scale is None:
        return x
    if mode.startswith("nearest"):
        step = 1.0 / scale if scale is not None else n / out
        shift = 0.5 if mode == "nearest-exact" else 0.0
        index = [min(math.floor((i + shift) * step), n - 1) for i in range(out)]
        return x.index_select(dim, tc.as_tensor(index))
    at = _coordinates(n, out, scale, align)
    if mode == "bicubic":
        return _bicubic(x, dim, at)
    at = [max(c, 0.0) for c in at]
    low = [min(math.floor(c), n - 1) for c in at]
    high = [min(c + 1, n - 1) for c in low]
    shape = [-1 if d == dim else 1 for d in range(x.ndim)]
    fractions = [c - b for c, b in zip(at, low, strict=True)]
    part = tc.as_tensor(fractions, dtype=x.dtype).reshape(*shape)
    below, above = (x.index_select(dim, tc.as_tensor(i)) for i in (low, high))
    return below * (1 - part) + above * part


def cubic_weights(t: Any) -> list[Any]:
    """Of the 4 neighbours of a point ``t`` after the second: Keys' kernel (1981), a = -0.75."""
    a = -0.75

    def near(u: Any) -> Any:
        return ((a + 2) * u - (a + 3)) * u * u + 1

    def far(u: Any) -> Any:
        return ((a * u - 5 * a) * u + 8 * a) * u - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _bicubic(x: Tensor, dim: int, at: list[float]) -> Tensor:
    n = x.shape[dim]
    shape = [-1 if d == dim else 1 for d in range(x.ndim)]
    weights = [cubic_weights(c - math.floor(c)) for c in at]
    total: Any = 0
    for tap in range(4):
        index = [min(max(math.floor(c) - 1 + tap, 0), n - 1) for c in at]
        weight = tc.as_tensor([w[tap] for w in weights], dtype=x.dtype).reshape(*shape)
        total = total + x.index_select(dim, tc.as_tensor(index)) * weight
    return total


def upsample(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """An older name of `interpolate`."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "nearest"."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode "bilinear" and aligned corners."""
    return interpolate(input, size, scale_factor, "bilinear", True)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """[N, C, ..] with channel (g, i) of g groups moved to (i, g)."""
    n, c, *rest = input.shape
    if c % groups:
        raise RuntimeError(
            f"Number of channels must be divisible by groups. Got {c} channels and {groups} groups."
        )
    return input.reshape(n, groups, c // groups, *rest).transpose(1, 2).reshape(input.shape)


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resamples the spatial dimensions of [N, C, ..] to ``size`` or by ``scale_factor``.

    Modes: "nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area".
    """
    rank = input.ndim - 2
    linear = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
    if mode not in ("nearest", "nearest-exact", "area") and linear.get(mode) != rank:
        raise NotImplementedError(
            f"interpolate cannot use mode {mode!r} on an input of {input.ndim}-d"
        )
    if antialias:
        raise ValueError("interpolate has no antialias; use mode='area' to shrink images smoothly")
    if (size is None) == (scale_factor is None):
        raise ValueError(
            "interpolate expects exactly one of size and scale_factor, "
            f"given size={size} and scale_factor={scale_factor}"
        )
    spatial = input.shape[2:]
    scales: list[float | None] = [None] * rank
    if size is not None:
        sizes = list(ntuple(size, rank, "size"))
    else:
        factors = list(scale_factor) if isinstance(scale_factor, (tuple, list)) else []
        factors = factors or [scale_factor] * rank
        sizes = [math.floor(n * f) for n, f in zip(spatial, factors, strict=True)]
        if not recompute_scale_factor:
            scales = [float(f) for f in factors]
    if mode == "area":
        from tracecc.nn.functional import pooling

        return getattr(pooling, f"adaptive_avg_pool{rank}d")(input, sizes)
    for i, (out, scale) in enumerate(zip(sizes, scales, strict=True)):
        input = _resample(input, i + 2, out, scale, mode, bool(align_corners))
    return input


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """[.., C r², H, W] to [.., C, H r, W r]."""
    r = upscale_factor
    *lead, c, h, w = input.shape
    if c % (r * r):
        raise RuntimeError(
            f"pixel_shuffle expects channels divisible by upscale_factor squared, {r * r}, "
            f"given {c}"
        )
    x = input.reshape(*lead, c // (r * r), r, r, h, w)
    n = len(lead)
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return x.permute(*order).reshape(*lead, c // (r * r), h * r, w * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """[.., C, H r, W r] to [.., C r², H, W]."""
    r = downscale_factor
    *lead, c, h, w = input.shape
    if h % r or w % r:
        raise RuntimeError(
            "pixel_unshuffle expects height and width divisible by "
            f"downscale_factor={r}, given {h} and {w}"
        )
    x = input.reshape(*lead, c, h // r, r, w // r, r)
    n = len(lead)
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return x.permute(*order).reshape(*lead, c * r * r, h // r, w // r)


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """`pad` with a number."""
    return _pad(input, pad, "constant", value)
