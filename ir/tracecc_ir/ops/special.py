"""Special functions that NumPy lacks, on f64 arrays: the references of elementwise ops."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.polynomial.polynomial import polyder, polymul, polyval

TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)

# erf(x) sqrt(pi) / (2 x) in powers of x^2; the terms after these are below 1e-19 on [0, 1].
ERF_SERIES = [(-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(20)]

# (1 + 2 x) exp(x^2) erfc(x) for x >= 0 in powers of (x - 3) / (x + 3): the smooth form of
# Schonfelder (Math. Comp. 32, 1978), a Chebyshev fit made in 40 digits.
ERFC_SERIES = [
    1.2530080582697296,
    -0.1356211061245812,
    -0.04756229435345109,
    0.12964515870276475,
    -0.11927366341528023,
    0.06830802734384515,
    -0.023770514919506852,
    0.0025293918180474668,
    0.0018886903716907627,
    -0.0007798322884823084,
    -0.00010515990108729849,
    0.0001250994355712812,
    4.949988662264347e-06,
    -2.0100843094844725e-05,
    -7.33143259743597e-07,
    3.473024167841533e-06,
    3.603910925712771e-07,
    -6.175617678992323e-07,
    -1.4683175494120584e-07,
    1.0277997488271058e-07,
    4.6950946691614734e-08,
    -1.3906145791730994e-08,
    -1.1734464137789657e-08,
    1.2019719440135793e-09,
    2.0626322959832455e-09,
    -3.451497487664328e-11,
    -1.881936630944858e-10,
]

# B_2, B_4, ...: the Bernoulli numbers of the asymptotic series.
BERNOULLI = [
    Fraction(*pair)
    for pair in (
        (1, 6),
        (-1, 30),
        (1, 42),
        (-1, 30),
        (5, 66),
        (-691, 2730),
        (7, 6),
        (-3617, 510),
        (43867, 798),
        (-174611, 330),
    )
]


def _horner(x: np.ndarray, coefficients: list[float]) -> np.ndarray:
    y = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        y *= x
        y += c
    return y


def erf(x: np.ndarray) -> np.ndarray:
    a = np.abs(x)
    small = x * TWO_OVER_ROOT_PI * _horner(np.minimum(a, 1.0) ** 2, ERF_SERIES)
    return np.where(a < 1, small, np.copysign(1 - _erfc_of_positive(a), x))


def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x), without cancellation for large x."""
    tail = _erfc_of_positive(np.abs(x))
    return np.where(x < 0, 2 - tail, np.where(x < 0.5, 1 - erf(x), tail))


def _erfc_of_positive(x: np.ndarray) -> np.ndarray:
    x = np.minimum(x, 30.0)  # erfc underflows beyond 27.3
    # exp(-x^2) in two factors: the square of x with a short mantissa is exact.
    high = np.round(x * 65536) / 65536
    gauss = np.exp(-high * high) * np.exp((high - x) * (high + x))
    return gauss * scaled_erfc(x)


def scaled_erfc(x: np.ndarray) -> np.ndarray:
    """exp(x^2) erfc(x) for x >= 0."""
    t = np.where(np.isinf(x), 1.0, (x - 3) / (x + 3))
    return _horner(t, ERFC_SERIES) / (1 + 2 * x)


def erfinv(y: np.ndarray) -> np.ndarray:
    """Winitzki's closed form (2008), good to 2e-3, polished by four steps of Newton's method.

    Beyond one half the steps use erfc and 1 - y, which is exact there.
    """
    a = np.minimum(np.abs(y), np.nextafter(1, 0))
    w = np.log1p(-a * a)
    b = TWO_OVER_ROOT_PI * math.sqrt(math.pi) / 0.147 / math.pi + w / 2
    x = np.sqrt(np.sqrt(b * b - w / 0.147) - b)
    for _ in range(4):
        excess = np.where(a < 0.5, erf(x) - a, (1 - a) - erfc(x))
        x = x - excess / (TWO_OVER_ROOT_PI * np.exp(-x * x))
    x = np.where(np.abs(y) == 1, np.inf, np.where(np.abs(y) < 1, x, np.nan))
    return np.copysign(x, y)


def lgamma(x: np.ndarray) -> np.ndarray:
    """log |gamma(x)|; the C library's is accurate near its zeros, which no short formula is."""

    def one(v: float) -> float:
        try:
            return math.lgamma(v)
        except (ValueError, OverflowError):
            return math.inf

    return np.array([one(v) for v in x.ravel().tolist()], np.float64).reshape(x.shape)


def digamma(x: np.ndarray) -> np.ndarray:
    """The derivative of lgamma."""
    y = polygamma(x, 0)
    return np.where(x == 0, -np.copysign(np.inf, x), y)


def polygamma(x: np.ndarray, n: int) -> np.ndarray:
    """The n-th derivative of digamma (Abramowitz & Stegun 6.4).

    Recurrence up to n + 12, then the asymptotic series; below 0 by reflection. At the poles, which
    are 0, -1, -2, ..., NaN for n = 0, otherwise infinity with the sign it has to their right.
    """
    reflect = x <= 0
    y = _polygamma_of_positive(np.where(reflect, 1 - x, x), n)
    pole = x == np.floor(x)
    cot = 1 / np.tan(math.pi * np.where(pole, 0.5, x - np.round(x)))
    polynomial = np.array([0.0, 1.0])  # the n-th derivative of cot(pi x) is one in cot(pi x)
    for _ in range(n):
        polynomial = polymul(polyder(polynomial), [-math.pi, 0, -math.pi])
    reflected = (-1) ** n * y - math.pi * polyval(cot, polynomial)
    at_pole = math.nan if n == 0 else math.inf * (-1) ** (n + 1)
    at_minus_infinity = np.where(np.isinf(x), np.nan, at_pole)
    return np.where(reflect, np.where(pole, at_minus_infinity, reflected), y)


def _polygamma_of_positive(x: np.ndarray, n: int) -> np.ndarray:
    sign, factorial = (-1) ** (n + 1), math.factorial(n)
    total = np.zeros_like(x)
    for _ in range(n + 12):
        low = x < n + 12
        step = sign * factorial * np.where(low, x, 1.0) ** -(n + 1)
        total = total + np.where(low, step, 0)
        x = x + low
    if n == 0:
        series = np.log(x) - 0.5 / x
    else:
        series = sign * (math.factorial(n - 1) + factorial / (2 * x)) * x**-n
    for j, b in enumerate(BERNOULLI, start=1):
        c = b * math.factorial(2 * j + n - 1) / math.factorial(2 * j)
        series = series + sign * float(c) * x ** -(2 * j + n)
    return total + np.where(np.isinf(x), np.inf if n == 0 else 0.0, series)
