"""The tape: one node per recorded op."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracecc.eager import derivative
from tracecc.eager import emitter as array_emitter
from tracecc.state import thread
from tracecc.tensor import Tensor, handle, wrap
from tracecc_ir.op import Attrs, Expr, Op
from tracecc_ir.ops import vjp as vjp_op
from tracecc_ir.types import TensorType

if TYPE_CHECKING:
    from tracecc_ir.op import Emitter

Edge = tuple[Any, int]  # where a gradient goes: a node and which of its outputs, or (leaf, 0)
_sequence = itertools.count()


class Saved:
    """A tensor as it was when an op used it: unpacking refuses if it was overwritten since."""

    __slots__ = ("_hold", "version")

    def __init__(self, t: Tensor, keep_history: bool):
        self.version = t._storage.version
        if keep_history and t._requires_grad and t._grad_fn is None:
            self._hold = t  # a leaf: its identity is where gradients go
            return
        h = handle(t)
        if thread.trace is not None:
            h = thread.trace.snapshot(t)
        if keep_history:
            h._requires_grad, h._grad_fn = t._requires_grad, t.grad_fn
            h._output_index = t._output_index
        self._hold = h

    @property
    def type(self) -> TensorType:
        return self._hold._type

    @property
    def array(self) -> np.ndarray:
        """The memory, whether it was overwritten or not."""
        array = self._hold._array
        return self._hold._numpy() if array is None else array

    def check(self, node: TapeNode) -> None:
        """Refuses memory that was overwritten since ``node`` used it."""
        t = self._hold
        if t._array is not None and t._storage.version != self.version and thread.trace is None:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                f"inplace operation: {t._type!r}, an operand or result of {node.name()}, is at "
                f"version {t._storage.version}; expected version {self.version} instead. "
                f"It was recorded at {node.where or 'an unknown line'}"
            )

    def unpack(self, node: TapeNode, index: int | None = None) -> Tensor:
        """The tensor; ``index`` makes it output ``index`` of ``node`` (apart, to avoid a cycle)."""
        self.check(node)
        t = self._hold
        if index is not None:
            t = handle(t) if thread.trace is None else thread.trace.snapshot(t)
            t._requires_grad, t._grad_fn, t._output_index = True, node, index
        return t


class _SavedExpr(Expr):
    """An operand of a derivative rule; its memory is looked at only if the rule uses its value."""

    __slots__ = ("_get",)

    def __init__(self, type: TensorType, emitter: Emitter, get: Callable[[], Tensor]):
        self.type, self.emitter, self._get = type, emitter, get

    @property
    def value(self) -> Tensor:  # type: ignore[override]
        return self._get()


class SavedArray(Expr):
    """An operand of a derivative rule that runs on arrays; refused if it was overwritten."""

    __slots__ = ("_node", "_saved")

    def __init__(self, saved: Saved, node: TapeNode):
        self.type, self.emitter = saved._hold._type, array_emitter
        self._saved, self._node = saved, node

    @property
    def value(self) -> np.ndarray:  # type: ignore[override]
        self._saved.check(self._node)
        return self._saved.array


class TapeNode:
    """What made a tensor: where gradients go on from it.

    Attributes:
        edges: for each operand, (the node or leaf its gradient goes to, which output), or None.
        types: the types of the node's outputs.
        fresh: whether the gradients that it gave last are in memory of their own.
    """

    __slots__ = ("__weakref__", "edges", "fresh", "hooks", "retained", "sequence", "types", "where")

    def __init__(self, inputs: Sequence[Tensor], types: Sequence[TensorType]):
        self.sequence = next(_sequence)
        self.edges = [edge(t) for t in inputs]
        self.types = tuple(types)
        self.hooks: dict[int, list[Callable]] | None = None
        self.retained: dict[int, Tensor] | None = None
        self.where = ""
        self.fresh = False

    def name(self) -> str:
        return type(self).__name__

    @property
    def next_functions(self) -> tuple:
        return tuple(e if e is not None else (None, 0) for e in self.edges)

    def apply(self, gs: list[Tensor | None], wanted: list[bool], keep: bool) -> list[Tensor | None]:
        """Gradients of the operands given those of the outputs; ``keep``: may run again later."""
        raise RuntimeError(f"{self.name()} cannot run backward")

    def __repr__(self) -> str:
        return f"<{self.name()}>"


class OpNode(TapeNode):
    """The record of one op of the table; its derivative is the op's own rule."""

    __slots__ = ("attrs", "inputs", "op", "outputs")

    def __init__(
        self, op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor], attrs: Attrs
    ) -> None:
        super().__init__(inputs, [t._type for t in outputs])
        self.op, self.attrs = op, attrs
        self.inputs: list[Saved] | None = [Saved(t, True) for t in inputs]
        self.outputs: list[Saved] = [Saved(t, False) for t in outputs]

    def name(self) -> str:
        return "".join(part.capitalize() for part in self.op.name.split("_")) + "Backward0"

    def apply(self, gs: list[Tensor | None], wanted: list[bool], keep: bool) -> list[Tensor | None]:
        inputs, outputs = self.inputs, self.outputs
        if inputs is None:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved "
                "tensors after they have already been freed). Specify retain_graph=True if you "
                "need to backward through the graph a second time"
            )
        if not keep:
            self.inputs, self.outputs = None, []
        if not thread.grad_enabled and thread.trace is None:
            return self._evaluate(inputs, outputs, gs, wanted)
        g_tensors = [_zeros(t) if g is None else g for g, t in zip(gs, self.types, strict=True)]
        if not thread.grad_enabled:
            return self._symbolic(inputs, outputs, g_tensors, wanted)
        em = dispatch_emitter()
        xs = [_SavedExpr(s.type, em, lambda s=s: s.unpack(self)) for s in inputs]  # type: ignore[misc]
        ys = [
            _SavedExpr(s.type, em, lambda s=s, i=i: s.unpack(self, i))  # type: ignore[misc]
            for i, s in enumerate(outputs)
        ]
        found = self.op.gradients(wanted, [Expr(g, em) for g in g_tensors], ys, xs, self.attrs)
        return [None if f is None else f.value for f in found]

    def _evaluate(
        self,
        inputs: list[Saved],
        outputs: list[Saved],
        gs: list[Tensor | None],
        wanted: list[bool],
    ) -> list[Tensor | None]:
        """The derivative on arrays, as nothing of it is recorded: by one kernel if it is heavy."""
        op, attrs = self.op, self.attrs
        saved = [*inputs, *outputs]
        cotangents = [None if g is None else g._array for g in gs]
        memory = [*[s.array for s in saved], *cotangents]
        prepared = derivative(op, attrs, wanted, memory, (len(inputs), len(outputs)))
        if prepared is not None:
            compute, used, operands, self.fresh = prepared
            for i in used:
                if i < len(saved):
                    saved[i].check(self)
            found: list[Tensor | None] = [None] * len(inputs)
            for i, array in zip(operands, compute(), strict=True):
                found[i] = self._passed(array, gs)
            return found
        arrays = [
            np.broadcast_to(np.zeros((), t.dtype.numpy), t.sizes) if c is None else c
            for c, t in zip(cotangents, self.types, strict=True)
        ]
        rule = op.gradients(
            wanted,
            [Expr(a, array_emitter) for a in arrays],
            [SavedArray(s, self) for s in outputs],
            [SavedArray(s, self) for s in inputs],
            attrs,
        )
        return [None if f is None else self._passed(f.value, gs) for f in rule]

    @staticmethod
    def _passed(array: np.ndarray, gs: list[Tensor | None]) -> Tensor:
        """A gradient as a tensor: the cotangent itself where the rule hands it on."""
        for g in gs:
            if g is not None and g._array is array:
                return g
        return wrap(np.asarray(array))

    def _symbolic(
        self,
        inputs: list[Saved],
        outputs: list[Saved],
        gs: list[Tensor],
        wanted: list[bool],
    ) -> list[Tensor | None]:
        """Under a trace: one `vjp` node, which the grad pass opens later."""
        wrt = tuple(i for i, w in enumerate(wanted) if w)
        operands = [s.unpack(self) for s in (*inputs, *outputs)] + gs
        attrs = {"of": self.op.name, "attrs": tuple(self.attrs.items()), "wrt": wrt}
        assert thread.trace is not None
        found = iter(thread.trace.emit(vjp_op, operands, attrs, where=self.where))
        return [next(found) if w else None for w in wanted]


