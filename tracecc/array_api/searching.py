"""Searching, sorting and set functions of the array API."""

from __future__ import annotations

from typing import Any, NamedTuple

import tracecc as tc
from tracecc.array_api.elementwise import paired
from tracecc.tensor import Tensor


def argsort(
    x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True
) -> Tensor:
    """The places of the elements along an axis, from the smallest to the largest."""
    return tc.argsort(x, axis, descending, stable=stable)


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements along an axis, from the smallest to the largest."""
    return tc.sort(x, axis, descending, stable=stable).values


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The places of what is not zero: an array for each axis.

    Raises:
        ValueError: x has no axes.
    """
    if x.ndim == 0:
        raise ValueError("nonzero needs an array of at least 1 dimension, given one of 0")
    return tuple(tc.nonzero(x, as_tuple=True))


def searchsorted(
    x1: Tensor, x2: Any, /, *, side: str = "left", sorter: Tensor | None = None
) -> Tensor:
    """Where elements of x2 go into x1 so that it stays sorted."""
    return tc.searchsorted(x1, x2, side=side, sorter=sorter)


def where(condition: Tensor, x1: Any, x2: Any, /) -> Tensor:
    """x1 where the condition holds, else x2.

    >>> where(tc.tensor([True, False]), tc.tensor([1.0, 2.0]), 0)
    tensor([1., 0.])
    """
    if not isinstance(x1, Tensor) and not isinstance(x2, Tensor):
        return tc.where(condition, x1, x2)
    return tc.where(condition, *paired(x1, x2))


class UniqueAllResult(NamedTuple):
    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCountsResult(NamedTuple):
    values: Tensor
    counts: Tensor


class UniqueInverseResult(NamedTuple):
    values: Tensor
    inverse_indices: Tensor


def unique_all(x: Tensor, /) -> UniqueAllResult:
    """The distinct elements, where each comes first, which of them each element is, and how often
    each occurs. Each NaN is distinct from all others.

    >>> unique_all(tc.tensor([3, 1, 3])).indices
    tensor([1, 0])
    """
    values, inverse, counts = tc.unique(x, return_inverse=True, return_counts=True)
    places = tc.arange(inverse.numel())
    first = tc.full((values.shape[0],), inverse.numel(), dtype=tc.int64)
    first = first.scatter_reduce(0, inverse.reshape(-1), places, "amin")
    return UniqueAllResult(values, first, inverse.reshape(x.shape), counts)


def unique_counts(x: Tensor, /) -> UniqueCountsResult:
    """The distinct elements and how often each occurs."""
    return UniqueCountsResult(*tc.unique(x, return_counts=True))


def unique_inverse(x: Tensor, /) -> UniqueInverseResult:
    """The distinct elements and which of them each element is."""
    values, inverse = tc.unique(x, return_inverse=True)
    return UniqueInverseResult(values, inverse.reshape(x.shape))


def unique_values(x: Tensor, /) -> Tensor:
    """The distinct elements."""
    return tc.unique(x)
