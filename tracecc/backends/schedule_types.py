"""What a library planner hands to the scheduler: stages whose arguments are symbolic buffers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tracecc.backends.cpu.toolchain import Kernel

Where = Literal["input", "output", "temp", "args", "epilogue", "epilogue_args", "error"]


@dataclass(frozen=True)
class Ref:
    """An address the scheduler fills in.

    Attributes:
        where: input, output or temp (scratch buffer) `index`; args is the argument block of stage
            `index` of the same plan (a callee's parameters); epilogue and epilogue_args are the
            address and argument block of a fused epilogue, both 0 without one; error is where a
            kernel stores 1 if it met an index that is out of range, 0 if nobody listens.
        index: which one.
        offset: bytes to add.
    """

    where: Where
    index: int = 0
    offset: int = 0


Argument = Ref | int | Kernel  # of a kernel, its address


@dataclass(frozen=True)
class Stage:
    """One row of the launch table.

    Attributes:
        kernel: machine code; a stage with extent 0 is not launched, its arguments serve a callee.
        args: the 64-bit slots: references, integers or raw bits, kernels to call.
        extent: work units.
        grain: units per task.
        scratch: bytes of the worker's private memory.
        flops, bytes: for reports.
        share: of a plan for shares of rows, the units of one share; 0 if it serves them all and is
            launched before them.
    """

    kernel: Kernel
    args: list[Argument]
    extent: int
    grain: int = 1
    scratch: int = 0
    flops: int = 0
    bytes: int = 0
    share: int = 0


@dataclass(frozen=True)
class Plan:
    """Stages in order, and the bytes of each temporary they share.

    Attributes:
        stages: in order; each one ends before the next begins.
        temporaries: sizes in bytes of the buffers `Ref("temp", i)` names.
        epilogue: whether the last stage takes a fused epilogue.
        rows, cols: the 2-D shape of the output as an epilogue sees it.
        packed: where operand 1 can be packed beforehand, makes the plan that does so first, and
            the plan for when that is done; the last temporary of both is what was packed.
        shared: where rows of operand 0 can be computed apart, makes the plan that does so for
            shares of so many rows.
    """

    stages: list[Stage]
    temporaries: list[int] = field(default_factory=list)
    epilogue: bool = False
    rows: int = 0
    cols: int = 0
    packed: Callable[[], tuple[Plan, Plan]] | None = None
    shared: Callable[[int], Plan] | None = None

    @property
    def flops(self) -> int:
        return sum(s.flops for s in self.stages)

    @property
    def shares(self) -> bool:
        """Whether it was made for shares of rows."""
        return any(s.share for s in self.stages)
