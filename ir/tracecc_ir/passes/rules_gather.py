"""Rules of `simplify` for products of gathered rows, as an embedding before a linear layer has.

Rows that are gathered several times are multiplied once: a product of the table takes the place of
a product of all its gathered rows, and cotangents are summed by row before they are multiplied.
Rows that no index names stay out of every sum, so that a NaN in them does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracecc_ir.dims import product
from tracecc_ir.graph import Node
from tracecc_ir.op import Expr
from tracecc_ir.ops.contraction import dot_general
from tracecc_ir.ops.elementwise import select
from tracecc_ir.ops.index import gather, scatter
from tracecc_ir.ops.movement import broadcast, permute, reshape
from tracecc_ir.ops.rules import others
from tracecc_ir.types import bool_

Ints = tuple[int, ...]
Found = Any  # Expr | None

# Uses of a row, on average, from which on it pays to multiply rows and not their copies.
_USES = 2
# Multiply-adds of an element from which on it pays to sum rows by index before a product.
_WORTH = 16


def _rows(x: Expr) -> Node | None:
    """The node that made x, if it gathers whole rows by one index array."""
    node = x.value.node
    return node if node and node.op is gather and node.attrs["axes"] == (0,) else None


def _exprs(x: Expr, node: Node) -> list[Expr]:
    return [Expr(v, x.emitter) for v in node.inputs]


def _often(table: Expr, index: Expr) -> bool:
    """Whether each row of the table is named often enough, and may be summed in its own dtype."""
    rows, uses = table.shape[0], product(list(index.shape))
    known = isinstance(rows, int) and isinstance(uses, int)
    return known and uses >= _USES * rows and table.dtype.name in ("f32", "f64")


# Indices are moved in place of rows.


def permute_gathered(x: Expr, axes: Ints) -> Found:
    if (node := _rows(x)) is None:
        return None
    table, index = _exprs(x, node)
    n = index.ndim
    if sorted(axes[:n]) != list(range(n)) or list(axes[n:]) != list(range(n, x.ndim)):
        return None
    return gather(table, permute(index, axes=tuple(axes[:n])), axes=(0,))


def reshape_gathered(x: Expr, shape: Sequence[Any]) -> Found:
    if (node := _rows(x)) is None:
        return None
    table, index = _exprs(x, node)
    first = _prefix(shape, index.shape, table.shape[1:])
    return None if first is None else gather(table, reshape(index, shape=first), axes=(0,))


def _prefix(shape: Sequence[Any], index: Sequence[Any], row: Sequence[Any]) -> tuple | None:
    """What a new shape makes of the dimensions of indices, if it leaves those of rows alone."""
    first = tuple(shape[: len(shape) - len(row)])
    fits = tuple(shape[len(first) :]) == tuple(row) and product(list(first)) == product(list(index))
    return first if fits else None


def scatter_moved(x: Expr, *operands: Expr, axes: Ints, mode: str) -> Found:
    """Updates in another order of their dimensions: the indices are moved back."""
    if len(operands) != 2 or axes != (0,):
        return None
    index, updates = operands
    node, n = updates.value.node, index.ndim
    if node is None or node.op.name not in ("permute", "reshape"):
        return None
    (source,) = _exprs(updates, node)
    if node.op.name == "permute":
        moves = node.attrs["axes"]
        if sorted(moves[:n]) != list(range(n)) or list(moves[n:]) != list(range(n, updates.ndim)):
            return None
        back = permute(index, axes=tuple(moves.index(d) for d in range(n)))
        return scatter(x, back, source, axes=axes, mode=mode)
    first = _prefix(source.shape, index.shape, x.shape[1:])
    if first is None:
        return None
    return scatter(x, reshape(index, shape=first), source, axes=axes, mode=mode)


# Products.


def dot_gathered(x: Expr, y: Expr, contract: tuple, batch: tuple) -> Found:
    """A product with gathered rows, along their elements or along the rows."""
    if batch[0]:
        return None
    along = _along(x, y, contract)
    return _over(x, y, contract) if along is None else along


def _along(x: Expr, y: Expr, contract: tuple) -> Found:
    """Elements are contracted: the table is multiplied, then rows of the result are gathered."""
    if (node := _rows(x)) is None:
        return None
    table, index = _exprs(x, node)
    n = index.ndim
    if not contract[0] or min(contract[0]) < n or not _often(table, index):
        return None
    inner = tuple(d - n + 1 for d in contract[0])
    made = dot_general(table, y, contract=(inner, contract[1]), batch=((), ()))
    return gather(made, index, axes=(0,))


def _over(x: Expr, y: Expr, contract: tuple) -> Found:
    """Rows are contracted: the other operand is summed by row, and multiplied with the table."""
    for side, (e, other) in enumerate(((x, y), (y, x))):
        if (node := _rows(e)) is None:
            continue
        table, index = _exprs(e, node)
        n, width = index.ndim, product(list(table.shape[1:]))
        if sorted(contract[side]) != list(range(n)) or not _often(table, index):
            continue
        if not isinstance(width, int) or width < _WORTH:
            continue
        pairs = sorted(zip(contract[side], contract[1 - side], strict=True))
        first = tuple(d for _, d in pairs)
        moved = permute(other, axes=(*first, *others(other.ndim, first)))
        sums = _summed(table.shape[0], index, moved)
        named = _named(table.shape[0], index)
        known = select(_spread(named, table), table, table.full(0))
        pair = (known, sums) if side == 0 else (sums, known)
        return dot_general(*pair, contract=((0,), (0,)), batch=((), ()))
    return None


def scatter_product(x: Expr, *operands: Expr, axes: Ints, mode: str) -> Found:
    """A sum of products by row: the left operands are summed by row, then multiplied."""
    if len(operands) != 2 or axes != (0,) or mode != "add":
        return None
    index, updates = operands
    node, zero = updates.value.node, x.value.node
    if zero is None or zero.op.name != "constant" or zero.attrs["value"] != 0:
        return None
    if node is None or node.op.name != "dot_general" or node.attrs["batch"][0]:
        return None
    left, right = _exprs(updates, node)
    inner, outer = node.attrs["contract"]
    n, width = index.ndim, product([left.shape[d] for d in inner])
    if min(inner, default=0) < n or not _often(x, index):
        return None
    saved = product(list(x.shape[1:]))
    if not isinstance(width, int) or not isinstance(saved, int) or saved < _WORTH:
        return None
    sums = _summed(x.shape[0], index, left)
    inner = tuple(d - n + 1 for d in inner)
    made = dot_general(sums, right, contract=(inner, outer), batch=((), ()))
    return select(_spread(_named(x.shape[0], index), made), made, made.full(0))


def _summed(rows: Any, index: Expr, updates: Expr) -> Any:
    """Updates summed by the row that their index names."""
    target = updates.full(0, shape=(rows, *updates.shape[index.ndim :]))
    return scatter(target, index, updates, axes=(0,), mode="add")


def _named(rows: Any, index: Expr) -> Any:
    """Which rows an index names."""
    nowhere = index.full(False, shape=(rows,), dtype=bool_)
    everywhere = index.full(True, dtype=bool_)
    return scatter(nowhere, index, everywhere, axes=(0,), mode="set")


def _spread(named: Expr, x: Expr) -> Any:
    return broadcast(named, shape=x.shape, axes=(0,))
