"""Matrix products: packing, cache blocking and the plan of dot_general over the register tile.

A is packed once into panels [K, MR]. A work unit owns a block of C: it packs its panels of B, KC
rows at a time, into its scratch, through a packing function called by address (convolutions bring
their own). Units never share sums, so any split over threads gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.microkernel import Tile, compile_copy, compile_tile, compile_turn, tile
from tracecc.backends.schedule_types import Plan, Ref, Stage
from tracecc_ir.graph import Node

KC = 256
NB = 128
MAX_ROWS = 504
PIECE = 2  # Panels whose results an epilogue finishes while they are near.
IN_PLACE = 4  # B is read where it lies by blocks of at most so many panels.
BLOCK = 256  # Columns of a unit of a product with one row.
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

# A packing function is called by address; `block` is the address of k0, kc, j0, nc.
_PACK_B = """
def pack_b(args, z, block, to):
    k0 = i64_arg(block, 0)
    kc = i64_arg(block, 1)
    j0 = i64_arg(block, 2)
    nc = i64_arg(block, 3)
    x = {storage}_ptr(args, 0)
    o = {kind}_at(to)
    ks = i64_arg(args, 1)
    cs = i64_arg(args, 2)
    z_inner = i64_arg(args, 3)
    zs = i64_arg(args, 4)
    zi = i64_arg(args, 5)
    move = i64_arg(args, 6)
    base = (z // z_inner) * zs + (z % z_inner) * zi + k0 * ks + j0 * cs
    for p in range(0, nc, {nr}):
        d = p * kc
        cols = minimum(nc - p, {nr})
        at = base + p * cs
        s = i64_arg(args, 0) + at * {size}
        if cols == {nr} and move != 0 and cs == 1:
            call_epilogue(move, to + d * {size}, s, kc, {nr} * {size}, ks * {size}, 0, 0)
        elif cols == {nr} and cs == 1:
            for k in range(kc):
                for j in range({nr}):
                    o[d + k * {nr} + j] = {load}(x[at + k * ks + j])
        elif cols == {nr} and move != 0 and kc >= {lanes}:
            for k in range(0, kc, {lanes}):
                k1 = minimum(k, kc - {lanes})
                d1 = to + (d + k1 * {nr}) * {size}
                call_epilogue(move, d1, s + k1 * {size}, 0, {nr} * {size}, cs * {size}, 0, 0)
        elif ks == 1:
            for j in range(cols):
                for k in range(kc):
                    o[d + k * {nr} + j] = {load}(x[at + j * cs + k])
        else:
            for k in range(kc):
                for j in range(cols):
                    o[d + k * {nr} + j] = {load}(x[at + k * ks + j * cs])
        for k in range(kc):
            for j in range(cols, {nr}):
                o[d + k * {nr} + j] = {kind}(0)
"""

# B's whole panels are read in place where `b` is its address, else from packed memory.
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
    panels = (m + mr - 1) // mr
    block = i64_at(scratch)
    packed = scratch + 64
    sums = packed + {kc} * {nb} * {size}
    t = {kind}_at(sums)
    direct = epilogue == 0 and {direct}
    piece = mb if epilogue == 0 else {piece} * mr
    for u in range(begin, end):
        z = u // (row_blocks * col_blocks)
        i0 = u // col_blocks % row_blocks * mb
        j0 = u % col_blocks * {nb}
        rows = minimum(mb, m - i0)
        cols = minimum({nb}, n - j0)
        in_place = cols // {nr} * {nr} if b != 0 else 0
        b_at = b + ((z // z_inner) * zs + (z % z_inner) * zi + j0) * {size}
        a_at = a + ((z % a_count) * panels + i0 // mr) * k * mr * {size}
        c_at = (z * m + i0) * n + j0
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
                        right = b_at + k0 * ks + j * {size}
                    step = ks if here else {nr} * {size}
                    for i in range(r0, r1, mr):
                        left = a_at + (i * k + k0 * mr) * {size}
                        if direct and i + mr <= rows and j + {nr} <= cols:
                            to = c + (c_at + i * n + j) * {size}
                            call_epilogue(micro, kc, left, right, to, n, k0, step)
                        else:
                            to = sums + (i * {nb} + j) * {size}
                            call_epilogue(micro, kc, left, right, to, {nb}, k0, step)
                if epilogue != 0 and k0 + {kc} >= k:
                    at = sums + r0 * {nb} * {size}
                    row = z * m + i0 + r0
                    call_epilogue(epilogue, epilogue_args, at, {nb}, row, r1 - r0, j0, cols)
        if epilogue == 0:
            full_rows = rows // mr * mr
            full_cols = cols // {nr} * {nr}
            for i in range(rows):
                first = full_cols if direct and i < full_rows else 0
                for j in range(first, cols):
                    c_ptr[c_at + i * n + j] = {store}(t[i * {nb} + j])
"""

# One row times a matrix, read once and in order: four rows at a time where rows are contiguous,
# else as sums along k. Units are blocks of columns of one product z.
_ROW = """
def row(args, begin, end, scratch):
    x = {storage}_ptr(args, 0)
    y = {storage}_ptr(args, 1)
    o = {storage}_ptr(args, 2)
    epilogue = i64_arg(args, 3)
    n = i64_arg(args, 5)
    k = i64_arg(args, 6)
    step = i64_arg(args, 7)
    ks = i64_arg(args, 8)
    cs = i64_arg(args, 9)
    blocks = (n + {block} - 1) // {block}
    t = {kind}_at(scratch)
    for u in range(begin, end):
        z = u // blocks
        j0 = u % blocks * {block}
        cols = minimum({block}, n - j0)
        inner = i64_arg(args, 10)
        left = z // inner * i64_arg(args, 11) + z % inner * i64_arg(args, 12)
        inner = i64_arg(args, 13)
        right = z // inner * i64_arg(args, 14) + z % inner * i64_arg(args, 15) + j0 * cs
        if cs == 1:
            for j in range(cols):
                t[j] = {kind}(0)
            whole = k // 4 * 4
            for q in range(0, whole, 4):
                x0 = {load}(x[left + q * step])
                x1 = {load}(x[left + (q + 1) * step])
                x2 = {load}(x[left + (q + 2) * step])
                x3 = {load}(x[left + (q + 3) * step])
                at = right + q * ks
                for j in range(cols):
                    total = add(t[j], mul(x0, {load}(y[at + j])))
                    total = add(total, mul(x1, {load}(y[at + ks + j])))
                    total = add(total, mul(x2, {load}(y[at + 2 * ks + j])))
                    t[j] = add(total, mul(x3, {load}(y[at + 3 * ks + j])))
            for q in range(whole, k):
                x0 = {load}(x[left + q * step])
                at = right + q * ks
                for j in range(cols):
                    t[j] = add(t[j], mul(x0, {load}(y[at + j])))
        else:
            for j in range(cols):
                at = right + j * cs
                total = {kind}(0)
                if step == 1 and ks == 1:
                    for q in range(k):
                        total = add_fast(total, mul({load}(x[left + q]), {load}(y[at + q])))
                else:
                    for q in range(k):
                        a = {load}(x[left + q * step])
                        total = add_fast(total, mul(a, {load}(y[at + q * ks])))
                t[j] = total
        if epilogue != 0 and i64_arg(args, 16) != 0:
            call_epilogue(epilogue, i64_arg(args, 4), scratch, 1, z * n + j0, cols, 0, 1)
        elif epilogue != 0:
            call_epilogue(epilogue, i64_arg(args, 4), scratch, {block}, z, 1, j0, cols)
        else:
            for j in range(cols):
                o[z * n + j0 + j] = {store}(t[j])
"""


def load_name(dtype: str) -> str:
    """The conversion from storage to the accumulator's type."""
    return f"f32_from_{dtype}" if dtype in ("f16", "bf16") else dtype


def names(dtype: str, shape: Tile) -> dict[str, object]:
    """What the templates are filled with."""
    half = dtype in ("f16", "bf16")
    return {
        "storage": dtype,
        "kind": shape.kind,
        "load": load_name(dtype),
        "store": f"{dtype}_from_f32" if half else dtype,
        "direct": not half,
        "mr": shape.mr,
        "nr": shape.nr,
        "lanes": shape.lanes,
        "size": shape.itemsize,
        "kc": KC,
        "nb": NB,
        "piece": PIECE,
    }


def pack_a_stage(
    dtype: str,
    source: Ref,
    temp: int,
    count: int,
    m: int,
    k: int,
    row_stride: int,
    k_strides: tuple[int, int, int],
    z_strides: tuple[int, int, int],
    mr: int | None = None,
) -> Stage:
    """Packs `count` left operands [m, k] into temporary `temp`.

    Args:
        k_strides: (inner extent, stride of k // inner, stride of k % inner).
        z_strides: the same of the product's number.
        mr: the rows of a panel, the target's by default.
    """
    shape = _shape(dtype, mr)
    kernel = toolchain.compile_kernel(
        _PACK_A.format(**names(dtype, shape)), "pack_a", independent=True
    )
    panels = -(-m // shape.mr)
    inner, outer_stride, inner_stride = k_strides
    args: list[Ref | int] = [source, Ref("temp", temp), m, k, row_stride]
    args += [max(inner, 1), outer_stride, inner_stride, *z_strides, shape.mr]
    for rows in (shape.mr, m - (panels - 1) * shape.mr):
        move = 0
        if dtype == shape.kind and inner_stride == 1 and inner >= shape.lanes:
            move = compile_turn(shape, rows).address
        elif dtype == shape.kind and row_stride == 1 and inner_stride != 1:
            move = compile_copy(shape, rows).address
        args.append(move)
    grain = max(1, (1 << 14) // max(1, k * shape.mr))
    return Stage(kernel, args, count * panels, grain, bytes=2 * count * m * k * shape.itemsize)


def _shape(dtype: str, mr: int | None) -> Tile:
    shape = tile(KINDS[dtype])
    return replace(shape, mr=mr) if mr else shape


def rows_of_panels(dtype: str, m: int) -> int:
    """The height of panels that divides m rows most evenly."""
    most = tile(KINDS[dtype]).mr
    return -(-m // max(1, -(-m // most))) or 1


def packed_bytes(dtype: str, count: int, m: int, k: int, mr: int | None = None) -> int:
    """The size of the packed left operands."""
    shape = _shape(dtype, mr)
    return max(64, count * -(-m // shape.mr) * shape.mr * k * shape.itemsize)


def compute_stage(
    dtype: str,
    packer: int,
    address: int,
    products: int,
    a_count: int,
    m: int,
    n: int,
    k: int,
    mr: int | None = None,
    rows_of_b: tuple[Ref | int, ...] | None = None,
) -> Stage:
    """The product of packed A (temporary 0) with B from a packing function.

    Args:
        packer: the number of the stage that carries the packing function's arguments.
        address: of the packing function.
        products: how many; product z uses left operand z % a_count.
        mr: the rows of a panel of packed A, the target's by default.
        rows_of_b: where B's rows are contiguous, its address and strides of rows and products.
    """
    shape = _shape(dtype, mr)
    kernel = toolchain.compile_kernel(_COMPUTE.format(**names(dtype, shape)), "gemm")
    col_blocks = -(-n // NB)
    blocks = -(-m // MAX_ROWS)
    # Enough units for several threads, fixed by the shape alone.
    if products * col_blocks * blocks < 8 and m * n * k > 1 << 20:
        blocks = max(blocks, min(-(-m // (2 * shape.mr)), -(-8 // max(1, products * col_blocks))))
    mb = -(-max(m, 1) // max(blocks, 1) // shape.mr) * shape.mr
    mb = max(mb, shape.mr)
    while mb * max(blocks, 1) < m:
        mb += shape.mr
    blocks = -(-m // mb)
    args: list[Ref | int] = [Ref("temp", 0), address, Ref("args", packer), Ref("output")]
    args += [Ref("epilogue"), Ref("epilogue_args"), compile_tile(shape).address]
    args += [m, n, k, mb, blocks, col_blocks, max(a_count, 1), shape.mr]
    in_place = rows_of_b is not None and dtype == shape.kind and mb <= IN_PLACE * shape.mr
    args += rows_of_b if rows_of_b is not None and in_place else (0, 0, 1, 0, 0)
    units = products * blocks * col_blocks
    work = 2 * min(m, mb) * min(n, NB) * k
    return Stage(
        kernel,
        args,
        units,
        max(1, (1 << 20) // max(1, work)),
        scratch=64 + (KC * NB + mb * NB) * shape.itemsize,
        flops=2 * products * m * n * k,
        bytes=products * (m * k + k * n + m * n) * shape.itemsize,
    )


def compile_packer(source: str, entry: str, dtype: str) -> toolchain.Kernel:
    """A packing function `(args, z, address of k0, kc, j0 and nc, destination)`."""
    text = source.format(**names(dtype, tile(KINDS[dtype])))
    return toolchain.compile_kernel(text, entry, independent=True)


def _merged(
    shape: Sequence[int], strides: Sequence[int], dims: Sequence[int]
) -> list[tuple[int, int]]:
    """Dims in order as few (extent, stride) pairs as their strides allow."""
    pairs: list[tuple[int, int]] = []
    for d in dims:
        if shape[d] == 1:
            continue
        if pairs and pairs[-1][1] == shape[d] * strides[d]:
            pairs[-1] = (pairs[-1][0] * shape[d], strides[d])
        else:
            pairs.append((shape[d], strides[d]))
    return pairs or [(1, 0)]


def _row_major(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[d + 1 :]) for d in range(len(shape))]


def _two(pairs: list[tuple[int, int]]) -> tuple[int, int, int]:
    """(inner extent, outer stride, inner stride) of at most two pairs."""
    if len(pairs) == 1:
        return max(pairs[0][0], 1), 0, pairs[0][1]
    return max(pairs[1][0], 1), pairs[0][1], pairs[1][1]


def _plan_row(
    dtype: str,
    column: bool,
    products: int,
    n: int,
    k: int,
    strides: tuple[int, int, int],
    z_strides: tuple[int, ...],
) -> Plan:
    """Rows times matrices, or with `column` matrices times columns, which is the same turned.

    `strides` are the vector's along k and the matrix's along k and along its other side, of n.
    """
    shape = tile(KINDS[dtype])
    source = _ROW.format(**names(dtype, shape), block=BLOCK)
    args: list[Ref | int] = [
        Ref("input", int(column)),
        Ref("input", int(not column)),
        Ref("output"),
    ]
    args += [Ref("epilogue"), Ref("epilogue_args"), n, k, *strides, *z_strides, int(column)]
    stage = Stage(
        toolchain.compile_kernel(source, "row", independent=True),
        args,
        products * -(-n // BLOCK),
        max(1, (1 << 17) // max(1, min(n, BLOCK) * k)),
        scratch=BLOCK * shape.itemsize,
        flops=2 * products * n * k,
        bytes=products * (n * k + n + k) * shape.itemsize,
    )
    rows, cols = (products * n, 1) if column else (products, n)
    return Plan([stage], [], True, rows, cols)


def plan_dot(node: Node) -> Plan | None:
    """The plan of a dot_general over contiguous operands, or None if no strides describe it."""
    x, y = (v.type for v in node.inputs)
    dtype = x.dtype.name
    if dtype not in KINDS:
        return None
    (cx, cy), (bx, by) = node.attrs["contract"], node.attrs["batch"]
    xs, ys = list(x.sizes), list(y.sizes)
    free_x = [d for d in range(len(xs)) if d not in cx and d not in bx]
    free_y = [d for d in range(len(ys)) if d not in cy and d not in by]
    xt, yt = _row_major(xs), _row_major(ys)
    m_dims, n_dims = _merged(xs, xt, free_x), _merged(ys, yt, free_y)
    k_dims, kb_dims = _merged(xs, xt, cx), _merged(ys, yt, cy)
    z_dims, zb_dims = _merged(xs, xt, bx), _merged(ys, yt, by)
    if len(m_dims) > 1 or len(n_dims) > 1 or len(kb_dims) > 1:
        return None
    if max(len(k_dims), len(z_dims), len(zb_dims)) > 2:
        return None
    m, n = math.prod(xs[d] for d in free_x), math.prod(ys[d] for d in free_y)
    k, products = math.prod(xs[d] for d in cx), math.prod(xs[d] for d in bx)
    ks, cs = kb_dims[0][1], n_dims[0][1]
    if len(k_dims) == 1 and m == 1:
        zs = *_two(z_dims), *_two(zb_dims)
        return _plan_row(dtype, False, products, n, k, (k_dims[0][1], ks, cs), zs)
    if len(k_dims) == 1 and n == 1:
        zs = *_two(zb_dims), *_two(z_dims)
        strides = ks, k_dims[0][1], m_dims[0][1]
        return _plan_row(dtype, True, products, m, k, strides, zs)
    mr = rows_of_panels(dtype, m)
    left_strides = m_dims[0][1], _two(k_dims), _two(z_dims)
    pack_a = pack_a_stage(dtype, Ref("input", 0), 0, products, m, k, *left_strides, mr)
    packer = compile_packer(_PACK_B, "pack_b", dtype)
    shape = tile(KINDS[dtype])
    move = 0
    if dtype == shape.kind and cs == 1:
        move = compile_copy(shape, shape.nr).address
    elif dtype == shape.kind and ks == 1:
        move = compile_turn(shape, shape.nr).address
    b_args: list[Ref | int] = [Ref("input", 1), ks, cs, *_two(zb_dims), move]
    rows = (Ref("input", 1), ks, *_two(zb_dims)) if cs == 1 else None
    compute = compute_stage(dtype, 1, packer.address, products, products, m, n, k, mr, rows)
    stages = [pack_a, Stage(packer, b_args, 0), compute]
    return Plan(stages, [packed_bytes(dtype, products, m, k, mr)], True, products * m, n)
