"""Gradient clipping, parameters as one vector, and reparametrisations."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from typing import Any

import tracecc as tc
from tracecc.lacking import unknown
from tracecc.state import no_grad
from tracecc.tensor import Tensor

_FROM = {
    "fuse_conv_bn_eval": "tracecc.nn.utils.fusion",
    "fuse_conv_bn_weights": "tracecc.nn.utils.fusion",
    "fuse_linear_bn_eval": "tracecc.nn.utils.fusion",
    "fuse_linear_bn_weights": "tracecc.nn.utils.fusion",
    "parametrizations": "tracecc.nn.utils.parametrizations",
    "parametrize": "tracecc.nn.utils.parametrize",
    "prune": "tracecc.nn.utils.prune",
    "remove_spectral_norm": "tracecc.nn.utils.weights",
    "remove_weight_norm": "tracecc.nn.utils.weights",
    "rnn": "tracecc.nn.utils.rnn",
    "skip_init": "tracecc.nn.utils.fusion",
    "spectral_norm": "tracecc.nn.utils.weights",
    "weight_norm": "tracecc.nn.utils.weights",
}

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "vector_to_parameters",
]

Tensors = Tensor | Iterable[Tensor]


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise unknown(__name__, name)
    module = importlib.import_module(_FROM[name])
    return module if module.__name__.endswith("." + name) else getattr(module, name)


def _gradients(parameters: Tensors) -> list[Tensor]:
    given = [parameters] if isinstance(parameters, Tensor) else parameters
    found = [p.grad for p in given]
    return [g.detach() for g in found if g is not None]


@no_grad()
def get_total_norm(
    tensors: Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The norm of all ``tensors`` as if they were one vector; 0-d.

    Raises:
        RuntimeError: it is not finite and ``error_if_nonfinite`` is set.
    """
    every = [t.abs() if t.is_complex() else t for t in tensors]
    if not every:
        return tc.as_tensor(0.0)
    p = float(norm_type)
    if p == math.inf:
        norms = tc.stack([t.abs().amax() for t in every])
        total = norms.amax()
    else:
        sums = tc.stack([(t * t if p == 2.0 else t.abs() ** p).sum() for t in every])
        total = sums.sum().sqrt() if p == 2.0 else sums.sum() ** (1.0 / p)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients is non-finite, so it cannot be "
            "clipped; set error_if_nonfinite=False to scale by it anyway"
        )
    return total


@no_grad()
def clip_grad_norm_(
    parameters: Tensors,
    max_norm: Any,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scales all gradients down, in place, so that their joint norm is at most ``max_norm``.

    Returns:
        The norm before.
    """
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    total = get_total_norm(_gradients(given), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(given, max_norm, total)
    return total


@no_grad()
def clip_grads_with_norm_(
    parameters: Tensors, max_norm: Any, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scales all gradients down, in place, by what takes ``total_norm`` to at most ``max_norm``."""
    factor = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
    for g in _gradients(parameters):
        g.mul_(factor.to(g.dtype))


@no_grad()
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Clamps every gradient to [-clip_value, clip_value], in place."""
    for g in _gradients(parameters):
        g.clamp_(-clip_value, clip_value)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters, flattened and joined."""
    return tc.cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copies slices of ``vec`` into the parameters."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected vec to be a Tensor, but got: {type(vec).__name__}")
    start = 0
    with no_grad():
        for p in parameters:
            p.copy_(vec[start : start + p.numel()].reshape(p.shape))
            start += p.numel()
