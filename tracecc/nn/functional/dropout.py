"""Dropout: elements, channels, and the self-normalising kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tracecc as tc
from tracecc.nn.functional.run import finish
from tracecc.tensor import Tensor

_TINY = 1e-30  # keeps the scale finite at p = 1, where everything is dropped anyway


def _check(p: Any) -> None:
    if not isinstance(p, Tensor) and not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _drop(input: Tensor, p: Any, shape: Sequence[Any]) -> Tensor:
    """Zeroes where a draw of ``shape`` falls below ``p`` and scales the rest by ``1 / (1 - p)``."""
    keep = (1 - p).clamp(min=_TINY) if isinstance(p, Tensor) else max(1.0 - p, _TINY)
    return tc.where(tc.rand(shape) >= p, input / keep, 0.0)


def dropout(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes elements with probability ``p`` and scales the others by ``1 / (1 - p)``.

    Args:
        input: any shape.
        p: a float, or a 0-d tensor.
        training: does nothing if False.
        inplace: write the result into ``input``.
    """
    _check(p)
    if not training or (not isinstance(p, Tensor) and p == 0.0):
        return input
    return finish(input, _drop(input, p, input.shape), inplace)


def _channels(input: Tensor, spatial: int) -> tuple:
    """The shape of one draw per channel; inputs may come without a batch."""
    lead = input.ndim - spatial
    if lead not in (1, 2):
        raise RuntimeError(
            f"dropout of channels expects {spatial + 1} or {spatial + 2} dimensions, "
            f"given {input.ndim}"
        )
    return (*input.shape[:lead], *[1] * spatial)


def _channel_dropout(input: Tensor, p: Any, training: bool, inplace: bool, spatial: int) -> Tensor:
    _check(p)
    if not training:
        return input
    return finish(input, _drop(input, p, _channels(input, spatial)), inplace)


def dropout1d(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return _channel_dropout(input, p, training, inplace, 1)


def dropout2d(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return _channel_dropout(input, p, training, inplace, 2)


def dropout3d(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return _channel_dropout(input, p, training, inplace, 3)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout that keeps mean 0 and variance 1 of SELU activations (Klambauer et al., 2017)."""
    return _alpha(input, p, training, inplace, input.shape)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """`alpha_dropout` of whole channels [N, C, ..]."""
    return _alpha(input, p, training, inplace, (*input.shape[:2], *[1] * (input.ndim - 2)))


def _alpha(input: Tensor, p: float, training: bool, inplace: bool, shape: Sequence[Any]) -> Tensor:
    """Alpha dropout by draws of ``shape``."""
    _check(p)
    if not training or p == 0.0:
        return input
    if p == 1.0:
        return finish(input, input * 0, inplace)
    low = -1.7580993408473766
    a = 1.0 / math.sqrt((1 - p) * (1 + p * low * low))
    kept = tc.where(tc.rand(shape) >= p, input, low)
    return finish(input, kept * a - a * low * p, inplace)
