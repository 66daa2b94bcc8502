"""Optimizers that treat a parameter as a matrix, and averaged SGD: Adafactor, Muon, ASGD."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import tracecc as tc
from tracecc.optim.optimizer import (
    Group,
    Hyper,
    Optimizer,
    State,
    check,
    count,
    like,
    number,
    write,
    zeros,
)
from tracecc.tensor import Tensor
from tracecc_ir.types import bf16


def _smaller(a: Any, b: Any) -> Any:
    """The lesser of two numbers or 0-d tensors."""
    if isinstance(a, Tensor):
        return tc.minimum(a, tc.as_tensor(b, dtype=a.dtype))
    return _smaller(b, a) if isinstance(b, Tensor) else min(a, b)


class Adafactor(Optimizer):
    """Adam with the second moment kept as an outer product (Shazeer and Stern, 2018).

    Args:
        params: tensors or groups.
        lr: the largest relative step.
        beta2_decay: the power of the step count by which the second moment forgets less.
        eps: the floor of the factors (the dtype's epsilon if None), and of a parameter's scale.
        d: the largest root mean square of an update.
        weight_decay: of the weights themselves.
        maximize: ascend.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        check("learning rate", lr)
        if beta2_decay > 0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        check("clipping threshold d", d, low=1.0)
        check("weight_decay", weight_decay)
        super().__init__(
            params,
            {
                "lr": lr,
                "beta2_decay": beta2_decay,
                "eps": tuple(eps),
                "d": float(d),
                "weight_decay": float(weight_decay),
                "foreach": foreach,
                "maximize": maximize,
            },
        )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        made = {"step": number()}
        if p.ndim < 2:
            return {**made, "variance": zeros(p)}
        *lead, rows, columns = p.shape
        return {
            **made,
            "row_var": lambda: tc.zeros(*lead, rows, 1, dtype=p.dtype),
            "col_var": lambda: tc.zeros(*lead, 1, columns, dtype=p.dtype),
        }

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        t = count(state)
        fresh = like(p, t ** hyper("beta2_decay"))
        size = math.sqrt(p.numel())
        floor = hyper("eps", 0)
        floor = tc.finfo(p.dtype).eps if floor is None else floor
        step = like(p, _smaller(hyper("lr"), 1 / t**0.5)) * (p.norm() / size).clamp(
            min=like(p, hyper("eps", 1))
        )
        if hyper.nonzero("weight_decay"):
            write(p, p * like(p, 1 - hyper("lr") * hyper("weight_decay")))
        square = g * g
        if p.ndim < 2:
            variance = _moved(state["variance"], square, fresh)
        else:
            rows = _moved(state["row_var"], square.mean(-1, keepdim=True), fresh)
            columns = _moved(state["col_var"], square.mean(-2, keepdim=True), fresh)
            variance = rows @ columns / rows.mean(-2, keepdim=True).clamp(min=like(p, floor))
        change = g * variance.clamp(min=like(p, floor * floor)).rsqrt()
        excess = (change.norm() / size / like(p, hyper("d"))).clamp(min=1.0)
        write(p, p - change * (step / excess))


def _moved(mean: Tensor, value: Tensor, weight: Any) -> Tensor:
    """A running mean in ``mean``, moved towards ``value``."""
    write(mean, mean + (value - mean) * weight)
    return mean


class Muon(Optimizer):
    """Momentum made orthogonal by a Newton-Schulz iteration (Jordan et al., 2024); for matrices.

    Args:
        params: matrices, or groups of them.
        lr: the learning rate.
        weight_decay: of the weights themselves.
        momentum: the share of the last direction that is kept.
        nesterov: look ahead along the momentum.
        ns_coefficients: of the quintic polynomial that each iteration applies.
        eps: the least norm to divide by.
        ns_steps: iterations.
        adjust_lr_fn: how the rate follows the shape: "original" or "match_rms_adamw".
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ):
        check("learning rate", lr)
        check("momentum", momentum)
        check("weight decay", weight_decay)
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": float(weight_decay),
                "momentum": float(momentum),
                "nesterov": nesterov,
                "ns_coefficients": tuple(ns_coefficients),
                "eps": eps,
                "ns_steps": ns_steps,
                "adjust_lr_fn": adjust_lr_fn,
            },
        )
        for p in (p for group in self.param_groups for p in group["params"]):
            if p.ndim != 2:
                raise ValueError(
                    "Muon only supports 2D parameters whereas we found a parameter with size: "
                    f"{p.shape}"
                )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        return {"momentum_buffer": zeros(p)}

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        momentum = hyper("momentum")
        mean = _moved(state["momentum_buffer"], g, like(p, 1 - momentum))
        direction = g + (mean - g) * like(p, momentum) if hyper("nesterov") else mean
        direction = orthogonal(direction, hyper.group["ns_coefficients"], hyper("ns_steps"), 1e-7)
        rows, columns = p.shape
        if hyper("adjust_lr_fn") == "match_rms_adamw":
            ratio = 0.2 * math.sqrt(max(rows, columns))
        else:
            ratio = math.sqrt(max(1.0, rows / columns))
        lr = hyper("lr")
        kept = p * like(p, 1 - lr * hyper("weight_decay"))
        write(p, kept - direction.to(p.dtype) * like(p, lr * ratio))


def orthogonal(g: Tensor, coefficients: tuple[float, ...], steps: int, eps: float) -> Tensor:
    """About the nearest orthogonal matrix: all singular values of ``g`` moved near 1, in bf16."""
    a, b, c = coefficients
    x = g.to(bf16)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = tc.addmm(x, tc.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class ASGD(Optimizer):
    """Averaged stochastic gradient descent (Polyak and Juditsky, 1992).

    The averages are each parameter's state "ax".

    Args:
        params: tensors or groups.
        lr: the first learning rate.
        lambd: how fast weights and rate decay.
        alpha: the power by which the rate decays.
        t0: the step at which averaging starts.
        weight_decay: an L2 penalty.
        maximize: ascend.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ):
        check("learning rate", lr)
        check("weight_decay", weight_decay)
        super().__init__(
            params,
            {
                "lr": lr,
                "lambd": lambd,
                "alpha": alpha,
                "t0": t0,
                "weight_decay": float(weight_decay),
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
        )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        return {
            "step": number(),
            "eta": number(float(group["lr"])),
            "mu": number(1.0),
            "ax": zeros(p),
        }

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        t = count(state)
        lr, lambd = hyper("lr"), hyper("lambd")
        if hyper.nonzero("weight_decay"):
            g = g + p * hyper("weight_decay")
        eta, mu = state["eta"], state["mu"]
        write(p, p * like(p, 1 - lambd * eta) - g * like(p, eta))
        _moved(state["ax"], p, like(p, mu))
        eta.fill_(lr / (1 + lambd * lr * t) ** hyper("alpha"))
        mu.fill_(1 / -_smaller(hyper("t0") - t, -1.0))
