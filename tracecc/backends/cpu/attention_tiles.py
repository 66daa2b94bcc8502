"""The inner loops of attention as LLVM text: register tiles, softmax by columns, the weights again.

Queries lie along the lanes of two vectors, keys along rows, so that a softmax compares and adds
whole vectors and every product broadcasts its left operand from where that lies in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tracecc.backends.cpu import toolchain

LOWEST = "0xC7EFFFFFE0000000"  # of f32
# (2^r - 1) / r on [-1/2, 1/2], highest power first: 2^r within 2e-8.
EXP2 = (
    0.00015353361959569156,
    0.0013398875016719103,
    0.00961843691766262,
    0.055503323674201965,
    0.24022647738456726,
    0.6931471824645996,
)
Form = Literal["row", "column"]


@dataclass(frozen=True)
class Vectors:
    """The vectors of the target.

    Attributes:
        lanes: f32 numbers of one vector.
        rows: keys of a tile of scores; few, so that blocks of keys divide evenly.
        most: the most rows of a tile of two vectors.
    """

    lanes: int
    rows: int
    most: int

    @property
    def width(self) -> int:
        """Queries of a tile."""
        return 2 * self.lanes

    @property
    def type(self) -> str:
        return f"<{self.lanes} x float>"


def vectors() -> Vectors:
    bits = toolchain.vector_bits()
    return Vectors(bits // 32, {512: 8, 256: 4, 128: 4}[bits], {512: 14, 256: 6, 128: 4}[bits])


def compile_tile(v: Vectors, form: Form, rows: int, columns: int = 2) -> toolchain.Kernel:
    """`entry(K, A, B, C, a_step, step, beta)`: C (+)= A B over `rows` rows and `columns` vectors.

    Rows of B and C are `step` bytes apart. A's element (i, k) lies at i * a_step + 4 k in the form
    "row", at k * a_step + 4 i in the form "column". K is at least 1; beta adds to C.
    """
    key = f"attention tile 1 {v} {form} {rows} {columns}"
    return toolchain.compile_ir(lambda: _tile(v, form, rows, columns), key)


def _tile(v: Vectors, form: Form, rows: int, columns: int) -> str:
    kind = v.type
    fma = f"@llvm.fmuladd.v{v.lanes}f32"
    cells = [(i, j) for i in range(rows) for j in range(columns)]
    row = form == "row"
    # Rows are addressed from every third: base, base + step, base + 2 steps.
    bases = range(0, rows, 3) if row else range(1)
    text = [
        f"declare {kind} {fma}({kind}, {kind}, {kind})",
        "define void @entry(i64 %K, i64 %A, i64 %B, i64 %C, i64 %astep, i64 %step, i64 %beta) {",
        "start:",
        "  %two = shl i64 %astep, 1",
    ]
    for i in bases:
        text += [f"  %off{i} = mul i64 %astep, {i}", f"  %start{i} = add i64 %A, %off{i}"]
    text += ["  br label %loop", "loop:"]
    text += [
        "  %k = phi i64 [0, %start], [%k1, %loop]",
        "  %b = phi i64 [%B, %start], [%b1, %loop]",
    ]
    text += [f"  %a{i} = phi i64 [%start{i}, %start], [%m{i}, %loop]" for i in bases]
    text += [
        f"  %c{i}_{j} = phi {kind} [zeroinitializer, %start], [%n{i}_{j}, %loop]" for i, j in cells
    ]
    for j in range(columns):
        text += [
            f"  %bi{j} = add i64 %b, {4 * j * v.lanes}",
            f"  %bp{j} = inttoptr i64 %bi{j} to ptr",
            f"  %bv{j} = load {kind}, ptr %bp{j}, align 4",
        ]
    for i in range(rows):
        if row:
            base, extra = i // 3 * 3, ("0", "%astep", "%two")[i % 3]
            text.append(f"  %ai{i} = add i64 %a{base}, {extra}")
        else:
            text.append(f"  %ai{i} = add i64 %a0, {4 * i}")
        text += [
            f"  %ap{i} = inttoptr i64 %ai{i} to ptr",
            f"  %as{i} = load float, ptr %ap{i}, align 4",
            *_splat(v, f"%av{i}", f"%as{i}"),
        ]
        text += [
            f"  %n{i}_{j} = call {kind} {fma}({kind} %av{i}, {kind} %bv{j}, {kind} %c{i}_{j})"
            for j in range(columns)
        ]
    text += [f"  %m{i} = add i64 %a{i}, {'4' if row else '%astep'}" for i in bases]
    text += [
        "  %k1 = add i64 %k, 1",
        "  %b1 = add i64 %b, %step",
        "  %more = icmp slt i64 %k1, %K",
        "  br i1 %more, label %loop, label %done",
        "done:",
        "  %adds = icmp ne i64 %beta, 0",
        "  br i1 %adds, label %adding, label %storing",
    ]
    for name in ("adding", "storing"):
        text.append(f"{name}:")
        for i, j in cells:
            at = f"{name}{i}_{j}"
            value = f"%n{i}_{j}"
            text += [
                f"  %row{at} = mul i64 %step, {i}",
                f"  %base{at} = add i64 %C, %row{at}",
                f"  %at{at} = add i64 %base{at}, {4 * j * v.lanes}",
                f"  %p{at} = inttoptr i64 %at{at} to ptr",
            ]
            if name == "adding":
                text += [
                    f"  %old{at} = load {kind}, ptr %p{at}, align 4",
                    f"  %sum{at} = fadd {kind} %old{at}, {value}",
                ]
                value = f"%sum{at}"
            text.append(f"  store {kind} {value}, ptr %p{at}, align 4")
        text.append("  ret void")
    return "\n".join([*text, "}", ""])


def _splat(v: Vectors, name: str, scalar: str) -> list[str]:
    return [
        f"  {name}.e = insertelement {v.type} poison, float {scalar}, i32 0",
        f"  {name} = shufflevector {v.type} {name}.e, {v.type} poison, "
        f"<{v.lanes} x i32> zeroinitializer",
    ]


class _Lines:
    """Straight-line text on vectors; names are made up."""

    def __init__(self, v: Vectors, prefix: str):
        self.v, self.prefix, self.text = v, prefix, list[str]()
        self.whole = f"<{v.lanes} x i32>"

    def label(self, name: str) -> None:
        self.text.append(f"{name}:")

    def raw(self, line: str) -> None:
        self.text.append(f"  {line}")

    def new(self, line: str) -> str:
        name = f"%{self.prefix}{len(self.text)}"
        self.raw(f"{name} = {line}")
        return name

    def constant(self, number: str) -> str:
        return f"<{', '.join([f'float {number}'] * self.v.lanes)}>"

    def address(self, base: str, offset: str, part: int = 0) -> str:
        """base + offset + the vector's number, as a pointer."""
        at = self.new(f"add i64 {base}, {offset}")
        at = self.new(f"add i64 {at}, {4 * part * self.v.lanes}")
        return self.new(f"inttoptr i64 {at} to ptr")

    def load(self, base: str, offset: str, part: int = 0) -> str:
        return self.new(f"load {self.v.type}, ptr {self.address(base, offset, part)}, align 4")

    def store(self, value: str, base: str, offset: str, part: int = 0) -> None:
        place = self.address(base, offset, part)
        self.raw(f"store {self.v.type} {value}, ptr {place}, align 4")

    def op(self, name: str, a: str, b: str) -> str:
        return self.new(f"{name} {self.v.type} {a}, {b}")

    def fma(self, a: str, b: str, c: str) -> str:
        kind = self.v.type
        name = f"@llvm.fmuladd.v{self.v.lanes}f32"
        return self.new(f"call {kind} {name}({kind} {a}, {kind} {b}, {kind} {c})")

    def choose(self, test: str, a: str, b: str) -> str:
        """a where `a test b`, else b: NaN in b stays."""
        hit = self.new(f"fcmp {test} {self.v.type} {a}, {b}")
        return self.select(hit, a, b)

    def select(self, hit: str, a: str, b: str) -> str:
        kind = self.v.type
        return self.new(f"select <{self.v.lanes} x i1> {hit}, {kind} {a}, {kind} {b}")

    def splat(self, scalar: str) -> str:
        name = f"%{self.prefix}{len(self.text)}"
        self.text += _splat(self.v, name, scalar)
        return name

    def exp2(self, x: str) -> str:
        """2^x for x up to about 1; below 2^-126 it is 0.

        Adding the constant rounds x to n and leaves n + 127 in the low bits, the exponent of 2^n.
        """
        x = self.choose("ogt", self.constant(_hex(-127.0)), x)
        magic = self.constant(_hex(1.5 * 2.0**23 + 127))
        shifted = self.op("fadd", x, magic)
        r = self.op("fsub", x, self.op("fsub", shifted, magic))
        p = self.constant(_hex(EXP2[0]))
        for c in (*EXP2[1:], 1.0):
            p = self.fma(p, r, self.constant(_hex(c)))
        bits = self.new(f"bitcast {self.v.type} {shifted} to {self.whole}")
        shift = f"<{', '.join(['i32 23'] * self.v.lanes)}>"
        bits = self.new(f"shl {self.whole} {bits}, {shift}")
        return self.op("fmul", p, self.new(f"bitcast {self.whole} {bits} to {self.v.type}"))

    def seen(self, key: str, first: str, part: int) -> str:
        """Which lanes' queries see the key: key <= first + lane."""
        numbers = ", ".join(f"i64 {n + part * self.v.lanes}" for n in range(self.v.lanes))
        wide = f"<{self.v.lanes} x i64>"
        distance = self.new(f"sub i64 {key}, {first}")
        one = self.new(f"insertelement {wide} poison, i64 {distance}, i32 0")
        zero = f"<{self.v.lanes} x i32> zeroinitializer"
        each = self.new(f"shufflevector {wide} {one}, {wide} poison, {zero}")
        return self.new(f"icmp sle {wide} {each}, <{numbers}>")


