"""What `TRACECC_DEBUG` asks for, on standard error: traces, IR after each stage, checked passes."""

from __future__ import annotations

import sys

from tracecc import config
from tracecc_ir.graph import Graph
from tracecc_ir.passes import pipeline
from tracecc_ir.passes.pipeline import Target
from tracecc_ir.printer import print_graph


def run_passes(
    graph: Graph, until: str | None = None, target: Target | None = None
) -> list[tuple[str, Graph]]:
    """`pipeline.run`; from level 2 each stage is printed, from level 3 each pass is verified."""
    level = config.debug_level()
    if level >= 3:
        pipeline.debug = True
    return pipeline.run(graph, until, _print_stage if level >= 2 else None, target)


def _print_stage(stage: str, graph: Graph) -> None:
    print(f"-- {stage}\n{print_graph(graph).rstrip()}", file=sys.stderr)


def report_trace(name: str, line: str) -> None:
    """From level 1: one line about a function that was just traced and compiled."""
    if config.debug_level() >= 1:
        print(f"tracecc: {name}: {line}", file=sys.stderr)
