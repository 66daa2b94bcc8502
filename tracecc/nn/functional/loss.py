"""Losses, with PyTorch's reductions and edge cases."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tracecc as tc
from tracecc.nn.functional.activation import log_softmax, logsigmoid
from tracecc.nn.functional.run import run
from tracecc.state import thread
from tracecc.tensor import Tensor


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """``loss`` after the reduction "none", "mean" or "sum"."""
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    if reduction != "none":
        raise ValueError(
            f"{reduction} is not a valid value for reduction; expected none, mean or sum"
        )
    return loss


def _same_shape(name: str, input: Tensor, target: Tensor) -> None:
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(
            f"{name} expects a target of the input's shape {tuple(input.shape)}, "
            f"given {tuple(target.shape)}"
        )


def _numbers(t: Tensor) -> np.ndarray | None:
    """What can be checked before computing; None in a trace, which has no numbers."""
    return None if thread.trace is not None else t._array


def _check_targets(target: Tensor, classes: int, ignore_index: int) -> None:
    """Refuses classes that there are not."""
    if target.dtype not in (tc.int64, tc.uint8):
        raise RuntimeError(f"expected targets of dtype int64 or uint8, given {target.dtype.public}")
    array = _numbers(target)
    if array is None:
        return
    wrong = array[((array < 0) | (array >= classes)) & (array != ignore_index)]
    if wrong.size:
        raise IndexError(f"Target {wrong[0]} is out of bounds: expected 0 to {classes - 1}")


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The negative log likelihood of ``target`` under a softmax of ``input``.

    Args:
        input: logits [C], [N, C] or [N, C, d1, ..].
        target: class indices [], [N] or [N, d1, ..], or probabilities of the input's shape.
        weight: a weight per class [C].
        ignore_index: a class index that counts for nothing.
        reduction: "mean" (over the weights of the targets), "sum" or "none".
        label_smoothing: in [0, 1], the share of the target spread evenly over the classes.
    """
    if input.ndim == 0:
        raise RuntimeError("cross_entropy expects logits [C], [N, C] or [N, C, d1, ..], given 0-d")
    channel = 0 if input.ndim == 1 else 1
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0, given {label_smoothing}")
    if weight is not None and tuple(weight.shape) != (input.shape[channel],):
        raise RuntimeError(
            f"weight tensor should be defined for all {input.shape[channel]} classes, "
            f"given shape {list(weight.shape)}"
        )
    if target.dtype.kind == "float":
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing, channel)
    expected = (*input.shape[:channel], *input.shape[channel + 1 :])
    _check_targets(target, input.shape[channel], ignore_index)
    if tuple(target.shape) != expected:
        raise ValueError(
            f"cross_entropy expects targets of shape {expected} for logits of shape "
            f"{tuple(input.shape)}, given {tuple(target.shape)}"
        )
    if weight is None and reduction == "mean":
        if input.ndim != 2:
            input = input.movedim(channel, -1).reshape(-1, input.shape[channel])
            target = target.reshape(-1)
        return run(
            "cross_entropy",
            input,
            target.long(),
            ignore_index=ignore_index,
            label_smoothing=float(label_smoothing),
        )
    logp = log_softmax(input, channel)
    loss = nll_loss(logp, target, weight, ignore_index=ignore_index, reduction=reduction)
    if label_smoothing == 0.0:
        return loss
    smooth = -(logp if weight is None else logp * _classes(weight, logp, channel)).sum(channel)
    counted: Any = target != ignore_index
    smooth = tc.where(counted, smooth, 0.0)
    if reduction == "mean":
        smooth = smooth.sum() / _weights(logp, target, weight, ignore_index, channel).sum()
    else:
        smooth = reduced(smooth, reduction)
    share = label_smoothing / input.shape[channel]
    return (1 - label_smoothing) * loss + share * smooth


def _classes(weight: Tensor, x: Tensor, channel: int) -> Tensor:
    """A weight per class, shaped to broadcast against ``x``."""
    return weight.reshape(*[-1 if d == channel else 1 for d in range(x.ndim)])


