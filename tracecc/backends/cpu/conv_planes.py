"""Where a convolution's source lies: zero-padded planes, split by the phases of the stride."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tracecc.backends.cpu import conv_kernels as kernels
from tracecc.backends.cpu import gemm, toolchain
from tracecc.backends.cpu.microkernel import Tile, tile
from tracecc.backends.schedule_types import Argument, Ref, Stage
from tracecc_ir.graph import Node
from tracecc_ir.ops.convolution import counts_of

# Elements around the padded planes that whole vectors may read.
_SLACK = 64


GRAIN = 1 << 14


RUN = 1024


Three = tuple[int, int, int]


class Layout(NamedTuple):
    """How one dimension of a source lies in padded planes.

    Attributes:
        extent: of the source.
        size: positions in each phase.
        phases: how many are kept.
        stride, dilation: see `kernels.SPREAD`.
        low: zeros before the source.
    """

    extent: int
    size: int
    phases: int
    stride: int
    dilation: int
    low: int


Tap = tuple[int, int]  # phase, first position


@dataclass(frozen=True)
class Geometry:
    """A convolution in three dimensions; channels and outputs are of one group.

    Attributes:
        dtype: of operands and results.
        read: the dtype as which kernels read operands: f32 where they are pairs of bf16.
    """

    dtype: str
    read: str
    images: int
    groups: int
    channels: int
    outputs: int
    sizes: Three
    window: Three
    counts: Three
    stride: Three
    low: Three
    dilation: Three

    @property
    def pixels(self) -> int:
        return math.prod(self.counts)

    @property
    def taps(self) -> int:
        return math.prod(self.window)

    @property
    def pointwise(self) -> bool:
        """Whether each result comes from the one pixel at its own place."""
        dense = self.window == self.stride == (1, 1, 1) and self.sizes == self.counts
        return dense and self.low == (0, 0, 0)

    @property
    def shape(self) -> Tile:
        """The register tile."""
        return replace(tile(self.kind), pairs=self.read != self.dtype)

    @property
    def kind(self) -> str:
        return gemm.KINDS[self.dtype]

    @property
    def itemsize(self) -> int:
        return tile(self.kind).itemsize


def three(values: Sequence[int], fill: int) -> Three:
    a, b, c = (*[fill] * (3 - len(values)), *map(int, values))
    return a, b, c


def geometry(node: Node, x: Sequence[Any], w: Sequence[Any]) -> Geometry | None:
    """The geometry for an input of shape `x` and a weight of shape `w`; None if one is empty."""
    dtype = node.inputs[0].type.dtype.name
    attrs = node.attrs
    xs, ws = tuple(int(n) for n in x), tuple(int(n) for n in w)
    if dtype not in gemm.KINDS or math.prod(xs) == 0 or math.prod(ws) == 0:
        return None
    counts = counts_of(xs[2:], ws[2:], attrs["stride"], attrs["padding"], attrs["dilation"])
    groups = attrs["groups"]
    return Geometry(
        dtype,
        dtype,
        xs[0],
        groups,
        ws[1],
        ws[0] // groups,
        three(xs[2:], 1),
        three(ws[2:], 1),
        three(counts, 1),
        three(attrs["stride"], 1),
        three([low for low, _ in attrs["padding"]], 0),
        three(attrs["dilation"], 1),
    )


def compile_source(
    source: str, entry: str, dtype: str, result: str = "", *, independent: bool = True
) -> toolchain.Kernel:
    """The kernel for operands of `dtype` and a result that is stored as `result`."""
    shape = tile(gemm.KINDS[dtype])
    result = result or dtype
    names = gemm.names(dtype, shape) | {"run": RUN, "nb": gemm.NB}
    names |= {"turns": dtype != "f16", "bytes": 2 if dtype in ("f16", "bf16") else shape.itemsize}
    text = source.format(result=result, put=gemm.store_name(result), **names)
    return toolchain.compile_kernel(text, entry, independent=independent)


def planes_ref(temp: int, itemsize: int) -> Ref:
    return Ref("temp", temp, _SLACK * itemsize)


def planes_bytes(elements: int, itemsize: int) -> int:
    return (elements + 2 * _SLACK) * itemsize


def plane_size(layouts: Sequence[Layout]) -> int:
    return math.prod(d.size * d.phases for d in layouts)


def spread_stage(
    dtype: str, source: Ref, temp: int, planes: int, layouts: Sequence[Layout]
) -> Stage:
    """Copies `planes` source planes into padded ones in temporary `temp`."""
    itemsize = tile(gemm.KINDS[dtype]).itemsize
    args: list[Argument] = [source, planes_ref(temp, itemsize)]
    for name in ("extent", "size", "phases", "stride", "dilation", "low"):
        args += [getattr(d, name) for d in layouts]
    phase = math.prod(d.size for d in layouts)
    units = planes * math.prod(d.phases for d in layouts)
    kernel = compile_source(kernels.SPREAD, "spread", dtype)
    moved = 2 * units * phase * itemsize
    return Stage(kernel, args, units, max(1, GRAIN // max(1, phase)), bytes=moved)


def tap_table(layouts: Sequence[Layout], taps: Sequence[Sequence[Tap]]) -> list[int]:
    """The first position of each tap in a padded plane."""
    size = [d.size for d in layouts]
    position = (size[1] * size[2], size[2], 1)
    phase = [math.prod(size) * math.prod(d.phases for d in layouts[i + 1 :]) for i in range(3)]
    return [
        sum(p * phase[i] + q * position[i] for i, (p, q) in enumerate(tap))
        for tap in itertools.product(*taps)
    ]


def patch_slots(
    channels: int, layouts: Sequence[Layout], table: Sequence[int], counts: Three
) -> list[int]:
    """The arguments that say where patches lie: plane, channels, taps, and the pixels' strides."""
    size = [d.size for d in layouts]
    width, height, row = counts[2], counts[1], size[2]
    if width == row:
        width, height, row = width * height, 1, width * height
    slots = [plane_size(layouts), channels, len(table), width, height]
    return [*slots, row, size[1] * size[2]]


def forward_axes(g: Geometry) -> tuple[list[Layout], list[list[Tap]]]:
    """How the input lies in padded planes, and the taps along each dimension."""
    layouts, taps = [], []
    for n, k, count, s, low, d in zip(
        g.sizes, g.window, g.counts, g.stride, g.low, g.dilation, strict=True
    ):
        period = s // math.gcd(s, d)
        size = count + (k - 1) * d // s
        layouts.append(Layout(n, size, min(k, period), s, d, low))
        taps.append([(i % period, i * d // s) for i in range(k)])
    return layouts, taps


def axis_classes(
    n: int, k: int, count: int, s: int, low: int, d: int
) -> tuple[list[list[tuple[int, int]]], Layout]:
    """How one dimension of an input's gradient depends on the result's gradient.

    Returns:
        For each class of positions r, r + s, r + 2s ... the (tap, first padded position of the
        result's gradient) that reach it; and the layout of the result's gradient.
    """
    reach = [
        [(i, (r + low - i * d) // s) for i in range(k) if (r + low - i * d) % s == 0]
        for r in range(min(s, n))
    ]
    before = max(0, -min((at for taps in reach for _, at in taps), default=0))
    classes = [[(i, at + before) for i, at in taps] for taps in reach]
    size = max(
        [
            -(-(n - r) // s) + at
            for r, taps in enumerate(classes)
            for at in [max((at for _, at in taps), default=0)]
        ]
    )
    return classes, Layout(count, size, 1, 1, 0, before)
