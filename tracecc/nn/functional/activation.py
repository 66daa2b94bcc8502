"""Activation functions, with PyTorch's names, arguments and values at the edges."""

from __future__ import annotations

import math
from typing import Any

import tracecc as tc
from tracecc.nn.functional.run import axis_of, finish, run
from tracecc.tensor import Tensor
from tracecc_ir.types import DType


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    return finish(input, run("relu", input), inplace)


def relu_(input: Tensor) -> Tensor:
    return relu(input, inplace=True)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    return hardtanh(input, 0.0, 6.0, inplace)


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    if input.dtype.kind == "int":
        min_val, max_val = int(min_val), int(max_val)
    held = input.clamp(min_val, max_val)
    if input._requires_grad:  # no gradient at the two ends, as in PyTorch
        held = tc.where((input > min_val) & (input < max_val), input, held.detach())
    return finish(input, held, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    if isinstance(negative_slope, Tensor):
        result = tc.where(input > 0, input, input * negative_slope)
    else:
        result = run("leaky_relu", input, slope=float(negative_slope))
    return finish(input, result, inplace)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """``weight`` has one element, or one per channel (dim 1)."""
    if input.ndim == 0:
        weight = weight.reshape(())
    elif weight.numel() != 1:
        channels = input.shape[1 if input.ndim > 1 else 0]
        if weight.numel() != channels:
            raise RuntimeError(
                "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                f"{weight.numel()} and channel size = {channels}"
            )
        weight = weight.reshape(1, -1, *[1] * (input.ndim - 2)) if input.ndim > 1 else weight
    return tc.where(input > 0, input, input * weight)


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """In training each negative element gets a slope drawn from [lower, upper)."""
    slope: Any = (lower + upper) / 2
    if training:
        slope = tc.rand(input.shape, dtype=input.dtype) * (upper - lower) + lower
    return finish(input, tc.where(input >= 0, input, input * slope), inplace)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    return finish(input, run("elu", input, alpha=float(alpha)), inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Klambauer et al., 2017: ELU scaled so that activations keep mean 0 and variance 1."""
    return finish(input, 1.0507009873554805 * elu(input, 1.6732632423543772), inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    below = alpha * tc.expm1(input.clamp(max=0.0) / alpha)
    return finish(input, tc.where(input > 0, input, below), inplace)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"approximate argument must be either none or tanh, given {approximate}")
    return run("gelu", input, approximate=approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    made = input * tc.sigmoid(input) if input.is_complex() else run("silu", input)
    return finish(input, made, inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    return finish(input, input * tc.tanh(softplus(input)), inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return run("softplus", input, beta=float(beta), threshold=float(threshold))


def sigmoid(input: Tensor) -> Tensor:
    return tc.sigmoid(input)


def tanh(input: Tensor) -> Tensor:
    return tc.tanh(input)


def logsigmoid(input: Tensor) -> Tensor:
    return run("logsigmoid", input)


def softsign(input: Tensor) -> Tensor:
    return input / (1 + input.abs())


def tanhshrink(input: Tensor) -> Tensor:
    return input - tc.tanh(input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    near = (input >= -lambd) & (input <= lambd)
    return tc.where(near, 0.0, tc.where(input > lambd, input - lambd, input + lambd))


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    return tc.where(input.abs() <= lambd, 0.0, input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return finish(input, (input + 3.0).clamp(0.0, 6.0) / 6.0, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    return finish(input, input * (input + 3.0).clamp(0.0, 6.0) / 6.0, inplace)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    return finish(input, tc.where(input <= threshold, value, input), inplace)


_threshold = threshold


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half along ``dim`` times the sigmoid of the second."""
    n = input.shape[axis_of(input, dim)]
    if n % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size {n}")
    a, b = input.split(n // 2, dim)
    return a * tc.sigmoid(b)


def _cast(input: Tensor, dtype: DType | None) -> Tensor:
    return input if dtype is None else input.to(dtype)


def _implied_dim(input: Tensor, dim: int | None) -> int:
    """PyTorch's historical choice where no dim is given."""
    return dim if dim is not None else (0 if input.ndim in (0, 1, 3) else 1)


def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    x = _cast(input, dtype)
    if x.ndim == 0:
        return x * 0 + 1
    return run("softmax", x, axis=axis_of(x, _implied_dim(x, dim)))


def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    return softmax(-input, dim, _stacklevel, dtype)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Tensor:
    x = _cast(input, dtype)
    if x.ndim == 0:
        return x * 0
    return run("log_softmax", x, axis=axis_of(x, _implied_dim(x, dim)))


def gumbel_softmax(
    logits: Tensor, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """A softmax of ``logits`` with Gumbel noise; one-hot forwards if ``hard``."""
    uniform = tc.rand(logits.shape, dtype=logits.dtype).clamp(min=math.ldexp(1.0, -24))
    soft = softmax((logits - tc.log(-tc.log(uniform))) / tau, dim)
    if not hard:
        return soft
    index = soft.argmax(dim, keepdim=True)
    one = tc.zeros_like(soft).scatter(dim, index, 1.0)
    return one - soft.detach() + soft


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Tensor:
    """``input`` divided by its p-norm along ``dim``."""
    return input / input.norm(p, dim, keepdim=True).clamp(min=eps)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    return celu(input, alpha, inplace=True)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    return elu(input, alpha, inplace=True)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    return hardtanh(input, min_val, max_val, inplace=True)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    return leaky_relu(input, negative_slope, inplace=True)


def rrelu_(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False
) -> Tensor:
    return rrelu(input, lower, upper, training, inplace=True)


def selu_(input: Tensor) -> Tensor:
    return selu(input, inplace=True)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    return _threshold(input, threshold, value, inplace=True)
