"""Checks of derivatives against finite differences.

Complex numbers count as pairs of real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracecc.state import no_grad
from tracecc.tensor import Tensor, wrap
from tracecc_ir.interpret import evaluate
from tracecc_ir.ops import view_as_real
from tracecc_ir.ops.rules import draw

__all__ = ["gradcheck", "gradgradcheck"]


def _as_tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _outputs(func: Callable, inputs: tuple) -> list[Tensor]:
    results = _as_tuple(func(*inputs))
    return [y for y in results if isinstance(y, Tensor) and y.dtype.is_inexact]


def _numbers(t: Tensor) -> np.ndarray:
    """The elements in one row of float64."""
    flat = np.ascontiguousarray(t.detach()._numpy()).reshape(-1)
    return flat.view(t.dtype.to_real().numpy).astype(np.float64)


@no_grad()
def _numeric(func: Callable, inputs: tuple, x: Tensor, eps: float) -> list[np.ndarray]:
    """For every output the central differences [elements of x, elements of the output]."""
    memory = x.detach()._numpy()
    memory = evaluate(view_as_real, [memory], {})[0] if x.dtype.is_complex else memory
    rows: list[list[np.ndarray]] = []
    for at in np.ndindex(memory.shape):
        kept = memory[at]
        ends = []
        for side in (eps, -eps):
            memory[at] = kept + side
            ends.append([_numbers(y).copy() for y in _outputs(func, inputs)])
        memory[at] = kept
        rows.append([(a - b) / (2 * eps) for a, b in zip(*ends, strict=True)])
    return [np.stack(column) for column in zip(*rows, strict=True)]


def _analytic(y: Tensor, wanted: list[Tensor]) -> list[np.ndarray]:
    """For every wanted input the gradients [elements of it, elements of y]."""
    from tracecc.autograd import grad

    columns: list[list[np.ndarray]] = [[] for _ in wanted]
    for i in range(_numbers(y).size):
        seed = np.zeros(tuple(y.shape), y.dtype.numpy)
        seed.reshape(-1).view(y.dtype.to_real().numpy)[i] = 1
        seeds = wrap(seed)
        found = grad(y, wanted, seeds, retain_graph=True, allow_unused=True)
        for column, g, x in zip(columns, found, wanted, strict=True):
            column.append(np.zeros(_numbers(x).size) if g is None else _numbers(g))
    return [np.stack(c, 1) for c in columns]


def gradcheck(
    func: Callable,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    **options: Any,
) -> bool:
    """Whether the gradients of ``func`` agree with finite differences.

    Args:
        func: a function of tensors.
        inputs: its arguments; those that require grad are checked and should be float64 or
            complex128.
        eps: the step of the differences.
        atol, rtol: how close the two must be.
        raise_exception: raise rather than return False.
    """
    given = _as_tuple(inputs)
    wanted = [t for t in given if isinstance(t, Tensor) and t.requires_grad]
    if not wanted:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of "
            "them have requires_grad=True."
        )
    outputs = _outputs(func, given)
    numeric = [_numeric(func, given, x, eps) for x in wanted]
    for o, y in enumerate(outputs):
        if not y.requires_grad:
            continue
        for i, (a, n) in enumerate(zip(_analytic(y, wanted), (n[o] for n in numeric), strict=True)):
            if not np.allclose(n, a, rtol, atol, equal_nan=True):
                if not raise_exception:
                    return False
                raise RuntimeError(
                    f"Jacobian mismatch for output {o} with respect to input {i},\n"
                    f"numerical:{n}\nanalytical:{a}"
                )
    return True


def gradgradcheck(
    func: Callable, inputs: Any, grad_outputs: Any = None, *, seed: int = 0, **options: Any
) -> bool:
    """Whether the second derivatives of ``func`` agree with finite differences."""
    from tracecc.autograd import grad

    given = _as_tuple(inputs)
    outputs = _outputs(func, given)
    rng = np.random.default_rng(seed)
    if grad_outputs is None:
        grad_outputs = [wrap(draw(rng, y.dtype, *y.shape)) for y in outputs]
    gs = [g if g.requires_grad else g.detach().requires_grad_() for g in _as_tuple(grad_outputs)]

    def first(*args: Any) -> tuple:
        xs, seeds = args[: len(given)], args[len(given) :]
        pairs = [(y, g) for y, g in zip(_outputs(func, xs), seeds, strict=True) if y.requires_grad]
        wanted = [t for t in xs if isinstance(t, Tensor) and t.requires_grad]
        ys, live = zip(*pairs, strict=True)
        found = grad(ys, wanted, live, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    def recorded(*args: Any) -> tuple:
        from tracecc.state import enable_grad

        with enable_grad():
            return first(*args)

    return gradcheck(recorded, (*given, *gs), **options)
