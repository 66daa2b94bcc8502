"""One compiled signature: how a call's arguments, captured state and results meet its executable."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracecc.autograd.tape import TapeNode, attach
from tracecc.backends import Executable
from tracecc.pytree import unflatten
from tracecc.state import epoch, thread
from tracecc.tensor import Tensor, wrap
from tracecc.trace import read
from tracecc.trace.capture import Capture, GradEffect, Result
from tracecc.views import view
from tracecc_ir.graph import Graph


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
    stages: dict[str, Graph]
    forward: Executable
    backward: Executable | None = None
    saved: list[tuple[str, int]] = field(default_factory=list)
    epoch: int = -1
    calls: int = 0
    seconds: float = 0.0
    lock: Any = field(default_factory=threading.Lock)

    def refusal(self, leaves: list[Any]) -> str | None:
        """Why this entry may not run these arguments (whose signature is equal), or None."""
        why = self.capture.guards.failure(self.epoch != epoch.count)
        if why is None and self.epoch != epoch.count:
            self.epoch = epoch.count
        return why or self._aliasing(leaves)

    def _aliasing(self, leaves: list[Any]) -> str | None:
        written, direct = self.capture.written, self.capture.direct
        if not written:
            return None
        for i in self.capture.arguments:
            leaf = leaves[i]
            if isinstance(leaf, Tensor) and leaf._storage in written:
                return f"argument {i} shares memory with a captured tensor that is written"
        for i in direct:
            if leaves[i]._storage not in written:
                return f"argument {i} no longer shares memory with a captured tensor"
        return None

    # Running.

    def run(self, leaves: list[Any]) -> Any:
        """One call."""
        c = self.capture
        inputs = [_array(leaves[i]) for i in c.arguments]
        with self.lock:
            state = [self._state(s, leaves) for s in c.sources]
            outputs = self.forward(inputs, state)
        self.calls += 1
        for s in c.written:
            s.version += 1
        results = [self._result(r, leaves, outputs) for r in c.results]
        if self.backward is not None:
            self._attach(inputs, state, outputs, leaves, results)
        for effect in c.grads:
            self._set_grad(effect, leaves, outputs)
        return unflatten(c.structure, iter(results))

    def _state(self, source: Any, leaves: list[Any]) -> np.ndarray:
        kind = source.kind
        if kind == "storage":
            return source.owner.array
        if kind == "scalar":
            return np.array(read(source.owner, source.key), np.float64)
        if kind == "grad":
            return source.owner._grad._array
        target = leaves[source.key]
        target._storage.version += 1
        return target._array

    def _result(self, r: Result, leaves: list[Any], outputs: list[np.ndarray]) -> Any:
        if r.kind == "value":
            return wrap(outputs[r.index])
        if r.kind == "object":
            return r.payload
        t = leaves[r.index]
        if r.kind == "view":
            for op, attrs in r.chain:
                t = view(t, op, attrs)
            return t if r.chain else t.detach()
        return t

    def _set_grad(self, effect: GradEffect, leaves: list[Any], outputs: list[np.ndarray]) -> None:
        target = leaves[effect.target] if isinstance(effect.target, int) else effect.target
        before, grad = epoch.count, target._grad
        if effect.index is not None:
            target._set_grad(wrap(outputs[effect.index]))
        else:
            target._set_grad(effect.payload)
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
        attach(node, heads)


def _first(results: list[Any], recipes: list[Result], index: int) -> Tensor:
    return next(
        t for t, r in zip(results, recipes, strict=True) if r.kind == "value" and r.index == index
    )


def _array(leaf: Any) -> np.ndarray:
    return leaf._array if isinstance(leaf, Tensor) else np.array(leaf, np.float64)


class CompiledNode(TapeNode):
    """The record of one call of a compiled function whose results require grad."""

    __slots__ = ("executable", "saved")

    executable: Any
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
            raise RuntimeError(
                "create_graph=True through a compiled function is not recorded; take the first "
                "derivative inside the compiled function"
            )
        arrays = [
            np.zeros(t.shape, t.dtype.numpy) if g is None else g._numpy()
            for g, t in zip(gs, self.types, strict=True)
        ]
        found = self.executable([*self.saved, *arrays], [])
        if not keep:
            self.saved = None
        return [wrap(g) if w else None for g, w in zip(found, wanted, strict=True)]