def _hex(x: float) -> str:
    from tracecc.backends.cpu.vecmath_builder import constant

    return constant(x, "float")


# The numbers kept per query, each `width` floats: maxima, sums, factors of older sums; then c.
MAXIMA, SUMS, FACTORS, SCALE = range(4)


def compile_softmax(v: Vectors) -> toolchain.Kernel:
    """`entry(S, keys, full, first, state, _, _)`: raw scores [keys, width] become weights.

    All queries see the first `full` keys, query j those up to first + j. The state holds the
    maxima and sums so far; they are brought up to date, and the factors tell by what older sums
    shrink (Milakov & Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867).
    """
    return toolchain.compile_ir(lambda: _softmax(v), f"attention softmax 1 {v}")


def _softmax(v: Vectors) -> str:
    kind, bytes_ = v.type, 4 * v.width
    low = _Lines(v, "s").constant("0xFFF0000000000000")
    out = [
        f"declare {kind} @llvm.fmuladd.v{v.lanes}f32({kind}, {kind}, {kind})",
        "define void @entry(i64 %S, i64 %keys, i64 %full, i64 %first, i64 %T, i64 %u, i64 %w) {",
        "start:",
        "  %some = icmp sgt i64 %full, 0",
        "  br i1 %some, label %open, label %middle",
        "open:",
        "  %k = phi i64 [0, %start], [%k1, %open]",
    ]
    out += [f"  %x{j} = phi {kind} [{low}, %start], [%y{j}, %open]" for j in range(2)]
    b = _Lines(v, "o")
    row = b.new(f"mul i64 %k, {bytes_}")
    for j in range(2):
        s = b.load("%S", row, j)
        b.raw(f"%t{j} = fcmp ogt {kind} {s}, %x{j}")
        b.raw(f"%y{j} = select <{v.lanes} x i1> %t{j}, {kind} {s}, {kind} %x{j}")
    out += b.text
    out += [
        "  %k1 = add i64 %k, 1",
        "  %more = icmp slt i64 %k1, %full",
        "  br i1 %more, label %open, label %middle",
        "middle:",
    ]
    out += [f"  %z{j} = phi {kind} [{low}, %start], [%y{j}, %open]" for j in range(2)]
    out += [
        "  %rest = icmp slt i64 %full, %keys",
        "  br i1 %rest, label %masked, label %update",
        "masked:",
        "  %q = phi i64 [%full, %middle], [%q1, %masked]",
    ]
    out += [f"  %e{j} = phi {kind} [%z{j}, %middle], [%f{j}, %masked]" for j in range(2)]
    b = _Lines(v, "m")
    row = b.new(f"mul i64 %q, {bytes_}")
    for j in range(2):
        s = b.select(b.seen("%q", "%first", j), b.load("%S", row, j), low)
        b.store(s, "%S", row, j)
        b.raw(f"%g{j} = fcmp ogt {kind} {s}, %e{j}")
        b.raw(f"%f{j} = select <{v.lanes} x i1> %g{j}, {kind} {s}, {kind} %e{j}")
    out += b.text
    out += [
        "  %q1 = add i64 %q, 1",
        "  %on = icmp slt i64 %q1, %keys",
        "  br i1 %on, label %masked, label %update",
        "update:",
    ]
    out += [f"  %h{j} = phi {kind} [%z{j}, %middle], [%f{j}, %masked]" for j in range(2)]
    b = _Lines(v, "u")
    place = b.address("%T", str(SCALE * bytes_))
    c = b.splat(b.new(f"load float, ptr {place}, align 4"))
    lowest = b.constant(LOWEST)
    shifts, sums = [], []
    for j in range(2):
        old = b.load("%T", str(MAXIMA * bytes_), j)
        top = b.choose("ogt", f"%h{j}", old)
        b.store(top, "%T", str(MAXIMA * bytes_), j)
        before, now = (b.choose("ogt", lowest, b.op("fmul", m, c)) for m in (old, top))
        factor = b.exp2(b.op("fsub", before, now))
        b.store(factor, "%T", str(FACTORS * bytes_), j)
        sums.append(b.op("fmul", b.load("%T", str(SUMS * bytes_), j), factor))
        shifts.append(b.new(f"fneg {kind} {now}"))
    out += b.text
    out += ["  br label %weigh", "weigh:", "  %n = phi i64 [0, %update], [%n1, %weigh]"]
    out += [f"  %l{j} = phi {kind} [zeroinitializer, %update], [%r{j}, %weigh]" for j in range(2)]
    b = _Lines(v, "w")
    row = b.new(f"mul i64 %n, {bytes_}")
    for j in range(2):
        p = b.exp2(b.fma(b.load("%S", row, j), c, shifts[j]))
        b.store(p, "%S", row, j)
        b.raw(f"%r{j} = fadd {kind} %l{j}, {p}")
    out += b.text
    out += [
        "  %n1 = add i64 %n, 1",
        "  %again = icmp slt i64 %n1, %keys",
        "  br i1 %again, label %weigh, label %done",
        "done:",
    ]
    b = _Lines(v, "d")
    for j in range(2):
        b.store(b.op("fadd", sums[j], f"%r{j}"), "%T", str(SUMS * bytes_), j)
    return "\n".join([*out, *b.text, "  ret void", "}", ""])