def _soft_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    label_smoothing: float,
    channel: int,
) -> Tensor:
    if tuple(input.shape) != tuple(target.shape):
        raise RuntimeError(
            "cross_entropy expects int64 classes, or probabilities of the input's shape "
            f"{tuple(input.shape)}, given {target.dtype.public} of {tuple(target.shape)}"
        )
    classes = input.shape[channel]
    if label_smoothing > 0.0:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    logp = log_softmax(input, channel)
    if weight is not None:
        logp = logp * _classes(weight, logp, channel)
    loss = -(logp * target).sum(channel)
    if reduction == "mean":
        return loss.sum() / (input.numel() // classes)
    return reduced(loss, reduction)


def _weights(
    x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, channel: int
) -> Tensor:
    """The weight of each target: its class's, 0 where ignored."""
    counted: Any = target != ignore_index
    if weight is None:
        return counted.to(x.dtype)
    index = tc.where(counted, target, 0).long()
    return tc.where(counted, run("gather", weight, index, axes=(0,)), 0.0)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability of each target: input [N, C, ..], target int64 [N, ..]."""
    channel = 0 if input.ndim == 1 else 1
    expected = (*input.shape[:channel], *input.shape[channel + 1 :])
    if tuple(target.shape) != expected:
        kind = ValueError if tuple(target.shape[:1]) != expected[:1] else RuntimeError
        raise kind(
            f"nll_loss expects targets of shape {expected} for an input of shape "
            f"{tuple(input.shape)}, given {tuple(target.shape)}"
        )
    _check_targets(target, input.shape[channel], ignore_index)
    counted: Any = target != ignore_index
    index = tc.where(counted, target, 0).long()
    picked = input.gather(channel, index.unsqueeze(channel)).squeeze(channel)
    weights = _weights(input, target, weight, ignore_index, channel)
    loss = tc.where(counted, -picked, 0.0) * weights
    if reduction == "mean":
        return loss.sum() / weights.sum()
    return reduced(loss, reduction)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    d = input - target
    return reduced(d * d, reduction)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    return reduced((input - target).abs(), reduction)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Quadratic below ``beta``, linear above."""
    if beta < 0.0:
        raise RuntimeError(
            f"smooth_l1_loss does not support negative values for beta, given {beta}"
        )
    if beta == 0.0:
        return l1_loss(input, target, reduction=reduction)
    d = (input - target).abs()
    return reduced(tc.where(d < beta, 0.5 * d * d / beta, d - 0.5 * beta), reduction)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """Quadratic below ``delta``, linear above (Huber, 1964)."""
    if delta <= 0.0:
        raise RuntimeError(f"huber_loss does not support non-positive values for delta: {delta}")
    d = (input - target).abs()
    return reduced(tc.where(d <= delta, 0.5 * d * d, delta * (d - 0.5 * delta)), reduction)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """For probabilities; logarithms are held at -100, as in PyTorch."""
    _same_shape("binary_cross_entropy", input, target)
    numbers = _numbers(input)
    if numbers is not None and not ((numbers >= 0) & (numbers <= 1)).all():
        raise RuntimeError(
            "binary_cross_entropy: all elements of input should be between 0 and 1, given "
            f"{numbers.min()} to {numbers.max()}; for logits use binary_cross_entropy_with_logits"
        )
    log_p = tc.log(input).clamp(min=-100.0)
    log_q = tc.log1p(-input).clamp(min=-100.0)
    loss = -(target * log_p + (1 - target) * log_q)
    return reduced(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """For logits; stable for large ones."""
    _same_shape("binary_cross_entropy_with_logits", input, target)
    log_p = logsigmoid(input)
    if pos_weight is None:
        loss = (1 - target) * input - log_p
    else:
        loss = (1 - target) * input - (1 + (pos_weight - 1) * target) * log_p
    return reduced(loss if weight is None else loss * weight, reduction)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Pointwise ``target * (log target - input)``; "batchmean" divides the sum by the batch."""
    if log_target:
        loss = tc.exp(target) * (target - input)
    else:
        positive = tc.where(target > 0, target, 1.0)
        loss = tc.where(target > 0, target * tc.log(positive), 0.0) - target * input
    if reduction == "batchmean":
        return loss.sum() / input.shape[0]
    return reduced(loss, reduction)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: Any = None,
    eps: float = 1e-8,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    log = input if log_input else tc.log(input + eps)
    loss = (tc.exp(input) if log_input else input) - target * log
    if full:  # Stirling's approximation of log(target!)
        safe = tc.where(target > 1, target, 2.0)
        stirling = safe * tc.log(safe) - safe + 0.5 * tc.log(2 * math.pi * safe)
        loss = loss + tc.where(target > 1, stirling, 0.0)
    return reduced(loss, reduction)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    given: Any = var
    if not isinstance(var, Tensor):
        given = tc.full(input.shape, float(var), dtype=input.dtype)
    if given.shape != input.shape:
        if given.shape == input.shape[:-1]:
            given = given.unsqueeze(-1)
        elif given.ndim != input.ndim or any(
            a not in (1, b) for a, b in zip(given.shape, input.shape, strict=True)
        ):
            raise ValueError(
                f"var is of incorrect size: given {tuple(given.shape)} for an input of "
                f"{tuple(input.shape)}, expected the same, without the last dimension, or 1 there"
            )
    numbers = _numbers(given)
    if numbers is not None and (numbers < 0).any():
        raise ValueError(f"gaussian_nll_loss: var must not be negative, given {numbers.min()}")
    held = tc.where(given.detach() < eps, given + (eps - given.detach()), given)
    loss = 0.5 * (tc.log(held) + (input - target) ** 2 / held)
    return reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    x1, x2 = tc.broadcast_tensors(x1, x2)
    n1 = ((x1 * x1).sum(dim)).clamp(min=eps * eps).sqrt()
    n2 = ((x2 * x2).sum(dim)).clamp(min=eps * eps).sqrt()
    return (x1 * x2).sum(dim) / (n1 * n2)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    similarity = cosine_similarity(input1, input2, dim=input1.ndim - 1)
    loss = tc.where(target > 0, 1 - similarity, (similarity - margin).clamp(min=0.0))
    return reduced(loss, reduction)


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    positive = tc.where(target != -1, input, 0.0)
    negative = tc.where(target != 1, (margin - input).clamp(min=0.0), 0.0)
    return reduced(positive + negative, reduction)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            "margin_ranking_loss: all input tensors should have same dimension but got sizes: "
            f"input1: {list(input1.shape)}, input2: {list(input2.shape)}, "
            f"target: {list(target.shape)}"
        )
    return reduced((-target * (input1 - input2) + margin).clamp(min=0.0), reduction)


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    return reduced(-logsigmoid(target * input), reduction)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    loss = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    loss = loss if weight is None else loss * weight
    return reduced(loss.mean(-1), reduction)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """input [N, C] or [C], target int64 [N] or []."""
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: only p == 1 and p == 2 supported, given {p}")
    input = input.reshape(1) if input.ndim == 0 else input
    target = target.reshape(()) if input.ndim == 1 else target
    classes = input.shape[-1]
    index = target.long().unsqueeze(-1)
    gap = (margin - input.gather(-1, index) + input).clamp(min=0.0)
    loss = gap if p == 1 else gap * gap
    if weight is not None:
        loss = loss * run("gather", weight, target.long(), axes=(0,)).unsqueeze(-1)
    other = tc.arange(classes) != index
    return reduced(tc.where(other, loss, 0.0).sum(-1) / classes, reduction)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    return (x1 - x2 + eps).norm(p, -1, keepdim=keepdim)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of "
            f"dimensions, given {anchor.ndim}D, {positive.ndim}D and {negative.ndim}D"
        )
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = tc.minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced((near - far + margin).clamp(min=0.0), reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Any = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` for any distance of two tensors."""
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = tc.minimum(far, distance(positive, negative))
    return reduced((near - far + margin).clamp(min=0.0), reduction)


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """input [N, C] or [C]; target int64 of its shape: classes up to the first -1."""
    if input.shape.numel() != target.shape.numel():
        raise RuntimeError(
            f"inconsistent target size: {list(target.shape)} for input of size: {list(input.shape)}"
        )
    x = input.reshape(1, -1) if input.ndim < 2 else input
    y = target.reshape(x.shape).long()
    before: Any = (y < 0).long().cumsum(1) == 0
    index = tc.where(before, y, 0)
    chosen = tc.zeros(x.shape, dtype=x.dtype).scatter_add(1, index, before.to(x.dtype)) > 0
    gaps = (1 - x.gather(1, index).unsqueeze(2) + x.unsqueeze(1)).clamp(min=0.0)
    counted = before.unsqueeze(2) & ~chosen.unsqueeze(1)
    loss = tc.where(counted, gaps, 0.0).sum((1, 2)) / x.shape[1]
    return reduced(loss.reshape(()) if input.ndim < 2 else loss, reduction)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances of all pairs of rows, [n (n - 1) / 2]."""
    if input.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    i, j = tc.triu_indices(input.shape[0], input.shape[0], 1)
    return tc.linalg.vector_norm(input.index_select(0, i) - input.index_select(0, j), p, -1)
