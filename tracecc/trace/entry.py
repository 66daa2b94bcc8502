"""One compiled signature: how a call's arguments, state and results meet its executable."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracecc.autograd.tape import TapeNode, attach
from tracecc.backends import Executable
from tracecc.pytree import LEAF, unflatten
from tracecc.state import epoch, thread
from tracecc.tensor import Tensor, wrap
from tracecc.trace import read
from tracecc.trace.again import Operands, gradient_body, gradients
from tracecc.trace.capture import Capture, GradEffect, Result
from tracecc.trace.stages import Stages
from tracecc.views import view
from tracecc_ir.graph import Graph
from tracecc_ir.types import TensorType


@dataclass
class Entry:
    """A graph, its executables and the conditions under which they may be used.

    Attributes:
        stages: the graph after each named stage of the pipeline.
        forward: computes the results and updates.
        backward: for a differentiable call, gradients from saved values and cotangents.
        saved: which forward inputs, states or outputs are saved for ``backward``.
    """

    key: Any
    capture: Capture
    stages: Stages
    forward: Executable
    backward: Executable | None = None
    saved: list[tuple[str, int]] = field(default_factory=list)
    epoch: int = -1
    calls: int = 0
    seconds: float = 0.0
    lock: Any = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        c = self.capture
        self._quick = _quick_checks(self.key)
        self._storages: list[np.ndarray] | None = None
        self._scalars = [(i, s.owner, s.key) for i, s in enumerate(c.sources) if s.kind == "scalar"]
        self._numbers: list[Any] = [None] * len(c.sources)
        self._dynamic = any(s.kind in ("grad", "input") for s in c.sources)
        shown = {r.index for r in c.results if r.kind == "value"}
        shown.update(i for kind, i in self.saved if kind == "output")
        counts = [e.index for e in c.grads]
        self._reusable = [
            (n, e)
            for n, e in enumerate(c.grads)
            if e.index is not None
            and e.index not in shown
            and counts.count(e.index) == 1
            and isinstance(e.target, Tensor)
        ]
        self._kept: dict[int, Tensor] = {}
        self._gradient_body: Graph | None = None
        self._types = [v.type for v in c.graph.outputs]
        self._pure = (
            self._quick is not None
            and c.structure is LEAF
            and [r.kind for r in c.results] == ["value"]
            and not (self.backward or c.grads or c.written or self._scalars or self._dynamic)
        )
        self._output = c.results[0].index if self._pure else 0

    def accepts(self, args: tuple) -> bool:
        """The quick check: plain tensors of this signature, and every guard holds."""
        quick = self._quick
        if quick is None or len(args) != len(quick) or thread.grad_enabled is not self.key[2]:
            return False
        for a, (type_, requires_grad) in zip(args, quick, strict=True):
            if (
                not isinstance(a, Tensor)
                or a._requires_grad is not requires_grad
                or a._weak
                or (a._type is not type_ and a._type != type_)
            ):
                return False
        if len(args) == 2:
            if args[0]._storage is args[1]._storage:
                return False
        elif len({id(a._storage) for a in args}) != len(args):
            return False
        modes = thread.inference is self.key[3] and thread.autocast is self.key[4]
        return modes and self.refusal(args) is None

    def refusal(self, leaves: Any) -> str | None:
        """Why this entry may not run these arguments (whose signature is equal), or None."""
        guards = self.capture.guards
        if self.epoch != epoch.count:
            if why := guards.failure(True):
                return why
            self.epoch = epoch.count
            self._storages = None
        else:
            for check in guards.each_call:
                if why := check():
                    return why
        for holds in guards.on_arguments:
            if why := holds(leaves):
                return why
        return self._aliasing(leaves) if self.capture.written else None

    def _aliasing(self, leaves: Any) -> str | None:
        written, direct = self.capture.written, self.capture.direct
        for i in self.capture.arguments:
            leaf = leaves[i]
            if isinstance(leaf, Tensor) and leaf._storage in written:
                return f"argument {i} shares memory with a captured tensor that is written"
        for i in direct:
            if leaves[i]._storage not in written:
                return f"argument {i} no longer shares memory with a captured tensor"
        return None

    def gradient_body(self) -> Graph:
        """What ``create_graph=True`` records of a call's backward pass."""
        if self._gradient_body is None:
            self._gradient_body = gradient_body(self.capture)
        return self._gradient_body

    # Running.

    def run(self, leaves: Any) -> Any:
        """One call."""
        c = self.capture
        if self._pure:
            inputs = [leaves[i]._array for i in c.arguments]
            output = self.forward(inputs, self._storages or self._state(leaves))[self._output]
            self.calls += 1
            return wrap(output, self._types[self._output])
        inputs = [_array(leaves[i]) for i in c.arguments]
        with self.lock:
            state = self._state(leaves)
            outputs = self.forward(inputs, state, self._reuse() if self._kept else None)
        self.calls += 1
        for s in c.written:
            s.version += 1
        results = [self._result(r, leaves, outputs) for r in c.results]
        if self.backward is not None:
            self._attach(inputs, state, outputs, leaves, results)
        for n, effect in enumerate(c.grads):
            self._set_grad(n, effect, leaves, outputs)
        return results[0] if c.structure is LEAF else unflatten(c.structure, iter(results))

    def _state(self, leaves: Any) -> list[np.ndarray]:
        """The arrays of the state slots: the same list as long as all of them are."""
        held = self._storages
        if held is None or self._dynamic:
            held = [self._array_of(s, leaves) for s in self.capture.sources]
            self._storages = held
            self._numbers = [None] * len(held)
        for i, owner, key in self._scalars:
            value = owner[key] if type(owner) is dict and type(key) is str else read(owner, key)
            if value != self._numbers[i]:
                held[i][()] = self._numbers[i] = value
        return held

    @staticmethod
    def _array_of(source: Any, leaves: Any) -> np.ndarray:
        if source.kind == "storage":
            return source.owner.array
        if source.kind == "scalar":
            return np.zeros((), np.float64)
        if source.kind == "grad":
            return source.owner._grad._array
        target = leaves[source.key]
        target._storage.version += 1
        return target._array

    def _reuse(self) -> dict[int, np.ndarray]:
        """The memory of gradients of the last call that nobody else holds: it is written again."""
        reuse: dict[int, np.ndarray] = {}
        for n, effect in self._reusable:
            t = self._kept.get(n)
            # The references: `_kept`, the leaf's `_grad`, `t` and the argument of getrefcount.
            if t is None or effect.target._grad is not t or sys.getrefcount(t) > 4:
                self._kept.pop(n, None)
            elif sys.getrefcount(t._array) <= _ARRAY_REFERENCES:
                assert effect.index is not None
                assert t._array is not None
                reuse[effect.index] = t._array
        return reuse

    def _result(self, r: Result, leaves: list[Any], outputs: list[np.ndarray]) -> Any:
        if r.kind == "value":
            return wrap(outputs[r.index], self._types[r.index])
        if r.kind == "object":
            return r.payload
        if r.kind == "number":
            return outputs[r.index].item()
        t = leaves[r.index]
        if r.kind == "view":
            for op, attrs in r.chain:
                t = view(t, op, attrs)
            return t if r.chain else t.detach()
        return t

    def _set_grad(self, n: int, effect: GradEffect, leaves: Any, outputs: list[np.ndarray]) -> None:
        target = leaves[effect.target] if isinstance(effect.target, int) else effect.target
        before, grad = epoch.count, target._grad
        if effect.index is None:
            target._set_grad(effect.payload)
        elif grad is not None and grad._array is outputs[effect.index]:
            grad._storage.version += 1
            return
        else:
            made = wrap(outputs[effect.index])
            target._set_grad(made)
            if any(n == k for k, _ in self._reusable):
                self._kept[n] = made
        kept = (None if grad is None else grad._type) == (
            None if target._grad is None else target._grad._type
        )
        if kept and self.epoch == before:
            self.epoch = epoch.count  # this call's own effect, known to keep its guards

    def _attach(
        self,
        inputs: list[np.ndarray],
        state: list[np.ndarray],
        outputs: list[np.ndarray],
        leaves: list[Any],
        results: list[Any],
    ) -> None:
        """Records the call on the caller's tape."""
        if not thread.grad_enabled:
            return
        pools = {"input": inputs, "state": state, "output": outputs}
        c = self.capture
        heads = [_first(results, c.results, k) for k in c.cotangents]
        targets = [leaves[t] if isinstance(t, int) else t for t in c.leaves]
        node = CompiledNode(targets, [t._type for t in heads])
        node.executable = self.backward
        node.saved = [pools[kind][i] for kind, i in self.saved]
        node.entry, node.operands = self, Operands(c, leaves, state)
        attach(node, heads)


