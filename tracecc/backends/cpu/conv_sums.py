"""The sums over channels and taps of padded planes that are a convolution or part of one.

Three ways: register tiles that read the planes where they lie; a product with packed patches, where
rows are too short for that; and plain loops, where a group has too few outputs for a tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tracecc.backends.cpu import conv_kernels as kernels
from tracecc.backends.cpu import conv_vectors as vectors
from tracecc.backends.cpu import gemm
from tracecc.backends.cpu.blocking import MOST_ROWS
from tracecc.backends.cpu.conv_planes import (
    GRAIN,
    RUN,
    Geometry,
    Layout,
    Three,
    compile_source,
    patch_slots,
    plane_size,
    planes_ref,
)
from tracecc.backends.schedule_types import Argument, Ref, Stage

# With at most so many rows a product wastes more of the register tile than it saves.
FEW_ROWS = 4
# What packing a column costs, in rows of a product.
_PACKING = 8


@dataclass(frozen=True)
class Sums:
    """Sums over the channels and taps of padded planes.

    Attributes:
        geometry: of the convolution they belong to.
        planes: the temporary that holds the padded planes.
        weight: the other operand.
        channels, outputs: summed over (as elements) and produced in each group.
        layouts: of the planes.
        sources, weights: where each tap lies in a plane and in the weight.
        weight_strides: of a group, an output and a channel.
        counts: results along each dimension.
        result: the temporary for the result; None stores the output or calls the epilogue.
    """

    geometry: Geometry
    planes: int
    weight: Ref
    channels: int
    outputs: int
    layouts: Sequence[Layout]
    sources: Sequence[int]
    weights: Sequence[int]
    weight_strides: Three
    counts: Three
    result: int | None

    @property
    def products(self) -> int:
        return self.geometry.images * self.geometry.groups

    @property
    def k(self) -> int:
        return self.channels * len(self.sources)

    @property
    def stored(self) -> str:
        """The dtype of the result."""
        return self.geometry.dtype if self.result is None else self.geometry.kind

    def slots(self) -> list[int]:
        return patch_slots(self.channels, self.layouts, self.sources, self.counts)

    def target(self) -> list[Argument]:
        """The addresses of the result, the epilogue and its arguments."""
        if self.result is None:
            return [Ref("output"), Ref("epilogue"), Ref("epilogue_args")]
        return [Ref("temp", self.result), 0, 0]


def add_stages(s: Sums, stages: list[Stage], temporaries: list[int]) -> None:
    """Appends the stages that compute `s`, the last of which takes the epilogue."""
    g = s.geometry
    if s.outputs <= FEW_ROWS:
        stages.append(_direct_stage(s))
        return
    mr = _rows_of_tile(s)
    packed = len(temporaries)
    unpacked = _reads_planes(s, mr)
    mr = mr if unpacked else g.shape.mr
    panels = -(-s.outputs // mr)
    temporaries.append(max(64, g.groups * panels * mr * s.k * g.itemsize))
    stages.append(_pack_weight_stage(s, packed, mr))
    if unpacked:
        stages.append(_tiles_stage(s, packed, mr))
        return
    stages.append(_patches_stage(s))
    compute = gemm.compute_stage(
        s.stored,
        g.shape,
        len(stages) - 1,
        stages[-1].kernel,
        s.products,
        g.groups,
        s.outputs,
        math.prod(s.counts),
        s.k,
    )
    stages.append(redirected(compute, packed, s.result))


def redirected(compute: Stage, packed: int, result: int | None) -> Stage:
    """A product with its left operand in temporary `packed`, its result in a temporary or output.

    Only a product that goes to the output takes an epilogue.
    """
    args = list(compute.args)
    args[0] = Ref("temp", packed)
    if result is not None:
        args[3:6] = [Ref("temp", result), 0, 0]
    return replace(compute, args=args)


def _rows_of_tile(s: Sums) -> int:
    """The rows of a tile that divide the outputs most evenly."""
    panels = -(-s.outputs // s.geometry.shape.mr)
    return -(-s.outputs // panels)


def _run(s: Sums) -> int:
    """Padded positions from the first to the last result of a layer."""
    _, _, _, width, height, row, _ = s.slots()
    return (height - 1) * row + width


def _reads_planes(s: Sums, mr: int) -> bool:
    """Whether results between the rows cost less than packing."""
    shape = s.geometry.shape
    pixels = s.counts[1] * s.counts[2]
    rows = -(-s.outputs // shape.mr) * shape.mr + _PACKING
    packed = -(-pixels // shape.nr) * shape.nr * rows
    return -(-_run(s) // shape.nr) * shape.nr * -(-s.outputs // mr) * mr <= packed


def _pack_weight_stage(s: Sums, temp: int, mr: int) -> Stage:
    g = s.geometry
    panels = -(-s.outputs // mr)
    args: list[Argument] = [s.weight, Ref("temp", temp), s.outputs, s.channels]
    group, row, channel = s.weight_strides
    args += [len(s.weights), row, channel, group, mr, *s.weights]
    work = s.k * mr
    moved = 2 * g.groups * panels * work * g.itemsize
    kernel = compile_source(kernels.PACK_WEIGHT, "pack_weight", g.read)
    return Stage(kernel, args, g.groups * panels, max(1, GRAIN // max(1, work)), bytes=moved)


def _tiles_stage(s: Sums, packed: int, mr: int) -> Stage:
    g = s.geometry
    shape = replace(g.shape, mr=mr)
    panels = -(-s.outputs // mr)
    columns = -(-_run(s) // gemm.NB)
    units = s.products * s.counts[0] * columns
    # Enough units for several threads, fixed by the shape alone.
    blocks = max(-(-panels * mr // MOST_ROWS), -(-8 // units))
    height = -(-panels // min(blocks, panels))
    blocks = -(-panels // height)
    args: list[Argument] = [planes_ref(s.planes, g.itemsize), *s.slots()]
    args += [vectors.compile_tile(shape), Ref("temp", packed), *s.target()]
    args += [s.outputs, s.counts[0], g.groups, columns, blocks, height, mr, *s.sources]
    work = 2 * height * mr * gemm.NB * s.k
    flops = 2 * s.products * s.outputs * math.prod(s.counts) * s.k * shape.numbers
    moved = s.products * (
        s.channels * plane_size(s.layouts) + s.outputs * (math.prod(s.counts) + s.k)
    )
    return Stage(
        compile_source(kernels.TILES, "tiles", g.dtype, s.stored),
        args,
        units * blocks,
        max(1, (1 << 20) // max(1, work)),
        scratch=height * mr * gemm.NB * g.itemsize,
        flops=flops,
        bytes=moved * g.itemsize,
    )


def _patches_stage(s: Sums) -> Stage:
    """The packing function of patches."""
    g = s.geometry
    args: list[Argument] = [planes_ref(s.planes, g.itemsize), *s.slots()]
    args += [vectors.compile_copy(g.shape, walks_taps=True), *s.sources]
    return Stage(compile_source(kernels.PATCHES, "patches", g.kind), args, 0)


def _direct_stage(s: Sums) -> Stage:
    g = s.geometry
    args: list[Argument] = [planes_ref(s.planes, g.itemsize), s.weight, *s.target()]
    args += [*s.slots(), s.counts[0], s.outputs, g.groups, *s.weight_strides]
    for source, weight in zip(s.sources, s.weights, strict=True):
        args += [source, weight]
    pixels = math.prod(s.counts)
    moved = s.products * (s.channels * plane_size(s.layouts) + s.outputs * pixels)
    return Stage(
        compile_source(kernels.DIRECT, "direct", g.dtype, s.stored),
        args,
        s.products * s.outputs,
        max(1, 2 * GRAIN // max(1, s.k * pixels)),
        scratch=RUN * g.itemsize,
        flops=2 * s.products * s.outputs * s.k * pixels,
        bytes=moved * g.itemsize,
    )
