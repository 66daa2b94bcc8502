"""The plan of dot_general: operands as strides, a product of blocks or of one row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from tracecc.backends.cpu import gemm, gemm_bf16, toolchain
from tracecc.backends.cpu.blocking import blocking, share_blocking
from tracecc.backends.cpu.gemm import KINDS, Right, names
from tracecc.backends.cpu.microkernel import tile
from tracecc.backends.schedule_types import Argument, Plan, Ref, Stage
from tracecc_ir.graph import Node

Three = tuple[int, int, int]

BLOCK = 256  # Columns of a unit of a product with one row.

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


def _two(pairs: list[tuple[int, int]]) -> Three:
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
    strides: Three,
    z_strides: tuple[int, ...],
) -> Plan:
    """Rows times matrices, or with `column` matrices times columns, which is the same turned.

    `strides` are the vector's along k and the matrix's along k and along its other side, of n.
    """
    shape = tile(KINDS[dtype])
    source = _ROW.format(**names(dtype, shape), block=BLOCK)
    args: list[Argument] = [
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
    if len(m_dims) > 1 or len(n_dims) > 1:
        return None
    if max(len(k_dims), len(kb_dims), len(z_dims), len(zb_dims)) > 2:
        return None
    if len(kb_dims) == 2 and gemm.tile_of(dtype).pairs and kb_dims[1][0] % 2:
        return None
    m, n = math.prod(xs[d] for d in free_x), math.prod(ys[d] for d in free_y)
    k, products = math.prod(xs[d] for d in cx), math.prod(xs[d] for d in bx)
    ks, cs = kb_dims[-1][1], n_dims[0][1]
    if len(k_dims) == len(kb_dims) == 1 and m == 1:
        zs = *_two(z_dims), *_two(zb_dims)
        return _plan_row(dtype, False, products, n, k, (k_dims[0][1], ks, cs), zs)
    if len(k_dims) == len(kb_dims) == 1 and n == 1:
        zs = *_two(zb_dims), *_two(z_dims)
        strides = ks, k_dims[0][1], m_dims[0][1]
        return _plan_row(dtype, True, products, m, k, strides, zs)
    make = partial(
        plan_product,
        dtype,
        (Ref("input", 0), Ref("input", 1)),
        (products, products),
        (m, n, k),
        (m_dims[0][1], _two(k_dims), _two(z_dims)),
        (_two(kb_dims), cs, _two(zb_dims)),
    )
    if bx or free_x[:1] != [0]:
        return make()
    return replace(make(), shared=lambda rows: make(rows * (m // xs[0])))


def plan_product(
    dtype: str,
    operands: tuple[Ref, Ref],
    products: tuple[int, int],
    sizes: tuple[int, int, int],
    left: tuple[int, Three, Three],
    right: tuple[Three, int, Three],
    share: int = 0,
) -> Plan:
    """The plan of products [m, k] x [k, n] that lie one behind the other.

    Args:
        dtype: of operands and result.
        operands: A and B.
        products: how many, and how many left operands they take in turn.
        sizes: m, n, k.
        left: the strides of A's rows, of k and of z; the latter as in `gemm.pack_a_stage`.
        right: the strides of B's k, columns and z.
        share: if not 0, the plan is for shares of so many rows of one product.
    """
    (a, b), (count, a_count), (m, n, k) = operands, products, sizes
    shape = gemm.even(gemm.tile_of(dtype), share or m)
    while share % shape.mr:
        shape = replace(shape, mr=shape.mr - 1)
    depth = shape.depth(k)
    if shape.pairs:
        packing = [
            gemm_bf16.pack_a_stage(shape, a, 0, a_count, m, k, *left),
            gemm_bf16.pack_b_stage(shape, b, k, *right),
        ]
    else:
        packing = [
            gemm.pack_a_stage(dtype, shape, a, 0, a_count, m, k, *left),
            gemm.pack_b_stage(dtype, b, *right),
        ]
    temporaries = [gemm.packed_bytes(shape, a_count, m, depth)]

    def multiply(lies: Right) -> list[Stage]:
        """Packing, which units do for their own rows if they have all columns, and the product."""
        rows, columns = packing
        if share:
            cut = share_blocking(share, m, n, shape.mr, lies.kind)
        else:
            cut = blocking(count, m, n, depth, shape.mr, lies.kind, packs_left=a_count == count)
        own = a_count == count and cut.column_blocks == 1
        compute = gemm.compute_stage(
            dtype,
            shape,
            1,
            columns.kernel,
            count,
            a_count,
            m,
            n,
            depth,
            lies,
            cut,
            rows.kernel if own else 0,
        )
        rows = replace(rows, extent=0 if own else rows.extent, share=share // shape.mr)
        compute = replace(compute, share=share // cut.rows * cut.column_blocks)
        return [rows, columns, compute]

    def packed() -> tuple[Plan, Plan]:
        once = gemm.pack_panels_stage(shape, packing[1], 1, Ref("temp", 1), count, n, depth)
        z_strides = 1, -(-n // shape.nr) * shape.nr * depth, 0
        rows, columns, compute = multiply(
            Right("packed", Ref("temp", 1), shape.nr, depth, z_strides)
        )
        sizes = [*temporaries, gemm.packed_columns_bytes(shape, count, n, depth)]
        first, later = (
            Plan([rows, columns, stage, compute], sizes, True, count * m, n)
            for stage in (once, replace(once, extent=0))
        )
        return first, later

    lies = Right()
    (inner, _, row_stride), column_stride, z_strides = right
    if column_stride == 1 and inner >= k and dtype == shape.kind:
        lies = Right("rows", b, row_stride, 1, z_strides)
    whole = shape.pairs or dtype == shape.kind
    return Plan(multiply(lies), temporaries, True, count * m, n, packed if whole else None)
