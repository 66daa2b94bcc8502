"""Views: tensors that share memory, the movement ops behind each, and writes through them."""

from __future__ import annotations

from typing import Any

from tracecc.autograd.tape import record
from tracecc.dispatch import expr
from tracecc.state import enable_grad, thread
from tracecc.tensor import Tensor, _new, _setup
from tracecc_ir.interpret import evaluate
from tracecc_ir.op import Attrs, Expr, Op
from tracecc_ir.ops import complex as join
from tracecc_ir.ops import (
    dynamic_update,
    flip,
    imag,
    iota,
    permute,
    real,
    reshape,
    scatter,
    view_as_complex,
    view_as_real,
)
from tracecc_ir.ops import slice as slice_op
from tracecc_ir.types import TensorType, i64


def view(x: Tensor, op: Op, attrs: Attrs) -> Tensor:
    """The result of a movement op on ``x`` as a view: it shares memory, writes go through.

    Raises RuntimeError if a concrete tensor's strides do not allow it (reshape needs a copy).
    """
    attrs = op.bind(attrs)
    (type_,) = op.result_types([x._type], attrs)
    v = _new(Tensor)
    array = None
    if x._array is not None:
        if op is reshape:
            array = reshape_strides(x, type_)
        else:
            (array,) = evaluate(op, [x._array], attrs)
    _setup(v, array, type_, x._storage)
    v._chain = (*x._chain, (op, attrs))
    v._base = x._base if x._base is not None else x
    v._history = x._storage.history
    if thread.grad_enabled and x._requires_grad:
        record(op, (x,), (v,), attrs)
    return v


def reshape_strides(x: Tensor, type_: TensorType) -> Any:
    array = x._array
    assert array is not None
    out = array.view()
    try:
        out.shape = type_.sizes
    except AttributeError:
        raise RuntimeError(
            f"view size {list(type_.shape)} is not compatible with the tensor's size "
            f"{list(array.shape)} and stride; use reshape() instead"
        ) from None
    return out


def can_view(x: Tensor, shape: tuple) -> bool:
    """Whether ``reshape`` of ``x`` needs no copy (traced: by the strides it would have)."""
    if x._array is None:
        return all(op is not permute and op is not slice_op for op, _ in x._chain)
    try:
        x._array.view().shape = shape
    except AttributeError:
        return False
    return True


def replay(base: Expr, chain: tuple) -> Expr:
    """The view that ``chain`` describes, as ops on the base's current value."""
    for op, attrs in chain:
        base = op(base, **attrs)
    return base


def write_through(base: Expr, chain: tuple, new: Expr) -> Expr:
    """The base after its view (by ``chain``) was overwritten with ``new``."""
    if not chain:
        return new
    (op, attrs), rest = chain[0], chain[1:]
    inner = op(base, **attrs)
    return _invert(op, attrs, base, write_through(inner, rest, new))


def _invert(op: Op, attrs: Attrs, base: Expr, new: Expr) -> Expr:
    """The base after the result of one movement op on it was replaced by ``new``."""
    if op is reshape:
        return reshape(new, shape=base.shape)
    if op is permute:
        axes = attrs["axes"]
        return permute(new, axes=tuple(axes.index(i) for i in range(len(axes))))
    if op is flip:
        return flip(new, axes=attrs["axes"])
    if op is real:
        return join(new, imag(base))
    if op is imag:
        return join(real(base), new)
    if op is view_as_real:
        return view_as_complex(new)
    if op is view_as_complex:
        return view_as_real(new)
    if op is slice_op:
        starts, strides = attrs["starts"], attrs["strides"]
        if all(s == 1 for s in strides):
            at = [base.full(s, shape=(), dtype=i64) for s in starts]
            return dynamic_update(base, new, *at)
        indices = [
            iota(like=base, shape=new.shape, axis=d, dtype=i64) * strides[d] + starts[d]
            for d in range(base.ndim)
        ]
        return scatter(base, *indices, new, axes=tuple(range(base.ndim)), mode="set")
    raise RuntimeError(
        "unsupported operation: more than one element of the written-to tensor refers to a single "
        f"memory location (it was made by {op.name}); clone() the tensor before writing"
    )


def take_history(t: Tensor, result: Tensor, updated: Tensor | None) -> None:
    """After an in-place write of ``result`` into ``t``: gradients now flow through the write.

    ``updated`` is the whole base after the write, if a trace has computed it already.
    """
    base = t._base if t._base is not None else t
    if t._base is None:
        updated = result
    elif updated is None:
        with enable_grad():
            updated = write_through(expr(base), t._chain, expr(result)).value
    assert updated is not None
    base._grad_fn, base._output_index = updated._grad_fn, updated._output_index
    base._requires_grad = updated._requires_grad
    base._storage.history += 1
    base._history = base._storage.history
    if base is not t:
        refresh_history(t)


def refresh_history(v: Tensor) -> None:
    """Derives a view's history anew from its base's."""
    assert v._base is not None
    v._history = v._storage.history
    if not v._base._requires_grad:
        return
    with enable_grad():
        fresh = replay(expr(v._base), v._chain).value
    v._grad_fn, v._output_index = fresh._grad_fn, fresh._output_index
    v._requires_grad = True
