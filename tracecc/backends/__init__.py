"""Backends: what turns a graph of concrete shapes into something that runs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np

from tracecc.lacking import unknown
from tracecc_ir.graph import Graph
from tracecc_ir.passes.pipeline import Target


class Executable(Protocol):
    """A compiled graph.

    Attributes:
        kernels_compiled: how many kernels the disk cache did not have.
    """

    kernels_compiled: int

    def __call__(
        self,
        inputs: Sequence[np.ndarray],
        state: Sequence[np.ndarray] = (),
        reuse: Mapping[int, np.ndarray] | None = None,
    ) -> list[np.ndarray]:
        """The outputs, some of them in given memory; updates are written into the state arrays."""

    def kernels(self) -> Sequence[Any]:
        """The kernels, each printable."""

    def schedule(self) -> str:
        """The text of the schedule."""

    def summary(self) -> str:
        """Memory plan, compile times and cache hits, as text."""


class Backend(Target, Protocol):
    """A target."""

    def identity(self) -> str:
        """What the passes' results depend on besides the graph: the machine and this version."""

    def compile_graph(self, graph: Graph) -> Executable:
        """Compiles a graph with concrete shapes that went through the pipeline."""


_BACKENDS = {"cpu": "tracecc.backends.cpu.lower", "cuda": "tracecc.backends.cuda"}


def get_backend(name: str) -> Backend:
    """The backend of a device type, imported on first use.

    Raises:
        ValueError: there is no backend of this name.
    """
    if name not in _BACKENDS:
        raise ValueError(f"the backends are {', '.join(_BACKENDS)}, given {name!r}")
    return cast(Backend, importlib.import_module(_BACKENDS[name]))


def __getattr__(name: str) -> Any:
    if name in ("cudnn", "mps"):
        return getattr(importlib.import_module("tracecc.backends.absent"), name)
    raise unknown(__name__, name)
