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


# Hooks on every module: (kind, hook), kind one of pre, forward, backward_pre and backward.
EVERYWHERE: OrderedDict[int, tuple[str, Any]] = OrderedDict()


def _everywhere(kind: str) -> list[Any]:
    return [hook for k, hook in EVERYWHERE.values() if k == kind]


def register_module_forward_pre_hook(hook: Callable) -> RemovableHandle:
    """Calls ``hook(module, args)`` before every module's ``forward`` and its own hooks."""
    return register(EVERYWHERE, ("pre", (hook, False)))


def register_module_forward_hook(hook: Callable, *, with_kwargs: bool = False) -> RemovableHandle:
    """Calls ``hook(module, args, output)`` after every module's ``forward``.

    Args:
        hook: may return another output.
        with_kwargs: call ``hook(module, args, kwargs, output)``.

    >>> from tracecc import nn, ones
    >>> names = []
    >>> watch = nn.modules.module.register_module_forward_hook
    >>> with watch(lambda module, args, output: names.append(type(module).__name__)):
    ...     _ = nn.Sequential(nn.Linear(2, 2), nn.ReLU())(ones(2))
    >>> names
    ['Linear', 'ReLU', 'Sequential']
    """
    return register(EVERYWHERE, ("forward", (hook, with_kwargs)))


def register_module_full_backward_pre_hook(hook: Callable) -> RemovableHandle:
    """Calls ``hook(module, grad_output)`` before every module's gradients are computed."""
    return register(EVERYWHERE, ("backward_pre", hook))


def register_module_full_backward_hook(hook: Callable) -> RemovableHandle:
    """Calls ``hook(module, grad_input, grad_output)`` once a module's gradients are known."""
    return register(EVERYWHERE, ("backward", hook))


register_module_backward_hook = register_module_full_backward_hook


class Hooked:
    """What runs the hooks around a module's ``forward``; a base class of Module."""

    _pre_hooks: OrderedDict[int, Any]
    _hooks: OrderedDict[int, Any]
    _backward_hooks: OrderedDict[int, Any]
    _backward_pre_hooks: OrderedDict[int, Any]
    forward: Callable[..., Any]

    def _call_with_hooks(self, args: tuple, kwargs: dict) -> Any:
        for hook, with_kwargs in [*_everywhere("pre"), *self._pre_hooks.values()]:
            changed = hook(self, args, kwargs) if with_kwargs else hook(self, args)
            if changed is None:
                continue
            if with_kwargs:
                args, kwargs = changed
            else:
                args = changed if isinstance(changed, tuple) else (changed,)
        backward = BackwardHooks(
            self,
            [*_everywhere("backward_pre"), *self._backward_pre_hooks.values()],
            [*_everywhere("backward"), *self._backward_hooks.values()],
        )
        watched = bool(backward.pre or backward.post)
        result = self.forward(*(backward.inputs(args) if watched else args), **kwargs)
        for hook, with_kwargs in [*_everywhere("forward"), *self._hooks.values()]:
            given = (args, kwargs, result) if with_kwargs else (args, result)
            changed = hook(self, *given)
            result = result if changed is None else changed
        return backward.outputs(result) if watched else result

    def register_forward_pre_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(module, args)`` before ``forward``; it may return other arguments."""
        return register(self._pre_hooks, (hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(module, args, output)`` after ``forward``; it may return another output."""
        return register(self._hooks, (hook, with_kwargs), prepend)

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Calls ``hook(module, grad_input, grad_output)`` once the inputs' gradients are known."""
        return register(self._backward_hooks, hook, prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable, prepend: bool = False
    ) -> RemovableHandle:
        """Calls ``hook(module, grad_output)`` before the module's own gradients are computed."""
        return register(self._backward_pre_hooks, hook, prepend)

    register_backward_hook = register_full_backward_hook
