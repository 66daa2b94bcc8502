"""Bessel and Airy functions, orthogonal polynomials and Hurwitz's zeta, on f64 arrays."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tracecc_ir.ops.special import BERNOULLI, lgamma

EULER = 0.5772156649015329
NODES = 96  # of midpoint rules, which converge geometrically for periodic integrands
MIDPOINTS = math.pi * (np.arange(NODES) + 0.5) / NODES
FAR = 25.0  # from here on the asymptotic series are exact to rounding
BLOCK = 1 << 14  # elements integrated at once

# Ai and Ai' at AIRY_FIRST, AIRY_FIRST + 1, ...: where Taylor series of the equation start.
AIRY_FIRST = -10
AIRY = (
    (0.04024123848644319, 0.99626504413279),
    (-0.022133721547341403, -0.9756639809263316),
    (-0.0527050503563862, 0.9355609381983065),
    (0.18428083525050565, -0.7710081684101265),
    (-0.3291451736298231, 0.3459354872813429),
    (0.35076100902411433, 0.32719281855444315),
    (-0.07026553294928951, -0.7906285753685813),
    (-0.37881429367765806, 0.3145837692165988),
    (0.22740742820168558, 0.618259020741691),
    (0.5355608832923521, -0.01016056711664521),
    (0.3550280538878172, -0.2588194037928068),
    (0.13529241631288141, -0.1591474412967932),
    (0.03492413042327438, -0.05309038443365363),
)


def _blocks(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """``f`` of flat pieces of ``x``, so that its tables stay small."""
    flat = x.reshape(-1)
    parts = [f(flat[i : i + BLOCK]) for i in range(0, flat.size, BLOCK)]
    return np.concatenate(parts or [flat]).reshape(x.shape)


def _where(mask: np.ndarray, f: Callable, g: Callable, x: np.ndarray) -> np.ndarray:
    """``f`` where the mask holds, else ``g``, each on its own elements."""
    y = np.empty_like(x)
    y[mask] = f(x[mask])
    y[~mask] = g(x[~mask])
    return y


def _hankel(n: int, x: np.ndarray, signs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Even and odd terms of ((4 n^2 - 1)(4 n^2 - 9) ...) / (k! (8 x)^k), with given signs."""
    term, sums = np.ones_like(x), [np.zeros_like(x), np.zeros_like(x)]
    for k in range(26):
        sums[k % 2] += term * signs[0] ** (k // 2) * signs[1] ** (k % 2)
        term = term * ((4 * n * n - (2 * k + 1) ** 2) / (8.0 * (k + 1))) / x
    return sums[0], sums[1]


def modified_i(x: np.ndarray, n: int) -> np.ndarray:
    """exp(-|x|) I_n(x) for n = 0, 1: the mean of exp(x cos t) cos(n t)."""

    def near(a: np.ndarray) -> np.ndarray:
        angle = a[:, None] * np.cos(MIDPOINTS)
        if n == 0:
            return np.exp(angle - a[:, None]).mean(1)
        return np.exp(-a) * (np.sinh(angle) * np.cos(MIDPOINTS)).mean(1)

    def far(a: np.ndarray) -> np.ndarray:
        even, odd = _hankel(n, a, (1, -1))
        return (even + odd) / np.sqrt(2 * math.pi * a)

    a = np.abs(x)
    y = _where(~(a > 30), lambda t: _blocks(near, t), far, a)
    return np.copysign(y, x) if n else y


def bessel_j(x: np.ndarray, n: int) -> np.ndarray:
    """J_n(x) for n = 0, 1."""
    a = np.abs(x)
    y = _where(
        ~(a > FAR), lambda t: _blocks(lambda u: _near_j(u, n), t), lambda t: _far(t, n)[0], a
    )
    y = np.where(np.isinf(x), 0.0, y)
    return np.where(x < 0, -y, y) if n else y


def _near_j(a: np.ndarray, n: int) -> np.ndarray:
    """The mean of cos(n t - a sin t), by the half of it that does not cancel."""
    angle = a[:, None] * np.sin(MIDPOINTS)
    if n % 2:
        return (np.sin(angle) * np.sin(n * MIDPOINTS)).mean(1)
    return (np.cos(angle) * np.cos(n * MIDPOINTS)).mean(1)


def _far(a: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """J_n and Y_n by Hankel's expansion."""
    even, odd = _hankel(n, a, (-1, 1))
    c, s = np.cos(a), np.sin(a)
    cosine, sine = (c + s, s - c) if n == 0 else (s - c, -(s + c))
    scale = 1 / np.sqrt(math.pi * a)
    return scale * (even * cosine - odd * sine), scale * (even * sine + odd * cosine)


def bessel_y(x: np.ndarray, n: int) -> np.ndarray:
    """Y_n(x) for n = 0, 1, by Neumann's series in J_n near zero."""

    def near(a: np.ndarray) -> np.ndarray:
        total = np.zeros_like(a)
        for k in range(1, 41):
            weight = 2 / k if n == 0 else (2 * k + 1) / (k * (k + 1))
            total += (-1) ** k * weight * _near_j(a, 2 * k + n)
        y = (np.log(a / 2) + EULER - n) * _near_j(a, n) - total
        return 2 / math.pi * (y - (_near_j(a, 0) / a if n else 0))

    y = _where(~(x > FAR), lambda t: _blocks(near, t), lambda t: _far(t, n)[1], x)
    return np.where(x > 0, np.where(np.isinf(x), 0.0, y), np.where(x == 0, -np.inf, np.nan))


def modified_k(x: np.ndarray, order: float) -> np.ndarray:
    """exp(x) K_order(x): the integral of exp(-x (cosh t - 1)) cosh(order t) over t >= 0."""
    nodes = np.arange(161) / 160
    weights = np.where(np.arange(161) % 160, 1.0, 0.5) / 160

    def near(a: np.ndarray) -> np.ndarray:
        end = np.arccosh(1 + 45 / a)[:, None]
        t = end * nodes
        values = np.exp(-2 * a[:, None] * np.sinh(t / 2) ** 2) * np.cosh(order * t)
        return (values * weights).sum(1) * end[:, 0]

    def tiny(a: np.ndarray) -> np.ndarray:
        return 1 / a if order else -np.log(a / 2) - EULER

    y = _where(x < 1e-8, tiny, lambda t: _blocks(near, t), np.abs(x))
    return np.where(x > 0, y, np.where(x == 0, np.inf, np.nan))


def airy(x: np.ndarray) -> np.ndarray:
    """Ai(x): by K_1/3 for large x, Taylor series from a table, Hankel's expansion below."""

    def above(z: np.ndarray) -> np.ndarray:
        zeta = z * np.sqrt(z) * (2 / 3)
        return np.sqrt(z / 3) / math.pi * np.exp(-zeta) * modified_k(zeta, 1 / 3)

    y = _where(x > 1.5, above, lambda t: _where(t < -9.5, _airy_below, _airy_near, t), x)
    return np.where(np.isinf(x), 0.0, y)


def _airy_near(x: np.ndarray) -> np.ndarray:
    centre: np.ndarray = np.clip(np.round(np.where(np.isnan(x), 0, x)), AIRY_FIRST, 2)
    table = np.array(AIRY)[(centre - AIRY_FIRST).astype(np.int64)]
    step: np.ndarray = x - centre
    a: list[np.ndarray] = [np.zeros_like(x), table[..., 0], table[..., 1]]
    total, power = a[1] + a[2] * step, step
    for k in range(24):  # a[k + 2] = (centre a[k] + a[k - 1]) / ((k + 1) (k + 2))
        a = [a[1], a[2], (centre * a[1] + a[0]) / ((k + 1) * (k + 2))]
        power = power * step
        total = total + a[2] * power
    return total


def _airy_below(x: np.ndarray) -> np.ndarray:
    z = -x
    zeta = z * np.sqrt(z) * (2 / 3)
    term, sums = np.ones_like(x), [np.zeros_like(x), np.zeros_like(x)]
    for k in range(24):
        sums[k % 2] += (-1) ** (k // 2) * term
        term = term * ((6 * k + 1) * (6 * k + 5) / (72.0 * (k + 1))) / zeta
    c, s = np.cos(zeta), np.sin(zeta)
    wave = ((s + c) * sums[0] - (c - s) * sums[1]) / math.sqrt(2)
    return wave / np.sqrt(math.pi * np.sqrt(z))


# Polynomials: the first two of each family, and the rule for the next.

Next = Callable[[int, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _chebyshev(k: int, x: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return 2 * x * p - q


FAMILIES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Next]] = {
    "chebyshev_t": (lambda x: x, _chebyshev),
    "chebyshev_u": (lambda x: 2 * x, _chebyshev),
    "chebyshev_v": (lambda x: 2 * x - 1, _chebyshev),
    "chebyshev_w": (lambda x: 2 * x + 1, _chebyshev),
    "hermite_h": (lambda x: 2 * x, lambda k, x, p, q: 2 * x * p - 2 * k * q),
    "hermite_he": (lambda x: x, lambda k, x, p, q: x * p - k * q),
    "laguerre_l": (lambda x: 1 - x, lambda k, x, p, q: ((2 * k + 1 - x) * p - k * q) / (k + 1)),
    "legendre_p": (lambda x: x, lambda k, x, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1)),
}


def polynomial(x: np.ndarray, n: np.ndarray, family: str) -> np.ndarray:
    """The n-th polynomial of a family; 0 for negative n."""
    first, following = FAMILIES[family]
    degree = np.trunc(np.where(np.isfinite(n), n, -1))
    q, p = np.ones_like(x), first(x)
    y = np.where(degree == 0, q, 0.0)
    for k in range(1, int(degree.max(initial=0)) + 1):
        y = np.where(degree == k, p, y)
        p, q = following(k, x, p, q), p
    return y


def zeta(s: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The sum of (q + k)^-s over k >= 0 (Euler-Maclaurin); infinite at s = 1 and at its poles."""
    total, x = np.zeros_like(s), q.copy()
    while True:
        low = x <= 12
        if not low.any():
            break
        total = total + np.where(low, x, 1.0) ** -s * low
        jump = np.where(low & (x < -1e4), -1e4 - x, 0.0)  # so far away nothing is left
        x = x + low + np.floor(jump)
    total = total + x ** (1 - s) / (s - 1) + 0.5 * x**-s
    factor = s * x ** (-s - 1)
    for j, b in enumerate(BERNOULLI, start=1):
        total = total + float(b) / math.factorial(2 * j) * factor
        factor = factor * (s + 2 * j - 1) * (s + 2 * j) / (x * x)
    whole = (q <= 0) & (q == np.floor(q))
    lost = (q <= 0) & ~whole & (s != np.floor(s))
    total = np.where(whole, np.inf, np.where(lost, np.nan, total))
    return np.where(s == 1, np.inf, np.where((s < 1) | np.isnan(s), np.nan, total))


def incomplete_gamma(a: np.ndarray, x: np.ndarray, upper: bool) -> np.ndarray:
    """The regularised incomplete gamma functions (Abramowitz & Stegun 6.5.29 and 6.5.31)."""
    ok = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
    s, z = np.where(ok, a, 1.0), np.where(ok, x, 1.0)
    front = np.exp(s * np.log(z) - z - lgamma(s))
    below = z < s + 1
    p = np.where(below, front * _gamma_series(s, np.where(below, z, s)), 0.0)
    c = np.where(below, 0.0, front * _gamma_fraction(s, np.where(below, s + 2, z)))
    y = np.where(below, 1 - p, c) if upper else np.where(below, p, 1 - c)
    zero, one = (1.0, 0.0) if upper else (0.0, 1.0)
    y = np.where(ok, y, np.nan)
    y = np.where((a > 0) & (x == 0), zero, y)
    y = np.where((a == 0) & (x > 0), one, y)
    y = np.where((a >= 0) & np.isfinite(a) & np.isposinf(x), one, y)
    return np.where(np.isposinf(a) & (x >= 0) & np.isfinite(x), zero, y)


def _gamma_series(s: np.ndarray, z: np.ndarray) -> np.ndarray:
    term = 1 / s
    total = term.copy()
    for k in range(1, 10000):
        term = term * z / (s + k)
        total = total + term
        if not (term > total * 1e-17).any():
            break
    return total


def _gamma_fraction(s: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Lentz's evaluation of the continued fraction."""
    b = z + 1 - s
    c, d = np.full_like(b, 1e300), 1 / b
    h = d.copy()
    for k in range(1, 10000):
        an = -k * (k - s)
        b = b + 2
        d = 1 / (an * d + b)
        c = b + an / c
        h = h * d * c
        if not (np.abs(d * c - 1) > 1e-16).any():
            break
    return h
