"""Operands as strided views of other arrays: what movement ops do to offsets and strides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tracecc_ir.graph import Node, Value

MOVES = ("reshape", "permute", "slice", "broadcast")
Ints = tuple[int, ...]


class View(NamedTuple):
    """Where the elements of a value lie, in elements, in the memory of `source`."""

    source: Value
    offset: int
    shape: Ints
    strides: Ints


def whole(v: Value) -> View:
    """A contiguous value as a view of itself."""
    shape = v.type.sizes
    return View(v, 0, shape, tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))))


def moved(node: Node, x: View) -> View | None:
    """The result of a movement op whose operand is `x`; None if that needs a copy."""
    attrs, shape = node.attrs, node.output.type.sizes
    if node.op.name == "permute":
        return x._replace(shape=shape, strides=tuple(x.strides[a] for a in attrs["axes"]))
    if node.op.name == "slice":
        starts, steps = attrs["starts"], attrs["strides"]
        offset = sum(n * s for n, s in zip(starts, x.strides, strict=True))
        strides = tuple(n * s for n, s in zip(steps, x.strides, strict=True))
        return View(x.source, x.offset + offset, shape, strides)
    if node.op.name == "broadcast":
        repeated = [0] * len(shape)
        for axis, stride in zip(attrs["axes"], x.strides, strict=True):
            repeated[axis] = stride
        return x._replace(shape=shape, strides=tuple(repeated))
    return reshaped(x, shape)


def reshaped(x: View, shape: Sequence[int]) -> View | None:
    """The same elements in another shape, if strides describe it."""
    runs: list[tuple[int, int]] = []  # extents and strides, adjacent ones merged
    for n, s in zip(x.shape, x.strides, strict=True):
        if n == 1:
            continue
        if runs and runs[-1][1] == n * s:
            runs[-1] = (runs[-1][0] * n, s)
        else:
            runs.append((n, s))
    strides = [0] * len(shape)
    left, step = 1, 0
    for i in reversed(range(len(shape))):
        if shape[i] == 1:
            continue
        if left == 1:
            if not runs:
                return None
            left, step = runs.pop()
        if left % shape[i]:
            return None
        strides[i] = step
        left, step = left // shape[i], step * shape[i]
    return View(x.source, x.offset, tuple(shape), tuple(strides))


def unmoved(node: Node, y: View) -> View | None:
    """The operand of a movement op, or of a pad or sum of pads, whose result is `y`."""
    (x, *_) = node.inputs
    if node.op.name == "permute":
        strides = [0] * len(y.strides)
        for axis, stride in zip(node.attrs["axes"], y.strides, strict=True):
            strides[axis] = stride
        return y._replace(shape=x.type.sizes, strides=tuple(strides))
    if node.op.name == "pad":
        offset = sum(n * s for n, s in zip(node.attrs["low"], y.strides, strict=True))
        return View(y.source, y.offset + offset, x.type.sizes, y.strides)
    if node.op.name == "add":
        return y
    return reshaped(y, x.type.sizes)


class Rows(NamedTuple):
    """A view [.., T, d] as rows of contiguous elements.

    Attributes:
        place: which operand or result of the kernel it lies in.
        offset: of its first element.
        strides: of z // heads, z % heads and of rows, where z counts [..] and heads is the last
            of [..].
    """

    place: int
    offset: int
    strides: tuple[int, int, int]


def rows_of(x: View, place: int = 0) -> Rows | None:
    """A view as rows, if its elements lie so."""
    if len(x.shape) < 2 or (x.shape[-1] != 1 and x.strides[-1] != 1):
        return None
    outer = View(x.source, 0, x.shape[:-3], x.strides[:-3])
    flat = reshaped(outer, (math.prod(outer.shape),))
    if flat is None:
        return None
    inner = x.strides[-3] if len(x.shape) > 2 else 0
    return Rows(place, x.offset, (flat.strides[0], inner, x.strides[-2]))
