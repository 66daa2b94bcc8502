"""Multi-head attention as one function of its inputs and weights."""

from __future__ import annotations

import math
from typing import Any

import tracecc as tc
from tracecc.casts import autocasting
from tracecc.nn.functional.activation import softmax
from tracecc.nn.functional.conv import linear
from tracecc.nn.functional.dropout import dropout
from tracecc.nn.functional.shape import pad
from tracecc.tensor import Tensor

project = autocasting("linear", linear)


def _additive(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask to add to scores: True hides."""
    if mask is None or mask.dtype.name != "bool":
        return mask
    return tc.where(mask, -math.inf, tc.zeros(mask.shape, dtype=like.dtype))


def _longer(mask: Tensor | None) -> Tensor | None:
    """One more position, which nothing hides."""
    return None if mask is None else pad(mask, (0, 1))


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention from ``query`` [T, N, E] to ``key`` and ``value`` [S, N, ..]; N may be absent.

    Args:
        in_proj_weight: [3 E, E], or None with the three separate ones.
        bias_k, bias_v: [1, 1, E], one more key and value that are learnt.
        add_zero_attn: one more key and value of zeros.
        key_padding_mask: [N, S]; True hides, floats are added.
        attn_mask: [T, S] or [N * heads, T, S]; likewise.
        static_k, static_v: [N * heads, S, E / heads], instead of the projections.

    Returns:
        [T, N, E] and, if ``need_weights``, the weights [N, T, S], or [N, heads, T, S] if they are
        not averaged.
    """
    batched = query.ndim == 3
    if not batched:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, n, embed = query.shape
    if embed != embed_dim_to_check or embed % num_heads:
        raise AssertionError(
            f"was expecting embedding dimension of {embed_dim_to_check}, divisible by num_heads="
            f"{num_heads}, but got {embed}"
        )
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint; use scaled_dot_product_attention "
            "for a causal mask without one"
        )
    head = embed // num_heads
    weights: Any = (q_proj_weight, k_proj_weight, v_proj_weight)
    if not use_separate_proj_weight:
        assert in_proj_weight is not None
        weights = in_proj_weight.chunk(3)
    biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    given = zip((query, key, value), weights, biases, strict=True)
    q, k, v = (project(x, w, b) for x, w, b in given)
    mask, padding = _additive(attn_mask, query), _additive(key_padding_mask, query)
    mask = mask.unsqueeze(0) if mask is not None and mask.ndim == 2 else mask
    if bias_k is not None and bias_v is not None:
        k = tc.cat([k, bias_k.expand(1, n, embed)])
        v = tc.cat([v, bias_v.expand(1, n, embed)])
        mask, padding = _longer(mask), _longer(padding)

    def heads(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], n * num_heads, head).transpose(0, 1)

    q = heads(q)
    k = heads(k) if static_k is None else static_k
    v = heads(v) if static_v is None else static_v
    if add_zero_attn:
        zeros = tc.zeros(n * num_heads, 1, head, dtype=k.dtype)
        k, v = tc.cat([k, zeros], 1), tc.cat([v, zeros], 1)
        mask, padding = _longer(mask), _longer(padding)
    s = k.shape[1]
    if padding is not None:
        wide = padding.reshape(n, 1, 1, s).expand(n, num_heads, 1, s).reshape(n * num_heads, 1, s)
        mask = wide if mask is None else mask + wide
    scores = (q * math.sqrt(1.0 / head)) @ k.transpose(1, 2)
    shares = softmax(scores if mask is None else scores + mask, -1)
    shares = dropout(shares, dropout_p, training) if dropout_p else shares
    y = (shares @ v).transpose(0, 1).reshape(length, n, embed)
    y = project(y, out_proj_weight, out_proj_bias)
    y = y if batched else y.squeeze(1)
    if not need_weights:
        return y, None
    shares = shares.reshape(n, num_heads, length, s)
    shares = shares.mean(1) if average_attn_weights else shares
    return y, shares if batched else shares.squeeze(0)
