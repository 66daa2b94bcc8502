"""A compiled graph: launch table segments around host steps, argument slots, arena and outputs."""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tracecc.backends.cpu.driver import Program as Table
from tracecc.backends.cpu.emit import Emitted
from tracecc.backends.cpu.memory import OutputPool, address_of, aligned_bytes
from tracecc.backends.cpu.regions import Region
from tracecc.backends.cpu.table import Row, Slots, in_shares
from tracecc.backends.cpu.toolchain import Kernel
from tracecc.backends.schedule_program import Launch, Operand, Program
from tracecc.backends.schedule_types import Plan
from tracecc_ir.errors import OutOfBounds
from tracecc_ir.interpret import evaluate
from tracecc_ir.types import TensorType

POOLED = 1 << 15  # bytes from which an output is worth the pool's bookkeeping
_outputs = OutputPool()


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
    """A launch with its machine code; beside a plan, the emitted kernel is its epilogue."""

    launch: Launch
    emitted: Emitted | None = None
    kernel: Kernel | None = None
    plan: Plan | None = None
    region: Region | None = None

    def machine_code(self) -> list[Kernel]:
        """Every kernel that it launches; none for a step of the interpreter."""
        if self.region is not None:
            return [k for part in self.region.parts for b in part._bound for k in b.machine_code()]
        stages = [stage.kernel for stage in self.plan.stages] if self.plan is not None else []
        return stages if self.kernel is None else [self.kernel, *stages]

    def called(self) -> list[Kernel]:
        """The kernels that those call by their address."""
        stages = self.plan.stages if self.plan is not None else []
        return [a for stage in stages for a in stage.args if isinstance(a, Kernel)]


