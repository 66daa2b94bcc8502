"""Linear systems, inverses, determinants, functions of matrices, and their norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tracecc.dispatch import apply
from tracecc.functional.complex import conj
from tracecc.functional.core import (
    Dims,
    broadcast_shapes,
    check_tensor,
    count,
    emit,
    expanded,
    permuted,
    reshaped,
    splat,
    to_dtype,
    wrap_dim,
)
from tracecc.functional.factor import (
    batched,
    check_float,
    eigh,
    eigvalsh,
    empty_of,
    eye_like,
    eye_of,
    lu_factor_ex,
    matrices,
    owned_swap,
    same_dtype,
    smaller,
    svdvals,
    swapped,
)
from tracecc.functional.linalg import matmul
from tracecc.functional.logic import eq, gt, lt
from tracecc.functional.pointwise import abs as abs_
from tracecc.functional.pointwise import add, clone, div, log, maximum, mul, square, sub, where
from tracecc.functional.reductions import all as all_
from tracecc.functional.reductions import amax, amin, vector_norm
from tracecc.functional.reductions import sum as sum_
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.types import DType, i64


class Solution(NamedTuple):
    """The solution, and per system 0 or the number of the first pivot that is zero."""

    result: Tensor
    info: Tensor


class Inverse(NamedTuple):
    """The inverse, and per matrix 0 or the number of the first pivot that is zero."""

    inverse: Tensor
    info: Tensor


class LogDet(NamedTuple):
    """The sign of a determinant and the logarithm of its absolute value."""

    sign: Tensor
    logabsdet: Tensor


class LeastSquares(NamedTuple):
    """What `lstsq` gives; empty where its driver computes nothing."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


class Triangular(NamedTuple):
    """What `torch.triangular_solve` gives."""

    solution: Tensor
    cloned_coefficient: Tensor


# Square systems.


def _is_vector(A: Tensor, B: Tensor) -> bool:
    """Whether B holds right-hand sides as vectors, by PyTorch's rule."""
    return B.ndim == 1 or (A.ndim - 1 == B.ndim and A._type.shape[:-1] == B._type.shape)


def _solve(name: str, A: Tensor, B: Tensor, left: bool, check: bool) -> Tensor:
    matrices(name, A, square=True)
    check_tensor(name, B, "B")
    same_dtype(name, A, B)
    if _is_vector(A, B):
        column = reshaped(B, (*B._type.shape, 1))
        x = _solve(name, A, column, left, check) if left else _row_solve(name, A, column, check)
        return reshaped(x, x._type.shape[:-1])
    matrices(name, B, "B")
    if not left:
        return owned_swap(_solve(name, swapped(A), swapped(B), True, check))
    if A._type.shape[-1] != B._type.shape[-2]:
        a, b = ("x".join(map(str, t._type.shape[-2:])) for t in (A, B))
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation AX = B ({a} and {b})"
        )
    return emit(ops.solve, *batched(A, B), check=check)


