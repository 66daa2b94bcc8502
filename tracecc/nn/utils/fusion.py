"""Batch normalisation folded into the layer before it, and modules without numbers."""

from __future__ import annotations

import copy
from typing import Any

import tracecc as tc
from tracecc.nn.parameter import Parameter
from tracecc.tensor import Tensor


def skip_init(module_cls: type, *args: Any, **kwargs: Any) -> Any:
    """A module of this class whose parameters are not initialised (here: zeros)."""
    kwargs.pop("device", None)
    module = module_cls(*args, **kwargs)
    with tc.no_grad():
        for p in module.parameters():
            p.zero_()
    return module


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution that also normalises by running statistics."""
    bias = tc.zeros_like(bn_rm) if conv_b is None else conv_b
    shift = tc.zeros_like(bn_rm) if bn_b is None else bn_b
    scale = tc.rsqrt(bn_rv + bn_eps)
    scale = scale if bn_w is None else scale * bn_w
    shape = [1, -1] if transpose else [-1, 1]
    weight = conv_w * scale.reshape(shape + [1] * (conv_w.ndim - 2)).to(conv_w.dtype)
    fused = (bias - bn_rm) * scale + shift
    return (
        Parameter(weight.detach(), conv_w.requires_grad),
        Parameter(fused.to(weight.dtype).detach(), bias.requires_grad),
    )


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of a convolution that also does what ``bn`` does; both are in evaluation mode.

    >>> from tracecc import nn
    >>> conv, bn = nn.Conv2d(3, 4, 3).eval(), nn.BatchNorm2d(4).eval()
    >>> fuse_conv_bn_eval(conv, bn)
    Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))
    """
    if conv.training or bn.training:
        raise RuntimeError("fusion is only for evaluation: call eval() on both modules first")
    fused = copy.deepcopy(conv)
    statistics = bn.running_mean, bn.running_var, bn.eps
    fused.weight, fused.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, *statistics, bn.weight, bn.bias, transpose
    )
    return fused


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a linear layer that also normalises by running statistics."""
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A copy of a linear layer that also does what ``bn`` does; both are in evaluation mode."""
    if bn.num_features not in (linear.out_features, 1):
        raise RuntimeError(
            f"fuse_linear_bn_eval expects bn.num_features == {linear.out_features} or 1, given "
            f"{bn.num_features}"
        )
    return fuse_conv_bn_eval(linear, bn)
