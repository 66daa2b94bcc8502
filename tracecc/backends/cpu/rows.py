"""Plans of what walks one axis in order: argmax and argmin, running reductions, sorting.

The operand is [outer, axis, inner]; units are its rows along the axis, outer * inner of them. Where
inner is not 1, neighbouring rows are walked side by side, in blocks whose state is in scratch.
"""

from __future__ import annotations

import math

from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.scatter import HALVES, load_name, storage_name, store_name, wide_name
from tracecc.backends.schedule_types import Argument, Plan, Ref, Stage
from tracecc_ir.graph import Node
from tracecc_ir.types import DType

GRAIN = 1 << 14  # elements
BLOCK = 512  # rows side by side
LANES = 64  # elements of one row that argmax compares side by side
RUN = 16  # elements sorted by insertion before merging

_SIDE_BY_SIDE = """
    k = begin
    while k < end:
        outer = k // inner
        low = k % inner
        take = minimum(minimum(inner - low, end - k), {block})
        base = outer * length * inner + low
"""

_ARG = """
def arg_extremum(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = i64_ptr(args, 1)
    length = i64_arg(args, 2)
    inner = i64_arg(args, 3)
    best = {kind}_at(scratch)
    places = i64_at(scratch + 8 * {lanes})
    if inner == 1:
        for k in range(begin, end):
            base = k * length
            # Lane i looks at every element i + {lanes} * a; the last lanes may have none.
            lanes = minimum({lanes}, length)
            for i in range(lanes):
                best[i] = {load}(x[base + i])
                places[i] = i
            whole = length - length % {lanes}
            for a in range({lanes}, whole, {lanes}):
                for i in range({lanes}):
                    v = {load}(x[base + a + i])
                    m = best[i]
                    better = bit_or(v {sign} m, bit_and(v != v, m == m))
                    best[i] = select(better, v, m)
                    places[i] = select(better, a + i, places[i])
            m = best[0]
            f = places[0]
            for i in range(1, lanes):
                v = best[i]
                better = bit_or(v {sign} m, bit_and(v != v, m == m))
                same = bit_or(v == m, bit_and(v != v, m != m))
                better = bit_or(better, bit_and(same, places[i] < f))
                m = select(better, v, m)
                f = select(better, places[i], f)
            for i in range(maximum(whole, lanes), length):
                v = {load}(x[base + i])
                better = bit_or(v {sign} m, bit_and(v != v, m == m))
                m = select(better, v, m)
                f = select(better, i, f)
            o[k] = f
        return
{side_by_side}
        for i in range(take):
            best[i] = {load}(x[base + i])
            o[k + i] = 0
        for a in range(1, length):
            for i in range(take):
                v = {load}(x[base + a * inner + i])
                m = best[i]
                better = bit_or(v {sign} m, bit_and(v != v, m == m))
                best[i] = select(better, v, m)
                o[k + i] = select(better, a, o[k + i])
        k += take
"""

_RUNNING = """
def running(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = {storage}_ptr(args, 1)
    length = i64_arg(args, 2)
    inner = i64_arg(args, 3)
    reverse = i64_arg(args, 4)
    state = {kind}_at(scratch)
    start = length - 1 if reverse else 0
    step = -1 if reverse else 1
    if inner == 1:
        for k in range(begin, end):
            d = k * length + start
            m = {load}(x[d])
            o[d] = {store}(m)
            for a in range(1, length):
                d += step
                m = {combine}(m, {load}(x[d]))
                o[d] = {store}(m)
        return
{side_by_side}
        d = base + start * inner
        for i in range(take):
            state[i] = {load}(x[d + i])
            o[d + i] = {store}(state[i])
        for a in range(1, length):
            d += step * inner
            for i in range(take):
                m = {combine}(state[i], {load}(x[d + i]))
                state[i] = m
                o[d + i] = {store}(m)
        k += take
"""

