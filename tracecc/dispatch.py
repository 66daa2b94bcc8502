"""The one door: every tensor operation goes through `apply`: traced or evaluated, then recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracecc.autograd.tape import record
from tracecc.eager import contiguous, evaluate
from tracecc.state import thread
from tracecc.tensor import Tensor, wrap
from tracecc_ir.op import Attrs, Expr, Op
from tracecc_ir.types import TensorType


def apply(op: Op, inputs: Sequence[Tensor], attrs: Attrs | None = None) -> tuple[Tensor, ...]:
    """Runs one op on tensors of exactly the types its rule wants.

    Under a trace this appends a node; otherwise it evaluates now. Either way the tape records it if
    gradients flow. Results of movement ops may alias their inputs: functions that users call
    return them through `view` or `own`.
    """
    trace = thread.trace
    attrs = op.bind(attrs or {})
    if trace is None:
        outputs = _evaluate(op, inputs, attrs)
    else:
        _check(op, inputs)
        outputs = trace.emit(op, inputs, attrs)
    if thread.grad_enabled and op.differentiable:
        for t in inputs:
            if t._requires_grad:
                record(op, inputs, outputs, attrs)
                break
    return outputs


def _check(op: Op, inputs: Sequence[Tensor]) -> None:
    for t in inputs:
        if not isinstance(t, Tensor):
            raise TypeError(f"{op.name}() expects Tensors, given {type(t).__name__}")


def _evaluate(op: Op, inputs: Sequence[Tensor], attrs: Attrs) -> tuple[Tensor, ...]:
    try:
        types = op.result_types([t._type for t in inputs], attrs)
        arrays = [t._array if t._array is not None else t._numpy() for t in inputs]
    except AttributeError:
        _check(op, inputs)
        raise
    made = evaluate(op, arrays, attrs)
    if len(made) == 1:
        return (wrap(np.asarray(made[0]), types[0]),)
    return tuple([wrap(np.asarray(a), t) for a, t in zip(made, types, strict=True)])


class TensorEmitter:
    """Runs op rules (derivatives, decompositions) on tensors."""

    def emit(self, op: Op, inputs: Sequence[Tensor], attrs: Attrs) -> tuple[Tensor, ...]:
        return apply(op, inputs, attrs)

    def type_of(self, value: Tensor) -> TensorType:
        return value._type


emitter = TensorEmitter()


def expr(t: Tensor) -> Expr:
    """A tensor as an operand of op rules: ``softmax(expr(x), axis=1).value``."""
    return Expr(t, emitter)


def own(t: Tensor) -> Tensor:
    """``t`` in memory of its own: a copy if its array may alias another tensor's."""
    array = t._array
    if array is None or not (isinstance(array.base, np.ndarray) or not array.flags.writeable):
        return t
    t._array = contiguous(array)
    t._storage.array = t._array
    return t


def constant(op: Op, attrs: dict[str, Any]) -> Tensor:
    """Runs an op that takes no operands."""
    (t,) = apply(op, (), attrs)
    return own(t)
