"""Plans of sliding windows: maxima with positions, sums and the gradient of sums.

Windows have three dimensions here, the leading ones of size 1 where the op has fewer. A unit is one
row of the result. Each tap of the window is one pass over that row, which LLVM vectorises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.scatter import load_name, storage_name, store_name, wide_name
from tracecc.backends.schedule_types import Argument, Plan, Ref, Stage
from tracecc_ir.graph import Node
from tracecc_ir.types import DType

GRAIN = 1 << 14  # taps
MOST_DIMS = 3

_NAMES = (
    *("depth", "height", "width", "out_depth", "out_height", "out_width", "kd", "kh", "kw"),
    *("sd", "sh", "sw", "ld", "lh", "lw", "dd", "dh", "dw"),
)
_GEOMETRY = "".join(f"    {name} = i64_arg(args, {3 + i})\n" for i, name in enumerate(_NAMES))

# Column i of a row of windows reads column i * sw + shift; [first, last) are those that exist.
_TAPS = """
        for a in range(kd):
            iz = z * sd - ld + a * dd
            if iz >= 0 and iz < depth:
                for b in range(kh):
                    iy = y * sh - lh + b * dh
                    if iy >= 0 and iy < height:
                        row = (iz * height + iy) * width
                        for c in range(kw):
                            shift = c * dw - lw
                            first = (sw - 1 - shift) // sw if shift < 0 else 0
                            last = minimum(out_width, (width - 1 - shift) // sw + 1)
                            at = base + row + shift
                            if sw == 1:
                                for i in range(first, last):
                                    v = {load}(x[at + i])
                                    {near}
                            elif sw == 2:
                                for i in range(first, last):
                                    v = {load}(x[at + i * 2])
                                    {pair}
                            else:
                                for i in range(first, last):
                                    v = {load}(x[at + i * sw])
                                    {far}
"""

_MAX = """
def window_max(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = {storage}_ptr(args, 1)
    p = i64_ptr(args, 2)
    t = {kind}_at(scratch)
{geometry}
    for u in range(begin, end):
        y = u % out_height
        z = u // out_height % out_depth
        base = u // (out_height * out_depth) * depth * height * width
        to = u * out_width
        for i in range(out_width):
            t[i] = {kind}({lowest})
            p[to + i] = -1
{taps}
        for i in range(out_width):
            o[to + i] = {store}(t[i])
            p[to + i] = maximum(p[to + i], 0)
"""

_BEST = """
                                    m = t[i]
                                    f = p[to + i]
                                    better = bit_or(v > m, bit_and(v != v, m == m))
                                    better = bit_or(better, f < 0)
                                    t[i] = select(better, v, m)
                                    p[to + i] = select(better, row + shift + i * {step}, f)
"""

# Windows of 2 by 2 side by side, the common case.
_MAX_PAIRS = """
def window_max_pairs(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = {storage}_ptr(args, 1)
    p = i64_ptr(args, 2)
    height = i64_arg(args, 3)
    width = i64_arg(args, 4)
    out_height = i64_arg(args, 5)
    out_width = i64_arg(args, 6)
    for u in range(begin, end):
        row = u % out_height * 2 * width
        base = u // out_height * height * width
        to = u * out_width
        for i in range(out_width):
            f = row + 2 * i
            m = {load}(x[base + f])
            v = {load}(x[base + f + 1])
            better = bit_or(v > m, bit_and(v != v, m == m))
            m = select(better, v, m)
            best = select(better, f + 1, f)
            v = {load}(x[base + f + width])
            better = bit_or(v > m, bit_and(v != v, m == m))
            m = select(better, v, m)
            best = select(better, f + width, best)
            v = {load}(x[base + f + width + 1])
            better = bit_or(v > m, bit_and(v != v, m == m))
            o[to + i] = {store}(select(better, v, m))
            p[to + i] = select(better, f + width + 1, best)
"""

_SUM = """
def window_sum(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = {storage}_ptr(args, 1)
    t = {kind}_at(scratch)
{geometry}
    for u in range(begin, end):
        y = u % out_height
        z = u // out_height % out_depth
        base = u // (out_height * out_depth) * depth * height * width
        to = u * out_width
        for i in range(out_width):
            t[i] = {kind}(0)
{taps}
        for i in range(out_width):
            o[to + i] = {store}(t[i])
"""

# Units are rows of the input's gradient, which gather from the windows that cover them.
_SUM_GRAD = """
def window_sum_grad(args, begin, end, scratch):
    g = {storage}_ptr(args, 0)
    o = {storage}_ptr(args, 1)
    t = {kind}_at(scratch)
{geometry}
    for u in range(begin, end):
        y = u % height
        z = u // height % depth
        plane = u // (height * depth)
        for i in range(width):
            t[i] = {kind}(0)
        for a in range(kd):
            qz = z + ld - a * dd
            if qz >= 0 and qz % sd == 0 and qz // sd < out_depth:
                for b in range(kh):
                    qy = y + lh - b * dh
                    if qy >= 0 and qy % sh == 0 and qy // sh < out_height:
                        at = ((plane * out_depth + qz // sd) * out_height + qy // sh) * out_width
                        for c in range(kw):
                            shift = c * dw - lw
                            first = (sw - 1 - shift) // sw if shift < 0 else 0
                            last = minimum(out_width, (width - 1 - shift) // sw + 1)
                            if sw == 1:
                                for i in range(first, last):
                                    t[i + shift] = add(t[i + shift], {load}(g[at + i]))
                            else:
                                for i in range(first, last):
                                    j = i * sw + shift
                                    t[j] = add(t[j], {load}(g[at + i]))
        for i in range(width):
            o[u * width + i] = {store}(t[i])
"""


def _lowest(dtype: DType) -> str:
    if dtype.kind == "float":
        return "-1e999"
    return f"{-(2 ** (dtype.bits - 1)) + 1} - 1" if dtype.is_signed else "0"


def _three(values: Sequence[int], fill: int) -> list[int]:
    return [fill] * (MOST_DIMS - len(values)) + list(values)


def _geometry(node: Node, inner: tuple[int, ...], outer: tuple[int, ...]) -> list[int]:
    """The arguments that _NAMES lists."""
    attrs = node.attrs
    rank = len(attrs["window"])
    values = [*_three(inner[len(inner) - rank :], 1), *_three(outer[len(outer) - rank :], 1)]
    values += [*_three(attrs["window"], 1), *_three(attrs["stride"], 1)]
    values += _three([low for low, _ in attrs["padding"]], 0)
    return values + _three(attrs["dilation"], 1)


def _fill(dtype: DType) -> dict[str, str]:
    return {
        "storage": storage_name(dtype),
        "kind": wide_name(dtype),
        "load": load_name(dtype),
        "store": store_name(dtype),
        "lowest": _lowest(dtype),
        "geometry": _GEOMETRY,
    }


def _stage(text: str, entry: str, args: list[Argument], node: Node, row: int) -> Stage:
    """A stage whose units are rows of the first result."""
    kernel = toolchain.compile_kernel(text, entry, independent=True)
    y = node.outputs[0].type
    elements = math.prod(y.sizes)
    taps = math.prod(node.attrs["window"])
    return Stage(
        kernel,
        args,
        elements // max(row, 1),
        max(1, GRAIN // max(1, row * taps)),
        scratch=row * max(y.dtype.itemsize, 4),
        flops=elements * taps,
        bytes=sum(math.prod(v.type.sizes) * v.type.dtype.itemsize for v in node.outputs),
    )


def plan_window_max(node: Node) -> Plan | None:
    """The plan of a window_max over at most three dimensions."""
    x, y, attrs = node.inputs[0].type, node.outputs[0].type, node.attrs
    if len(attrs["window"]) > MOST_DIMS:
        return None
    fill = _fill(x.dtype)
    pointers: list[Argument] = [Ref("input"), Ref("output", 0), Ref("output", 1)]
    pairs = attrs["window"] == attrs["stride"] == (2, 2) and attrs["dilation"] == (1, 1)
    if pairs and not any(map(any, attrs["padding"])):
        args = [*pointers, *x.sizes[-2:], *y.sizes[-2:]]
        stage = _stage(_MAX_PAIRS.format(**fill), "window_max_pairs", args, node, y.sizes[-1])
        return Plan([stage])
    near, pair, far = (_BEST.format(step=step).strip() for step in ("1", "2", "sw"))
    taps = _TAPS.format(near=near, pair=pair, far=far, **fill)
    args = [*pointers, *_geometry(node, x.sizes, y.sizes)]
    text = _MAX.format(taps=taps, **fill)
    return Plan([_stage(text, "window_max", args, node, y.sizes[-1])])


def plan_window_sum(node: Node) -> Plan | None:
    """The plan of a window_sum over at most three dimensions; halves are summed in f32."""
    x, y = node.inputs[0].type, node.output.type
    if len(node.attrs["window"]) > MOST_DIMS:
        return None
    fill = _fill(x.dtype)
    add = "t[i] = add(t[i], v)"
    taps = _TAPS.format(near=add, pair=add, far=add, **fill)
    args: list[Argument] = [Ref("input"), Ref("output"), 0, *_geometry(node, x.sizes, y.sizes)]
    return Plan([_stage(_SUM.format(taps=taps, **fill), "window_sum", args, node, y.sizes[-1])])


def plan_window_sum_grad(node: Node) -> Plan | None:
    """The plan of a window_sum_grad over at most three dimensions."""
    g, x = node.inputs[0].type, node.output.type
    if len(node.attrs["window"]) > MOST_DIMS:
        return None
    args: list[Argument] = [Ref("input"), Ref("output"), 0, *_geometry(node, x.sizes, g.sizes)]
    text = _SUM_GRAD.format(**_fill(x.dtype))
    return Plan([_stage(text, "window_sum_grad", args, node, x.sizes[-1])])
