"""Linear algebra: norms, products, and what the triangular primitives give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracecc.functional.core import Dims, reshaped, wrap_dim
from tracecc.functional.linalg import (
    chain_matmul,
    cross,
    matmul,
    nuclear_norm,
    solve_triangular,
)
from tracecc.functional.linalg import cholesky as _cholesky
from tracecc.functional.pointwise import abs as _abs
from tracecc.functional.pointwise import mul
from tracecc.functional.reductions import amax, amin, vector_norm
from tracecc.functional.reductions import sum as _sum
from tracecc.functional.shape import diagonal as _diagonal
from tracecc.tensor import Tensor
from tracecc_ir.types import DType

__all__ = [
    "cholesky",
    "cross",
    "diagonal",
    "matmul",
    "matrix_norm",
    "multi_dot",
    "norm",
    "solve_triangular",
    "vecdot",
    "vector_norm",
]


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The lower (or upper) triangular L with L @ L.mT = A, for positive definite A.

    >>> import tracecc as tc
    >>> tc.linalg.cholesky(tc.tensor([[4.0, 2.0], [2.0, 5.0]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    if A.ndim < 2 or A._type.shape[-1] != A._type.shape[-2]:
        raise RuntimeError(
            f"linalg.cholesky: A must be batches of square matrices, given {A._type}"
        )
    return _cholesky(A, upper)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """A view of the diagonals of matrices."""
    return _diagonal(A, offset, dim1, dim2)


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of several matrices."""
    return chain_matmul(*tensors)


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Inner products along a dimension."""
    return _sum(mul(x, y), dim)


def matrix_norm(
    A: Tensor,
    ord: Any = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    """Norms of matrices: "fro", "nuc", 1, -1, inf or -inf."""
    if A.ndim < 2:
        raise RuntimeError(f"linalg.matrix_norm: A must have at least 2 dimensions, given {A.ndim}")
    if ord == "fro":
        return vector_norm(A, 2, tuple(dim), keepdim, dtype=dtype)
    if ord == "nuc":
        return nuclear_norm(A, tuple(dim), keepdim)
    rows, columns = (wrap_dim(d, A.ndim) for d in dim)
    added, kept = (rows, columns) if abs(ord) == 1 else (columns, rows)
    if ord not in (1, -1, float("inf"), float("-inf")):
        raise RuntimeError(f"linalg.matrix_norm: order {ord} not supported")
    totals = _sum(_abs(A), added, True)
    best = (amax if ord > 0 else amin)(totals, kept, True)
    if keepdim:
        return best
    shape = [n for i, n in enumerate(A._type.shape) if i not in (rows, columns)]
    return reshaped(best, shape)


def norm(
    A: Tensor,
    ord: Any = None,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    """The 2-norm of all elements; with ``ord`` the norm of vectors (one dim) or matrices (two)."""
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    if dim is None and (isinstance(ord, str) or A.ndim == 2):
        return matrix_norm(A, ord, (-2, -1), keepdim, dtype=dtype)
    if isinstance(ord, str) or (not isinstance(dim, int) and dim is not None and len(dim) == 2):
        return matrix_norm(A, ord, dim, keepdim, dtype=dtype)  # type: ignore[arg-type]
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)
