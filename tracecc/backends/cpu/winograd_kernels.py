"""Kernel sources of Winograd convolution: filters to points and back, and the two products."""

from __future__ import annotations

import functools
from fractions import Fraction

from tracecc.backends.cpu.gemm import load_name, store_name
from tracecc.backends.cpu.winograd_transform import (
    CELLS,
    FILTER,
    FILTER_GRADIENT,
    SIZE,
    TAPS,
    Matrix,
    transform,
)


class _Lines:
    """Assignments to fresh names."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def let(self, text: str) -> str:
        self.lines.append(f"v{len(self.lines)} = {text}")
        return f"v{len(self.lines) - 1}"

    def combine(self, terms: list[tuple[Fraction, str]]) -> str:
        """A sum of values with coefficients."""
        text = ""
        for coef, value in terms:
            size = value if abs(coef) == 1 else f"f32({float(abs(coef))!r}) * {value}"
            sign = "-" if coef < 0 else "+" if text else ""
            text = f"{text} {sign} {size}" if text else f"{sign}{size}"
        return self.let(text)


def _filled(source: str, matrix: Matrix, size: int, load: str, store: str, indent: int) -> str:
    """The source with its line @transform replaced by loads, the transform and stores.

    ``load`` and ``store`` are formatted with the row-major number of an element; ``store`` with
    the value's name as well.
    """
    text = _Lines()
    tile = [[text.let(load.format(n=i * size + j)) for j in range(size)] for i in range(size)]
    made = [v for row in transform(matrix, tile, text.combine) for v in row]
    lines = [*text.lines, *(store.format(n=n, value=v) for n, v in enumerate(made))]
    return source.replace("@transform", ("\n" + " " * indent).join(lines))


# Units are (panel of outputs, channel). The nine taps of a vector of outputs are turned into nine
# vectors in scratch memory; the points follow there too if no place is given for them.
_FILTERS = """
def winograd_filters(args, begin, end, scratch):
    w = @storage_ptr(args, 0)
    target = i64_arg(args, 1)
    o = f32_at(target if target != 0 else scratch + @taps)
    s = f32_at(scratch)
    outputs = i64_arg(args, 2)
    channels = i64_arg(args, 3)
    pitch = i64_arg(args, 4)
    row = i64_arg(args, 5)
    column = i64_arg(args, 6)
    cell = i64_arg(args, 7)
    turn = i64_arg(args, 8)
    total = outputs * channels * 9
    for u in range(begin, end):
        j0 = u // pitch * @nr
        c = u % pitch
        cols = minimum(outputs - j0, @nr) if c < channels else 0
        for j in range(0, @nr, @lanes):
            at = (j0 + j) * row + c * column
            if j + @lanes <= cols and at + (@lanes - 1) * row + @taken <= total:
                for k in range(0, 9, @lanes):
                    to = scratch + (k * @nr + j) * 4
                    source = i64_arg(args, 0) + (at + k) * @bytes
                    call_epilogue(turn, to, source, @nr * 4, row * @bytes, 0, 0, 0)
            else:
                for k in range(9):
                    for q in range(@lanes):
                        s[k * @nr + j + q] = f32(0)
                    for q in range(minimum(@lanes, cols - j)):
                        s[k * @nr + j + q] = @load(w[at + q * row + k])
        to = (u if target != 0 else u - begin) * @nr
        for j in range(@nr):
            @transform
"""

# Sums of (cell, channel, output) in memory, of `rows` channels and `cols` outputs, to filters.
_BACK = """
def winograd_back(args, tile, ldt, row0, rows, col0, cols):
    o = @storage_ptr(args, 1)
    s = f32_at(tile)
    channels = i64_arg(args, 3)
    wide = i64_arg(args, 6)
    for c in range(rows):
        for j in range(cols):
            here = c * wide + j
            to = ((col0 + j) * channels + row0 + c) * 9
            @transform
