"""`compile_graph`: fused graph in, executable out."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from dataclasses import replace

from tracecc import cache, config
from tracecc.backends.cpu import attention, attention_layout, library, toolchain
from tracecc.backends.cpu.emit import Emitted
from tracecc.backends.cpu.emit_epilogue import emit_epilogue
from tracecc.backends.cpu.emit_kernels import emit
from tracecc.backends.cpu.executable import Bound, Executable
from tracecc.backends.cpu.layout import plain_products
from tracecc.backends.cpu.microkernel import tile
from tracecc.backends.cpu.regions import REGIONS
from tracecc.backends.cpu.target import target
from tracecc.backends.schedule import schedule
from tracecc.backends.schedule_program import Program
from tracecc.backends.schedule_shares import Share, share
from tracecc.backends.schedule_types import Plan
from tracecc_ir.graph import Graph, Node
from tracecc_ir.passes.fuse import fuse
from tracecc_ir.passes.pipeline import clean

_met: set[str] = set()
_known: dict[tuple[str, str], toolchain.Kernel] = {}


def compile_graph(graph: Graph) -> Executable:
    """Compiles a graph of concrete sizes.

    Args:
        graph: after the pass pipeline; one that was not fused is fused here.
    """
    with toolchain.batch() as pool:
        program, bound, compiled = _bound(graph)
        toolchain.compile_all((k for b in bound for k in (*b.machine_code(), *b.called())), pool)
        return Executable(program, bound, compiled)


def _bound(graph: Graph) -> tuple[Program, list[Bound], int]:
    """The schedule, its launches with their kernels, and how many kernels no cache had."""
    program = schedule(_ready(graph), library.plan, lone=True, body=_ready, share=_share)
    compiled = 0
    bound: list[Bound] = []
    texts: dict[int, Bound] = {}
    for launch in program.launches:
        first = texts.get(id(launch.body))
        if first is not None:  # another turn of a loop
            plan = launch.plan if isinstance(launch.plan, Plan) else None
            bound.append(replace(first, launch=launch, plan=plan))
            continue
        if isinstance(launch.plan, Plan):
            fresh = [stage.kernel for stage in launch.plan.stages if _is_new(stage.kernel)]
            compiled += sum(not kernel.cached for kernel in fresh)
            if launch.body is None:
                bound.append(Bound(launch, plan=launch.plan))
                continue
            emitted = emit_epilogue(launch.body, launch.name)
            kernel, new = _kernel(emitted, toolchain.compile_epilogue)
            compiled += new and not kernel.cached
            texts[id(launch.body)] = Bound(launch, emitted, kernel, launch.plan)
            bound.append(texts[id(launch.body)])
            continue
        if launch.body is None:
            assert launch.node is not None
            make = REGIONS.get(launch.node.op.name)
            region = make(launch.node, compile_graph) if make else None
            compiled += region.kernels_compiled if region else 0
            bound.append(Bound(launch, region=region))
            continue
        emitted = emit(launch.body, launch.name)
        kernel, new = _kernel(emitted, toolchain.compile_kernel)
        compiled += new and not kernel.cached
        texts[id(launch.body)] = Bound(launch, emitted, kernel)
        bound.append(texts[id(launch.body)])
    return program, bound, compiled


def _ready(graph: Graph) -> Graph:
    """A graph, or the body of a loop, for the scheduler."""
    if not any(n.op.name == "kernel" for n in graph.nodes):
        graph = fuse(graph)
    return attention_layout.as_steps(plain_products(graph))


def _share(rows: int) -> Share | None:
    """How threads share the rows of a loop: in panels of the register tile."""
    return share(rows, config.num_threads(), tile("f32").mr)


@functools.cache
def identity() -> str:
    """The machine and the sources of this backend."""
    goal = target()
    machine = f"{goal.triple} {goal.cpu} {goal.features} {goal.vector_bits}"
    return f"{machine} {cache.fingerprint(pathlib.Path(__file__).parent)}"


def takes(node: Node) -> bool:
    """Whether a composite of these types has a kernel of its own, and need not be opened."""
    return node.op.name in attention.PLANS and attention.takes(node)


def adapt(graph: Graph) -> Graph:
    """Groups what library kernels do by themselves around their op; before fusion."""
    adapted = attention_layout.adapt(graph)
    return graph if adapted is graph else clean(adapted)


def _is_new(kernel: toolchain.Kernel) -> bool:
    """Whether this process had not met a library kernel yet."""
    if kernel.symbol in _met:
        return False
    _met.add(kernel.symbol)
    return True


def _kernel(
    emitted: Emitted, compile: Callable[..., toolchain.Kernel]
) -> tuple[toolchain.Kernel, bool]:
    """The machine code, and whether this process had not seen the text before."""
    key = (emitted.source, emitted.entry)
    found = _known.get(key)
    if found is not None:
        return found, False
    found = compile(emitted.source, emitted.entry, independent=True)
    _known[key] = found
    return found, True
