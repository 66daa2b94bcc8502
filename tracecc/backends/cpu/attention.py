"""Attention and its gradient as one streaming kernel each: no matrix of scores is ever stored."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tracecc.backends.cpu import attention_kernels as source
from tracecc.backends.cpu import attention_tiles as tiles
from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.microkernel import compile_turn, tile
from tracecc.backends.cpu.views import Rows, rows_of, whole
from tracecc.backends.schedule_types import Argument, Plan, Ref, Stage
from tracecc_ir.graph import Node, Value
from tracecc_ir.types import f32

BLOCK = 128  # Keys whose scores exist at a time; a multiple of the queries of a tile.


def _names(block: int) -> dict[str, Any]:
    v = tiles.vectors()
    return {
        "width": v.width,
        "lanes": v.lanes,
        "row": 4 * v.width,
        "rows_of_tile": v.rows,
        "block": block,
        "tall": block + v.rows,
        "log2e": repr(math.log2(math.e)),
    }


def _part(text: str, depth: int, **names: Any) -> str:
    """A template filled and indented for its place."""
    return textwrap.indent(text.format(**_names(BLOCK), **names), "    " * depth).strip("\n")


def _scores(depth: int, names: str, tiles: int, narrow: int) -> str:
    """`names` are those of the template, in its order."""
    keys = ("left", "step", "size", "turned", "to")
    given = dict(zip(keys, names.split(), strict=True))
    return _part(source.SCORES, depth, tiles=tiles, narrow=narrow, **given)


def _forward() -> toolchain.Kernel:
    parts = {
        "copy_q_part": _part(source.COPY, 3, rows="rows", source="q"),
        "turn_q_part": _part(source.TURN, 2, start="start", turned="turned"),
        "back_part": _part(source.BACK, 2, start="start", turned="result"),
        "scores_part": _scores(3, "k_at k_step d turned scores", 27, 37),
        "values_part": _part(
            source.GATHERED,
            3,
            left="v_at",
            step="v_step",
            size="e",
            right="scores",
            to="result",
            tiles=30,
        ),
    }
    text = source.FORWARD.format(**_names(BLOCK), **parts)
    return toolchain.compile_kernel(text, "attention", independent=True)


def _backward() -> toolchain.Kernel:
    parts = {
        "copy_g_part": _part(source.COPY, 3, rows="g_rows", source="g"),
        "turn_g_part": _part(source.TURN, 3, start="address(g_rows)", turned="g_turned"),
        "copy_q_part": _part(source.COPY, 3, rows="q_rows", source="q"),
        "turn_q_part": _part(source.TURN, 3, start="address(q_rows)", turned="q_turned"),
        "back_part": _part(source.BACK, 3, start="start", turned="grown"),
        "scores_part": _scores(4, "k_at k_step d q_turned scores", 42, 41),
        "slopes_part": _scores(4, "v_at v_step e g_turned slopes", 42, 41),
        "grown_part": _part(
            source.GATHERED,
            4,
            left="k_at",
            step="k_step",
            size="d",
            right="slopes",
            to="grown",
            tiles=45,
        ),
    }
    text = source.BACKWARD.format(**_names(BLOCK), **parts)
    return toolchain.compile_kernel(text, "attention_grad", independent=True)


def _row_tiles() -> list[Argument]:
    """Tiles of scores: the tallest, of four keys, of one."""
    v = tiles.vectors()
    return [tiles.compile_tile(v, "row", rows) for rows in (v.rows, 4, 1)]


def _column_tiles(size: int) -> list[Argument]:
    """Tiles that cover `size` features evenly: all but the last, the last, the height of the first;
    and both of one vector."""
    v = tiles.vectors()
    count = -(-size // v.most)
    height = -(-size // count)
    last = size - height * (count - 1)
    heights = (height, last)
    wide, narrow = ([tiles.compile_tile(v, "column", rows, n) for rows in heights] for n in (2, 1))
    return [*wide, height, *narrow]


def _bits(x: float) -> int:
    return int(np.float32(x).view(np.int32))


def takes(node: Node) -> bool:
    """Whether the kernels cover a node: f32 of any concrete sizes but empty ones.

    A scale that is not positive would turn the largest score into the smallest.
    """
    types = [v.type for v in node.inputs]
    plain = all(t.dtype is f32 and not t.is_symbolic and 0 not in t.sizes for t in types)
    return plain and 0 < _scale(node) < math.inf


def _scale(node: Node) -> float:
    scale = node.attrs["scale"]
    return 1 / math.sqrt(node.inputs[1].type.sizes[-1]) if scale is None else float(scale)


def _plain(values: Sequence[Value]) -> list[Rows]:
    """Contiguous operands or results as rows."""
    found = [rows_of(whole(v), i) for i, v in enumerate(values)]
    return [rows or Rows(i, 0, (0, 0, 0)) for i, rows in enumerate(found)]


def _refs(where: Literal["input", "output"], places: Sequence[Rows]) -> list[Argument]:
    return [Ref(where, rows.place, 4 * rows.offset) for rows in places]


def _constants(node: Node) -> list[Argument]:
    """The last arguments that both kernels share."""
    scale, v = _scale(node), tiles.vectors()
    numbers = [int(node.attrs["causal"]), _bits(scale), _bits(scale * math.log2(math.e))]
    return [*numbers, compile_turn(tile("f32"), v.lanes)]


def _plan(
    kernel: toolchain.Kernel,
    args: list[Argument],
    units: int,
    flops: int,
    node: Node,
    scratch: int,
) -> Plan:
    values = (*node.inputs, *node.outputs)
    traffic = sum(4 * math.prod(v.type.sizes) for v in values)
    grain = max(1, (1 << 20) * units // max(1, flops))
    return Plan([Stage(kernel, args, units, grain, 4 * scratch, flops, traffic)])


def plan_attention(
    node: Node, reads: Sequence[Rows] | None = None, writes: Sequence[Rows] | None = None
) -> Plan | None:
    """The plan of attention.

    Args:
        node: the attention node.
        reads, writes: where its operands and results lie; contiguous ones by default.
    """
    if not takes(node):
        return None
    reads, writes = reads or _plain(node.inputs), writes or _plain(node.outputs)
    q, _, v = (x.type.sizes for x in node.inputs)
    (queries, d), (keys, e), lanes = q[-2:], v[-2:], tiles.vectors()
    args = [*_refs("input", reads), *_refs("output", writes), queries, keys, d, e]
    args.append(q[-3] if len(q) > 2 else 1)
    for rows in (*reads, writes[0]):
        args += rows.strides
    args += [*_constants(node), tiles.compile_softmax(lanes)]
    args += [*_row_tiles(), *_column_tiles(e), tiles.compile_shrink(lanes)]
    args.append(tiles.compile_fetch())
    args.append(tiles.compile_tile(lanes, "row", lanes.rows, 1))
    pad = -(-max(d, e) // lanes.lanes) * lanes.lanes
    products = math.prod(q[:-2])
    flops = 2 * products * queries * keys * (d + e) // (1 + node.attrs["causal"])
    units = products * -(-queries // lanes.width)
    return _plan(_forward(), args, units, flops, node, lanes.width * (3 * pad + BLOCK + 4))


def plan_attention_grad(
    node: Node, reads: Sequence[Rows] | None = None, writes: Sequence[Rows] | None = None
) -> Plan | None:
    """The plan of attention's gradient; see `plan_attention`."""
    if not takes(node):
        return None
    reads, writes = reads or _plain(node.inputs), writes or _plain(node.outputs)
    _, q, _, v = (x.type.sizes for x in node.inputs[:4])
    (queries, d), (keys, e), lanes = q[-2:], v[-2:], tiles.vectors()
    args = [*_refs("input", reads), *_refs("output", writes), queries, keys, d, e]
    args.append(q[-3] if len(q) > 2 else 1)
    for rows in (*reads[:4], *writes):
        args += rows.strides
    args += [*_constants(node), tiles.compile_weights(lanes)]
    args += [tiles.compile_tile(lanes, "row", lanes.rows, n) for n in (2, 1)]
    args += [*_row_tiles(), *_column_tiles(d), tiles.compile_shrink(lanes)]
    args.append(tiles.compile_fetch())
    pad = -(-max(d, e) // lanes.lanes) * lanes.lanes
    products = math.prod(q[:-2])
    flops = 2 * products * queries * keys * (3 * d + 2 * e) // (1 + node.attrs["causal"])
    scratch = lanes.width * (5 * pad + 2 * (BLOCK + lanes.rows) + 4)
    scratch += 2 * pad * (keys + lanes.rows)
    return _plan(_backward(), args, products, flops, node, scratch)


PLANS = {"attention": plan_attention, "attention_grad": plan_attention_grad}
