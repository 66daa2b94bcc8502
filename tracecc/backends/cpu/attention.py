"""Attention and its gradient as one streaming kernel each: no matrix of scores is ever stored."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracecc.backends.cpu import attention_kernels as source
from tracecc.backends.cpu import attention_tiles as tiles
from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.microkernel import compile_turn, tile
from tracecc.backends.schedule_types import Plan, Ref, Stage
from tracecc_ir.graph import Node
from tracecc_ir.types import TensorType, f32

BLOCK = 128  # Keys whose scores exist at a time.

Strides = tuple[int, int, int]


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


def _scores(depth: int, left: str, step: str, size: str, turned: str, to: str, tiles: int) -> str:
    names = {"left": left, "step": step, "size": size, "turned": turned, "to": to, "tiles": tiles}
    return _part(source.SCORES, depth, **names)


def _forward() -> toolchain.Kernel:
    parts = {
        "pack_q_part": _part(source.PACK, 2, rows="rows", source="q", turned="turned"),
        "scores_part": _scores(3, "k_at", "k_step", "d", "turned", "scores", 27),
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
        "pack_g_part": _part(source.PACK, 3, rows="g_rows", source="g", turned="g_turned"),
        "pack_q_part": _part(source.PACK, 3, rows="q_rows", source="q", turned="q_turned"),
        "scores_part": _scores(4, "k_at", "k_step", "d", "q_turned", "scores", 42),
        "slopes_part": _scores(4, "v_at", "v_step", "e", "g_turned", "slopes", 42),
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


def _row_tiles() -> list[int]:
    """Tiles of scores: the tallest, of four keys, of one."""
    v = tiles.vectors()
    return [tiles.compile_tile(v, "row", rows).address for rows in (v.rows, 4, 1)]


def _column_tiles(size: int) -> list[int]:
    """Tiles that cover `size` features evenly: all but the last, the last, and the height."""
    v = tiles.vectors()
    count = -(-size // v.most)
    height = -(-size // count)
    last = size - height * (count - 1)
    made = [tiles.compile_tile(v, "column", rows).address for rows in (height, last)]
    return [*made, height]


def _bits(x: float) -> int:
    return int(np.float32(x).view(np.int32))


def _plain(type: TensorType) -> Strides:
    """Strides of (all heads, nothing, rows) of a contiguous operand."""
    rows, size = type.sizes[-2:]
    return rows * size, 0, size


def _scale(node: Node) -> float:
    scale = node.attrs["scale"]
    return 1 / math.sqrt(node.inputs[-1].type.sizes[-1]) if scale is None else float(scale)


def _covers(operands: Sequence[TensorType], scale: float) -> bool:
    """Any sizes but empty ones; a negative scale would turn the maximum into a minimum."""
    return all(t.dtype is f32 and 0 not in t.sizes for t in operands) and 0 < scale < math.inf


def plan_attention(node: Node) -> Plan | None:
    """The plan of attention on contiguous f32 operands."""
    types = [v.type for v in node.inputs]
    if any(t.is_symbolic for t in types):
        return None
    q, k, v = types
    scale = node.attrs["scale"]
    scale = 1 / math.sqrt(q.sizes[-1]) if scale is None else float(scale)
    if not _covers(types, scale):
        return None
    out = node.outputs[0].type
    (queries, d), (keys, e) = q.sizes[-2:], v.sizes[-2:]
    products = math.prod(q.sizes[:-2])
    lanes = tiles.vectors()
    args: list[Ref | int] = [Ref("input", i) for i in range(3)]
    args += [Ref("output", 0), Ref("output", 1), queries, keys, d, e, 1]
    for t in (q, k, v, out):
        args += _plain(t)
    args += [int(node.attrs["causal"]), _bits(scale), _bits(scale * math.log2(math.e))]
    args += [compile_turn(tile("f32"), lanes.lanes).address, tiles.compile_softmax(lanes).address]
    args += [*_row_tiles(), *_column_tiles(e), tiles.compile_shrink(lanes).address]
    pad = -(-max(d, e) // lanes.lanes) * lanes.lanes
    seen = keys / 2 if node.attrs["causal"] else keys
    flops = int(2 * products * queries * seen * (d + e))
    units = products * -(-queries // lanes.width)
    stage = Stage(
        _forward(),
        args,
        units,
        max(1, (1 << 20) * units // max(1, flops)),
        scratch=4 * lanes.width * (3 * pad + BLOCK + 4),
        flops=flops,
        bytes=sum(4 * math.prod(t.sizes) for t in (q, k, v, out)),
    )
    return Plan([stage])


def plan_attention_grad(node: Node) -> Plan | None:
    """The plan of attention's gradient on contiguous f32 operands."""
    types = [v.type for v in node.inputs]
    if any(t.is_symbolic for t in types):
        return None
    g, q, k, v = types[:4]
    scale = node.attrs["scale"]
    scale = 1 / math.sqrt(q.sizes[-1]) if scale is None else float(scale)
    if not _covers(types, scale):
        return None
    (queries, d), (keys, e) = q.sizes[-2:], v.sizes[-2:]
    products = math.prod(q.sizes[:-2])
    lanes = tiles.vectors()
    args: list[Ref | int] = [Ref("input", i) for i in range(6)]
    args += [Ref("output", i) for i in range(3)]
    args += [queries, keys, d, e, 1]
    for t in (g, q, k, v, q, k, v):
        args += _plain(t)
    args += [int(node.attrs["causal"]), _bits(scale), _bits(scale * math.log2(math.e))]
    args += [compile_turn(tile("f32"), lanes.lanes).address, tiles.compile_weights(lanes).address]
    args += [tiles.compile_tile(lanes, "row", lanes.rows, n).address for n in (2, 1)]
    args += [*_row_tiles(), *_column_tiles(d)]
    pad = -(-max(d, e) // lanes.lanes) * lanes.lanes
    seen = keys / 2 if node.attrs["causal"] else keys
    flops = int(2 * products * queries * seen * (3 * d + 2 * e))
    tall = BLOCK + lanes.rows
    stage = Stage(
        _backward(),
        args,
        products,
        max(1, (1 << 20) * products // max(1, flops)),
        scratch=4 * lanes.width * (5 * pad + 2 * tall + 4) + 8 * pad * (keys + lanes.rows),
        flops=flops,
        bytes=2 * sum(4 * math.prod(t.sizes) for t in (g, q, k, v)),
    )
    return Plan([stage])
