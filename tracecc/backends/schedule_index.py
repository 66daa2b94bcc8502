"""Index arithmetic of the schedule: affine expressions over loop counters, and reshape of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Affine(NamedTuple):
    """``const + sum(coefs[i] * loop[i]) + sum(c * value)`` over the values looked up at run time.

    Attributes:
        const: the constant.
        coefs: one coefficient per loop.
        dynamic: (instruction number, coefficient, extent) of each: the value is below its extent.
    """

    const: int
    coefs: tuple[int, ...]
    dynamic: tuple[tuple[int, int, int], ...] = ()

    def scaled(self, factor: int) -> Affine:
        return Affine(
            self.const * factor,
            tuple(c * factor for c in self.coefs),
            tuple((i, c * factor, n) for i, c, n in self.dynamic),
        )

    def shifted(self, amount: int) -> Affine:
        return self._replace(const=self.const + amount)

    def plus(self, other: Affine) -> Affine:
        return Affine(
            self.const + other.const,
            tuple(a + b for a, b in zip(self.coefs, other.coefs, strict=True)),
            self.dynamic + other.dynamic,
        )


Mapping = tuple[Affine, ...]


class Unfusable(Exception):
    """The group cannot be one loop; the scheduler runs its nodes one by one instead."""


class SplitLoop(Exception):
    """The loops are too coarse for a reshape: ``loop`` must become two, the inner of ``size``."""

    def __init__(self, loop: int, size: int):
        self.loop, self.size = loop, size


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a contiguous array."""
    strides = []
    total = 1
    for size in reversed(shape):
        strides.append(total)
        total *= size
    return tuple(reversed(strides))


def linear(mapping: Sequence[Affine], strides: Sequence[int], loops: int) -> Affine:
    total = Affine(0, (0,) * loops)
    for index, stride in zip(mapping, strides, strict=True):
        total = total.plus(index.scaled(stride))
    return total


def split(index: Affine, sizes: Sequence[int], extents: Sequence[int]) -> Mapping:
    """The row-major index as one index per dimension.

    Raises:
        SplitLoop: a loop crosses a dimension's border but divides into two that do not.
        Unfusable: it does not divide.
    """
    result: list[Affine] = []
    for size in reversed(sizes):
        high, low = _divide(index, size, extents) if size != 1 else (index, _zero(index))
        result.append(low)
        index = high
    return tuple(reversed(result))


def reshaped(
    mapping: Mapping, sizes: Sequence[int], into: Sequence[int], extents: Sequence[int]
) -> Mapping:
    """The index of an array of shape ``sizes`` as one of the same array in shape ``into``.

    Runs of dimensions with equal products are treated apart, and the first of a run takes what the
    others leave: an index that a guard keeps out of memory may lie outside of them.

    Raises:
        SplitLoop, Unfusable: see `split`.
    """
    result: list[Affine] = []
    for first, last, start, stop in _runs(sizes, into):
        shape = into[start:stop]
        index = linear(mapping[first:last], row_major(sizes[first:last]), len(extents))
        if shape:
            result += _split_run(index, shape, extents)
    return tuple(result)


def _split_run(index: Affine, shape: Sequence[int], extents: Sequence[int]) -> list[Affine]:
    """The index of one run; dimensions of size 1 have index 0."""
    large = [k for k, size in enumerate(shape) if size != 1]
    parts = [_zero(index) for _ in shape]
    for k in reversed(large[1:]):
        index, parts[k] = _divide(index, shape[k], extents)
    if large:
        parts[large[0]] = index
    return parts


def _runs(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """The shortest runs of dimensions of two shapes of one size with equal products."""
    runs, i, j = [], 0, 0
    while i < len(a) or j < len(b):
        first, start = i, j
        left = right = 1
        if i < len(a):
            left, i = a[i], i + 1
        if j < len(b):
            right, j = b[j], j + 1
        while left != right:
            if left < right and i < len(a):
                left, i = left * a[i], i + 1
            else:
                right, j = right * b[j], j + 1
        runs.append((first, i, start, j))
    return runs


def _zero(like: Affine) -> Affine:
    return Affine(0, (0,) * len(like.coefs))


def _divide(index: Affine, size: int, extents: Sequence[int]) -> tuple[Affine, Affine]:
    """Quotient and remainder by ``size``."""
    high = [0] * len(index.coefs)
    low = [0] * len(index.coefs)
    for loop, c in enumerate(index.coefs):
        if c % size == 0:
            high[loop] = c // size
        else:
            low[loop] = c
    const = index.const % size
    least = const + sum(min(0, c * (n - 1)) for c, n in zip(low, extents, strict=True))
    most = const + sum(max(0, c * (n - 1)) for c, n in zip(low, extents, strict=True))
    above = tuple((i, c // size, n) for i, c, n in index.dynamic if c % size == 0)
    below = tuple(d for d in index.dynamic if d[1] % size)
    least += sum(min(0, c * (n - 1)) for _, c, n in below)
    most += sum(max(0, c * (n - 1)) for _, c, n in below)
    if least < 0 or most >= size:
        _refine(low, size, extents)
    high_part = Affine(index.const // size, tuple(high), above)
    return high_part, Affine(const, tuple(low), below)


def _refine(low: list[int], size: int, extents: Sequence[int]) -> None:
    """Raises SplitLoop for the loop that reaches over the border, or Unfusable."""
    for loop, c in enumerate(low):
        n = extents[loop]
        if c > 0 and c * n > size:
            inner = size // c if size % c == 0 else math.gcd(n, size)
            if size % c == 0 and 1 < inner < n and n % inner == 0:
                raise SplitLoop(loop, inner)
    raise Unfusable("a reshape has no common refinement with the loop")
