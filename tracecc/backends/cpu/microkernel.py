"""The register tile of every matrix product, C[MR, NR] (+)= A[K, MR]^T B[K, NR], as LLVM text."""

from __future__ import annotations

from dataclasses import dataclass

from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.target import target

_DOT = "llvm.x86.avx512bf16.dpbf16ps"


@dataclass(frozen=True)
class Tile:
    """The shape of the register tile.

    Attributes:
        kind: f32 or f64, what is accumulated.
        lanes: elements of one vector.
        mr: rows, each a broadcast element of A.
        nr: columns, two vectors of B.
        pairs: whether an element of A or B is two bf16 numbers that follow each other along k; they
            lie in the 32 bits of an f32, as which everything but the multiplication treats them.
    """

    kind: str
    lanes: int
    mr: int
    nr: int
    pairs: bool = False

    @property
    def itemsize(self) -> int:
        return 4 if self.kind == "f32" else 8

    @property
    def align(self) -> int:
        """The alignment of elements of unpacked operands, in bytes."""
        return 2 if self.pairs else self.itemsize

    @property
    def numbers(self) -> int:
        """How many numbers of A or B an element holds."""
        return 2 if self.pairs else 1

    def depth(self, k: int) -> int:
        """How many elements hold k numbers."""
        return -(-k // self.numbers)

    @property
    def element(self) -> str:
        return "float" if self.kind == "f32" else "double"

    @property
    def vector(self) -> str:
        return f"<{self.lanes} x {self.element}>"


def tile(kind: str) -> Tile:
    """The tile of the current target: as many accumulators as there are registers for."""
    bits = toolchain.vector_bits()
    lanes = bits // (32 if kind == "f32" else 64)
    many = target().triple.startswith(("aarch64", "arm64"))
    mr = {512: 14, 256: 6, 128: 12 if many else 4}[bits]
    return Tile(kind, lanes, mr, 2 * lanes)


def declare_multiply(shape: Tile) -> str:
    """The declaration of what `multiply` calls."""
    v = shape.vector
    if shape.pairs:
        pairs = f"<{2 * shape.lanes} x bfloat>"
        return f"declare {v} @{_DOT}.{32 * shape.lanes}({v}, {pairs}, {pairs})"
    return f"declare {v} @llvm.fmuladd.v{shape.lanes}{shape.kind}({v}, {v}, {v})"


def multiply(shape: Tile, result: str, a: str, b: str, c: str) -> list[str]:
    """The lines of `result = a * b + c` of vectors."""
    v = shape.vector
    if not shape.pairs:
        call = f"call {v} @llvm.fmuladd.v{shape.lanes}{shape.kind}({v} {a}, {v} {b}, {v} {c})"
        return [f"  {result} = {call}"]
    pairs = f"<{2 * shape.lanes} x bfloat>"
    return [
        f"  {result}a = bitcast {v} {a} to {pairs}",
        f"  {result}b = bitcast {v} {b} to {pairs}",
        f"  {result} = call {v} @{_DOT}.{32 * shape.lanes}({v} {c}, {pairs} {result}a, "
        f"{pairs} {result}b)",
    ]


def compile_tile(shape: Tile) -> toolchain.Kernel:
    """`entry(K, A, B, C, ldc, accumulate, step)`: the rows of B are `step` bytes apart.

    ldc is in elements, K may be 0, any alignment.
    """
    return toolchain.compile_ir(lambda: _text(shape), f"tile 2 {shape}")


def _text(shape: Tile) -> str:
    element, vector = shape.element, shape.vector
    cells = [(i, j) for i in range(shape.mr) for j in range(2)]
    align = shape.itemsize
    one = f"insertelement {vector} undef, {element}"
    splat = f"<{shape.lanes} x i32> zeroinitializer"
    text = [
        declare_multiply(shape),
        "define void @entry(i64 %K, i64 %A, i64 %B, i64 %C, i64 %ldc, i64 %beta, i64 %step) {",
        "start:",
        "  %some = icmp sgt i64 %K, 0",
        "  br i1 %some, label %loop, label %done",
        "loop:",
        "  %k = phi i64 [0, %start], [%k1, %loop]",
        "  %a = phi i64 [%A, %start], [%a1, %loop]",
        "  %b = phi i64 [%B, %start], [%b1, %loop]",
    ]
    text += [
        f"  %c{i}_{j} = phi {vector} [zeroinitializer, %start], [%n{i}_{j}, %loop]"
        for i, j in cells
    ]
    for j in range(2):
        text += [
            f"  %bi{j} = add i64 %b, {j * shape.lanes * align}",
            f"  %bp{j} = inttoptr i64 %bi{j} to {vector}*",
            f"  %bv{j} = load {vector}, {vector}* %bp{j}, align {align}",
        ]
    for i in range(shape.mr):
        text += [
            f"  %ai{i} = add i64 %a, {i * align}",
            f"  %ap{i} = inttoptr i64 %ai{i} to {element}*",
            f"  %as{i} = load {element}, {element}* %ap{i}, align {align}",
            f"  %ae{i} = {one} %as{i}, i32 0",
            f"  %av{i} = shufflevector {vector} %ae{i}, {vector} undef, {splat}",
        ]
        for j in range(2):
            text += multiply(shape, f"%n{i}_{j}", f"%av{i}", f"%bv{j}", f"%c{i}_{j}")
    text += [
        "  %k1 = add i64 %k, 1",
        f"  %a1 = add i64 %a, {shape.mr * align}",
        "  %b1 = add i64 %b, %step",
        "  %more = icmp slt i64 %k1, %K",
        "  br i1 %more, label %loop, label %done",
        "done:",
    ]
    text += [
        f"  %r{i}_{j} = phi {vector} [zeroinitializer, %start], [%n{i}_{j}, %loop]"
        for i, j in cells
    ]
    text += [
        f"  %ldb = mul i64 %ldc, {align}",
        "  %adds = icmp ne i64 %beta, 0",
        "  br i1 %adds, label %adding, label %storing",
    ]
    for name, adding in (("adding", True), ("storing", False)):
        text.append(f"{name}:")
        for i, j in cells:
            at = f"{name}{i}_{j}"
            text += [
                f"  %row{at} = mul i64 %ldb, {i}",
                f"  %base{at} = add i64 %C, %row{at}",
                f"  %at{at} = add i64 %base{at}, {j * shape.lanes * align}",
                f"  %p{at} = inttoptr i64 %at{at} to {vector}*",
            ]
            value = f"%r{i}_{j}"
            if adding:
                text += [
                    f"  %old{at} = load {vector}, {vector}* %p{at}, align {align}",
                    f"  %sum{at} = fadd {vector} %old{at}, {value}",
                ]
                value = f"%sum{at}"
            text.append(f"  store {vector} {value}, {vector}* %p{at}, align {align}")
        text.append("  ret void")
    return "\n".join([*text, "}", ""])


def compile_turn(shape: Tile, rows: int) -> toolchain.Kernel:
    """`entry(to, from, _, to stride, from stride, _, _)` in bytes: a vector of each of `rows` rows.

    They become as many rows as a vector has lanes, `rows` wide.
    """
    key = f"turn 2 {shape.kind} {shape.lanes} {shape.align} {rows}"
    return toolchain.compile_ir(lambda: _turn(shape, rows), key)


def _turn(shape: Tile, rows: int) -> str:
    lanes, size, element, vector = shape.lanes, shape.itemsize, shape.element, shape.vector
    text = ["define void @entry(i64 %to, i64 %from, i64 %u0, i64 %ts, i64 %fs, i64 %u1, i64 %u2) {"]
    for first in range(0, rows, lanes):
        height = min(lanes, rows - first)
        at = f"c{first}_"
        for i in range(height):
            text += [
                f"  %fo{at}{i} = mul i64 %fs, {first + i}",
                f"  %fa{at}{i} = add i64 %from, %fo{at}{i}",
                f"  %fp{at}{i} = inttoptr i64 %fa{at}{i} to ptr",
                f"  %v{at}0_{i} = load {vector}, ptr %fp{at}{i}, align {shape.align}",
            ]
        old = [f"%v{at}0_{i}" if i < height else "undef" for i in range(lanes)]
        # Each step exchanges one bit of the row's number with the same bit of the lane's.
        bit = 1
        while bit < lanes:
            new = []
            for i in range(lanes):
                shift = bit if i & bit else 0
                order = [
                    n + shift if not n & bit else lanes + n - bit + shift for n in range(lanes)
                ]
                mask = ", ".join(f"i32 {n}" for n in order)
                new.append(f"%v{at}{bit * 2}_{i}")
                text.append(
                    f"  {new[-1]} = shufflevector {vector} {old[i & ~bit]}, "
                    f"{vector} {old[i | bit]}, <{lanes} x i32> <{mask}>"
                )
            old, bit = new, bit * 2
        part = f"<{height} x {element}>"
        mask = ", ".join(f"i32 {n}" for n in range(height))
        for i in range(lanes):
            text += [
                f"  %w{at}{i} = shufflevector {vector} {old[i]}, {vector} undef, "
                f"<{height} x i32> <{mask}>",
                f"  %to{at}{i} = mul i64 %ts, {i}",
                f"  %tf{at}{i} = add i64 %to{at}{i}, {first * size}",
                f"  %ta{at}{i} = add i64 %to, %tf{at}{i}",
                f"  %tp{at}{i} = inttoptr i64 %ta{at}{i} to ptr",
                f"  store {part} %w{at}{i}, ptr %tp{at}{i}, align {size}",
            ]
    return "\n".join([*text, "  ret void", "}", ""])


def compile_copy(shape: Tile, columns: int) -> toolchain.Kernel:
    """`entry(to, from, rows, to stride, from stride, _, _)` in bytes: rows of `columns` each."""
    return toolchain.compile_ir(lambda: _copy(shape, columns), f"rows 1 {shape.kind} {columns}")


def _copy(shape: Tile, columns: int) -> str:
    vector = f"<{columns} x {shape.element}>"
    return f"""
define void @entry(i64 %to, i64 %from, i64 %rows, i64 %ts, i64 %fs, i64 %u1, i64 %u2) {{
start:
  %some = icmp sgt i64 %rows, 0
  br i1 %some, label %loop, label %done
loop:
  %left = phi i64 [ %rows, %start ], [ %less, %loop ]
  %t = phi i64 [ %to, %start ], [ %t1, %loop ]
  %f = phi i64 [ %from, %start ], [ %f1, %loop ]
  %tp = inttoptr i64 %t to ptr
  %fp = inttoptr i64 %f to ptr
  %v = load {vector}, ptr %fp, align {shape.itemsize}
  store {vector} %v, ptr %tp, align {shape.itemsize}
  %t1 = add i64 %t, %ts
  %f1 = add i64 %f, %fs
  %less = sub i64 %left, 1
  %more = icmp sgt i64 %less, 0
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""
