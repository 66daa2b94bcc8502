"""Parametrizations ready for use: orthogonal matrices, weight and spectral normalisation."""

from __future__ import annotations

from typing import Any

import tracecc as tc
from tracecc.lacking import unknown
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
from tracecc.state import no_grad
from tracecc.tensor import Tensor

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


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


def _orthonormal(matrix: Tensor) -> Tensor:
    """The Q of a QR factorisation whose R has a positive diagonal."""
    q, r = tc.linalg.qr(matrix)
    return q * r.diagonal(0, -2, -1).sign().unsqueeze(-2)


class _Orthogonal(Module):
    """A map onto matrices [.., n, k] with orthonormal columns (rows if n < k).

    With a ``base`` the parameter is a displacement from it (a dynamic trivialization, Lezcano
    Casado, 2019): minus the identity stands for the base itself.
    """

    base: Tensor

    def __init__(self, shape: Any, orthogonal_map: str, use_trivialization: bool):
        super().__init__()
        self.shape, self.orthogonal_map = tuple(shape), orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, weight: Tensor) -> Tensor:
        wide = weight.shape[-2] < weight.shape[-1]
        x = weight.mT if wide else weight
        q = self._reflected(x) if self.orthogonal_map == "householder" else self._rotated(x)
        if "base" in self._buffers:
            q = self.base @ q
        return q.mT if wide else q

    @staticmethod
    def _reflected(x: Tensor) -> Tensor:
        """A product of reflections below the diagonal, whose entries are signs."""
        v = x.tril(-1)
        q = tc.linalg.householder_product(v, 2 / (1 + (v * v).sum(-2)))
        return q * x.diagonal(0, -2, -1).detach().trunc().unsqueeze(-2)

    def _rotated(self, x: Tensor) -> Tensor:
        """The exponential, or the Cayley transform, of a skew-symmetric matrix."""
        n, k = x.shape[-2:]
        lower = x.tril()
        if n != k:
            lower = tc.cat([lower, lower.new_zeros(*x.shape[:-2], n, n - k)], -1)
        skew = lower - lower.mT
        if self.orthogonal_map == "matrix_exp":
            return tc.matrix_exp(skew)[..., :k]
        one = tc.eye(n, dtype=x.dtype)
        return tc.linalg.solve(one - skew / 2, one + skew / 2)[..., :k]

    @no_grad()
    def right_inverse(self, value: Tensor) -> Tensor:
        if tuple(value.shape) != self.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. "
                f"Got a tensor of shape {tuple(value.shape)}."
            )
        wide = value.shape[-2] < value.shape[-1]
        q = value.mT if wide else value
        if "base" in self._buffers:
            n, k = q.shape[-2:]
            rest = tc.randn(*q.shape[:-2], n, n - k, dtype=q.dtype)
            self.base = _orthonormal(tc.cat([q, rest], -1))
            return -tc.eye(*value.shape[-2:], dtype=value.dtype).expand(value.shape).clone()
        if self.orthogonal_map != "householder":
            raise NotImplementedError(
                "It is not possible to assign to the matrix exponential or the Cayley "
                "parametrizations when use_trivialization=False."
            )
        packed, tau = tc.geqrf(q)
        signs = packed.diagonal(0, -2, -1).sign()
        signs = tc.where(tau == 0, -signs, signs)
        found = packed.tril(-1)
        found.diagonal(0, -2, -1).copy_(signs)
        return found.mT.clone() if wide else found


def orthogonal(
    module: Any,
    name: str = "weight",
    orthogonal_map: str | None = None,
    *,
    use_trivialization: bool = True,
) -> Any:
    """Keeps a parameter's columns (its rows, if it is wide) orthonormal.

    Args:
        module: its parameter ``name`` is replaced by the nearest orthogonal one of its QR.
        name: of a parameter with at least two dimensions.
        orthogonal_map: "matrix_exp" (by default for square matrices), "cayley" or "householder".
        use_trivialization: learn a displacement from a fixed orthogonal matrix, ``base``.

    >>> from tracecc import nn
    >>> layer = orthogonal(nn.Linear(3, 5))
    >>> nearly = layer.weight.mT @ layer.weight - tc.eye(3)
    >>> bool(nearly.abs().max() < 1e-5)
    True
    """
    weight = getattr(module, name)
    if weight.ndim < 2:
        raise ValueError(
            f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions."
        )
    square = weight.shape[-2] == weight.shape[-1]
    chosen = orthogonal_map or ("matrix_exp" if square else "householder")
    if chosen not in ("matrix_exp", "cayley", "householder"):
        raise ValueError(
            'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". '
            f"Got: {orthogonal_map}"
        )
    made = _Orthogonal(weight.shape, chosen, use_trivialization)
    return register_parametrization(module, name, made)


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