class Executable:
    """Runs a scheduled graph. Calls from several threads take turns: they share the arena."""

    def __init__(self, program: Program, bound: list[Bound], compiled: int):
        self.program, self._bound = program, bound
        self.kernels_compiled = compiled
        self._lock = threading.Lock()
        self._arena = aligned_bytes(program.arena_bytes)
        self._inputs = [b for b in program.buffers if b.kind == "input"]
        self._states = [b for b in program.buffers if b.kind == "state"]
        counts = len(self._inputs), len(self._states), len(program.outputs)
        # Bases: inputs, states, outputs, then the arena. A pointer slot is a base plus an offset.
        starts = [sum(counts[:i]) for i in range(4)]
        self._start = dict(zip(("input", "state", "output", "arena"), starts, strict=True))
        self._bases = [0] * (starts[3] + 1)
        self._first_output = starts[2]
        self._seen: list[Callable[[], np.ndarray | None]] = [_unseen] * counts[0]
        self._makers = [_maker(t) for t in program.outputs]
        self._build()
        self._bind(starts[3], self._arena.ctypes.data)
        self._held: Sequence[np.ndarray] | None = None
        self._dense: list[np.ndarray] = []
        self._strided: list[tuple[np.ndarray, np.ndarray]] = []

    def _build(self) -> None:
        """Fills the argument slots and cuts the launches into segments at host steps."""
        slots = Slots()
        segments: list[list[Row] | Bound] = []
        for loop, steps in itertools.groupby(self._bound, lambda b: b.launch.loop):
            taken = [(b, self._rows(b, slots)) for b in steps]
            if loop and taken[0][0].launch.share is not None:
                share = taken[0][0].launch.share
                rows = in_shares([row for _, rows in taken for row in rows], share, slots)
                taken = [(taken[0][0], rows)]
            for b, rows in taken:
                if not rows:
                    segments.append(b)
                elif segments and isinstance(segments[-1], list):
                    segments[-1].extend(rows)
                else:
                    segments.append(rows)
        self._slots = aligned_bytes(8 * len(slots.values)).view(np.int64)
        self._slots[:] = slots.values
        start = self._slots.ctypes.data
        for at, target in slots.internal:
            self._slots[at] = start + 8 * target
        self._memory = self._slots.data
        self._patches: list[list[tuple[int, int]]] = [[] for _ in self._bases]
        for slot, base, offset in slots.places:
            self._patches[base].append((slot, offset))
        self._segments: list[Table | Bound] = []
        for segment in segments:
            if isinstance(segment, Bound):
                self._segments.append(segment)
                continue
            lines = [[r.address, start + 8 * r.args, r.units, r.grain] for r in segment]
            table = Table(lines, max(r.scratch for r in segment))
            for slot in (slot for r in segment for slot in r.errors):
                self._slots[slot] = table.error_address
            self._segments.append(table)
        first = self._segments[0] if len(self._segments) == 1 else None
        self._only = first.run if isinstance(first, Table) else None

    def _rows(self, b: Bound, slots: Slots) -> list[Row]:
        """The table rows of one launch, with its arguments appended to the slots."""
        launch = b.launch
        if b.plan is not None:
            return self._library_rows(b, b.plan, slots)
        if b.emitted is None or b.kernel is None:
            return []
        operands = [*launch.inputs, *launch.outputs]
        first, errors = self._arguments(b.emitted, operands, slots)
        units = b.emitted.units
        grain = max(1, -(-units * GRAIN // max(1, launch.bytes + 2 * launch.flops)))
        if grain >= 64:
            grain = -(-grain // 64) * 64
        share = launch.share
        part = units * share.each // share.rows if share else 0
        scratch = b.emitted.scratch
        return [Row(b.kernel.address, first, units, grain, scratch, tuple(errors), part)]

    def _arguments(
        self, emitted: Emitted, operands: Sequence[Operand], slots: Slots
    ) -> tuple[int, list[int]]:
        """Appends an emitted kernel's arguments; its first slot, and those of the error word."""
        first = slots.begin()
        errors: list[int] = []
        for what, n, offset in emitted.slots:
            if what == "error":
                errors.append(len(slots.values))
            if what == "pointer":
                o = operands[int(n)]
                base, byte = self._address(o)
                slots.pointer(base, byte + offset * o.type.dtype.itemsize)
            else:
                slots.number(0 if what == "error" else _bits(what, n))
        return first, errors

    def _library_rows(self, b: Bound, plan: Plan, slots: Slots) -> list[Row]:
        launch = b.launch
        pools = {"input": launch.inputs, "output": launch.outputs, "temp": launch.temporaries}
        starts, waiting, rows = [], [], []
        finish, finish_args = 0, -1
        finish_errors: list[int] = []
        if b.emitted is not None and b.kernel is not None and launch.node is not None:
            # The body's first parameter is the tile; the product's own operands come before.
            own = len(launch.node.inputs)
            operands = [launch.inputs[0], *launch.inputs[own:], *launch.outputs]
            finish = b.kernel.address
            finish_args, finish_errors = self._arguments(b.emitted, operands, slots)
        for stage in plan.stages:
            starts.append(first := slots.begin())
            errors: list[int] = []
            for value in stage.args:
                if isinstance(value, int):
                    slots.number(value)
                elif isinstance(value, Kernel):
                    slots.number(value.address)
                elif value.where == "epilogue":
                    slots.number(finish)
                elif value.where == "epilogue_args" and finish:
                    slots.internal.append((len(slots.values), finish_args))
                    slots.number(0)
                elif value.where in pools:
                    base, byte = self._address(pools[value.where][value.index])
                    slots.pointer(base, byte + value.offset)
                elif value.where == "args":
                    waiting.append((len(slots.values), value.index))
                    slots.number(0)
                else:
                    if value.where == "error":
                        errors.append(len(slots.values))
                    slots.number(0)
            if stage.extent:
                row = stage.kernel.address, first, stage.extent, stage.grain, stage.scratch
                rows.append(Row(*row, (*errors, *finish_errors), stage.share))
                finish_errors = []
        slots.internal.extend((at, starts[index]) for at, index in waiting)
        return rows

    def _address(self, operand: Operand) -> tuple[int, int]:
        b = operand.buffer
        if b.kind == "arena":
            return int(self._start["arena"]), b.place + operand.offset
        return int(self._start[b.kind]) + b.place, operand.offset

    def __call__(
        self,
        inputs: Sequence[np.ndarray],
        state: Sequence[np.ndarray] = (),
        reuse: Mapping[int, np.ndarray] | None = None,
    ) -> list[np.ndarray]:
        """Runs the graph.

        Args:
            inputs: one array per graph input, of its type; strided ones are copied.
            state: one array per captured state; updates are written into them.
            reuse: memory for some of the outputs; the others get new memory.

        Returns:
            One array per graph output.

        Raises:
            IndexError: an index of a gather or scatter was out of range.
        """
        with self._lock:
            if state is not self._held:
                self._bind_state(state)
            bases, seen = self._bases, self._seen
            arrays = inputs
            for base, a in enumerate(inputs):
                if seen[base]() is not a:
                    dense = self._see(base, a)
                    if dense is not a:
                        arrays = [*arrays[:base], dense, *arrays[base + 1 :]]
            if reuse:
                makers = enumerate(self._makers)
                outputs = [make() if (old := reuse.get(i)) is None else old for i, make in makers]
            else:
                outputs = [make() for make in self._makers]
            for base, a in enumerate(outputs, self._first_output):
                if bases[base] != (address := address_of(a)):
                    self._bind(base, address)
            error = self._only() if self._only else self._walk(arrays, outputs)
            if self._strided and not error:
                for original, dense in self._strided:
                    np.copyto(original, dense)
        if error:
            raise OutOfBounds(f"{self.program.name}: an index is out of range for its dimension")
        return outputs

    def _walk(self, arrays: Sequence[np.ndarray], outputs: list[np.ndarray]) -> int:
        """Runs the segments in order up to one that fails; the error word."""
        for segment in self._segments:
            if isinstance(segment, Bound):
                self._host(segment, arrays, self._dense, outputs)
            else:
                error = segment.run()
                if error:
                    return error
        return 0

    def _see(self, base: int, a: np.ndarray) -> np.ndarray:
        """Binds an input that was not the last call's; the contiguous array that is read."""
        dense = a if a.flags.c_contiguous else np.ascontiguousarray(a)
        self._seen[base] = weakref.ref(a) if dense is a else _unseen
        self._bind(base, address_of(dense))
        return dense

    def _bind(self, base: int, address: int) -> None:
        """Writes the address of an input or output into every slot that holds it."""
        if self._bases[base] != address:
            self._bases[base] = address
            for slot, offset in self._patches[base]:
                self._memory[slot] = address + offset

    def _bind_state(self, state: Sequence[np.ndarray]) -> None:
        """Points the table at these arrays; a strided one is copied in and out at each call."""
        self._held = state
        self._dense = [np.ascontiguousarray(a) for a in state]
        self._strided = [
            (a, d) for a, d in zip(state, self._dense, strict=True) if not a.flags.c_contiguous
        ]
        if self._strided:
            self._held = None  # their copies are of this moment
        first = self._start["state"]
        for i, a in enumerate(self._dense):
            self._bind(first + i, address_of(a))

    def _host(
        self,
        bound: Bound,
        inputs: Sequence[np.ndarray],
        state: list[np.ndarray],
        outputs: list[np.ndarray],
    ) -> None:
        """Runs control flow, or one op that has no kernel, on arrays."""

        def view(o: Operand) -> np.ndarray:
            b, t = o.buffer, o.type
            if b.kind == "arena":
                raw = self._arena[b.place : b.place + b.nbytes]
                return raw.view(t.dtype.numpy).reshape(t.sizes)
            held = {"input": inputs, "state": state, "output": outputs}[b.kind]
            return held[b.place].reshape(t.sizes)

        node = bound.launch.node
        assert node is not None
        operands = [view(o) for o in bound.launch.inputs]
        targets = [view(o) for o in bound.launch.outputs]
        if bound.region is not None:
            bound.region.run(operands, targets)
            return
        for target, result in zip(targets, evaluate(node.op, operands, node.attrs), strict=True):
            np.copyto(target, result)

    # What users look at.

    def kernels(self) -> list[KernelInfo]:
        """Each kernel in launch order: source, ops, user lines, bytes, flops, why."""
        found = []
        for b in self._bound:
            if b.launch.turn == 0:
                found.append(_info(b))
            for part in b.region.parts if b.region else ():
                found.extend(part.kernels())
        return found

    def schedule(self) -> str:
        """The text of the schedule."""
        return str(self.program)

    def summary(self) -> str:
        """Launches, memory plan, compile times and cache hits in a few lines."""
        kernels = {k.symbol: k for b in self._bound for k in b.machine_code()}.values()
        hits = sum(k.cached for k in kernels)
        seconds = sum(k.compile_seconds for k in kernels)
        host = sum(not b.machine_code() for b in self._bound)
        temporaries = [b for b in self.program.buffers if b.kind == "arena"]
        total = sum(b.nbytes for b in temporaries)
        return (
            f"{len(self._bound)} launches ({host} run by the interpreter), {len(kernels)} kernels, "
            f"{self.kernels_compiled} compiled in this call, {hits} from the disk cache, "
            f"{seconds * 1e3:.0f} ms\n"
            f"arena {self.program.arena_bytes} bytes for {len(temporaries)} temporaries "
            f"of {total} bytes"
        )


def _unseen() -> np.ndarray | None:
    return None


def _maker(type: TensorType) -> Callable[[], np.ndarray]:
    """What makes an output: large ones come from the pool, so that their pages stay warm."""
    shape, dtype = type.sizes, type.dtype.numpy
    if math.prod(shape) * dtype.itemsize < POOLED:
        return partial(np.empty, shape, dtype)
    return partial(_outputs.empty, shape, dtype)


def _info(b: Bound) -> KernelInfo:
    """What users see of one launch."""
    launch, code = b.launch, b.machine_code()
    if b.emitted is not None:
        name, source = b.emitted.entry, "\n".join(dict.fromkeys(k.source for k in code))
    elif b.region is not None:
        name, source = launch.name, f"# {launch.name}: its regions follow\n"
    elif code:
        name, source = launch.name, "\n".join(dict.fromkeys(k.source for k in code))
    else:
        name, source = launch.name, f"# {launch.name}: run by the interpreter\n"
    return KernelInfo(
        name,
        launch.kind,
        source,
        tuple(launch.ops),
        tuple(launch.lines),
        launch.bytes,
        launch.flops,
        launch.why,
        all(k.cached for k in code),
        sum(k.compile_seconds for k in code),
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