"""

# Units are (block of outputs, a group of channels): the parts are summed in scratch memory.
_FINISH = """
def winograd_finish(args, begin, end, scratch):
    x = f32_ptr(args, 0)
    s = f32_at(scratch)
    outputs = i64_arg(args, 2)
    channels = i64_arg(args, 3)
    parts = i64_arg(args, 4)
    high = i64_arg(args, 5)
    wide = i64_arg(args, 6)
    back = i64_arg(args, 7)
    blocks = (outputs + wide - 1) // wide
    part = (channels + high - 1) // high * blocks * @cells * high * wide
    line = @group * wide + 16
    for u in range(begin, end):
        c0 = u // blocks * @group
        j0 = u % blocks * wide
        at = ((c0 // high * blocks + u % blocks) * @cells * high + c0 % high) * wide
        for p in range(@cells):
            for i in range(@group * wide):
                s[p * line + i] = x[at + p * high * wide + i]
            for q in range(1, parts):
                for i in range(@group * wide):
                    s[p * line + i] += x[at + q * part + p * high * wide + i]
        rows = minimum(@group, channels - c0)
        call_epilogue(back, args, scratch, line, c0, rows, j0, minimum(outputs - j0, wide))
"""

# Units are (block of tiles, block of outputs). The tiles of a row of the result that lie in one
# block are finished together: stored straight to the output, or put side by side in scratch memory
# and handed to the epilogue.
_FORWARD = """
def winograd(args, begin, end, scratch):
    planes = i64_arg(args, 0)
    filters = i64_arg(args, 1)
    out = i64_arg(args, 2)
    o = @storage_ptr(args, 2)
    epilogue = i64_arg(args, 3)
    epilogue_args = i64_arg(args, 4)
    load_tile = i64_arg(args, 5)
    product = i64_arg(args, 6)
    store_tile = i64_arg(args, 7)
    tiles = i64_arg(args, 8)
    down = i64_arg(args, 9)
    across = i64_arg(args, 10)
    plane_rows = i64_arg(args, 11)
    plane_row = i64_arg(args, 12)
    pitch = i64_arg(args, 13)
    outputs = i64_arg(args, 14)
    height = i64_arg(args, 15)
    width = i64_arg(args, 16)
    panels = i64_arg(args, 17)
    block = i64_arg(args, 18)
    high = i64_arg(args, 19)
    output_blocks = i64_arg(args, 20)
    mr = i64_arg(args, 21)
    filter_kernel = i64_arg(args, 22)
    filter_args = i64_arg(args, 23)
    slices = pitch // @lanes
    v_cell = slices * block * @lanes * 4 + @skew
    wide = high * @nr
    m = scratch + @cells * v_cell
    m_cell = block * wide * 4 + @skew
    side = m + @cells * m_cell
    t = f32_at(side)
    taken = side + wide * 16 * @run * 4
    points = filters if filters != 0 else taken + @taps
    apart = panels if filters != 0 else 1
    for u in range(begin, end):
        first = u // output_blocks * block
        count = minimum(block, tiles - first)
        panel = u % output_blocks * high
        here = minimum(high, panels - panel)
        o0 = panel * @nr
        rows = minimum(here * @nr, outputs - o0)
        for i in range(count):
            n = first + i
            y = n // across % down
            corner = n // (across * down) * plane_rows + 4 * y
            corner = corner * plane_row + n % across * 4 * pitch
            for k in range(slices):
                to = scratch + (k * block + i) * @lanes * 4
                source = planes + (corner + k * @lanes) * 4
                call_epilogue(load_tile, to, source, plane_row * 4, pitch * 4, v_cell, 0, 0)
        step = here if filters != 0 else 1
        for j0 in range(0, here, step):
            if filters == 0:
                units = (panel + j0) * pitch
                call_kernel(filter_kernel, filter_args, units, units + pitch, taken)
            for p in range(@cells):
                for j in range(j0, j0 + step):
                    right = p * apart + (panel + j if filters != 0 else 0)
                    right = points + right * pitch * @nr * 4 + p * @skew
                    for i in range(0, count, mr):
                        to = m + p * m_cell + (i * wide + j * @nr) * 4
                        left = scratch + p * v_cell + i * @lanes * 4
                        jump = (block - 1) * @lanes * 4
                        call_epilogue(product, to, left, right, wide * 4, slices, @lanes, jump)
        i = 0
        while i < count:
            n = first + i
            x = n % across * 4
            y = n // across % down * 4
            row = n // (across * down) * outputs + o0
            run = minimum(minimum(across - n % across, count - i), @run)
            ys = minimum(4, height - y)
            xs = minimum(run * 4, width - x)
            if @direct and epilogue == 0 and ys == 4 and xs == run * 4 and rows % @lanes == 0:
                for k in range(run):
                    for q in range(0, rows, @lanes):
                        to = out + (((row + q) * height + y) * width + x + k * 4) * 4
                        source = m + ((i + k) * wide + q) * 4
                        plane = height * width * 4
                        call_epilogue(store_tile, to, source, m_cell, plane, width * 4, 0, 0)
            else:
                line = run * 4
                for k in range(run):
                    for q in range(0, here * @nr, @lanes):
                        to = side + (q * 4 * line + k * 4) * 4
                        source = m + ((i + k) * wide + q) * 4
                        call_epilogue(store_tile, to, source, m_cell, line * 16, line * 4, 0, 0)
                if epilogue != 0 and xs == width and xs == line:
                    begins = y * width
                    call_epilogue(
                        epilogue, epilogue_args, side, line * 4, row, rows, begins, ys * width
                    )
                elif epilogue != 0:
                    for b in range(ys):
                        begins = (y + b) * width + x
                        at = side + b * line * 4
                        call_epilogue(
                            epilogue, epilogue_args, at, line * 4, row, rows, begins, xs
                        )
                else:
                    for q in range(rows):
                        for b in range(ys):
                            to = ((row + q) * height + y + b) * width + x
                            for k in range(xs):
                                o[to + k] = @store(t[(q * 4 + b) * line + k])
            i += run
"""

# Units are (part of the tiles, block of channels, block of outputs); each sums over its tiles. If
# there is one part, the sums stay in scratch memory and are filters at once.
_GRADIENT = """
def winograd_gradient(args, begin, end, scratch):
    planes = i64_arg(args, 0)
    results = i64_arg(args, 1)
    sums = i64_arg(args, 2)
    load_data = i64_arg(args, 3)
    load_result = i64_arg(args, 4)
    sets = i64_arg(args, 5)
    adds = i64_arg(args, 6)
    tiles = i64_arg(args, 7)
    down = i64_arg(args, 8)
    across = i64_arg(args, 9)
    plane_rows = i64_arg(args, 10)
    plane_row = i64_arg(args, 11)
    pitch = i64_arg(args, 12)
    result_row = i64_arg(args, 13)
    result_pitch = i64_arg(args, 14)
    part = i64_arg(args, 15)
    block = i64_arg(args, 16)
    high = i64_arg(args, 17)
    wide = i64_arg(args, 18)
    channel_blocks = i64_arg(args, 19)
    output_blocks = i64_arg(args, 20)
    mr = i64_arg(args, 21)
    back = i64_arg(args, 22)
    back_args = i64_arg(args, 23)
    channels = i64_arg(args, 24)
    outputs = i64_arg(args, 25)
    v_cell = high * block * 4 + @skew
    y = scratch + @cells * v_cell
    y_cell = wide * block * 4 + @skew
    for u in range(begin, end):
        c0 = u // output_blocks % channel_blocks * high
        o0 = u % output_blocks * wide
        start = u // (output_blocks * channel_blocks) * part
        stop = minimum(start + part, tiles)
        slices = minimum(high, pitch - c0) // @lanes
        panels = minimum(wide, result_pitch - o0) // @nr
        total = sums + u * @cells * high * wide * 4 if sums != 0 else y + @cells * y_cell
        for first in range(start, stop, block):
            count = minimum(block, stop - first)
            product = sets if first == start else adds
            for i in range(count):
                n = first + i
                image = n // (across * down)
                b = n // across % down * 4
                a = n % across * 4
                corner = (image * plane_rows + b) * plane_row + a * pitch + c0
                for k in range(slices):
                    to = scratch + (k * block + i) * @lanes * 4
                    source = planes + (corner + k * @lanes) * 4
                    call_epilogue(load_data, to, source, plane_row * 4, pitch * 4, v_cell, 0, 0)
                corner = (image * down * 4 + b) * result_row + a * result_pitch + o0
                for k in range(panels * 2):
                    to = y + ((k // 2 * block + i) * 2 + k % 2) * @lanes * 4
                    source = results + (corner + k * @lanes) * 4
                    call_epilogue(
                        load_result, to, source, result_row * 4, result_pitch * 4, y_cell, 0, 0
                    )
            for p in range(@cells):
                for k in range(0, slices * @lanes, mr):
                    left = scratch + p * v_cell
                    left += (k // @lanes * block * @lanes + k % @lanes) * 4
                    for j in range(panels):
                        right = y + p * y_cell + j * block * @nr * 4
                        to = total + ((p * high + k) * wide + j * @nr) * 4
                        call_epilogue(product, to, left, right, wide * 4, 1, count, 0)
        if sums == 0:
            rows = minimum(high, channels - c0)
            cols = minimum(wide, outputs - o0)
            call_epilogue(back, back_args, total, high * wide, c0, rows, o0, cols)
"""

# Tiles of one row of the result that are finished together, at most.
RUN = 16
# Bytes between the points of adjacent cells beyond their size, so that the 36 streams of a
# transform do not fall on the same sets of the cache.
SKEW = 320


def padded(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def group(lanes: int) -> int:
    """Channels whose sums are finished together."""
    return min(8, lanes)


def _text(source: str, lanes: int, dtype: str = "f32") -> str:
    """The source for operands and results of a dtype."""
    names: dict[str, object] = {
        "@storage": dtype,
        "@bytes": 4 if dtype == "f32" else 2,
        "@load": load_name(dtype),
        "@store": store_name(dtype),
        "@direct": dtype == "f32",
    }
    names |= {"@cells": CELLS, "@lanes": lanes, "@nr": 2 * lanes, "@run": RUN, "@skew": SKEW}
    names |= {
        "@taps": 8 * lanes * padded(9, lanes),
        "@taken": padded(9, lanes),
        "@group": group(lanes),
    }
    for name, value in sorted(names.items(), reverse=True):
        source = source.replace(name, str(value))
    return source


@functools.cache
def filters(lanes: int, dtype: str, *, flipped: bool) -> str:
    """A weight's filters, turned around if ``flipped``, to points [cell, panel, channel, nr]."""
    load = "s[(8 - {n}) * @nr + j]" if flipped else "s[{n} * @nr + j]"
    store = "o[to + {n} * cell + j] = {value}"
    return _text(_filled(_FILTERS, FILTER, TAPS, load, store, 12), lanes, dtype)


@functools.cache
def back(lanes: int, dtype: str) -> str:
    """Sums at points to filters, as an epilogue of the products."""
    load = "s[{n} * ldt + here]"
    store = "o[to + {n}] = @store({value})"
    return _text(_filled(_BACK, FILTER_GRADIENT, SIZE, load, store, 12), lanes, dtype)


@functools.cache
def finish(lanes: int) -> str:
    """The sums of all parts, then `back`."""
    return _text(_FINISH, lanes)


@functools.cache
def forward(lanes: int, dtype: str) -> str:
    """Tiles to points, products with the filters, and back to pixels."""
    return _text(_FORWARD, lanes, dtype)


@functools.cache
def gradient(lanes: int) -> str:
    """Tiles and gradients of results to points, and their products summed over tiles."""
    return _text(_GRADIENT, lanes)
