"""L-BFGS: quasi-Newton steps from a memory of recent gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import tracecc as tc
from tracecc.optim.line_search import Point, strong_wolfe
from tracecc.optim.optimizer import Optimizer, State, check
from tracecc.state import enable_grad, no_grad, thread
from tracecc.tensor import Tensor
from tracecc.trace.errors import TraceError
from tracecc.trace.location import user_location


class LBFGS(Optimizer):
    """Limited-memory BFGS (Nocedal, 1980). ``step`` needs a closure, which may be compiled.

    Args:
        params: tensors; one group only.
        lr: the step length, or the first one that the line search tries.
        max_iter: iterations per step.
        max_eval: evaluations of the closure per step; 5/4 of ``max_iter`` by default.
        tolerance_grad: stop when no element of the gradient is larger.
        tolerance_change: stop when the loss and all parameters move less.
        history_size: how many past steps to remember.
        line_search_fn: "strong_wolfe" or None.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ):
        check("learning rate", lr)
        if line_search_fn not in (None, "strong_wolfe"):
            raise RuntimeError("only 'strong_wolfe' is supported")
        super().__init__(
            params,
            {
                "lr": lr,
                "max_iter": max_iter,
                "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                "tolerance_grad": tolerance_grad,
                "tolerance_change": tolerance_change,
                "history_size": history_size,
                "line_search_fn": line_search_fn,
            },
        )
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params: list[Tensor] = self.param_groups[0]["params"]

    def _gradient(self) -> Tensor:
        """All gradients as one new vector."""
        return tc.cat(
            [
                tc.zeros(p.numel(), dtype=p.dtype) if p.grad is None else p.grad.reshape(-1)
                for p in self._params
            ]
        )

    def _move(self, t: float, direction: Tensor) -> None:
        start = 0
        for p in self._params:
            p.add_(direction[start : start + p.numel()].reshape(p.shape), alpha=t)
            start += p.numel()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes up to ``max_iter`` iterations.

        Args:
            closure: clears the gradients, computes the loss, calls backward, returns the loss.

        Returns:
            The loss before the step.
        """
        if closure is None:
            raise TypeError("LBFGS.step() expects a closure that computes the loss anew")
        if thread.trace is not None:
            raise TraceError(
                f"{user_location()}: LBFGS chooses its steps by the loss's numbers, which a trace "
                "does not have; compile the closure instead and call step(closure) outside"
            )
        with enable_grad():
            original = closure()
        with no_grad():
            self._iterate(closure, float(original))
        return original

    def _iterate(self, closure: Callable[[], Any], loss: float) -> None:
        group = self.param_groups[0]
        lr, state = float(group["lr"]), self.state[self._params[0]]
        for key in ("func_evals", "n_iter"):
            state.setdefault(key, 0)
        evaluations = 1
        state["func_evals"] += 1
        gradient = self._gradient()
        most = _largest(gradient)
        for iteration in range(1, group["max_iter"] + 1):
            if most <= group["tolerance_grad"]:
                return
            state["n_iter"] += 1
            d = _direction(state, gradient, group["history_size"])
            state["prev_flat_grad"], state["prev_loss"] = gradient.clone(), loss
            t = lr
            if state["n_iter"] == 1:
                t = min(1.0, 1.0 / gradient.abs().sum().item()) * lr
            state["d"], state["t"] = d, t
            slope = gradient.dot(d).item()
            if slope > -group["tolerance_change"]:
                return
            before, calls = loss, 0
            if group["line_search_fn"] is not None:
                start = Point(0.0, loss, gradient, slope)
                point, calls = strong_wolfe(
                    lambda t, d=d: self._evaluate(closure, t, d),  # type: ignore[misc]
                    t,
                    start,
                    _largest(d),
                    most=group["max_eval"] - evaluations,
                )
                loss, gradient, t = point.loss, point.gradient, point.t
                self._move(t, d)
            else:
                self._move(t, d)
                if iteration != group["max_iter"]:  # nothing reads the last gradient
                    loss, gradient, calls = *self._call(closure), 1
            state["t"] = t
            most = _largest(gradient)
            evaluations += calls
            state["func_evals"] += calls
            if (
                evaluations >= group["max_eval"]
                or _largest(d) * abs(t) <= group["tolerance_change"]
                or abs(loss - before) < group["tolerance_change"]
            ):
                return

    def _call(self, closure: Callable[[], Any]) -> tuple[float, Tensor]:
        with enable_grad():
            loss = float(closure())
        return loss, self._gradient()

    def _evaluate(self, closure: Callable[[], Any], t: float, d: Tensor) -> Point:
        """The point ``t`` along ``d``; the parameters are as before afterwards."""
        before = [p.detach().clone() for p in self._params]
        self._move(t, d)
        loss, gradient = self._call(closure)
        for p, value in zip(self._params, before, strict=True):
            p.copy_(value)
        return Point(t, loss, gradient, gradient.dot(d).item())


def _largest(t: Tensor) -> float:
    return t.abs().max().item()


def _direction(state: State, gradient: Tensor, history: int) -> Tensor:
    """Minus the approximate inverse Hessian times the gradient, by the two-loop recursion."""
    if state["n_iter"] == 1:
        state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
        return -gradient
    ys, steps, inverses = state["old_dirs"], state["old_stps"], state["ro"]
    y, s = gradient - state["prev_flat_grad"], state["d"] * state["t"]
    curvature = y.dot(s).item()
    if curvature > 1e-10:
        if len(ys) == history:
            for past in (ys, steps, inverses):
                past.pop(0)
        ys.append(y)
        steps.append(s)
        inverses.append(1.0 / curvature)
        state["H_diag"] = curvature / y.dot(y).item()
    q = -gradient
    weights = [0.0] * len(ys)
    for i in reversed(range(len(ys))):
        weights[i] = steps[i].dot(q).item() * inverses[i]
        q = q - ys[i] * weights[i]
    d = q * state["H_diag"]
    for i in range(len(ys)):
        d = d + steps[i] * (weights[i] - ys[i].dot(d).item() * inverses[i])
    return d
