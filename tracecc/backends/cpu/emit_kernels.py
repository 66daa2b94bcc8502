"""The shapes of emitted kernels: maps, row kernels (passes over a row) and column reductions."""

from __future__ import annotations

import math

from tracecc.backends.cpu.emit import Emitted, KernelText, cost
from tracecc.backends.cpu.emit_scalar import combine, neutral, register, watches_nan
from tracecc.backends.schedule_body import REDUCES, Body, operands
from tracecc_ir.types import DType

# Inner loops of fewer elements than this take the next outer loop into the work unit.
NEST = 256
# Longer rows of a map are cut into blocks of this many elements.
BLOCK = 4096
# A column reduction accumulates this many columns at a time.
COLUMNS = 256
# Row values costlier than this are kept in scratch memory between passes, if a row of them fits.
EXPENSIVE = 8
SCRATCH_MOST = 1 << 18


def emit(body: Body, name: str) -> Emitted:
    """The source of a kernel for any body."""
    if not any(body.reduced):
        return _emit_map(body, name)
    return _emit_columns(body, name) if not body.reduced[-1] else _Rows(body).emit(name)


def _emit_map(body: Body, name: str) -> Emitted:
    text = KernelText(body)
    loops = len(body.extents)
    depth = min(1, loops)
    while depth < loops and math.prod(body.extents[loops - depth :]) < NEST:
        depth += 1
    if loops > 1 and depth == loops:
        depth -= 1
    text.nest = list(range(loops - depth, loops))
    roots = [s.value for s in body.stores]
    known: set[int] = set()
    code = text.needed(roots, known)
    for n in code:
        if text.depth(n) < 0:
            text.prologue.append(text.code(n))
            known.add(n)
    stores = [text.store(i) for i in range(len(body.stores))]
    if loops == 1:
        text.w.depth = 1
        text.ranges[0] = ("begin", "end")
        text.write_nest(code, stores, known)
        return text.finish(name, None)
    if depth == 1 and loops and body.extents[-1] > BLOCK:
        _block_inner(text, loops - 1, BLOCK)
    text.write_nest(code, stores, known)
    return text.finish(name, list(range(loops - depth)))


