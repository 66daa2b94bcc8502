"""`torch.linalg`: products, factorisations, solutions and norms of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracecc.arguments import check_all
from tracecc.casts import wrap_all
from tracecc.functional.complex import conj
from tracecc.functional.core import arange_like, emit, expanded, reshaped
from tracecc.functional.factor import cholesky as _cholesky
from tracecc.functional.factor import (
    cholesky_ex,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    householder_product,
    lu,
    lu_factor,
    lu_factor_ex,
    lu_solve,
    qr,
    svd,
    svdvals,
)
from tracecc.functional.linalg import chain_matmul, matmul
from tracecc.functional.linalg import cross as _cross
from tracecc.functional.logic import eq
from tracecc.functional.pointwise import mul, where
from tracecc.functional.reductions import cumprod, vector_norm
from tracecc.functional.reductions import sum as _sum
from tracecc.functional.shape import diagonal as _diagonal
from tracecc.functional.solving import (
    cond,
    det,
    inv,
    inv_ex,
    lstsq,
    matrix_exp,
    matrix_norm,
    matrix_power,
    matrix_rank,
    norm,
    pinv,
    slogdet,
    solve,
    solve_ex,
    solve_triangular,
    tensorinv,
    tensorsolve,
)
from tracecc.lacking import unknown
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.errors import LinAlgError

__all__ = [
    "LinAlgError",
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "householder_product",
    "inv",
    "inv_ex",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_factor_ex",
    "lu_solve",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_ex",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensorinv",
    "tensorsolve",
    "vander",
    "vecdot",
    "vector_norm",
]


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The lower (or upper) triangular L with L @ L.mT = A, for positive definite A.

    >>> import tracecc as tc
    >>> tc.linalg.cholesky(tc.tensor([[4.0, 2.0], [2.0, 5.0]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    return _cholesky(A, upper)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """A view of the diagonals of matrices."""
    return _diagonal(A, offset, dim1, dim2)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross product of vectors of three elements along ``dim``."""
    return _cross(input, other, dim)


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of two or more matrices; the first and the last may be vectors."""
    if len(tensors) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(tensors)}")
    first, *middle, last = tensors
    row, column = first.ndim == 1, last.ndim == 1
    for i, x in enumerate(tensors):
        end = i in (0, len(tensors) - 1)
        if x.ndim != 2 and not (end and x.ndim == 1):
            raise RuntimeError(
                f"multi_dot(): tensor {i} must be {'1D or 2D' if end else '2D'} but got {x.ndim}D"
            )
    if row:
        first = reshaped(first, (1, first._type.size))
    if column:
        last = reshaped(last, (last._type.size, 1))
    product = chain_matmul(first, *middle, last)
    shape = list(product._type.shape)
    return reshaped(product, ([] if row else shape[:1]) + ([] if column else shape[1:]))


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Inner products along a dimension, the first operand conjugated."""
    return _sum(mul(conj(x), y), dim)


def vander(x: Tensor, N: int | None = None) -> Tensor:
    """Vandermonde matrices: row i holds the powers 0 .. N-1 of x[..., i]."""
    x = reshaped(x, (1,)) if x.ndim == 0 else x
    size: Any = x._type.shape[-1] if N is None else N
    if size <= 1 and N is not None:
        raise RuntimeError(f"N must be greater than 1, given {N}")
    shape = (*x._type.shape, size)
    power = arange_like(size, shape, x.ndim)
    base = emit(ops.broadcast, x, shape=shape, axes=tuple(range(x.ndim)))
    return cumprod(where(eq(power, 0), 1, expanded(base, shape)), -1)


wrap_all(globals(), (n for n in __all__ if n != "LinAlgError"), "linalg.")
check_all(globals(), __all__, "linalg_")
