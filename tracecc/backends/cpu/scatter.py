"""Plans of scatter, scatter_along, concat and windows at computed places: copies, then updates.

A stage that meets an index outside [-n, n) skips it and stores 1 at the address `Ref("error")`,
which is 0 where nobody listens. Updates of one element are combined in their own order by one
thread, so any split over threads gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tracecc.backends.cpu import toolchain
from tracecc.backends.schedule_types import Argument, Plan, Ref, Stage
from tracecc_ir.graph import Node
from tracecc_ir.types import DType

Pair = tuple[int, int]
GRAIN = 1 << 14  # elements
HALVES = ("f16", "bf16")

# Units are elements of rows of `row` elements; each side has its own stride from row to row.
_COPY = """
def copy(args, begin, end, scratch):
    x = {source}_ptr(args, 0)
    o = {target}_ptr(args, 1)
    row = i64_arg(args, 2)
    x_stride = i64_arg(args, 3)
    o_stride = i64_arg(args, 4)
    k = begin
    while k < end:
        first = k % row
        take = minimum(row - first, end - k)
        s = k // row * x_stride + first
        d = k // row * o_stride + first
        for i in range(take):
            o[d + i] = {convert}(x[s + i])
        k += take
"""

# Units are places along the indexed axes, or (split_rest) elements of the other dimensions: a call
# reads every index and applies what falls into its part.
_SCATTER = """
def scatter(args, begin, end, scratch):
    error = i64_arg(args, 0)
    o = {kind}_ptr(args, 1)
    u = {storage}_ptr(args, 2)
    count = i64_arg(args, 3)
    rest = i64_arg(args, 4)
    inner = i64_arg(args, 5)
    outer_stride = i64_arg(args, 6)
    inner_stride = i64_arg(args, 7)
    split_rest = i64_arg(args, 8)
    places = i64_arg(args, 9)
    first = 0 if split_rest else begin
    last = places if split_rest else end
    left = begin if split_rest else 0
    right = end if split_rest else rest
{arguments}
    for j in range(count):
        good = True
        place = 0
        at = 0
{lookups}
        if not good:
            if error != 0:
                i64_at(error)[0] = 1
        elif place >= first and place < last:
            r = left
            while r < right:
                skip = r % inner
                take = minimum(inner - skip, right - r)
                d = at + r // inner * outer_stride + skip * inner_stride
                s = j * rest + r
                if inner_stride == 1:
                    for i in range(take):
                        o[d + i] = {combine_row}
                else:
                    for i in range(take):
                        o[d + i * inner_stride] = {combine_strided}
                r += take
"""

_ARGUMENTS = """
    p{n} = {dtype}_ptr(args, {slot})
    n{n} = i64_arg(args, {slot} + 1)
    s{n} = i64_arg(args, {slot} + 2)
"""

_LOOKUP = """
        i{n} = i64(p{n}[j])
        if i{n} < 0:
            i{n} += n{n}
        if i{n} < 0 or i{n} >= n{n}:
            good = False
        place = place * n{n} + i{n}
        at += i{n} * s{n}
"""

# Units are the rows along the axis, [outer, inner]; the axis itself is walked in order.
_ALONG = """
def scatter_along(args, begin, end, scratch):
    error = i64_arg(args, 0)
    o = {kind}_ptr(args, 1)
    p = {index}_ptr(args, 2)
    u = {storage}_ptr(args, 3)
    n = i64_arg(args, 4)
    stride = i64_arg(args, 5)
    length = i64_arg(args, 6)
    width = i64_arg(args, 7)
    outer = i64_arg(args, 8)
    outer_far = i64_arg(args, 9)
    outer_near = i64_arg(args, 10)
    inner = i64_arg(args, 11)
    inner_far = i64_arg(args, 12)
    inner_near = i64_arg(args, 13)
    k = begin
    while k < end:
        row = k // width
        low = k % width
        high = minimum(width, low + end - k)
        base = row // outer * outer_far + row % outer * outer_near
        if width == 1:
            for a in range(length):
                s = row * length + a
                at = i64(p[s])
                if at < 0:
                    at += n
                if at < 0 or at >= n:
                    if error != 0:
                        i64_at(error)[0] = 1
                else:
                    d = base + at * stride
                    o[d] = {combine}
        else:
            for a in range(length):
                for i in range(low, high):
                    s = (row * length + a) * width + i
                    at = i64(p[s])
                    if at < 0:
                        at += n
                    if at < 0 or at >= n:
                        if error != 0:
                            i64_at(error)[0] = 1
                    else:
                        d = base + at * stride
                        d += i // inner * inner_far + i % inner * inner_near
                        o[d] = {combine}
        k += high - low
