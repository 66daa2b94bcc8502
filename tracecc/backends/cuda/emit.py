"""From the schedule's loops to CUDA text: maps, and reductions by a thread, a warp or a block.

Sizes, strides, offsets and real constants (a mean divides by its size) are kernel parameters, so
that one kernel serves every size of a structure. Indices are unsigned and wrap, which makes a
negative stride or offset just a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tracecc.backends.cuda.kernel import CudaKernel, Parameter, storage
from tracecc.backends.cuda.reduce import WARP, Reduction
from tracecc.backends.cuda.vocabulary import (
    Scalar,
    compute_type,
    demands,
    literal,
    load,
    philox,
    rounded,
    store,
)
from tracecc.backends.schedule_body import REDUCES, Body, Instr, operands
from tracecc.backends.schedule_index import Affine, row_major

# Rows up to this length are reduced by one warp each, longer ones by a block.
WARP_ROW = 1024
MOST_BLOCKS = 1 << 16
# From here on 32 bits do not hold every index and the stride of a grid past the last one.
WIDE = 1 << 31

# Constants that are part of the text, because knowing them simplifies the code.
PLAIN = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)

Worker = Literal["map", "thread", "warp", "block"]


@dataclass(frozen=True)
class CudaLaunch:
    """A kernel with the numbers of one problem size: call it with the pointers, then ``numbers``.

    Attributes:
        units: elements of a map, or rows of a reduction.
        units_per_block: how many of them a block takes at a time.
    """

    kernel: CudaKernel
    numbers: tuple[float, ...]
    units: int
    units_per_block: int

    def values(self) -> list[np.generic]:
        """``numbers`` in the types of the kernel's last parameters."""
        parameters = [p for p in self.kernel.parameters if not p.pointer]
        return [np.dtype(p.type).type(n) for p, n in zip(parameters, self.numbers, strict=True)]

    def grid(self, most: int = MOST_BLOCKS) -> int:
        """How many blocks to start; blocks stride over what is left."""
        return max(1, min(most, -(-self.units // self.units_per_block)))


def emit(body: Body, name: str, block: int = 256, worker: Worker | None = None) -> CudaLaunch:
    """The kernel of a scheduled body.

    Args:
        body: loops and scalar code.
        name: of the kernel.
        block: threads of a block, a multiple of 32.
        worker: what reduces one row; by default a warp or block for rows whose elements lie next to
            each other, a thread where neighbouring threads read neighbouring columns.
    """
    if block % WARP:
        raise ValueError(f"a block has a multiple of {WARP} threads, given {block}")
    return _Emitter(body, name, block, worker or _worker(body)).launch()


def _worker(body: Body) -> Worker:
    if not any(body.reduced):
        return "map"
    if not body.reduced[-1]:
        return "thread"
    return "warp" if _length(body, True) <= WARP_ROW else "block"


def _length(body: Body, reduced: bool) -> int:
    return math.prod(e for e, r in zip(body.extents, body.reduced, strict=True) if r == reduced)


class _Emitter:
    """Writes one kernel. A value is computed once per unit, or again in each pass over a row."""

    def __init__(self, body: Body, name: str, block: int, worker: Worker):
        self.body, self.name, self.block, self.worker = body, name, block, worker
        self.type = "uint64" if _is_wide(body) else "uint32"
        self.scalar = Scalar()
        self.lines: list[str] = []
        self.depth = 1
        self.numbers: dict[str, int] = {}
        self.constants: dict[int, Parameter] = {}
        self.names: dict[tuple, str] = {}
        self.decoded: set[bool] = set()
        self.levels = _levels(body)

    def launch(self) -> CudaLaunch:
        rows = self.worker != "map"
        self._prologue(rows)
        with self.block_of(f"while u < {self.number('units', _length(self.body, False))}:"):
            self._counters(False, "u")
            if rows:
                self._row()
            else:
                self._element(range(len(self.body.code)), range(len(self.body.stores)))
            self.line(f"u = {self.index('u + step')}")
        return self._finish()

    def _finish(self) -> CudaLaunch:
        body = self.body
        pointers = [Parameter(f"p{i}", storage(d), True) for i, d in enumerate(body.types)]
        numbers = [Parameter(n, self.type, False) for n in self.numbers]
        parameters = (*pointers, *numbers, *self.constants.values())
        head = f"def {self.name}({', '.join(p.name for p in parameters)}):"
        source = "\n".join([head, *self.lines]) + "\n"
        allows = {"64-bit division"} if self.type == "uint64" else set()
        for instr in body.code:
            allows |= demands(instr.op, instr.dtype)
        kernel = CudaKernel(self.name, source, parameters, self.block, frozenset(allows))
        modulus = 1 << (64 if self.type == "uint64" else 32)
        values = [v % modulus for v in self.numbers.values()]
        constants = [rounded(body.code[k].number, body.code[k].dtype) for k in self.constants]
        return CudaLaunch(
            kernel, (*values, *constants), _length(body, False), self._units_per_block()
        )

    def _units_per_block(self) -> int:
        return {"warp": self.block // WARP, "block": 1}.get(self.worker, self.block)

    # Text.

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    @contextmanager
    def block_of(self, head: str) -> Iterator[None]:
        self.line(head)
        self.depth += 1
        yield
        self.depth -= 1

    def number(self, name: str, value: int) -> str:
        """A parameter that carries a number of the problem size."""
        assert self.numbers.setdefault(name, value) == value, name
        return name

    def _number_once(self, key: tuple, value: int) -> str:
        if key not in self.names:
            self.names[key] = self.number(f"s{len(self.names)}", value)
        return self.names[key]

    def index(self, expression: object) -> str:
        return f"{self.type}({expression})"

    # Which unit this thread works on, and where that is in the loops.

    def _prologue(self, rows: bool) -> None:
        thread, block = "uint32(cuda.threadIdx.x)", self.index("cuda.blockIdx.x")
        blocks = self.index("cuda.gridDim.x")
        count = self.index(self._units_per_block())
        if self.worker in ("warp", "block"):
            self.line(f"lane = uint32({thread} & uint32(31))")
            self.line(f"warp = uint32({thread} >> uint32(5))")
        if self.worker == "block":
            self.line(f"thread = {thread}")
            for carrier in dict.fromkeys(r.carrier for r in self._reductions()):
                self.line(f"shared_{carrier} = cuda.shared.array({self.block // WARP}, {carrier})")
        within = {"warp": " + warp", "block": ""}.get(self.worker, f" + {thread}")
        start = block if self.worker == "block" else self.index(f"{block} * {count}")
        self.line(f"u = {self.index(start + within) if within else start}")
        self.line(
            f"step = {blocks if self.worker == 'block' else self.index(f'{blocks} * {count}')}"
        )

    def _loops(self, reduced: bool) -> list[int]:
        return [k for k, r in enumerate(self.body.reduced) if r == reduced]

    def _counters(self, reduced: bool, linear: str) -> None:
        """Decodes the counters of one role's loops from their linear index, where one is used."""
        loops = self._loops(reduced)
        strided = (a for a in _indices(self.body) if not self._walks(a, reduced))
        if self.body.clip is None and not any(a.coefs[k] for a in strided for k in loops):
            return
        rest = linear
        for k in reversed(loops[1:]):
            n = self.number(f"n{k}", self.body.extents[k])
            self.line(f"q{k} = {self.index(f'{rest} // {n}')}")
            whole = self.index(f"q{k} * {n}")
            self.line(f"c{k} = {self.index(f'{rest} - {whole}')}")
            rest = f"q{k}"
        if loops:
            self.line(f"c{loops[0]} = {rest}")

    def _walks(self, a: Affine, reduced: bool) -> bool:
        """Whether the index goes through one role's loops in memory order: no counters needed."""
        loops = self._loops(reduced)
        strides = row_major([self.body.extents[k] for k in loops])
        return bool(loops) and tuple(a.coefs[k] for k in loops) == strides

    def _offset(self, key: tuple, a: Affine) -> str:
        """An index as an expression; ``key`` names its parameters."""
        terms = []
        if a.const:
            terms.append(self._number_once((*key, "const"), a.const))
        for reduced, linear in ((False, "u"), (True, "r")):
            if self._walks(a, reduced):
                terms.append(linear)
                continue
            for k in self._loops(reduced):
                if a.coefs[k] == 1:
                    terms.append(f"c{k}")
                elif a.coefs[k]:
                    stride = self._number_once((*key, k), a.coefs[k])
                    terms.append(self.index(f"c{k} * {stride}"))
        for value, c, _ in a.dynamic:
            at = self.index(f"v{value}")
            if c != 1:
                at = self.index(f"{at} * {self._number_once((*key, value, 'dynamic'), c)}")
            terms.append(at)
        if not terms:
            return self.index(0)
        total = terms[0]
        for term in terms[1:]:
            total = self.index(f"{total} + {term}")
        return total

    # Scalar code.

    def _element(self, code: Iterable[int], stores: Iterable[int]) -> None:
        for k in code:
            self._instruction(k)
        for k in stores:
            self._store(k)

    def _value(self, k: int) -> str:
        """An operand: a name, or the literal itself."""
        instr = self.body.code[k]
        if instr.op != "const":
            return f"v{k}"
        real = instr.dtype.is_floating_point and math.isfinite(instr.number)
        if not real or float(instr.number) in PLAIN:
            return literal(instr.number, instr.dtype)
        if k not in self.constants:
            name = f"k{len(self.constants)}"
            self.constants[k] = Parameter(name, compute_type(instr.dtype), False)
        return self.constants[k].name

    def _instruction(self, k: int) -> None:
        instr = self.body.code[k]
        arguments = [self._value(a) for a in instr.args]
        if instr.op == "const":
            return
        if instr.op == "load":
            self._load(k, instr)
        elif instr.op == "wrap":
            self._wrap(k, instr, arguments[0])
        elif instr.index is not None:
            self._position(k, instr, arguments)
        else:
            types = [self.body.code[a].dtype for a in instr.args]
            for text in self.scalar.statements(instr.op, f"v{k}", instr.dtype, arguments, types):
                self.line(text)

    def _load(self, k: int, instr: Instr) -> None:
        assert instr.index is not None
        text = load(f"p{instr.tensor}", self._offset(("load", k), instr.index), instr.dtype)
        if instr.guard < 0:
            self.line(f"v{k} = {text}")
            return
        self.line(f"v{k} = {literal(0, instr.dtype)}")
        with self.block_of(f"if {self._value(instr.guard)}:"):
            self.line(f"v{k} = {text}")

    def _wrap(self, k: int, instr: Instr, at: str) -> None:
        """A looked-up index: negative ones count from the end, and none leaves the dimension."""
        assert instr.index is not None
        size = f"int64({self._number_once(('wrap', k), instr.index.const)})"
        self.line(f"v{k} = int64({at})")
        self.line(f"v{k} = int64(v{k} + {size}) if v{k} < int64(0) else v{k}")
        self.line(f"v{k} = v{k} if v{k} < {size} else int64({size} - int64(1))")
        self.line(f"v{k} = v{k} if v{k} > int64(0) else int64(0)")

    def _position(self, k: int, instr: Instr, arguments: list[str]) -> None:
        assert instr.index is not None
        at = self._offset((instr.op, k), instr.index)
        if instr.op == "inside":  # a position before the start wraps to a huge one
            size = self._number_once(("size", k), instr.number)
            self.line(f"v{k} = {at} < {size}")
        elif instr.op == "index":
            signed = at if self.type == "uint64" else f"int32({at})"
            self.line(f"v{k} = int64({signed})")
        else:
            for text in philox(f"v{k}", arguments, at, self.scalar.fresh):
                self.line(text)

    def _store(self, k: int) -> None:
        s = self.body.stores[k]
        at = self._offset(("store", k), s.index)
        dtype = self.body.types[s.tensor]
        for text in store(f"p{s.tensor}", at, self._value(s.value), dtype, self.scalar.fresh):
            self.line(text)

    # Reductions: a pass over the row for each level of reductions, then one for what is stored.

    def _reductions(self) -> list[Reduction]:
        return [
            Reduction(i.op, self.body.code[i.args[0]].dtype)
            for i in self.body.code
            if i.op in REDUCES
        ]

    def _row(self) -> None:
        code, row = self.body.code, self.body.row
        done: set[int] = set()
        for level in range(max(self.levels) + 1):
            ready = [k for k, i in enumerate(code) if row[k] and i.op not in REDUCES]
            ready = [k for k in ready if self.levels[k] == level]
            self._element(ready, ())
            done.update(ready)
            reductions = [
                k for k, i in enumerate(code) if i.op in REDUCES and self.levels[k] == level + 1
            ]
            if reductions:
                self._reduce(reductions, done)
        self._store_rows(done)

    def _reduce(self, reductions: list[int], done: set[int]) -> None:
        code = self.body.code
        how = {k: Reduction(code[k].op, code[code[k].args[0]].dtype) for k in reductions}
        for k, r in how.items():
            self.line(f"v{k} = {r.neutral}")
        with self._pass():
            self._element(self._needed([code[k].args[0] for k in reductions], done), ())
            for k, r in how.items():
                self.line(f"v{k} = {r.combine(f'v{k}', self._value(code[k].args[0]))}")
        for k, r in how.items():
            for text in self._agree(f"v{k}", r):
                self.line(text)
        done.update(reductions)

    def _agree(self, name: str, r: Reduction) -> list[str]:
        if self.worker == "warp":
            return r.across_warp(name)
        if self.worker == "block":
            return r.across_block(name, f"shared_{r.carrier}", self.block // WARP)
        return []

    @contextmanager
    def _pass(self) -> Iterator[None]:
        """The threads of a unit go through its row together."""
        first, step = {
            "warp": ("lane", str(WARP)),
            "block": ("thread", str(self.block)),
        }.get(self.worker, ("0", "1"))
        self.line(f"r = {self.index(first)}")
        with self.block_of(f"while r < {self.number('length', _length(self.body, True))}:"):
            self._counters(True, "r")
            clip = self.body.clip
            if clip is None:
                yield
            else:
                chunk, loop, total = clip
                n = self.number(f"n{loop}", self.body.extents[loop])
                at = self.index(f"{self.index(f'c{chunk} * {n}')} + c{loop}")
                with self.block_of(f"if {at} < {self.number('total', total)}:"):
                    yield
            self.line(f"r = {self.index(f'r + {self.index(step)}')}")

    def _needed(self, roots: Iterable[int], done: set[int]) -> list[int]:
        found: set[int] = set()
        stack = [k for k in roots if k not in done]
        while stack:
            k = stack.pop()
            if k not in found:
                found.add(k)
                stack.extend(a for a in operands(self.body.code[k]) if a not in done)
        return sorted(found)

    def _store_rows(self, done: set[int]) -> None:
        body = self.body
        stores = list(enumerate(body.stores))
        reduced = self._loops(True)
        elements = [k for k, s in stores if any(s.index.coefs[j] for j in reduced)]
        rows = [k for k, _ in stores if k not in elements]
        if elements:
            with self._pass():
                needed = self._needed([body.stores[k].value for k in elements], done)
                self._element(needed, elements)
        if rows:
            one = {"warp": "lane", "block": "thread"}.get(self.worker)
            if one is None:
                self._element((), rows)
            else:
                with self.block_of(f"if {one} == uint32(0):"):
                    self._element((), rows)


def _indices(body: Body) -> Iterator[Affine]:
    yield from (i.index for i in body.code if i.index is not None and i.op != "wrap")
    yield from (s.index for s in body.stores)


def _is_wide(body: Body) -> bool:
    def reach(a: Affine) -> int:
        steps = (abs(c) * (e - 1) for c, e in zip(a.coefs, body.extents, strict=True))
        return abs(a.const) + sum(steps)

    return max([math.prod(body.extents), *map(reach, _indices(body))]) >= WIDE


def _levels(body: Body) -> list[int]:
    """For each instruction, how many reductions one after the other must be complete before it."""
    levels: list[int] = []
    for instr in body.code:
        level = max((levels[a] for a in operands(instr)), default=0)
        levels.append(level + (instr.op in REDUCES))
    return levels
