"""Parametrizations ready for use: weight and spectral normalisation."""

from __future__ import annotations

from typing import Any

import tracecc as tc
from tracecc.nn.functional.activation import normalize
from tracecc.nn.modules.module import Module
from tracecc.nn.utils.parametrize import register_parametrization
from tracecc.nn.utils.weights import (
    as_matrix,
    norm_except,
    power_iteration,
    scaled,
    singular_value,
)
from tracecc.tensor import Tensor

__all__ = ["spectral_norm", "weight_norm"]


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0):
        super().__init__()
        self.dim = dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return scaled(weight_g, weight_v, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except(weight, self.dim), weight


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Splits a parameter into norms (original0) and direction (original1)."""
    return register_parametrization(module, name, _WeightNorm(dim))


class _SpectralNorm(Module):
    def __init__(self, weight: Tensor, n_power_iterations: int, dim: int, eps: float):
        super().__init__()
        self.dim, self.eps, self.n_power_iterations = dim, eps, n_power_iterations
        matrix = as_matrix(weight.detach(), dim)
        for name, size in (("_u", matrix.shape[0]), ("_v", matrix.shape[1])):
            self.register_buffer(name, normalize(tc.randn(size), dim=0, eps=eps))
        power_iteration(matrix.T, self._v, self._u, 15, eps)

    def forward(self, weight: Tensor) -> Tensor:
        matrix = as_matrix(weight, self.dim)
        if self.training:
            power_iteration(matrix.T, self._v, self._u, self.n_power_iterations, self.eps)
        return weight / singular_value(matrix, self._u, self._v)

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(
    module: Any,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Any:
    """Divides a parameter by its first singular value."""
    axis = dim if dim is not None else (1 if "ConvTranspose" in type(module).__name__ else 0)
    made = _SpectralNorm(getattr(module, name), n_power_iterations, axis, eps)
    return register_parametrization(module, name, made)