def _row_solve(name: str, A: Tensor, column: Tensor, check: bool) -> Tensor:
    """x with x^T A = b^T for columns b."""
    return _solve(name, swapped(A), column, True, check)


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A @ X = B (X @ A = B if not ``left``), for square A of full rank.

    Args:
        A: [..., n, n], f32, f64 or complex.
        B: [..., n, k], or vectors [..., n]; batch dimensions broadcast.
        left: the side of A.

    Raises:
        LinAlgError: some matrix is singular.

    >>> import tracecc as tc
    >>> tc.linalg.solve(tc.tensor([[2.0, 0.0], [0.0, 4.0]]), tc.tensor([2.0, 2.0]))
    tensor([1.0000, 0.5000])
    """
    return _solve("linalg.solve", A, B, left, True)


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Solution:
    """`solve` that reports singular matrices in ``info`` instead of raising."""
    x = _solve("linalg.solve_ex", A, B, left, check_errors)
    return Solution(x, lu_factor_ex(A.detach()).info)


def inv(A: Tensor) -> Tensor:
    """The inverse of square matrices; raises LinAlgError if one is singular."""
    matrices("linalg.inv", A, square=True)
    return emit(ops.solve, A, eye_of(A.dtype, *A._type.shape))


def inv_ex(A: Tensor, *, check_errors: bool = False) -> Inverse:
    """`inv` that reports singular matrices in ``info`` instead of raising."""
    matrices("linalg.inv_ex", A, square=True)
    inverse = emit(ops.solve, A, eye_of(A.dtype, *A._type.shape), check=check_errors)
    return Inverse(inverse, lu_factor_ex(A.detach()).info)


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """X with A @ X = B (or X @ A = B) for triangular A."""
    name = "linalg.solve_triangular"
    a, b = batched(matrices(name, A, square=True), matrices(name, B, "B"))
    same_dtype(name, a, b)
    if A._type.shape[-1] != B._type.shape[-2 if left else -1]:
        shapes = " and ".join("x".join(map(str, t._type.shape[-2:])) for t in (A, B))
        equation = "AX" if left else "XA"
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation {equation} = B ({shapes})"
        )
    attrs = {"lower": not upper, "transpose": not left, "unit": unitriangular}
    if left:
        return emit(ops.triangular_solve, a, b, **attrs)
    return owned_swap(emit(ops.triangular_solve, a, swapped(b), **attrs))


def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Triangular:
    """`torch.triangular_solve`: X with A @ X = b, and a copy of A."""
    name = "triangular_solve"
    x, y = batched(matrices(name, A, square=True), matrices(name, b, "b"))
    attrs = {"lower": not upper, "transpose": transpose, "unit": unitriangular}
    return Triangular(emit(ops.triangular_solve, x, y, **attrs), clone(x))


def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse of A as a map from its last dimensions to its first ``ind``."""
    if ind <= 0:
        raise RuntimeError("Expected a strictly positive integer for 'ind'")
    front, back = A._type.shape[:ind], A._type.shape[ind:]
    if count(front) != count(back):
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[ind:]) == "
            f"prod(self.shape[:ind]), but got {count(back)} != {count(front)}"
        )
    return reshaped(inv(reshaped(A, (count(front), count(back)))), (*back, *front))


def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """X with tensordot(A, X, X.ndim) = B; ``dims`` of A go last first."""
    if dims is not None:
        last = [wrap_dim(d, A.ndim) for d in dims]
        A = permuted(A, [i for i in range(A.ndim) if i not in last] + last)
    shape = A._type.shape[B.ndim :]
    if count(A._type.shape[: B.ndim]) != count(shape):
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == "
            f"prod(self.shape[:other.ndim]), but got {count(shape)} != "
            f"{count(A._type.shape[: B.ndim])}"
        )
    flat = reshaped(A, (B._type.size, count(shape)))
    return reshaped(solve(flat, reshaped(B, (B._type.size,))), shape)


# Determinants.


def det(A: Tensor) -> Tensor:
    """The determinant of square matrices; differentiable also where it is zero."""
    return emit(ops.det, matrices("linalg.det", A, square=True))


def slogdet(A: Tensor) -> LogDet:
    """The sign of the determinant and the logarithm of its absolute value."""
    return LogDet(*apply(ops.slogdet, (matrices("linalg.slogdet", A, square=True),)))


