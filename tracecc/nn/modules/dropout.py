"""Dropout layers."""

from __future__ import annotations

import tracecc.nn.functional as F
from tracecc.nn.modules.module import Module
from tracecc.tensor import Tensor
from tracecc.trace import scalar


class _Dropout(Module):
    """``p`` may change between calls of a compiled function without a retrace."""

    _runtime_scalars: tuple[str, ...] = ("p",)

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p, self.inplace = float(p), inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Zeroes elements with probability ``p`` in training and scales the rest by ``1 / (1 - p)``."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        return F.dropout(input, scalar(self, "p", "Dropout.p"), True, self.inplace)


class Dropout1d(_Dropout):
    """Zeroes whole channels with probability ``p`` in training."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        return F.dropout1d(input, scalar(self, "p", "Dropout.p"), True, self.inplace)


class Dropout2d(_Dropout):
    """Zeroes whole channels with probability ``p`` in training."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        return F.dropout2d(input, scalar(self, "p", "Dropout.p"), True, self.inplace)


class Dropout3d(_Dropout):
    """Zeroes whole channels with probability ``p`` in training."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        return F.dropout3d(input, scalar(self, "p", "Dropout.p"), True, self.inplace)


class AlphaDropout(_Dropout):
    """Dropout for SELU networks: keeps mean 0 and variance 1."""

    _runtime_scalars = ()

    def forward(self, input: Tensor) -> Tensor:
        return F.alpha_dropout(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(_Dropout):
    """`AlphaDropout` of whole channels."""

    _runtime_scalars = ()

    def forward(self, input: Tensor) -> Tensor:
        return F.feature_alpha_dropout(input, self.p, self.training, self.inplace)
