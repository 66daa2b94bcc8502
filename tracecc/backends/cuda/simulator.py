"""Runs CUDA kernel text without a GPU: one generator per thread, in lock step, hazards are errors.

Barriers and shuffles become `yield`s; between two of them a thread runs alone, so the order is
fixed and a failing kernel fails the same way every time. What real hardware leaves undefined raises
SimulationError with the kernel's line, block and thread: races in shared and global memory,
barriers that not all threads reach, shuffles among lanes that are not there, indices out of bounds,
memory read before it was written, and values stored under another type than the memory's.
"""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tracecc.backends.cuda.device_math import NAMES, simulated_functions

WARP = 32
WARP_OPS = ("shfl_xor_sync", "shfl_down_sync", "shfl_up_sync", "shfl_sync", "syncwarp")
SYNCS = ("syncthreads", *WARP_OPS)


class SimulationError(RuntimeError):
    """The kernel did something that a GPU leaves undefined."""


class Stamp(NamedTuple):
    """When and by whom memory was touched. Phases count the barriers passed so far."""

    block: int
    thread: int
    phase: int
    warp_phase: int

    def precedes(self, later: Stamp) -> bool:
        """Whether a barrier (or program order) puts this access before ``later``."""
        if self.block != later.block:
            return False
        if self.thread == later.thread or self.phase < later.phase:
            return True
        same_warp = self.thread // WARP == later.thread // WARP
        return same_warp and self.warp_phase < later.warp_phase


class Event(NamedTuple):
    """What a thread waits for: ``site`` is the line of the call, so that two calls never match."""

    kind: str
    site: int
    mask: int = 0
    value: Any = None
    operand: int = 0


EXITED = Event("exit", 0)


class Index3(NamedTuple):
    x: int
    y: int = 1
    z: int = 1


class Memory:
    """One-dimensional memory that checks bounds, types, definedness and, if shared, races."""

    def __init__(self, name: str, array: np.ndarray, machine: Machine, defined: bool, shared: bool):
        self.name, self.array, self.machine, self.shared = name, array, machine, shared
        self.type = array.dtype.type
        self.undefined = set() if defined else set(range(array.size))
        self.writes: dict[int, Stamp] = {}
        self.reads: dict[int, list[Stamp]] = {}
        self.read_count = self.write_count = 0

    def __getitem__(self, index: Any) -> Any:
        i = self._checked(index)
        if i in self.undefined:
            self.machine.fail(f"{self.name}[{i}] is read before anything was written there")
        self.read_count += 1
        if self.shared:
            now = self.machine.stamp
            written = self.writes.get(i)
            if written is not None and written is not now:
                self._ordered(written, now, i, "written", "reads")
            seen = self.reads.get(i)
            if seen is None or (seen[0].block == now.block and seen[0].phase < now.phase):
                self.reads[i] = [now]
            elif seen[-1] is not now:
                seen.append(now)
        return self.array[i]

    def __setitem__(self, index: Any, value: Any) -> None:
        i = self._checked(index)
        if type(value) is not self.type:
            self.machine.fail(
                f"{self.name} holds {self.type.__name__}, given {type(value).__name__}: convert it"
            )
        self.write_count += 1
        self.undefined.discard(i)
        if self.shared:
            now = self.machine.stamp
            written = self.writes.get(i)
            if written is not None and written is not now:
                self._ordered(written, now, i, "written", "writes")
            for read in self.reads.pop(i, ()):
                if read is not now:
                    self._ordered(read, now, i, "read", "writes")
            self.writes[i] = now
        self.array[i] = value

    def _checked(self, index: Any) -> int:
        if isinstance(index, (float, bool, np.floating, np.bool_)):
            self.machine.fail(f"{self.name} is indexed by {type(index).__name__} {index}")
        i = int(index)
        if not 0 <= i < self.array.size:
            self.machine.fail(
                f"{self.name}[{i}] is out of bounds: it has {self.array.size} elements"
            )
        return i

    def _ordered(self, before: Stamp, now: Stamp, i: int, did: str, does: str) -> None:
        if not before.precedes(now):
            self.machine.fail(
                f"race on {self.name}[{i}]: thread {before.thread} of block {before.block} has "
                f"{did} it, thread {now.thread} of block {now.block} {does} it, and no barrier "
                "stands between"
            )


