"""Multi-head attention and the transformer encoder layer."""

from __future__ import annotations

import copy
import math
from typing import Any

import tracecc as tc
import tracecc.nn.functional as F
from tracecc.nn import init
from tracecc.nn.modules.container import ModuleList
from tracecc.nn.modules.dropout import Dropout
from tracecc.nn.modules.linear import Linear
from tracecc.nn.modules.module import Module
from tracecc.nn.modules.norm import LayerNorm
from tracecc.nn.parameter import Parameter
from tracecc.tensor import Tensor
from tracecc_ir.types import DType


class MultiheadAttention(Module):
    """Attention in ``num_heads`` subspaces (Vaswani et al., 2017).

    Args:
        embed_dim: features of the query and of the result; divisible by ``num_heads``.
        num_heads: how many.
        dropout: on the attention weights, in training.
        bias: for the projections.
        kdim: features of the keys; by default ``embed_dim``.
        vdim: features of the values; by default ``embed_dim``.
        batch_first: [N, T, features] rather than [T, N, features].
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: DType | None = None,
    ):
        super().__init__()
        if add_bias_kv or add_zero_attn:
            raise ValueError("MultiheadAttention has no add_bias_kv and add_zero_attn")
        if embed_dim % num_heads:
            raise ValueError(
                f"embed_dim must be divisible by num_heads, given {embed_dim} and {num_heads}"
            )
        self.embed_dim, self.num_heads, self.batch_first = embed_dim, num_heads, batch_first
        self.dropout, self.head_dim = dropout, embed_dim // num_heads
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        joint = self.kdim == embed_dim == self.vdim
        sizes = {"in_proj_weight": (3 * embed_dim, embed_dim)} if joint else {}
        if not joint:
            sizes = {
                "q_proj_weight": (embed_dim, embed_dim),
                "k_proj_weight": (embed_dim, self.kdim),
                "v_proj_weight": (embed_dim, self.vdim),
            }
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            made = Parameter(tc.empty(sizes[name], dtype=dtype)) if name in sizes else None
            self.register_parameter(name, made)
        self.register_parameter(
            "in_proj_bias", Parameter(tc.zeros(3 * embed_dim, dtype=dtype)) if bias else None
        )
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype=dtype)
        for name in sizes:
            init.xavier_uniform_(getattr(self, name))
        if bias:
            init.zeros_(self.out_proj.bias)

    def _weights(self) -> list[Tensor]:
        if self.in_proj_weight is not None:
            return list(self.in_proj_weight.split(self.embed_dim, 0))
        return [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]

    def _heads(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """[N, T, features] to [N, heads, T, head_dim]."""
        y = F.linear(x, weight, bias)
        return y.reshape(*y.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(
        self, padding: Tensor | None, mask: Tensor | None, causal: bool, n: int, length: int, s: int
    ) -> Tensor | None:
        """One additive mask from the three ways to give one; True in a bool mask hides."""
        total = None
        for given, shape in ((padding, (n, 1, 1, s)), (mask, None)):
            if given is None:
                continue
            m = given
            if m.dtype.name == "bool":
                m = tc.where(m, -math.inf, tc.zeros(m.shape))
            if shape is not None:
                m = m.reshape(*shape)
            elif m.ndim == 3:
                m = m.reshape(n, self.num_heads, length, s)
            total = m if total is None else total + m
        if causal and mask is None:
            hidden = tc.arange(s).unsqueeze(0) > tc.arange(length).unsqueeze(1)
            m = tc.where(hidden, -math.inf, tc.zeros(length, s))
            total = m if total is None else total + m
        return total

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attends from ``query`` to ``key`` and ``value``.

        Args:
            query: [T, N, embed_dim], or [N, T, ..] if ``batch_first``; N may be absent.
            key: [S, N, kdim].
            value: [S, N, vdim].
            key_padding_mask: [N, S]; True hides.
            need_weights: also return the attention weights.
            attn_mask: [T, S] or [N * heads, T, S]; True hides, floats are added.
            average_attn_weights: average the returned weights over the heads.
            is_causal: hide later positions.
        """
        batched = query.ndim == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        n, length, _ = query.shape
        s = key.shape[1]
        bias = self.in_proj_bias
        biases = [None] * 3 if bias is None else bias.split(self.embed_dim, 0)
        given = zip((query, key, value), self._weights(), biases, strict=True)
        q, k, v = (self._heads(x, w, b) for x, w, b in given)
        rate = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            mask = self._mask(key_padding_mask, attn_mask, is_causal, n, length, s)
            scores = (q @ k.transpose(-2, -1)) / math.sqrt(self.head_dim)
            shares = F.softmax(scores if mask is None else scores + mask, -1)
            shares = F.dropout(shares, rate)
            y, weights = shares @ v, shares.mean(1) if average_attn_weights else shares
        elif is_causal and key_padding_mask is None:
            y = F.scaled_dot_product_attention(q, k, v, None, rate, True)
        else:
            mask = self._mask(key_padding_mask, attn_mask, is_causal, n, length, s)
            y = F.scaled_dot_product_attention(q, k, v, mask, rate)
        y = self.out_proj(y.transpose(1, 2).reshape(n, length, self.embed_dim))
        if not batched:
            return y.squeeze(0), None if weights is None else weights.squeeze(0)
        return (y if self.batch_first else y.transpose(0, 1)), weights


class TransformerEncoderLayer(Module):
    """Self-attention and a two-layer network, each with a residual and a normalisation."""

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Any = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: DType | None = None,
    ):
        super().__init__()
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)
        self.norm_first = norm_first
        self.activation = getattr(F, activation) if isinstance(activation, str) else activation

    def _attend(self, x: Tensor, mask: Any, padding: Any, causal: bool) -> Tensor:
        y, _ = self.self_attn(
            x, x, x, key_padding_mask=padding, need_weights=False, attn_mask=mask, is_causal=causal
        )
        return self.dropout1(y)

    def _feed(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        given = (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            x = src + self._attend(self.norm1(src), *given)
            return x + self._feed(self.norm2(x))
        x = self.norm1(src + self._attend(src, *given))
        return self.norm2(x + self._feed(x))


class TransformerEncoder(Module):
    """``num_layers`` copies of an encoder layer, one after another."""

    def __init__(
        self,
        encoder_layer: TransformerEncoderLayer,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ):
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(num_layers)])
        self.num_layers, self.norm = num_layers, norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)
