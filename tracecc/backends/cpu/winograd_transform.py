"""The linear maps of Winograd's minimal filtering F(4x4, 3x3), as code over any values.

y = A^T [(G g G^T) * (B^T d B)] A for a tile d of 6x6 pixels, a filter g of 3x3 and results y of
4x4. Points 0, +-5/8, +-3/2 and infinity keep the error near that of a direct sum; they come in
pairs, so that every map is sums and differences of even and odd parts.

Source: A. Lavin, S. Gray, Fast Algorithms for Convolutional Neural Networks, 2015; the choice of
points follows B. Barabasz et al., Error Analysis and Improving the Accuracy of Winograd
Convolution for DNNs, 2018.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeVar

RESULTS, TAPS = 4, 3
SIZE = RESULTS + TAPS - 1
CELLS = SIZE * SIZE
POINTS = (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2))
PAIRS = ((1, 2), (3, 4))

Matrix = tuple[tuple[Fraction, ...], ...]
T = TypeVar("T")
# Sums values with coefficients, none of them zero.
Combine = Callable[[list[tuple[Fraction, T]]], T]


def _powers(count: int) -> Matrix:
    """Rows p^0 .. p^(count-1) of the points, and of infinity."""
    rows = [tuple(p**i for i in range(count)) for p in POINTS]
    return (*rows, tuple(Fraction(int(i == count - 1)) for i in range(count)))


def _from_roots(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients of the polynomial with these roots, lowest first, padded to a row."""
    poly = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *poly]
        poly = [s - root * p for s, p in zip(shifted, [*poly, Fraction(0)], strict=True)]
    return tuple(poly + [Fraction(0)] * (SIZE - len(poly)))


def _transposed(m: Matrix) -> Matrix:
    return tuple(zip(*m, strict=True))


_others = [[q for q in POINTS if q != p] for p in POINTS]
_factors = [
    math.prod((p - q for q in o), start=Fraction(1)) for p, o in zip(POINTS, _others, strict=True)
]

# Expansions to the six points: of a tile, of a tile's gradient, of a filter.
DATA: Matrix = (*(_from_roots(o) for o in _others), _from_roots(POINTS))
GRADIENT: Matrix = _powers(RESULTS)
FILTER: Matrix = (
    *(tuple(v / f for v in row) for row, f in zip(_powers(TAPS), _factors, strict=False)),
    _powers(TAPS)[-1],
)
# Contractions of the six points: to results, to a filter's gradient.
RESULT: Matrix = _transposed(GRADIENT)
FILTER_GRADIENT: Matrix = _transposed(FILTER)


def transform(matrix: Matrix, tile: Sequence[Sequence[T]], combine: Combine[T]) -> list[list[T]]:
    """``matrix @ tile @ matrix.T`` in terms of ``combine``."""
    apply = _expand if len(matrix) == SIZE else _contract
    columns = [apply(matrix, column, combine) for column in zip(*tile, strict=True)]
    return [apply(matrix, row, combine) for row in zip(*columns, strict=True)]


def _sum(row: Sequence[Fraction], values: Sequence[T], combine: Combine[T]) -> T:
    return combine([(c, v) for c, v in zip(row, values, strict=True) if c])


def _expand(matrix: Matrix, values: Sequence[T], combine: Combine[T]) -> list[T]:
    """The rows of a pair share their even part and differ in the sign of their odd part."""
    one = Fraction(1)
    made: dict[int, T] = {}
    for i, j in PAIRS:
        even = _sum(
            [(a + b) / 2 for a, b in zip(matrix[i], matrix[j], strict=True)], values, combine
        )
        odd = _sum(
            [(a - b) / 2 for a, b in zip(matrix[i], matrix[j], strict=True)], values, combine
        )
        made[i] = combine([(one, even), (one, odd)])
        made[j] = combine([(one, even), (-one, odd)])
    return [made[i] if i in made else _sum(row, values, combine) for i, row in enumerate(matrix)]


def _contract(matrix: Matrix, values: Sequence[T], combine: Combine[T]) -> list[T]:
    """Every row needs the sum or the difference of a pair."""
    one = Fraction(1)
    parts = list(values)
    for i, j in PAIRS:
        parts[i] = combine([(one, values[i]), (one, values[j])])
        parts[j] = combine([(one, values[i]), (-one, values[j])])
    rows = []
    for row in matrix:
        coefs = list(row)
        for i, j in PAIRS:
            coefs[i], coefs[j] = (row[i] + row[j]) / 2, (row[i] - row[j]) / 2
        rows.append(_sum(coefs, parts, combine))
    return rows
