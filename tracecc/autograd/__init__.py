"""Automatic differentiation: `grad`, `backward`, custom `Function`s, grad modes."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

from tracecc.autograd.check import gradcheck, gradgradcheck
from tracecc.autograd.function import Function, FunctionCtx
from tracecc.autograd.tape import anomaly
from tracecc.autograd.walk import backward_pass
from tracecc.dispatch import apply
from tracecc.lacking import unknown
from tracecc.state import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from tracecc.tensor import Tensor
from tracecc_ir.ops import constant

__all__ = [
    "Function",
    "FunctionCtx",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]

Tensors = Tensor | Sequence[Tensor]


def backward(
    tensors: Tensors,
    grad_tensors: Tensors | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensors | None = None,
) -> None:
    """Accumulates the gradients of ``tensors`` into the ``grad`` of the leaves they come from.

    Args:
        tensors: what to differentiate; 0-d unless ``grad_tensors`` is given.
        grad_tensors: the gradient of each of ``tensors``, of the same shape.
        retain_graph: keep what is needed to run backward again; defaults to ``create_graph``.
        create_graph: record the backward pass itself, for higher derivatives.
        inputs: accumulate into these leaves only.

    Raises:
        RuntimeError: a tensor that does not require grad, or is not a scalar and has no gradient.
    """
    roots = _tuple(tensors)
    seeds = _seeds(roots, grad_tensors)
    retain = create_graph if retain_graph is None else retain_graph
    if inputs is None:
        backward_pass(roots, seeds, None, retain, create_graph)
        return
    leaves = _tuple(inputs)
    found = backward_pass(roots, seeds, leaves, retain, create_graph)
    for leaf, g in zip(leaves, found or (), strict=True):
        if g is not None:
            leaf.grad = g if leaf.grad is None else leaf.grad + g  # type: ignore[operator]


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Tensors | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``; no ``grad`` attribute changes.

    >>> import tracecc as tc
    >>> x = tc.tensor(3.0, requires_grad=True)
    >>> (dx,) = tc.autograd.grad(x * x * x, x, create_graph=True)
    >>> tc.autograd.grad(dx, x)
    (tensor(18.),)
    """
    roots, wanted = _tuple(outputs), _tuple(inputs)
    for i, t in enumerate(wanted):
        if not t._requires_grad:
            raise RuntimeError(
                f"One of the differentiated Tensors does not require grad: inputs[{i}]; "
                "call requires_grad_() on it before using it"
            )
    retain = create_graph if retain_graph is None else retain_graph
    found = backward_pass(roots, _seeds(roots, grad_outputs), wanted, retain, create_graph)
    assert found is not None
    for i, g in enumerate(found):
        if g is None and materialize_grads:
            found[i] = _filled(wanted[i], 0.0)
        elif g is None and not allow_unused:
            raise RuntimeError(
                "One of the differentiated Tensors appears to not have been used in the graph: "
                f"inputs[{i}]. Set allow_unused=True if this is the desired behavior."
            )
    return tuple(found)


class set_detect_anomaly:
    """Sets whether backward refuses NaN and names the user's line of the forward op.

    Acts at once; as a context manager, restores the mode on exit.
    """

    def __init__(self, mode: bool = True, check_nan: bool = True):
        self._before, anomaly.enabled = anomaly.enabled, bool(mode)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        anomaly.enabled = self._before


class detect_anomaly(set_detect_anomaly):
    """A context manager: inside, backward refuses NaN and names the user's forward line."""

    def __init__(self, check_nan: bool = True):
        super().__init__(True, check_nan)


def __getattr__(name: str) -> Any:
    if name == "functional":
        return importlib.import_module("tracecc.autograd.functional")
    raise unknown(__name__, name)


def _tuple(x: Tensors) -> tuple[Tensor, ...]:
    if isinstance(x, Tensor):
        return (x,)
    if not isinstance(x, Iterable):
        raise TypeError(f"expected a Tensor or several Tensors, given {type(x).__name__}")
    return tuple(x)


def _filled(like: Tensor, value: float) -> Tensor:
    (t,) = apply(constant, (), {"value": value, "shape": like._type.shape, "dtype": like.dtype})
    return t


def _seeds(roots: tuple[Tensor, ...], given: Any) -> list[Tensor]:
    gs = (None,) * len(roots) if given is None else _tuple(given)
    if len(gs) != len(roots):
        raise RuntimeError(f"got {len(roots)} tensors and {len(gs)} gradients")
    seeds = []
    for i, (root, g) in enumerate(zip(roots, gs, strict=True)):
        if not root._requires_grad:
            raise RuntimeError(
                f"element {i} of tensors does not require grad and does not have a grad_fn"
            )
        if g is None:
            if root._type.size != 1:
                raise RuntimeError(
                    "grad can be implicitly created only for scalar outputs, given "
                    f"{list(root._type.shape)}; pass the gradient or reduce it first"
                )
            if root.dtype.is_complex:
                raise RuntimeError(
                    "grad can be implicitly created only for real scalar outputs but got "
                    f"{root.dtype.public}"
                )
            g = _filled(root, 1.0)
        elif g._type.shape != root._type.shape:
            raise RuntimeError(
                f"Mismatch in shape: grad_output has a shape of {list(g._type.shape)} and "
                f"output has a shape of {list(root._type.shape)}."
            )
        seeds.append(g)
    return seeds
