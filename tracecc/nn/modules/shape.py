"""Layers that pad, resample or compare."""

from __future__ import annotations

from typing import Any

import tracecc.nn.functional as F
from tracecc.nn.functional.run import ntuple
from tracecc.nn.modules.module import Module
from tracecc.tensor import Tensor


class _Pad(Module):
    _rank = 2
    _mode = "constant"
    value: float | None = None

    def __init__(self, padding: Any):
        super().__init__()
        self.padding = ntuple(padding, 2 * self._rank, "padding")

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: Any, value: float):
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Pads the last 1 dimension with a constant."""

    _rank = 1


class ConstantPad2d(_ConstantPad):
    """Pads the last 2 dimensions with a constant."""


class ConstantPad3d(_ConstantPad):
    """Pads the last 3 dimensions with a constant."""

    _rank = 3


class ZeroPad1d(_Pad):
    """Pads the last 1 dimension with zeros."""

    _rank = 1


class ZeroPad2d(_Pad):
    """Pads the last 2 dimensions with zeros."""


class ZeroPad3d(_Pad):
    """Pads the last 3 dimensions with zeros."""

    _rank = 3


class ReflectionPad1d(_Pad):
    """Pads the last 1 dimension with a mirror image without the edge."""

    _rank = 1
    _mode = "reflect"


class ReflectionPad2d(_Pad):
    """Pads the last 2 dimensions with a mirror image without the edge."""

    _mode = "reflect"


class ReflectionPad3d(_Pad):
    """Pads the last 3 dimensions with a mirror image without the edge."""

    _rank = 3
    _mode = "reflect"


class ReplicationPad1d(_Pad):
    """Pads the last 1 dimension with the edge."""

    _rank = 1
    _mode = "replicate"


class ReplicationPad2d(_Pad):
    """Pads the last 2 dimensions with the edge."""

    _mode = "replicate"


class ReplicationPad3d(_Pad):
    """Pads the last 3 dimensions with the edge."""

    _rank = 3
    _mode = "replicate"


class CircularPad1d(_Pad):
    """Pads the last 1 dimension with the other side."""

    _rank = 1
    _mode = "circular"


class CircularPad2d(_Pad):
    """Pads the last 2 dimensions with the other side."""

    _mode = "circular"


class CircularPad3d(_Pad):
    """Pads the last 3 dimensions with the other side."""

    _rank = 3
    _mode = "circular"


class Upsample(Module):
    """`F.interpolate` as a layer."""

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ):
        super().__init__()
        several = isinstance(scale_factor, (tuple, list))
        if scale_factor is not None:
            scale_factor = tuple(map(float, scale_factor)) if several else float(scale_factor)
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        what = "scale_factor" if self.scale_factor is not None else "size"
        return f"{what}={getattr(self, what)}, mode={self.mode!r}"


class PixelShuffle(Module):
    """`F.pixel_shuffle` as a layer."""

    def __init__(self, upscale_factor: int):
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """`F.pixel_unshuffle` as a layer."""

    def __init__(self, downscale_factor: int):
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class CosineSimilarity(Module):
    """`F.cosine_similarity` as a layer."""

    def __init__(self, dim: int = 1, eps: float = 1e-8):
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """`F.pairwise_distance` as a layer."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False):
        super().__init__()
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
