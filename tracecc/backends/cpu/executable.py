"""A compiled graph: launch table segments around host steps, argument slots, arena and outputs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracecc.backends.cpu.driver import Program as Table
from tracecc.backends.cpu.emit import Emitted
from tracecc.backends.cpu.toolchain import Kernel
from tracecc.backends.schedule import Launch, Operand, Program
from tracecc_ir.interpret import evaluate

ALIGNMENT = 64


@dataclass(frozen=True)
class KernelInfo:
    """What users see of one kernel."""

    name: str
    kind: str
    source: str
    ops: tuple[str, ...]
    lines: tuple[str, ...]
    bytes: int
    flops: int
    why: str
    cached: bool
    compile_seconds: float

    def __str__(self) -> str:
        head = f"{self.kind} kernel {self.name}: {self.bytes} bytes, {self.flops} flops"
        notes = [f"ops: {' '.join(self.ops)}"]
        if self.lines:
            notes.append(f"from: {', '.join(self.lines)}")
        if self.why:
            notes.append(f"why: {self.why}")
        return "\n".join([head, *(f"  {n}" for n in notes), self.source])


@dataclass
class Bound:
    """A launch with its machine code."""

    launch: Launch
    emitted: Emitted | None = None
    kernel: Kernel | None = None


class Executable:
    """Runs a scheduled graph. Calls from several threads take turns: they share the arena."""

    def __init__(self, program: Program, bound: list[Bound], compiled: int):
        self.program, self._bound = program, bound
        self.kernels_compiled = compiled
        self._lock = threading.Lock()
        self._arena = _aligned(program.arena_bytes)
        self._inputs = [b for b in program.buffers if b.kind == "input"]
        self._states = [b for b in program.buffers if b.kind == "state"]
        counts = len(self._inputs), len(self._states), len(program.outputs)
        # Bases: inputs, states, outputs, then the arena. A pointer slot is a base plus an offset.
        starts = np.cumsum([0, *counts])
        self._start = dict(zip(("input", "state", "output", "arena"), starts, strict=True))
        self._bases = np.zeros(int(starts[3]) + 1, np.int64)
        self._bases[-1] = self._arena.ctypes.data
        self._build()
        self._held: list[np.ndarray] | None = None

    def _build(self) -> None:
        """Fills the argument slots and cuts the launches into segments at host steps."""
        slots: list[int] = []
        places: list[tuple[int, int, int]] = []
        rows: list[list[int]] = []
        self._segments: list[Table | Launch] = []
        pending: list[tuple[Bound, int]] = []
        segments: list[list[tuple[Bound, int]] | Launch] = []
        for b in self._bound:
            if b.emitted is None:
                if pending:
                    segments.append(pending)
                segments.append(b.launch)
                pending = []
                continue
            pending.append((b, len(slots)))
            operands = [*b.launch.inputs, *b.launch.outputs]
            for what, n, offset in b.emitted.slots:
                if what == "pointer":
                    o = operands[int(n)]
                    base, byte = self._address(o)
                    places.append((len(slots), base, byte + offset * o.type.dtype.itemsize))
                    slots.append(0)
                else:
                    slots.append(_bits(what, n))
            slots.extend([0] * (-len(slots) % 8))
        if pending:
            segments.append(pending)
        self._slots = _aligned(8 * len(slots)).view(np.int64)
        self._slots[:] = slots
        table = np.array(places, np.int64).reshape(-1, 3)
        self._where, self._base, self._offset = table[:, 0].copy(), table[:, 1], table[:, 2].copy()
        start = self._slots.ctypes.data
        for segment in segments:
            if isinstance(segment, Launch):
                self._segments.append(segment)
                continue
            rows = [self._row(b, start + 8 * at) for b, at in segment]
            scratch = max(b.emitted.scratch for b, _ in segment if b.emitted)
            self._segments.append(Table(rows, scratch))
        moving = self._base < self._start["state"]
        moving |= (self._base >= self._start["output"]) & (self._base < self._start["arena"])
        self._moving = (self._where[moving], self._base[moving].copy(), self._offset[moving])

    def _row(self, b: Bound, args: int) -> list[int]:
        assert b.kernel is not None and b.emitted is not None
        units = b.emitted.units
        work = b.launch.bytes + 2 * b.launch.flops
        grain = max(1, -(-units * GRAIN // max(1, work)))
        if grain >= 64:
            grain = -(-grain // 64) * 64
        return [b.kernel.address, args, units, grain]

    def _address(self, operand: Operand) -> tuple[int, int]:
        b = operand.buffer
        if b.kind == "arena":
            return int(self._start["arena"]), b.place
        return int(self._start[b.kind]) + b.place, 0

    def __call__(
        self, inputs: Sequence[np.ndarray], state: Sequence[np.ndarray] = ()
    ) -> list[np.ndarray]:
        """Runs the graph.

        Args:
            inputs: one array per graph input, of its type; strided ones are copied.
            state: one contiguous array per captured state; updates are written into them.

        Returns:
            One new array per graph output.
        """
        with self._lock:
            arrays = [a if a.flags.c_contiguous else np.ascontiguousarray(a) for a in inputs]
            outputs = [np.empty(t.shape, t.dtype.numpy) for t in self.program.outputs]
            bases = self._bases
            n = len(arrays)
            for i, a in enumerate(arrays):
                bases[i] = a.__array_interface__["data"][0]
            first = int(self._start["output"])
            for i, a in enumerate(outputs):
                bases[first + i] = a.__array_interface__["data"][0]
            held = self._held
            if held is None or any(a is not b for a, b in zip(held, state, strict=True)):
                held = self._rebind(list(state), n)
            where, base, offset = self._moving
            self._slots[where] = bases[base] + offset
            for segment in self._segments:
                if isinstance(segment, Launch):
                    self._host(segment, arrays, held, outputs)
                else:
                    segment.run()
            return outputs

    def _rebind(self, state: list[np.ndarray], inputs: int) -> list[np.ndarray]:
        for i, a in enumerate(state):
            if not a.flags.c_contiguous:
                raise ValueError(f"state {i} must be contiguous, given strides {a.strides}")
            self._bases[inputs + i] = a.ctypes.data
        self._held = state
        self._slots[self._where] = self._bases[self._base] + self._offset
        return state

    def _host(
        self,
        launch: Launch,
        inputs: list[np.ndarray],
        state: list[np.ndarray],
        outputs: list[np.ndarray],
    ) -> None:
        """Runs one op on arrays."""

        def view(o: Operand) -> np.ndarray:
            b, t = o.buffer, o.type
            if b.kind == "arena":
                raw = self._arena[b.place : b.place + b.nbytes]
                return raw.view(t.dtype.numpy).reshape(t.shape)
            held = {"input": inputs, "state": state, "output": outputs}[b.kind]
            return held[b.place].reshape(t.shape)

        assert launch.node is not None
        node = launch.node
        results = evaluate(node.op, [view(o) for o in launch.inputs], node.attrs)
        for target, result in zip(launch.outputs, results, strict=True):
            np.copyto(view(target), result)

    # What users look at.

    def kernels(self) -> list[KernelInfo]:
        """Each kernel in launch order: source, ops, user lines, bytes, flops, why."""
        found = []
        for b in self._bound:
            e, k, launch = b.emitted, b.kernel, b.launch
            found.append(
                KernelInfo(
                    e.entry if e else launch.name,
                    launch.kind,
                    e.source if e else f"# {launch.name}: run by the interpreter\n",
                    tuple(launch.ops),
                    tuple(launch.lines),
                    launch.bytes,
                    launch.flops,
                    launch.why,
                    k.cached if k else True,
                    k.compile_seconds if k else 0.0,
                )
            )
        return found

    def schedule(self) -> str:
        """The text of the schedule."""
        return str(self.program)

    def summary(self) -> str:
        """Launches, memory plan, compile times and cache hits in a few lines."""
        kernels = {b.kernel.symbol: b.kernel for b in self._bound if b.kernel}.values()
        hits = sum(k.cached for k in kernels)
        seconds = sum(k.compile_seconds for k in kernels)
        host = sum(b.kernel is None for b in self._bound)
        temporaries = [b for b in self.program.buffers if b.kind == "arena"]
        total = sum(b.nbytes for b in temporaries)
        return (
            f"{len(self._bound)} launches ({host} run by the interpreter), {len(kernels)} kernels, "
            f"{self.kernels_compiled} compiled in this call, {hits} from the disk cache, "
            f"{seconds * 1e3:.0f} ms\n"
            f"arena {self.program.arena_bytes} bytes for {len(temporaries)} temporaries of {total} bytes"
        )


# A piece of parallel work is worth about this many bytes and operations.
GRAIN = 1 << 16


def _bits(kind: str, value: float) -> int:
    """A number as the bits of a slot."""
    if kind == "number":
        return int(value)
    with np.errstate(over="ignore"):
        if kind == "f32":
            return int(np.float32(value).view(np.int32))
        return int(np.float64(value).view(np.int64))


def _aligned(size: int) -> np.ndarray:
    """Zeroed bytes on a cache line."""
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
