"""Checkpointing: a part of a network is computed again in backward instead of being remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracecc.autograd.tape import TapeNode, attach
from tracecc.autograd.walk import backward_pass
from tracecc.pytree import flatten, unflatten
from tracecc.random import default_generator
from tracecc.state import enable_grad, thread
from tracecc.tensor import Tensor, handle

__all__ = ["checkpoint", "checkpoint_sequential"]


class CheckpointNode(TapeNode):
    """The record of a part that backward runs again."""

    __slots__ = ("again", "count")

    again: Callable[[], tuple[list[Tensor], list[Tensor]]]
    count: int

    def apply(self, gs: list[Tensor | None], wanted: list[bool], keep: bool) -> list[Tensor | None]:
        outputs, leaves = self.again()
        pairs = [(y, g) for y, g in zip(outputs, gs, strict=True) if g is not None]
        ys, seeds = zip(*pairs, strict=True)
        asked = [t for t, w in zip(leaves, wanted, strict=True) if w]
        found = iter(backward_pass(ys, seeds, asked, keep, thread.grad_enabled) or ())
        return [next(found) if w else None for w in wanted]


def _leaves(outputs: list[Tensor], before: int) -> list[Tensor]:
    """The leaves that the graph above node number ``before`` ends in."""
    found: dict[int, Tensor] = {}
    seen: set[TapeNode] = set()
    pending = [t.grad_fn for t in outputs if t.grad_fn is not None]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        for to in node.edges:
            if to is None:
                continue
            if isinstance(to[0], Tensor):
                found[id(to[0])] = to[0]
            elif to[0].sequence > before:
                pending.append(to[0])
    return list(found.values())


def checkpoint(
    function: Callable,
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)``, whose intermediate results are computed again in backward.

    Inside a compiled function it is the plain call: the compiler plans memory itself.

    Args:
        function: what to call; it must do the same both times.
        use_reentrant: accepted for PyTorch's sake; gradients always reach captured parameters.
        preserve_rng_state: draw the same random numbers both times.

    >>> import tracecc as tc
    >>> x = tc.tensor(2.0, requires_grad=True)
    >>> checkpoint(lambda t: t.sin().exp(), x).backward()
    >>> x.grad
    tensor(-1.0331)
    """
    if thread.trace is not None or not thread.grad_enabled:
        return function(*args, **kwargs)
    state = default_generator.get_state() if preserve_rng_state else None
    given, structure = flatten((args, kwargs))
    places = [i for i, t in enumerate(given) if isinstance(t, Tensor) and t.requires_grad]

    def run() -> tuple[Any, list[Tensor]]:
        values = list(given)
        fresh = [given[i].detach().requires_grad_() for i in places]
        for i, t in zip(places, fresh, strict=True):
            values[i] = t
        a, k = unflatten(structure, iter(values))
        with enable_grad():
            return function(*a, **k), fresh

    start = TapeNode((), ()).sequence
    result, fresh = run()
    outputs, out_structure = flatten(result)
    live = [t for t in outputs if isinstance(t, Tensor) and t.requires_grad]
    if not live:
        return result
    mine = {id(t) for t in fresh}
    captured = [t for t in _leaves(live, start) if id(t) not in mine]

    def again() -> tuple[list[Tensor], list[Tensor]]:
        now = default_generator.get_state()
        if state is not None:
            default_generator.set_state(state)
        second, inputs = run()
        if state is not None:
            default_generator.set_state(now)
        found = [t for t in flatten(second)[0] if isinstance(t, Tensor) and t.requires_grad]
        return found, [*inputs, *captured]

    node = CheckpointNode([*(given[i] for i in places), *captured], [t._type for t in live])
    node.again, node.count = again, len(live)
    made = {id(t): handle(t) for t in live}
    attach(node, list(made.values()))
    return unflatten(out_structure, iter([made.get(id(t), t) for t in outputs]))


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
