"""From the schedule's kernels to source text: loops around scalar code, sizes in argument slots.

The text depends on the structure only (which loops an operand walks, contiguous or not), so one
compiled kernel serves every size.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tracecc.backends.cpu.emit_scalar import expression, literal, loaded, stored
from tracecc.backends.cpu.target import PARAMETERS
from tracecc.backends.schedule_body import REDUCES, Body, Instr, operands
from tracecc.backends.schedule_index import Affine
from tracecc_ir.op import OPS
from tracecc_ir.types import i64

Slot = tuple[str, float, int]

# Strides of an innermost loop that are part of the text: of the coordinates of points, say.
INTERLEAVED = (2, 3, 4)


@dataclass
class Emitted:
    """A kernel's text and how to call it.

    Attributes:
        source, entry: for the toolchain.
        slots: what each argument slot holds: ("pointer", tensor, offset in elements), ("number", n,
            0) or a float constant, ("f32", x, 0) or ("f64", x, 0).
        units: how many work units there are.
        scratch: bytes of private scratch memory.
    """

    source: str
    entry: str
    slots: list[Slot]
    units: int
    scratch: int


class Writer:
    """Lines of source with indentation."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 2

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def loop(self, variable: str, begin: str, end: str) -> None:
        self.line(f"for {variable} in range({begin}, {end}):")
        self.depth += 1


