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
    """`entry(K, A, B, C, ldc, accumulate, _)`; ldc in elements, K may be 0, any alignment."""
    return toolchain.compile_ir(lambda: _text(shape), f"tile 1 {shape}")


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
        "define void @entry(i64 %K, i64 %A, i64 %B, i64 %C, i64 %ldc, i64 %beta, i64 %unused) {",
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
        f"  %b1 = add i64 %b, {shape.nr * align}",
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
