"""Fractional max pooling layers."""

from __future__ import annotations

from typing import Any

import tracecc.nn.functional as F
from tracecc.nn.functional.run import Ints, ntuple
from tracecc.nn.modules.module import Module
from tracecc.tensor import Tensor


class _FractionalMaxPool(Module):
    _rank = 2

    def __init__(
        self,
        kernel_size: Ints,
        output_size: Ints | None = None,
        output_ratio: Any = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ):
        super().__init__()
        name = type(self).__name__
        if (output_size is None) == (output_ratio is None):
            raise ValueError(
                f"{name} requires specifying either an output size, or a pooling ratio, not both"
            )
        self.kernel_size = ntuple(kernel_size, self._rank, "kernel_size")
        self.output_size = output_size
        if output_size is not None:
            self.output_size = ntuple(output_size, self._rank, "output_size")
        ratios = (output_ratio,) * self._rank if isinstance(output_ratio, float) else output_ratio
        if ratios is not None and not all(0 < r < 1 for r in ratios):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")
        self.output_ratio, self.return_indices = ratios, return_indices
        self.register_buffer("_random_samples", _random_samples)


class FractionalMaxPool2d(_FractionalMaxPool):
    """`F.fractional_max_pool2d` as a layer."""

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool2d(
            input,
            self.kernel_size,
            self.output_size,
            self.output_ratio,
            self.return_indices,
            self._random_samples,
        )


class FractionalMaxPool3d(_FractionalMaxPool):
    """`F.fractional_max_pool3d` as a layer."""

    _rank = 3

    def forward(self, input: Tensor) -> Any:
        return F.fractional_max_pool3d(
            input,
            self.kernel_size,
            self.output_size,
            self.output_ratio,
            self.return_indices,
            self._random_samples,
        )
