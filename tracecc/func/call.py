"""Calling a module with other parameters than its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tracecc as tc
from tracecc.nn.modules.module import Module
from tracecc.tensor import Tensor

Named = dict[str, Tensor]


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Named | Sequence[Named],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """``module(*args, **kwargs)`` with parameters and buffers replaced by name.

    Args:
        module: what to call; unchanged afterwards.
        parameter_and_buffer_dicts: dotted names to tensors; or several such dicts.
        args: one argument, or a tuple of them.
        kwargs: keyword arguments.
        tie_weights: also replace a parameter under its other names.
        strict: raise if the names are not exactly the module's.
    """
    dicts = parameter_and_buffer_dicts
    given: Named = {}
    for d in [dicts] if isinstance(dicts, dict) else dicts:
        if given.keys() & d.keys():
            raise ValueError(f"{sorted(given.keys() & d.keys())} appear in more than one dict")
        given.update(d)
    own = dict(module.named_parameters(remove_duplicate=False))
    every: dict[str, Tensor] = {**own, **dict(module.named_buffers(remove_duplicate=False))}
    if strict and every.keys() != given.keys():
        missing, unexpected = every.keys() - given.keys(), given.keys() - every.keys()
        raise RuntimeError(
            f"Missing key(s): {sorted(missing)}. Unexpected key(s): {sorted(unexpected)}."
        )
    if tie_weights:
        by_tensor = {id(every[n]): t for n, t in given.items() if n in every}
        given = {**{n: by_tensor[id(t)] for n, t in every.items() if id(t) in by_tensor}, **given}
    with _replaced(module, {name: t for name, t in given.items() if name in every}):
        if args is None:
            args = ()
        return module(*(args if isinstance(args, tuple) else (args,)), **(kwargs or {}))


@contextmanager
def _replaced(module: Module, tensors: Named) -> Iterator[None]:
    before: list[tuple[dict, str, Any]] = []
    touched: list[Module] = []
    try:
        for name, t in tensors.items():
            path, _, last = name.rpartition(".")
            owner = module.get_submodule(path)
            table: Any = owner._parameters if last in owner._parameters else owner._buffers
            before.append((table, last, table[last]))
            table[last] = t
            if not owner.__dict__.get("_replaced"):
                object.__setattr__(owner, "_replaced", True)
                touched.append(owner)
        yield
    finally:
        for table, last, old in reversed(before):
            table[last] = old
        for owner in touched:
            object.__delattr__(owner, "_replaced")


def stack_module_state(models: Sequence[Module]) -> tuple[Named, Named]:
    """The parameters and the buffers of several equal models, stacked by name."""
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    params = {
        name: tc.stack([m.get_parameter(name).detach() for m in models]).requires_grad_()
        for name, _ in models[0].named_parameters()
    }
    buffers = {
        name: tc.stack([m.get_buffer(name) for m in models])
        for name, _ in models[0].named_buffers()
    }
    return params, buffers


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Makes every batch normalisation in ``root`` forget its running statistics, in place."""
    for module in root.modules():
        if hasattr(module, "track_running_stats") and hasattr(module, "running_mean"):
            module.track_running_stats = False
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                if name in module._buffers:
                    setattr(module, name, None)
    return root
