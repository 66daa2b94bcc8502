"""Which ops have a library kernel: `plan` for the scheduler, `run_plan` for arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tracecc.backends.cpu import (
    attention,
    attention_layout,
    conv,
    dot,
    driver,
    pool,
    rows,
    scatter,
    toolchain,
)
from tracecc.backends.schedule_types import Argument, Plan
from tracecc_ir.errors import OutOfBounds
from tracecc_ir.graph import Node
from tracecc_ir.passes.fuse_space import is_complex

PLANNERS: dict[str, Callable[[Node], Plan | None]] = {
    "dot_general": dot.plan_dot,
    "conv": conv.plan_conv,
    "conv_input_grad": conv.plan_input_grad,
    "conv_weight_grad": conv.plan_weight_grad,
    "scatter": scatter.plan_scatter,
    "scatter_along": scatter.plan_scatter_along,
    "concat": scatter.plan_concat,
    "dynamic_slice": scatter.plan_dynamic_slice,
    "dynamic_update": scatter.plan_dynamic_update,
    "attention": attention.plan_attention,
    "attention_grad": attention.plan_attention_grad,
    attention_layout.GROUP.name: attention_layout.plan_group,
    "argmax": rows.plan_arg,
    "argmin": rows.plan_arg,
    "cumsum": rows.plan_running,
    "cumprod": rows.plan_running,
    "cummax": rows.plan_running,
    "cummin": rows.plan_running,
    "sort": rows.plan_sort,
    "window_max": pool.plan_window_max,
    "window_sum": pool.plan_window_sum,
    "window_sum_grad": pool.plan_window_sum_grad,
}


def plan(node: Node) -> Plan | None:
    """The stages that compute a node of concrete types on contiguous operands.

    Returns:
        The plan, or None where there is no kernel for the op or these operands.
    """
    planner = PLANNERS.get(node.op.name)
    return planner(node) if planner and not is_complex(node) else None


def run_plan(node: Node, plan: Plan, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Runs a plan on arrays.

    Args:
        node: what was planned.
        plan: without a fused epilogue.
        inputs: C-contiguous, of the node's operand types.

    Returns:
        One new array per result of the node.

    Raises:
        IndexError: a kernel met an index that is out of range.
    """
    outputs = [np.empty(v.type.sizes, v.type.dtype.numpy) for v in node.outputs]
    temporaries = [np.empty(n, np.uint8) for n in plan.temporaries]
    error = np.zeros(1, np.int64)
    blocks = [np.zeros(len(s.args), np.int64) for s in plan.stages]
    memory = {
        "input": inputs,
        "output": outputs,
        "temp": temporaries,
        "args": blocks,
        "error": [error],
    }

    def slot(value: Argument) -> int:
        if isinstance(value, int):
            return value
        if isinstance(value, toolchain.Kernel):
            return value.address
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
    if error[0]:
        raise OutOfBounds(f"{node.op.name}: an index is out of range for its dimension")
    return outputs
