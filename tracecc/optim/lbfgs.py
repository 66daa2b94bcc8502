"""L-BFGS: quasi-Newton steps from a memory of recent gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import tracecc as tc
from tracecc.optim.lbfgs_traced import Memory, minimize
from tracecc.optim.line_search import Point, strong_wolfe
from tracecc.optim.optimizer import Hyper, Optimizer, State, check
from tracecc.state import enable_grad, no_grad, thread
from tracecc.tensor import Tensor
from tracecc.trace import name_state, suspended
from tracecc.trace.closure import Closure, flat, place
from tracecc.trace.closure import gradient as gradient_of


class LBFGS(Optimizer):
    """Limited-memory BFGS (Nocedal, 1980). ``step`` needs a closure.

    The closure may be compiled, or the step with it: then the iterations are loops of one graph,
    in which the closure may write nothing but gradients.

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

    def _move(self, t: float, direction: Tensor) -> None:
        start = 0
        for p in self._params:
            p.add_(direction[start : start + p.numel()].reshape(p.shape), alpha=t)
            start += p.numel()

    def _saved(self) -> dict[str, Any]:
        """As eager steps keep it."""
        saved = super()._saved()
        for state in saved["state"].values():
            if isinstance(state.get("n_iter"), Tensor):
                as_lists(state)
        return saved

    def _take_over(self, state_dict: dict[str, Any]) -> None:
        super()._take_over(copy.deepcopy(state_dict))
        self._changed()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes up to ``max_iter`` iterations.

        Args:
            closure: clears the gradients, computes the loss, calls backward, returns the loss.

        Returns:
            The loss before the step.
        """
        if closure is None:
            raise TypeError("LBFGS.step() expects a closure that computes the loss anew")
        with enable_grad():
            original = closure()
        with no_grad():
            if thread.trace is None:
                self._iterate(closure, float(original))
            else:
                self._trace(closure, original.detach().double())
        return original

    def _trace(self, closure: Callable[[], Any], loss: Tensor) -> None:
        """The iterations as loops of the graph."""
        group, params = self.param_groups[0], self._params
        state = self.state[params[0]]
        if not isinstance(state.get("n_iter"), Tensor):
            with suspended():
                as_window(state, flat(params), group["history_size"])
            self._changed()
        assert thread.trace is not None
        thread.trace.guards.attribute(self, "_generation", self._generation)
        for key, value in state.items():
            name_state(value, f"LBFGS.{key}")
        memory = Memory(**state)
        option = Hyper(self, group, 0)
        end = minimize(
            Closure(closure, params), flat(params), loss, gradient_of(params), memory, option
        )
        place(params, end.x)
        for t, value in zip(memory, end.memory, strict=True):
            t.copy_(value)
        start = 0
        for p in params:
            p.grad = end.gradient[start : start + p.numel()].reshape(p.shape).clone()
            start += p.numel()

    def _iterate(self, closure: Callable[[], Any], loss: float) -> None:
        group = self.param_groups[0]
        lr, state = float(group["lr"]), self.state[self._params[0]]
        if isinstance(state.get("n_iter"), Tensor):
            as_lists(state)
            self._changed()
        for key in ("func_evals", "n_iter"):
            state.setdefault(key, 0)
        evaluations = 1
        state["func_evals"] += 1
        gradient = gradient_of(self._params)
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
        return loss, gradient_of(self._params)

    def _evaluate(self, closure: Callable[[], Any], t: float, d: Tensor) -> Point:
        """The point ``t`` along ``d``; the parameters are as before afterwards."""
        before = [p.detach().clone() for p in self._params]
        self._move(t, d)
        loss, gradient = self._call(closure)
        for p, value in zip(self._params, before, strict=True):
            p.copy_(value)
        return Point(t, loss, gradient, gradient.dot(d).item())


# The memory of past steps: lists, or for a trace the last rows of a window of a fixed size.


def as_window(state: State, like: Tensor, size: int) -> None:
    """Replaces the numbers and lists of eager steps by tensors."""
    kept = {"func_evals": 0, "n_iter": 0, "t": 0.0, "H_diag": 1.0, "prev_loss": 0.0, **state}
    zeros, count = tc.zeros_like(like), len(kept.get("ro", ()))
    rows = [zeros] * (size - count)
    for key in ("func_evals", "n_iter"):
        state[key] = tc.as_tensor(kept[key])
    for key in ("t", "H_diag", "prev_loss"):
        state[key] = tc.as_tensor(kept[key], dtype=tc.float64)
    for key in ("d", "prev_flat_grad"):
        state[key] = kept.get(key, zeros).clone()
    for key in ("old_dirs", "old_stps"):
        state[key] = tc.stack([*rows, *kept.get(key, ())])
    state["ro"] = tc.as_tensor([0.0] * len(rows) + list(kept.get("ro", ())), dtype=tc.float64)


def as_lists(state: State) -> None:
    """The inverse of `as_window`."""
    for key in ("func_evals", "n_iter", "t", "H_diag", "prev_loss"):
        state[key] = state[key].item()
    used = [i for i, inverse in enumerate(state["ro"].tolist()) if inverse]
    state["ro"] = [state["ro"][i].item() for i in used]
    for key in ("old_dirs", "old_stps"):
        state[key] = [state[key][i].clone() for i in used]


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
