"""Winograd convolution's vector code: transforms of one tile of channels, and its register tile."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction

from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.winograd_transform import (
    DATA,
    GRADIENT,
    RESULT,
    RESULTS,
    SIZE,
    Matrix,
    transform,
)


class _Text:
    """LLVM text of one function over f32 vectors."""

    def __init__(self, lanes: int, parameters: Sequence[str]):
        self.vector = f"<{lanes} x float>"
        self.lanes = lanes
        self.fma = f"@llvm.fmuladd.v{lanes}f32"
        signature = ", ".join(f"i64 %{p}" for p in parameters)
        self.lines = [
            f"declare {self.vector} {self.fma}({self.vector}, {self.vector}, {self.vector})",
            f"define void @entry({signature}) {{",
        ]
        self._count = 0

    def __str__(self) -> str:
        return "\n".join([*self.lines, "  ret void", "}", ""])

    def let(self, text: str) -> str:
        """A fresh name for the value of an instruction."""
        self._count += 1
        self.lines.append(f"  %v{self._count} = {text}")
        return f"%v{self._count}"

    def at(self, base: str, *terms: tuple[str, int]) -> str:
        """A pointer ``base + sum(stride * n)`` bytes away."""
        for stride, n in terms:
            if n:
                base = self.let(f"add i64 {base}, {self.let(f'mul i64 {stride}, {n}')}")
        return self.let(f"inttoptr i64 {base} to ptr")

    def load(self, pointer: str) -> str:
        return self.let(f"load {self.vector}, ptr {pointer}, align 4")

    def store(self, value: str, pointer: str, kind: str = "") -> None:
        self.lines.append(f"  store {kind or self.vector} {value}, ptr {pointer}, align 4")

    def combine(self, terms: list[tuple[Fraction, str]]) -> str:
        """A sum of values with coefficients."""
        terms = sorted(terms, key=lambda t: t[0] != 1)
        coef, total = terms[0]
        if coef != 1:
            total = self.let(f"fmul {self.vector} {total}, {self._splat(coef)}")
        for coef, value in terms[1:]:
            if abs(coef) == 1:
                name = "fadd" if coef > 0 else "fsub"
                total = self.let(f"{name} {self.vector} {total}, {value}")
            else:
                operands = f"{self.vector} {value}, {self.vector} {self._splat(coef)}"
                total = self.let(
                    f"call {self.vector} {self.fma}({operands}, {self.vector} {total})"
                )
        return total

    def _splat(self, value: Fraction) -> str:
        (single,) = struct.unpack("f", struct.pack("f", float(value)))
        (bits,) = struct.unpack("Q", struct.pack("d", single))
        return "<" + ", ".join([f"float 0x{bits:016X}"] * self.lanes) + ">"


def compile_load(lanes: int, *, gradient: bool) -> toolchain.Kernel:
    """`entry(to, from, row, pixel, cell, _, _)`: a tile of pixels to its 36 points.

    Of `lanes` channels each; the strides of rows, pixels and points are in bytes. With `gradient`
    the tile is the 4x4 gradient of results.
    """
    matrix = GRADIENT if gradient else DATA
    return toolchain.compile_ir(lambda: _load(lanes, matrix), f"winograd load 1 {lanes} {gradient}")


def _load(lanes: int, matrix: Matrix) -> str:
    text = _Text(lanes, ("to", "from", "row", "pixel", "cell", "u0", "u1"))
    size = len(matrix[0])
    pixels = [
        [text.load(text.at("%from", ("%row", i), ("%pixel", j))) for j in range(size)]
        for i in range(size)
    ]
    cells = transform(matrix, pixels, text.combine)
    for i, row in enumerate(cells):
        for j, value in enumerate(row):
            text.store(value, text.at("%to", ("%cell", i * SIZE + j)))
    return str(text)


def compile_store(lanes: int) -> toolchain.Kernel:
    """`entry(to, from, cell, channel, row, _, _)`: 36 points to 4x4 pixels of `lanes` channels.

    The strides of points in the source, of channels and of rows in the target are in bytes.
    """
    return toolchain.compile_ir(lambda: _store(lanes), f"winograd store 1 {lanes}")


def _store(lanes: int) -> str:
    text = _Text(lanes, ("to", "from", "cell", "channel", "row", "u0", "u1"))
    cells = [
        [text.load(text.at("%from", ("%cell", i * SIZE + j))) for j in range(SIZE)]
        for i in range(SIZE)
    ]
    pixels = [v for row in transform(RESULT, cells, text.combine) for v in row]
    part = f"<{RESULTS} x float>"
    for first in range(0, len(pixels), lanes):
        for channel, value in enumerate(_transposed(text, pixels[first : first + lanes])):
            for k in range(0, lanes, RESULTS):
                mask = ", ".join(f"i32 {k + n}" for n in range(RESULTS))
                four = text.let(
                    f"shufflevector {text.vector} {value}, {text.vector} undef, "
                    f"<{RESULTS} x i32> <{mask}>"
                )
                row = (first + k) // RESULTS
                text.store(four, text.at("%to", ("%channel", channel), ("%row", row)), part)
    return str(text)


def _transposed(text: _Text, values: list[str]) -> list[str]:
    """A square as wide as a vector; each step exchanges one bit of row and lane numbers."""
    lanes, bit = text.lanes, 1
    while bit < lanes:
        new = []
        for i in range(lanes):
            shift = bit if i & bit else 0
            order = [n + shift if not n & bit else lanes + n - bit + shift for n in range(lanes)]
            mask = ", ".join(f"i32 {n}" for n in order)
            first, second = values[i & ~bit], values[i | bit]
            new.append(
                text.let(
                    f"shufflevector {text.vector} {first}, {text.vector} {second}, "
                    f"<{lanes} x i32> <{mask}>"
                )
            )
        values, bit = new, bit * 2
    return values


def compile_product(lanes: int, rows: int, row: int, step: int, *, adds: bool) -> toolchain.Kernel:
    """`entry(C, A, B, ldc, blocks, length, jump)`: C (+)= A B of `rows` x two vectors.

    Args:
        row, step: bytes in A from one row, and from one term of the sums, to the next.

    The sums have `blocks` times `length` terms, between whose blocks A jumps by `jump` bytes more;
    rows of B are two vectors wide, `ldc` is in bytes.
    """
    key = f"winograd product 1 {lanes} {rows} {row} {step} {adds}"
    return toolchain.compile_ir(lambda: _product(lanes, rows, row, step, adds), key)


def _product(lanes: int, rows: int, row: int, step: int, adds: bool) -> str:
    names = ("C", "A", "B", "ldc", "blocks", "length", "jump")
    text = _Text(lanes, names)
    vector, cells = text.vector, [(i, j) for i in range(rows) for j in range(2)]
    splat = f"<{lanes} x i32> zeroinitializer"
    lines = text.lines
    lines += ["start:", "  br label %outer", "outer:"]
    lines += [
        "  %q = phi i64 [0, %start], [%q1, %next]",
        "  %ao = phi i64 [%A, %start], [%aj, %next]",
        "  %bo = phi i64 [%B, %start], [%b1, %next]",
    ]
    lines += [
        f"  %o{i}_{j} = phi {vector} [zeroinitializer, %start], [%n{i}_{j}, %next]"
        for i, j in cells
    ]
    lines += [
        "  br label %loop",
        "loop:",
        "  %k = phi i64 [0, %outer], [%k1, %loop]",
        "  %a = phi i64 [%ao, %outer], [%a1, %loop]",
        "  %b = phi i64 [%bo, %outer], [%b1, %loop]",
    ]
    lines += [
        f"  %c{i}_{j} = phi {vector} [%o{i}_{j}, %outer], [%n{i}_{j}, %loop]" for i, j in cells
    ]
    right = []
    for j in range(2):
        place = text.let(f"add i64 %b, {j * lanes * 4}")
        right.append(text.load(text.let(f"inttoptr i64 {place} to ptr")))
    for i in range(rows):
        place = text.let(f"add i64 %a, {i * row}")
        pointer = text.let(f"inttoptr i64 {place} to ptr")
        scalar = text.let(f"load float, ptr {pointer}, align 4")
        one = text.let(f"insertelement {vector} undef, float {scalar}, i32 0")
        left = text.let(f"shufflevector {vector} {one}, {vector} undef, {splat}")
        lines += [
            f"  %n{i}_{j} = call {vector} {text.fma}({vector} {left}, {vector} {right[j]}, "
            f"{vector} %c{i}_{j})"
            for j in range(2)
        ]
    lines += [
        "  %k1 = add i64 %k, 1",
        f"  %a1 = add i64 %a, {step}",
        f"  %b1 = add i64 %b, {2 * lanes * 4}",
        "  %more = icmp slt i64 %k1, %length",
        "  br i1 %more, label %loop, label %next",
        "next:",
        "  %q1 = add i64 %q, 1",
        "  %aj = add i64 %a1, %jump",
        "  %again = icmp slt i64 %q1, %blocks",
        "  br i1 %again, label %outer, label %done",
        "done:",
    ]
    for i in range(rows):
        base = text.let(f"add i64 %C, {text.let(f'mul i64 %ldc, {i}')}")
        for j in range(2):
            place = text.let(f"add i64 {base}, {j * lanes * 4}")
            pointer = text.let(f"inttoptr i64 {place} to ptr")
            value = f"%n{i}_{j}"
            if adds:
                value = text.let(f"fadd {vector} {text.load(pointer)}, {value}")
            text.store(value, pointer)
    return str(text)
