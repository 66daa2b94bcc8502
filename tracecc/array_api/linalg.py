"""Linear algebra of the array API: :mod:`tracecc.linalg` with the standard's names."""

from __future__ import annotations

from typing import Any

import tracecc as tc
from tracecc.array_api.reductions import sum
from tracecc.linalg import (
    cholesky,
    det,
    eigh,
    eigvalsh,
    inv,
    matrix_power,
    slogdet,
    svdvals,
)
from tracecc.tensor import Tensor

__all__ = [
    "cholesky", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "matmul", "matrix_norm",
    "matrix_power", "matrix_rank", "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve",
    "svd", "svdvals", "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip


def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The cross product of vectors of 3 elements along an axis."""
    return tc.linalg.cross(*tc.broadcast_tensors(x1, x2), dim=axis)


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The diagonals of matrices."""
    return tc.diagonal(x, offset, -2, -1)


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The product of matrices, of matrices and vectors, or of vectors."""
    dtype = tc.promote_types(x1.dtype, x2.dtype)
    return tc.matmul(x1.to(dtype), x2.to(dtype))


def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """The norms of matrices."""
    return tc.linalg.matrix_norm(x, ord, keepdim=keepdims)


def matrix_rank(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """How many singular values exceed ``rtol`` times the largest."""
    return tc.linalg.matrix_rank(x, rtol=rtol)


def matrix_transpose(x: Tensor, /) -> Tensor:
    """Matrices with rows for columns."""
    return x.mT


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """All products of an element of a vector with one of another."""
    return tc.outer(x1, x2)


def pinv(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """The pseudo-inverses of matrices."""
    return tc.linalg.pinv(x, rtol=rtol)


def qr(x: Tensor, /, *, mode: str = "reduced") -> Any:
    """Orthonormal columns Q and upper triangular R with x = Q R."""
    return tc.linalg.qr(x, mode)


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The solutions X of x1 X = x2: x2 is a vector only where it has one axis."""
    return tc.linalg.solve(x1, x2[None] if x2.ndim == x1.ndim - 1 > 1 else x2)


def svd(x: Tensor, /, *, full_matrices: bool = True) -> Any:
    """Singular vectors and values: x = U diag(S) Vh."""
    return tc.linalg.svd(x, full_matrices)


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: Any = 2) -> Tensor:
    """Sums of products over pairs of axes."""
    dtype = tc.promote_types(x1.dtype, x2.dtype)
    return tc.tensordot(x1.to(dtype), x2.to(dtype), axes)


def trace(x: Tensor, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sums of diagonals; of integers in the default integer type."""
    return sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The sums of conj(x1) * x2 along an axis."""
    dtype = tc.promote_types(x1.dtype, x2.dtype)
    return tc.linalg.vecdot(x1.to(dtype), x2.to(dtype), dim=axis).to(dtype)


def vector_norm(
    x: Tensor, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2
) -> Tensor:
    """The norms of vectors along axes; of the whole array for None."""
    return tc.linalg.vector_norm(x, ord, axis, keepdims)
