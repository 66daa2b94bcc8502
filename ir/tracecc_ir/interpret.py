"""The oracle: runs any graph, before or after any pass, one op at a time on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracecc_ir.errors import IRError
from tracecc_ir.graph import Graph, Value, bind_sizes, specialize
from tracecc_ir.op import Attrs, Expr, Op
from tracecc_ir.types import TensorType, type_of_array

Arrays = Sequence[np.ndarray]


def interpret(
    graph: Graph, inputs: Arrays, state: Arrays = ()
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Runs a graph; nothing is written, so updates are returned.

    Args:
        graph: may have symbolic sizes, which are read off the arrays.
        inputs: one array per input, of its type.
        state: one array per state.

    Returns:
        The outputs, and the new values of the updated states in the order of ``graph.updates``.

    Raises:
        TypeRuleError: an array does not have its parameter's type.
    """
    sizes = bind_sizes(graph, [*inputs, *state])
    results = _run(specialize(graph, sizes) if sizes else graph, [*inputs, *state])
    return results[: len(graph.outputs)], results[len(graph.outputs) :]


def _run(graph: Graph, arguments: Arrays) -> list[np.ndarray]:
    values = dict(zip(graph.parameters(), arguments, strict=True))
    for node in graph.nodes:
        made = evaluate(node.op, [values[v] for v in node.inputs], node.attrs)
        for value, array in zip(node.outputs, made, strict=True):
            if type_of_array(array) != value.type:
                raise IRError(
                    f"{node.op.name} computed an array of {type_of_array(array)} for {value}"
                )
            values[value] = array
    return [values[v] for v in graph.results()]


class Program:
    """A graph as NumPy calls in order, for running it many times on arrays of its own types.

    Constants are computed once. Results may be views of the arguments, and may be read-only.

    Attributes:
        used: the positions of the arguments that are read.
    """

    def __init__(self, graph: Graph):
        slots: dict[Value, int] = {v: i for i, v in enumerate(graph.parameters())}
        self._arguments = len(slots)
        self._constants: list[np.ndarray] = []
        self._steps: list[tuple[Callable[..., Any], Attrs, list[int], bool]] = []
        for node in graph.nodes:
            if not node.inputs:
                for v, a in zip(node.outputs, evaluate(node.op, (), node.attrs), strict=True):
                    slots[v] = self._arguments + len(self._constants)
                    self._constants.append(a)
        for node in graph.nodes:
            if node.inputs:
                reads = [slots[v] for v in node.inputs]
                for v in node.outputs:
                    slots[v] = len(slots)
                self._steps.append((*_call(node.op, node.attrs), reads, len(node.outputs) == 1))
        self._results = [slots[v] for v in graph.results()]
        read = {i for step in self._steps for i in step[2]} | set(self._results)
        self.used = tuple(i for i in range(self._arguments) if i in read)

    def __call__(self, arrays: Arrays) -> list[np.ndarray]:
        """The outputs and updates; ``arrays`` has one array per parameter."""
        values: list[Any] = [*arrays, *self._constants]
        for function, attrs, reads, single in self._steps:
            made = function(*[values[i] for i in reads], **attrs)
            if single:
                values.append(made[0] if made.__class__ is tuple else made)
            else:
                values.extend(made)
        return [np.asarray(values[i]) for i in self._results]


def _call(op: Op, attrs: Attrs) -> tuple[Callable[..., Any], Attrs]:
    """What computes an op on arrays, and its keyword arguments."""
    if op.reference is not None:
        return op.reference, attrs
    return lambda *arrays: evaluate(op, arrays, attrs), {}


class NumpyEmitter:
    """Evaluates ops at once on arrays; constants are strided views of one number."""

    def emit(self, op: Op, inputs: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
        return evaluate(op, inputs, attrs)

    def type_of(self, value: np.ndarray) -> TensorType:
        return type_of_array(value)


EMITTER = NumpyEmitter()


def evaluate(op: Op, arrays: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    """Runs one op on arrays: by its reference, its regions or its decomposition.

    Results may be views of the operands, and may be read-only.
    """
    if op.name == "constant":
        number = np.asarray(attrs["value"]).astype(attrs["dtype"].numpy)
        return (_repeated(number, attrs["shape"]),)
    if op.reference is not None:
        result = op.reference(*arrays, **attrs)
        return result if isinstance(result, tuple) else (result,)
    if op.name in CONTROL:
        return tuple(CONTROL[op.name](arrays, **attrs))
    if op.decomposition is None:
        raise IRError(f"{op.name} has no reference and no decomposition, so it cannot be evaluated")
    made = op.decomposition(*(Expr(a, EMITTER) for a in arrays), **attrs)
    return tuple(e.value for e in (made if isinstance(made, tuple) else (made,)))


def _repeated(number: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A read-only array that is one number everywhere."""
    if number.dtype.kind == "V":  # bfloat16, which has no buffer
        return np.broadcast_to(number, shape)
    made: np.ndarray = np.ndarray(shape, number.dtype, number.data, 0, (0,) * len(shape))
    made.flags.writeable = False
    return made


def _cond(arrays: Arrays, then: Graph, otherwise: Graph) -> list[np.ndarray]:
    return _run(then if bool(arrays[0]) else otherwise, arrays[1:])


def _while(arrays: Arrays, condition: Graph, body: Graph) -> Arrays:
    while bool(_run(condition, arrays)[0]):
        arrays = _run(body, arrays)
    return arrays


def _scan(
    arrays: Arrays, body: Graph, consts: int, carries: int, length: int, reverse: bool
) -> list[np.ndarray]:
    fixed, xs = list(arrays[:consts]), arrays[consts + carries :]
    carry = list(arrays[consts : consts + carries])
    ys = [np.zeros((length, *v.shape), v.dtype.numpy) for v in body.outputs[carries:]]
    for i in reversed(range(length)) if reverse else range(length):
        made = _run(body, [*fixed, *carry, *(np.asarray(x[i]) for x in xs)])
        carry = made[:carries]
        for y, row in zip(ys, made[carries:], strict=True):
            y[i] = row
    return [*carry, *ys]


CONTROL: dict[str, Callable[..., Any]] = {
    "call": lambda arrays, body: _run(body, arrays),
    "kernel": lambda arrays, body, name, kind: _run(body, arrays),
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}