# A gradient's array is held by its tensor, by its storage and by the argument of getrefcount.
_ARRAY_REFERENCES = 3


def _quick_checks(key: Any) -> list[tuple[Any, bool]] | None:
    """The type and flag of each argument, if all are positional tensors in memory of their own."""
    structure, parts = key[0], key[1]
    args, kwargs = structure[1]
    if kwargs[1] or any(a is not LEAF for a in args[1]):
        return None
    checks = []
    for part in parts:
        if not (isinstance(part, tuple) and isinstance(part[0], TensorType)) or part[2]:
            return None
        checks.append((part[0], part[1]))
    shared = len({part[3:] for part in parts}) != len(parts)
    return None if shared else checks


def _first(results: list[Any], recipes: list[Result], index: int) -> Tensor:
    return next(
        t for t, r in zip(results, recipes, strict=True) if r.kind == "value" and r.index == index
    )


def _array(leaf: Any) -> np.ndarray:
    return np.array(leaf, np.float64) if type(leaf) is float else leaf._array


class CompiledNode(TapeNode):
    """The record of one call of a compiled function whose results require grad."""

    __slots__ = ("entry", "executable", "operands", "saved")

    entry: Entry
    executable: Any
    operands: Operands
    saved: list[np.ndarray] | None

    def name(self) -> str:
        return "CompiledBackward"

    def apply(self, gs: list[Tensor | None], wanted: list[bool], keep: bool) -> list[Tensor | None]:
        if self.saved is None:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved "
                "tensors after they have already been freed). Specify retain_graph=True"
            )
        if thread.grad_enabled:
            return self._recorded(gs, wanted, keep)
        self.operands.check(self.entry.saved)
        arrays = [
            np.zeros(t.sizes, t.dtype.numpy) if g is None else g._numpy()
            for g, t in zip(gs, self.types, strict=True)
        ]
        found = self.executable([*self.saved, *arrays], [])
        if not keep:
            self.saved = None
        return [wrap(g) if w else None for g, w in zip(found, wanted, strict=True)]

    def _recorded(
        self, gs: list[Tensor | None], wanted: list[bool], keep: bool
    ) -> list[Tensor | None]:
        """The gradients as results of an op that can be differentiated again."""
        cotangents = [
            wrap(np.zeros(t.sizes, t.dtype.numpy)) if g is None else g
            for g, t in zip(gs, self.types, strict=True)
        ]
        found = gradients(self.entry.gradient_body(), self.operands, cotangents)
        if not keep:
            self.saved = None
        return [g if w else None for g, w in zip(found, wanted, strict=True)]
