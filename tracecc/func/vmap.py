"""vmap: a function of one example becomes a function of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tracecc as tc
from tracecc.control import scan
from tracecc.pytree import flatten, unflatten
from tracecc.state import thread
from tracecc.tensor import Tensor


def vmap(
    func: Callable,
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable:
    """Applies ``func`` to every slice of its arguments and stacks the results.

    It runs ``func`` once per slice; inside a compiled function it is one `scan`, whose body is
    traced once.

    Args:
        func: a function of tensors and nested containers.
        in_dims: the dimension to walk along, for all arguments or one for each; None: not sliced.
        out_dims: where the new dimension goes in the results.
        randomness: accepted for PyTorch's sake: draws differ between slices.
        chunk_size: accepted for PyTorch's sake.

    >>> import tracecc as tc
    >>> vmap(tc.dot)(tc.ones(3, 2), tc.arange(6.0).reshape(3, 2))
    tensor([1., 5., 9.])
    """

    def mapped(*args: Any, **kwargs: Any) -> Any:
        dims = _dims(in_dims, args)
        leaves, structure = flatten(args)
        for t, d in zip(leaves, dims, strict=True):
            if d is not None and isinstance(t, Tensor) and not -t.ndim <= d < t.ndim:
                raise ValueError(
                    f"vmap: got in_dim={d} for an input of {t.ndim} dimensions, expected "
                    f"-{t.ndim} <= in_dim < {t.ndim}"
                )
        along = [
            (i, t.movedim(d, 0))
            for i, (t, d) in enumerate(zip(leaves, dims, strict=True))
            if d is not None and isinstance(t, Tensor)
        ]
        if not along:
            raise ValueError(
                "vmap: at least one argument must be a tensor with an in_dim that is not None"
            )
        sizes = {t.shape[0] for _, t in along}
        if len(sizes) != 1:
            raise ValueError(
                "vmap: Expected all tensors to have the same size in the mapped dimension, got "
                f"sizes {[t.shape[0] for _, t in along]} for the mapped dimension"
            )

        def one(slices: list[Tensor]) -> Any:
            values = list(leaves)
            for (i, _), t in zip(along, slices, strict=True):
                values[i] = t
            return func(*unflatten(structure, iter(values)), **kwargs)

        return _placed(_rows(one, [t for _, t in along]), out_dims)

    return mapped


def _rows(one: Callable[[list[Tensor]], Any], xs: list[Tensor]) -> Any:
    """All results, stacked along dimension 0."""
    if thread.trace is not None:
        return scan(lambda carry, slices: (carry, one(slices)), tc.zeros(()), xs)[1]
    rows, structure = [], None
    for i in range(int(xs[0].shape[0])):
        leaves, structure = flatten(one([x[i] for x in xs]))
        rows.append(leaves)
    return unflatten(structure, iter([tc.stack(list(c)) for c in zip(*rows, strict=True)]))


def _dims(in_dims: Any, args: tuple) -> list[Any]:
    """The dimension of every leaf of the arguments."""
    found: list[Any] = []

    def spread(dims: Any, value: Any) -> None:
        if dims is None or isinstance(dims, int):
            found.extend([dims] * len(flatten(value)[0]))
        elif isinstance(dims, dict):
            for key, part in value.items():
                spread(dims[key], part)
        else:
            for d, part in zip(dims, value, strict=True):
                spread(d, part)

    if not isinstance(in_dims, int) and in_dims is not None and len(in_dims) != len(args):
        raise ValueError(
            f"vmap: in_dims is not compatible with the structure of inputs: {len(in_dims)} dims "
            f"for {len(args)} arguments"
        )
    spread(in_dims, args)
    return found


def _placed(result: Any, out_dims: Any) -> Any:
    if isinstance(out_dims, int):
        leaves, structure = flatten(result)
        return unflatten(structure, iter([t.movedim(0, out_dims) for t in leaves]))
    return tuple(_placed(r, d) for r, d in zip(result, out_dims, strict=True))