def compile_shrink(v: Vectors) -> toolchain.Kernel:
    """`entry(X, rows, factors, _, _, _, _)`: every row of X [rows, width] times the factors."""
    return toolchain.compile_ir(lambda: _shrink(v), f"attention shrink 1 {v}")


def _shrink(v: Vectors) -> str:
    out = [
        "define void @entry(i64 %X, i64 %rows, i64 %F, i64 %a, i64 %b, i64 %c, i64 %d) {",
        "start:",
    ]
    b = _Lines(v, "f")
    factors = [b.load("%F", "0", j) for j in range(2)]
    out += [*b.text, "  br label %loop", "loop:", "  %i = phi i64 [0, %start], [%i1, %loop]"]
    b = _Lines(v, "x")
    row = b.new(f"mul i64 %i, {4 * v.width}")
    for j in range(2):
        b.store(b.op("fmul", b.load("%X", row, j), factors[j]), "%X", row, j)
    out += [
        *b.text,
        "  %i1 = add i64 %i, 1",
        "  %more = icmp slt i64 %i1, %rows",
        "  br i1 %more, label %loop, label %done",
        "done:",
        "  ret void",
        "}",
        "",
    ]
    return "\n".join(out)


def compile_fetch() -> toolchain.Kernel:
    """`entry(A, rows, bytes, step, _, _, _)`: asks for `rows` rows of `bytes`, `step` bytes apart,
    so that they are in the cache when they are needed."""
    return toolchain.compile_ir(lambda: _FETCH, "attention fetch 1")


