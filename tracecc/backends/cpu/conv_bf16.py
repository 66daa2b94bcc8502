"""Convolutions of bfloat16: adjacent planes become one of pairs, which the rest takes for f32.

Pairs are of channels that are summed, or of images in a weight's gradient.
"""

from __future__ import annotations

from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.conv_planes import GRAIN
from tracecc.backends.schedule_types import Ref, Stage

# Units are planes of pairs of `size` numbers; `count` planes are paired, an odd last one with zero.
_PAIR = """
def pair_planes(args, begin, end, scratch):
    x = bf16_ptr(args, 0)
    o = u32_ptr(args, 1)
    count = i64_arg(args, 2)
    size = i64_arg(args, 3)
    depth = (count + 1) // 2
    for u in range(begin, end):
        c = u % depth * 2
        low = (u // depth * count + c) * size
        to = u * size
        if c + 1 < count:
            for i in range(size):
                o[to + i] = pair(x[low + i], x[low + size + i])
        else:
            for i in range(size):
                o[to + i] = u32(x[low + i])
"""


def pair_stage(
    source: Ref, outer: int, count: int, size: int, temporaries: list[int]
) -> tuple[Stage, Ref]:
    """Turns bf16 [outer, count, size] into pairs [outer, count / 2, size] in a new temporary."""
    to = Ref("temp", len(temporaries))
    units = outer * -(-count // 2)
    temporaries.append(max(64, 4 * units * size))
    kernel = toolchain.compile_kernel(_PAIR, "pair_planes", independent=True)
    grain = max(1, GRAIN // max(1, size))
    return Stage(kernel, [source, to, count, size], units, grain, bytes=8 * units * size), to
