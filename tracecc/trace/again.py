"""The backward pass of a compiled call as an op of its own, so that it can be differentiated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tracecc.dispatch import apply
from tracecc.tensor import Storage, Tensor, wrap
from tracecc.trace.capture import Capture
from tracecc.trace.tracer import Source
from tracecc_ir.graph import Builder, Graph
from tracecc_ir.ops import call
from tracecc_ir.passes.dce import dce
from tracecc_ir.passes.grad import expand_vjp


class Operands:
    """What one call was given, as tensors with their history.

    Gradients of gradients run the call's own computation again, so what was overwritten since is
    refused.
    """

    def __init__(self, capture: Capture, leaves: Sequence[Any], state: Sequence[np.ndarray]):
        self._capture, self._leaves = capture, leaves
        self._state = [
            a.copy() if s.kind == "scalar" else a
            for s, a in zip(capture.sources, state, strict=True)
        ]
        self._versions: dict[tuple[str, int], tuple[Storage, int]] = {}
        for i, a in enumerate(capture.arguments):
            if isinstance(t := leaves[a], Tensor):
                self._versions["input", i] = t._storage, t._storage.version
        for i, s in enumerate(capture.sources):
            if s.kind == "storage":
                self._versions["state", i] = s.owner, s.owner.version

    def check(self, used: Iterable[tuple[str, int]]) -> None:
        """Refuses inputs and state, by kind and number, that were overwritten since the call."""
        for key in used:
            storage, version = self._versions.get(key, (None, 0))
            if storage is not None and storage.version != version:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an "
                    "inplace operation: a tensor that a compiled function read is at version "
                    f"{storage.version}; expected version {version} instead"
                )

    def tensors(self) -> list[Tensor]:
        """The arguments, then the state."""
        self.check(self._versions)
        capture = self._capture
        owned = {t._storage: t for t in capture.leaves if isinstance(t, Tensor)}
        return [_argument(self._leaves[i]) for i in capture.arguments] + [
            _captured(s, a, owned) for s, a in zip(capture.sources, self._state, strict=True)
        ]


def _argument(leaf: Any) -> Tensor:
    return leaf if isinstance(leaf, Tensor) else wrap(np.array(leaf, np.float64))


def _captured(source: Source, array: np.ndarray, owned: dict[Any, Tensor]) -> Tensor:
    if source.kind != "storage":
        return wrap(array)
    found = owned.get(source.owner)
    if found is not None and not found._chain:
        return found
    t = wrap(array)
    t._storage = source.owner
    return t


def gradient_body(capture: Capture) -> Graph:
    """Gradients as a function of a call's arguments, its state and the cotangents of its results.

    Raises:
        RuntimeError: the call wrote state, so that it cannot be run again.
    """
    if capture.graph.updates:
        labels = {s.value: s.label for s in capture.graph.state}
        raise RuntimeError(
            "create_graph=True through a compiled function that writes state "
            f"({labels[capture.graph.updates[0].state]}) is not recorded; take the first "
            "derivative inside the compiled function"
        )
    graph = expand_vjp(capture.graph)
    b = Builder(f"{graph.name}_backward")
    count = len(capture.arguments)
    arguments = [b.input(v.type, v.name) for v in graph.inputs[:count]]
    state = [b.input(s.value.type, s.value.name) for s in graph.state]
    cotangents = [b.input(v.type, v.name) for v in graph.inputs[count:]]
    made = b.inline(graph, [*arguments, *cotangents, *state])
    b.graph.outputs = made[capture.outputs : len(graph.outputs)]
    return dce(b.graph)


def gradients(body: Graph, operands: Operands, cotangents: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradients of a call, recorded."""
    return apply(call, [*operands.tensors(), *cotangents], {"body": body})
