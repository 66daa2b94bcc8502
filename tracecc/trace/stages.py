"""The graph after each stage: the last one from the disk cache if the passes ran before."""

from __future__ import annotations

import functools
import hashlib
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

import tracecc_ir
from tracecc import cache, config
from tracecc.backends import Backend
from tracecc.trace.debug import run_passes
from tracecc_ir.codec import decode, encode
from tracecc_ir.errors import IRError
from tracecc_ir.graph import Graph
from tracecc_ir.passes.pipeline import STAGES

# A smaller graph is sooner worked out than looked up and stored.
SMALLEST = 64


class Stages(Mapping[str, Graph]):
    """The graph after each named stage of the pipeline, those in between made when looked at.

    Attributes:
        traced: what the user wrote.
        fused: the last stage.
    """

    def __init__(self, graph: Graph, target: Backend):
        self.traced = self._start = graph
        self._target = target
        self.fused = _fused(graph, target)

    def __getitem__(self, name: str) -> Graph:
        if name in ("traced", "fused"):
            return self.traced if name == "traced" else self.fused
        if name not in list(self):
            raise KeyError(name)
        return run_passes(self._start, until=name, target=self._target)[-1][1]

    def __iter__(self) -> Iterator[str]:
        return iter([s.name for s in STAGES])

    def __len__(self) -> int:
        return len(STAGES)


def _fused(graph: Graph, target: Backend) -> Graph:
    """The graph after all passes."""
    if len(graph.nodes) < SMALLEST or config.debug_level() >= 2 or not cache.enabled():
        return run_passes(graph, target=target)[-1][1]
    key = f"graph\n{_versions()}\n{target.identity()}\n{_digest(graph)}"
    found = cache.get(key, cache.GRAPHS)
    if found is not None:
        try:
            return decode(found.decode())
        except IRError:  # stored by a broken writer: worked out and stored again
            pass
    fused = run_passes(graph, target=target)[-1][1]
    cache.put(key, encode(fused).encode(), suffix=cache.GRAPHS)
    return fused


def _digest(graph: Graph) -> str:
    return hashlib.sha256(encode(graph).encode()).hexdigest()


@functools.cache
def _versions() -> str:
    """What decides what passes do: their sources, and NumPy, which folds constants."""
    folder = pathlib.Path(tracecc_ir.__file__).parent
    return f"ir {cache.fingerprint(folder)} numpy {np.__version__}"
