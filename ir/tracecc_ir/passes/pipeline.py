"""The order of things: named stages of passes, with the reason for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from tracecc_ir.errors import IRError
from tracecc_ir.graph import Graph, Node
from tracecc_ir.parser import parse
from tracecc_ir.passes.cse import cse
from tracecc_ir.passes.dce import dce
from tracecc_ir.passes.decompose import decompose
from tracecc_ir.passes.fold import fold
from tracecc_ir.passes.fuse import fuse
from tracecc_ir.passes.grad import expand_vjp
from tracecc_ir.passes.scalarize import scalarize
from tracecc_ir.passes.simplify import simplify
from tracecc_ir.passes.split_complex import split_complex
from tracecc_ir.printer import print_graph
from tracecc_ir.verify import verify

Pass = Callable[[Graph], Graph]
ROUNDS = 4  # of clean, at most; nearly every graph is settled after two

# Whether the verifier runs after every pass, and not only at the ends; a debugging aid.
debug = False


def clean(graph: Graph) -> Graph:
    """Simplify (which folds), cse and dce until the ops of the graph stay the same."""
    for _ in range(ROUNDS):
        before = _census(graph)
        for each in (simplify, cse, dce):
            graph = _checked(each, graph)
        if _census(graph) == before:
            break
    return graph


def _census(graph: Graph) -> Counter[str]:
    return Counter(node.op.name for node in graph.nodes)


class Target(Protocol):
    """What the passes ask of a backend."""

    def takes(self, node: Node) -> bool:
        """Whether a composite of these types has a kernel of its own, and need not be opened."""

    def adapt(self, graph: Graph) -> Graph:
        """A clean graph with what surrounds such kernels as they like it, as clean as before."""


def adapt(graph: Graph) -> Graph:
    """Where a backend's own rewriting goes; without one the graph stays."""
    return graph


class Stage(NamedTuple):
    """A name that users can ask a dump by, what runs, and why here."""

    name: str
    passes: tuple[Pass, ...]
    reason: str


STAGES = (
    Stage("traced", (), "what the user wrote, forward and backward as one"),
    Stage("grad", (expand_vjp, dce), "derivatives first: rules know ops, not fused groups"),
    Stage("simplified", (clean,), "small before large: while composites are still one node each"),
    Stage(
        "decomposed",
        (decompose, split_complex, clean, adapt),
        "fusion decides about primitives, not names, and loops have no complex numbers",
    ),
    Stage("scalarized", (scalarize, clean), "loops want their long dimension innermost"),
    Stage("fused", (fuse,), "last, as nothing looks into a group afterwards"),
)
PASSES: dict[str, Pass] = {
    "expand_vjp": expand_vjp,
    "simplify": simplify,
    "fold": fold,
    "cse": cse,
    "dce": dce,
    "decompose": decompose,
    "split_complex": split_complex,
    "scalarize": scalarize,
    "fuse": fuse,
}


def run(
    graph: Graph,
    until: str | None = None,
    on_stage: Callable[[str, Graph], Any] | None = None,
    target: Target | None = None,
) -> list[tuple[str, Graph]]:
    """The graph after each stage.

    Args:
        graph: what the tracer or a parser made.
        until: the last stage to run; all of them by default.
        on_stage: called with each stage's name and graph.
        target: the backend, for what only it knows; none, to open every composite.

    Raises:
        VerifyError: the graph given, or (``debug``) what a pass made of it, is malformed.
    """
    names = [s.name for s in STAGES]
    if until is not None and until not in names:
        raise IRError(f"there is no stage {until!r}; expected one of {', '.join(names)}")
    verify(graph)
    results: list[tuple[str, Graph]] = []
    cleaned = None
    for stage in STAGES:
        for each in stage.passes:
            if each is clean and graph is cleaned:
                continue
            graph = _checked(each if target is None else _aimed(each, target), graph)
            cleaned = graph if each in (clean, adapt) else cleaned
        results.append((stage.name, graph))
        if on_stage is not None:
            on_stage(stage.name, graph)
        if stage.name == until:
            break
    return results


def _aimed(each: Pass, target: Target) -> Pass:
    """The pass as the backend wants it."""
    if each is adapt:
        return target.adapt

    def decompose_the_rest(graph: Graph) -> Graph:
        return decompose(graph, target.takes)

    return decompose_the_rest if each is decompose else each


def _checked(each: Pass, graph: Graph) -> Graph:
    """One pass; in debug mode its result is verified and its text parsed back."""
    result = each(graph)
    if debug:
        verify(result)
        text = print_graph(result)
        if print_graph(parse(text)) != text:
            raise IRError(f"the text of a graph after {each.__name__} does not parse back to it")
    return result
