"""What fusion asks of nodes and groups: what fuses, over which space, why two may not merge."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

from tracecc_ir.graph import Node, Value
from tracecc_ir.passes.anchor import is_anchor

REDUCES = ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min")
VIEWS = ("reshape", "permute", "broadcast", "slice", "flip")
CHEAP = ("constant", "iota", *VIEWS)
LOOKUPS = ("pad", "gather", "gather_along", "philox")
# A reduction this long with fewer rows than this is cut into chunks with a second launch.
LONG, FEW = 1 << 14, 8
# Operations per element that may be repeated rather than stored and read again.
REPEAT = 4
MOST_NODES = 200
# An epilogue reads at most so many operands of the size of its product.
MOST_OPERANDS = 2
# So many cheap operations in a row are computed again for each reader rather than stored.
LONGEST_REPEAT = 6

Space = tuple[tuple[tuple[int, bool], ...], str]  # ((size, is reduced), ...), kind
Users = dict[Value, list[Node]]
# At which levels a value of a group is computed, as a set of bits: at the loop's own index, once
# per row of a reduction, at some other index (recomputed there, never stored).
ELEMENT, ROW, MOVED = 1, 2, 4


def is_complex(node: Node) -> bool:
    """Whether complex numbers go in or out: no loop computes with them, the reference does."""
    return any(v.dtype.is_complex for v in (*node.inputs, *node.outputs))


def moves(node: Node) -> bool:
    """True for nodes that compute nothing."""
    return node.op.name in CHEAP


def repeats(node: Node, free: dict[Node, int]) -> int:
    """How many cheap operations a reader of this node would compute again; 0 if it should not.

    Args:
        node: in question.
        free: the same for the nodes before it.
    """
    if is_complex(node):
        return 0
    before = max((free.get(v.node, 0) for v in node.inputs if v.node), default=0)
    if node.op.name in CHEAP:
        return max(1, before)
    if node.op.kind != "elementwise" or node.op.cost > 2 or before >= LONGEST_REPEAT:
        return 0
    large = {s for v in node.inputs for s in _large_sources(v, node.output.type.size)}
    if any(s.node is not None and s.node.op.name in REDUCES for s in large):
        return 0  # it belongs to the reduction
    return before + 1 if len(large) <= 1 else 0


def _large_sources(v: Value, size: object) -> Iterator[Value]:
    """The values behind pure movement that are as large as the result."""
    while v.node is not None and v.node.op.name in CHEAP:
        if not v.node.inputs:
            return
        v = v.node.inputs[0]
    if v.type.size * 2 > size:  # type: ignore[operator]
        yield v


def fusible(node: Node) -> bool:
    name = node.op.name
    if is_complex(node) or any(v.type.size == 0 for v in (*node.inputs, *node.outputs)):
        return False
    if name == "pad":
        return not any(node.attrs["interior"])
    return node.op.kind == "elementwise" or name in CHEAP or name in REDUCES or name in LOOKUPS


def _reduction(node: Node) -> Space:
    """The space of a reduction: adjacent dimensions of one role merged, sizes of one dropped."""
    shape, axes = node.inputs[0].shape, node.attrs["axes"]
    dims: list[tuple[int, bool]] = []
    for i, size in enumerate(shape):
        if size == 1:
            continue
        reduced = i in axes
        if dims and dims[-1][1] == reduced:
            dims[-1] = (dims[-1][0] * size, reduced)
        else:
            dims.append((size, reduced))
    kept = math.prod(s for s, r in dims if not r)
    length = math.prod(s for s, r in dims if r)
    if not dims or length == 1:
        kind = "map"
    elif not dims[-1][1]:
        kind = "columns"
    elif kept < FEW and length > LONG:
        kind = "full"
    else:
        kind = "rows"
    return tuple(dims), kind


class Group:
    """Nodes that will share a loop.

    Attributes:
        nodes: in no order.
        space: None for maps and around products.
        first: the place of its first node in the graph.
        anchor: the product whose tiles the other nodes finish.
        elements: of its largest result.
        results: what is read outside.
    """

    __slots__ = ("anchor", "elements", "first", "nodes", "results", "space")

    def __init__(self, nodes: list[Node], space: Space | None, first: int, anchor: Node | None):
        self.nodes, self.space, self.first, self.anchor = nodes, space, first, anchor
        self.results = {v for n in nodes for v in n.outputs}
        self.elements = _largest(self.results)

    @property
    def kind(self) -> str:
        if self.anchor is not None:
            return "product"
        return self.space[1] if self.space else "map"

    def absorb(self, other: Group, users: Users, kept: set[Value]) -> None:
        self.results = leaving(self, other, users, kept)
        self.nodes = self.nodes + other.nodes
        self.space = self.space or other.space
        self.first = min(self.first, other.first)
        self.anchor = self.anchor or other.anchor
        self.elements = max(self.elements, other.elements)


def group_of(node: Node, position: int) -> Group:
    is_reduction = node.op.name in REDUCES and fusible(node)
    space = _reduction(node) if is_reduction else None
    return Group([node], space, position, node if is_anchor(node) else None)


def same_space(a: Group, b: Group) -> bool:
    """Whether siblings (groups that read one value) go over the same loop."""
    if a.space or b.space or a.anchor or b.anchor:
        return a.space is not None and a.space == b.space
    return a.elements == b.elements


def _largest(values: Iterable[Value]) -> int:
    return max((math.prod(v.type.sizes) for v in values), default=0)


def leaving(a: Group, b: Group, users: Users, kept: set[Value]) -> set[Value]:
    """What is read outside of two groups."""
    inside = {*a.nodes, *b.nodes}
    return {
        v
        for group in (a, b)
        for v in group.results
        if v in kept or not inside.issuperset(users.get(v, ()))
    }


def refuse(a: Group, b: Group, users: Users, kept: set[Value], position: Mapping[Node, int]) -> str:
    """Why the two groups cannot become one; empty if they can."""
    if len(a.nodes) + len(b.nodes) > MOST_NODES:
        return "the group would be too large"
    if a.space and b.space and a.space != b.space:
        return "the two reduce over different dimensions"
    if a.anchor and b.anchor:
        return "both are products"
    if (a.anchor or b.anchor) and (a.space or b.space):
        return "a product's tiles are not whole rows of a reduction"
    if b.anchor and any(v.node in a.nodes for v in b.anchor.inputs):
        return f"{b.anchor.op.name} reads whole operands"
    return _Levels(a, b, users, kept).refusal(position)


class _Levels:
    """At which levels each value of a candidate group is computed."""

    def __init__(self, a: Group, b: Group, users: Users, kept: set[Value]):
        self.space = a.space or b.space
        self.anchor = a.anchor or b.anchor
        self.nodes = {*a.nodes, *b.nodes}
        self.users = users
        self.leaving = leaving(a, b, users, kept)
        if self.space:
            dims = self.space[0]
            self.elements = math.prod(s for s, _ in dims)
            self.rows = math.prod(s for s, reduced in dims if not reduced)
        else:
            anchored = [self.anchor.output] if self.anchor else self.leaving
            self.elements = _largest(anchored)
            self.rows = -1
        self.levels: dict[Value, int] = {}

    def refusal(self, position: Mapping[Node, int]) -> str:
        levels, again = self.levels, []
        for node in sorted(self.nodes, key=position.__getitem__, reverse=True):
            v = node.outputs[0]
            reason = self._root(v) if v in self.leaving else ""
            here = levels.get(v, 0)
            if node.op.kind == "elementwise":
                for x in node.inputs:
                    levels[x] = levels.get(x, 0) | here
            else:
                reason = reason or self._whole(node, here)
            if reason:
                return reason
            if here & MOVED and not moves(node):
                again.append(node)
        return self._operands() or self._repeats(again)

    def _operands(self) -> str:
        """Tiles are short pieces of rows: many operands are read faster in one long sweep."""
        if self.anchor is None:
            return ""
        read = {v for n in self.nodes if n is not self.anchor for v in n.inputs}
        large = [v for v in read if v.node not in self.nodes and v.type.size >= self.elements]
        return "its epilogue would read many operands" if len(large) > MOST_OPERANDS else ""

    def _root(self, v: Value) -> str:
        """The level of a value that leaves the group is set by its size."""
        kind = self.space[1] if self.space else "map"
        if v.type.size == self.elements and (v.node is None or v.node.op.name not in REDUCES):
            level = ELEMENT
            if kind in ("columns", "full"):
                return "the reduction is complete only after all elements were read"
        elif v.type.size == self.rows:
            level = ROW
        else:
            return "their results have different sizes"
        found = self.levels[v] = self.levels.get(v, 0) | level
        return "the value is also read at other positions" if found & MOVED else ""

    def _whole(self, node: Node, levels: int) -> str:
        """Passes on the levels of a product, a reduction or a movement."""
        if node is self.anchor:
            return "the product is read at other positions" if levels & ~ELEMENT else ""
        if node.op.name in REDUCES:
            if levels & ~ROW:
                return "a reduction's result is read inside the loop over what it reduces"
            self._read(node.inputs[0], ELEMENT)
            return ""
        through = self._through(node, levels)
        for v in node.inputs:
            self._read(v, through)
        return ""

    def _through(self, node: Node, levels: int) -> int:
        """The levels of a movement's operand."""
        if not levels or not node.inputs:
            return 0
        x, y = node.inputs[0], node.outputs[0]
        if node.op.name == "broadcast":
            if x.type.size == y.type.size:
                return levels
            row = ROW if levels & ELEMENT and self._spreads_rows(node) else 0
            return row | (MOVED if levels & ~(ELEMENT if row else 0) else 0)
        if node.op.name == "reshape" and levels & ~MOVED and _nested(x.shape, y.shape):
            return levels
        return MOVED

    def _spreads_rows(self, node: Node) -> bool:
        """Whether the broadcast takes one number per row to all the row's elements."""
        if self.space is None or self.space[1] != "rows":
            return False
        shape, axes = node.outputs[0].shape, node.attrs["axes"]
        dims: list[tuple[int, bool]] = []
        for i, size in enumerate(shape):
            if size == 1:
                continue
            new = i not in axes
            if dims and dims[-1][1] == new:
                dims[-1] = (dims[-1][0] * size, new)
            else:
                dims.append((size, new))
        return tuple(dims) == self.space[0]

    def _read(self, v: Value, levels: int) -> None:
        self.levels[v] = self.levels.get(v, 0) | levels

    def _repeats(self, moved: Iterable[Node]) -> str:
        """Refuses to compute costly values over and over at moved positions."""
        for node in moved:
            v = node.outputs[0]
            reads = max((u.outputs[0].type.size for u in self.users.get(v, ())), default=0)
            again = self.levels[v] != MOVED or reads > v.type.size or self._spread(v)
            if again and node.op.cost > REPEAT:
                return f"{node.op.name} would be computed again for every element"
        return ""

    def _spread(self, v: Value) -> bool:
        return v.type.size * 2 < self.elements


def _nested(a: tuple, b: tuple) -> bool:
    """Whether two shapes of one size have a common refinement (prefix products interleave)."""

    def cuts(shape: tuple) -> list[int]:
        total, found = 1, []
        for size in reversed(shape):
            total *= size
            found.append(total)
        return found

    all_cuts = sorted({1, *cuts(a), *cuts(b)})
    return all(large % small == 0 for small, large in itertools.pairwise(all_cuts))
