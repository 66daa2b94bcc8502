"""Factorisations of matrices: Cholesky, LU, QR, eigenvalues of symmetric ones, singular values.

The last two dimensions are the matrices, all others are batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tracecc.dispatch import apply, own
from tracecc.functional.complex import conj
from tracecc.functional.core import (
    arange_like,
    broadcast_shapes,
    check_tensor,
    emit,
    expanded,
    permuted,
    reshaped,
    splat,
    to_dtype,
)
from tracecc.functional.indexing import tril, triu
from tracecc.functional.linalg import matmul
from tracecc.functional.logic import eq, isnan, ne
from tracecc.functional.pointwise import add, clone, mul, sub, where
from tracecc.functional.reductions import any as any_
from tracecc.functional.reductions import argmax
from tracecc.functional.shape import diagonal, narrow
from tracecc.state import thread
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.errors import LinAlgError, NotDifferentiable
from tracecc_ir.types import DType, bool_, f32, f64, i32


class Cholesky(NamedTuple):
    """The factor, and per matrix 0 or the order of the first minor that is not positive."""

    L: Tensor
    info: Tensor


class LU(NamedTuple):
    """A = P @ L @ U."""

    P: Tensor
    L: Tensor
    U: Tensor


class PackedLU(NamedTuple):
    """L without its unit diagonal and U in one matrix, and LAPACK's row exchanges from 1."""

    LU: Tensor
    pivots: Tensor


class PackedLUInfo(NamedTuple):
    """`PackedLU`, and per matrix 0 or the number of the first pivot that is zero."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


class QR(NamedTuple):
    """A = Q @ R."""

    Q: Tensor
    R: Tensor


class Reflectors(NamedTuple):
    """What `geqrf` gives: R over the reflectors' vectors, and the reflectors' scales."""

    a: Tensor
    tau: Tensor


class Eigen(NamedTuple):
    """Eigenvalues, and eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class SVD(NamedTuple):
    """A = U @ diag(S) @ Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class OldSVD(NamedTuple):
    """A = U @ diag(S) @ V.H."""

    U: Tensor
    S: Tensor
    V: Tensor


# Arguments.


def matrices(name: str, A: Any, argument: str = "A", square: bool = False) -> Tensor:
    """``A``, if it is matrices of f32, f64 or complex; otherwise PyTorch's exceptions."""
    check_tensor(name, A, argument)
    if A.ndim < 2:
        raise RuntimeError(
            f"{name}: The input tensor {argument} must have at least 2 dimensions, given {A.ndim}."
        )
    check_float(name, A)
    m, n = A._type.shape[-2:]
    if square and m != n:
        raise RuntimeError(
            f"{name}: {argument} must be batches of square matrices, but they are {m} by {n} "
            "matrices"
        )
    return A


def check_float(name: str, A: Tensor) -> None:
    if A.dtype in (f32, f64) or A.dtype.is_complex:
        return
    if A.dtype.kind == "float":
        raise RuntimeError(
            f"{name}: Low precision dtypes not supported. Got {A.dtype.public}; convert with "
            "float() first"
        )
    raise RuntimeError(
        f"{name}: Expected a floating point or complex tensor as input. Got {A.dtype.public}; "
        "convert with float() first"
    )


def same_dtype(name: str, A: Tensor, B: Tensor) -> None:
    if A.dtype is not B.dtype:
        raise RuntimeError(
            f"{name}: Expected A and B to have the same dtype, but found A of type "
            f"{A.dtype.public} and B of type {B.dtype.public} instead; convert one with to()"
        )


def batched(*xs: Tensor) -> list[Tensor]:
    """Matrices broadcast to one batch shape."""
    lead = broadcast_shapes(*(x._type.shape[:-2] for x in xs))
    return [expanded(x, (*lead, *x._type.shape[-2:])) for x in xs]


def swapped(x: Tensor) -> Tensor:
    """The last two dimensions exchanged, for internal use."""
    n = x.ndim
    return permuted(x, (*range(n - 2), n - 1, n - 2))


def owned_swap(x: Tensor) -> Tensor:
    return own(swapped(x))


def owned_adjoint(x: Tensor) -> Tensor:
    """The conjugate transpose in memory of its own, for internal use."""
    return own(conj(swapped(x)))


def eye_of(dtype: DType, *shape: Any) -> Tensor:
    """Identity matrices of a shape, for internal use."""
    n = len(shape)
    same = eq(arange_like(shape[-2], shape, n - 2), arange_like(shape[-1], shape, n - 1))
    return to_dtype(same, dtype)


