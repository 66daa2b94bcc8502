"""Stochastic gradient descent."""

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
    like,
    number,
    write,
    zeros,
)
from tracecc.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, Nesterov's too (Sutskever et al., 2013).

    Args:
        params: tensors or groups.
        lr: the learning rate.
        momentum: the share of the last step that is kept.
        dampening: of the gradient's share in the momentum.
        weight_decay: an L2 penalty.
        nesterov: look ahead along the momentum.
        maximize: ascend.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        check("learning rate", lr)
        check("momentum", momentum)
        check("weight_decay", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                "Nesterov momentum requires a momentum and zero dampening, "
                f"given momentum={momentum} and dampening={dampening}"
            )
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": float(momentum),
                "dampening": float(dampening),
                "weight_decay": float(weight_decay),
                "nesterov": nesterov,
                "maximize": maximize,
                "foreach": foreach,
                "differentiable": differentiable,
                "fused": fused,
            },
        )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        if not group["momentum"]:
            return {}
        made = {"momentum_buffer": zeros(p)}
        if group["dampening"]:  # the first gradient enters the momentum undampened
            started = self.state[p].get("momentum_buffer") is not None
            made["started"] = number(float(started))
        return made

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        if hyper.nonzero("weight_decay"):
            g = g + p * hyper("weight_decay")
        if hyper.nonzero("momentum"):
            buffer, momentum = state["momentum_buffer"], hyper("momentum")
            fresh = g
            if hyper.nonzero("dampening"):
                fresh = g * like(p, 1 - hyper("dampening") * state["started"])
                write(state["started"], tc.ones_like(state["started"]))
            write(buffer, buffer * momentum + fresh)
            g = g + buffer * momentum if hyper("nesterov") else buffer
        write(p, p - g * hyper("lr"))
