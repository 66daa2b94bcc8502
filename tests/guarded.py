"""Memory between unreadable pages, and random kernels that run in it.

As a program, ``guarded.py FIRST LAST [WHAT ...]`` runs the cases of these seeds; a kernel that
reads or writes outside of its operands ends the process. The last case begun is the last line.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tracecc.backends.cpu import driver, driver_ir
from tracecc.backends.cpu.driver import Program as Table
from tracecc.backends.cpu.library import plan
from tracecc.backends.cpu.lower import compile_graph
from tracecc.backends.cpu.toolchain import Kernel
from tracecc.backends.schedule_types import Plan, Ref
from tracecc_ir.errors import IRError
from tracecc_ir.graph import Graph, Node, Value, specialize
from tracecc_ir.interpret import evaluate, interpret
from tracecc_ir.op import OPS
from tracecc_ir.passes import pipeline
from tracecc_ir.text import parse
from tracecc_ir.types import DType, dtype, type_of_array

KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
TOLERANCE = {"f64": 1e-10, "f32": 2e-3, "f16": 2e-2, "bf16": 6e-2}


class Region:
    """Memory with an unreadable page on either side."""

    def __init__(self, capacity: int):
        page = mmap.PAGESIZE
        self.capacity = -(-max(capacity, 1) // page) * page
        self._pages = mmap.mmap(-1, self.capacity + 2 * page)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self._pages)) + page
        libc = ctypes.CDLL(None, use_errno=True)
        for edge in (self.start - page, self.start + self.capacity):
            if libc.mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, size: int, at_end: bool) -> np.ndarray:
        """u8[size] that ends at the unreadable page, or begins right behind one; all ones."""
        address = self.start + (self.capacity - size if at_end else 0)
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * max(size, 1)).from_address(address))[:size]
        raw[...] = 255
        return raw


class Guard:
    """Hands out guarded memory; `reset` takes it all back."""

    def __init__(self, at_end: bool = True):
        self.at_end = at_end
        self._regions: list[Region] = []
        self._used = 0

    def reset(self, at_end: bool) -> None:
        self.at_end, self._used = at_end, 0

    def memory(self, size: int, align: int = 1) -> np.ndarray:
        """u8[size]; its length is rounded up to ``align``, which the address then is aligned to."""
        size = -(-size // align) * align
        free = self._regions[self._used :]
        if not free or free[0].capacity < size:
            self._regions.insert(self._used, Region(max(size, 1 << 16)))
        self._used += 1
        return self._regions[self._used - 1].place(size, self.at_end)

    def empty(self, shape: Sequence[int], kind: np.dtype) -> np.ndarray:
        count = int(np.prod(shape, dtype=np.int64))
        return self.memory(count * kind.itemsize).view(kind).reshape(shape)

    def copy(self, a: np.ndarray) -> np.ndarray:
        placed = self.empty(a.shape, a.dtype)
        placed[...] = a
        return placed


def address(a: np.ndarray) -> int:
    return int(a.__array_interface__["data"][0])


def call(kernel: int, args: int, extent: int, scratch: int, cut: int) -> None:
    """A kernel over its units, in two pieces."""
    function = KERNEL(kernel)
    for begin, end in ((0, cut), (cut, extent)):
        if begin < end:
            function(args, begin, end, scratch)


def run_guarded(
    rng: random.Random, guard: Guard, node: Node, made: Plan, inputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """`library.run_plan` with every operand, temporary and scratch between unreadable pages."""
    held = [guard.copy(a) for a in inputs]
    outputs = [guard.empty(v.type.sizes, v.type.dtype.numpy) for v in node.outputs]
    # Planners may count on the scheduler's alignment of temporaries and scratch.
    temporaries = [guard.memory(n, 64) for n in made.temporaries]
    scratch = guard.memory(max(s.scratch for s in made.stages), 64)
    error = guard.memory(8)
    error[...] = 0
    blocks = [np.zeros(len(s.args), np.int64) for s in made.stages]
    places = {
        "input": held,
        "output": outputs,
        "temp": temporaries,
        "args": blocks,
        "error": [error],
    }

    def slot(value: Ref | Kernel | int) -> int:
        if isinstance(value, int):
            return value
        if isinstance(value, Kernel):
            return value.address
        found = places.get(value.where)
        return address(found[value.index]) + value.offset if found else 0

    for block, stage in zip(blocks, made.stages, strict=True):
        block[:] = [slot(a) for a in stage.args]
    for block, s in zip(blocks, made.stages, strict=True):
        if s.extent:
            args = block.ctypes.data
            call(s.kernel.address, args, s.extent, address(scratch), rng.randint(0, s.extent))
    if error.any():
        raise IndexError(node.op.name)
    return outputs


def run_graph(
    rng: random.Random, guard: Guard, graph: Graph, inputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """An executable's kernels, with inputs, outputs, arena and scratch between such pages."""
    executable = compile_graph(graph)
    held = [guard.copy(a) for a in inputs]
    outputs = {
        i: guard.empty(t.sizes, t.dtype.numpy) for i, t in enumerate(executable.program.outputs)
    }
    executable._arena = guard.memory(executable.program.arena_bytes, 64)
    executable._bind(executable._start["arena"], address(executable._arena))
    for segment in executable._segments:
        if isinstance(segment, Table):
            scratch = guard.memory(segment._stride, 64)
            _redirect(segment, scratch)
    return executable(held, (), outputs)


