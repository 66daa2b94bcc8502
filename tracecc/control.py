"""Control flow on tensor values: `cond`, `while_loop` and `scan`, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracecc.dispatch import apply
from tracecc.functional import stack
from tracecc.pytree import flatten, unflatten
from tracecc.state import no_grad, thread
from tracecc.tensor import Tensor
from tracecc.trace.errors import TraceError
from tracecc.trace.location import user_location
from tracecc.trace.region import Region
from tracecc_ir.ops import cond as cond_op
from tracecc_ir.ops import scan as scan_op
from tracecc_ir.ops import while_ as while_op


def cond(
    pred: Tensor | bool, true_fn: Callable, false_fn: Callable, operands: Sequence[Any] = ()
) -> Any:
    """``true_fn(*operands)`` if ``pred`` holds, else ``false_fn(*operands)``.

    Eager, only one of them runs. Under a trace both become branches of one graph; they must return
    the same structure, shapes and dtypes, and may read any tensor around them.

    Args:
        pred: a Python bool, or a bool tensor with one element.
        true_fn: called with the operands.
        false_fn: likewise.
        operands: tensors or nested containers of tensors.

    Raises:
        TraceError: the branches disagree, or one writes a tensor in place.

    >>> import tracecc as tc
    >>> x = tc.tensor(-3.0)
    >>> tc.cond(x > 0, lambda v: v, lambda v: -v, (x,))
    tensor(3.)
    """
    if not isinstance(pred, Tensor):
        return (true_fn if pred else false_fn)(*operands)
    if pred.dtype.name != "bool" or pred._type.size != 1:
        raise RuntimeError(f"cond expects a bool tensor with one element, given {pred._type!r}")
    if thread.trace is None:
        return (true_fn if bool(pred) else false_fn)(*operands)
    leaves, structure = flatten(tuple(operands))
    branches = [Region(f, leaves, structure) for f in (true_fn, false_fn)]
    first, second = branches
    if first.types != second.types or first.structure != second.structure:
        raise TraceError(
            f"{user_location()}: the branches of cond must return the same types, given "
            f"{first.types} and {second.types}"
        )
    free = _union(first.free, second.free)
    attrs = {"then": first.graph(free), "otherwise": second.graph(free)}
    outputs = apply(cond_op, (pred.reshape(()), *first.arguments, *free), attrs)
    return unflatten(first.structure, iter(outputs))


def while_loop(cond_fn: Callable, body_fn: Callable, carried_inputs: Sequence[Any]) -> tuple:
    """Repeats ``carried = body_fn(*carried)`` while ``cond_fn(*carried)``; returns ``carried``.

    Eager it is a Python loop and gradients flow through it. Under a trace it is one node, forward
    only: differentiate a loop of known length with `scan`.

    >>> import tracecc as tc
    >>> start = tc.tensor(0), tc.tensor(1.0)
    >>> tc.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), start)
    (tensor(3), tensor(8.))
    """
    carried = tuple(carried_inputs)
    if thread.trace is None:
        while bool(cond_fn(*carried)):
            carried = tuple(body_fn(*carried))
        return carried
    leaves, structure = flatten(carried)
    with no_grad():
        condition = Region(cond_fn, leaves, structure)
        body = Region(lambda *a: tuple(body_fn(*a)), leaves, structure)
    expected = [t._type for t in body.arguments]
    if body.types != expected:
        raise TraceError(
            f"{user_location()}: the body of while_loop must return what it is given, "
            f"{expected}, but returned {body.types}"
        )
    free = _union(condition.free, body.free)
    attrs = {"condition": condition.graph(free), "body": body.graph(free, carry_free=True)}
    outputs = apply(while_op, (*body.arguments, *free), attrs)
    return unflatten(structure, iter(outputs[: len(leaves)]))


def scan(
    combine_fn: Callable,
    init: Any,
    xs: Any,
    *,
    dim: int = 0,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Folds ``carry, y = combine_fn(carry, x)`` over slices of ``xs``: the last carry, stacked ys.

    Args:
        combine_fn: from a carry and one slice to the next carry (same types) and an output.
        init: the first carry: a tensor or a nested container.
        xs: tensors, all of the same length along ``dim``.
        dim: the dimension of ``xs`` to walk along, and of the results to stack along.
        reverse: walk from the end; outputs stay at their slice's place.

    >>> import tracecc as tc
    >>> tc.scan(lambda c, x: (c + x, c * x), tc.tensor(0.0), tc.tensor([1.0, 2.0, 3.0]))
    (tensor(6.), tensor([0., 2., 9.]))
    """
    carries, carry_structure = flatten(init)
    slices, xs_structure = flatten(xs)
    if not slices:
        raise RuntimeError("scan expects at least one tensor in xs")
    slices = [x.movedim(dim, 0) for x in slices]
    length = slices[0].shape[0]
    if any(x.shape[0] != length for x in slices):
        given = [x.shape[0] for x in slices]
        raise RuntimeError(f"scan expects xs of one length along dim {dim}, given {given}")
    if thread.trace is None:
        return _scan_eager(combine_fn, init, slices, xs_structure, dim, reverse, int(length))
    arguments = [*carries, *[x[0] for x in slices]]
    body = Region(combine_fn, arguments, ("tuple", (carry_structure, xs_structure)), pair=True)
    count = len(carries)
    expected = [t._type for t in body.arguments[:count]]
    if body.types[:count] != expected:
        raise TraceError(
            f"{user_location()}: the carry of scan must keep its types, given {expected}, "
            f"returned {body.types[:count]}"
        )
    attrs = {
        "body": body.graph(body.free, free_first=True),
        "consts": len(body.free),
        "carries": count,
        "length": length,
        "reverse": reverse,
    }
    outputs = apply(scan_op, (*body.free, *body.arguments[:count], *slices), attrs)
    ys = [y.movedim(0, dim) for y in outputs[count:]]
    return unflatten(body.structure[1][0], iter(outputs[:count])), unflatten(
        body.structure[1][1], iter(ys)
    )


def _scan_eager(
    combine_fn: Callable, carry: Any, slices: list, structure: Any, dim: int, reverse: bool, n: int
) -> tuple[Any, Any]:
    rows: list[list[Tensor]] = []
    y_structure: Any = None
    for i in reversed(range(n)) if reverse else range(n):
        carry, y = combine_fn(carry, unflatten(structure, iter([x[i] for x in slices])))
        leaves, y_structure = flatten(y)
        rows.append(leaves)
    if reverse:
        rows.reverse()
    if not rows:
        raise RuntimeError("scan expects xs with at least one slice when it runs eagerly, given 0")
    ys = [stack(list(column), dim) for column in zip(*rows, strict=True)]
    return carry, unflatten(y_structure, iter(ys))


def _union(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    return list({id(t._storage): t for t in (*a, *b)}.values())
