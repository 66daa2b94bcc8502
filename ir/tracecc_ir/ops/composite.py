"""What composites share: their definition, and the casts and broadcasts between primitives.

A composite's meaning is its decomposition. 16-bit floats are computed in f32 inside one composite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tracecc_ir.dims import Size
from tracecc_ir.op import Expr, Op, Usual
from tracecc_ir.ops.elementwise import cast
from tracecc_ir.ops.movement import broadcast
from tracecc_ir.ops.reduce import reduce_sum, restore
from tracecc_ir.ops.rules import others
from tracecc_ir.passes.grad import Derived
from tracecc_ir.types import FLOATS, DType, TensorType, f32

Ints = tuple[int, ...]


def composite(
    name: str,
    infer: Callable[..., Any],
    decomposition: Callable[..., Any],
    vjp: Any = None,
    dtypes: tuple[DType, ...] = FLOATS,
    samples: Callable | None = None,
    doc: str = "",
    domain: Any = (-3.0, 3.0),
    usual: Mapping[str, Usual] | None = None,
) -> Op:
    """An op that is spelled out in others, and so is its derivative unless ``vjp`` is given."""
    return Op(
        name,
        "composite",
        infer,
        vjp=Derived() if vjp is None else vjp,
        decomposition=decomposition,
        dtypes=dtypes,
        samples=samples,
        usual=usual or {},
        doc=doc,
        domain=domain,
    )


def wide_dtype(dtype: DType) -> DType:
    """What a composite computes in."""
    return f32 if dtype.kind == "float" and dtype.bits == 16 else dtype


def widen(x: Expr) -> Any:
    dtype = wide_dtype(x.dtype)
    return x if dtype is x.dtype else cast(x, dtype=dtype)


def narrow(y: Expr, like: Expr) -> Any:
    return y if y.dtype is like.dtype else cast(y, dtype=like.dtype)


def count(x: Expr, axes: Ints) -> Any:
    """How many elements a reduction over ``axes`` takes together, as a number in ``x``'s dtype.

    A symbolic count is summed up from ones, so that it is known when the graph runs.
    """
    total: Size = 1
    for a in axes:
        total = total * x.shape[a]
    if isinstance(total, int):
        return total
    ones = x.full(1.0, shape=tuple(x.shape[a] for a in axes))
    return reduce_sum(ones, axes=tuple(range(len(axes))))


def divided(x: Expr, by: Any) -> Any:
    """``x`` over a number, or over a 0-d Expr."""
    return x / (broadcast(by, shape=x.shape, axes=()) if isinstance(by, Expr) else float(by))


def averaged(x: Expr, axes: Ints) -> Any:
    return divided(reduce_sum(x, axes=axes), count(x, axes))


def spread(x: Expr, like: Expr, axes: Ints) -> Any:
    """``x``, which lacks ``axes`` of ``like``, repeated along them."""
    return restore(x, like, axes)


def along(x: Expr, like: Expr, axes: Ints) -> Any:
    """``x``, whose dimensions are ``axes`` of ``like``, repeated to its shape."""
    return broadcast(x, shape=like.shape, axes=axes)


def rest(x: Expr | TensorType, axes: Ints) -> Ints:
    return others(x.ndim, axes)
