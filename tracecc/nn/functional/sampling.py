"""Sampling of images at points of a grid (Jaderberg et al., 2015)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import tracecc as tc
from tracecc.nn.functional.run import run
from tracecc.nn.functional.shape import cubic_weights
from tracecc.tensor import Tensor


def _pixels(at: Tensor, size: int, align: bool) -> Tensor:
    """Positions in [-1, 1] as positions of pixels."""
    return (at + 1) * ((size - 1) / 2) if align else ((at + 1) * size - 1) / 2


def _reflected(at: Tensor, low: float, high: float) -> Tensor:
    """``at`` folded into [low, high]."""
    span = high - low
    if span == 0:
        return tc.zeros_like(at)
    away = (at - low).abs()
    extra = tc.fmod(away, span)
    even = tc.fmod(tc.floor(away / span), 2.0) == 0
    return tc.where(even, extra, span - extra) + low


def _inside(at: Tensor, size: int, padding_mode: str, align: bool) -> Tensor:
    """Where a position outside of the image is read."""
    if padding_mode == "zeros":
        return at
    if padding_mode == "reflection":
        at = _reflected(at, 0, size - 1) if align else _reflected(at, -0.5, size - 0.5)
    return at.clamp(0, size - 1)


def _read(x: Tensor, at: Sequence[Tensor]) -> Tensor:
    """x [N, C, *sizes] at whole positions [N, P] per dimension: [N, C, P], zero outside."""
    n, c, *sizes = x.shape
    flat: Any = 0
    within: Any = None
    for position, size in zip(at, sizes, strict=True):
        ok = (position >= 0) & (position <= size - 1)
        within = ok if within is None else within & ok
        flat = flat * size + position.detach().clamp(0, size - 1).long()
    index = flat.unsqueeze(1).expand(n, c, flat.shape[1])
    found = run("gather_along", x.reshape(n, c, math.prod(sizes)), index, axis=2)
    return tc.where(within.unsqueeze(1), found, 0.0)


def _linear(x: Tensor, at: list[Tensor]) -> Tensor:
    base = [tc.floor(p.detach()) for p in at]
    total: Any = 0
    for corner in itertools.product((0, 1), repeat=len(at)):
        weight: Any = 1
        for p, b, high in zip(at, base, corner, strict=True):
            weight = weight * ((p - b) if high else (b + 1 - p))
        found = _read(x, [b + high for b, high in zip(base, corner, strict=True)])
        total = total + found * weight.unsqueeze(1)
    return total


def _cubic(x: Tensor, at: list[Tensor], padding_mode: str, align: bool) -> Tensor:
    base = [tc.floor(p.detach()) for p in at]
    weights = [cubic_weights(p - b) for p, b in zip(at, base, strict=True)]
    total: Any = 0
    for taps in itertools.product(range(4), repeat=len(at)):
        weight: Any = 1
        places = []
        for tap, w, b, size in zip(taps, weights, base, x.shape[2:], strict=True):
            weight = weight * w[tap]
            places.append(_inside(b + (tap - 1), size, padding_mode, align))
        total = total + _read(x, places) * weight.unsqueeze(1)
    return total


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """``input`` read at the points of ``grid``.

    Args:
        input: [N, C, H, W] or [N, C, D, H, W].
        grid: [N, .., 2] or [N, .., 3]: points (x, y[, z]) in [-1, 1].
        mode: "bilinear", "nearest" or (for images) "bicubic".
        padding_mode: outside there are "zeros", the "border" or a "reflection".
        align_corners: whether -1 and 1 are the centres of the corner pixels or their outer edges.

    Returns:
        [N, C, ..].
    """
    rank = input.ndim - 2
    if rank not in (2, 3) or grid.ndim != input.ndim or grid.shape[-1] != rank:
        raise RuntimeError(
            "grid_sampler(): expected a 4D or 5D input and a grid of as many dimensions whose last "
            f"is {max(rank, 2)}, given {list(input.shape)} and {list(grid.shape)}"
        )
    if grid.shape[0] != input.shape[0]:
        raise RuntimeError(
            "grid_sampler(): expected grid and input to have same batch size, but got input with "
            f"sizes {list(input.shape)} and grid with sizes {list(grid.shape)}"
        )
    if mode not in ("bilinear", "nearest", "bicubic") or (mode == "bicubic" and rank != 2):
        raise ValueError(
            f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or, for 4D "
            f"inputs, 'bicubic', but got: {mode!r}"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or "
            f"'reflection', but got: {padding_mode!r}"
        )
    align = bool(align_corners)
    points = grid.reshape(grid.shape[0], math.prod(grid.shape[1:-1]), rank)
    sizes = tuple(input.shape[2:])
    at = [_pixels(points[..., rank - 1 - i], size, align) for i, size in enumerate(sizes)]
    if mode == "bicubic":
        found = _cubic(input, at, padding_mode, align)
    else:
        at = [_inside(p, n, padding_mode, align) for p, n in zip(at, sizes, strict=True)]
        found = _linear(input, at) if mode == "bilinear" else _read(input, [p.round() for p in at])
    return found.reshape(*input.shape[:2], *grid.shape[1:-1])


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid of an affine map: theta [N, 2, 3] or [N, 3, 4], ``size`` of the result to sample."""
    n, rank = size[0], len(size) - 2
    if tuple(theta.shape) != (n, rank, rank + 1):
        raise ValueError(
            f"Expected a batch of {rank}D affine matrices of shape Nx{rank}x{rank + 1} for size "
            f"{tuple(size)}. Got {tuple(theta.shape)}."
        )
    axes = []
    for length in reversed(size[2:]):  # x first
        at = (
            tc.linspace(-1, 1, length, dtype=theta.dtype)
            if length > 1
            else tc.zeros(1, dtype=theta.dtype)
        )
        axes.append(at if align_corners else at * ((length - 1) / length))
    columns = [
        at.reshape([-1 if d == rank - 1 - i else 1 for d in range(rank)]).expand(tuple(size[2:]))
        for i, at in enumerate(axes)
    ]
    columns.append(tc.ones(tuple(size[2:]), dtype=theta.dtype))
    points = tc.stack(columns, -1).reshape(1, -1, rank + 1).expand(n, -1, -1)
    return (points @ theta.transpose(1, 2)).reshape(n, *size[2:], rank)


def grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`grid_sample` with its modes as numbers."""
    mode = ("bilinear", "nearest", "bicubic")[interpolation_mode]
    padding = ("zeros", "border", "reflection")[padding_mode]
    return grid_sample(input, grid, mode, padding, align_corners)


grid_sampler_2d = grid_sampler_3d = grid_sampler
