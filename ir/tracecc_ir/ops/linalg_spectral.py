"""Orthogonal factorisations: eigenvalues of symmetric matrices, singular values, QR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import NotDifferentiable, TypeRuleError
from tracecc_ir.op import NO_GRADIENT, Expr, Op, Sample
from tracecc_ir.ops.elementwise import select
from tracecc_ir.ops.linalg import (
    DTYPES,
    Arrays,
    adjoint,
    as_column,
    as_row,
    cast_like,
    check_square,
    identity,
    matmul,
    on_diagonal,
    refusing,
    triangle,
    triangular_solve,
)
from tracecc_ir.ops.movement import concat, part
from tracecc_ir.ops.rules import draw
from tracecc_ir.types import DType, TensorType


def smaller(name: str, x: TensorType) -> Any:
    """The smaller of a matrix's two sizes."""
    if x.ndim < 2:
        raise TypeRuleError(f"{name} needs matrices in the last two dimensions, given {x}")
    m, n = x.shape[-2:]
    if m == n:
        return m
    if not (isinstance(m, int) and isinstance(n, int)):
        raise TypeRuleError(f"{name} needs matrices of known sizes, given {x}; trace it concrete")
    return min(m, n)


def reciprocal_gaps(x: Expr) -> Any:
    """1 / (x[j] - x[i]) for vectors x, and 0 where they are equal.

    A gap of zero only ever meets a zero: if the function depends on more than the eigenspace of
    equal eigenvalues, it has no derivative.
    """
    like = on_diagonal(x)
    gap = as_row(x, like) - as_column(x, like)
    equal = gap.eq(0)
    return select(equal, gap.full(0), 1 / select(equal, gap.full(1), gap))


def _safe_reciprocal(x: Expr) -> Any:
    zero = x.eq(0)
    return select(zero, x.full(0), 1 / select(zero, x.full(1), x))


# Symmetric eigenvalues.


def _eigh_type(x: TensorType, *, lower: bool = True) -> tuple[TensorType, TensorType]:
    check_square("eigh", x)
    return x.with_shape(x.shape[:-1]).with_dtype(x.dtype.to_real()), x


def _eigh(x: np.ndarray, lower: bool) -> Arrays:
    problem = (
        "linalg.eigh: The algorithm failed to converge because the input matrix contained "
        "non-finite values; check it with isfinite"
    )
    return tuple(refusing(np.linalg.eigh, problem, x, UPLO="L" if lower else "U"))


def _eigh_vjp(gs: Any, outs: Any, x: Expr, lower: bool) -> tuple:
    """V (diag(w') + F * (V^H V')) V^H with F[i, j] = 1 / (w[j] - w[i]), made Hermitian."""
    (gw, gv), (w, v) = gs, outs
    inner = cast_like(on_diagonal(gw), x) + cast_like(reciprocal_gaps(w), x) * matmul(
        adjoint(v), gv
    )
    dx = matmul(matmul(v, inner), adjoint(v))
    return ((dx + adjoint(dx)) * 0.5,)


def _eigh_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((3, 3), (2, 4, 4), (1, 1), (0, 2, 2), (0, 0)):
        x = draw(rng, dtype, *shape)
        yield Sample((x + x.swapaxes(-1, -2).conj(),), {"lower": len(shape) == 2})


eigh: Op = Op(
    "eigh",
    "linalg",
    _eigh_type,
    _eigh,
    _eigh_vjp,
    dtypes=DTYPES,
    samples=_eigh_samples,
    doc="eigenvalues in ascending order and eigenvectors (columns) of Hermitian matrices; reads "
    "one triangle",
)


# Singular values.


def _svd_type(x: TensorType, *, full: bool = False) -> tuple[TensorType, TensorType, TensorType]:
    k = smaller("svd", x)
    *lead, m, n = x.shape
    u, v = ((m, m), (n, n)) if full else ((m, k), (k, n))
    values = x.with_shape((*lead, k)).with_dtype(x.dtype.to_real())
    return x.with_shape((*lead, *u)), values, x.with_shape((*lead, *v))


def _svd(x: np.ndarray, full: bool) -> Arrays:
    problem = (
        "linalg.svd: The algorithm failed to converge because the input matrix contained "
        "non-finite values; check it with isfinite"
    )
    return tuple(refusing(np.linalg.svd, problem, x, full_matrices=full))


