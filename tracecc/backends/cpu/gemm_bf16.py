"""Packing of bfloat16 operands for the tile that multiplies pairs: two numbers along k a word.

Panels are those of `gemm`, of words in place of numbers. Where k is contiguous, words lie in memory
as they are packed; where rows or columns are, two of them are interleaved.
"""

from __future__ import annotations

from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.microkernel import Tile, compile_turn
from tracecc.backends.schedule_types import Argument, Ref, Stage

# As in `gemm`, but k counts numbers. `move` packs the whole words of each k // inner, of which
# there is one if inner is odd; words before `done` are packed.
_PACK_A = """
def pack_a(args, begin, end, scratch):
    x = bf16_ptr(args, 0)
    o = u32_ptr(args, 1)
    m = i64_arg(args, 2)
    k = i64_arg(args, 3)
    rs = i64_arg(args, 4)
    inner = i64_arg(args, 5)
    ks = i64_arg(args, 6)
    ki = i64_arg(args, 7)
    z_inner = i64_arg(args, 8)
    zs = i64_arg(args, 9)
    zi = i64_arg(args, 10)
    mr = i64_arg(args, 11)
    panels = (m + mr - 1) // mr
    depth = (k + 1) // 2
    whole = inner // 2
    for u in range(begin, end):
        z = u // panels
        i0 = (u % panels) * mr
        base = (z // z_inner) * zs + (z % z_inner) * zi + i0 * rs
        rows = minimum(m - i0, mr)
        move = i64_arg(args, 12 if rows == mr else 13)
        to = u * depth * mr
        done = 0
        if move != 0:
            for outer in range(k // inner):
                d = i64_arg(args, 1) + (to + done * mr) * 4
                s = i64_arg(args, 0) + (base + outer * ks) * 2
                if ki == 1:
                    for q in range(0, whole, {lanes}):
                        # The last square overlaps the one before.
                        q0 = minimum(q, whole - {lanes})
                        call_epilogue(move, d + q0 * mr * 4, s + q0 * 4, 0, mr * 4, rs * 2, 0, 0)
                else:
                    call_epilogue(move, d, s, whole, mr * 4, ki * 2, 0, 0)
                done += whole
        for q in range(done, depth):
            low = base + 2 * q // inner * ks + 2 * q % inner * ki
            if 2 * q + 1 < k:
                high = base + (2 * q + 1) // inner * ks + (2 * q + 1) % inner * ki
                for i in range(rows):
                    o[to + q * mr + i] = pair(x[low + i * rs], x[high + i * rs])
            else:
                for i in range(rows):
                    o[to + q * mr + i] = u32(x[low + i * rs])
        if rows < mr:
            for q in range(depth):
                for i in range(rows, mr):
                    o[to + q * mr + i] = u32(0)
"""

# As in `gemm`: k0, kc and inner count words, k numbers. Only an odd k ends in half a word.
_PACK_B = """
def pack_b(args, z, block, to):
    k0 = i64_arg(block, 0)
    kc = i64_arg(block, 1)
    j0 = i64_arg(block, 2)
    nc = i64_arg(block, 3)
    x = bf16_ptr(args, 0)
    o = u32_at(to)
    inner = i64_arg(args, 1)
    outer = i64_arg(args, 2)
    ks = i64_arg(args, 3)
    cs = i64_arg(args, 4)
    z_inner = i64_arg(args, 5)
    zs = i64_arg(args, 6)
    zi = i64_arg(args, 7)
    move = i64_arg(args, 8)
    words = i64_arg(args, 9) // 2
    base = (z // z_inner) * zs + (z % z_inner) * zi + j0 * cs
    done = 0
    while done < kc:
        k = k0 + done
        rows = minimum(kc - done, inner - k % inner)
        whole = minimum(rows, words - k)
        start = base + k // inner * outer + 2 * (k % inner) * ks
        for p in range(0, nc, {nr}):
            d = p * kc + done * {nr}
            cols = minimum(nc - p, {nr})
            at = start + p * cs
            s = i64_arg(args, 0) + at * 2
            if cols == {nr} and move != 0 and cs == 1:
                call_epilogue(move, to + d * 4, s, whole, {nr} * 4, ks * 2, 0, 0)
            elif cols == {nr} and move != 0 and whole >= {lanes}:
                for q in range(0, whole, {lanes}):
                    q0 = minimum(q, whole - {lanes})
                    d0 = to + (d + q0 * {nr}) * 4
                    call_epilogue(move, d0, s + q0 * 4, 0, {nr} * 4, cs * 2, 0, 0)
            else:
                for q in range(whole):
                    for j in range(cols):
                        low = at + 2 * q * ks + j * cs
                        o[d + q * {nr} + j] = pair(x[low], x[low + ks])
            for q in range(whole, rows):
                for j in range(cols):
                    o[d + q * {nr} + j] = u32(x[at + 2 * q * ks + j * cs])
            for q in range(rows):
                for j in range(cols, {nr}):
                    o[d + q * {nr} + j] = u32(0)
        done += rows
"""


