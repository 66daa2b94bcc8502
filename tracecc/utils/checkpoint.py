"""Checkpointing: a part of a network is computed again in backward instead of being remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from tracecc.autograd.tape import Edge, TapeNode, attach, edge
from tracecc.autograd.walk import outside, walk
from tracecc.pytree import flatten, unflatten
from tracecc.random import default_generator
from tracecc.state import enable_grad, thread
from tracecc.tensor import Tensor, handle

__all__ = ["checkpoint", "checkpoint_sequential"]


class CheckpointNode(TapeNode):
    """The record of a part that backward runs again.

    Attributes:
        again: runs the part and returns its results that require grad.
    """

    __slots__ = ("again",)

    again: Callable[[], list[Tensor]]

    def apply(self, gs: list[Tensor | None], wanted: list[bool], keep: bool) -> list[Tensor | None]:
        start, trace = _now(), thread.trace
        arrived = [g for g in gs if g is not None]
        with nullcontext() if trace is None else trace.apart(arrived):
            outputs = self.again()
        roots = [y for y, g in zip(outputs, gs, strict=True) if g is not None]
        asked = [e for e, w in zip(self.edges, wanted, strict=True) if w]
        found = iter(walk(roots, arrived, asked, keep, thread.grad_enabled, start) or ())
        return [next(found) if w else None for w in wanted]


def _now() -> int:
    """The number that the tape has counted to."""
    return TapeNode((), ()).sequence


def _entries(outputs: list[Tensor], start: int) -> list[Edge]:
    """Where the gradients of ``outputs`` leave what was recorded after node number ``start``."""
    found: dict[tuple[int, int], Edge] = {}
    seen: set[TapeNode] = set()
    pending = [e for t in outputs if (e := edge(t)) is not None]
    while pending:
        to = pending.pop()
        if outside(to[0], start):
            found.setdefault((id(to[0]), to[1]), to)
        elif to[0] not in seen:
            seen.add(to[0])
            pending.extend(e for e in reversed(to[0].edges) if e is not None)
    return list(found.values())


def checkpoint(
    function: Callable,
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    context_fn: Callable | None = None,
    determinism_check: str = "default",
    debug: bool = False,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)``, whose intermediate results are computed again in backward.

    Inside a compiled function the backward pass holds the part a second time, behind a barrier:
    it is not computed before its gradient is there, and the first one's memory is free until then.
    What the part writes (running statistics) is written once there; eager runs write twice, as
    PyTorch's do.

    Args:
        function: what to call; it must do the same both times.
        use_reentrant: accepted for PyTorch's sake; gradients always reach captured tensors.
        preserve_rng_state: draw the same random numbers both times.
        context_fn: gives two context managers, for the first and for the second run.
        determinism_check, debug: accepted for PyTorch's sake.

    >>> import tracecc as tc
    >>> x = tc.tensor(2.0, requires_grad=True)
    >>> checkpoint(lambda t: t.sin().exp(), x).backward()
    >>> x.grad
    tensor(-1.0331)
    """
    first, second = (nullcontext(), nullcontext()) if context_fn is None else context_fn()
    if not thread.grad_enabled:
        with first:
            return function(*args, **kwargs)
    mark = default_generator.mark() if preserve_rng_state else None
    start = _now()
    with first:
        result = function(*args, **kwargs)
    outputs, structure = flatten(result)
    live = _live(outputs)
    if not live:
        return result

    def again() -> list[Tensor]:
        now = default_generator.mark()
        if mark is not None:
            default_generator.rewind(mark)
        with enable_grad(), second:
            made = function(*args, **kwargs)
        if mark is not None:
            default_generator.rewind(now)
        return _live(flatten(made)[0])

    node = CheckpointNode((), [t._type for t in live])
    node.edges, node.again = [*_entries(live, start)], again
    made = {id(t): handle(t) for t in live}
    attach(node, list(made.values()))
    return unflatten(structure, iter([made.get(id(t), t) for t in outputs]))


def _live(outputs: list[Any]) -> list[Tensor]:
    """The different tensors among results that require grad."""
    found = {id(t): t for t in outputs if isinstance(t, Tensor) and t.requires_grad}
    return list(found.values())


def checkpoint_sequential(
    functions: Sequence[Callable] | Any, segments: int, input: Any, **options: Any
) -> Any:
    """Runs ``functions`` one after another in ``segments`` checkpointed parts."""
    parts = list(functions)
    size = max(1, len(parts) // segments)

    def through(start: int, end: int) -> Callable:
        def run(x: Any) -> Any:
            for f in parts[start:end]:
                x = f(x)
            return x

        return run

    starts = list(range(0, size * (segments - 1), size))
    for start in starts:
        input = checkpoint(through(start, start + size), input, **options)
    return through(size * len(starts), len(parts))(input)