def smaller(x: Tensor) -> Any:
    m, n = x._type.shape[-2:]
    return m if m == n else min(m, n)


def empty_of(x: Tensor) -> Tensor:
    """What stands for a result that was not asked for; it depends on ``x``, as in PyTorch."""
    return clone(narrow(reshaped(x, (x._type.size,)), 0, 0, 0))


def eye_like(x: Tensor) -> Tensor:
    """Identity matrices of the type of ``x`` that depend on it (with derivative zero)."""
    return where(splat(False, x._type.shape, bool_), x, eye_of(x.dtype, *x._type.shape))


def first_true(mask: Tensor) -> Tensor:
    """Per row of a bool tensor, the number of the first true element from 1; 0 if none is. i32."""
    if mask._type.shape[-1] == 0:
        return clone(splat(0, mask._type.shape[:-1], i32))
    at = add(argmax(to_dtype(mask, i32), -1), 1)
    return to_dtype(where(any_(mask, -1), at, 0), i32)


# Cholesky.


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """The lower (or upper) triangular L with L @ L.mH = input."""
    factor = emit(ops.cholesky, matrices("linalg.cholesky", input, square=True))
    return owned_adjoint(factor) if upper else factor


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Cholesky:
    """`cholesky` that reports what is not positive definite in ``info`` instead of raising."""
    matrices("linalg.cholesky_ex", A, square=True)
    factor = emit(ops.cholesky, A, check=check_errors)
    info = first_true(isnan(diagonal(factor.detach(), 0, -2, -1)))
    return Cholesky(owned_adjoint(factor) if upper else factor, info)


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X with A @ X = B, where A = L @ L.mH (U.mH @ U if ``upper``)."""
    b, a = batched(matrices("cholesky_solve", B, "B"), matrices("cholesky_solve", L, "L", True))
    same_dtype("cholesky_solve", a, b)
    a = owned_adjoint(a) if upper else a
    y = emit(ops.triangular_solve, a, b, lower=True, transpose=False, unit=False)
    return conj(emit(ops.triangular_solve, a, conj(y), lower=True, transpose=True, unit=False))


def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A, where A = L @ L.mH (U.mH @ U if ``upper``)."""
    matrices("cholesky_inverse", L, "L", square=True)
    return cholesky_solve(eye_of(L.dtype, *L._type.shape), L, upper)


# LU.


def _pivoted(name: str, A: Tensor, pivot: bool) -> tuple[Tensor, Tensor, Tensor]:
    check_tensor(name, A, "A")
    if A.ndim < 2:
        raise RuntimeError(
            f"{name}: Expected tensor with 2 or more dimensions. Got size: {list(A.shape)} instead"
        )
    check_float(name, A)
    if not pivot:
        raise RuntimeError(f"{name}: LU without pivoting is not implemented; leave pivot=True")
    packed, pivots, order = apply(ops.lu, (A,))
    return packed, pivots, order


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> PackedLUInfo:
    """The packed LU factorisation; ``info`` says where a pivot is zero."""
    packed, pivots, _ = _pivoted("linalg.lu_factor", A, pivot)
    info = first_true(eq(diagonal(packed.detach(), 0, -2, -1), 0))
    if check_errors and bool(any_(ne(info, 0))):
        raise LinAlgError(
            f"linalg.lu_factor_ex: pivot {int(info.max())} is zero, so the matrix is singular"
        )
    return PackedLUInfo(packed, pivots, info)


def lu_factor(A: Tensor, *, pivot: bool = True) -> PackedLU:
    """The packed LU factorisation, for `lu_solve` and `lu_unpack`."""
    return PackedLU(*_pivoted("linalg.lu_factor", A, pivot)[:2])


def lu(A: Tensor, *, pivot: bool = True) -> LU:
    """P, L and U with A = P @ L @ U."""
    packed, _, order = _pivoted("linalg.lu", A, pivot)
    return LU(_permutation(order, A.dtype), *_triangles(packed))


def packed_lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> tuple[Tensor, ...]:
    """`torch.lu`: the packed factors and pivots, and infos if asked for."""
    packed, pivots, info = lu_factor_ex(A, pivot=pivot)
    return (packed, pivots, info) if get_infos else (packed, pivots)