def dispatch_emitter() -> Any:
    from tracecc.dispatch import emitter

    return emitter


def edge(t: Tensor) -> Edge | None:
    """Where the gradient of ``t`` goes: its node, or itself if it is a leaf."""
    if not t._requires_grad:
        return None
    node = t.grad_fn
    return (t, 0) if node is None else (node, t._output_index)


def record(op: Op, inputs: Sequence[Tensor], outputs: Sequence[Tensor], attrs: Attrs) -> None:
    """Makes ``outputs`` remember that ``op`` made them."""
    if not any(t._type.dtype.is_inexact for t in outputs):
        return
    attach(OpNode(op, inputs, outputs, attrs), outputs)


def attach(node: TapeNode, outputs: Sequence[Tensor]) -> None:
    """Sets ``node`` as the history of ``outputs``."""
    if thread.trace is not None:
        node.where = thread.trace.location()
    elif anomaly.enabled:
        node.where = anomaly.location()
    for i, t in enumerate(outputs):
        if t._type.dtype.is_inexact:
            t._grad_fn, t._output_index, t._requires_grad = node, i, True


def _zeros(t: TensorType) -> Tensor:
    from tracecc.dispatch import apply
    from tracecc_ir.ops import constant

    return apply(constant, (), {"value": 0.0, "shape": t.shape, "dtype": t.dtype})[0]


class _Anomaly:
    """Whether nodes remember the user's line (``autograd.set_detect_anomaly``)."""

    enabled = False

    @staticmethod
    def location() -> str:
        from tracecc.trace.location import user_location

        return str(user_location())

    @staticmethod
    def check(node: TapeNode, results: Sequence[Any]) -> None:
        """Refuses gradients that are not numbers, naming the forward line."""
        for i, g in enumerate(results):
            if g is not None and g._type.dtype.is_inexact and (g != g).any():
                raise RuntimeError(
                    f"Function '{node.name()}' returned nan values in its {i}th output. "
                    f"It was recorded at {node.where or 'an unknown line'}"
                )


anomaly = _Anomaly()
