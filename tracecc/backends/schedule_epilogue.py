"""Bodies that finish the tiles of a product: the innermost loop runs along a row of its result."""

from __future__ import annotations

from dataclasses import replace

from tracecc.backends.schedule_body import Body
from tracecc.backends.schedule_index import Affine, Unfusable, row_major

# The parameter of an epilogue's body that is the tile.
TILE = 0
# Shorter rows are not worth a call for each tile.
LEAST_COLUMNS = 8


def tiled(body: Body, columns: int) -> Body:
    """The body with its innermost loop of length ``columns``; the loops outside it count rows.

    Raises:
        Unfusable: no loop ends where a row does, or rows are short.
    """
    if columns < LEAST_COLUMNS:
        raise Unfusable("the product's rows are short")
    if not body.extents or body.extents[-1] % columns:
        raise Unfusable("the loops do not end where the product's rows do")
    rows = body.extents[-1] // columns

    def cut(index: Affine) -> Affine:
        last = index.coefs[-1]
        return index._replace(coefs=(*index.coefs[:-1], last * columns, last))

    if rows > 1:
        body = replace(
            body,
            extents=(*body.extents[:-1], rows, columns),
            reduced=(*body.reduced, False),
            code=[i if i.index is None else replace(i, index=cut(i.index)) for i in body.code],
            stores=[replace(s, index=cut(s.index)) for s in body.stores],
        )
    here = Affine(0, row_major(body.extents))
    for i in body.code:
        if i.op == "load" and i.tensor == TILE and (i.index != here or i.guard >= 0):
            raise Unfusable("the product is read at other positions")
    return body
