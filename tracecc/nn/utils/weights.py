"""Reparametrised weights: weight normalisation and spectral normalisation."""

from __future__ import annotations

from typing import Any

import tracecc as tc
from tracecc.nn.functional.activation import normalize
from tracecc.nn.modules.module import Module
from tracecc.nn.parameter import Parameter
from tracecc.nn.utils.parametrize import computed, plain
from tracecc.state import no_grad
from tracecc.tensor import Tensor


def norm_except(v: Tensor, dim: int | None) -> Tensor:
    """The 2-norm over every dimension but ``dim`` (over all if None), keeping them."""
    if dim is None:
        return v.norm()
    return v.norm(2, [d for d in range(v.ndim) if d != dim % v.ndim], keepdim=True)


def scaled(g: Tensor, v: Tensor, dim: int | None) -> Tensor:
    """``v`` scaled to norms ``g`` (Salimans and Kingma, 2016)."""
    return v * (g / norm_except(v, dim))


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """[size of ``dim``, everything else]."""
    return weight.movedim(dim, 0).flatten(1)


@no_grad()
def power_iteration(weight: Tensor, u: Tensor, v: Tensor, steps: int, eps: float) -> None:
    """Moves ``v``, then ``u``, in place, towards the first singular vectors of a matrix."""
    w = weight.detach()
    for _ in range(steps):
        v.copy_(normalize(w.T @ u, dim=0, eps=eps))
        u.copy_(normalize(w @ v, dim=0, eps=eps))


def singular_value(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """The first singular value by its vectors."""
    return u.clone().dot(weight @ v.clone())


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Splits a parameter into its norms ``name_g`` and its direction ``name_v``."""
    w = getattr(module, name)
    delattr(module, name)
    module.register_parameter(name + "_g", Parameter(norm_except(w.detach(), dim)))
    module.register_parameter(name + "_v", Parameter(w.detach()))

    def value(self: Any) -> Tensor:
        return scaled(getattr(self, name + "_g"), getattr(self, name + "_v"), dim)

    computed(module, name, "", value)
    return module


def remove_weight_norm(module: Any, name: str = "weight") -> Any:
    """Makes ``name`` one parameter again."""
    return _restore(module, name, [name + "_g", name + "_v"], f"weight_norm of '{name}'")


def _restore(module: Module, name: str, parts: list[str], what: str) -> Module:
    if parts[0] not in module._parameters:
        raise ValueError(f"{what} not found in {module}")
    with no_grad():
        value = getattr(module, name).detach().clone()
    plain(module, name)
    for part in parts:
        delattr(module, part)
    module.register_parameter(name, Parameter(value))
    return module


def spectral_norm(
    module: Any,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Any:
    """Divides a parameter by its first singular value (Miyato et al., 2018)."""
    axis = dim if dim is not None else (1 if "ConvTranspose" in type(module).__name__ else 0)
    w = getattr(module, name)
    matrix = as_matrix(w.detach(), axis)
    delattr(module, name)
    module.register_parameter(name + "_orig", Parameter(w.detach()))
    for part, size in (("_u", matrix.shape[0]), ("_v", matrix.shape[1])):
        module.register_buffer(name + part, normalize(tc.randn(size), dim=0, eps=eps))

    def value(self: Any) -> Tensor:
        original = getattr(self, name + "_orig")
        u, v = getattr(self, name + "_u"), getattr(self, name + "_v")
        weight = as_matrix(original, axis)
        if self.training:
            power_iteration(weight, u, v, n_power_iterations, eps)
        return original / singular_value(weight, u, v)

    computed(module, name, "", value)
    return module


def remove_spectral_norm(module: Any, name: str = "weight") -> Any:
    """Makes ``name`` a plain parameter again, of its present value."""
    parts = [name + "_orig", name + "_u", name + "_v"]
    return _restore(module, name, parts, f"spectral_norm of '{name}'")