def pack_a_stage(
    shape: Tile,
    source: Ref,
    temp: int,
    count: int,
    m: int,
    k: int,
    row_stride: int,
    k_strides: tuple[int, int, int],
    z_strides: tuple[int, int, int],
) -> Stage:
    """Packs `count` left operands [m, k] into temporary `temp`; see `gemm.pack_a_stage`."""
    text = _PACK_A.format(lanes=shape.lanes)
    kernel = toolchain.compile_kernel(text, "pack_a", independent=True)
    panels = -(-m // shape.mr)
    inner, outer_stride, inner_stride = k_strides
    args: list[Argument] = [source, Ref("temp", temp), m, k, row_stride]
    args += [max(inner, 1), outer_stride, inner_stride, *z_strides, shape.mr]
    for rows in (shape.mr, m - (panels - 1) * shape.mr):
        move: Argument = 0
        if inner == k or inner % 2 == 0:
            if inner_stride == 1 and inner // 2 >= shape.lanes:
                move = compile_turn(shape, rows)
            elif row_stride == 1 and inner_stride != 1:
                move = compile_interleave(rows)
        args.append(move)
    grain = max(1, (1 << 14) // max(1, shape.depth(k) * shape.mr))
    return Stage(kernel, args, count * panels, grain, bytes=4 * count * m * k)


def pack_b_stage(
    shape: Tile,
    source: Ref,
    k: int,
    k_strides: tuple[int, int, int],
    column_stride: int,
    z_strides: tuple[int, int, int],
) -> Stage:
    """The packing function of right operands [k, n] with its arguments; it is not launched.

    The inner extent of k has to be even, or all of k.
    """
    inner, outer_stride, row_stride = k_strides
    text = _PACK_B.format(lanes=shape.lanes, nr=shape.nr)
    kernel = toolchain.compile_kernel(text, "pack_b", independent=True)
    move: Argument = 0
    if column_stride == 1:
        move = compile_interleave(shape.nr)
    elif row_stride == 1:
        move = compile_turn(shape, shape.nr)
    runs = shape.depth(inner), outer_stride, row_stride
    return Stage(kernel, [source, *runs, column_stride, *z_strides, move, k], 0)


def compile_interleave(columns: int) -> toolchain.Kernel:
    """`entry(to, from, words, to stride, from stride, _, _)` in bytes: two rows make one of words.

    Rows have `columns` numbers.
    """
    return toolchain.compile_ir(lambda: _interleave(columns), f"interleave 1 {columns}")


def _interleave(columns: int) -> str:
    half, whole = f"<{columns} x i16>", f"<{columns} x i32>"
    shift = ", ".join(["i32 16"] * columns)
    return f"""
define void @entry(i64 %to, i64 %from, i64 %words, i64 %ts, i64 %fs, i64 %u1, i64 %u2) {{
start:
  %some = icmp sgt i64 %words, 0
  br i1 %some, label %loop, label %done
loop:
  %left = phi i64 [ %words, %start ], [ %less, %loop ]
  %t = phi i64 [ %to, %start ], [ %t1, %loop ]
  %f = phi i64 [ %from, %start ], [ %f2, %loop ]
  %f1 = add i64 %f, %fs
  %f2 = add i64 %f1, %fs
  %tp = inttoptr i64 %t to ptr
  %lowp = inttoptr i64 %f to ptr
  %highp = inttoptr i64 %f1 to ptr
  %low = load {half}, ptr %lowp, align 2
  %high = load {half}, ptr %highp, align 2
  %loww = zext {half} %low to {whole}
  %highw = zext {half} %high to {whole}
  %shifted = shl {whole} %highw, <{shift}>
  %word = or {whole} %loww, %shifted
  store {whole} %word, ptr %tp, align 4
  %t1 = add i64 %t, %ts
  %less = sub i64 %left, 1
  %more = icmp sgt i64 %less, 0
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""
