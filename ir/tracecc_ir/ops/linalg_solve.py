"""Square systems: solve, LU, determinants, the exponential, and the pseudo-inverse."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import LinAlgError, TypeRuleError
from tracecc_ir.op import NO_GRADIENT, Expr, Op, Sample, conjugated
from tracecc_ir.ops.complex import complex, conj, imag
from tracecc_ir.ops.elementwise import select, stop_gradient
from tracecc_ir.ops.index import scatter_along
from tracecc_ir.ops.linalg import (
    DTYPES,
    Arrays,
    adjoint,
    as_row,
    cast_like,
    check_square,
    identity,
    indices,
    matmul,
    on_diagonal,
    refusing,
    spread,
    transposed,
    triangle,
    triangular_solve,
)
from tracecc_ir.ops.linalg_spectral import smaller, svd
from tracecc_ir.ops.movement import broadcast, concat, part
from tracecc_ir.ops.reduce import reduce_prod, reduce_sum
from tracecc_ir.ops.rules import check_same_dtype, draw
from tracecc_ir.types import DType, TensorType, i32, i64

BLOCK = 32  # columns that LU eliminates one by one, before one product updates the rest


def _solve_type(a: TensorType, b: TensorType, *, check: bool = True) -> TensorType:
    check_square("solve", a)
    check_same_dtype("solve", a, b)
    if b.ndim != a.ndim or b.shape[:-1] != a.shape[:-1]:
        raise TypeRuleError(
            f"solve of {a} needs a right-hand side of as many rows and equal batch dimensions, "
            f"given {b}"
        )
    return b


def _solve(a: np.ndarray, b: np.ndarray, check: bool) -> np.ndarray:
    problem = (
        "linalg.solve: The solver failed because the input matrix is singular; linalg.lstsq and "
        "linalg.pinv take any matrix"
    )
    try:
        return refusing(np.linalg.solve, problem, a, b)
    except LinAlgError:
        if check:
            raise
    x = np.full_like(b, np.inf)
    for i in np.ndindex(a.shape[:-2]):
        try:
            x[i] = np.linalg.solve(a[i], b[i])
        except np.linalg.LinAlgError:
            continue
    return x


def _solve_vjp(g: Expr, x: Expr, a: Expr, b: Expr, check: bool) -> tuple:
    db = solve(transposed(a), g, check=check)
    return -matmul(db, transposed(x)), db


def _well_conditioned(rng: np.random.Generator, dtype: DType, *shape: int) -> np.ndarray:
    return draw(rng, dtype, *shape) + 2 * np.eye(*shape[-2:], dtype=dtype.numpy)


def _solve_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for a, b in (((3, 3), (3, 2)), ((2, 4, 4), (2, 4, 1)), ((2, 2), (2, 0)), ((0, 0), (0, 3))):
        yield Sample((_well_conditioned(rng, dtype, *a), draw(rng, dtype, *b)))


solve: Op = Op(
    "solve",
    "linalg",
    _solve_type,
    _solve,
    _solve_vjp,
    dtypes=DTYPES,
    samples=_solve_samples,
    holomorphic=True,
    doc="x with a x = b for square a; without check, infinity where a is singular",
)


# LU with row exchanges.


def _lu_type(x: TensorType) -> tuple[TensorType, TensorType, TensorType]:
    k = smaller("lu", x)
    rows = x.with_shape(x.shape[:-1]).with_dtype(i64)
    return x, x.with_shape((*x.shape[:-2], k)).with_dtype(i32), rows


def _lu(x: np.ndarray) -> Arrays:
    """Right-looking elimination in blocks of columns (Golub & Van Loan 3.4)."""
    *lead, m, n = x.shape
    a = np.array(x, order="C").reshape(math.prod(lead), m, n)
    k = min(m, n)
    pivots = np.empty((len(a), k), np.int32)
    order = np.tile(np.arange(m), (len(a), 1))
    with np.errstate(all="ignore"):
        for start in range(0, k, BLOCK):
            stop = min(start + BLOCK, k)
            for j in range(start, stop):
                _eliminate(a, j, stop, pivots, order)
            _update_rest(a, start, stop)
    return a.reshape(x.shape), pivots.reshape(*lead, k), order.reshape(*lead, m)


def _eliminate(a: np.ndarray, j: int, stop: int, pivots: np.ndarray, order: np.ndarray) -> None:
    """One column: the largest element comes to the diagonal and clears those below it."""
    every = np.arange(len(a))
    column = a[:, j:, j]
    p = j + np.argmax(np.abs(column.real) + np.abs(column.imag), 1)
    pivots[:, j] = p + 1
    for rows in (a, order):
        rows[every, p], rows[:, j] = rows[:, j].copy(), rows[every, p]
    pivot = a[:, j, j, None]
    a[:, j + 1 :, j] /= np.where(pivot == 0, 1, pivot)
    a[:, j + 1 :, j + 1 : stop] -= a[:, j + 1 :, j, None] * a[:, j, None, j + 1 : stop]


def _update_rest(a: np.ndarray, start: int, stop: int) -> None:
    """The columns right of a finished block: its rows by substitution, then one product."""
    for i in range(start + 1, stop):
        a[:, i, None, stop:] -= a[:, i, None, start:i] @ a[:, start:i, stop:]
    a[:, stop:, stop:] -= a[:, stop:, start:stop] @ a[:, start:stop, stop:]


def _corner(x: Expr, rows: tuple, columns: tuple) -> Any:
    return part(part(x, x.ndim - 2, *rows), x.ndim - 1, *columns)


def _lu_vjp(gs: Any, outs: Any, x: Expr) -> tuple:
    """The square corner by its triangles; the rows below or columns beside it first.

    With A = L U (rows exchanged): A' = L^-T (tril(L^T L') + triu(U' U^T)) U^-T.
    """
    g, packed = gs[0], outs[0]
    m, n = x.shape[-2:]
    k = packed.type.shape[-1] if m is n else min(m, n)  # type: ignore[type-var]
    square = packed if m == n else _corner(packed, (0, k), (0, k))
    unit = triangle(square, lower=True, diagonal=0) + identity(square)
    corner = g if m == n else _corner(g, (0, k), (0, k))
    dl = triangle(corner, lower=True, diagonal=0)
    du = triangle(corner, lower=False, diagonal=1)
    rest = None
    if m < n:  # type: ignore[operator]
        beside = _corner(packed, (0, k), (k, n))
        rest = triangular_solve(square, _corner(g, (0, k), (k, n)), transpose=True, unit=True)
        dl = dl - triangle(matmul(rest, transposed(beside)), lower=True, diagonal=0)
    elif m > n:  # type: ignore[operator]
        below = _corner(packed, (k, m), (0, k))
        rest = _over_upper(_corner(g, (k, m), (0, k)), square)
        du = du - triangle(matmul(transposed(below), rest), lower=False, diagonal=1)
    upper = triangle(square, lower=False, diagonal=1)
    inner = triangle(matmul(transposed(unit), dl), lower=True, diagonal=0)
    inner = inner + triangle(matmul(du, transposed(upper)), lower=False, diagonal=1)
    dx = triangular_solve(square, _over_upper(inner, square), transpose=True, unit=True)
    if rest is not None:
        dx = concat(dx, rest, axis=x.ndim - (1 if m < n else 2))  # type: ignore[operator]
    rows = broadcast(outs[2], shape=x.shape, axes=tuple(range(x.ndim - 1)))
    return (scatter_along(x.full(0), rows, dx, axis=x.ndim - 2, mode="set"),)


def _over_upper(x: Expr, square: Expr) -> Any:
    """x U^-T, where U is the upper triangle of ``square``."""
    return transposed(triangular_solve(square, transposed(x), lower=False))


def _lu_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((4, 4), (2, 3, 5), (5, 3), (1, 1), (0, 0), (0, 3, 2)):
        yield Sample((_well_conditioned(rng, dtype, *shape),))


lu: Op = Op(
    "lu",
    "linalg",
    _lu_type,
    _lu,
    _lu_vjp,
    dtypes=DTYPES,
    samples=_lu_samples,
    holomorphic=True,
    doc="x with rows exchanged = L U: (L without its diagonal of ones and U in one matrix, the "
    "exchanges counted from 1 as LAPACK has them, the rows' order)",
)


def _lu_order_type(pivots: TensorType, *, size: int) -> TensorType:
    return pivots.with_shape((*pivots.shape[:-1], size)).with_dtype(i64)


def _lu_order(pivots: np.ndarray, size: int) -> np.ndarray:
    order = np.broadcast_to(np.arange(size), (*pivots.shape[:-1], size)).copy()
    for i in range(pivots.shape[-1]):
        j = pivots[..., i, None].astype(np.int64) - 1
        if j.size and not (j.min() >= 0 and j.max() < size):
            raise LinAlgError(f"pivots must be between 1 and {size}, as lu_factor returns them")
        here = order[..., i].copy()
        order[..., i] = np.take_along_axis(order, j, -1)[..., 0]
        np.put_along_axis(order, j, here[..., None], -1)
    return order


def _lu_order_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, size in (((3,), 4), ((2, 4), 4), ((0,), 2), ((0, 3), 3)):
        first = np.arange(1, shape[-1] + 1)
        yield Sample((rng.integers(first, size + 1, shape).astype(np.int32),), {"size": size})


lu_order: Op = Op(
    "lu_order",
    "linalg",
    _lu_order_type,
    _lu_order,
    NO_GRADIENT,
    dtypes=(i32,),
    samples=_lu_order_samples,
    doc="the order of the rows after exchanges as lu gives them, counted from 1",
)


# Determinants.


def _det_type(x: TensorType) -> TensorType:
    check_square("det", x)
    return x.with_shape(x.shape[:-2])


def _square_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((3, 3), (2, 4, 4), (1, 1), (0, 2, 2), (0, 0)):
        yield Sample((_well_conditioned(rng, dtype, *shape),))


def _det_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    yield from _square_samples(rng, dtype)
    singular = draw(rng, dtype, 3, 3)
    singular[2] = singular[0] - singular[1]
    yield Sample((singular,))


det: Op = Op(
    "det",
    "linalg",
    _det_type,
    lambda x: np.asarray(refusing(np.linalg.det, "linalg.det failed", x), x.dtype),
    (lambda g, y, x: spread(g, x, 0) * cofactor(x),),
    dtypes=DTYPES,
    samples=_det_samples,
    holomorphic=True,
    doc="the determinant",
)


def _slogdet_type(x: TensorType) -> tuple[TensorType, TensorType]:
    check_square("slogdet", x)
    sign = x.with_shape(x.shape[:-2])
    return sign, sign.with_dtype(x.dtype.to_real())


def _slogdet(x: np.ndarray) -> Arrays:
    sign, log = refusing(np.linalg.slogdet, "linalg.slogdet failed", x)
    return np.asarray(sign, x.dtype), np.asarray(log, x.real.dtype)


def _slogdet_vjp(gs: Any, outs: Any, x: Expr) -> tuple:
    """Of log det x = log |det x| + i arg(sign), whose derivative is x^-H."""
    g = gs[1]
    if x.dtype.is_complex:
        g = complex(g, -imag(conj(gs[0]) * outs[0]))
    return (solve(adjoint(x), spread(g, x, 0) * identity(x), check=False),)


slogdet: Op = Op(
    "slogdet",
    "linalg",
    _slogdet_type,
    _slogdet,
    _slogdet_vjp,
    dtypes=DTYPES,
    samples=_square_samples,
    doc="the determinant's sign (0 if it is singular) and the logarithm of its absolute value",
)


def _cofactor_type(x: TensorType) -> TensorType:
    check_square("cofactor", x)
    return x


def _cofactor(x: np.ndarray) -> np.ndarray:
    """From singular values, so that nothing is divided: A = U S V^H has cofactors of S inside."""
    u, s, v = refusing(np.linalg.svd, "linalg.det: the input holds NaN or infinity", x)
    ones = np.ones_like(s[..., :1])
    before = np.concatenate([ones, np.cumprod(s, -1)[..., :-1]], -1) if s.shape[-1] else s
    after = np.concatenate([np.cumprod(s[..., :0:-1], -1)[..., ::-1], ones], -1)
    after = after[..., : s.shape[-1]]
    sign = np.linalg.det(u) * np.linalg.det(v)
    sign = sign if x.dtype.kind == "c" else np.round(sign)
    inner = (u.conj() * (before * after)[..., None, :]) @ v.conj()
    return (sign[..., None, None] * inner).astype(x.dtype)


def _cofactor_vjp(h: Expr, c: Expr, x: Expr) -> Any:
    """The determinant's second derivative, which pairs two rows and two columns of S.

    With P[i, j] the product of all singular values but the i-th and j-th (0 on the diagonal) and
    H = U^H h V it is diag(P diag(H)) - P * H^T, turned back.
    """
    u, s, v = svd(x)
    n = x.ndim
    cube = broadcast(s, shape=(*x.shape, x.shape[-1]), axes=(*range(n - 2), n))
    row, column = indices(x)
    position = broadcast(column, shape=cube.shape, axes=(*range(n - 1), n))
    others = [broadcast(i, shape=cube.shape, axes=tuple(range(n))) for i in (row, column)]
    for other in others:
        cube = select(position.eq(other), cube.full(1), cube)
    pairs = cast_like(reduce_prod(cube, axes=(n,)), x)
    pairs = select(row.eq(column), x.full(0), pairs)
    inner = matmul(matmul(adjoint(u), h), adjoint(v))
    diagonal = reduce_sum(identity(x) * inner, axes=(n - 1,))
    diagonal = reduce_sum(pairs * as_row(diagonal, x), axes=(n - 1,))
    inner = on_diagonal(diagonal) - pairs * transposed(inner)
    sign = det(u) * det(v)
    sign = sign if x.dtype.is_complex else stop_gradient(sign)
    return spread(sign, x, 0) * matmul(matmul(conjugated(u), inner), conjugated(v))


cofactor: Op = Op(
    "cofactor",
    "linalg",
    _cofactor_type,
    _cofactor,
    (_cofactor_vjp,),
    dtypes=DTYPES,
    samples=_square_samples,
    holomorphic=True,
    doc="the derivative of the determinant, also where it is zero",
)


# The exponential.

THETA = 5.371920351148152  # norms up to here need no scaling in double precision
PADE: tuple[int, ...] = (
    64764752532480000,
    32382376266240000,
    7771770303897600,
    1187353796428800,
    129060195264000,
)
PADE += (10559470521600, 670442572800, 33522128640, 1323241920, 40840800, 960960, 16380, 182, 1)


def _matrix_exp_type(x: TensorType) -> TensorType:
    check_square("matrix_exp", x)
    return x


def _matrix_exp(x: np.ndarray) -> np.ndarray:
    """Scaling and squaring around the Pade approximant of degree 13 (Higham, 2005), in f64."""
    a = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    if not a.size:
        return x.copy()
    with np.errstate(all="ignore"):
        norm = np.abs(a).sum(-2).max(-1)
        scale = np.ceil(np.log2(norm / THETA))
        scale = np.where(np.isfinite(scale) & (scale > 0), scale, 0)[..., None, None]
        y = _pade(a / 2.0**scale)
        for step in range(int(scale.max())):
            y = np.where(step < scale, y @ y, y)
    return y.astype(x.dtype)


def _pade(a: np.ndarray) -> np.ndarray:
    eye = np.broadcast_to(np.eye(a.shape[-1]), a.shape)
    a2 = a @ a
    even, odd = np.zeros_like(a), np.zeros_like(a)
    for i in range(6, -1, -1):
        even = even @ a2 + PADE[2 * i] * eye
        odd = odd @ a2 + PADE[2 * i + 1] * eye
    odd = a @ odd
    if not (np.isfinite(even).all() and np.isfinite(odd).all()):
        bad = ~np.isfinite(even + odd).all((-1, -2))
        even[bad], odd[bad] = np.eye(a.shape[-1]), np.nan
    return np.linalg.solve(even - odd, even + odd)


def _matrix_exp_vjp(g: Expr, y: Expr, x: Expr) -> Any:
    """The derivative is a block of exp([[x^T, g], [0, x^T]]) (Mathias, 1996)."""
    n, r = x.shape[-1], x.ndim
    xt = transposed(x)
    top, bottom = concat(xt, g, axis=r - 1), concat(x.full(0), xt, axis=r - 1)
    return _corner(matrix_exp(concat(top, bottom, axis=r - 2)), (0, n), (n, 2 * n))


def _matrix_exp_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((3, 3), (2, 4, 4), (1, 1), (0, 2, 2)):
        yield Sample((draw(rng, dtype, *shape),))


matrix_exp: Op = Op(
    "matrix_exp",
    "linalg",
    _matrix_exp_type,
    _matrix_exp,
    (_matrix_exp_vjp,),
    dtypes=DTYPES,
    samples=_matrix_exp_samples,
    holomorphic=True,
    doc="the exponential of square matrices: the sum of x^k / k!",
)


# The pseudo-inverse.


def _pinv_type(x: TensorType, atol: TensorType, rtol: TensorType) -> TensorType:
    smaller("pinv", x)
    check_same_dtype("pinv", x.with_dtype(x.dtype.to_real()), atol, rtol)
    for bound in (atol, rtol):
        if bound.shape != x.shape[:-2]:
            raise TypeRuleError(f"pinv of {x} needs one bound per matrix, given {bound}")
    return x.with_shape((*x.shape[:-2], x.shape[-1], x.shape[-2]))


def _pinv(x: np.ndarray, atol: np.ndarray, rtol: np.ndarray) -> np.ndarray:
    u, s, v = refusing(
        np.linalg.svd, "linalg.pinv: the input holds NaN or infinity", x, full_matrices=False
    )
    largest = s.max(-1, initial=0)
    kept = s > np.maximum(atol, rtol * largest)[..., None]
    inverse = np.where(kept, 1 / np.where(kept, s, 1), 0)
    return (v.swapaxes(-1, -2).conj() * inverse[..., None, :]) @ u.swapaxes(-1, -2).conj()


def _pinv_vjp(g: Expr, p: Expr, x: Expr, atol: Expr, rtol: Expr) -> tuple:
    """For constant rank (Golub & Pereyra, 1973), with E = I - x p and F = I - p x:

    -p^H g p^H + E g^H p p^H + p^H p g^H F.
    """
    gt, pt = adjoint(g), adjoint(p)
    left = gt - matmul(x, matmul(p, gt))
    right = gt - matmul(matmul(gt, p), x)
    dx = matmul(matmul(left, p), pt) + matmul(pt, matmul(p, right))
    return dx - matmul(matmul(pt, g), pt), None, None


def _pinv_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((3, 3), (2, 4, 3), (2, 3), (0, 2), (3, 0)):
        bounds = [np.full(shape[:-2], b, dtype.to_real().numpy) for b in (0, 1e-6)]
        yield Sample((draw(rng, dtype, *shape), *bounds))


pinv: Op = Op(
    "pinv",
    "linalg",
    _pinv_type,
    _pinv,
    _pinv_vjp,
    dtypes=DTYPES,
    samples=_pinv_samples,
    doc="the pseudo-inverse; singular values up to max(atol, rtol * the largest) count as zero",
)