class Arrays:
    """``cuda.shared`` and ``cuda.local``: one allocation per site and block, or per call."""

    def __init__(self, machine: Machine, shared: bool):
        self.machine, self.shared = machine, shared

    def array(self, site: int, size: int, dtype: type) -> Memory:
        name = f"{'shared' if self.shared else 'local'} array of line {site}"
        fresh = Memory(name, np.zeros(size, dtype), self.machine, False, self.shared)
        return self.machine.allocated.setdefault(site, fresh) if self.shared else fresh


@dataclass
class Thread:
    index: int
    position: Index3
    generator: Generator[Event, Any, None] | None = None
    event: Event = EXITED
    warp_phase: int = 0


@dataclass
class Report:
    """What a launch did: accesses per pointer argument, in argument order, and barriers passed."""

    reads: list[int] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    unwritten: list[int] = field(default_factory=list)
    barriers: int = 0


class Machine:
    """The state that kernel text sees as ``cuda``, and the scheduler of one block."""

    def __init__(self, name: str, lines: Sequence[str], grid: Index3, block: Index3):
        self.name, self.lines = name, lines
        self.gridDim, self.blockDim = grid, block
        self.blockIdx = self.threadIdx = Index3(0, 0, 0)
        self.laneid = 0
        self.shared, self.local = Arrays(self, True), Arrays(self, False)
        self.allocated: dict[int, Memory] = {}
        self.block = self.phase = self.barriers = 0
        self.stamp = Stamp(0, 0, 0, 0)
        self.file = f"<kernel {name}>"

    def fail(self, problem: str) -> None:
        """Raises a SimulationError that names the kernel's line and the thread."""
        frame = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename != self.file:
            frame = frame.f_back  # type: ignore[assignment]
        where = "" if frame is None else f" line {frame.f_lineno} `{self._line(frame.f_lineno)}`"
        raise SimulationError(
            f"{self.name}{where}, block {self.block}, thread {self.stamp.thread}: {problem}"
        )

    def _line(self, number: int) -> str:
        return self.lines[number - 1].strip() if 0 < number <= len(self.lines) else ""

    def run_block(self, number: int, position: Index3, start: Callable[[], Any]) -> None:
        """Runs every thread of one block to its end."""
        self.block, self.blockIdx, self.phase = number, position, 0
        self.allocated = {}
        x, y, z = self.blockDim
        positions = itertools.product(range(z), range(y), range(x))
        threads = [Thread(i, Index3(*reversed(p))) for i, p in enumerate(positions)]
        for thread in threads:
            self._enter(thread)
            thread.generator = start()
            if thread.generator is not None:
                self._resume(thread, None)
        warps = [threads[i : i + WARP] for i in range(0, len(threads), WARP)]
        while any(t.event is not EXITED for t in threads):
            for warp in warps:
                while any(t.event.kind in WARP_OPS for t in warp):
                    self._step_warp(warp)
            if any(t.event is not EXITED for t in threads):
                self._pass_barrier(threads)

    def _enter(self, thread: Thread) -> None:
        self.threadIdx, self.laneid = thread.position, thread.index % WARP
        self.stamp = Stamp(self.block, thread.index, self.phase, thread.warp_phase)

    def _resume(self, thread: Thread, value: Any) -> None:
        assert thread.generator is not None
        self._enter(thread)
        try:
            thread.event = thread.generator.send(value)
        except StopIteration:
            thread.event = EXITED

    def _pass_barrier(self, threads: Sequence[Thread]) -> None:
        waiting = {t.event.site: t for t in threads}
        if len(waiting) > 1:
            places = ", ".join(
                f"thread {t.index} " + (f"at line {s} `{self._line(s)}`" if s else "has returned")
                for s, t in sorted(waiting.items())
            )
            raise SimulationError(f"{self.name}, block {self.block}: divergent barrier: {places}")
        self.phase += 1
        self.barriers += 1
        for thread in threads:
            self._resume(thread, None)

    def _step_warp(self, warp: Sequence[Thread]) -> None:
        """Completes one warp operation whose lanes have all arrived."""
        for first in warp:
            event = first.event
            if event.kind not in WARP_OPS:
                continue
            lanes = [lane for lane in range(WARP) if event.mask >> lane & 1]
            if lanes[-1] >= len(warp):
                continue
            group = [warp[lane] for lane in lanes]
            if all(_same_call(t.event, event) for t in group):
                break
        else:
            places = sorted({f"{t.event.kind} at line {t.event.site}" for t in warp})
            raise SimulationError(
                f"{self.name}, block {self.block}: divergent warp operation: the lanes that a mask "
                f"names wait elsewhere, have returned or do not exist ({'; '.join(places)})"
            )
        results = [self._exchange(t, warp, lanes) for t in group]
        for thread, result in zip(group, results, strict=True):
            thread.warp_phase += event.kind == "syncwarp"
            self._resume(thread, result)

    def _exchange(self, thread: Thread, warp: Sequence[Thread], lanes: Sequence[int]) -> Any:
        """What a lane receives in the warp operation that it waits in."""
        event, lane = thread.event, thread.index % WARP
        if event.kind == "syncwarp":
            return None
        source = {
            "shfl_xor_sync": lane ^ event.operand,
            "shfl_down_sync": lane + event.operand,
            "shfl_up_sync": lane - event.operand,
            "shfl_sync": event.operand % WARP,
        }[event.kind]
        if not 0 <= source < WARP:
            source = lane
        given = warp[source].event.value if source in lanes else None
        if type(given) is not type(event.value):
            raise SimulationError(
                f"{self.name} line {event.site}, block {self.block}, thread {thread.index}: "
                f"shuffle from lane {source}, which does not give a {type(event.value).__name__}"
            )
        return given


