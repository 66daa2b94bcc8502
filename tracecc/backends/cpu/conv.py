"""Convolution and its gradients as matrix products whose right operand is gathered while packing.

A first stage copies the source into planes padded with zeros, split by the phases of the stride
(channels last for the weight's gradient): every row that a packing function gathers is then
contiguous and needs no test for edges.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from tracecc.backends.cpu import conv_kernels as kernels
from tracecc.backends.cpu import gemm
from tracecc.backends.cpu.conv_planes import (
    GRAIN,
    RUN,
    Geometry,
    Layout,
    Tap,
    Three,
    axis_classes,
    compile_source,
    forward_axes,
    geometry,
    patch_slots,
    plane_size,
    planes_bytes,
    planes_ref,
    spread_stage,
    tap_table,
    three,
)
from tracecc.backends.cpu.microkernel import tile
from tracecc.backends.schedule_types import Plan, Ref, Stage
from tracecc_ir.graph import Node

# With at most so many rows a product wastes more of the register tile than packing saves.
_FEW_ROWS = 4


def _patches_stage(
    kind: str,
    temp: int,
    channels: int,
    layouts: Sequence[Layout],
    taps: Sequence[Sequence[Tap]],
    counts: Three,
) -> Stage:
    """The packing function of patches of the padded planes in temporary `temp`.

    Args:
        channels: planes of each product.
        taps: along each dimension.
        counts: pixels along each dimension.
    """
    table = tap_table(layouts, taps)
    args: list[Ref | int] = [planes_ref(temp, tile(kind).itemsize)]
    args += patch_slots(channels, layouts, table, counts)
    args += [kernels.compile_copy(tile(kind), walks_taps=True).address, *table]
    return Stage(compile_source(kernels.PATCHES, "patches", kind), args, 0)


def _direct_stage(
    g: Geometry,
    planes: int,
    channels: int,
    outputs: int,
    layouts: Sequence[Layout],
    sources: Sequence[int],
    weights: Sequence[int],
    weight_strides: Three,
    counts: Three,
    result: int | None,
) -> Stage:
    """A convolution without a product, of the padded planes in temporary `planes`.

    Args:
        channels, outputs: of one group.
        sources, weights: where each tap lies in the planes and in the weight.
        weight_strides: of a group, an output and a channel.
        result: the temporary for the result; None stores the output or calls the epilogue.
    """
    args: list[Ref | int] = [planes_ref(planes, g.itemsize), Ref("input", 1)]
    if result is None:
        args += [Ref("output"), Ref("epilogue"), Ref("epilogue_args")]
    else:
        args += [Ref("temp", result), 0, 0]
    args += patch_slots(channels, layouts, sources, counts)
    args += [counts[0], outputs, g.groups, *weight_strides]
    for source, weight in zip(sources, weights, strict=True):
        args += [source, weight]
    work = channels * len(sources) * math.prod(counts)
    units = g.images * g.groups * outputs
    return Stage(
        compile_source(kernels.DIRECT, "direct", g.dtype, g.dtype if result is None else g.kind),
        args,
        units,
        max(1, 2 * GRAIN // max(1, work)),
        scratch=RUN * g.itemsize,
        flops=2 * units * work,
        bytes=(plane_size(layouts) * channels // outputs + math.prod(counts)) * units * g.itemsize,
    )


def plan_conv(node: Node) -> Plan | None:
    """The plan of a conv of contiguous operands, or None if one of them is empty."""
    g = geometry(node, node.inputs[0].type.shape, node.inputs[1].type.shape)
    if g is None:
        return None
    layouts, taps = forward_axes(g)
    k = g.channels * g.taps
    planes = g.images * g.groups * g.channels
    products = g.images * g.groups
    rows = products * g.outputs
    padded = planes_bytes(planes * plane_size(layouts), g.itemsize)
    if g.outputs <= _FEW_ROWS:
        spread = spread_stage(g.dtype, Ref("input", 0), 0, planes, layouts)
        sources, strides = tap_table(layouts, taps), (g.outputs * k, k, g.taps)
        direct = _direct_stage(
            g, 0, g.channels, g.outputs, layouts, sources, range(g.taps), strides, g.counts, None
        )
        return Plan([spread, direct], [padded], True, rows, g.pixels)
    weight = gemm.pack_a_stage(
        g.dtype, Ref("input", 1), 0, g.groups, g.outputs, k, k, (k, 0, 1), (1, g.outputs * k, 0)
    )
    spread = spread_stage(g.dtype, Ref("input", 0), 1, planes, layouts)
    patches = _patches_stage(g.kind, 1, g.channels, layouts, taps, g.counts)
    compute = gemm.compute_stage(
        g.dtype, 2, patches.kernel.address, products, g.groups, g.outputs, g.pixels, k
    )
    temporaries = [gemm.packed_bytes(g.dtype, g.groups, g.outputs, k), padded]
    return Plan([weight, spread, patches, compute], temporaries, True, rows, g.pixels)


def plan_input_grad(node: Node) -> Plan | None:
    """The plan of a conv_input_grad of contiguous operands, or None if one of them is empty.

    With a stride, the positions of the result that the same taps reach are a product of their own,
    which is put into its strided place afterwards.
    """
    g = geometry(node, node.outputs[0].type.shape, node.inputs[1].type.shape)
    if g is None:
        return None
    axes = [
        axis_classes(*a)
        for a in zip(g.sizes, g.window, g.counts, g.stride, g.low, g.dilation, strict=True)
    ]
    layouts = [layout for _, layout in axes]
    products = g.images * g.groups
    planes = products * g.outputs
    stages = [spread_stage(g.dtype, Ref("input", 0), 0, planes, layouts)]
    temporaries = [planes_bytes(planes * plane_size(layouts), g.itemsize)]
    whole = g.stride == (1, 1, 1)
    for residues in itertools.product(*(range(len(classes)) for classes, _ in axes)):
        taps = [axes[i][0][r] for i, r in enumerate(residues)]
        counts = three(
            [-(-(n - r) // s) for n, r, s in zip(g.sizes, residues, g.stride, strict=True)], 1
        )
        k, n = g.outputs * math.prod(map(len, taps)), math.prod(counts)
        result = None if whole else len(temporaries)
        if not whole:
            temporaries.append(max(64, products * g.channels * n * g.itemsize))
        starts = [[(0, at) for _, at in axis] for axis in taps]
        if g.channels <= _FEW_ROWS:
            sources, weights = tap_table(layouts, starts), _weight_table(g, taps)
            strides = (g.outputs * g.channels * g.taps, g.taps, g.channels * g.taps)
            stages.append(
                _direct_stage(
                    g, 0, g.outputs, g.channels, layouts, sources, weights, strides, counts, result
                )
            )
        else:
            packed = len(temporaries)
            temporaries.append(gemm.packed_bytes(g.dtype, g.groups, g.channels, k))
            stages.append(_pack_weight_stage(g, packed, taps))
            stages.append(_patches_stage(g.kind, 0, g.outputs, layouts, starts, counts))
            compute = gemm.compute_stage(
                g.dtype if whole else g.kind,
                len(stages) - 1,
                stages[-1].kernel.address,
                products,
                g.groups,
                g.channels,
                n,
                k,
            )
            stages.append(_redirected(compute, packed, result))
        if result is None:
            continue
        place = (g.sizes[1] * g.sizes[2], g.sizes[2], 1)
        first = sum(r * p for r, p in zip(residues, place, strict=True))
        steps = three([s * p for s, p in zip(g.stride, place, strict=True)], 1)
        rows = products * g.channels
        stages.append(_place_stage(g, result, rows, 1, counts, math.prod(g.sizes), first, steps))
    return Plan(stages, temporaries, whole, products * g.channels, math.prod(g.sizes))


def _weight_table(g: Geometry, taps: Sequence[Sequence[Tap]]) -> list[int]:
    """Where each tap lies in the weight."""
    step = (g.window[1] * g.window[2], g.window[2], 1)
    return [
        sum(i * s for (i, _), s in zip(tap, step, strict=True)) for tap in itertools.product(*taps)
    ]


def _pack_weight_stage(g: Geometry, temp: int, taps: Sequence[Sequence[Tap]]) -> Stage:
    """Packs, for each group, the weight [outputs, channels, taps] as [channels, outputs, taps]."""
    table = _weight_table(g, taps)
    panels = -(-g.channels // tile(g.kind).mr)
    args: list[Ref | int] = [Ref("input", 1), Ref("temp", temp), g.channels, g.outputs, len(table)]
    args += [g.taps, g.channels * g.taps, *table]
    work = g.outputs * len(table) * tile(g.kind).mr
    moved = 2 * g.groups * panels * work * g.itemsize
    kernel = compile_source(kernels.PACK_WEIGHT, "pack_weight", g.dtype)
    return Stage(kernel, args, g.groups * panels, max(1, GRAIN // max(1, work)), bytes=moved)


def _redirected(compute: Stage, packed: int, result: int | None) -> Stage:
    """A product with its left operand in temporary `packed`, its result in a temporary or output.

    Only a product that goes to the output takes an epilogue.
    """
    args = list(compute.args)
    args[0] = Ref("temp", packed)
    if result is not None:
        args[3:6] = [Ref("temp", result), 0, 0]
    return replace(compute, args=args)


def _place_stage(
    g: Geometry,
    temp: int,
    rows: int,
    parts: int,
    counts: Three,
    row_stride: int,
    first: int,
    strides: Three,
) -> Stage:
    """Sums `parts` products [rows, counts] in temporary `temp` into places of the output."""
    n = math.prod(counts)
    args: list[Ref | int] = [Ref("temp", temp), Ref("output"), parts, rows * n, *counts]
    args += [row_stride, first, *strides]
    kernel = compile_source(kernels.PLACE, "place", g.dtype)
    moved = (parts + 1) * rows * n * g.itemsize
    return Stage(kernel, args, rows, max(1, GRAIN // max(1, n * parts)), bytes=moved)


def plan_weight_grad(node: Node) -> Plan | None:
    """The plan of a conv_weight_grad of contiguous operands, or None if one of them is empty."""
    g = geometry(node, node.inputs[0].type.shape, node.outputs[0].type.shape)
    if g is None:
        return None
    if g.channels * g.outputs <= _FEW_ROWS:
        return _plan_direct_weight_grad(g)
    size = three(
        [
            (count - 1) * s + (k - 1) * d + 1
            for count, k, s, d in zip(g.counts, g.window, g.stride, g.dilation, strict=True)
        ],
        1,
    )
    step = (size[1] * size[2] * g.channels, size[2] * g.channels, g.channels)
    volume = size[0] * step[0]
    n = g.channels * g.taps
    parts = _parts(g, n)
    images = max(1, g.images // parts) if g.images > 1 else 1
    counts = g.counts
    g_part, x_part = images * g.groups * g.outputs * g.pixels, images * g.groups * volume
    if g.images == 1:
        counts = three([g.counts[0], g.counts[1] // parts, g.counts[2]], 1)
        g_part, x_part = math.prod(counts), counts[1] * g.stride[1] * step[1]
    pixels = math.prod(counts)
    k, products = images * pixels, parts * g.groups
    left = gemm.pack_a_stage(
        g.dtype,
        Ref("input", 1),
        0,
        products,
        g.outputs,
        k,
        g.pixels,
        (pixels, g.groups * g.outputs * g.pixels, 1),
        (g.groups, g_part, g.outputs * g.pixels),
    )
    merged = g.dilation[2] == 1
    table = [
        sum(i * d * t for i, d, t in zip(tap, g.dilation, step, strict=True))
        for tap in itertools.product(*map(range, (*g.window[:2], 1 if merged else g.window[2])))
    ]
    length = g.channels * g.window[2] if merged else g.channels
    args: list[Ref | int] = [planes_ref(1, g.itemsize), g.groups, x_part, volume, g.groups * volume]
    steps = three([s * t for s, t in zip(g.stride, step, strict=True)], 1)
    if steps[1] == counts[2] * steps[2]:
        steps = (steps[0], counts[1] * steps[1], steps[2])
        counts = (counts[0], 1, counts[1] * counts[2])
    args += [*counts, *steps, length]
    args += [kernels.compile_copy(tile(g.kind), walks_taps=False).address, *table]
    right = Stage(compile_source(kernels.PIXELS, "pixels", g.kind), args, 0)
    compute = gemm.compute_stage(
        g.kind, 2, right.kernel.address, products, products, g.outputs, n, k
    )
    rows = g.groups * g.outputs
    stages = [left, _turn_stage(g, 1, size), right, _redirected(compute, 0, 2)]
    stages.append(_place_stage(g, 2, rows, parts, (1, g.taps, g.channels), n, 0, (0, 1, g.taps)))
    temporaries = [
        gemm.packed_bytes(g.dtype, products, g.outputs, k),
        planes_bytes(g.images * g.groups * volume, g.itemsize),
        parts * rows * n * g.itemsize,
    ]
    return Plan(stages, temporaries)


def _plan_direct_weight_grad(g: Geometry) -> Plan:
    layouts, taps = forward_axes(g)
    planes = g.images * g.groups * g.channels
    spread = spread_stage(g.dtype, Ref("input", 0), 0, planes, layouts)
    table = tap_table(layouts, taps)
    args: list[Ref | int] = [planes_ref(0, g.itemsize), Ref("input", 1), Ref("output")]
    args += [g.images, g.groups, *patch_slots(g.channels, layouts, table, g.counts)]
    args += [g.counts[0], g.outputs, *table]
    direct = Stage(
        compile_source(kernels.DIRECT_WEIGHT, "direct_weight", g.dtype),
        args,
        g.groups * g.outputs * g.channels,
        scratch=RUN * g.taps * g.itemsize,
        flops=2 * planes * g.outputs * g.pixels * g.taps,
        bytes=planes * (plane_size(layouts) + g.outputs * g.pixels) * g.itemsize,
    )
    return Plan([spread, direct], [planes_bytes(planes * plane_size(layouts), g.itemsize)])


def _parts(g: Geometry, n: int) -> int:
    """Into how many sums a weight's gradient is split, so that there is work for many threads."""
    extent = g.images
    if g.images == 1:
        extent = g.counts[1] if g.counts[0] == 1 else 1
    wanted = -(-8 // (g.groups * -(-n // gemm.NB)))
    found = [p for p in range(1, min(extent, 16) + 1) if extent % p == 0]
    return next((p for p in found if p >= wanted), found[-1])


def _turn_stage(g: Geometry, temp: int, size: Three) -> Stage:
    """Copies the input into padded planes [image, group, *size, channels] in a temporary."""
    line = size[2] * g.channels
    args: list[Ref | int] = [Ref("input", 0), planes_ref(temp, g.itemsize), g.channels]
    args += [*g.sizes, *size, *g.low]
    units = g.images * g.groups * size[0] * size[1]
    moved = 2 * units * line * g.itemsize
    return Stage(
        compile_source(kernels.TURN, "turn", g.dtype),
        args,
        units,
        max(1, GRAIN // line),
        bytes=moved,
    )
