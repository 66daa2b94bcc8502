"""Scaled dot-product attention."""

from __future__ import annotations

import math

import tracecc as tc
from tracecc.nn.functional.activation import softmax
from tracecc.nn.functional.dropout import dropout
from tracecc.nn.functional.run import run
from tracecc.tensor import Tensor


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value``.

    Args:
        query: [.., H, L, d].
        key: [.., H, S, d].
        value: [.., H, S, e].
        attn_mask: broadcasts to [.., H, L, S]; bool (True takes part) or added to the scores.
        dropout_p: the rate of dropout on the weights; it applies whatever the mode.
        is_causal: position i sees positions up to i; excludes ``attn_mask``.
        scale: defaults to ``1 / sqrt(d)``.
        enable_gqa: query heads share key and value heads in equal groups.

    Returns:
        [.., H, L, e].
    """
    if is_causal and attn_mask is not None:
        raise RuntimeError("Explicit attn_mask should not be set when is_causal=True")
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key = key.repeat_interleave(repeats, -3)
        value = value.repeat_interleave(repeats, -3)
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    lead = query.shape[:-2]
    plain = (
        attn_mask is None
        and dropout_p == 0.0
        and query.ndim >= 3
        and key.shape[:-2] == lead == value.shape[:-2]
        and query.dtype is key.dtype is value.dtype
    )
    if plain:
        return run("attention", query, key, value, causal=is_causal, scale=float(scale))[0]
    scores = (query @ key.transpose(-2, -1)) * scale
    if is_causal:
        rows = tc.arange(query.shape[-2]).unsqueeze(1)
        attn_mask = rows >= tc.arange(key.shape[-2]).unsqueeze(0)
    if attn_mask is not None and attn_mask.dtype.name == "bool":
        scores = tc.where(attn_mask, scores, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = softmax(scores, -1)
    if attn_mask is not None and attn_mask.dtype.name == "bool":  # a row that sees nothing gives 0
        weights = tc.where(attn_mask.any(-1, keepdim=True), weights, 0.0)
    return dropout(weights, dropout_p) @ value
