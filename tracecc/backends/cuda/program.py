"""A scheduled program as CUDA kernels, and the walk over its launches that all runs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tracecc.backends.cuda.emit import CudaLaunch, emit
from tracecc.backends.cuda.kernel import flat
from tracecc.backends.cuda.simulator import simulate
from tracecc.backends.schedule_program import Operand, Program
from tracecc_ir.interpret import evaluate

# Runs a kernel on arrays of storage elements: inputs, then outputs.
RunKernel = Callable[[CudaLaunch, Sequence[np.ndarray], Sequence[np.ndarray]], None]


def emit_program(program: Program, block: int = 256) -> list[CudaLaunch | None]:
    """The kernel of each launch; None for steps that no kernel does."""
    return [
        emit(step.body, step.name, block) if step.body is not None else None
        for step in program.launches
    ]


def execute(
    program: Program,
    launches: Sequence[CudaLaunch | None],
    inputs: Sequence[np.ndarray],
    state: Sequence[np.ndarray],
    run_kernel: RunKernel,
) -> list[np.ndarray]:
    """Runs a program over host memory; state arrays are updated in place.

    Args:
        program: of concrete sizes, without library steps.
        launches: from `emit_program`.
        inputs: contiguous arrays of the program's input types.
        state: likewise; written in place.
        run_kernel: how a kernel is run, for example `on_simulator`.
    """
    memory = _Memory(program, inputs, state)
    for step, launch in zip(program.launches, launches, strict=True):
        reads, writes = map(memory.array, step.inputs), [memory.array(o) for o in step.outputs]
        if launch is not None:
            run_kernel(launch, [flat(a) for a in reads], [flat(a) for a in writes])
            continue
        assert step.node is not None
        results = evaluate(step.node.op, list(reads), step.node.attrs)
        for array, result in zip(writes, results, strict=True):
            array[...] = result
    return memory.outputs


def on_simulator(
    launch: CudaLaunch, reads: Sequence[np.ndarray], writes: Sequence[np.ndarray], blocks: int = 4
) -> None:
    """Runs a kernel in the lock-step simulator, of few blocks, so that they stride."""
    undefined = range(len(reads), len(reads) + len(writes))
    report = simulate(
        launch.kernel.source,
        launch.kernel.name,
        (launch.grid(blocks),),
        (launch.kernel.block,),
        [*reads, *writes, *launch.values()],
        undefined,
    )
    if any(report.unwritten):
        raise AssertionError(f"{launch.kernel.name} left elements of its results unwritten")


class _Memory:
    """The program's buffers as byte arrays."""

    def __init__(self, program: Program, inputs: Sequence[np.ndarray], state: Sequence[np.ndarray]):
        self.arena = np.zeros(program.arena_bytes, np.uint8)
        self.outputs = [np.empty(t.shape, t.dtype.numpy) for t in program.outputs]  # type: ignore[type-var]
        self.owned = {"input": inputs, "state": state, "output": self.outputs}

    def array(self, operand: Operand) -> np.ndarray:
        buffer, (kind, shape) = operand.buffer, operand.type
        if buffer.kind == "arena":
            part = self.arena[buffer.place : buffer.place + int(operand.type.nbytes)]  # type: ignore[arg-type]
            return part.view(kind.numpy).reshape(shape)  # type: ignore[arg-type]
        return self.owned[buffer.kind][buffer.place].reshape(shape)  # type: ignore[arg-type]
