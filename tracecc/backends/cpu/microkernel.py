"""The register tile of every matrix product, C[MR, NR] (+)= A[K, MR]^T B[K, NR], as LLVM text."""

from __future__ import annotations

from dataclasses import dataclass

from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.target import target


@dataclass(frozen=True)
class Tile:
    """The shape of the register tile.

    Attributes:
        kind: f32 or f64, what is accumulated.
        lanes: elements of one vector.
        mr: rows, each a broadcast element of A.
        nr: columns, two vectors of B.
    """

    kind: str
    lanes: int
    mr: int
    nr: int

    @property
    def itemsize(self) -> int:
        return 4 if self.kind == "f32" else 8


def tile(kind: str) -> Tile:
    """The tile of the current target: as many accumulators as there are registers for."""
    bits = toolchain.vector_bits()
    lanes = bits // (32 if kind == "f32" else 64)
    many = target().triple.startswith(("aarch64", "arm64"))
    mr = {512: 14, 256: 6, 128: 12 if many else 4}[bits]
    return Tile(kind, lanes, mr, 2 * lanes)


def compile_tile(shape: Tile) -> toolchain.Kernel:
    """`entry(K, A, B, C, ldc, accumulate, step)`: the rows of B are `step` bytes apart.

    ldc is in elements, K may be 0, any alignment.
    """
    return toolchain.compile_ir(lambda: _text(shape), f"tile 2 {shape}")


def _text(shape: Tile) -> str:
    element = "float" if shape.kind == "f32" else "double"
    vector = f"<{shape.lanes} x {element}>"
    fma = f"@llvm.fmuladd.v{shape.lanes}{shape.kind}"
    cells = [(i, j) for i in range(shape.mr) for j in range(2)]
    align = shape.itemsize
    one = f"insertelement {vector} undef, {element}"
    splat = f"<{shape.lanes} x i32> zeroinitializer"
    text = [
        f"declare {vector} {fma}({vector}, {vector}, {vector})",
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
        text += [
            f"  %n{i}_{j} = call {vector} {fma}({vector} %av{i}, {vector} %bv{j}, "
            f"{vector} %c{i}_{j})"
            for j in range(2)
        ]
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
    key = f"turn 1 {shape.kind} {shape.lanes} {rows}"
    return toolchain.compile_ir(lambda: _turn(shape, rows), key)


def _turn(shape: Tile, rows: int) -> str:
    lanes, size = shape.lanes, shape.itemsize
    element = "float" if shape.kind == "f32" else "double"
    vector = f"<{lanes} x {element}>"
    text = ["define void @entry(i64 %to, i64 %from, i64 %u0, i64 %ts, i64 %fs, i64 %u1, i64 %u2) {"]
    for first in range(0, rows, lanes):
        height = min(lanes, rows - first)
        at = f"c{first}_"
        for i in range(height):
            text += [
                f"  %fo{at}{i} = mul i64 %fs, {first + i}",
                f"  %fa{at}{i} = add i64 %from, %fo{at}{i}",
                f"  %fp{at}{i} = inttoptr i64 %fa{at}{i} to ptr",
                f"  %v{at}0_{i} = load {vector}, ptr %fp{at}{i}, align {size}",
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
    vector = f"<{columns} x {'float' if shape.kind == 'f32' else 'double'}>"
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
