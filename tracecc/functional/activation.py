"""Softmax along a dimension, the composites that every model meets."""

from __future__ import annotations

from typing import Any

from tracecc.functional.core import check_tensor, emit, reshaped, to_dtype, wrap_dim
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.op import Op
from tracecc_ir.types import DType


def _rowwise(op: Op, input: Tensor, dim: Any, dtype: DType | None) -> Tensor:
    x = to_dtype(check_tensor(op.name, input), dtype) if dtype is not None else input
    if x.dtype.kind != "float":
        raise NotImplementedError(f'"{op.name}" not implemented for {x.dtype.public}')
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
    axis = wrap_dim(dim, x.ndim)
    if x.ndim == 0:
        return reshaped(emit(op, reshaped(x, (1,)), axis=0), ())
    return emit(op, x, axis=axis)


def softmax(input: Tensor, dim: Any, *, dtype: DType | None = None) -> Tensor:
    """exp(x) over its sum along ``dim``, without overflow; computed in ``dtype`` if given.

    >>> import tracecc as tc
    >>> tc.softmax(tc.zeros(2), dim=0)
    tensor([0.5000, 0.5000])
    """
    return _rowwise(ops.softmax, input, dim, dtype)


def log_softmax(input: Tensor, dim: Any, *, dtype: DType | None = None) -> Tensor:
    """The logarithm of `softmax`, accurate for small probabilities."""
    return _rowwise(ops.log_softmax, input, dim, dtype)
