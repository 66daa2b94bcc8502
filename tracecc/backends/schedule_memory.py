"""The memory plan: where in the arena each temporary of a schedule lies."""

from __future__ import annotations

from collections.abc import Sequence

from tracecc.backends.schedule_program import Buffer, Launch

ALIGNMENT = 64


def place(buffers: Sequence[Buffer], launches: Sequence[Launch], *, together: bool = False) -> int:
    """Gives temporaries their offsets: first fit among those alive at the same time.

    Args:
        buffers: of the schedule; those in the arena are placed.
        launches: in order.
        together: whether all are alive from the first launch to the last: threads that share the
            rows of a loop are anywhere in its body at a time.

    Returns:
        The size of the arena in bytes.
    """
    _find_lives(launches, together)
    placed: list[Buffer] = []
    top = 0
    for b in sorted((b for b in buffers if b.kind == "arena"), key=lambda b: -b.nbytes):
        size = -(-b.nbytes // ALIGNMENT) * ALIGNMENT
        offset = 0
        alive = [p for p in placed if p.first <= b.last and b.first <= p.last]
        for p in sorted(alive, key=lambda p: p.place):
            if offset + size <= p.place:
                break
            offset = max(offset, p.place + -(-p.nbytes // ALIGNMENT) * ALIGNMENT)
        b.place = offset
        placed.append(b)
        top = max(top, offset + size)
    return top


def _find_lives(launches: Sequence[Launch], together: bool) -> None:
    """Sets the launches that use each buffer first and last."""
    loops: dict[tuple, tuple[int, int]] = {}
    for i, launch in enumerate(launches):
        loops[launch.loop] = loops.get(launch.loop, (i, i))[0], i
    for i, launch in enumerate(launches):
        # Of a loop whose rows threads share, all turns are at the same time.
        first, last = loops[launch.loop] if launch.loop else (i, i)
        if together:
            first, last = 0, len(launches)
        for o in (*launch.inputs, *launch.outputs, *launch.temporaries):
            o.buffer.first = first if o.buffer.first < 0 else min(first, o.buffer.first)
            o.buffer.last = max(last, o.buffer.last)
