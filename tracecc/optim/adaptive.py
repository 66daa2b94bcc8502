"""Optimizers with a learning rate per element: Adagrad, Adadelta, RMSprop, Rprop."""

from __future__ import annotations

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
    filled,
    like,
    number,
    write,
    zeros,
)
from tracecc.tensor import Tensor


def _decayed(p: Tensor, g: Tensor, hyper: Hyper) -> Tensor:
    return g + p * hyper("weight_decay") if hyper.nonzero("weight_decay") else g


class Adagrad(Optimizer):
    """Divides by the root of the sum of all squared gradients (Duchi et al., 2011)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        check("learning rate", lr)
        check("lr_decay", lr_decay)
        check("weight_decay", weight_decay)
        check("initial_accumulator_value", initial_accumulator_value)
        check("epsilon", eps)
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": float(lr_decay),
                "eps": eps,
                "weight_decay": float(weight_decay),
                "initial_accumulator_value": initial_accumulator_value,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "fused": fused,
            },
        )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        start = group["initial_accumulator_value"]
        return {"step": number(), "sum": filled(p, start)}

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        t = count(state)
        g = _decayed(p, g, hyper)
        rate = hyper("lr") / (1 + (t - 1) * hyper("lr_decay"))
        total = state["sum"]
        write(total, total + g * g)
        write(p, p - g / (total.sqrt() + hyper("eps")) * like(p, rate))


class Adadelta(Optimizer):
    """Steps in the units of the parameters (Zeiler, 2012)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        check("learning rate", lr)
        check("rho", rho, high=1.0 + 1e-12)
        check("epsilon", eps)
        check("weight_decay", weight_decay)
        super().__init__(
            params,
            {
                "lr": lr,
                "rho": rho,
                "eps": eps,
                "weight_decay": float(weight_decay),
                "maximize": maximize,
                "capturable": capturable,
                "foreach": foreach,
                "differentiable": differentiable,
            },
        )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        return {"step": number(), "square_avg": zeros(p), "acc_delta": zeros(p)}

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        count(state)
        g = _decayed(p, g, hyper)
        square, acc = state["square_avg"], state["acc_delta"]
        rho, eps = hyper("rho"), hyper("eps")
        rest = like(p, 1 - rho)
        write(square, square * rho + g * g * rest)
        delta = (acc + eps).sqrt() / (square + eps).sqrt() * g
        write(acc, acc * rho + delta * delta * rest)
        write(p, p - delta * hyper("lr"))


class RMSprop(Optimizer):
    """Divides by the root of a running mean of squared gradients (Hinton, 2012)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        check("learning rate", lr)
        check("epsilon", eps)
        check("momentum", momentum)
        check("weight_decay", weight_decay)
        check("alpha", alpha)
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": float(momentum),
                "alpha": alpha,
                "eps": eps,
                "centered": centered,
                "weight_decay": float(weight_decay),
                "capturable": capturable,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
            },
        )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        made = {"step": number(), "square_avg": zeros(p)}
        if group["momentum"]:
            made["momentum_buffer"] = zeros(p)
        if group["centered"]:
            made["grad_avg"] = zeros(p)
        return made

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        count(state)
        g = _decayed(p, g, hyper)
        square, alpha = state["square_avg"], hyper("alpha")
        rest = like(p, 1 - alpha)
        write(square, square * alpha + g * g * rest)
        variance = square
        if hyper("centered"):
            mean = state["grad_avg"]
            write(mean, mean + (g - mean) * rest)
            variance = square - mean * mean
        step = g / (variance.sqrt() + hyper("eps"))
        if hyper.nonzero("momentum"):
            buffer = state["momentum_buffer"]
            write(buffer, buffer * hyper("momentum") + step)
            step = buffer
        write(p, p - step * hyper("lr"))


class Rprop(Optimizer):
    """Steps by the sign of the gradient, longer while it keeps it (Riedmiller and Braun, 1993)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        check("learning rate", lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        super().__init__(
            params,
            {
                "lr": lr,
                "etas": tuple(etas),
                "step_sizes": tuple(step_sizes),
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
        )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        start = float(group["lr"])
        return {
            "step": number(),
            "prev": zeros(p),
            "step_size": filled(p, start),
        }

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        count(state)
        previous, size = state["prev"], state["step_size"]
        agreement = g * previous
        grown = tc.where(agreement > 0, size * hyper("etas", 1), size)
        shrunk = tc.where(agreement < 0, size * hyper("etas", 0), grown)
        low, high = (like(p, hyper("step_sizes", i)) for i in (0, 1))
        write(size, shrunk.clamp(low, high))
        g = tc.where(agreement < 0, 0.0, g)
        write(p, p - g.sign() * size)
        write(previous, g)
