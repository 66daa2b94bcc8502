"""Normalisation: batch, layer, group, instance, root-mean-square and local response."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tracecc as tc
from tracecc.functional.core import to_dtype
from tracecc.nn.functional.run import run
from tracecc.tensor import Tensor
from tracecc_ir.types import bf16, f16, f32


def _per_channel(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(1, t.numel(), *[1] * (x.ndim - 2)) if x.ndim > 1 else t


def _wide(x: Tensor) -> Tensor:
    """What is computed with: 16-bit floats as float32."""
    return to_dtype(x, f32) if x.dtype in (f16, bf16) else x


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises each channel (dim 1) over the batch, or by the running statistics.

    Args:
        input: [N, C, ..].
        running_mean: [C]; written in place in training.
        running_var: [C]; the unbiased variance, written in place in training.
        weight: [C].
        bias: [C].
        training: use the batch's own statistics.
        momentum: the weight of the new statistics; a float or a 0-d tensor.
        eps: added to the variance.
    """
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm expects running_mean and running_var in evaluation")
        scale = tc.rsqrt(running_var + eps)
        if weight is not None:
            scale = scale * weight
        shift = -running_mean * scale if bias is None else bias - running_mean * scale
        result = input * _per_channel(scale, input) + _per_channel(shift, input)
        return to_dtype(result, input.dtype)
    if input.numel() == 0:
        return input.clone()
    channels = input.shape[1]
    count = input.numel() // channels
    if count == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {input.shape}"
        )
    w = tc.ones(channels, dtype=input.dtype) if weight is None else weight
    b = tc.zeros(channels, dtype=input.dtype) if bias is None else bias
    result, mean, var = run("batch_norm", input, w, b, eps=eps)
    with tc.no_grad():
        if running_mean is not None:
            running_mean.copy_(running_mean * (1 - momentum) + mean.detach() * momentum)
        if running_var is not None:
            unbiased = var.detach() * (count / (count - 1))
            running_var.copy_(running_var * (1 - momentum) + unbiased * momentum)
    return result


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises over the trailing dimensions ``normalized_shape``."""
    shape = tuple(normalized_shape)
    if tuple(input.shape[-len(shape) :]) != shape:
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape "
            f"[*, {', '.join(map(str, shape))}], but got input of size{list(input.shape)}"
        )
    w = tc.ones(shape, dtype=input.dtype) if weight is None else weight
    b = tc.zeros(shape, dtype=input.dtype) if bias is None else bias
    return run("layer_norm", input, w, b, axes=len(shape), eps=eps)[0]


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Divides by the root mean square over the trailing dimensions (Zhang and Sennrich, 2019)."""
    wanted = tuple(normalized_shape)
    if tuple(input.shape[-len(wanted) :]) != wanted:
        raise RuntimeError(
            f"Given normalized_shape={list(wanted)}, expected input with shape "
            f"[*, {', '.join(map(str, wanted))}], but got input of size {list(input.shape)}"
        )
    dims = tuple(range(-len(wanted), 0))
    x = _wide(input)
    eps = tc.finfo(input.dtype).eps if eps is None else eps
    result = x * tc.rsqrt((x * x).mean(dims, keepdim=True) + eps)
    return to_dtype(result if weight is None else result * weight, input.dtype)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises each group of channels of each sample (Wu and He, 2018)."""
    n, c = input.shape[:2]
    if c % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input "
            f"of shape {list(input.shape)} and num_groups={num_groups}"
        )
    size = math.prod(input.shape[2:]) * (c // num_groups)
    x = _wide(input)
    grouped = x.reshape(n, num_groups, size)
    one, zero = tc.ones(size, dtype=x.dtype), tc.zeros(size, dtype=x.dtype)
    result = run("layer_norm", grouped, one, zero, axes=1, eps=eps)[0].reshape(input.shape)
    if weight is not None:
        result = result * _per_channel(weight, input)
    return to_dtype(result if bias is None else result + _per_channel(bias, input), input.dtype)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalises each channel of each sample."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    dims = tuple(range(2, input.ndim))
    if math.prod(input.shape[2:]) == 1:
        raise ValueError(
            "Expected more than 1 spatial element when training, got input size "
            f"{list(input.shape)}"
        )
    if running_mean is not None and running_var is not None:
        with tc.no_grad():
            mean = input.detach().mean(dims).mean(0)
            var = input.detach().var(dims).mean(0)
            running_mean.copy_(running_mean * (1 - momentum) + mean * momentum)
            running_var.copy_(running_var * (1 - momentum) + var * momentum)
    return group_norm(input, input.shape[1], weight, bias, eps)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Divides by a power of the mean square over ``size`` neighbouring channels."""
    if input.numel() == 0:
        return input
    square = (input * input).movedim(1, -1)
    total = run(
        "window_sum",
        square,
        window=(size,),
        stride=(1,),
        padding=((size // 2, (size - 1) // 2),),
        dilation=(1,),
    )
    return input / (total.movedim(-1, 1) * (alpha / size) + k) ** beta


def native_layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`layer_norm`, and the mean and reciprocal deviation that it used."""
    shape = tuple(normalized_shape)
    dims = tuple(range(-len(shape), 0))
    mean = input.mean(dims, keepdim=True)
    rstd = tc.rsqrt(((input - mean) ** 2).mean(dims, keepdim=True) + eps)
    return layer_norm(input, shape, weight, bias, eps), mean, rstd


def native_group_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    N: int,
    C: int,
    HxW: int,
    group: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`group_norm`, and the mean and reciprocal deviation [N, group] that it used."""
    grouped = input.reshape(N, group, C // group * HxW)
    mean = grouped.mean(2)
    rstd = tc.rsqrt(((grouped - mean.unsqueeze(2)) ** 2).mean(2) + eps)
    return group_norm(input, group, weight, bias, eps), mean, rstd


def native_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`batch_norm`, and the mean and reciprocal deviation of the batch (empty in evaluation)."""
    result = batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        none = tc.zeros(0, dtype=input.dtype)
        return result, none, none.clone()
    dims = tuple(d for d in range(input.ndim) if d != 1)
    mean = input.mean(dims)
    rstd = tc.rsqrt(((input - _per_channel(mean, input)) ** 2).mean(dims) + eps)
    return result, mean, rstd
