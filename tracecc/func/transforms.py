"""Gradients and Jacobians of functions; they nest, and work inside compiled functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tracecc as tc
from tracecc.autograd import grad as tape_gradients
from tracecc.autograd.tape import TapeNode
from tracecc.pytree import flatten, unflatten
from tracecc.state import enable_grad
from tracecc.tensor import Tensor

Argnums = int | Sequence[int]


class _Inputs:
    """Arguments of a function with some of them made differentiable."""

    def __init__(self, args: Sequence[Any], argnums: Argnums):
        self.numbers = [argnums] if isinstance(argnums, int) else list(argnums)
        self.single = isinstance(argnums, int)
        self.args = list(args)
        self.leaves: list[Tensor] = []
        self.structures: list[tuple[int, Any]] = []
        for n in self.numbers:
            if not -len(args) <= n < len(args):
                raise RuntimeError(f"got argnum={n}, but only {len(args)} positional inputs")
            found, structure = flatten(args[n])
            fresh = [_differentiable(t) for t in found]
            self.structures.append((len(fresh), structure))
            self.leaves += fresh
            self.args[n] = unflatten(structure, iter(fresh))

    def arranged(self, values: Sequence[Any]) -> Any:
        """One value per leaf, in the structure of the arguments."""
        rest = iter(values)
        parts = [unflatten(structure, rest) for _, structure in self.structures]
        return parts[0] if self.single else tuple(parts)


def _differentiable(t: Any) -> Tensor:
    if not isinstance(t, Tensor) or not t.dtype.is_inexact:
        raise RuntimeError(
            "a differentiated argument must consist of floating point or complex tensors, given "
            f"{t!r}"
        )
    if not t.requires_grad:
        return t.detach().requires_grad_()
    fresh = t.view(t.shape)  # keeps its base: an enclosing scan differentiates by it
    return fresh if fresh.requires_grad else fresh.requires_grad_()


def _without(own: Sequence[Tensor], value: Any) -> Any:
    """``value`` cut off its history where that leads only to the tensors ``own``."""
    leaves, structure = flatten(value)
    mine = {id(t) for t in own}
    cut = [
        t.detach()
        if isinstance(t, Tensor) and t.requires_grad and not _leads_elsewhere(t, mine)
        else t
        for t in leaves
    ]
    return unflatten(structure, iter(cut))


def _leads_elsewhere(t: Tensor, own: set[int]) -> bool:
    node = t.grad_fn
    if node is None:
        return id(t) not in own
    seen: set[TapeNode] = {node}
    pending = [node]
    while pending:
        for edge in pending.pop().edges:
            if edge is None:
                continue
            to = edge[0]
            if isinstance(to, Tensor):
                if id(to) not in own:
                    return True
            elif to not in seen:
                seen.add(to)
                pending.append(to)
    return False


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], gs: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Differentiable gradients; zeros where nothing flows."""
    pairs = [(y, None if gs is None else g) for y, g in zip(outputs, gs or outputs, strict=True)]
    live = [(y, g) for y, g in pairs if y.requires_grad]
    if not live:
        return [tc.zeros_like(x) for x in inputs]
    ys, seeds = zip(*live, strict=True)
    found = tape_gradients(
        ys,
        inputs,
        None if gs is None else seeds,
        create_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return [g for g in found if g is not None]


def value_and_grad(func: Callable, argnums: Argnums = 0, has_aux: bool = False) -> Callable:
    """A function that returns the value of ``func`` and its gradient.

    >>> import tracecc as tc
    >>> value_and_grad(lambda x: (x * x).sum())(tc.tensor([1.0, 3.0]))
    (tensor(10.), tensor([2., 6.]))
    """

    def both(*args: Any, **kwargs: Any) -> Any:
        inputs = _Inputs(args, argnums)
        with enable_grad():
            result = func(*inputs.args, **kwargs)
            value, aux = result if has_aux else (result, None)
            if not isinstance(value, Tensor) or value.ndim:
                raise RuntimeError(
                    "Expected f(*args) to return a scalar tensor, given "
                    f"{tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}"
                )
            found = inputs.arranged(_gradients([value], inputs.leaves))
        value, aux, found = _without(inputs.leaves, (value, aux, found))
        return ((value, aux), found) if has_aux else (value, found)

    return both


def grad_and_value(func: Callable, argnums: Argnums = 0, has_aux: bool = False) -> Callable:
    """`value_and_grad` with PyTorch's order: the gradient first, then the value."""
    both = value_and_grad(func, argnums, has_aux)

    def swapped(*args: Any, **kwargs: Any) -> Any:
        value, found = both(*args, **kwargs)
        return found, value

    return swapped


def grad(func: Callable, argnums: Argnums = 0, has_aux: bool = False) -> Callable:
    """A function that returns the gradient of ``func``, which returns a scalar.

    Args:
        func: returns a 0-d tensor; with ``has_aux`` a pair of it and anything.
        argnums: which arguments to differentiate by; each may be a nested container of tensors.
        has_aux: also return what ``func`` returned beside the scalar.

    >>> import tracecc as tc
    >>> grad(grad(tc.sin))(tc.tensor(0.0))
    tensor(-0.)
    """
    both = value_and_grad(func, argnums, has_aux)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, found = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient


def vjp(func: Callable, *primals: Any, has_aux: bool = False) -> Any:
    """``func(*primals)`` and a function from cotangents of its result to those of ``primals``."""
    inputs = _Inputs(primals, range(len(primals)))
    with enable_grad():
        result = func(*inputs.args)
    value, aux = result if has_aux else (result, None)
    outputs, _ = flatten(value)

    def pull_back(*cotangents: Any, retain_graph: bool = True, create_graph: bool = True) -> Any:
        given = cotangents[0] if len(cotangents) == 1 else cotangents
        gs, _ = flatten(given)
        with enable_grad():
            found = inputs.arranged(_gradients(outputs, inputs.leaves, gs))
        found = _without(inputs.leaves, found)
        return found

    shown = _without(inputs.leaves, value)
    return (shown, pull_back, aux) if has_aux else (shown, pull_back)


def jvp(func: Callable, primals: Any, tangents: Any, *, has_aux: bool = False) -> Any:
    """``func(*primals)`` and its derivative along ``tangents``.

    The gradient of a gradient: reverse mode is linear in its cotangents, and the transpose of that
    linear map is forward mode.
    """
    inputs = _Inputs(primals, range(len(primals)))
    along, _ = flatten(tangents)
    with enable_grad():
        result = func(*inputs.args)
        value, aux = result if has_aux else (result, None)
        outputs, structure = flatten(value)
        dummies = [tc.zeros_like(y).requires_grad_() for y in outputs]
        back = _gradients(outputs, inputs.leaves, dummies)
        found = unflatten(structure, iter(_gradients(back, dummies, along)))
    own = [*inputs.leaves, *dummies]
    value, aux, found = _without(own, (value, aux, found))
    return (value, found, aux) if has_aux else (value, found)


def linearize(func: Callable, *primals: Any) -> tuple[Any, Callable]:
    """``func(*primals)``, and the function from tangents to the derivative along them.

    >>> import tracecc as tc
    >>> y, along = linearize(tc.square, tc.tensor(3.0))
    >>> along(tc.tensor(1.0))
    tensor(6.)
    """
    return func(*primals), lambda *tangents: jvp(func, primals, tangents)[1]


def jacrev(func: Callable, argnums: Argnums = 0, has_aux: bool = False, **options: Any) -> Callable:
    """The Jacobian, one row (element of the result) at a time: shape of the result + of the input.

    >>> import tracecc as tc
    >>> jacrev(lambda x: x * x)(tc.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """

    def jacobian(*args: Any, **kwargs: Any) -> Any:
        inputs = _Inputs(args, argnums)
        with enable_grad():
            result = func(*inputs.args, **kwargs)
            value, aux = result if has_aux else (result, None)
            outputs, structure = flatten(value)
            found = unflatten(
                structure, iter([inputs.arranged(_rows(y, inputs.leaves)) for y in outputs])
            )
        found, aux = _without(inputs.leaves, (found, aux))
        return (found, aux) if has_aux else found

    return jacobian


def _rows(y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    flat = y.reshape(-1)
    rows = [_gradients([flat[i]], leaves) for i in range(flat.numel())]
    shapes = [(*y.shape, *x.shape) for x in leaves]
    columns = zip(*rows, strict=True) if rows else [()] * len(leaves)
    return [
        tc.stack(list(c)).reshape(s) if c else tc.zeros(s)
        for c, s in zip(columns, shapes, strict=True)
    ]


def jacfwd(func: Callable, argnums: Argnums = 0, has_aux: bool = False, **options: Any) -> Callable:
    """The Jacobian, one column (element of the input) at a time; for few inputs, many outputs."""

    def jacobian(*args: Any, **kwargs: Any) -> Any:
        inputs = _Inputs(args, argnums)
        with enable_grad():
            result = func(*inputs.args, **kwargs)
            value, aux = result if has_aux else (result, None)
            outputs, structure = flatten(value)
            dummies = [tc.zeros_like(y).requires_grad_() for y in outputs]
            back = _gradients(outputs, inputs.leaves, dummies)
            by_input = [_rows(b, dummies) for b in back]  # [input.., output..] for each pair
        parts = []
        for i, y in enumerate(outputs):
            turned = [
                j[i].movedim(list(range(x.ndim)), list(range(-x.ndim, 0))) if x.ndim else j[i]
                for j, x in zip(by_input, inputs.leaves, strict=True)
            ]
            parts.append(inputs.arranged([t.reshape(*y.shape, *x.shape) for t, x in
                                          zip(turned, inputs.leaves, strict=True)]))  # fmt: skip
        found, aux = _without([*inputs.leaves, *dummies], (unflatten(structure, iter(parts)), aux))
        return (found, aux) if has_aux else found

    return jacobian


def hessian(func: Callable, argnums: Argnums = 0) -> Callable:
    """The matrix of second derivatives of a scalar function."""
    return jacrev(jacrev(func, argnums), argnums)
