"""Line search for the strong Wolfe conditions (Nocedal and Wright, Numerical Optimization, 3.5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from tracecc.tensor import Tensor

SUFFICIENT, CURVATURE = 1e-4, 0.9


class Point(NamedTuple):
    """A place on the line: step length, loss, gradient, and its slope along the line.

    The numbers are floats, or under a trace 0-d float64 tensors.
    """

    t: Any
    loss: Any
    gradient: Tensor
    slope: Any


def cubic_minimum(a: Point, b: Point, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through two points with their slopes is least, within ``bounds``."""
    if a.t > b.t:
        a, b = b, a
    low, high = bounds or (a.t, b.t)
    middle = (low + high) / 2.0
    if a.t == b.t:
        return middle
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return middle
    d2 = math.sqrt(square)
    divisor = b.slope - a.slope + 2 * d2
    if divisor == 0:
        return middle
    return min(max(b.t - (b.t - a.t) * ((b.slope + d2 - d1) / divisor), low), high)


def is_too_high(p: Point, start: Point) -> Any:
    """Whether a point descends less than its length asks for."""
    return p.loss > start.loss + SUFFICIENT * p.t * start.slope


def is_flat(p: Point, start: Point) -> Any:
    """Whether a point's slope is small enough."""
    return abs(p.slope) <= -CURVATURE * start.slope


def strong_wolfe(
    evaluate: Callable[[float], Point],
    t: float,
    start: Point,
    reach: float,
    tolerance: float = 1e-9,
    most: int = 25,
) -> tuple[Point, int]:
    """A point with enough descent and a small slope.

    Args:
        evaluate: the point at a step length.
        t: the first step length to try.
        start: the point at 0.
        reach: the largest element of the direction.
        tolerance: stop when the bracket moves no element further than this.
        most: evaluations after the first.

    Returns:
        The best point found, and how often ``evaluate`` was called.
    """
    before, new = start, evaluate(t)
    bracket = [start, new]
    for tries in range(most):  # walk out until a minimum is enclosed
        if is_too_high(new, start) or (tries > 1 and new.loss >= before.loss):
            break
        if is_flat(new, start):
            return new, tries + 1
        if new.slope >= 0:
            break
        bounds = (new.t + 0.01 * (new.t - before.t), new.t * 10)
        before, new = new, evaluate(cubic_minimum(before, new, bounds))
        bracket = [start, new]
    else:
        return min(bracket, key=lambda p: p.loss), most + 1
    return _zoom(evaluate, [before, new], start, reach, tolerance, tries, most)


def _zoom(
    evaluate: Callable[[float], Point],
    bracket: list[Point],
    start: Point,
    reach: float,
    tolerance: float,
    tries: int,
    most: int,
) -> tuple[Point, int]:
    """Narrows a bracket around a minimum."""
    stuck = False
    low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
    while tries < most and abs(bracket[1].t - bracket[0].t) * reach >= tolerance:
        t = cubic_minimum(bracket[0], bracket[1])
        left, right = sorted(p.t for p in bracket)
        margin = 0.1 * (right - left)
        close = min(right - t, t - left) < margin
        if close and (stuck or t >= right or t <= left):
            t = right - margin if abs(t - right) < abs(t - left) else left + margin
            close = False
        stuck = close
        new = evaluate(t)
        tries += 1
        if is_too_high(new, start) or new.loss >= bracket[low].loss:
            bracket[high] = new
            low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
            continue
        if is_flat(new, start):
            return new, tries + 1
        if new.slope * (bracket[high].t - bracket[low].t) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = new
    return bracket[low], tries + 1