_FETCH = """
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
define void @entry(i64 %A, i64 %rows, i64 %bytes, i64 %step, i64 %a, i64 %b, i64 %c) {
start:
  %some = icmp sgt i64 %rows, 0
  br i1 %some, label %row, label %done
row:
  %i = phi i64 [0, %start], [%i1, %next]
  %at = phi i64 [%A, %start], [%at1, %next]
  br label %line
line:
  %j = phi i64 [0, %row], [%j1, %line]
  %place = add i64 %at, %j
  %pointer = inttoptr i64 %place to ptr
  call void @llvm.prefetch.p0(ptr %pointer, i32 0, i32 2, i32 1)
  %j1 = add i64 %j, 64
  %more = icmp slt i64 %j1, %bytes
  br i1 %more, label %line, label %next
next:
  %i1 = add i64 %i, 1
  %at1 = add i64 %at, %step
  %on = icmp slt i64 %i1, %rows
  br i1 %on, label %row, label %done
done:
  ret void
}
"""


# The numbers per query that the backward pass reads: logarithms of sums, dots; then c.
LOGS, DOTS, FACTOR = range(3)


def compile_weights(v: Vectors) -> toolchain.Kernel:
    """`entry(S, D, keys, full, first, state, _)`: raw scores and g v^T [keys, width] in place
    become the weights p and p * (g v^T - dot); keys as for the softmax, what is not seen is 0."""
    return toolchain.compile_ir(lambda: _weights(v), f"attention weights 1 {v}")