def _triangles(packed: Tensor) -> tuple[Tensor, Tensor]:
    k = smaller(packed)
    low = tril(narrow(packed, -1, 0, k), -1)
    return add(low, eye_of(packed.dtype, *low._type.shape)), triu(narrow(packed, -2, 0, k))


def _permutation(order: Tensor, dtype: DType) -> Tensor:
    """P with P @ (rows in ``order``) = the rows as they were."""
    shape = (*order._type.shape, order._type.shape[-1])
    n = len(shape)
    columns = emit(ops.broadcast, order, shape=shape, axes=(*range(n - 2), n - 1))
    return to_dtype(eq(arange_like(shape[-2], shape, n - 2), columns), dtype)


def lu_unpack(
    LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> LU:
    """P, L and U from what `lu_factor` gives."""
    matrices("torch.lu_unpack", LU_data, "LU_data")
    _check_pivots("torch.lu_unpack", LU_pivots)
    empty = empty_of(LU_data)
    P, L, U = empty, empty, empty
    if unpack_pivots:
        size = LU_data._type.shape[-2]
        P = _permutation(emit(ops.lu_order, LU_pivots, size=size), LU_data.dtype)
    if unpack_data:
        L, U = _triangles(LU_data)
    return LU(P, L, U)


def _check_pivots(name: str, pivots: Tensor) -> None:
    if check_tensor(name, pivots, "pivots").dtype is not i32:
        raise RuntimeError(
            f"{name}: expected pivots of dtype int32, as lu_factor gives them, given "
            f"{pivots.dtype.public}"
        )


def lu_solve(
    LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False
) -> Tensor:
    """X with A @ X = B (X @ A = B if not ``left``; A.mH for A if ``adjoint``)."""
    matrices("linalg.lu_solve", LU, "LU", square=True)
    matrices("linalg.lu_solve", B, "B")
    same_dtype("linalg.lu_solve", LU, B)
    _check_pivots("linalg.lu_solve", pivots)
    if not left:
        return owned_adjoint(lu_solve(LU, pivots, owned_adjoint(B), adjoint=not adjoint))
    n = LU._type.shape[-1]
    if B._type.shape[-2] != n:
        raise RuntimeError(
            f"linalg.lu_solve: Incompatible shapes of LU and B for the equation AX = B "
            f"({n}x{n} and {B._type.shape[-2]}x{B._type.shape[-1]})"
        )
    a, b = batched(LU, B)
    order = emit(ops.lu_order, pivots, size=n)
    if adjoint:
        y = emit(ops.triangular_solve, a, conj(b), lower=False, transpose=True, unit=False)
        y = emit(ops.triangular_solve, a, y, lower=True, transpose=True, unit=True)
        return _rows(conj(y), _inverse_order(order))
    y = emit(ops.triangular_solve, a, _rows(b, order), lower=True, transpose=False, unit=True)
    return emit(ops.triangular_solve, a, y, lower=False, transpose=False, unit=False)


def old_lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """`torch.lu_solve`: X with A @ X = b, from what `lu_factor` gives."""
    return lu_solve(LU_data, LU_pivots, b)


def _inverse_order(order: Tensor) -> Tensor:
    return apply(ops.sort, (order,), {"axis": order.ndim - 1})[1]


def _rows(x: Tensor, order: Tensor) -> Tensor:
    """The rows of matrices in another order."""
    shape = x._type.shape
    wide = expanded(reshaped(order, (*order._type.shape, 1)), shape)
    return emit(ops.gather_along, x, wide, axis=x.ndim - 2)


# QR.


def qr(A: Tensor, mode: str = "reduced") -> QR:
    """A = Q @ R; ``mode`` "complete" gives a square Q, "r" an empty one."""
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), "
            "'r', or 'complete'"
        )
    matrices("linalg.qr", A)
    if mode == "r" and A._requires_grad and thread.grad_enabled:
        raise RuntimeError(
            "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. "
            "Please use linalg.qr(A, mode='reduced') if you are going to require gradients"
        )
    Q, R = apply(ops.qr, (A,), {"complete": mode == "complete"})
    return QR(empty_of(A) if mode == "r" else Q, R)


def old_qr(input: Tensor, some: bool = True) -> QR:
    """`torch.qr`: `linalg.qr` reduced, or complete without ``some``."""
    return qr(input, "reduced" if some else "complete")


def geqrf(input: Tensor) -> Reflectors:
    """QR as LAPACK keeps it, for `ormqr` and `householder_product`; values only."""
    matrices("torch.geqrf", input, "input")
    if input._requires_grad and thread.grad_enabled:
        raise NotDifferentiable("the derivative for geqrf is not implemented; use linalg.qr")
    return Reflectors(*apply(ops.householder_qr, (input,)))


