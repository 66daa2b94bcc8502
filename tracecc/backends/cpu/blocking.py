"""How a matrix product is cut into work units: the cheapest cut by a small model of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tracecc import config

# The right operand: its rows are contiguous, they are not, or it is packed beforehand.
Right = Literal["rows", "strided", "packed"]

WIDTHS = (128, 64, 32)
MOST_ROWS = 504
MOST_ROW_BLOCKS = 64
MOST_COLUMNS = 512  # Units that pack their own rows may own so many columns.
IN_PLACE = 4  # Contiguous rows of B are read where they lie by blocks of at most so many panels.

# Costs in multiply-adds of a full-width vector.
_PACK = 6.0  # an element of B
_READ = 0.8  # an element of A, or of B where it lies, once more
_FETCH = 12.0  # the same from memory: of an operand that no cache keeps
_CACHED = 1 << 21  # elements of an operand that a cache keeps
_UNIT = 4096.0  # a unit of its own
_REGION = 200000.0  # a launch more
_PASS = 20.0  # an element of A that one thread packs and others read
_IDLE = 0.1  # of a unit, that threads wait for the one that is interrupted
# Below this many multiply-adds a product is not worth a second thread.
_SERIAL = 1 << 19


@dataclass(frozen=True)
class Blocking:
    """Units own ``rows`` x ``columns`` of the result (fewer at its edges).

    Attributes:
        rows: a multiple of the height of A's panels.
        row_blocks, column_blocks: how many units there are of one product.
        packs: whether a unit packs its part of B.
    """

    rows: int
    columns: int
    row_blocks: int
    column_blocks: int
    packs: bool


def blocking(
    products: int, m: int, n: int, k: int, mr: int, right: Right, packs_left: bool = False
) -> Blocking:
    """The cut of ``products`` products [m, k] x [k, n] whose A is packed in panels of ``mr`` rows.

    Where units ``packs_left``, they do so if they have all columns; else it takes a launch more.
    Sums along k are never cut, so the numbers do not depend on it.
    """
    threads = config.num_threads() if products * m * n * k > _SERIAL else 1
    panels = max(1, -(-m // mr))
    found: list[tuple[float, int, Blocking]] = []
    all_columns = max(1, -(-n // 32)) * 32
    for columns in (*WIDTHS, all_columns) if packs_left and n <= MOST_COLUMNS else WIDTHS:
        column_blocks = max(1, -(-n // columns))
        first = -(-panels * mr // MOST_ROWS)
        for wanted in range(first, min(panels, first + MOST_ROW_BLOCKS) + 1):
            height = -(-panels // wanted)
            packs = right == "strided" or (right == "rows" and height > IN_PLACE)
            cut = Blocking(height * mr, columns, -(-panels // height), column_blocks, packs)
            cost = _cost(cut, products, panels * mr, n, k, threads)
            if packs_left and threads > 1 and column_blocks > 1:
                cost += _REGION + panels * mr * k * _PASS / threads
            found.append((cost, len(found), cut))
            if threads == 1:
                break
    return min(found)[2]


def share_blocking(share: int, m: int, n: int, mr: int, right: Right) -> Blocking:
    """The cut of a product of m rows of which a thread takes ``share``, a multiple of ``mr``."""
    rows = share if share <= MOST_ROWS else mr
    columns = min((w for w in WIDTHS if w >= n), default=WIDTHS[0])
    packs = right == "strided" or (right == "rows" and rows > IN_PLACE * mr)
    return Blocking(rows, columns, -(-m // rows), -(-n // columns), packs)


def _cost(cut: Blocking, products: int, m: int, n: int, k: int, threads: int) -> float:
    """What the busiest thread does: an even share of all units, or of those that are whole."""
    left = _READ if m * k <= _CACHED else _FETCH
    right = _READ if k * n <= _CACHED else _FETCH
    if cut.packs:
        right += _PACK
    width = max(1, -(-n // 32)) * 32
    columns = min(width, cut.columns)
    units = max(1, products * cut.row_blocks * cut.column_blocks)
    total = products * k * (m * width + cut.column_blocks * m * left)
    total += products * k * cut.row_blocks * width * right + units * _UNIT
    one = k * (cut.rows * (columns + left) + columns * right) + _UNIT
    whole = products * (m // cut.rows) * (width // columns)
    busy = max(-(-units // threads) * total / units, -(-whole // threads) * one)
    return busy + _IDLE * one * (threads > 1)