def _redirect(table: Table, scratch: np.ndarray) -> None:
    """Gives a table scratch memory of this one thread."""
    table._room, table._scratch = 1 << 30, scratch
    table._words[driver_ir.PROGRAM_SCRATCH] = address(scratch)
    table._words[driver_ir.PROGRAM_STRIDE] = table._stride


# Random cases. Each gives an op, its operands and its attributes.

Case = tuple[str, list[np.ndarray], dict[str, Any]]


def draw(rng: random.Random, kind: DType, *shape: int) -> np.ndarray:
    numbers = np.random.default_rng(rng.getrandbits(32))
    if kind.kind == "float":
        return np.asarray(numbers.standard_normal(shape)).astype(kind.numpy)
    return np.asarray(numbers.integers(0, 2 if kind.name == "bool" else 100, shape)).astype(
        kind.numpy
    )


def size(rng: random.Random, most: int) -> int:
    """Small sizes, whole vectors and their neighbours."""
    near = rng.choice((4, 8, 16, 32, 64, 128)) + rng.randint(-1, 1)
    return min(most, rng.randint(1, most) if rng.random() < 0.6 else near)


def conv_case(rng: random.Random) -> Case | None:
    rank = rng.choice((1, 2, 2, 2, 3))
    kind = dtype(rng.choice(("f32", "f32", "f32", "f64", "bf16", "f16")))
    n, groups = rng.randint(1, 3), rng.choice((1, 1, 1, 2, 3))
    c, o = size(rng, 20), size(rng, 36)
    if rng.random() < 0.15:
        groups, c, o = rng.randint(2, 20), 1, 1  # depthwise
    elif rng.random() < 0.2:
        groups, c, o = 1, size(rng, 130), size(rng, 130)
    spatial = tuple(size(rng, (90, 26, 9)[rank - 1]) for _ in range(rank))
    square = rng.random() < 0.4
    if square:
        spatial = spatial[:1] * rank
    window = tuple(rng.choice((1, 2, 3, 3, 3, 5, 7)[: 7 - rank]) for _ in range(rank))
    stride = tuple(rng.choice((1, 1, 1, 2, 3)) for _ in range(rank))
    if square:
        window, stride = window[:1] * rank, stride[:1] * rank
    padding = tuple((rng.randint(0, 3), rng.randint(0, 3)) for _ in range(rank))
    if rng.random() < 0.6:
        padding = tuple((k // 2, k // 2) for k in window)
    dilation = tuple(rng.choice((1, 1, 1, 2)) for _ in range(rank))
    if any(
        s + low + high <= (k - 1) * d
        for s, (low, high), k, d in zip(spatial, padding, window, dilation, strict=True)
    ):
        return None
    attrs: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
    }
    x = draw(rng, kind, n, c * groups, *spatial)
    w = draw(rng, kind, o * groups, c, *window)
    name = rng.choice(("conv", "conv_input_grad", "conv_weight_grad"))
    if name == "conv":
        return name, [x, w], attrs
    conv = OPS["conv"]
    out = conv.result_types([type_of_array(x), type_of_array(w)], conv.bind(attrs))[0]
    g = draw(rng, kind, *out.sizes)
    if name == "conv_input_grad":
        return name, [g, w], {"x_spatial": spatial, **attrs}
    return name, [x, g], {"w_spatial": window, **attrs}


def dot_case(rng: random.Random) -> Case:
    kind = dtype(rng.choice(("f32", "f32", "f32", "f64", "bf16")))
    m, k, n = (size(rng, 150) for _ in range(3))
    batch = [size(rng, 4) for _ in range(rng.choice((0, 0, 1, 2)))]
    b = len(batch)
    left = [m, k] if rng.random() < 0.5 else [k, m]
    right = [k, n] if rng.random() < 0.5 else [n, k]
    contract = ((b + left.index(k),), (b + right.index(k),))
    if left.count(k) > 1 or right.count(k) > 1:
        contract = ((b + 1,), (b,))
    lead = tuple(range(b))
    attrs = {"contract": contract, "batch": (lead, lead)}
    return "dot_general", [draw(rng, kind, *batch, *left), draw(rng, kind, *batch, *right)], attrs


def pool_case(rng: random.Random) -> Case | None:
    rank = rng.randint(1, 3)
    kind = dtype(rng.choice(("f32", "f32", "f64", "bf16", "i64", "u8")))
    lead = [size(rng, 5) for _ in range(rng.randint(0, 2))]
    spatial = tuple(size(rng, (90, 26, 9)[rank - 1]) for _ in range(rank))
    window = tuple(rng.randint(1, 4) for _ in range(rank))
    dilation = tuple(rng.choice((1, 1, 2)) for _ in range(rank))
    stride = tuple(rng.randint(1, 4) for _ in range(rank))
    if rng.random() < 0.4:
        window, stride, dilation = (2,) * rank, (2,) * rank, (1,) * rank
    reach = [(k - 1) * d for k, d in zip(window, dilation, strict=True)]
    padding = tuple((rng.randint(0, min(3, r)), rng.randint(0, min(3, r))) for r in reach)
    if rng.random() < 0.5:
        padding = ((0, 0),) * rank
    if any(s + sum(p) <= r for s, p, r in zip(spatial, padding, reach, strict=True)):
        return None
    attrs = {"window": window, "stride": stride, "padding": padding, "dilation": dilation}
    x = draw(rng, kind, *lead, *spatial)
    name = rng.choice(("window_max", "window_sum", "window_sum_grad"))
    if name != "window_sum_grad":
        return name, [x], attrs
    out = OPS["window_sum"].result_types([type_of_array(x)], attrs)[0]
    return name, [draw(rng, kind, *out.sizes)], {"x_spatial": spatial, **attrs}


def row_case(rng: random.Random) -> Case:
    kind = dtype(rng.choice(("f32", "f64", "bf16", "i64", "i32", "u8")))
    shape = [
        size(rng, 140) if rng.random() < 0.4 else size(rng, 9) for _ in range(rng.randint(1, 3))
    ]
    axis = rng.randrange(len(shape))
    name = rng.choice(("argmax", "argmin", "cumsum", "cumprod", "cummax", "cummin", "sort", "sort"))
    attrs: dict[str, Any] = {"axis": axis}
    if name.startswith("cum"):
        attrs["reverse"] = rng.random() < 0.5
    if name == "sort":
        attrs["descending"] = rng.random() < 0.5
    return name, [draw(rng, kind, *shape)], attrs


def move_case(rng: random.Random) -> Case:
    kind = dtype(rng.choice(("f32", "f64", "bf16", "i64", "u8", "bool")))
    shape = [size(rng, 40) for _ in range(rng.randint(1, 3))]
    name = rng.choice(("concat", "dynamic_slice", "dynamic_update", "scatter", "scatter_along"))
    numbers = np.random.default_rng(rng.getrandbits(32))
    x = draw(rng, kind, *shape)
    if name == "concat":
        axis = rng.randrange(len(shape))
        parts = [
            [*shape[:axis], size(rng, 20), *shape[axis + 1 :]] for _ in range(rng.randint(1, 4))
        ]
        return name, [draw(rng, kind, *p) for p in parts], {"axis": axis}
    starts = [np.array(rng.randint(-3, s + 3)) for s in shape]
    part = [rng.randint(1, s) for s in shape]
    if name == "dynamic_slice":
        return name, [x, *starts], {"sizes": tuple(part)}
    if name == "dynamic_update":
        return name, [x, draw(rng, kind, *part), *starts], {}
    mode = rng.choice(("set", "add", "max") if kind.name != "bool" else ("set",))
    if name == "scatter":
        axes = tuple(sorted(rng.sample(range(len(shape)), rng.randint(1, len(shape)))))
        many = [size(rng, 30) for _ in range(rng.randint(1, 2))]
        where = [numbers.integers(-shape[a], shape[a], many) for a in axes]
        rest = [s for i, s in enumerate(shape) if i not in axes]
        return name, [x, *where, draw(rng, kind, *many, *rest)], {"axes": axes, "mode": mode}
    axis = rng.randrange(len(shape))
    along = [rng.randint(1, s) if i != axis else size(rng, 30) for i, s in enumerate(shape)]
    where = [numbers.integers(-shape[axis], shape[axis], along)]
    return name, [x, *where, draw(rng, kind, *along)], {"axis": axis, "mode": mode}


def attention_case(rng: random.Random) -> Case:
    lead = [size(rng, 4) for _ in range(rng.randint(1, 2))]
    t, s, d = size(rng, 140), size(rng, 140), rng.choice((4, 8, 16, 24, 32, 64))
    kind = dtype("f32")
    causal = rng.random() < 0.5
    s = t if causal else s
    arrays = [draw(rng, kind, *lead, n, d) for n in (t, s, s)]
    return "attention", arrays, {"causal": causal, "scale": None}


CASES: dict[str, Callable[[random.Random], Case | None]] = {
    "conv": conv_case,
    "dot": dot_case,
    "pool": pool_case,
    "rows": row_case,
    "move": move_case,
    "attention": attention_case,
}

KINDS = [*CASES, "graph"]

# Kernels that are emitted: structures of fixed text, sizes drawn.
GRAPHS = (
    """graph chain(%x: f32[m, n], %b: f32[n]) {
      %v = broadcast(%b) axes=(1,) : f32[m, n] %a = add(%x, %v) : f32[m, n]
      %g = gelu(%a) : f32[m, n] %t = tanh(%g) : f32[m, n] return %t, %a }""",
    """graph rows(%x: f32[m, n], %w: f32[n], %b: f32[n]) {
      %s = softmax(%x) axis=1 : f32[m, n] %l = log_softmax(%x) axis=1 : f32[m, n]
      %y, %u, %r = layer_norm(%s, %w, %b) axes=1 : f32[m, n], f32[m], f32[m]
      return %y, %l, %u, %r }""",
    """graph columns(%x: f32[m, n], %y: f64[m, n]) {
      %q = mul(%x, %x) : f32[m, n] %s = reduce_sum(%q) axes=(0,) : f32[n]
      %t = reduce_max(%y) axes=(0,) : f64[n] %a = reduce_sum(%y) : f64[] return %s, %t, %a }""",
    """graph middle(%x: f32[k, m, n]) {
      %s = reduce_sum(%x) axes=(1,) : f32[k, n] %m = reduce_max(%x) axes=(0, 2) : f32[m]
      return %s, %m }""",
    """graph norm(%x: f32[k, m, n, n], %w: f32[m], %b: f32[m]) {
      %y, %u, %r = batch_norm(%x, %w, %b) : f32[k, m, n, n], f32[m], f32[m]
      %z = relu(%y) : f32[k, m, n, n] return %z, %u, %r }""",
    """graph turned(%x: f32[k, m, n]) {
      %p = permute(%x) axes=(2, 0, 1) : f32[n, k, m] %e = exp(%p) : f32[n, k, m]
      %f = flip(%e) axes=(0, 2) : f32[n, k, m] %g = neg(%f) : f32[n, k, m] return %g, %e }""",
    """graph padded(%x: f32[m, n]) {
      %p = pad(%x) low=(1, 2) high=(2, 0) interior=(1, 0) : f32[2*m + 2, n + 2]
      %e = exp(%p) : f32[2*m + 2, n + 2]
      %s = slice(%e) starts=(1, 1) strides=(2, 1) : f32[m + 1, n + 1] return %s, %e }""",
    """graph looked(%x: f32[m, n], %i: i64[k]) {
      %g = gather(%x, %i) axes=(0,) : f32[k, n] %t = tanh(%g) : f32[k, n]
      %s = reduce_sum(%t) axes=(1,) : f32[k] return %t, %s }""",
    """graph narrow(%x: bf16[m, n], %m: bool[m, n], %i: u8[m, n]) {
      %c = cast(%x) : f32[m, n] %j = cast(%i) : f32[m, n] %s = select(%m, %c, %j) : f32[m, n]
      %d = cast(%s) : bf16[m, n] %b = gt(%s, 0.5) : bool[m, n] %h = cast(%c) : f16[m, n]
      return %d, %b, %h }""",
    """graph drawn(%s: i64[], %p: i64[]) {
      %u = uniform(%s, %p) : f32[m, n] %v = normal(%s, %p) : f64[n] return %u, %v }""",
    """graph loss(%x: f32[m, n], %y: i64[m]) { %l = cross_entropy(%x, %y) : f32[] return %l }""",
    """graph dense(%x: f32[m, k], %w: f32[n, k], %b: f32[n], %r: f32[m, n]) {
      %h = dot_general(%x, %w) contract=((1,), (1,)) : f32[m, n]
      %v = broadcast(%b) axes=(1,) : f32[m, n] %z = add(%h, %v) : f32[m, n]
      %y = gelu(%z) : f32[m, n] %o = add(%y, %r) : f32[m, n] return %o, %z }""",
    """graph image(%x: f32[k, 3, m, m], %w: f32[n, 3, 3, 3], %b: f32[n]) {
      %h = conv(%x, %w) padding=((1, 1), (1, 1)) : f32[k, n, m, m]
      %v = broadcast(%b) axes=(1,) : f32[k, n, m, m] %z = add(%h, %v) : f32[k, n, m, m]
      %y = relu(%z) : f32[k, n, m, m] return %y }""",
    """graph moments(%x: f32[m, n]) {
      %a = mean(%x) axes=(0,) : f32[n] %v = var(%x) axes=(1,) : f32[m]
      %c = cumsum(%x) axis=1 : f32[m, n] %t = exp(%c) : f32[m, n] return %a, %v, %t }""",
    """graph joined(%x: f32[m, n], %y: f32[k, n]) {
      %e = exp(%x) : f32[m, n] %c = concat(%e, %y, %x) axis=0 : f32[2*m + k, n]
      %t = tanh(%c) : f32[2*m + k, n] return %t }""",
)


def library_case(rng: random.Random, guard: Guard, make: Callable) -> str | None:
    """Runs one random plan; a note on what was run, None if there was nothing to run."""
    case = make(rng)
    if case is None:
        return None
    name, arrays, attrs = case
    op = OPS[name]
    bound = op.bind(attrs)
    types = [type_of_array(a) for a in arrays]
    try:
        node = Node(op, [Value(t) for t in types], bound, op.result_types(types, bound))
    except IRError:
        return None
    print(f"{name}({', '.join(map(str, types))}) {attrs}", flush=True)
    made = plan(node)
    if made is None:
        return None
    found = run_guarded(rng, guard, node, made, arrays)
    if sum(a.size for a in arrays) < 20_000:
        compare(evaluate(op, arrays, bound), found)
    return name


def graph_case(rng: random.Random, guard: Guard) -> str:
    """Compiles and runs one of the graphs above at random sizes."""
    text = rng.choice(GRAPHS)
    image = "n, n]" in text or "m, m]" in text
    sizes = {s: size(rng, 12 if image else 70) + 1 for s in ("m", "n", "k")}
    graph = specialize(parse(text), sizes)
    graph = pipeline.run(graph, "fused")[-1][1]
    numbers = np.random.default_rng(rng.getrandbits(32))
    inputs = []
    for v in graph.inputs:
        if v.dtype.name == "i64":  # indices, targets, seeds
            inputs.append(np.asarray(numbers.integers(0, min(sizes.values()), v.type.sizes)))
        else:
            inputs.append(draw(rng, v.dtype, *v.type.sizes))
    print(f"{graph.name} {sizes}", flush=True)
    compare(interpret(graph, inputs)[0], run_graph(rng, guard, graph, inputs))
    return graph.name


def compare(wanted: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> None:
    for want, got in zip(wanted, found, strict=True):
        tolerance = TOLERANCE.get(type_of_array(want).dtype.name, 0.0)
        scale = float(np.abs(want.astype("f8")).max(initial=1.0)) if want.size else 1.0
        if tolerance:
            a, b = got.astype("f8"), want.astype("f8")
            np.testing.assert_allclose(a, b, tolerance, tolerance * scale)
        else:
            np.testing.assert_array_equal(got, want)


def cases(seeds: Iterable[int], kinds: Sequence[str]) -> Iterator[str | None]:
    """Runs a case per seed, one in four with operands that begin behind the unreadable page."""
    guard = Guard()
    for seed in seeds:
        rng = random.Random(seed)
        guard.reset(at_end=seed % 4 != 3)
        kind = kinds[seed % len(kinds)]
        print(f"seed {seed} {kind}: ", end="", flush=True)
        if kind == "graph":
            yield graph_case(rng, guard)
        else:
            yield library_case(rng, guard, CASES[kind])


def overrun(at_end: bool) -> None:
    """Takes one element too many, which must end the process."""
    x = Guard(at_end).copy(np.zeros(100, np.float32))
    print("begun", flush=True)
    row = ctypes.cast(address(x), ctypes.POINTER(ctypes.c_float))
    print(row[100 if at_end else -1])


def main(arguments: list[str]) -> None:
    driver.set_num_threads(1)
    if arguments[0] == "overrun":
        overrun(at_end=arguments[1] == "end")
        return
    first, last, *kinds = arguments
    ran = sum(name is not None for name in cases(range(int(first), int(last)), kinds or KINDS))
    print(f"\n{ran} cases ran", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
