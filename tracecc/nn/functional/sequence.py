"""Losses and lookups over sequences of different lengths: CTC, bags of embeddings."""

from __future__ import annotations

import math
from typing import Any

import tracecc as tc
from tracecc.nn.functional.conv import embedding
from tracecc.nn.functional.loss import cross_entropy, reduced
from tracecc.state import thread
from tracecc.tensor import Tensor

IMPOSSIBLE = -1e30  # stands for log 0: its differences are finite


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Rows of ``weight`` [n, d] summed, averaged or maximised over bags of indices: [bags, d].

    Args:
        input: [bags, L], or all bags one after another [N] with ``offsets``.
        offsets: [bags], where each bag starts; one more, the end, if ``include_last_offset``.
        mode: "sum", "mean" or "max"; an empty bag gives zeros.
        per_sample_weights: a factor per index, for "sum".
        padding_idx: an index that counts for nothing.
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"mode has to be one of sum, mean or max, given {mode!r}")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported "
            f"for mode='sum' (got mode={mode!r})"
        )
    if input.ndim == 2:
        if offsets is not None:
            raise ValueError("if input is 2D, then offsets has to be None")
        bags, length = input.shape
        offsets = tc.arange(bags) * length
        input = input.reshape(-1)
        if per_sample_weights is not None:
            per_sample_weights = per_sample_weights.reshape(-1)
    elif input.ndim != 1 or offsets is None:
        raise ValueError(
            "offsets has to be a 1D Tensor if input is 1D, and input 1D or 2D, "
            f"given input of {input.ndim}D and offsets={offsets}"
        )
    else:
        bags = offsets.shape[0] - include_last_offset
        offsets = offsets[:bags]
    rows = embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    bag = tc.searchsorted(offsets.long(), tc.arange(input.shape[0]), right=True) - 1
    counted: Any = tc.ones(input.shape[0], dtype=weight.dtype)
    if padding_idx is not None:
        counted = (input != padding_idx % weight.shape[0]).to(weight.dtype)
    zeros = tc.zeros(bags, weight.shape[1], dtype=weight.dtype)
    count = tc.zeros(bags, dtype=weight.dtype).index_add(0, bag, counted).unsqueeze(1)
    if mode == "max":
        lowest = zeros - math.inf
        held = tc.where(counted.unsqueeze(1) > 0, rows, -math.inf)
        index = bag.unsqueeze(1).expand(held.shape)
        most = lowest.scatter_reduce(0, index, held, "amax", include_self=False)
        return tc.where(count > 0, most, 0.0)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(1)
    total = zeros.index_add(0, bag, rows * counted.unsqueeze(1))
    return total / count.clamp(min=1.0) if mode == "mean" else total


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """`cross_entropy` of a linear map of ``input`` [N, E] by ``linear_weight`` [C, .., E].

    ``options`` are ignored: the compiler decides what is kept.
    """
    logits = tc.tensordot(input, linear_weight, ([-1], [-1]))
    return cross_entropy(
        logits if linear_bias is None else logits + linear_bias,
        target,
        weight,
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def _lengths(given: Any, n: int) -> Tensor:
    found = given if isinstance(given, Tensor) else tc.as_tensor(list(given))
    return found.long().reshape(n)


def _padded_targets(targets: Tensor, lengths: Tensor, n: int) -> Tensor:
    """[N, S] from targets one after another."""
    if targets.ndim == 2:
        return targets.long()
    longest = int(lengths.max()) if n else 0
    starts = (lengths.cumsum(0) - lengths).unsqueeze(1)
    at = (starts + tc.arange(longest)).clamp(max=max(targets.shape[0] - 1, 0))
    if targets.shape[0] == 0:
        return tc.zeros(n, longest, dtype=tc.int64)
    return targets.long()[at]


def _shifted(alpha: Tensor, by: int) -> Tensor:
    fill = tc.full((alpha.shape[0], by), IMPOSSIBLE, dtype=alpha.dtype)
    return tc.cat([fill, alpha[:, : alpha.shape[1] - by]], 1) if alpha.shape[1] > by else alpha


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Connectionist temporal classification (Graves et al., 2006), its forward variables in logs.

    Args:
        log_probs: [T, N, C], or [T, C], after log_softmax.
        targets: [N, S], or all of them one after another; never ``blank``.
        input_lengths: [N], how many of the T steps count.
        target_lengths: [N].
        reduction: "mean" divides each loss by its target's length first.
        zero_infinity: losses of targets that do not fit become 0.

    The gradient is PyTorch's, which is that of ``log_softmax`` followed by the loss.
    """
    single = log_probs.ndim == 2
    logp = log_probs.unsqueeze(1) if single else log_probs
    steps, n, _ = logp.shape
    inputs, lengths = _lengths(input_lengths, n), _lengths(target_lengths, n)
    if thread.trace is None and n and (longest := int(inputs.max())) > steps:
        raise RuntimeError(f"ctc_loss: input_lengths must be at most {steps}, given {longest}")
    labels = _padded_targets(targets.unsqueeze(0) if single else targets, lengths, n)
    states = 2 * labels.shape[1] + 1
    path = tc.full((n, states), blank, dtype=tc.int64)
    path[:, 1::2] = labels
    skips = tc.zeros(n, states, dtype=tc.bool)
    if states > 3:
        skips[:, 2:] = (path[:, 2:] != blank) & (path[:, 2:] != path[:, :-2])
    number = tc.arange(states)
    alpha = tc.where(number < 2, logp[0].gather(1, path), IMPOSSIBLE)
    for t in range(1, steps):
        skipped = tc.where(skips, _shifted(alpha, 2), IMPOSSIBLE)
        ways = tc.stack([alpha, _shifted(alpha, 1) if states > 1 else alpha, skipped])
        ways = ways if states > 1 else alpha.unsqueeze(0)
        moved = tc.logsumexp(ways, 0) + logp[t].gather(1, path)
        alpha = tc.where((t < inputs).unsqueeze(1), moved, alpha)
    last = 2 * lengths.unsqueeze(1)
    ends = [alpha.gather(1, last)]
    before = alpha.gather(1, (last - 1).clamp(min=0))
    ends.append(tc.where(last > 0, before, IMPOSSIBLE))
    loss = -tc.logsumexp(tc.cat(ends, 1), 1)
    fits = loss < -IMPOSSIBLE / 2
    if logp._requires_grad:
        counted = tc.arange(steps).reshape(steps, 1, 1) < inputs.reshape(1, n, 1)
        share = tc.where(counted, tc.exp(logp), 0.0).sum((0, 2))
        loss = loss + (share - share.detach())
    loss = tc.where(fits, loss, 0.0 if zero_infinity else math.inf)
    if reduction == "mean":
        return (loss / lengths.clamp(min=1).to(loss.dtype)).mean()
    return reduced(loss.squeeze(0) if single else loss, reduction)