class KernelText:
    """What the three kernel shapes share: slots, offsets and scalar code at loop levels.

    Attributes:
        nest: loops written inside a work unit, outermost first; the unit decodes to the others.
    """

    def __init__(self, body: Body):
        self.body = body
        self.slots: list[Slot] = []
        self.head: list[str] = []
        self.w = Writer()
        self.nest: list[int] = []
        self.ranges: dict[int, tuple[str, str]] = {}
        self._numbers: dict[tuple, str] = {}
        self._pointers: dict[tuple[int, int], str] = {}
        self._bases: dict[tuple[int, ...], str] = {}
        self._depths: dict[int, int] = {}
        self.bases: list[str] = []
        self.prologue: list[str] = []
        self.scratch = 0
        self.blocks = 1
        self.blocked = False

    # Slots.

    def number(self, value: int, name: str) -> str:
        """The name of a slot that holds an integer."""
        self.head.append(f"{name} = i64_arg(args, {len(self.slots)})")
        self.slots.append(("number", value, 0))
        return name

    def pointer(self, tensor: int, offset: int) -> str:
        key = (tensor, offset)
        if key not in self._pointers:
            name = self._pointers[key] = f"p{len(self._pointers)}"
            kind = self.body.types[tensor].name
            self.head.append(f"{name} = {kind}_ptr(args, {len(self.slots)})")
            self.slots.append(("pointer", tensor, offset))
        return self._pointers[key]

    def extent(self, loop: int) -> str:
        key = ("n", loop)
        if key not in self._numbers:
            self._numbers[key] = self.number(self.body.extents[loop], f"n{loop}")
        return self._numbers[key]

    def stride(self, index: Affine, loop: int) -> str:
        key = (index.coefs, loop)
        if key not in self._numbers:
            self._numbers[key] = self.number(index.coefs[loop], f"s{len(self._numbers)}")
        return self._numbers[key]

    # Offsets.

    def position(self, index: Affine) -> str:
        """An index as an expression over the loop counters; its constant is not included."""
        terms = []
        base = self._base(index)
        if base:
            terms.append(base)
        for loop in self.nest:
            c = index.coefs[loop]
            if c == 0:
                continue
            if loop == self.nest[-1] and c in (1, -1):
                terms.append(f"i{loop}" if c == 1 else f"-i{loop}")
            elif loop == self.nest[-1] and c in INTERLEAVED:
                terms.append(f"i{loop} * {c}")
            else:
                terms.append(f"i{loop} * {self.stride(index, loop)}")
        for instr, c, _ in index.dynamic:
            terms.append(f"t{instr} * {self._dynamic(c, index, instr)}")
        return " + ".join(terms).replace("+ -", "- ") or "0"

    def _dynamic(self, coef: int, index: Affine, instr: int) -> str:
        if coef == 1:
            return "1"
        key = ("d", instr, coef)
        if key not in self._numbers:
            self._numbers[key] = self.number(coef, f"s{len(self._numbers)}")
        return self._numbers[key]

    def _base(self, index: Affine) -> str:
        """The part that the work unit fixes, computed once per unit."""
        outer = [k for k, c in enumerate(index.coefs) if c and k not in self.nest]
        if not outer:
            return ""
        key = tuple(c if k in outer else 0 for k, c in enumerate(index.coefs))
        if key not in self._bases:
            terms = [f"i{k} * {self.stride(Affine(0, key), k)}" for k in outer]
            self._bases[key] = f"b{len(self._bases)}"
            self.bases.append(f"{self._bases[key]} = {' + '.join(terms)}")
        return self._bases[key]

    # Scalar code.

    def depth(self, number: int) -> int:
        """How many loops of the nest an instruction lies in; -1 if it lies outside the units."""
        if number not in self._depths:
            instr = self.body.code[number]
            found = -1
            if instr.op in REDUCES:
                found = 0
            elif instr.index is not None:
                for k, c in enumerate(instr.index.coefs):
                    if c:
                        found = max(found, self.nest.index(k) + 1 if k in self.nest else 0)
            found = max([found, *(self.depth(a) for a in operands(instr))])
            self._depths[number] = found
        return self._depths[number]

    def code(self, number: int) -> str:
        """One instruction as an assignment."""
        instr = self.body.code[number]
        return f"t{number} = {self._expression(instr)}"

    def _expression(self, instr: Instr) -> str:
        args = [f"t{a}" for a in instr.args]
        if instr.op == "const":
            return self._constant(instr)
        if instr.op == "load":
            return self._load(instr)
        if instr.op == "wrap":
            return self._wrap(instr, args[0])
        if instr.index is not None:
            at = self.position(instr.index)
            if instr.index.const or instr.op == "inside":
                at = f"{at} + {self.number(instr.index.const, self._fresh())}"
            if instr.op == "index":
                return f"i64({at})"
            if instr.op == "philox":
                return f"philox({args[0]}, {args[1]}, {at})"
            size = self.number(instr.number, self._fresh())
            return f"bit_and({at} >= 0, {at} < {size})"
        source = self.body.code[instr.args[-1]].dtype
        return expression(instr.op, args, source, instr.dtype)

    def _constant(self, instr: Instr) -> str:
        """A literal; floats that may come from a size (1/n of a mean) lie in a slot, so that the
        text does not depend on them."""
        value = instr.number
        if instr.dtype.kind != "float" or not math.isfinite(value) or value in (0, 1, -1):
            return literal(value, instr.dtype)
        kind = "f64" if instr.dtype.name == "f64" else "f32"
        self.slots.append((kind, value, 0))
        return f"{kind}_arg(args, {len(self.slots) - 1})"

    def _fresh(self) -> str:
        return f"c{len(self.slots)}"

    def _load(self, instr: Instr) -> str:
        assert instr.index is not None
        at = self.position(instr.index)
        first = instr.index.const
        if self.nest and instr.index.coefs[self.nest[-1]] in INTERLEAVED:
            # The members of a group of adjacent elements are read from one pointer, so that LLVM
            # loads whole vectors and shuffles them apart.
            member = first % instr.index.coefs[self.nest[-1]]
            first -= member
            at = f"{at} + {member}" if member else at
        text = loaded(f"{self.pointer(instr.tensor, first)}[{at}]", instr.dtype)
        if instr.guard >= 0:
            text = f"{text} if t{instr.guard} else {literal(0, instr.dtype)}"
        return text

    def _wrap(self, instr: Instr, at: str) -> str:
        """A looked-up index: negative ones count from the end, a bad one sets the error word."""
        assert instr.index is not None
        size = self.number(instr.index.const, self._fresh())
        at = at if self.body.code[instr.args[0]].dtype is i64 else f"i64({at})"
        if ("error", 0) not in self._numbers:
            self._numbers["error", 0] = "error"
            self.head.append(f"error = i64_arg(args, {len(self.slots)})")
            self.slots.append(("error", 0, 0))
        return f"checked({at}, {size}, error)"

    def store(self, number: int) -> str:
        s = self.body.stores[number]
        element = stored(f"t{s.value}", self.body.types[s.tensor])
        return f"{self.pointer(s.tensor, s.index.const)}[{self.position(s.index)}] = {element}"

    def needed(self, roots: Iterable[int], known: set[int]) -> list[int]:
        """Instructions to compute for ``roots``, in order, beyond the known ones."""
        found: set[int] = set()
        stack = [r for r in roots if r not in known]
        while stack:
            n = stack.pop()
            if n in found or n in known:
                continue
            found.add(n)
            stack.extend(operands(self.body.code[n]))
        return sorted(found)

    def scratch_offset(self, size: int) -> int:
        """Reserves bytes of scratch memory."""
        found = self.scratch
        self.scratch += -(-size // 64) * 64
        return found

    def reset_positions(self) -> None:
        """To be called when the nest changed: levels of instructions are found again."""
        self._depths = {}

    def write_nest(
        self, code: list[int], inner: list[str], known: set[int], before: Sequence[str] = ()
    ) -> None:
        """The nest's loops with each instruction at its own level.

        Args:
            code: instructions in order.
            inner: lines at the end of the innermost loop.
            known: instructions that have a value already.
            before: lines at the start of the innermost loop.
        """
        start = self.w.depth
        for level in range(len(self.nest) + 1):
            if level:
                loop = self.nest[level - 1]
                low, high = self.bounds(loop)
                self.w.loop(f"i{loop}", low, high)
            if level == len(self.nest):
                for text in before:
                    self.w.line(text)
            for n in code:
                if n not in known and max(self.depth(n), 0) == level:
                    self.w.line(self.code(n))
                    if level == 0:
                        known.add(n)
        for text in inner:
            self.w.line(text)
        self.w.depth = start

    def bounds(self, loop: int) -> tuple[str, str]:
        if loop in self.ranges:
            return self.ranges[loop]
        clip = self.body.clip
        if clip and clip[1] == loop:
            total = self.number(clip[2], self._fresh())
            n = self.extent(loop)
            self.bases.append(f"m{loop} = min_fast({n}, {total} - i{clip[0]} * {n})")
            return "0", f"m{loop}"
        return "0", self.extent(loop)

    def finish(self, name: str, units: list[int] | None) -> Emitted:
        """The whole text: slots, the loop over units, what they decode to, and the lines so far.

        ``units`` is None for a kernel whose only loop is the range itself.
        """
        count = self.blocks
        inside: list[str] = []
        loop: list[str] = []
        if units is not None:
            decode = self._decode(units)
            inside = ["    " * 2 + t for t in (*decode, *self.bases)]
            variable = f"i{units[0]}" if self._single(units) else "u"
            loop = [f"    for {variable} in range(begin, end):"]
            for k in units:
                count *= self.body.extents[k]
        else:
            count = self.body.extents[0]
        head = [f"    {t}" for t in (*self.head, *self.prologue)]
        body = "\n".join([*head, *loop, *inside, *self.w.lines]) + "\n"
        return self.named(name, PARAMETERS["kernel"], body, count)

    def named(self, name: str, parameters: Sequence[str], body: str, units: int) -> Emitted:
        """The function around a text, with a name that tells it from others."""
        entry = f"{name}_{hashlib.sha256(body.encode()).hexdigest()[:6]}"
        source = f"def {entry}({', '.join(parameters)}):\n{body}"
        return Emitted(source, entry, self.slots, units, self.scratch)

    def _single(self, units: list[int]) -> bool:
        return len(units) == 1 and not self.blocked

    def _decode(self, units: list[int]) -> list[str]:
        """The counters of the unit's loops from its number."""
        if self._single(units):
            return []
        if not self.blocked:
            return self.decoded(units, "u")
        if not units:
            return ["block = u"]
        return ["r = u // blocks", "block = u - r * blocks", *self.decoded(units, "r")]

    def decoded(self, units: list[int], rest: str) -> list[str]:
        """The counters of loops from the number of one of their turns, named ``rest``."""
        lines: list[str] = []
        for position, k in enumerate(reversed(units)):
            if position == len(units) - 1:
                lines.append(f"i{k} = {rest}")
            else:
                n = self.extent(k)
                lines += [f"q{k} = {rest} // {n}", f"i{k} = {rest} - q{k} * {n}"]
                rest = f"q{k}"
        return lines


def cost(instr: Instr) -> int:
    """Operations per element; loads and constants are free."""
    op = OPS.get(instr.op)
    return op.cost if op is not None and op.kind == "elementwise" else 20 * (instr.op == "philox")
