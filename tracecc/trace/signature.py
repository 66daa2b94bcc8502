"""Signatures: what must be equal for two calls to run the same graph."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from tracecc.state import thread
from tracecc.tensor import Tensor
from tracecc.trace.fingerprint import is_static
from tracecc_ir.types import DType, TensorType, f64

SCALAR = TensorType(f64, ())


def signature(leaves: list[Any], structure: Any) -> Hashable:
    """A key of the call: the arguments' structure, types and aliasing, and the thread's modes."""
    first: dict[int, int] = {}
    parts = [
        describe(leaf, first.setdefault(id(leaf), i), first.setdefault(_memory(leaf), i))
        for i, leaf in enumerate(leaves)
    ]
    return (structure, tuple(parts), thread.grad_enabled, thread.inference, thread.autocast)


def _memory(leaf: Any) -> int:
    return id(leaf._storage) if isinstance(leaf, Tensor) else id(leaf)


def describe(leaf: Any, first: int, shared: int) -> Hashable:
    """What matters of one argument.

    ``first`` is the index of its first occurrence, ``shared`` of the first that has its memory.
    """
    if isinstance(leaf, Tensor):
        return (leaf._type, leaf._requires_grad, leaf._weak, first, shared)
    if type(leaf) is float:
        return float
    if isinstance(leaf, np.ndarray):
        raise TypeError(
            f"a compiled function was given a NumPy array of shape {leaf.shape}; "
            "expected a Tensor: wrap it with tracecc.from_numpy (which shares its memory)"
        )
    if is_static(leaf):
        return (type(leaf), leaf)
    if isinstance(leaf, DType):
        return leaf.name
    return ("object", id(leaf))


def shown(key: Any) -> str:
    """A signature for readers: ``(f32[64, 1, 8, 8], i64[64])``."""
    _, parts, grad, *_ = key
    texts = []
    for part in parts:
        if part is float:
            texts.append("float")
        elif isinstance(part, tuple) and isinstance(part[0], TensorType):
            texts.append(repr(part[0]) + (" requires_grad" if part[1] else ""))
        else:
            texts.append(repr(part[-1]) if isinstance(part, tuple) else str(part))
    return f"({', '.join(texts)})" + ("" if grad else " under no_grad")
