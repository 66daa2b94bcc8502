"""What a schedule is made of: buffers, launches over them, and their text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tracecc.backends.schedule_body import Body
from tracecc.backends.schedule_shares import Share
from tracecc_ir.graph import Node
from tracecc_ir.op import OPS
from tracecc_ir.types import TensorType


class LibraryPlan(Protocol):
    """What a backend's own kernel for one node needs: scratch buffers, in bytes.

    Attributes:
        epilogue: whether it can hand its finished tiles, parts of a result of so many columns, to
            an epilogue.
        packed: where operand 1 can be packed beforehand, makes the plan that does so first, and
            the plan for when that is done; the last temporary of both is what was packed.
        shared: where rows of operand 0 can be computed apart, makes the plan that does so for
            shares of so many rows.
        shares: whether it is such a plan.
    """

    @property
    def temporaries(self) -> list[int]: ...

    @property
    def flops(self) -> int: ...

    @property
    def epilogue(self) -> bool: ...

    @property
    def cols(self) -> int: ...

    @property
    def packed(self) -> Callable[[], tuple[LibraryPlan, LibraryPlan]] | None: ...

    @property
    def shares(self) -> bool: ...

    @property
    def shared(self) -> Callable[[int], LibraryPlan] | None: ...


# A backend plans the nodes that it has a kernel of its own for, and answers None for others.
Planner = Callable[[Node], LibraryPlan | None]


@dataclass(eq=False)
class Buffer:
    """Memory of one array.

    Attributes:
        kind: input, state or output (the caller's memory) or arena.
        place: which input, state or output it is; in the arena the byte offset.
        nbytes: its size.
        first, last: launches that write it first and use it last.
    """

    kind: str
    place: int
    nbytes: int
    name: str = ""
    first: int = -1
    last: int = -1


@dataclass(frozen=True)
class Operand:
    """A buffer, from ``offset`` bytes on, seen as a contiguous tensor."""

    buffer: Buffer
    type: TensorType
    offset: int = 0


@dataclass
class Launch:
    """One step.

    Attributes:
        kind: map, rows, columns, host (one op run by the interpreter) or library.
        name: readable.
        inputs, outputs: what it reads and writes, in the order of the body's parameters.
        body: loops and scalar code of an emitted kernel; of a library step, of its epilogue, whose
            first parameter is the tile (the inputs are the step's own, then the epilogue's).
        node: the op of a host or library step.
        ops, lines: the ops it does and the user's lines they come from.
        why: notes of the fusion pass.
        plan: of a library step, what the backend will do; its scratch buffers are ``temporaries``.
        turn: of a loop that is spelled out, the turn it belongs to.
        loop: of a loop whose rows do not meet, what tells it from others.
        share: the rows of that loop that one thread computes.
    """

    kind: str
    name: str
    inputs: list[Operand]
    outputs: list[Operand]
    body: Body | None = None
    node: Node | None = None
    ops: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    why: str = ""
    plan: LibraryPlan | None = None
    temporaries: list[Operand] = field(default_factory=list)
    turn: int = 0
    loop: tuple[object, ...] = ()
    share: Share | None = None

    @property
    def bytes(self) -> int:
        """Memory read and written if every operand is touched once."""
        operands = {(id(o.buffer), o.offset): o.type.nbytes for o in (*self.inputs, *self.outputs)}
        return sum(operands.values())  # type: ignore[arg-type]

    @property
    def flops(self) -> int:
        """Operations, a transcendental counted as its cost."""
        done = self.plan.flops if self.plan is not None else 0
        if self.body is None:
            return done
        total, rows = math.prod(self.body.extents), 1
        for extent, reduced in zip(self.body.extents, self.body.reduced, strict=True):
            rows *= 1 if reduced else extent
        return done + sum(
            (OPS[i.op].cost if i.op in OPS else 1)
            * (rows if row and not i.op.startswith("reduce") else total)
            for i, row in zip(self.body.code, self.body.row, strict=True)
            if i.op not in ("load", "const", "index")
        )


@dataclass
class Program:
    """Everything an executable needs besides machine code."""

    name: str
    launches: list[Launch]
    buffers: list[Buffer]
    arena_bytes: int
    outputs: list[TensorType]

    def __str__(self) -> str:
        lines = [f"program {self.name}: {len(self.launches)} launches, arena {self.arena_bytes} B"]
        for i, launch in enumerate(self.launches):
            if launch.turn == 0:
                lines += _describe(i, launch)
        return "\n".join(lines) + "\n"


def _describe(number: int, launch: Launch) -> list[str]:
    def place(o: Operand) -> str:
        b = o.buffer
        where = f"arena+{b.place + o.offset}" if b.kind == "arena" else f"{b.kind} {b.place}"
        return f"%{b.name or '_'} {o.type} @{where}"

    loops = ""
    if launch.body is not None:
        loops = " over " + " ".join(
            f"({e})" if r else str(e)
            for e, r in zip(launch.body.extents, launch.body.reduced, strict=True)
        )
    text = [f"{number:3} {launch.kind} {launch.name}{loops}  {launch.bytes} B {launch.flops} flop"]
    text += [f"      read  {place(o)}" for o in launch.inputs]
    text += [f"      write {place(o)}" for o in launch.outputs]
    if launch.lines:
        text.append(f"      from  {', '.join(launch.lines)}")
    if launch.why:
        text.append(f"      why   {launch.why}")
    return text
