"""The CPU backend: fused Numba kernels on a compiled driver with its own threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracecc_ir.graph import Graph

if TYPE_CHECKING:
    from tracecc.backends import Executable


def compile_graph(graph: Graph) -> Executable:
    """Compiles a graph with concrete shapes that went through the pipeline."""
    # Imported here so that the toolchain below can be used without the emitters above it.
    from tracecc.backends.cpu import lower

    return lower.compile_graph(graph)
