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
from tracecc.backends.cpu import conv_vectors as vectors
from tracecc.backends.cpu import gemm, winograd
from tracecc.backends.cpu.conv_bf16 import pair_stage
from tracecc.backends.cpu.conv_planes import (
    GRAIN,
    RUN,
    Geometry,
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
from tracecc.backends.cpu.conv_sums import FEW_ROWS, Sums, add_stages, redirected
from tracecc.backends.cpu.dot import plan_product
from tracecc.backends.cpu.microkernel import tile
from tracecc.backends.schedule_types import Argument, Plan, Ref, Stage
from tracecc_ir.graph import Node


def plan_conv(node: Node) -> Plan | None:
    """The plan of a conv of contiguous operands, or None if one of them is empty."""
    g = geometry(node, node.inputs[0].type.shape, node.inputs[1].type.shape)
    if g is None:
        return None
    if g.pointwise and g.outputs > FEW_ROWS:
        strides = g.channels, (g.channels, 0, 1), (1, g.outputs * g.channels, 0)
        return _plan_pointwise(g, g.outputs, g.channels, strides)
    fast = winograd.plan_forward(g)
    if fast is not None:
        return fast
    layouts, taps = forward_axes(g)
    products = g.images * g.groups
    x, w = (products, g.channels, math.prod(g.sizes)), (g.groups * g.outputs, g.channels, g.taps)
    g, source, weight, stages, temporaries = _operands(g, g.outputs, x, w)
    channels, planes = g.shape.depth(g.channels), len(temporaries)
    count = products * channels
    stages.append(spread_stage(g.read, source, planes, count, layouts))
    temporaries.append(planes_bytes(count * plane_size(layouts), g.itemsize))
    sums = Sums(
        geometry=g,
        planes=planes,
        weight=weight,
        channels=channels,
        outputs=g.outputs,
        layouts=layouts,
        sources=tap_table(layouts, taps),
        weights=range(g.taps),
        weight_strides=(g.outputs * channels * g.taps, channels * g.taps, g.taps),
        counts=g.counts,
        result=None,
    )
    add_stages(sums, stages, temporaries)
    return Plan(stages, temporaries, True, products * g.outputs, g.pixels)


def _operands(
    g: Geometry, outputs: int, x: Three, w: Three
) -> tuple[Geometry, Ref, Ref, list[Stage], list[int]]:
    """The operands, as pairs where the CPU multiplies these and there are enough outputs to do so.

    Args:
        x, w: extents of the operands outside of the dimension that is summed, of it, and inside.

    Returns:
        The geometry for them, both operands, the stages and temporaries that they need.
    """
    stages: list[Stage] = []
    temporaries: list[int] = []
    operands = [Ref("input", 0), Ref("input", 1)]
    if gemm.tile_of(g.dtype).pairs and outputs > FEW_ROWS and x[1] > 1:
        g = replace(g, read=g.kind)
        for i, extents in enumerate((x, w)):
            stage, operands[i] = pair_stage(operands[i], *extents, temporaries)
            stages.append(stage)
    return g, operands[0], operands[1], stages, temporaries


def _plan_pointwise(g: Geometry, m: int, k: int, weight: tuple[int, Three, Three]) -> Plan:
    """A window of one point is a product with the source as it lies; `weight` gives its strides."""
    source = (k, 0, g.pixels), 1, (1, k * g.pixels, 0)
    operands, count = (Ref("input", 1), Ref("input", 0)), g.images * g.groups
    return plan_product(g.dtype, operands, (count, g.groups), (m, g.pixels, k), weight, source)


def plan_input_grad(node: Node) -> Plan | None:
    """The plan of a conv_input_grad of contiguous operands, or None if one of them is empty.

    With a stride, the positions of the result that the same taps reach are a product of their own,
    which is put into its strided place afterwards.
    """
    g = geometry(node, node.outputs[0].type.shape, node.inputs[1].type.shape)
    if g is None:
        return None
    if g.pointwise and g.channels > FEW_ROWS:
        strides = 1, (g.outputs, 0, g.channels), (1, g.outputs * g.channels, 0)
        return _plan_pointwise(g, g.channels, g.outputs, strides)
    fast = winograd.plan_input_grad(g)
    if fast is not None:
        return fast
    axes = [
        axis_classes(*a)
        for a in zip(g.sizes, g.window, g.counts, g.stride, g.low, g.dilation, strict=True)
    ]
    layouts = [layout for _, layout in axes]
    products = g.images * g.groups
    x, w = (products, g.outputs, g.pixels), (g.groups, g.outputs, g.channels * g.taps)
    g, source, weight, stages, temporaries = _operands(g, g.channels, x, w)
    summed, planes = g.shape.depth(g.outputs), len(temporaries)
    count = products * summed
    stages.append(spread_stage(g.read, source, planes, count, layouts))
    temporaries.append(planes_bytes(count * plane_size(layouts), g.itemsize))
    whole = g.stride == (1, 1, 1)
    for residues in itertools.product(*(range(len(classes)) for classes, _ in axes)):
        taps = [axes[i][0][r] for i, r in enumerate(residues)]
        counts = three(
            [-(-(n - r) // s) for n, r, s in zip(g.sizes, residues, g.stride, strict=True)], 1
        )
        result = None if whole else len(temporaries)
        if not whole:
            temporaries.append(max(64, products * g.channels * math.prod(counts) * g.itemsize))
        sources = tap_table(layouts, [[(0, at) for _, at in axis] for axis in taps])
        # Upwards through memory, which is what prefetchers expect.
        reads = sorted(zip(sources, _weight_table(g, taps), strict=True))
        sums = Sums(
            geometry=g,
            planes=planes,
            weight=weight,
            channels=summed,
            outputs=g.channels,
            layouts=layouts,
            sources=[source for source, _ in reads],
            weights=[tap for _, tap in reads],
            weight_strides=(summed * g.channels * g.taps, g.taps, g.channels * g.taps),
            counts=counts,
            result=result,
        )
        add_stages(sums, stages, temporaries)
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
    args: list[Argument] = [Ref("temp", temp), Ref("output"), parts, rows * n, *counts]
    args += [row_stride, first, *strides]
    kernel = compile_source(kernels.PLACE, "place", g.dtype)
    moved = (parts + 1) * rows * n * g.itemsize
    return Stage(kernel, args, rows, max(1, GRAIN // max(1, n * parts)), bytes=moved)


def plan_weight_grad(node: Node) -> Plan | None:
    """The plan of a conv_weight_grad of contiguous operands, or None if one of them is empty."""
    g = geometry(node, node.inputs[0].type.shape, node.outputs[0].type.shape)
    if g is None:
        return None
    fast = winograd.plan_weight_grad(g)
    if fast is not None:
        return fast
    if g.channels * g.outputs <= FEW_ROWS:
        return _plan_direct_weight_grad(g)
    if g.pointwise and _fills_threads(g):
        return _plan_pointwise_weight_grad(g)
    rows = g.groups * g.outputs
    x, w = g.groups * g.channels * math.prod(g.sizes), rows * g.pixels
    extents = (1, g.images, x), (1, g.images, w)
    g, source, gradient, stages, temporaries = _operands(g, g.channels * g.outputs, *extents)
    shape = g.shape
    g = replace(g, images=shape.depth(g.images))
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
    packed, planes, sums = range(len(temporaries), len(temporaries) + 3)
    left = gemm.pack_a_stage(
        g.read,
        shape,
        gradient,
        packed,
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
    args: list[Argument] = [planes_ref(planes, g.itemsize), g.groups, x_part, volume]
    args.append(g.groups * volume)
    steps = three([s * t for s, t in zip(g.stride, step, strict=True)], 1)
    if steps[1] == counts[2] * steps[2]:
        steps = (steps[0], counts[1] * steps[1], steps[2])
        counts = (counts[0], 1, counts[1] * counts[2])
    args += [*counts, *steps, length]
    args += [vectors.compile_copy(shape, walks_taps=False), *table]
    right = Stage(compile_source(kernels.PIXELS, "pixels", g.kind), args, 0)
    stages += [left, _turn_stage(g, source, planes, size), right]
    compute = gemm.compute_stage(
        g.kind, shape, len(stages) - 1, right.kernel, products, products, g.outputs, n, k
    )
    stages.append(redirected(compute, packed, sums))
    place = (1, g.taps, g.channels), n, 0, (0, 1, g.taps)
    stages.append(_place_stage(g, sums, rows, parts, *place))
    temporaries += [
        gemm.packed_bytes(shape, products, g.outputs, k),
        planes_bytes(g.images * g.groups * volume, g.itemsize),
        parts * rows * n * g.itemsize,
    ]
    return Plan(stages, temporaries)


def _fills_threads(g: Geometry) -> bool:
    """Whether a weight's gradient has tiles enough for several threads without cutting its sums."""
    shape = gemm.tile_of(g.dtype)
    tiles = g.groups * -(-g.outputs // shape.mr) * -(-g.channels // shape.nr)
    return tiles >= 8 and (g.pixels % 2 == 0 or not shape.pairs)


def _plan_pointwise_weight_grad(g: Geometry) -> Plan:
    """A product whose sums run over the pixels of all images, both operands as they lie."""
    k_left, k_right = (
        (g.pixels, g.groups * planes * g.pixels, 1) for planes in (g.outputs, g.channels)
    )
    return plan_product(
        g.dtype,
        (Ref("input", 1), Ref("input", 0)),
        (g.groups, g.groups),
        (g.outputs, g.channels, g.images * g.pixels),
        (g.pixels, k_left, (1, g.outputs * g.pixels, 0)),
        (k_right, g.pixels, (1, g.channels * g.pixels, 0)),
    )


def _plan_direct_weight_grad(g: Geometry) -> Plan:
    layouts, taps = forward_axes(g)
    planes = g.images * g.groups * g.channels
    spread = spread_stage(g.dtype, Ref("input", 0), 0, planes, layouts)
    table = tap_table(layouts, taps)
    args: list[Argument] = [planes_ref(0, g.itemsize), Ref("input", 1), Ref("output")]
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


def _turn_stage(g: Geometry, source: Ref, temp: int, size: Three) -> Stage:
    """Copies the input into padded planes [image, group, *size, channels] in a temporary."""
    line = size[2] * g.channels
    args: list[Argument] = [source, planes_ref(temp, g.itemsize), g.channels]
    turn = vectors.compile_transpose(tile(g.kind), widens=g.read == "bf16")
    args += [*g.sizes, *size, *g.low, turn, g.channels]
    units = g.images * g.groups * size[0] * size[1]
    moved = 2 * units * line * g.itemsize
    return Stage(
        compile_source(kernels.TURN, "turn", g.read),
        args,
        units,
        max(1, GRAIN // line),
        bytes=moved,
    )
