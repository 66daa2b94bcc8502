"""Hooks on modules: removable handles, and the functions that watch gradients pass."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from tracecc.autograd.function import Function
from tracecc.state import epoch, thread
from tracecc.tensor import Tensor, handle

_ids = itertools.count()


class RemovableHandle:
    """What registering a hook returns; ``remove()`` takes the hook away. Also a context manager."""

    def __init__(self, hooks: OrderedDict[int, Any]):
        self.hooks, self.id = hooks, next(_ids)

    def remove(self) -> None:
        if self.hooks.pop(self.id, None) is not None:
            epoch.bump()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def register(hooks: OrderedDict[int, Any], hook: Any, prepend: bool = False) -> RemovableHandle:
    """Adds ``hook`` at the end of ``hooks``, or at the front."""
    made = RemovableHandle(hooks)
    hooks[made.id] = hook
    if prepend:
        hooks.move_to_end(made.id, last=False)
    epoch.bump()
    return made


class _Watch(Function):
    """The identity on tensors; its backward shows their gradients to ``see``."""

    @staticmethod
    def forward(ctx: Any, see: Callable, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.see = see
        return tuple(handle(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *gs: Tensor) -> tuple:
        return (None, *ctx.see(gs))


def _watch(values: Any, see: Callable) -> Any:
    """``values`` (a tensor or a tuple) with those that carry gradient passed through `_Watch`."""
    items = list(values) if isinstance(values, tuple) else [values]
    places = [i for i, v in enumerate(items) if isinstance(v, Tensor) and v._requires_grad]
    if not places:
        return values

    def spread(gs: tuple) -> tuple:
        full: list[Any] = [None] * len(items)
        for i, g in zip(places, gs, strict=True):
            full[i] = g
        seen = see(tuple(full))
        return tuple(seen[i] for i in places)

    for i, t in zip(places, _Watch.apply(spread, *(items[i] for i in places)), strict=True):
        items[i] = t
    return tuple(items) if isinstance(values, tuple) else items[0]


def _as_tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


class BackwardHooks:
    """Runs a module's full backward hooks during one forward call's backward pass."""

    def __init__(self, module: Any, pre: list[Callable], post: list[Callable]):
        self.module, self.pre, self.post = module, pre, post
        self.grad_outputs: tuple = ()
        self.watches_inputs = False

    def inputs(self, args: tuple) -> tuple:
        """The call's arguments, watched if a post hook wants their gradients."""
        if not (self.post and thread.grad_enabled):
            return args
        self.watches_inputs = any(isinstance(a, Tensor) and a._requires_grad for a in args)
        return _watch(args, self._input_gradients)

    def outputs(self, result: Any) -> Any:
        """The call's result, watched."""
        return _watch(result, self._output_gradients) if thread.grad_enabled else result

    def _output_gradients(self, gs: tuple) -> tuple:
        for hook in self.pre:
            changed = hook(self.module, gs)
            if changed is not None:
                gs = _as_tuple(changed)
        self.grad_outputs = gs
        if not self.watches_inputs:
            for hook in self.post:
                hook(self.module, (), gs)
        return gs

    def _input_gradients(self, gs: tuple) -> tuple:
        for hook in self.post:
            changed = hook(self.module, gs, self.grad_outputs)
            if changed is not None:
                gs = _as_tuple(changed)
        return gs
