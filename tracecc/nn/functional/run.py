"""How nn.functional reaches the op table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracecc.autograd.tape import OpNode, TapeNode
from tracecc.dispatch import apply
from tracecc.state import thread
from tracecc.tensor import Tensor, handle, wrap
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
    if thread.trace is None and result.grad_fn is not None:
        _keep_operand(x, result)
    return x._write(result)


def _keep_operand(x: Tensor, result: Tensor) -> None:
    """What computed ``result`` from ``x`` remembers a copy of ``x``, which is overwritten next."""
    copy = None
    pending, seen = [result.grad_fn], {x.grad_fn}
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        pending += [to[0] for to in node.edges if to is not None and isinstance(to[0], TapeNode)]
        for saved in (getattr(node, "inputs", None) or ()) if isinstance(node, OpNode) else ():
            if saved._hold._storage is x._storage and saved.version == x._version:
                copy = wrap(x._numpy().copy()) if copy is None else copy
                kept = handle(copy)
                kept._requires_grad, kept._grad_fn = saved._hold._requires_grad, x.grad_fn
                kept._output_index = saved._hold._output_index
                saved._hold, saved.version = kept, kept._version
