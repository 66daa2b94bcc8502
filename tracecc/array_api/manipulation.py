"""Manipulation and indexing functions of the array API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tracecc as tc
from tracecc.tensor import Tensor

Axes = int | tuple[int, ...] | None


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """The arrays, each in the shape of all together."""
    return list(tc.broadcast_tensors(*arrays))


def broadcast_to(x: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    """x repeated to a shape."""
    return tc.broadcast_to(x, tuple(shape))


def concat(arrays: Sequence[Tensor], /, *, axis: int | None = 0) -> Tensor:
    """The arrays one after the other along an axis; flattened first for None.

    >>> concat([tc.ones(1, 2), tc.zeros(1, 2)], axis=None)
    tensor([1., 1., 0., 0.])
    """
    if axis is None:
        return tc.cat([x.reshape(-1) for x in arrays])
    return tc.cat(list(arrays), axis)


def expand_dims(x: Tensor, /, axis: int) -> Tensor:
    """x with a new axis of size 1.

    Raises:
        IndexError: the axis is not in [-x.ndim - 1, x.ndim].
    """
    return tc.unsqueeze(x, axis)


def flip(x: Tensor, /, *, axis: Axes = None) -> Tensor:
    """x in reverse order along axes; along all for None."""
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return tc.flip(x, tuple(axes))


def moveaxis(
    x: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...], /
) -> Tensor:
    """x with axes moved to other places; the rest keep their order."""
    return tc.moveaxis(x, source, destination)


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """x with its axes in another order."""
    return tc.permute(x, tuple(axes))


def repeat(x: Tensor, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each element, or each part along an axis, so many times.

    >>> repeat(tc.tensor([1, 2]), 2)
    tensor([1, 1, 2, 2])
    """
    return tc.repeat_interleave(x, repeats, dim=axis)


def reshape(x: Tensor, /, shape: tuple[int, ...], *, copy: bool | None = None) -> Tensor:
    """The same elements in another shape.

    Raises:
        ValueError: a copy is needed and must not be made.
    """
    made = tc.reshape(x, tuple(shape))
    shares = made._storage is x._storage
    if copy is False and not shares:
        raise ValueError(f"copy=False: an array of these strides cannot be seen as {shape}")
    return made.clone() if copy and shares else made


def roll(x: Tensor, /, shift: int | tuple[int, ...], *, axis: Axes = None) -> Tensor:
    """x with elements moved on along axes; what leaves at the end comes in at the start."""
    return tc.roll(x, shift, axis)


def squeeze(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """x without axes of size 1.

    Raises:
        ValueError: an axis is of another size.
    """
    for a in (axis,) if isinstance(axis, int) else axis:
        if x.shape[a] != 1:
            raise ValueError(f"squeeze: axis {a} has size {x.shape[a]}, expected 1")
    return tc.squeeze(x, axis)


def stack(arrays: Sequence[Tensor], /, *, axis: int = 0) -> Tensor:
    """The arrays along a new axis."""
    return tc.stack(list(arrays), axis)


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """The parts of x along an axis that a vector of indices names.

    >>> take(tc.tensor([5, 6, 7]), tc.tensor([2, 0]))
    tensor([7, 5])
    """
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"take: axis must be given for an array of {x.ndim} dimensions")
        axis = 0
    return tc.index_select(x, axis, tc.where(indices < 0, indices + x.shape[axis], indices))


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """The elements that indices name along an axis, place by place."""
    return tc.take_along_dim(x, indices.to(tc.int64), axis)


def tile(x: Tensor, repetitions: tuple[int, ...], /) -> Tensor:
    """x laid out side by side so many times along each axis."""
    return tc.tile(x, tuple(repetitions))


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts of x along an axis, without it."""
    return tuple(tc.unbind(x, axis))
