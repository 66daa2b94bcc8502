"""Eigenvalues and eigenvectors of any square matrices, which are complex."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import LinAlgError
from tracecc_ir.op import Expr, Op, Sample
from tracecc_ir.ops.complex import conj, real
from tracecc_ir.ops.linalg import (
    DTYPES,
    Arrays,
    adjoint,
    as_row,
    cast_like,
    check_square,
    identity,
    matmul,
    on_diagonal,
    refusing,
)
from tracecc_ir.ops.linalg_solve import solve
from tracecc_ir.ops.linalg_spectral import reciprocal_gaps
from tracecc_ir.ops.reduce import reduce_sum
from tracecc_ir.ops.rules import draw
from tracecc_ir.types import DType, TensorType


def _eig_type(x: TensorType) -> tuple[TensorType, TensorType]:
    check_square("eig", x)
    v = x.with_dtype(x.dtype.to_complex())
    return v.with_shape(x.shape[:-1]), v


def _eig(x: np.ndarray) -> Arrays:
    if not np.isfinite(x).all():
        raise LinAlgError("linalg.eig: input tensor should not contain infs or NaNs.")
    kind = np.result_type(x, np.complex64)
    problem = "linalg.eig: the algorithm failed to converge"
    return tuple(y.astype(kind, copy=False) for y in refusing(np.linalg.eig, problem, x))


def _eig_vjp(gs: Any, outs: Any, x: Expr) -> tuple:
    """V^-H (diag(w') + E * (V^H V' - V^H V diag(Re(V^H V')))) V^H, E[i, j] = 1 / (w[j] - w[i])*.

    The vectors have norm 1 and any phase; a function of them must not depend on it (Boeddeker et
    al., arXiv:1701.00392).
    """
    (gw, gv), (w, v) = gs, outs
    vh = adjoint(v)
    inner = matmul(vh, gv)
    lengths = cast_like(real(_diagonal_of(inner)), v)
    inner = inner - matmul(vh, v) * as_row(lengths, v)
    inner = on_diagonal(gw) + reciprocal_gaps(conj(w)) * inner
    dx = solve(vh, matmul(inner, vh), check=False)
    return (cast_like(dx, x),)


def _diagonal_of(x: Expr) -> Any:
    return reduce_sum(identity(x) * x, axes=(x.ndim - 1,))


def _eig_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((3, 3), (2, 4, 4), (1, 1), (0, 2, 2), (0, 0)):
        yield Sample((draw(rng, dtype, *shape),))


eig: Op = Op(
    "eig",
    "linalg",
    _eig_type,
    _eig,
    _eig_vjp,
    dtypes=DTYPES,
    samples=_eig_samples,
    doc="complex eigenvalues in no order and eigenvectors (columns) of norm 1",
)
