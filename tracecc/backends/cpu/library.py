"""Which ops have a library kernel: `plan` for the scheduler, `run_plan` for arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tracecc.backends.cpu import conv, driver, gemm
from tracecc.backends.schedule_types import Plan, Ref
from tracecc_ir.graph import Node

PLANNERS: dict[str, Callable[[Node], Plan | None]] = {
    "dot_general": gemm.plan_dot,
    "conv": conv.plan_conv,
    "conv_input_grad": conv.plan_input_grad,
    "conv_weight_grad": conv.plan_weight_grad,
}


def plan(node: Node) -> Plan | None:
    """The stages that compute a node of concrete types on contiguous operands.

    Returns:
        The plan, or None where there is no kernel for the op or these operands.
    """
    planner = PLANNERS.get(node.op.name)
    return planner(node) if planner else None


def run_plan(node: Node, plan: Plan, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Runs a plan on arrays.

    Args:
        node: what was planned.
        plan: without a fused epilogue.
        inputs: C-contiguous, of the node's operand types.

    Returns:
        One new array per result of the node.
    """
    outputs = [np.empty(v.type.shape, v.type.dtype.numpy) for v in node.outputs]
    temporaries = [np.empty(n, np.uint8) for n in plan.temporaries]
    blocks = [np.zeros(len(s.args), np.int64) for s in plan.stages]
    memory = {"input": inputs, "output": outputs, "temp": temporaries, "args": blocks}

    def slot(value: Ref | int) -> int:
        if isinstance(value, int):
            return value
        if value.where not in memory:
            return 0
        return memory[value.where][value.index].ctypes.data + value.offset

    for block, stage in zip(blocks, plan.stages, strict=True):
        block[:] = [slot(a) for a in stage.args]
    rows = [
        [s.kernel.address, b.ctypes.data, s.extent, s.grain]
        for s, b in zip(plan.stages, blocks, strict=True)
        if s.extent
    ]
    driver.Program(rows, max(s.scratch for s in plan.stages)).run()
    return outputs