def _svd_vjp(gs: Any, outs: Any, x: Expr, full: bool) -> tuple:
    """Townsend, "Differentiating the singular value decomposition" (2016), 1 / (s[j]^2 - s[i]^2).

    Of complex matrices the vectors have any phase, on which a function of them must not depend.

    Vectors beyond the first min(m, n) are an arbitrary basis: they count as constant.
    """
    (gu, gs_, gv), (u, s, v) = gs, outs
    if full:
        k = s.shape[-1]
        gu, u = (part(t, x.ndim - 1, 0, k) for t in (gu, u))
        gv, v = (part(t, x.ndim - 2, 0, k) for t in (gv, v))
    ut, gvt = adjoint(u), adjoint(gv)
    square = on_diagonal(s)
    # 1 / (a^2 - b^2) as a product: rounded squares of equal numbers may differ in a fused loop.
    gaps = reciprocal_gaps(s) * _safe_reciprocal(as_row(s, square) + as_column(s, square))
    gaps, inverse = cast_like(gaps, x), cast_like(_safe_reciprocal(s), x)
    s, gs_ = cast_like(s, x), cast_like(gs_, x)
    of_u, of_v = matmul(ut, gu), matmul(v, gvt)
    skew = of_u - adjoint(of_u)
    inner = gaps * skew * as_row(s, skew)
    other = gaps * (of_v - adjoint(of_v))
    inner = inner + other * as_column(s, other) + on_diagonal(gs_)
    if x.dtype.is_complex:
        inner = inner + identity(skew) * skew * as_row(inverse * 0.5, skew)
    dx = matmul(matmul(u, inner), v)
    left = (gu - matmul(u, of_u)) * as_row(inverse, gu)
    right = as_column(inverse, gv) * (gv - matmul(adjoint(of_v), v))
    return (dx + matmul(left, v) + matmul(u, right),)


def _svd_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((3, 3), (2, 4, 3), (2, 3, 4), (3, 1), (0, 2, 2), (0, 3)):
        yield Sample((draw(rng, dtype, *shape),))
    yield Sample((draw(rng, dtype, 2, 2),), {"full": True})


svd: Op = Op(
    "svd",
    "linalg",
    _svd_type,
    _svd,
    _svd_vjp,
    dtypes=DTYPES,
    samples=_svd_samples,
    doc="(U, s, V^H) with x = U diag(s) V^H, s in descending order; full: square U and V",
)


# QR.


def _qr_type(x: TensorType, *, complete: bool = False) -> tuple[TensorType, TensorType]:
    k = smaller("qr", x)
    *lead, m, n = x.shape
    k = m if complete else k
    return x.with_shape((*lead, m, k)), x.with_shape((*lead, k, n))


def _qr(x: np.ndarray, complete: bool) -> Arrays:
    mode: Any = "complete" if complete else "reduced"
    return tuple(refusing(np.linalg.qr, "linalg.qr failed", x, mode=mode))


def _qr_vjp(gs: Any, outs: Any, x: Expr, complete: bool) -> tuple:
    """(Q' + Q S) R^-H, where S is R R'^H - Q'^H Q with its lower triangle on both sides.

    Columns beyond the square part are Q^T times those of x, and are taken off first (Walter &
    Lehmann, 2010; Roberts & Roberts, 2020).
    """
    (gq, gr), (q, r) = gs, outs
    m, n = x.shape[-2:]
    if m != n and m > n and complete:  # type: ignore[operator]
        raise NotDifferentiable(
            'the derivative of qr with mode="complete" needs matrices that are not taller than '
            f'wide, given {x.type}; use mode="reduced"'
        )
    wide = m != n and m < n  # type: ignore[operator]
    axis = x.ndim - 1
    if wide:
        rest, g_rest = part(x, axis, m, n), part(gr, axis, m, n)
        gq = gq + matmul(rest, adjoint(g_rest))
        r, gr = part(r, axis, 0, m), part(gr, axis, 0, m)
    inner = matmul(r, adjoint(gr)) - matmul(adjoint(gq), q)
    low = triangle(inner, lower=True, diagonal=0)
    inner = low + adjoint(low) + (identity(inner) * (inner + adjoint(inner))) * 0.5
    dx = gq + matmul(q, inner)
    dx = adjoint(triangular_solve(r, adjoint(dx), lower=False))
    return (concat(dx, matmul(q, g_rest), axis=axis) if wide else dx,)


def _qr_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((3, 3), (2, 4, 3), (2, 3, 5), (3, 1), (0, 2, 2), (0, 3)):
        yield Sample((draw(rng, dtype, *shape),))
    yield Sample((draw(rng, dtype, 2, 3),), {"complete": True})


qr: Op = Op(
    "qr",
    "linalg",
    _qr_type,
    _qr,
    _qr_vjp,
    dtypes=DTYPES,
    samples=_qr_samples,
    doc="x = Q R with orthonormal columns in Q and R upper triangular; complete: Q is square",
)


def _householder_qr_type(x: TensorType) -> tuple[TensorType, TensorType]:
    return x, x.with_shape((*x.shape[:-2], smaller("householder_qr", x)))


def _householder_qr(x: np.ndarray) -> Arrays:
    packed, scale = refusing(np.linalg.qr, "geqrf failed", x, mode="raw")
    return packed.swapaxes(-1, -2).astype(x.dtype), scale.astype(x.dtype)


def _householder_qr_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((3, 3), (2, 4, 3), (2, 3, 5), (0, 2, 2)):
        yield Sample((draw(rng, dtype, *shape),))


householder_qr: Op = Op(
    "householder_qr",
    "linalg",
    _householder_qr_type,
    _householder_qr,
    NO_GRADIENT,
    dtypes=DTYPES,
    samples=_householder_qr_samples,
    doc="qr as LAPACK keeps it: R over the reflectors' vectors, and the reflectors' scales",
)