# Keys are integers that order as the numbers do: a float's bits, the lower 63 flipped where it is
# negative, with one zero, and one NaN above all. `less` is strict, so equal keys keep their order.
_SORT = """
def sort(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = {storage}_ptr(args, 1)
    p = i64_ptr(args, 2)
    length = i64_arg(args, 3)
    inner = i64_arg(args, 4)
    descending = i64_arg(args, 5)
    flip = -1 if descending else 0
    for k in range(begin, end):
        base = k // inner * length * inner + k % inner
        keys = i64_at(scratch)
        places = i64_at(scratch + 8 * length)
        more_keys = i64_at(scratch + 16 * length)
        more_places = i64_at(scratch + 24 * length)
{make_keys}
        for i in range(length):
            keys[i] = bit_xor(keys[i], flip)
            places[i] = i
        for low in range(0, length, {run}):
            for i in range(low + 1, minimum(low + {run}, length)):
                key = keys[i]
                place = places[i]
                j = i - 1
                while j >= low and keys[j] > key:
                    keys[j + 1] = keys[j]
                    places[j + 1] = places[j]
                    j -= 1
                keys[j + 1] = key
                places[j + 1] = place
        size = {run}
        while size < length:
            for low in range(0, length, 2 * size):
                middle = minimum(low + size, length)
                high = minimum(low + 2 * size, length)
                a = low
                b = middle
                for j in range(low, high):
                    right = a >= middle
                    if not right and b < high:
                        right = keys[b] < keys[a]
                    source = select(right, b, a)
                    more_keys[j] = keys[source]
                    more_places[j] = places[source]
                    b += i64(right)
                    a += 1 - i64(right)
            spare = keys
            keys = more_keys
            more_keys = spare
            spare = places
            places = more_places
            more_places = spare
            size *= 2
        for i in range(length):
            p[base + i * inner] = places[i]
            o[base + i * inner] = x[base + places[i] * inner]
"""

_INTEGER_KEYS = """
        for i in range(length):
            keys[i] = i64(x[base + i * inner])
"""

_FLOAT_KEYS = """
        numbers = f64_at(scratch)
        for i in range(length):
            numbers[i] = f64({load}(x[base + i * inner])) + 0.0
        for i in range(length):
            bits = keys[i]
            key = bit_xor(bits, 9223372036854775807) if bits < 0 else bits
            keys[i] = 9223372036854775807 if numbers[i] != numbers[i] else key
"""


def _extents(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Outer, axis and inner."""
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _names(dtype: DType) -> dict[str, str]:
    return {
        "storage": storage_name(dtype),
        "kind": wide_name(dtype),
        "load": load_name(dtype),
        "store": store_name(dtype),
        "side_by_side": _SIDE_BY_SIDE.format(block=BLOCK),
    }


def _stage(text: str, args: list[Argument], node: Node, scratch: int) -> Plan:
    """A plan of one stage over the rows along the node's axis."""
    x = node.inputs[0].type
    outer, length, inner = _extents(x.sizes, node.attrs["axis"])
    entry = text.split("(", 1)[0].removeprefix("\ndef ")
    kernel = toolchain.compile_kernel(text, entry, independent=entry != "sort")
    grain = max(1, GRAIN // max(1, length))
    work = math.prod(x.sizes)
    rows = outer * inner if length else 0
    return Plan([Stage(kernel, args, rows, grain, scratch, work, 2 * work * x.dtype.itemsize)])


def plan_arg(node: Node) -> Plan:
    """The plan of argmax or argmin."""
    x = node.inputs[0].type
    sign = ">" if node.op.name == "argmax" else "<"
    _, length, inner = _extents(x.sizes, node.attrs["axis"])
    args: list[Argument] = [Ref("input"), Ref("output"), length, inner]
    return _stage(_ARG.format(sign=sign, lanes=LANES, **_names(x.dtype)), args, node, 8 * BLOCK)


def plan_running(node: Node) -> Plan:
    """The plan of cumsum, cumprod, cummax or cummin; halves are combined in f32."""
    x = node.inputs[0].type
    names = {"cumsum": "add", "cumprod": "mul", "cummax": "maximum", "cummin": "minimum"}
    text = _RUNNING.format(combine=names[node.op.name], **_names(x.dtype))
    _, length, inner = _extents(x.sizes, node.attrs["axis"])
    args: list[Argument] = [Ref("input"), Ref("output"), length, inner]
    return _stage(text, [*args, int(node.attrs["reverse"])], node, 8 * BLOCK)


def plan_sort(node: Node) -> Plan:
    """The plan of a sort: a merge sort of keys and places for each row."""
    x = node.inputs[0].type
    keys = _FLOAT_KEYS if x.dtype.kind == "float" else _INTEGER_KEYS
    load = load_name(x.dtype) if x.dtype.name in HALVES else ""
    text = _SORT.format(storage=storage_name(x.dtype), run=RUN, make_keys=keys.format(load=load))
    _, length, inner = _extents(x.sizes, node.attrs["axis"])
    args: list[Argument] = [Ref("input"), Ref("output", 0), Ref("output", 1), length, inner]
    return _stage(text, [*args, int(node.attrs["descending"])], node, 32 * length)