def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinant; NaN where it is negative."""
    sign, size = apply(ops.slogdet, (matrices("logdet", input, "input", square=True),))
    return add(log(sign), size) if sign.dtype.is_complex else where(lt(sign, 0), math.nan, size)


# Least squares and rank.


def _epsilon(A: Tensor) -> float:
    longer: Any = max(A._type.shape[-2:])
    return float(np.finfo(A.dtype.numpy).eps) * longer


def _bounds(A: Tensor, atol: Any, rtol: Any) -> list[Tensor]:
    """Absolute and relative bounds on what counts as zero, one per matrix."""
    dtype = A.dtype.to_real()
    if rtol is None:
        default = _epsilon(A)
        if atol is None:
            rtol = default
        elif isinstance(atol, Tensor):
            rtol = where(gt(atol, 0), 0.0, default)
        else:
            rtol = 0.0 if atol > 0 else default
    given = [0.0 if atol is None else atol, rtol]
    lead = A._type.shape[:-2]
    return [
        expanded(to_dtype(b, dtype), lead) if isinstance(b, Tensor) else splat(b, lead, dtype)
        for b in given
    ]


def pinv(
    A: Tensor,
    rcond: Any = None,
    hermitian: bool = False,
    *,
    atol: Any = None,
    rtol: Any = None,
) -> Tensor:
    """The pseudo-inverse [..., n, m] of matrices [..., m, n].

    Args:
        A: f32, f64 or complex.
        rcond: an older name of ``rtol``.
        hermitian: whether A is Hermitian; then only its lower triangle is read.
        atol, rtol: numbers or one per matrix: singular values up to max(atol, rtol * largest) count
            as zero. ``rtol`` is eps * max(m, n) by default, 0 if ``atol`` is given.
    """
    matrices("linalg.pinv", A, square=hermitian)
    bounds = _bounds(A, atol, rcond if rtol is None else rtol)
    if not A._type.size:
        return clone(swapped(A))
    if hermitian:
        return _hermitian_pinv(A, *bounds)
    lead = broadcast_shapes(A._type.shape[:-2], *(b._type.shape for b in bounds))
    return emit(ops.pinv, expanded(A, (*lead, *A._type.shape[-2:])), *bounds)


def _hermitian_pinv(A: Tensor, atol: Tensor, rtol: Tensor) -> Tensor:
    """By eigenvalues."""
    values, vectors = eigh(A)
    sizes = abs_(values.detach())
    bound = maximum(atol, mul(rtol, amax(sizes, -1)))
    kept = gt(sizes, reshaped(bound, (*bound._type.shape, 1)))
    inverse = where(kept, div(1.0, where(kept, values, 1.0)), 0.0)
    left = mul(vectors, reshaped(inverse, (*inverse._type.shape[:-1], 1, inverse._type.shape[-1])))
    return matmul(left, conj(swapped(vectors)))


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """`torch.pinverse`: the pseudo-inverse."""
    return pinv(input, rtol=rcond)


def _nonzero_values(A: Tensor, hermitian: bool) -> Tensor:
    return abs_(eigvalsh(A)) if hermitian else svdvals(A)


def matrix_rank(
    A: Tensor,
    tol: Any = None,
    hermitian: bool = False,
    *,
    atol: Any = None,
    rtol: Any = None,
) -> Tensor:
    """How many singular values exceed max(atol, rtol * largest) (``tol`` if given), int64."""
    A = matrices("linalg.matrix_rank", A, square=hermitian).detach()
    if tol is not None:
        atol, rtol = tol, 0.0
    values = _nonzero_values(A, hermitian)
    if not values._type.shape[-1]:
        return clone(splat(0, A._type.shape[:-2], i64))
    if isinstance(atol, Tensor) or isinstance(rtol, Tensor):
        shapes = [b._type.shape for b in (atol, rtol) if isinstance(b, Tensor)]
        lead = broadcast_shapes(A._type.shape[:-2], *shapes)
        A, values = expanded(A, (*lead, *A._type.shape[-2:])), values
    absolute, relative = _bounds(A, atol, rtol)
    bound = maximum(absolute, mul(relative, amax(values, -1)))
    return sum_(gt(values, reshaped(bound, (*bound._type.shape, 1))), -1)


def lstsq(
    A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None
) -> LeastSquares:
    """The X of least norm that minimises the norm of A @ X - B, by the pseudo-inverse.

    Args:
        A: [..., m, n], f32, f64 or complex.
        B: [..., m, k], or vectors [..., m].
        rcond: singular values up to rcond * largest count as zero; eps * max(m, n) by default.
        driver: "gels", "gelsy" (default), "gelsd" or "gelss": which of residuals, rank and singular
            values are computed, as in PyTorch; the solution is the same.
    """
    drivers = ("gels", "gelsy", "gelsd", "gelss")
    if driver is not None and driver not in drivers:
        raise RuntimeError(
            f"torch.linalg.lstsq: parameter `driver` should be one of {drivers}, given {driver!r}"
        )
    driver = driver or "gelsy"
    matrices("torch.linalg.lstsq", A, "input")
    same_dtype("torch.linalg.lstsq", A, B)
    vector = _is_vector(A, B)
    b = reshaped(B, (*B._type.shape, 1)) if vector else matrices("torch.linalg.lstsq", B, "other")
    if b._type.shape[-2] != A._type.shape[-2]:
        raise RuntimeError(
            f"torch.linalg.lstsq: input.size(-2) should match other.size({-1 if vector else -2}), "
            f"given {A._type.shape[-2]} and {b._type.shape[-2]}"
        )
    x = matmul(pinv(A, rtol=rcond), b)
    solution = reshaped(x, x._type.shape[:-1]) if vector else x
    values, residuals = (empty_of(abs_(t)) for t in (A.detach(), x))
    rank = to_dtype(values, i64)
    if driver != "gels":
        rank = matrix_rank(A, rtol=rcond)
    if driver in ("gelsd", "gelss"):
        values = svdvals(A.detach())
    m, n = A._type.shape[-2:]
    tall = m > n  # type: ignore[operator]
    if tall and driver != "gelsy" and (driver == "gels" or bool(all_(eq(rank, n)))):
        residuals = sum_(square(abs_(sub(matmul(A, x), b))), -2)
    return LeastSquares(solution, residuals, rank, values)


# Functions of matrices.


def matrix_exp(A: Tensor) -> Tensor:
    """The exponential of square matrices."""
    return emit(ops.matrix_exp, matrices("linalg.matrix_exp", A, square=True))


def matrix_power(A: Tensor, n: int) -> Tensor:
    """The n-th power of square matrices by repeated squaring; of the inverse for negative n."""
    if not isinstance(n, (int, np.integer)):
        raise TypeError(f"matrix_power(): argument 'n' must be int, not {type(n).__name__}")
    check_tensor("linalg.matrix_power", A, "A")
    if A.ndim < 2 or A._type.shape[-1] != A._type.shape[-2]:
        raise RuntimeError(
            f"linalg.matrix_power: A must be batches of square matrices, given {A._type}"
        )
    if n == 0:
        return eye_like(A)
    if n < 0:
        return matrix_power(inv(A), -n)
    if n == 1:
        return clone(A)
    half = matrix_power(A, n // 2)
    both = matmul(half, half)
    return matmul(both, A) if n % 2 else both


# Norms.


def matrix_norm(
    A: Tensor,
    ord: Any = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Tensor:
    """Norms of matrices: "fro", "nuc", 1, -1, 2, -2, inf or -inf."""
    name = "linalg.matrix_norm"
    if check_tensor(name, A, "A").ndim < 2:
        raise RuntimeError(f"{name}: A must have at least 2 dimensions, given {A.ndim}")
    if len(dim) != 2:
        raise RuntimeError(f"{name}: dim must be a 2-tuple, given {tuple(dim)}")
    if dtype is not None:
        A = to_dtype(A, dtype)
    rows, columns = (wrap_dim(d, A.ndim) for d in dim)
    if rows == columns:
        raise RuntimeError(f"{name}: dims must be different, given {tuple(dim)}")
    if ord == "fro":
        return vector_norm(A, 2, (rows, columns), keepdim)
    kept = [n for i, n in enumerate(A._type.shape) if i not in (rows, columns)]
    if keepdim:
        kept = [1 if i in (rows, columns) else n for i, n in enumerate(A._type.shape)]
    if ord in ("nuc", 2, -2):
        check_float(name, A)
        rest = [i for i in range(A.ndim) if i not in (rows, columns)]
        values = svdvals(permuted(A, [*rest, rows, columns]))
        how: Callable = sum_ if ord == "nuc" else (amax if ord > 0 else amin)
        return reshaped(how(values, -1), kept)
    if ord not in (1, -1, math.inf, -math.inf):
        raise RuntimeError(f"{name}: Order {ord} not supported.")
    if not A.dtype.is_inexact:
        raise RuntimeError(f"{name}: Expected a floating point tensor, given {A.dtype.public}")
    added, best = (rows, columns) if abs(ord) == 1 else (columns, rows)
    totals = sum_(abs_(A), added, True)
    return reshaped((amax if ord > 0 else amin)(totals, best, True), kept)


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
        if A.ndim != 2:
            raise RuntimeError(
                f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. "
                f"Got {A.ndim}D."
            )
        return matrix_norm(A, ord, (-2, -1), keepdim, dtype=dtype)
    if isinstance(ord, str) or (not isinstance(dim, int) and dim is not None and len(dim) == 2):
        return matrix_norm(A, ord, dim, keepdim, dtype=dtype)  # type: ignore[arg-type]
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)


def nuclear_norm(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The sum of singular values."""
    dims = (-2, -1) if dim is None else tuple(dim)  # type: ignore[arg-type]
    return matrix_norm(input, "nuc", dims, keepdim)


def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number: norm(A) * norm(inverse), by singular values for p None, 2 and -2."""
    matrices("linalg.cond", A, square=p not in (None, 2, -2))
    if p in (None, 2, -2):
        values = svdvals(A)
        if not values._type.shape[-1]:
            return clone(splat(0, values._type.shape[:-1], values.dtype))
        largest, smallest = amax(values, -1), amin(values, -1)
        return div(smallest, largest) if p == -2 else div(largest, smallest)
    if not smaller(A):
        return clone(splat(0, A._type.shape[:-2], A.dtype.to_real()))
    inverse = emit(ops.solve, A, eye_of(A.dtype, *A._type.shape), check=False)
    return mul(matrix_norm(A, p), matrix_norm(inverse, p))