"""

# A window of at most two blocks of rows: its first element is found from the clamped starts.
_WINDOW = """
def window(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = {storage}_ptr(args, 1)
    rank = i64_arg(args, 2)
    into = i64_arg(args, 3)
    row = maximum(i64_arg(args, 4 + 4 * (rank - 1) + 2), 1)
    k = begin
    while k < end:
        first = k % row
        take = minimum(row - first, end - k)
        left = k // row
        at = 0
        for b in range(rank):
            d = rank - 1 - b
            room = i64_arg(args, 4 + 4 * d + 1)
            size = i64_arg(args, 4 + 4 * d + 2)
            start = maximum(minimum(i64_ptr(args, 4 + 4 * d)[0], room - size), 0)
            if b > 0:
                start += left % size
                left = left // size
            at += start * i64_arg(args, 4 + 4 * d + 3)
        if into:
            for i in range(take):
                o[at + first + i] = x[k + i]
        else:
            for i in range(take):
                o[k + i] = x[at + first + i]
        k += take
"""


def storage_name(dtype: DType) -> str:
    """What kernels call the dtype in memory."""
    return {"bool": "u8", "f16": "u16", "bf16": "u16"}.get(dtype.name, dtype.name)


def wide_name(dtype: DType) -> str:
    """What kernels compute the dtype in."""
    return "f32" if dtype.name in HALVES else storage_name(dtype)


def load_name(dtype: DType) -> str:
    return f"f32_from_{dtype.name}" if dtype.name in HALVES else storage_name(dtype)


def store_name(dtype: DType) -> str:
    return f"{dtype.name}_from_f32" if dtype.name in HALVES else storage_name(dtype)


def row_major(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[d + 1 :]) for d in range(len(shape))]


def merged(shape: Sequence[int], strides: Sequence[int]) -> list[Pair]:
    """Dimensions in order as few (extent, stride) pairs as their strides allow."""
    pairs: list[Pair] = []
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if pairs and pairs[-1][1] == size * stride:
            pairs[-1] = (pairs[-1][0] * size, stride)
        else:
            pairs.append((size, stride))
    return pairs


def _two(pairs: list[Pair]) -> tuple[int, int, int]:
    """(inner extent, outer stride, inner stride) of at most two pairs."""
    if len(pairs) < 2:
        extent, stride = pairs[0] if pairs else (1, 1)
        return max(extent, 1), 0, stride
    return max(pairs[1][0], 1), pairs[0][1], pairs[1][1]


def copy_stage(
    source: Ref,
    target: Ref,
    count: int,
    names: tuple[str, str, str],
    rows: tuple[int, int, int] | None = None,
) -> Stage:
    """Copies `count` elements.

    Args:
        names: source type, target type and the conversion between them.
        rows: (length of a row, its strides in the source and the target); by default all is dense.
    """
    text = _COPY.format(source=names[0], target=names[1], convert=names[2])
    kernel = toolchain.compile_kernel(text, "copy", independent=True)
    row, near, far = rows or (count, count, count)
    return Stage(kernel, [source, target, max(row, 1), near, far], count, GRAIN, bytes=8 * count)


def _plain_copy(dtype: DType, source: Ref, target: Ref, count: int) -> Stage:
    name = storage_name(dtype)
    return copy_stage(source, target, count, (name, name, name))


def _combined(dtype: DType, mode: str, wide: bool, old: str, new: str) -> str:
    """The expression that combines an update with what is there."""
    value = f"{load_name(dtype)}({new})" if wide else new
    if mode == "set":
        return value
    if dtype.name == "bool":
        mode = {"add": "max", "mul": "min"}.get(mode, mode)
    name = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}[mode]
    return f"{name}({old}, {value})"


def _around(dtype: DType, mode: str, count: int) -> tuple[Ref, list[Stage], list[Stage], list[int]]:
    """Where updates go, the stages before and after them, and temporaries.

    Halves are combined in f32 and rounded once.
    """
    output = Ref("output")
    if mode == "set" or dtype.name not in HALVES:
        return output, [_plain_copy(dtype, Ref("input"), output, count)], [], []
    temp = Ref("temp")
    widen = copy_stage(Ref("input"), temp, count, ("u16", "f32", load_name(dtype)))
    narrow = copy_stage(temp, output, count, ("f32", "u16", store_name(dtype)))
    return temp, [widen], [narrow], [4 * count]


def plan_scatter(node: Node) -> Plan | None:
    """The plan of a scatter, or None if no two strides describe the dimensions it leaves alone."""
    x, *indices, _ = (v.type for v in node.inputs)
    axes, mode, dtype = node.attrs["axes"], node.attrs["mode"], x.dtype
    shape = x.sizes
    strides = row_major(shape)
    others = [d for d in range(len(shape)) if d not in axes]
    pairs = merged([shape[d] for d in others], [strides[d] for d in others])
    if len(pairs) > 2:
        return None
    target, before, after, temporaries = _around(dtype, mode, math.prod(shape))
    wide = target.where == "temp"
    fill = {
        "kind": "f32" if wide else storage_name(dtype),
        "storage": storage_name(dtype),
        "combine_row": _combined(dtype, mode, wide, "o[d + i]", "u[s + i]"),
        "combine_strided": _combined(dtype, mode, wide, "o[d + i * inner_stride]", "u[s + i]"),
        "arguments": "".join(
            _ARGUMENTS.format(n=n, dtype=i.dtype.name, slot=10 + 3 * n)
            for n, i in enumerate(indices)
        ),
        "lookups": "".join(_LOOKUP.format(n=n) for n in range(len(indices))),
    }
    kernel = toolchain.compile_kernel(_SCATTER.format(**fill), "scatter", independent=True)
    count = math.prod(indices[0].sizes)
    rest = math.prod(shape[d] for d in others)
    places = math.prod(shape[a] for a in axes)
    # Few places, or few elements at each: split what lies at them.
    split_rest = places < 8
    extent = rest if split_rest else places
    pieces = 1 if count * rest < GRAIN or rest < 4 else 16 if rest >= 32 else 4
    args: list[Argument] = [Ref("error"), target, Ref("input", len(indices) + 1)]
    args += [count, rest, *_two(pairs), int(split_rest), places]
    for n, axis in enumerate(axes):
        args += [Ref("input", 1 + n), shape[axis], strides[axis]]
    work = count * rest * dtype.itemsize
    # With nothing to write the indices are still checked.
    extent = max(extent, 1) if count else 0
    stage = Stage(kernel, args, extent, max(1, -(-extent // pieces)), bytes=3 * work)
    return Plan([*before, stage, *after], temporaries)


def plan_scatter_along(node: Node) -> Plan | None:
    """The plan of a scatter_along, or None if the index's own shape has too many strides."""
    x, index, _ = (v.type for v in node.inputs)
    axis, mode, dtype = node.attrs["axis"], node.attrs["mode"], x.dtype
    shape, used = x.sizes, index.sizes
    strides = row_major(shape)
    outer = merged(used[:axis], strides[:axis])
    inner = merged(used[axis + 1 :], strides[axis + 1 :])
    if len(outer) > 2 or len(inner) > 2:
        return None
    target, before, after, temporaries = _around(dtype, mode, math.prod(shape))
    wide = target.where == "temp"
    text = _ALONG.format(
        kind="f32" if wide else storage_name(dtype),
        storage=storage_name(dtype),
        index=index.dtype.name,
        combine=_combined(dtype, mode, wide, "o[d]", "u[s]"),
    )
    kernel = toolchain.compile_kernel(text, "scatter_along")
    width, length = math.prod(used[axis + 1 :]), used[axis]
    rows = math.prod(used[:axis]) * width
    args: list[Argument] = [Ref("error"), target, Ref("input", 1), Ref("input", 2)]
    args += [shape[axis], strides[axis], length, max(width, 1), *_two(outer), *_two(inner)]
    grain = max(1, GRAIN // max(1, length))
    work = rows * length * (2 * dtype.itemsize + 8)
    stage = Stage(kernel, args, rows if length else 0, grain, bytes=work)
    return Plan([*before, stage, *after], temporaries)


def plan_concat(node: Node) -> Plan:
    """One copy for each operand."""
    axis, stages = node.attrs["axis"], []
    shape = node.output.type.sizes
    name = storage_name(node.output.type.dtype)
    size = node.output.type.dtype.itemsize
    inner = math.prod(shape[axis + 1 :])
    start = 0
    for n, v in enumerate(node.inputs):
        own = v.type.sizes
        row = own[axis] * inner
        to = Ref("output", 0, start * inner * size)
        rows = (row, row, shape[axis] * inner)
        stages.append(copy_stage(Ref("input", n), to, math.prod(own), (name,) * 3, rows))
        start += own[axis]
    return Plan(stages)


def _window_stage(dtype: DType, args: list[Argument], count: int) -> Stage:
    text = _WINDOW.format(storage=storage_name(dtype))
    kernel = toolchain.compile_kernel(text, "window", independent=True)
    return Stage(kernel, args, count, GRAIN, bytes=2 * count * dtype.itemsize)


def _window_dims(shape: Sequence[int], window: Sequence[int], first_start: int) -> list[Argument]:
    args: list[Argument] = []
    for d, stride in enumerate(row_major(shape)):
        args += [Ref("input", first_start + d), shape[d], window[d], stride]
    return args


def plan_dynamic_slice(node: Node) -> Plan:
    """One copy of the window."""
    x = node.inputs[0].type
    shape, window = x.sizes, node.output.type.sizes
    if not shape:
        return Plan([_plain_copy(x.dtype, Ref("input"), Ref("output"), 1)])
    args = [Ref("input"), Ref("output"), len(shape), 0, *_window_dims(shape, window, 1)]
    return Plan([_window_stage(x.dtype, args, math.prod(window))])


def plan_dynamic_update(node: Node) -> Plan:
    """A copy of the array, then one of the window."""
    x, update = node.inputs[0].type, node.inputs[1].type
    shape, window = x.sizes, update.sizes
    if not shape:
        return Plan([_plain_copy(x.dtype, Ref("input", 1), Ref("output"), 1)])
    args = [Ref("input", 1), Ref("output"), len(shape), 1, *_window_dims(shape, window, 2)]
    copied = _plain_copy(x.dtype, Ref("input"), Ref("output"), math.prod(shape))
    return Plan([copied, _window_stage(x.dtype, args, math.prod(window))])
