"""Matrix products: the stages that pack operands and multiply blocks with the register tile.

A is packed once into panels [K, MR]. A work unit owns a block of C: it packs its panels of B, KC
rows at a time, into its scratch, through a packing function called by address (convolutions bring
their own). Units never share sums, so any split over threads gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.blocking import Blocking, blocking
from tracecc.backends.cpu.microkernel import Tile, compile_copy, compile_tile, compile_turn, tile
from tracecc.backends.cpu.target import target
from tracecc.backends.schedule_types import Argument, Ref, Stage

KC = 256
NB = 128
PIECE = 2  # Panels whose results an epilogue finishes while they are near.
KINDS = {"f32": "f32", "f64": "f64", "f16": "f32", "bf16": "f32"}

# Units are panels of mr rows of one product z. k = (k / inner, k % inner) has two strides, and so
# has z: operands with split dimensions need no copy. `move` turns or copies whole vectors.
_PACK_A = """
def pack_a(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    o = {kind}_ptr(args, 1)
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
    for u in range(begin, end):
        z = u // panels
        i0 = (u % panels) * mr
        base = (z // z_inner) * zs + (z % z_inner) * zi + i0 * rs
        rows = minimum(m - i0, mr)
        move = i64_arg(args, 12 if rows == mr else 13)
        to = u * k * mr
        for outer in range(k // inner):
            at = base + outer * ks
            d = i64_arg(args, 1) + to * {size}
            s = i64_arg(args, 0) + at * {size}
            if move != 0 and ki == 1:
                for j in range(0, inner, {lanes}):
                    # The last square overlaps the one before.
                    j0 = minimum(j, inner - {lanes})
                    d0 = d + j0 * mr * {size}
                    call_epilogue(move, d0, s + j0 * {size}, 0, mr * {size}, rs * {size}, 0, 0)
            elif move != 0:
                call_epilogue(move, d, s, inner, mr * {size}, ki * {size}, 0, 0)
            else:
                for j in range(inner):
                    for i in range(rows):
                        o[to + j * mr + i] = {load}(x[at + i * rs + j * ki])
            if rows < mr:
                for j in range(inner):
                    for i in range(rows, mr):
                        o[to + j * mr + i] = {kind}(0)
            to += inner * mr
"""

# A packing function is called by address; `block` is the address of k0, kc, j0, nc. Rows are packed
# in runs that one stride of k describes.
_PACK_B = """
def pack_b(args, z, block, to):
    k0 = i64_arg(block, 0)
    kc = i64_arg(block, 1)
    j0 = i64_arg(block, 2)
    nc = i64_arg(block, 3)
    x = {storage}_ptr(args, 0)
    o = {kind}_at(to)
    inner = i64_arg(args, 1)
    outer = i64_arg(args, 2)
    ks = i64_arg(args, 3)
    cs = i64_arg(args, 4)
    z_inner = i64_arg(args, 5)
    zs = i64_arg(args, 6)
    zi = i64_arg(args, 7)
    move = i64_arg(args, 8)
    base = (z // z_inner) * zs + (z % z_inner) * zi + j0 * cs
    done = 0
    while done < kc:
        k = k0 + done
        rows = minimum(kc - done, inner - k % inner)
        start = base + k // inner * outer + k % inner * ks
        for p in range(0, nc, {nr}):
            d = p * kc + done * {nr}
            cols = minimum(nc - p, {nr})
            at = start + p * cs
            s = i64_arg(args, 0) + at * {size}
            if cols == {nr} and move != 0 and cs == 1:
                call_epilogue(move, to + d * {size}, s, rows, {nr} * {size}, ks * {size}, 0, 0)
            elif cols == {nr} and cs == 1:
                for q in range(rows):
                    for j in range({nr}):
                        o[d + q * {nr} + j] = {load}(x[at + q * ks + j])
            elif cols == {nr} and move != 0 and rows >= {lanes}:
                for q in range(0, rows, {lanes}):
                    q0 = minimum(q, rows - {lanes})
                    d0 = to + (d + q0 * {nr}) * {size}
                    call_epilogue(move, d0, s + q0 * {size}, 0, {nr} * {size}, cs * {size}, 0, 0)
            elif ks == 1:
                for j in range(cols):
                    for q in range(rows):
                        o[d + q * {nr} + j] = {load}(x[at + j * cs + q])
            else:
                for q in range(rows):
                    for j in range(cols):
                        o[d + q * {nr} + j] = {load}(x[at + q * ks + j * cs])
            for q in range(rows):
                for j in range(cols, {nr}):
                    o[d + q * {nr} + j] = {kind}(0)
        done += rows
"""

# Units are blocks of mb rows and nb columns of one product. Where `b` is the address of B, whole
# panels of it are read there, of rows ks and of columns js apart; the rest is packed first.
_COMPUTE = """
def gemm(args, begin, end, scratch):
    a = i64_arg(args, 0)
    pack = i64_arg(args, 1)
    pack_args = i64_arg(args, 2)
    c = i64_arg(args, 3)
    c_ptr = {storage}_ptr(args, 3)
    epilogue = i64_arg(args, 4)
    epilogue_args = i64_arg(args, 5)
    micro = i64_arg(args, 6)
    m = i64_arg(args, 7)
    n = i64_arg(args, 8)
    k = i64_arg(args, 9)
    mb = i64_arg(args, 10)
    row_blocks = i64_arg(args, 11)
    col_blocks = i64_arg(args, 12)
    a_count = i64_arg(args, 13)
    mr = i64_arg(args, 14)
    b = i64_arg(args, 15)
    ks = i64_arg(args, 16) * {size}
    z_inner = i64_arg(args, 17)
    zs = i64_arg(args, 18)
    zi = i64_arg(args, 19)
    js = i64_arg(args, 20)
    nb = i64_arg(args, 21)
    pack_a = i64_arg(args, 22)
    pack_a_args = i64_arg(args, 23)
    panels = (m + mr - 1) // mr
    block = i64_at(scratch)
    packed = scratch + 64
    sums = packed + {kc} * nb * {size}
    t = {kind}_at(sums)
    direct = epilogue == 0 and {direct}
    piece = mb if epilogue == 0 else {piece} * mr
    for u in range(begin, end):
        z = u // (row_blocks * col_blocks)
        i0 = u // col_blocks % row_blocks * mb
        j0 = u % col_blocks * nb
        rows = minimum(mb, m - i0)
        cols = minimum(nb, n - j0)
        in_place = 0
        if b != 0:
            in_place = cols // {nr} * {nr} if js == 1 else cols
        b_at = b + ((z // z_inner) * zs + (z % z_inner) * zi + j0 * js) * {size}
        a_at = a + ((z % a_count) * panels + i0 // mr) * k * mr * {size}
        c_at = (z * m + i0) * n + j0
        if pack_a != 0:
            first = z * panels + i0 // mr
            call_kernel(pack_a, pack_a_args, first, first + (rows + mr - 1) // mr, scratch)
        for k0 in range(0, maximum(k, 1), {kc}):
            kc = minimum({kc}, k - k0)
            if in_place < cols:
                block[0] = k0
                block[1] = kc
                block[2] = j0 + in_place
                block[3] = cols - in_place
                call_kernel(pack, pack_args, z, scratch, packed)
            for r0 in range(0, rows, piece):
                r1 = minimum(r0 + piece, rows)
                for j in range(0, cols, {nr}):
                    here = j < in_place
                    right = packed + (j - in_place) * kc * {size}
                    if here:
                        right = b_at + k0 * ks + j * js * {size}
                    step = ks if here else {nr} * {size}
                    for i in range(r0, r1, mr):
                        left = a_at + (i * k + k0 * mr) * {size}
                        if direct and i + mr <= rows and j + {nr} <= cols:
                            to = c + (c_at + i * n + j) * {size}
                            call_epilogue(micro, kc, left, right, to, n, k0, step)
                        else:
                            to = sums + (i * nb + j) * {size}
                            call_epilogue(micro, kc, left, right, to, nb, k0, step)
                if epilogue != 0 and k0 + {kc} >= k:
                    at = sums + r0 * nb * {size}
                    row = z * m + i0 + r0
                    call_epilogue(epilogue, epilogue_args, at, nb, row, r1 - r0, j0, cols)
        if epilogue == 0:
            full_rows = rows // mr * mr
            full_cols = cols // {nr} * {nr}
            for i in range(rows):
                first = full_cols if direct and i < full_rows else 0
                for j in range(first, cols):
                    c_ptr[c_at + i * n + j] = {store}(t[i * nb + j])
"""

# Units are panels of nr columns of one product, packed whole by the packing function.
_PACK_PANELS = """
def pack_panels(args, begin, end, scratch):
    pack = i64_arg(args, 0)
    pack_args = i64_arg(args, 1)
    to = i64_arg(args, 2)
    n = i64_arg(args, 3)
    k = i64_arg(args, 4)
    panels = (n + {nr} - 1) // {nr}
    block = i64_at(scratch)
    for u in range(begin, end):
        j0 = u % panels * {nr}
        block[0] = 0
        block[1] = k
        block[2] = j0
        block[3] = minimum(n - j0, {nr})
        call_kernel(pack, pack_args, u // panels, scratch, to + u * k * {nr} * {size})
"""


@dataclass(frozen=True)
class Right:
    """How units read B; by default they only can pack it.

    Attributes:
        kind: whether its rows are contiguous, or it is packed in panels [products, n / NR, K, NR].
        at: its address.
        row_stride: elements from a row of a panel to the next.
        column_stride: a panel begins so many elements times its first column after B.
        z_strides: (inner extent, stride of z // inner, of z % inner) of the product's number z.
    """

    kind: Literal["rows", "strided", "packed"] = "strided"
    at: Argument = 0
    row_stride: int = 0
    column_stride: int = 1
    z_strides: tuple[int, int, int] = (1, 0, 0)


def load_name(dtype: str) -> str:
    """The conversion from storage to the accumulator's type."""
    return f"f32_from_{dtype}" if dtype in ("f16", "bf16") else dtype


def store_name(dtype: str) -> str:
    """The conversion from the accumulator's type to storage."""
    return f"{dtype}_from_f32" if dtype in ("f16", "bf16") else dtype


def names(dtype: str, shape: Tile) -> dict[str, object]:
    """What the templates are filled with."""
    return {
        "storage": dtype,
        "kind": shape.kind,
        "load": load_name(dtype),
        "store": store_name(dtype),
        "direct": dtype == shape.kind,
        "mr": shape.mr,
        "nr": shape.nr,
        "lanes": shape.lanes,
        "size": shape.itemsize,
        "kc": KC,
        "piece": PIECE,
    }


def tile_of(dtype: str) -> Tile:
    """The register tile of products of numbers of a dtype."""
    shape = tile(KINDS[dtype])
    return replace(shape, pairs=True) if dtype == "bf16" and target().dots else shape


def pack_a_stage(
    dtype: str,
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
    """Packs `count` left operands [m, k] into temporary `temp`.

    Args:
        shape: of the tile, without pairs; its rows are those of a panel.
        k_strides: (inner extent, stride of k // inner, stride of k % inner).
        z_strides: the same of the product's number.
    """
    kernel = toolchain.compile_kernel(
        _PACK_A.format(**names(dtype, shape)), "pack_a", independent=True
    )
    panels = -(-m // shape.mr)
    inner, outer_stride, inner_stride = k_strides
    args: list[Argument] = [source, Ref("temp", temp), m, k, row_stride]
    args += [max(inner, 1), outer_stride, inner_stride, *z_strides, shape.mr]
    for rows in (shape.mr, m - (panels - 1) * shape.mr):
        move: Argument = 0
        if dtype == shape.kind and inner_stride == 1 and inner >= shape.lanes:
            move = compile_turn(shape, rows)
        elif dtype == shape.kind and row_stride == 1 and inner_stride != 1:
            move = compile_copy(shape, rows)
        args.append(move)
    grain = max(1, (1 << 14) // max(1, k * shape.mr))
    return Stage(kernel, args, count * panels, grain, bytes=2 * count * m * k * shape.itemsize)


def even(shape: Tile, m: int) -> Tile:
    """The tile with the height that divides m rows most evenly."""
    panels = max(1, -(-m // shape.mr))
    return replace(shape, mr=-(-m // panels) or 1)


def packed_bytes(shape: Tile, count: int, m: int, k: int) -> int:
    """The size of packed left operands whose rows have k elements."""
    return max(64, count * -(-m // shape.mr) * shape.mr * k * shape.itemsize)


def compute_stage(
    stored: str,
    shape: Tile,
    packer: int,
    pack: Argument,
    products: int,
    a_count: int,
    m: int,
    n: int,
    k: int,
    right: Right = Right(),
    cut: Blocking | None = None,
    pack_left: Argument = 0,
) -> Stage:
    """The product of packed A (temporary 0) with B from a packing function.

    Args:
        stored: the dtype of the result in memory.
        shape: of the tile; its rows are those of a panel of packed A.
        packer: the number of the stage that carries the packing function's arguments.
        pack: the packing function.
        products: how many; product z uses left operand z % a_count.
        k: the elements of rows of A that are summed.
        right: B, where units can do without packing it.
        cut: the units; by default those of the `blocking` of these sizes.
        pack_left: A's packing function, whose arguments stage 0 of the plan carries,
            if units are to pack their own rows of A; each must own all columns.
    """
    kernel = toolchain.compile_kernel(_COMPUTE.format(**names(stored, shape)), "gemm")
    cut = cut or blocking(products, m, n, k, shape.mr, right.kind)
    args: list[Argument] = [Ref("temp", 0), pack, Ref("args", packer), Ref("output")]
    args += [Ref("epilogue"), Ref("epilogue_args"), compile_tile(shape), m, n, k]
    args += [cut.rows, cut.row_blocks, cut.column_blocks, max(a_count, 1), shape.mr]
    args += [0 if cut.packs else right.at, right.row_stride, *right.z_strides]
    args += [right.column_stride, cut.columns, pack_left, Ref("args", 0)]
    work = 2 * min(m, cut.rows) * min(n, cut.columns) * k
    return Stage(
        kernel,
        args,
        products * cut.row_blocks * cut.column_blocks,
        max(1, (1 << 20) // max(1, work)),
        scratch=64 + (KC + cut.rows) * cut.columns * shape.itemsize,
        flops=2 * products * m * n * k * shape.numbers,
        bytes=products * (m * k + k * n + m * n) * shape.itemsize,
    )


def pack_b_stage(
    dtype: str,
    source: Ref,
    k_strides: tuple[int, int, int],
    column_stride: int,
    z_strides: tuple[int, int, int],
) -> Stage:
    """The packing function of right operands [k, n] with its arguments; it is not launched.

    Strides are as in `pack_a_stage`.
    """
    shape = tile(KINDS[dtype])
    text = _PACK_B.format(**names(dtype, shape))
    kernel = toolchain.compile_kernel(text, "pack_b", independent=True)
    move: Argument = 0
    if dtype == shape.kind and column_stride == 1:
        move = compile_copy(shape, shape.nr)
    elif dtype == shape.kind and k_strides[2] == 1:
        move = compile_turn(shape, shape.nr)
    return Stage(kernel, [source, *k_strides, column_stride, *z_strides, move], 0)


def pack_panels_stage(
    shape: Tile, packer: Stage, number: int, to: Ref, products: int, n: int, k: int
) -> Stage:
    """Packs right operands, whose columns have k elements, by ``packer``, stage ``number``."""
    kernel = toolchain.compile_kernel(
        _PACK_PANELS.format(nr=shape.nr, size=shape.itemsize), "pack_panels"
    )
    moved = packed_columns_bytes(shape, products, n, k)
    args: list[Argument] = [packer.kernel, Ref("args", number), to, n, k]
    grain = max(1, (1 << 14) // max(1, k * shape.nr))
    return Stage(kernel, args, products * -(-n // shape.nr), grain, scratch=64, bytes=2 * moved)


def packed_columns_bytes(shape: Tile, products: int, n: int, k: int) -> int:
    """The size of right operands packed whole, whose columns have k elements."""
    return max(64, products * -(-n // shape.nr) * shape.nr * k * shape.itemsize)
