"""A step of L-BFGS as loops of one graph: what `LBFGS.step` is inside a compiled function.

Numbers that decide (losses, slopes, step lengths) are 0-d float64 tensors, as eager ones are Python
floats. The memory is a window of rows, the newest last; rows not yet used are zeros and change
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tracecc as tc
from tracecc.control import cond, scan, while_loop
from tracecc.optim.line_search import Point, is_flat, is_too_high
from tracecc.optim.optimizer import like
from tracecc.tensor import Tensor

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


class Memory(NamedTuple):
    """What is kept between iterations and steps; the names are those of the state dict."""

    func_evals: Tensor
    n_iter: Tensor
    d: Tensor
    t: Tensor
    old_dirs: Tensor
    old_stps: Tensor
    ro: Tensor
    H_diag: Tensor
    prev_flat_grad: Tensor
    prev_loss: Tensor


class Walk(NamedTuple):
    """Where the iterations are."""

    x: Tensor
    loss: Tensor
    gradient: Tensor
    evaluations: Tensor
    iteration: Tensor
    goes_on: Tensor
    memory: Memory


def minimize(
    evaluate: Evaluate, x: Tensor, loss: Tensor, gradient: Tensor, memory: Memory, option: Any
) -> Walk:
    """Up to ``max_iter`` iterations.

    Args:
        evaluate: the loss and gradient at a point.
        x: the parameters in one row; ``loss`` and ``gradient`` are those there.
        memory: of the steps before.
        option: gives hyperparameters by name.
    """
    most, tolerance = option("max_eval"), option("tolerance_change")

    def iterate(w: Walk) -> tuple[Walk]:
        memory = _remember(w.memory, w.gradient)
        d = _direction(memory, w.gradient)
        first = 1.0 / w.gradient.abs().sum().double()
        t = tc.where(memory.n_iter == 1, first.clamp(max=1.0), 1.0) * option("lr")
        slope = _dot(w.gradient, d)
        start = Point(tc.zeros_like(slope), w.loss, w.gradient, slope)
        descends = ~(slope > -tolerance)

        def move() -> tuple[Point, Tensor]:
            if option("line_search_fn") is not None:
                return _strong_wolfe(
                    lambda t: _at(evaluate, w.x, t, d), t, start, _largest(d), most - w.evaluations
                )
            calls = (w.iteration + 1 != option("max_iter")).long()  # nothing reads the last
            return cond(
                calls == 1, lambda: _at(evaluate, w.x, t, d), lambda: start._replace(t=t)
            ), calls

        end, calls = cond(descends, move, lambda: (start._replace(t=t), tc.zeros_like(w.iteration)))
        moved = tc.where(descends, end.t, 0.0)
        evaluations = w.evaluations + calls
        stops = (
            ~descends
            | (evaluations >= most)
            | (_largest(d) * moved.abs() <= tolerance)
            | ((end.loss - w.loss).abs() < tolerance)
            | (_largest(end.gradient) <= option("tolerance_grad"))
        )
        memory = memory._replace(
            d=d,
            t=end.t,
            func_evals=memory.func_evals + calls,
            prev_flat_grad=w.gradient,
            prev_loss=w.loss,
        )
        x = w.x + like(w.x, moved) * d
        return (Walk(x, end.loss, end.gradient, evaluations, w.iteration + 1, ~stops, memory),)

    zero = tc.zeros((), dtype=tc.int64)
    goes_on = ~(_largest(gradient) <= option("tolerance_grad"))
    memory = memory._replace(func_evals=memory.func_evals + 1)
    walk = Walk(x, loss, gradient, zero + 1, zero, goes_on, memory)
    (walk,) = while_loop(lambda w: w.goes_on & (w.iteration < option("max_iter")), iterate, (walk,))
    return walk


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return a.dot(b).double()


def _largest(t: Tensor) -> Tensor:
    return t.abs().max().double()


def _at(evaluate: Evaluate, x: Tensor, t: Tensor, d: Tensor) -> Point:
    """The point ``t`` along ``d`` from ``x``."""
    loss, gradient = evaluate(x + like(x, t) * d)
    return Point(t, loss, gradient, _dot(gradient, d))


def _pick(condition: Tensor, a: Any, b: Any) -> Any:
    """Field by field, ``a`` if the condition holds, else ``b``."""
    return type(a)(*(tc.where(condition, p, q) for p, q in zip(a, b, strict=True)))


def _remember(memory: Memory, gradient: Tensor) -> Memory:
    """One more iteration, with the last step in the window if the loss curves upwards along it."""
    y, s = gradient - memory.prev_flat_grad, memory.d * like(memory.d, memory.t)
    curvature = _dot(y, s)
    new = memory._replace(
        old_dirs=tc.cat([memory.old_dirs[1:], y.unsqueeze(0)]),
        old_stps=tc.cat([memory.old_stps[1:], s.unsqueeze(0)]),
        ro=tc.cat([memory.ro[1:], (1.0 / curvature).reshape(1)]),
        H_diag=curvature / _dot(y, y),
    )
    accepted = (memory.n_iter > 0) & (curvature > 1e-10)
    return _pick(accepted, new, memory)._replace(n_iter=memory.n_iter + 1)


def _direction(memory: Memory, gradient: Tensor) -> Tensor:
    """Minus the approximate inverse Hessian times the gradient, by the two-loop recursion."""

    def back(q: Tensor, row: tuple) -> tuple[Tensor, Tensor]:
        y, s, inverse = row
        weight = _dot(s, q) * inverse
        return q - y * like(y, weight), weight

    def forth(d: Tensor, row: tuple) -> tuple[Tensor, Tensor]:
        y, s, inverse, weight = row
        return d + s * like(s, weight - _dot(y, d) * inverse), weight

    rows = (memory.old_dirs, memory.old_stps, memory.ro)
    q, weights = scan(back, -gradient, rows, reverse=True)
    return scan(forth, q * like(q, memory.H_diag), (*rows, weights))[0]


# The line search of line_search.py; the decisions are the same, one by one.


class _Outwards(NamedTuple):
    tries: Tensor
    before: Point
    new: Point


class _Bracket(NamedTuple):
    """Two points around a minimum; ``first`` tells whether the lower one was there first."""

    tries: Tensor
    low: Point
    high: Point
    first: Tensor
    stuck: Tensor
    done: Tensor


def _strong_wolfe(
    evaluate: Callable[[Tensor], Point],
    t: Tensor,
    start: Point,
    reach: Tensor,
    most: Tensor,
    tolerance: float = 1e-9,
) -> tuple[Point, Tensor]:
    """As `line_search.strong_wolfe`, by tensors."""

    def encloses(o: _Outwards) -> Tensor:
        return is_too_high(o.new, start) | ((o.tries > 1) & (o.new.loss >= o.before.loss))

    def walks(o: _Outwards) -> Tensor:
        ends = encloses(o) | is_flat(o.new, start) | (o.new.slope >= 0)
        return (o.tries < most) & ~ends

    def walk(o: _Outwards) -> tuple[_Outwards]:
        a, b = o.before, o.new
        t = _cubic_minimum(a, b, (b.t + 0.01 * (b.t - a.t), b.t * 10))
        return (_Outwards(o.tries + 1, b, evaluate(t)),)

    zero = tc.zeros((), dtype=tc.int64)
    (o,) = while_loop(walks, walk, (_Outwards(zero, start, evaluate(t)),))
    spent = o.tries >= most
    found = ~spent & ~encloses(o) & is_flat(o.new, start)
    best = _pick(o.new.loss < start.loss, o.new, start)
    end, tries = _zoom(evaluate, o, start, reach, tolerance, most, spent | found)
    point = _pick(spent, best, _pick(found, o.new, end))
    return point, tc.where(spent, most + 1, tc.where(found, o.tries + 1, tries + 1))


def _zoom(
    evaluate: Callable[[Tensor], Point],
    o: _Outwards,
    start: Point,
    reach: Tensor,
    tolerance: float,
    most: Tensor,
    done: Tensor,
) -> tuple[Point, Tensor]:
    """Narrows the bracket, unless all is ``done``."""

    def narrows(b: _Bracket) -> Tensor:
        wide = (b.high.t - b.low.t).abs() * reach >= tolerance
        return ~b.done & (b.tries < most) & wide

    def narrow(b: _Bracket) -> tuple[_Bracket]:
        t, stuck = _inside(b)
        new, low, high = evaluate(t), b.low, b.high
        worse = is_too_high(new, start) | (new.loss >= low.loss)
        swaps = worse & tc.where(b.first, new.loss < low.loss, new.loss <= low.loss)
        beyond = new.slope * (high.t - low.t) >= 0
        lower = _pick(~worse | swaps, new, low)
        higher = _pick(worse & ~swaps, new, _pick(swaps | beyond, low, high))
        done = ~worse & is_flat(new, start)
        return (_Bracket(b.tries + 1, lower, higher, b.first ^ swaps, stuck, done),)

    first = o.before.loss <= o.new.loss
    low, high = _pick(first, o.before, o.new), _pick(first, o.new, o.before)
    no = tc.zeros_like(first)
    (b,) = while_loop(narrows, narrow, (_Bracket(o.tries, low, high, first, no, done),))
    return b.low, b.tries


def _inside(b: _Bracket) -> tuple[Tensor, Tensor]:
    """Where to try next: not too close to an end of the bracket twice in a row."""
    t = _cubic_minimum(b.low, b.high)
    left, right = tc.minimum(b.low.t, b.high.t), tc.maximum(b.low.t, b.high.t)
    margin = 0.1 * (right - left)
    close = tc.minimum(right - t, t - left) < margin
    pushed = close & (b.stuck | (t >= right) | (t <= left))
    nearer = tc.where((t - right).abs() < (t - left).abs(), right - margin, left + margin)
    return tc.where(pushed, nearer, t), close & ~pushed


def _cubic_minimum(a: Point, b: Point, bounds: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """As `line_search.cubic_minimum`, by tensors."""
    a, b = _pick(a.t > b.t, b, a), _pick(a.t > b.t, a, b)
    low, high = bounds or (a.t, b.t)
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    d2 = square.sqrt()
    divisor = b.slope - a.slope + 2 * d2
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / divisor)
    exists = (a.t != b.t) & (square >= 0) & (divisor != 0)
    return tc.where(exists, tc.minimum(tc.maximum(t, low), high), (low + high) / 2.0)
