"""What the generated op tests compare with: finite differences on arrays, and PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracecc_ir.op import Attrs, Expr, Op
from tracecc_ir.types import TensorType, type_of_array


class ArrayEmitter:
    """Runs op references at once: the smallest emitter there is."""

    def emit(self, op: Op, inputs: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
        assert op.reference is not None
        result = op.reference(*inputs, **op.bind(attrs))
        return result if isinstance(result, tuple) else (result,)

    def type_of(self, value: np.ndarray) -> TensorType:
        return type_of_array(value)


ARRAYS = ArrayEmitter()


def exprs(arrays: Sequence[np.ndarray]) -> list[Expr]:
    return [Expr(a, ARRAYS) for a in arrays]


def run(op: Op, arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    return ARRAYS.emit(op, arrays, attrs)


def differentiable(op: Op, arrays: Sequence[np.ndarray], attrs: Attrs) -> list[int]:
    """The float operands that the op's rule gives a gradient for."""
    floats = [i for i, a in enumerate(arrays) if a.dtype == np.float64]
    if isinstance(op.vjp, tuple):
        return [i for i in floats if op.vjp[i] is not None]
    return floats


def gradient(
    op: Op, arrays: Sequence[np.ndarray], attrs: Attrs, cotangents: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The gradients of the differentiable operands by the op's own rule, run on arrays."""
    attrs = op.bind(attrs)
    operands = exprs(arrays)
    outs = exprs(run(op, arrays, attrs))
    wrt = differentiable(op, arrays, attrs)
    wanted = [i in wrt for i in range(len(arrays))]
    found = op.gradients(wanted, exprs(cotangents), outs, operands, attrs)
    return [np.zeros_like(arrays[i]) if found[i] is None else found[i].value for i in wrt]


def slope(f: Callable[[float], np.ndarray], h: float = 1e-5) -> np.ndarray:
    """df/dt at 0 by fourth-order central differences."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def _symmetric(x: np.ndarray) -> np.ndarray:
    return x + x.swapaxes(-1, -2)


# Ops that are defined on a part of all arrays only: directions must stay inside it.
DIRECTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"cholesky": _symmetric}


def directions(
    rng: np.random.Generator, op: Op, arrays: Sequence[np.ndarray], wrt: Sequence[int]
) -> list[Any]:
    """A random direction for each operand, zero for those that are held fixed."""
    restrict = DIRECTIONS.get(op.name, lambda x: x)
    return [restrict(rng.standard_normal(a.shape)) if i in wrt else 0 for i, a in enumerate(arrays)]