def _weights(v: Vectors) -> str:
    kind, bytes_ = v.type, 4 * v.width
    out = [
        f"declare {kind} @llvm.fmuladd.v{v.lanes}f32({kind}, {kind}, {kind})",
        "define void @entry(i64 %S, i64 %D, i64 %keys, i64 %full, i64 %first, i64 %T, i64 %u) {",
        "start:",
    ]
    b = _Lines(v, "h")
    place = b.address("%T", str(FACTOR * bytes_))
    c = b.splat(b.new(f"load float, ptr {place}, align 4"))
    logs = [b.load("%T", str(LOGS * bytes_), j) for j in range(2)]
    dots = [b.load("%T", str(DOTS * bytes_), j) for j in range(2)]
    shifts = [b.new(f"fneg {kind} {x}") for x in logs]
    out += b.text
    for name, begin, end, after in (
        ("open", "0", "%full", "middle"),
        ("masked", "%full", "%keys", "done"),
    ):
        at = "start" if name == "open" else "middle"
        out += [
            f"  %some{name} = icmp slt i64 {begin}, {end}",
            f"  br i1 %some{name}, label %{name}, label %{after}",
            f"{name}:",
            f"  %k{name} = phi i64 [{begin}, %{at}], [%n{name}, %{name}]",
        ]
        b = _Lines(v, name[0])
        row = b.new(f"mul i64 %k{name}, {bytes_}")
        for j in range(2):
            p = b.exp2(b.fma(b.load("%S", row, j), c, shifts[j]))
            ds = b.op("fmul", p, b.op("fsub", b.load("%D", row, j), dots[j]))
            if name == "masked":
                hit = b.seen(f"%k{name}", "%first", j)
                p, ds = (b.select(hit, x, "zeroinitializer") for x in (p, ds))
            b.store(p, "%S", row, j)
            b.store(ds, "%D", row, j)
        out += b.text
        out += [
            f"  %n{name} = add i64 %k{name}, 1",
            f"  %more{name} = icmp slt i64 %n{name}, {end}",
            f"  br i1 %more{name}, label %{name}, label %{after}",
            f"{after}:",
        ]
    return "\n".join([*out, "  ret void", "}", ""])
