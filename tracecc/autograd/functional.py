"""Jacobians, Hessians and products with them; PyTorch's ``autograd.functional``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tracecc as tc
from tracecc import func as transforms
from tracecc.lacking import unknown

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


def _tupled(inputs: Any) -> tuple:
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)


def _like(result: Any, inputs: Any) -> Any:
    return result if isinstance(inputs, (tuple, list)) else result[0]


def _kept(value: Any, create_graph: bool) -> Any:
    if isinstance(value, tuple):
        return tuple(_kept(v, create_graph) for v in value)
    return value if create_graph else value.detach()


def jacobian(
    func: Callable, inputs: Any, create_graph: bool = False, strict: bool = False, **options: Any
) -> Any:
    """The derivative of every output by every input: shape of the output + of the input."""
    xs = _tupled(inputs)
    found = transforms.jacrev(func, tuple(range(len(xs))))(*xs)
    if found and isinstance(found[0], tuple):
        return _kept(tuple(_like(row, inputs) for row in found), create_graph)
    return _kept(_like(found, inputs), create_graph)


def hessian(
    func: Callable, inputs: Any, create_graph: bool = False, strict: bool = False, **options: Any
) -> Any:
    """The second derivatives of a scalar function."""
    xs = _tupled(inputs)
    found = transforms.hessian(func, tuple(range(len(xs))))(*xs)
    return _kept(tuple(_like(row, inputs) for row in found), create_graph) if isinstance(
        inputs, (tuple, list)
    ) else _kept(found[0][0], create_graph)  # fmt: skip


def vjp(
    func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The outputs, and ``v`` times the Jacobian."""
    value, pull_back = transforms.vjp(func, *_tupled(inputs))
    found = pull_back(tc.ones_like(value) if v is None else v)
    return _kept(value, create_graph), _kept(_like(found, inputs), create_graph)


def jvp(
    func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The outputs, and the Jacobian times ``v``."""
    xs = _tupled(inputs)
    along = tuple(tc.ones_like(x) for x in xs) if v is None else _tupled(v)
    value, found = transforms.jvp(func, xs, along)
    return _kept(value, create_graph), _kept(found, create_graph)


def vhp(
    func: Callable, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value of a scalar function, and ``v`` times its Hessian."""
    xs = _tupled(inputs)
    gradient = transforms.grad(func, tuple(range(len(xs))))
    _, pull_back = transforms.vjp(gradient, *xs)
    along = tuple(tc.ones_like(x) for x in xs) if v is None else _tupled(v)
    return _kept(func(*xs), create_graph), _kept(_like(pull_back(along), inputs), create_graph)


hvp = vhp


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
