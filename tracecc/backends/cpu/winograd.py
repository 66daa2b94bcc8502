"""Convolutions of 3x3 windows and stride 1 by Winograd's F(4x4, 3x3): a quarter of the products.

Tiles of the source are read from padded planes whose channels come last, as vectors of channels.
The error is about twice that of a direct sum. An infinity or NaN spreads to its whole tile.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracecc.backends.cpu import conv_kernels, gemm, toolchain
from tracecc.backends.cpu import conv_vectors as vectors
from tracecc.backends.cpu import winograd_kernels as kernels
from tracecc.backends.cpu import winograd_vectors as code
from tracecc.backends.cpu.conv_planes import (
    GRAIN,
    Geometry,
    compile_source,
    planes_bytes,
    planes_ref,
)
from tracecc.backends.cpu.microkernel import tile
from tracecc.backends.cpu.winograd_kernels import padded
from tracecc.backends.cpu.winograd_transform import CELLS, RESULTS, SIZE
from tracecc.backends.schedule_types import Argument, Plan, Ref, Stage

Pair = tuple[int, int]

# Bytes that the tiles of one unit may take at their points, and the outputs that go with them.
TILES_MOST = 1 << 20
FEWEST, MOST = 28, 56
OUTPUTS = 128
# Filters of so many bytes are turned into points again by so many units before they are stored.
LARGE, MOST_AGAIN = 1 << 23, 3
# A block of sums of the weight's gradient, and the tiles that are turned into points at a time.
SUMS, CHUNK = 64, 128
# Instructions for a vector's tile to points or back, and for one filter, by measurement.
_TURN, _FILTER = 250, 30
_EFFICIENCY = 0.8


@dataclass(frozen=True)
class _Problem:
    """A product of planes with filters.

    Attributes:
        dtype: of all operands and the result.
        images, channels, outputs: of source and result.
        source, result: rows and columns.
        low: zeros before the source.
        strides: in the weight, of an output and of a channel.
        flipped: whether filters are turned around.
    """

    dtype: str
    images: int
    channels: int
    outputs: int
    source: Pair
    result: Pair
    low: Pair
    strides: Pair
    flipped: bool

    @property
    def down(self) -> int:
        return -(-self.result[0] // RESULTS)

    @property
    def across(self) -> int:
        return -(-self.result[1] // RESULTS)

    @property
    def tiles(self) -> int:
        return self.images * self.down * self.across

    @property
    def plane(self) -> Pair:
        """Rows and columns of the padded source."""
        edge = SIZE - RESULTS
        return self.down * RESULTS + edge, self.across * RESULTS + edge


def _fits(g: Geometry) -> bool:
    if not all(0 <= n <= 2 for n in g.low[1:]):
        return False
    plain = g.dtype in ("f32", "bf16") and g.groups == 1 and g.sizes[0] == 1 and g.low[0] == 0
    return plain and g.window == (1, 3, 3) and g.stride == g.dilation == (1, 1, 1)


def _pays(g: Geometry, channels: int, outputs: int, result: Pair) -> bool:
    """Whether fewer multiplications outweigh the transforms.

    And that these are f32, where a direct sum could multiply pairs of bf16.
    """
    images, shape = g.images, gemm.tile_of(g.dtype)
    lanes = shape.lanes
    tiles = images * -(-result[0] // RESULTS) * -(-result[1] // RESULTS)
    c, o = padded(channels, lanes), padded(outputs, 2 * lanes)
    pixels = padded(result[0] * result[1], shape.nr)  # of a direct sum's tiles
    direct = images * pixels * channels * outputs * 9 / lanes
    products = CELLS * padded(tiles, 8) * c * o / lanes
    turns = tiles * _TURN * (c * -(-o // OUTPUTS) + o) / lanes
    points = (products + turns) / _EFFICIENCY + channels * outputs * _FILTER
    return points < direct / shape.numbers


def plan_forward(g: Geometry) -> Plan | None:
    """The plan of a convolution, or None where a direct one is better."""
    if not _fits(g) or not _pays(g, g.channels, g.outputs, g.counts[1:]):
        return None
    source, result, low = g.sizes[1:], g.counts[1:], g.low[1:]
    strides = g.channels * 9, 9
    return _plan(
        _Problem(g.dtype, g.images, g.channels, g.outputs, source, result, low, strides, False)
    )


def plan_input_grad(g: Geometry) -> Plan | None:
    """The plan of an input's gradient: the convolution with filters turned around."""
    if not _fits(g) or not _pays(g, g.outputs, g.channels, g.sizes[1:]):
        return None
    source, result, low = g.counts[1:], g.sizes[1:], (2 - g.low[1], 2 - g.low[2])
    strides = 9, g.channels * 9
    return _plan(
        _Problem(g.dtype, g.images, g.outputs, g.channels, source, result, low, strides, True)
    )


