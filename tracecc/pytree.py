"""Nested containers of tensors: flattening and rebuilding lists, tuples, named tuples and dicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Leaf:
    """The place of one leaf in a structure."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "*"


LEAF = Leaf()


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """The leaves from left to right, and the structure they came from.

    >>> flatten({"a": (1, 2), "b": 3})
    ([1, 2, 3], ('dict', (('a', ('tuple', (*, *))), ('b', *))))
    """
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list[Any]) -> Any:
    kind = type(tree)
    if kind is list or kind is tuple:
        return (kind.__name__, tuple(_flatten(x, leaves) for x in tree))
    if isinstance(tree, dict):
        return ("dict", tuple((k, _flatten(v, leaves)) for k, v in tree.items()))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return (kind, tuple(_flatten(x, leaves) for x in tree))
    leaves.append(tree)
    return LEAF


def unflatten(structure: Any, leaves: Iterator[Any]) -> Any:
    """The inverse of `flatten`, taking leaves in order."""
    if structure is LEAF:
        return next(leaves)
    kind, parts = structure
    if kind == "dict":
        return {k: unflatten(v, leaves) for k, v in parts}
    children = [unflatten(p, leaves) for p in parts]
    if kind == "list":
        return children
    return tuple(children) if kind == "tuple" else kind(*children)