def _reflect(x: Tensor, vectors: Tensor, scales: Tensor, i: int) -> Tensor:
    """(I - tau v v^H) x for the i-th reflector."""
    v = narrow(vectors, -1, i, 1)
    tau = reshaped(narrow(scales, -1, i, 1), (*scales._type.shape[:-1], 1, 1))
    return sub(x, mul(mul(tau, v), matmul(conj(swapped(v)), x)))


def _reflectors(name: str, A: Tensor, tau: Tensor) -> Tensor:
    matrices(name, A)
    n: Any = A._type.shape[-1]
    k: Any = tau._type.shape[-1]
    if A._type.shape[:-2] != tau._type.shape[:-1] or k > n:
        raise RuntimeError(
            f"{name}: expected tau of shape {[*A._type.shape[:-2], n]} or shorter, given "
            f"{list(tau.shape)}"
        )
    same_dtype(name, A, tau)
    low = tril(narrow(A, -1, 0, k), -1)
    return add(low, eye_of(A.dtype, *low._type.shape))


def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first columns of the product of the reflectors I - tau v v^H below A's diagonal."""
    vectors = _reflectors("linalg.householder_product", A, tau)
    m, n = A._type.shape[-2:]
    if m < n:  # type: ignore[operator]
        raise RuntimeError(
            f"torch.linalg.householder_product: input.shape[-2] must be greater than or equal to "
            f"input.shape[-1], given {m} and {n}"
        )
    Q = eye_like(A)
    for i in reversed(range(tau._type.shape[-1])):  # type: ignore[arg-type]
        Q = _reflect(Q, vectors, tau, i)
    return Q


def ormqr(
    input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False
) -> Tensor:
    """Q @ other (or other @ Q, or with Q.mH), for the square Q of `geqrf`'s reflectors."""
    if not left:
        return owned_adjoint(ormqr(input, tau, owned_adjoint(other), True, not transpose))
    tau = conj(tau) if transpose else tau
    vectors = _reflectors("torch.ormqr", input, tau)
    steps: Any = range(tau._type.shape[-1])  # type: ignore[arg-type]
    for i in steps if transpose else reversed(steps):
        other = _reflect(other, vectors, tau, i)
    return other


# Eigenvalues and singular values.


def eigh(A: Tensor, UPLO: str = "L") -> Eigen:
    """Eigenvalues (ascending) and eigenvectors of Hermitian matrices; reads one triangle."""
    if UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    matrices("linalg.eigh", A, square=True)
    return Eigen(*apply(ops.eigh, (A,), {"lower": UPLO.upper() == "L"}))


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of Hermitian matrices, in ascending order."""
    return eigh(A, UPLO).eigenvalues


def eig(A: Tensor) -> Eigen:
    """Complex eigenvalues, in no order, and eigenvectors (columns of norm 1) of square matrices.

    Eigenvectors have an arbitrary phase: a function of them is differentiable only if it does not
    depend on it.

    Raises:
        LinAlgError: the matrices hold NaN or infinity.

    >>> import tracecc as tc
    >>> tc.linalg.eig(tc.tensor([[0.0, 1.0], [-1.0, 0.0]])).eigenvalues
    tensor([0.+1.j, 0.-1.j])
    """
    return Eigen(*apply(ops.eig, (matrices("linalg.eig", A, square=True),)))


def eigvals(A: Tensor) -> Tensor:
    """The complex eigenvalues of square matrices, in no order."""
    return eig(A).eigenvalues


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> SVD:
    """U, S (descending) and Vh with A = U @ diag(S) @ Vh; square U and Vh if ``full_matrices``."""
    matrices("linalg.svd", A)
    m, n = A._type.shape[-2:]
    return SVD(*apply(ops.svd, (A,), {"full": full_matrices and m != n}))


def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values, in descending order."""
    return svd(A, False).S


def old_svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> OldSVD:
    """`torch.svd`: V rather than Vh; without ``compute_uv``, zeros for U and V."""
    U, S, Vh = svd(input, not some)
    if compute_uv:
        return OldSVD(U, S, owned_adjoint(Vh))
    *lead, m, n = input._type.shape
    zeros = [clone(splat(0, (*lead, k, k), input.dtype)) for k in (m, n)]
    return OldSVD(zeros[0], S, zeros[1])