def _same_call(a: Event, b: Event) -> bool:
    return a.kind == b.kind and a.site == b.site and a.mask == b.mask


class _Rewrite(ast.NodeTransformer):
    """Turns synchronising calls into yields of Events, and gives allocations their site."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        new: ast.expr = node
        name = _synchronising(node)
        if name is not None:
            site = ast.Constant(node.lineno)
            arguments = [ast.Constant(name), site, *node.args]
            if name == "syncwarp" and not node.args:
                arguments.append(ast.Constant(0xFFFFFFFF))
            new = ast.Yield(ast.Call(ast.Name("Event", ast.Load()), arguments, []))
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "array":
            node.args.insert(0, ast.Constant(node.lineno))
        return ast.fix_missing_locations(ast.copy_location(new, node))


def _synchronising(node: ast.AST) -> str | None:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = node.func.value
        if isinstance(owner, ast.Name) and owner.id == "cuda" and node.func.attr in SYNCS:
            return node.func.attr
    return None


def simulate(
    source: str,
    name: str,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[Any],
    undefined: Sequence[int] = (),
) -> Report:
    """Runs the kernel ``name`` of ``source``; results are in the argument arrays.

    Args:
        source: kernel text.
        name: the kernel's function name.
        grid: up to three numbers of blocks.
        block: up to three numbers of threads.
        arguments: one-dimensional C-contiguous arrays for pointers, NumPy scalars for the rest.
        undefined: the pointer arguments whose contents the kernel must not read before writing.

    Raises:
        SimulationError: the kernel does what a GPU leaves undefined.

    >>> text = '''def double(x, y):
    ...     i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    ...     y[i] = x[i] * float32(2)
    ... '''
    >>> x, y = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
    >>> simulate(text, "double", (2,), (2,), (x, y), undefined=(1,)).writes
    [0, 4]
    >>> y
    array([0., 2., 4., 6.], dtype=float32)
    """
    machine = Machine(name, source.splitlines(), Index3(*grid), Index3(*block))
    tree = ast.parse(source, machine.file)
    tree = ast.fix_missing_locations(_Rewrite().visit(tree))
    names: dict[str, Any] = {"__builtins__": {"range": range}, "cuda": machine, "Event": Event}
    names |= NAMES | simulated_functions(machine.fail)
    exec(compile(tree, machine.file, "exec"), names)
    passed = _pointers(arguments, undefined, machine)
    kernel = names[name]
    x, y, z = machine.gridDim
    with np.errstate(all="ignore"):
        for number, p in enumerate(itertools.product(range(z), range(y), range(x))):
            machine.run_block(number, Index3(*reversed(p)), lambda: kernel(*passed))
    pointers = [m for m in passed if isinstance(m, Memory)]
    return Report(
        [m.read_count for m in pointers],
        [m.write_count for m in pointers],
        [len(m.undefined) for m in pointers],
        machine.barriers,
    )


def _pointers(arguments: Sequence[Any], undefined: Sequence[int], machine: Machine) -> list[Any]:
    """Arrays become checked memory; the same memory passed twice has one record of accesses."""
    passed: list[Any] = []
    known: dict[tuple[int, int], Memory] = {}
    for i, a in enumerate(arguments):
        if not isinstance(a, np.ndarray):
            passed.append(a)
            continue
        memory = Memory(f"argument {i}", a, machine, i not in undefined, True)
        first = known.setdefault((a.ctypes.data, a.size), memory) if a.size else memory
        memory.reads, memory.writes, memory.undefined = first.reads, first.writes, first.undefined
        passed.append(memory)
    return passed
