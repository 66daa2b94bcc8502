"""Loops whose rows do not meet: a thread then takes some rows through all turns.

Where row i of everything that a turn computes needs row i alone (a recurrent layer over a batch),
threads need not wait for each other in every turn, and what a turn hands to the next stays in the
cache of one core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tracecc.backends.schedule_body import Body
from tracecc_ir.graph import Graph, Node, Value


@dataclass(frozen=True)
class Share:
    """Of a loop over ``rows`` rows, how many ``each`` part has that one thread computes."""

    rows: int
    each: int


def rows_apart(body: Graph, consts: int) -> int:
    """How many rows a loop has that do not meet, or 0 if they do.

    They are dimension 0 of every carry, of every slice and of whatever a turn computes.

    Args:
        body: the loop's, after fusion.
        consts: how many of its inputs are the same in all turns.
    """
    moving = body.inputs[consts:]
    if not moving or any(not v.shape or v.shape[0] != moving[0].shape[0] for v in moving):
        return 0
    apart = set(moving)
    for node in body.nodes:
        if not any(v in apart for v in node.inputs) or not _keeps_apart(node, apart):
            return 0
    return int(moving[0].shape[0]) if all(v in apart for v in body.outputs) else 0


def _keeps_apart(node: Node, apart: set[Value]) -> bool:
    """Whether row i of the results needs row i alone of the operands in ``apart``, which grows."""
    if node.op.name == "kernel":
        inner = node.attrs["body"]
        within = {v for v, outer in zip(inner.inputs, node.inputs, strict=True) if outer in apart}
        for n in inner.nodes:
            if any(v in within for v in n.inputs) and not _keeps_apart(n, within):
                return False
        if not all(v in within for v in inner.outputs):
            return False
    elif node.op.kind != "elementwise":
        rule = _RULES.get(node.op.name)
        if rule is None or not rule(node, apart):
            return False
    apart.update(node.outputs)
    return True


def _dot_general(node: Node, apart: set[Value]) -> bool:
    x, y = node.inputs
    (contracted, _), (batch, _) = node.attrs["contract"], node.attrs["batch"]
    return x in apart and y not in apart and not batch and 0 not in contracted


def _same_rows(node: Node, _: set[Value]) -> bool:
    return bool(node.output.shape) and node.output.shape[0] == node.inputs[0].shape[0]


def _reduce(node: Node, _: set[Value]) -> bool:
    return 0 not in node.attrs["axes"]


_RULES: dict[str, Callable[[Node, set[Value]], bool]] = {
    "dot_general": _dot_general,
    "reshape": _same_rows,
    "slice": _same_rows,
    "pad": _same_rows,
    "broadcast": lambda n, _: n.attrs["axes"][:1] == (0,),
    "permute": lambda n, _: n.attrs["axes"][0] == 0,
    "concat": lambda n, _: n.attrs["axis"] != 0,
    **dict.fromkeys(("reduce_sum", "reduce_prod", "reduce_max", "reduce_min"), _reduce),
}


def units_in_rows(body: Body, sizes: list[int], rows: int) -> bool:
    """Whether the units of an emitted kernel are in the order of the rows that they write.

    Args:
        body: the kernel's; its first loop is the outermost of its units.
        sizes: elements of each parameter.
        rows: of the loop that the kernel is part of.
    """
    if not body.extents or body.reduced[0] or body.extents[0] % rows or body.clip:
        return False
    group = body.extents[0] // rows
    for store in body.stores:
        const, (first, *rest), dynamic = store.index
        size = sizes[store.tensor] // rows
        last = const + (group - 1) * first
        last += sum(c * (n - 1) for c, n in zip(rest, body.extents[1:], strict=True))
        if dynamic or const or min(first, *rest, 0) < 0 or group * first != size or last >= size:
            return False
    return True


def share(rows: int, threads: int, most: int) -> Share | None:
    """Shares for some threads: of equal size, of whole panels of at most ``most`` rows.

    Returns:
        None where shares would be too small to be worth it.
    """
    if threads < 2 or rows < 4 * threads:
        return None
    parts = threads * max(1, min(4, rows // (threads * 4 * most)))
    each = -(-rows // parts)
    panels = -(-each // most)
    return Share(rows, panels * -(-each // panels))
