"""Rows of the launch table and their argument slots, while an executable is put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracecc.backends.cpu import toolchain
from tracecc.backends.schedule_shares import Share

# All steps of a loop for one share of its rows after another. Four words describe a step: its
# kernel, its arguments, the units of a share, and all units.
_SHARES = """
def shares(args, begin, end, scratch):
    count = i64_arg(args, 0)
    for u in range(begin, end):
        for i in range(1, 4 * count + 1, 4):
            units = i64_arg(args, i + 2)
            last = minimum((u + 1) * units, i64_arg(args, i + 3))
            call_kernel(i64_arg(args, i), i64_arg(args, i + 1), u * units, last, scratch)
"""


@dataclass(frozen=True)
class Row:
    """A row of the launch table.

    ``args`` is the number of its first slot; ``errors`` those for the error word's address;
    ``share`` the units of one share, in a loop whose rows threads share.
    """

    address: int
    args: int
    units: int
    grain: int
    scratch: int
    errors: tuple[int, ...] = ()
    share: int = 0


class Slots:
    """Argument slots under construction.

    Attributes:
        values: the slots; zero where an address goes.
        places: (slot, base, byte offset) of each address of an operand.
        internal: (slot, slot number) of each address of another argument block.
    """

    def __init__(self) -> None:
        self.values: list[int] = []
        self.places: list[tuple[int, int, int]] = []
        self.internal: list[tuple[int, int]] = []

    def begin(self) -> int:
        """Starts a block on a cache line; returns its first slot."""
        self.values.extend([0] * (-len(self.values) % 8))
        return len(self.values)

    def number(self, bits: int) -> None:
        self.values.append(bits)

    def pointer(self, base: int, byte: int) -> None:
        self.places.append((len(self.values), base, byte))
        self.values.append(0)


def in_shares(rows: Sequence[Row], share: Share, slots: Slots) -> list[Row]:
    """The rows of a loop as one whose units are shares, after those that serve all shares."""
    steps = [row for row in rows if row.share]
    first = slots.begin()
    slots.number(len(steps))
    for row in steps:
        slots.number(row.address)
        slots.internal.append((len(slots.values), row.args))
        for value in (0, row.share, row.units):
            slots.number(value)
    kernel = toolchain.compile_kernel(_SHARES, "shares")
    scratch = max(row.scratch for row in steps)
    errors = tuple(slot for row in steps for slot in row.errors)
    parts = -(-share.rows // share.each)
    whole = Row(kernel.address, first, parts, 1, scratch, errors)
    return [*(row for row in rows if not row.share), whole]
