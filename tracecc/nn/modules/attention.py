"""Multi-head attention as a layer."""

from __future__ import annotations

import math
from typing import Any

import tracecc as tc
import tracecc.nn.functional as F
from tracecc.nn import init
from tracecc.nn.modules.linear import Linear
from tracecc.nn.modules.module import Module
from tracecc.nn.parameter import Parameter
from tracecc.tensor import Tensor
from tracecc_ir.types import DType


class NonDynamicallyQuantizableLinear(Linear):
    """A Linear under the name that PyTorch prints for attention's output projection."""


class MultiheadAttention(Module):
    """Attention in ``num_heads`` subspaces (Vaswani et al., 2017).

    Args:
        embed_dim: features of the query and of the result; divisible by ``num_heads``.
        num_heads: how many.
        dropout: on the attention weights, in training.
        bias: for the projections.
        add_bias_kv: learn one more key and value.
        add_zero_attn: add a key and a value of zeros.
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
        if embed_dim % num_heads:
            raise AssertionError(
                f"embed_dim must be divisible by num_heads, given {embed_dim} and {num_heads}"
            )
        self.embed_dim, self.num_heads, self.batch_first = embed_dim, num_heads, batch_first
        self.dropout, self.head_dim = dropout, embed_dim // num_heads
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.add_zero_attn = add_zero_attn
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
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, dtype=dtype)
        for name in ("bias_k", "bias_v"):
            made = Parameter(tc.empty(1, 1, embed_dim, dtype=dtype)) if add_bias_kv else None
            self.register_parameter(name, made)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name, p in self.named_parameters(recurse=False):
            if name.endswith("weight"):
                init.xavier_uniform_(p)
            elif name == "in_proj_bias":
                init.zeros_(p)
            else:
                init.xavier_normal_(p)
        if self.out_proj.bias is not None:
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
        self,
        padding: Tensor | None,
        mask: Tensor | None,
        causal: bool,
        sizes: tuple[Any, Any, Any],
        dtype: DType,
    ) -> Tensor | None:
        """One additive mask from the three ways to give one; True in a bool mask hides."""
        n, length, s = sizes
        if causal and mask is None:
            mask = tc.arange(s).unsqueeze(0) > tc.arange(length).unsqueeze(1)
        given = []
        if padding is not None:
            given.append(padding.reshape(n, 1, 1, s))
        if mask is not None:
            shaped = mask.reshape(n, self.num_heads, length, s) if mask.ndim == 3 else mask
            given.append(shaped)
        total = None
        for m in given:
            if m.dtype.name == "bool":
                m = tc.where(m, -math.inf, tc.zeros(m.shape, dtype=dtype))
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
        if need_weights or self.bias_k is not None or self.add_zero_attn:
            return self._general(
                (query, key, value),
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        n, length, _ = query.shape
        bias = self.in_proj_bias
        biases = [None] * 3 if bias is None else bias.split(self.embed_dim, 0)
        given = zip((query, key, value), self._weights(), biases, strict=True)
        q, k, v = (self._heads(x, w, b) for x, w, b in given)
        rate = self.dropout if self.training else 0.0
        if is_causal and key_padding_mask is None:
            y = F.scaled_dot_product_attention(q, k, v, None, rate, True)
        else:
            mask = self._mask(
                key_padding_mask, attn_mask, is_causal, (n, length, key.shape[1]), q.dtype
            )
            y = F.scaled_dot_product_attention(q, k, v, mask, rate)
        y = self.out_proj(y.transpose(1, 2).reshape(n, length, self.embed_dim))
        if not batched:
            return y.squeeze(0), None
        return (y if self.batch_first else y.transpose(0, 1)), None

    def _general(
        self,
        inputs: tuple[Tensor, Tensor, Tensor],
        padding: Tensor | None,
        need_weights: bool,
        mask: Tensor | None,
        average: bool,
        causal: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """The way that stores the attention weights."""
        swap = self.batch_first and inputs[0].ndim == 3
        q, k, v = (x.transpose(0, 1) for x in inputs) if swap else inputs
        if causal and mask is None:
            rows = tc.arange(q.shape[0]).unsqueeze(1)
            mask = tc.arange(k.shape[0]).unsqueeze(0) > rows
        y, weights = F.multi_head_attention_forward(
            q,
            k,
            v,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=padding,
            need_weights=need_weights,
            attn_mask=mask,
            use_separate_proj_weight=self.in_proj_weight is None,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average,
        )
        return (y.transpose(0, 1) if swap else y), weights
