"""How nn.functional reaches the op table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracecc.dispatch import apply
from tracecc.tensor import Tensor
from tracecc_ir.op import op_named

Ints = int | Sequence[int]


def run(name: str, *inputs: Tensor, **attrs: Any) -> Any:
    """One op on tensors of exactly the types it wants; a tuple if it has several results."""
    outputs = apply(op_named(name), inputs, attrs)
    return outputs[0] if len(outputs) == 1 else outputs


def axis_of(x: Tensor, dim: int) -> int:
    """``dim`` as a non-negative axis of ``x``."""
    rank = max(x.ndim, 1)
    if not -rank <= dim < rank:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], "
            f"but got {dim})"
        )
    return dim % rank


def ntuple(value: Ints, n: int, what: str = "an argument") -> tuple[int, ...]:
    """One int for all, or one for each, of ``n`` spatial dimensions."""
    if isinstance(value, int):
        return (value,) * n
    given = tuple(value)
    if len(given) == 1:
        return given * n
    if len(given) != n:
        raise RuntimeError(f"{what} expects an int or {n} ints, given {list(given)}")
    return given


def finish(x: Tensor, result: Tensor, inplace: bool) -> Tensor:
    """``result``, written into ``x`` if ``inplace``."""
    if not inplace:
        return result
    x._check_writable()
    return x._write(result)