def _block_inner(text: KernelText, loop: int, size: int) -> None:
    """Cuts the innermost loop into blocks that are work units of their own."""
    n = text.extent(loop)
    text.blocked = True
    text.blocks = -(-text.body.extents[loop] // size)
    text.number(text.blocks, "blocks")
    text.ranges[loop] = (f"block * {size}", f"min_fast({n}, block * {size} + {size})")


class _Rows:
    """A unit is one row; each pass over it computes what the reductions before it allow."""

    def __init__(self, body: Body):
        self.body, self.text = body, KernelText(body)
        self.units = [k for k, r in enumerate(body.reduced) if not r]
        self.text.nest = [k for k, r in enumerate(body.reduced) if r]
        self.ready = self._passes()
        self.saved: dict[int, str] = {}

    def _passes(self) -> list[int]:
        """Per instruction the first pass in which it can be computed."""
        ready: list[int] = []
        for instr in self.body.code:
            base = max((ready[a] for a in operands(instr)), default=0)
            ready.append(base + 1 if instr.op in REDUCES else base)
        return ready

    def emit(self, name: str) -> Emitted:
        text, body = self.text, self.body
        known: set[int] = set()
        everything = text.needed([s.value for s in body.stores], set())
        for n in everything:
            if text.depth(n) < 0:
                text.prologue.append(text.code(n))
                known.add(n)
        plan = self._plan(everything)
        self._choose_saved(plan, known)
        for number, (reductions, stores) in enumerate(plan):
            self._write_rows(everything, known, number)
            self._write_pass(number, reductions, stores, known)
        self._write_rows(everything, known, len(plan))
        for i, s in enumerate(body.stores):
            if body.row[s.value] and not self._by_element(i):
                text.w.line(text.store(i))
        return text.finish(name, self.units)

    def _by_element(self, store: int) -> bool:
        s = self.body.stores[store]
        return any(s.index.coefs[k] for k in self.text.nest)

    def _plan(self, everything: list[int]) -> list[tuple[list[int], list[int]]]:
        """Per pass: the reductions to accumulate and the stores to make."""
        body = self.body
        reductions = [n for n in everything if body.code[n].op in REDUCES]
        stores = [i for i in range(len(body.stores)) if self._by_element(i)]
        passes = [self.ready[n] - 1 for n in reductions]
        passes += [self.ready[body.stores[i].value] for i in stores]
        return [
            (
                [n for n in reductions if self.ready[n] - 1 == p],
                [i for i in stores if self.ready[body.stores[i].value] == p],
            )
            for p in range(max(passes, default=-1) + 1)
        ]

    def _roots(self, reductions: list[int], stores: list[int]) -> list[int]:
        code = self.body.code
        return [code[n].args[0] for n in reductions] + [self.body.stores[i].value for i in stores]

    def _choose_saved(self, plan: list[tuple[list[int], list[int]]], known: set[int]) -> None:
        """Costly values that a later pass needs again stay in scratch memory."""
        if len(self.text.nest) != 1:
            return
        row_bytes = 8 * self.body.extents[self.text.nest[0]]
        rows = {n for n, row in enumerate(self.body.row) if row} | known
        computed: dict[int, int] = {}
        used: set[int] = set()
        for p, (reductions, stores) in enumerate(plan):
            roots = self._roots(reductions, stores)
            keep = {
                n for n, q in computed.items() if q < p and cost(self.body.code[n]) >= EXPENSIVE
            }
            needed = self.text.needed(roots, rows | keep)
            reads = {a for n in needed for a in operands(self.body.code[n])} | set(roots)
            used |= reads & keep
            for n in needed:
                computed.setdefault(n, p)
        for n in sorted(used):
            if row_bytes * (len(self.saved) + 1) <= SCRATCH_MOST:
                kind = register(self.body.code[n].dtype)
                kind = "u8" if kind == "boolean" else kind
                self.saved[n] = f"k{n}"
                place = self.text.number(self.text.scratch_offset(row_bytes), f"z{n}")
                self.text.prologue.append(f"k{n} = {kind}_at(scratch + {place})")
        self.computed = computed

    def _write_rows(self, everything: list[int], known: set[int], number: int) -> None:
        """What is computed once per row and is ready before this pass."""
        for n in everything:
            if self.body.row[n] and n not in known and self.ready[n] <= number:
                if self.body.code[n].op not in REDUCES:
                    self.text.w.line(self.text.code(n))
                known.add(n)

    def _write_pass(
        self, number: int, reductions: list[int], stores: list[int], known: set[int]
    ) -> None:
        text, code = self.text, self.body.code
        for n in reductions:
            text.w.line(f"a{n} = {neutral(code[n].op, code[n].dtype)}")
            if watches_nan(code[n].op, code[n].dtype):
                text.w.line(f"e{n} = boolean(0)")
        loop = text.nest[-1]
        kept = {n for n in self.saved if self.computed[n] < number}
        needed = text.needed(self._roots(reductions, stores), known | kept)
        reads = {a for n in needed for a in operands(code[n])} | set(
            self._roots(reductions, stores)
        )
        before = [self._reload(n, loop) for n in sorted(reads & kept)]
        inner = [
            f"{self.saved[n]}[i{loop}] = {self._kept(n)}"
            for n in needed
            if n in self.saved and self.computed[n] == number
        ]
        for n in reductions:
            inner += accumulate(code[n].op, code[n].dtype, n, f"t{code[n].args[0]}")
        inner += [text.store(i) for i in stores]
        text.write_nest(needed, inner, set(known), before)
        for n in reductions:
            text.w.line(f"t{n} = {self._result(n)}")

    def _kept(self, n: int) -> str:
        return f"u8(t{n})" if self.body.code[n].dtype.name == "bool" else f"t{n}"

    def _reload(self, n: int, loop: int) -> str:
        value = f"{self.saved[n]}[i{loop}]"
        is_bool = self.body.code[n].dtype.name == "bool"
        return f"t{n} = boolean({value})" if is_bool else f"t{n} = {value}"

    def _result(self, n: int) -> str:
        instr = self.body.code[n]
        if watches_nan(instr.op, instr.dtype):
            return f"select(e{n}, {register(instr.dtype)}(1e999 - 1e999), a{n})"
        return f"a{n}"


def accumulate(op: str, dtype: DType, n: int, value: str) -> list[str]:
    """The innermost lines of a reduction into the accumulator ``a{n}``."""
    lines = [f"a{n} = {combine(op, dtype, f'a{n}', value)}"]
    if watches_nan(op, dtype):
        lines.append(f"e{n} = bit_or(e{n}, {value} != {value})")
    return lines


def _emit_columns(body: Body, name: str) -> Emitted:
    """A unit is a block of adjacent columns; accumulators lie in scratch memory."""
    text = KernelText(body)
    last = len(body.extents) - 1
    reduced = [k for k, r in enumerate(body.reduced) if r]
    units = [k for k in range(last) if not body.reduced[k]]
    text.nest = [*reduced, last]
    _block_inner(text, last, COLUMNS)
    everything = text.needed([s.value for s in body.stores], set())
    known: set[int] = set()
    for n in everything:
        if text.depth(n) < 0:
            text.prologue.append(text.code(n))
            known.add(n)
    reductions = [n for n in everything if body.code[n].op in REDUCES]
    low, high = text.bounds(last)
    at = f"i{last} - block * {COLUMNS}"
    for n in reductions:
        op, dtype = body.code[n].op, body.code[n].dtype
        kind = "u8" if dtype.name == "bool" else register(dtype)
        text.prologue.append(f"a{n} = {kind}_at(scratch + {text.scratch_offset(8 * COLUMNS)})")
        if watches_nan(op, dtype):
            text.prologue.append(f"e{n} = u8_at(scratch + {text.scratch_offset(COLUMNS)})")
    text.w.loop(f"i{last}", low, high)
    for n in reductions:
        op, dtype = body.code[n].op, body.code[n].dtype
        start = neutral(op, dtype)
        text.w.line(f"a{n}[{at}] = {f'u8({start})' if dtype.name == 'bool' else start}")
        if watches_nan(op, dtype):
            text.w.line(f"e{n}[{at}] = u8(0)")
    text.w.depth -= 1
    inner = []
    for n in reductions:
        op, dtype, value = body.code[n].op, body.code[n].dtype, f"t{body.code[n].args[0]}"
        if dtype.name == "bool":
            step = combine(op, dtype, f"boolean(a{n}[{at}])", value)
            inner.append(f"a{n}[{at}] = u8({step})")
            continue
        inner.append(f"a{n}[{at}] = {combine(op, dtype, f'a{n}[{at}]', value)}")
        if watches_nan(op, dtype):
            inner.append(f"e{n}[{at}] = bit_or(e{n}[{at}], u8({value} != {value}))")
    needed = text.needed([body.code[n].args[0] for n in reductions], known)
    text.write_nest(needed, inner, set(known))
    _columns_epilogue(text, body, everything, reductions, known, at)
    return text.finish(name, units)


def _columns_epilogue(
    text: KernelText,
    body: Body,
    everything: list[int],
    reductions: list[int],
    known: set[int],
    at: str,
) -> None:
    """After all rows: what is computed from the finished columns, and the stores."""
    last = text.nest[-1]
    text.nest = [last]
    text.reset_positions()
    text.w.loop(f"i{last}", *text.bounds(last))
    rows = [n for n in everything if body.row[n] and n not in known]
    for n in rows:
        op, dtype = body.code[n].op, body.code[n].dtype
        if n not in reductions:
            text.w.line(text.code(n))
        elif watches_nan(op, dtype):
            nan = f"{register(dtype)}(1e999 - 1e999)"
            text.w.line(f"t{n} = select(boolean(e{n}[{at}]), {nan}, a{n}[{at}])")
        else:
            value = f"a{n}[{at}]"
            text.w.line(f"t{n} = boolean({value})" if dtype.name == "bool" else f"t{n} = {value}")
    for i in range(len(body.stores)):
        text.w.line(text.store(i))
    text.w.depth -= 1
