"""Triangular factors: Cholesky and substitution; the last two dimensions are the matrices."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import LinAlgError, TypeRuleError
from tracecc_ir.op import Expr, Op, Sample, conjugated
from tracecc_ir.ops.constant import iota
from tracecc_ir.ops.contraction import dot_general
from tracecc_ir.ops.elementwise import cast, select
from tracecc_ir.ops.movement import broadcast, permute
from tracecc_ir.ops.rules import check_same_dtype, draw
from tracecc_ir.types import COMPLEX, DType, TensorType, f32, f64, i64

Arrays = tuple[np.ndarray, ...]
DTYPES = (f32, f64, *COMPLEX)  # what LAPACK has routines for


def check_square(name: str, x: TensorType) -> None:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise TypeRuleError(f"{name} needs square matrices in the last two dimensions, given {x}")


def transposed(x: Expr) -> Any:
    n = x.ndim
    return permute(x, axes=(*range(n - 2), n - 1, n - 2))


def adjoint(x: Expr) -> Any:
    """The conjugate transpose."""
    return conjugated(transposed(x))


def cast_like(x: Expr, y: Expr) -> Any:
    """Real numbers ``x`` in the dtype of ``y``, which may be complex."""
    return x if x.dtype is y.dtype else cast(x, dtype=y.dtype)


def matmul(x: Expr, y: Expr) -> Any:
    """The matrix product over equal batch dimensions."""
    n = x.ndim
    batch = tuple(range(n - 2))
    return dot_general(x, y, contract=((n - 1,), (n - 2,)), batch=(batch, batch))


def triangle(x: Expr, lower: bool, diagonal: float) -> Any:
    """The part of ``x`` strictly inside a triangle, plus ``diagonal`` times its diagonal."""
    row, column = indices(x)
    inside = row > column if lower else row < column
    rest = x * diagonal if diagonal else x.full(0)
    return select(inside, x, select(row.eq(column), rest, x.full(0)))


def spread(x: Expr, like: Expr, axis: int) -> Any:
    """One number per matrix (axis 0), row (-1) or column (-2) of ``like``, at all of its elements.

    ``axis`` is the dimension of ``like`` that ``x`` lacks; 0 means both of the last two.
    """
    n = like.ndim
    lacking = (n - 2, n - 1) if axis == 0 else (n + axis,)
    return broadcast(x, shape=like.shape, axes=tuple(i for i in range(n) if i not in lacking))


def identity(like: Expr) -> Any:
    """The identity matrices of the shape of ``like``."""
    row, column = indices(like)
    return select(row.eq(column), like.full(1), like.full(0))


def indices(x: Expr) -> tuple[Expr, Expr]:
    """Row and column numbers of every element."""
    row, column = (iota(like=x, shape=x.shape, axis=a, dtype=i64) for a in (x.ndim - 2, x.ndim - 1))
    return row, column


def on_diagonal(x: Expr) -> Any:
    """Square matrices with ``x`` [..., n] on their diagonals."""
    shape = (*x.shape, x.shape[-1])
    square = broadcast(x, shape=shape, axes=tuple(range(x.ndim)))
    row, column = indices(square)
    return select(row.eq(column), square, square.full(0))


def as_row(x: Expr, like: Expr) -> Any:
    """``x`` [..., n], one number per column of ``like`` [..., m, n]."""
    return spread(x, like, -2)


def as_column(x: Expr, like: Expr) -> Any:
    """``x`` [..., m], one number per row of ``like`` [..., m, n]."""
    return spread(x, like, -1)


def refusing(call: Callable[..., Any], problem: str, *args: Any, **options: Any) -> Any:
    """What a LAPACK routine gives; its failure raises LinAlgError with the problem named."""
    try:
        with np.errstate(all="ignore"):
            return call(*args, **options)
    except np.linalg.LinAlgError:
        raise LinAlgError(problem) from None


def _cholesky_type(x: TensorType, *, check: bool = True) -> TensorType:
    check_square("cholesky", x)
    return x


def _cholesky(x: np.ndarray, check: bool) -> np.ndarray:
    problem = (
        "linalg.cholesky: The factorization could not be completed because the input is not "
        "positive-definite; linalg.cholesky_ex reports instead of raising"
    )
    try:
        return refusing(np.linalg.cholesky, problem, x)
    except LinAlgError:
        if check:
            raise
    batch = x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
    return np.array([_leading_factor(m) for m in batch], x.dtype).reshape(x.shape)


def _leading_factor(x: np.ndarray) -> np.ndarray:
    """The factor of the largest leading block that has one; NaN in the rows below it."""
    l = np.full_like(x, np.nan)
    for size in range(len(x), 0, -1):
        try:
            l[:size] = 0
            l[:size, :size] = np.linalg.cholesky(x[:size, :size])
            return l
        except np.linalg.LinAlgError:
            l[:] = np.nan
    return l


def _cholesky_vjp(g: Expr, l: Expr, x: Expr, check: bool) -> Any:
    """L^-H P(L^H g) L^-1 made Hermitian; P halves the diagonal of the lower part (Murray, 2016)."""
    inner = triangle(matmul(adjoint(l), g), lower=True, diagonal=0.5)
    dx = _adjoint_solve(l, adjoint(_adjoint_solve(l, inner)))
    return (dx + adjoint(dx)) * 0.5


def _adjoint_solve(l: Expr, b: Expr) -> Any:
    """L^-H b."""
    return conjugated(triangular_solve(l, conjugated(b), lower=True, transpose=True))


def _positive_definite(rng: np.random.Generator, dtype: DType, *shape: int) -> np.ndarray:
    x = draw(rng, dtype, *shape)
    return (x @ x.swapaxes(-1, -2).conj() + 2 * np.eye(shape[-1])).astype(dtype.numpy)


def _cholesky_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((3, 3), (2, 4, 4), (1, 1), (0, 2, 2)):
        yield Sample((_positive_definite(rng, dtype, *shape),))


cholesky: Op = Op(
    "cholesky",
    "linalg",
    _cholesky_type,
    _cholesky,
    (_cholesky_vjp,),
    dtypes=DTYPES,
    samples=_cholesky_samples,
    doc="the lower triangular L with L L^H = x, which is Hermitian; reads x's lower triangle; "
    "without check, NaN from the row on where x turns out not to be positive definite",
)


def _triangular_solve_type(
    a: TensorType,
    b: TensorType,
    *,
    lower: bool = True,
    transpose: bool = False,
    unit: bool = False,
) -> TensorType:
    check_square("triangular_solve", a)
    check_same_dtype("triangular_solve", a, b)
    if b.ndim != a.ndim or b.shape[:-1] != a.shape[:-1]:
        raise TypeRuleError(
            f"triangular_solve of {a} needs a right-hand side of as many rows and equal batch "
            f"dimensions, given {b}"
        )
    return b


def _triangular_solve(
    a: np.ndarray, b: np.ndarray, lower: bool, transpose: bool, unit: bool
) -> np.ndarray:
    """Substitution row by row, from the row that has one unknown."""
    n = a.shape[-1]
    if transpose:
        a, lower = a.swapaxes(-1, -2), not lower
    x = b.copy()
    with np.errstate(all="ignore"):
        for i in range(n) if lower else reversed(range(n)):
            known = builtins.slice(0, i) if lower else builtins.slice(i + 1, n)
            x[..., i, :] -= (a[..., i, None, known] @ x[..., known, :])[..., 0, :]
            if not unit:
                x[..., i, :] /= a[..., i, i, None]
    return x


def _triangular_solve_vjp(
    g: Expr, x: Expr, a: Expr, b: Expr, lower: bool, transpose: bool, unit: bool
) -> tuple:
    db = triangular_solve(a, g, lower=lower, transpose=not transpose, unit=unit)
    left, right = (x, db) if transpose else (db, x)
    da = triangle(-matmul(left, transposed(right)), lower, diagonal=0 if unit else 1)
    return da, db


def _triangular_solve_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for a, b in (((3, 3), (3, 2)), ((2, 4, 4), (2, 4, 1)), ((2, 2), (2, 0)), ((0, 0), (0, 3))):
        for lower, transpose, unit in (
            (True, False, False),
            (True, True, False),
            (False, False, True),
            (False, True, False),
        ):
            matrix = draw(rng, dtype, *a) + 3 * np.eye(a[-1], dtype=dtype.numpy)
            attrs = {"lower": lower, "transpose": transpose, "unit": unit}
            yield Sample((matrix, draw(rng, dtype, *b)), attrs)


triangular_solve: Op = Op(
    "triangular_solve",
    "linalg",
    _triangular_solve_type,
    _triangular_solve,
    _triangular_solve_vjp,
    dtypes=DTYPES,
    samples=_triangular_solve_samples,
    doc="solves a x = b (a^T x = b if transpose), reading one triangle of a; unit: diagonal 1",
    holomorphic=True,
)
