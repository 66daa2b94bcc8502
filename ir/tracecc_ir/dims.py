"""Symbolic dimensions: integer polynomials over named sizes; one graph serves every batch size."""

from __future__ import annotations

from collections.abc import Mapping

Monomial = tuple[str, ...]


class Dim:
    """An integer polynomial over symbols, for example ``2*b + 1``.

    A constant polynomial never exists as a Dim: arithmetic returns a plain ``int`` instead, so
    concrete shapes stay tuples of ints.

    >>> b = Dim.symbol("b")
    >>> b * 2 + b
    3*b
    >>> (b * 6) // 2
    3*b
    >>> b - b
    0
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, int]):
        self.terms = tuple(sorted((m, c) for m, c in terms.items() if c))

    @staticmethod
    def symbol(name: str) -> Dim:
        return Dim({(name,): 1})

    def symbols(self) -> set[str]:
        return {s for monomial, _ in self.terms for s in monomial}

    def evaluate(self, sizes: Mapping[str, int]) -> Size:
        """Replaces every symbol that ``sizes`` names."""
        total: Size = 0
        for monomial, coefficient in self.terms:
            product: Size = coefficient
            for s in monomial:
                product = product * (sizes[s] if s in sizes else Dim.symbol(s))
            total = total + product
        return total

    def __add__(self, other: Size) -> Size:
        terms = dict(self.terms)
        for m, c in _terms(other):
            terms[m] = terms.get(m, 0) + c
        return _simplify(terms)

    def __mul__(self, other: Size) -> Size:
        terms: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in _terms(other):
                m = tuple(sorted(m1 + m2))
                terms[m] = terms.get(m, 0) + c1 * c2
        return _simplify(terms)

    def __floordiv__(self, other: Size) -> Size:
        """Exact division by an integer or by one monomial; anything else has no symbolic form."""
        divisor = _terms(other)
        if len(divisor) == 1:
            (monomial, coefficient), terms = divisor[0], {}
            for m, c in self.terms:
                rest = list(m)
                for s in monomial:
                    if s not in rest:
                        break
                    rest.remove(s)
                else:
                    if c % coefficient == 0:
                        terms[tuple(rest)] = c // coefficient
                        continue
                break
            else:
                return _simplify(terms)
        if self == other:
            return 1
        raise ValueError(f"symbolic size {self} is not divisible by {other}")

    def __mod__(self, other: Size) -> Size:
        try:
            self // other
        except ValueError:
            raise ValueError(f"symbolic size {self} is not known modulo {other}") from None
        return 0

    __radd__ = __add__
    __rmul__ = __mul__

    def __sub__(self, other: Size) -> Size:
        return self + (-1) * other

    def __rsub__(self, other: Size) -> Size:
        return (self * -1) + other

    def __neg__(self) -> Size:
        return self * -1

    def __rfloordiv__(self, other: Size) -> Size:
        if other == 0:
            return 0
        raise ValueError(f"{other} is not divisible by symbolic size {self}")

    # A symbolic size stands for any size of two or more, as in other shape-polymorphic compilers:
    # comparisons against integers use that bound and refuse what it does not decide.
    def _compare(self, other: Size, sign: str) -> bool:
        difference = self - other
        if isinstance(difference, int):
            return {"<": difference < 0, "<=": difference <= 0}[sign]
        low = sum(c * 2 ** len(m) for m, c in difference.terms)
        if all(c > 0 for m, c in difference.terms if m) and (low > 0 or (low == 0 and sign == "<")):
            return False
        if all(c < 0 for m, c in difference.terms if m) and (
            low < 0 or (low == 0 and sign == "<=")
        ):
            return True
        raise ValueError(f"{self} {sign} {other} is not decided for a symbolic size")

    def __lt__(self, other: Size) -> bool:
        return self._compare(other, "<")

    def __le__(self, other: Size) -> bool:
        return self._compare(other, "<=")

    def __gt__(self, other: Size) -> bool:
        return not self._compare(other, "<=")

    def __ge__(self, other: Size) -> bool:
        return not self._compare(other, "<")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    def __repr__(self) -> str:
        parts = []
        for monomial, coefficient in sorted(self.terms, key=lambda t: (-len(t[0]), t[0])):
            factors = [] if coefficient == 1 and monomial else [str(coefficient)]
            parts.append("*".join(factors + list(monomial)))
        return " + ".join(parts)


Size = int | Dim


def _terms(size: Size) -> tuple[tuple[Monomial, int], ...]:
    return size.terms if isinstance(size, Dim) else (((), int(size)),)


def _simplify(terms: Mapping[Monomial, int]) -> Size:
    terms = {m: c for m, c in terms.items() if c}
    if not terms:
        return 0
    if set(terms) == {()}:
        return terms[()]
    return Dim(terms)


def product(sizes: tuple[Size, ...] | list[Size]) -> Size:
    total: Size = 1
    for size in sizes:
        total = total * size
    return total