def _turn_stage(source: Ref, temp: int, p: _Problem, size: Pair, channels: int, low: Pair) -> Stage:
    """Copies `source` into padded planes [image, *size, channels rounded up to vectors]."""
    shape = tile("f32")
    rows = p.source if source.index == 0 else p.result
    pitch = padded(channels, shape.lanes if source.index == 0 else shape.nr)
    args: list[Argument] = [source, planes_ref(temp, 4), channels, 1, *rows, 1, *size]
    turn = vectors.compile_transpose(shape, widens=p.dtype == "bf16")
    args += [0, *low, turn, pitch]
    units = p.images * size[0]
    kernel = compile_source(conv_kernels.TURN, "turn", p.dtype)
    line = size[1] * pitch
    return Stage(kernel, args, units, max(1, GRAIN // line), bytes=8 * units * line)


def _plan(p: _Problem) -> Plan:
    shape = tile("f32")
    lanes, nr = shape.lanes, shape.nr
    pitch, panels = padded(p.channels, lanes), -(-p.outputs // nr)
    size = p.plane
    turn = _turn_stage(Ref("input", 0), 0, p, size, p.channels, p.low)
    mr = _rows(shape.mr, p.tiles)
    block, high = _blocks(p, pitch, panels, mr, nr)
    tile_blocks, output_blocks = -(-p.tiles // block), -(-panels // high)
    points = CELLS * (4 * panels * pitch * nr + kernels.SKEW)
    # Filters that few units use are turned into points where they are used, not through memory.
    inside = tile_blocks <= (MOST_AGAIN if points > LARGE else 1)
    text = kernels.filters(lanes, p.dtype, flipped=p.flipped)
    args: list[Argument] = [Ref("input", 1), 0 if inside else Ref("temp", 1)]
    args += [p.outputs, p.channels, pitch, *p.strides]
    args += [(1 if inside else panels) * pitch * nr + kernels.SKEW // 4]
    args.append(vectors.compile_transpose(shape, widens=p.dtype == "bf16"))
    taps = 4 * nr * padded(9, lanes)
    filters = Stage(
        toolchain.compile_kernel(text, "winograd_filters", independent=True),
        args,
        0 if inside else panels * pitch,
        max(1, GRAIN // (CELLS * nr)),
        scratch=taps,
        bytes=4 * (9 * p.channels * p.outputs + CELLS * panels * pitch * nr),
    )
    wide = high * nr
    product = {
        n: code.compile_product(lanes, n, 4 * lanes, 4, adds=False)
        for n in (shape.mr, _few(shape.mr))
    }
    args = [planes_ref(0, 4), 0 if inside else Ref("temp", 1), Ref("output")]
    args += [Ref("epilogue"), Ref("epilogue_args")]
    args += [code.compile_load(lanes, gradient=False), product[mr]]
    args += [code.compile_store(lanes), p.tiles, p.down, p.across, size[0]]
    args += [size[1] * pitch, pitch, p.outputs, *p.result, panels, block, high, output_blocks, mr]
    args += [filters.kernel, Ref("args", 1)]
    main = Stage(
        toolchain.compile_kernel(kernels.forward(lanes, p.dtype), "winograd", independent=True),
        args,
        tile_blocks * output_blocks,
        scratch=4 * (CELLS * block * (pitch + wide) + wide * RESULTS * RESULTS * kernels.RUN)
        + 2 * CELLS * kernels.SKEW
        + inside * (taps + CELLS * (4 * pitch * nr + kernels.SKEW)),
        flops=2 * CELLS * p.tiles * p.channels * p.outputs,
        bytes=4 * (p.tiles * CELLS * p.channels + p.tiles * 16 * p.outputs),
    )
    planes = planes_bytes(p.images * size[0] * size[1] * pitch, 4)
    rows, cols = p.images * p.outputs, p.result[0] * p.result[1]
    temporaries = [planes] if inside else [planes, points]
    return Plan([turn, filters, main], temporaries, True, rows, cols)


def _few(most: int) -> int:
    return most * 4 // 7


def _rows(most: int, tiles: int) -> int:
    """The rows of a product: one of two, so that no number of images asks for new code."""
    few = _few(most)
    return few if tiles < 2 * FEWEST and padded(tiles, few) < padded(tiles, most) else most


def _blocks(p: _Problem, pitch: int, panels: int, mr: int, nr: int) -> Pair:
    """Tiles and panels of outputs of a unit: whole rows of tiles where they fit, enough units."""
    most = max(FEWEST, min(MOST, TILES_MOST // (4 * CELLS * pitch)))
    most = padded(min(most, p.tiles), mr)
    if p.across <= most:
        whole = most // p.across * p.across
        most = whole if padded(whole, mr) - whole <= whole // 8 else most
    high = min(panels, OUTPUTS // nr)
    while high > 1 and -(-p.tiles // most) * -(-panels // high) < 8:
        high = -(-high // 2)
    return padded(most, mr), high


def plan_weight_grad(g: Geometry) -> Plan | None:
    """The plan of a weight's gradient, or None where a direct one is better."""
    shape = tile("f32")
    lanes, nr = shape.lanes, shape.nr
    if not _fits(g) or not _pays(g, g.channels, g.outputs, g.counts[1:]):
        return None
    p = _Problem(
        g.dtype,
        g.images,
        g.channels,
        g.outputs,
        g.sizes[1:],
        g.counts[1:],
        g.low[1:],
        (0, 0),
        False,
    )
    size, result = p.plane, (p.down * RESULTS, p.across * RESULTS)
    pitch, result_pitch = padded(p.channels, lanes), padded(p.outputs, nr)
    high, wide = min(SUMS, pitch), min(SUMS, result_pitch)
    channel_blocks, output_blocks = -(-pitch // high), -(-result_pitch // wide)
    blocks = channel_blocks * output_blocks
    parts = min(-(-8 // blocks), -(-p.tiles // CHUNK))
    part = padded(-(-p.tiles // parts), CHUNK)
    parts = -(-p.tiles // part)
    mr = lanes // 2
    products = [code.compile_product(lanes, mr, 4, 4 * lanes, adds=adds) for adds in (False, True)]
    back = toolchain.compile_epilogue(
        kernels.back(lanes, p.dtype), "winograd_back", independent=True
    )
    sums = Ref("temp", 2) if parts > 1 else 0
    args: list[Argument] = [planes_ref(0, 4), planes_ref(1, 4), sums]
    args += [code.compile_load(lanes, gradient=gradient) for gradient in (False, True)]
    args += [*products, p.tiles, p.down, p.across, size[0], size[1] * pitch, pitch]
    args += [result[1] * result_pitch, result_pitch, part, CHUNK, high, wide]
    args += [channel_blocks, output_blocks, mr, back, Ref("args", 3)]
    args += [p.channels, p.outputs]
    main = Stage(
        toolchain.compile_kernel(kernels.gradient(lanes), "winograd_gradient", independent=True),
        args,
        parts * blocks,
        scratch=CELLS * (4 * CHUNK * (high + wide) + 2 * kernels.SKEW)
        + (parts == 1) * 4 * CELLS * high * wide,
        flops=2 * CELLS * p.tiles * p.channels * p.outputs,
        bytes=4 * p.tiles * (CELLS * p.channels + 16 * p.outputs),
    )
    group = kernels.group(lanes)
    args = [sums, Ref("output"), p.outputs, p.channels, parts, high, wide, back]
    finish = Stage(
        toolchain.compile_kernel(kernels.finish(lanes), "winograd_finish", independent=True),
        args,
        -(-p.channels // group) * output_blocks if parts > 1 else 0,
        max(1, GRAIN // (group * CELLS * wide * parts)),
        scratch=4 * CELLS * (group * wide + 16),
        bytes=4 * (parts * CELLS + 9) * p.channels * p.outputs,
    )
    stages = [
        _turn_stage(Ref("input", 0), 0, p, size, p.channels, p.low),
        _turn_stage(Ref("input", 1), 1, p, result, p.outputs, (0, 0)),
        main,
        finish,
    ]
    temporaries = [
        planes_bytes(p.images * size[0] * size[1] * pitch, 4),
        planes_bytes(p.images * result[0] * result[1] * result_pitch, 4),
    ]
    if parts > 1:
        temporaries.append(4 * parts * blocks * CELLS * high * wide)
    return Plan(stages, temporaries)
