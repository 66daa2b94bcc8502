"""Adam and its kin: AdamW, Adamax, NAdam, RAdam."""

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
    like,
    number,
    root,
    write,
    zeros,
)
from tracecc.tensor import Tensor


def _check(lr: Any, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    check("learning rate", lr)
    check("beta parameter at index 0", betas[0], high=1.0)
    check("beta parameter at index 1", betas[1], high=1.0)
    check("epsilon", eps)
    check("weight_decay", weight_decay)


def _decayed(p: Tensor, g: Tensor, hyper: Hyper) -> Tensor:
    """The gradient with weight decay; decoupled decay shrinks ``p`` itself instead."""
    if not hyper.nonzero("weight_decay"):
        return g
    if hyper("decoupled_weight_decay"):
        write(p, p * like(p, 1 - hyper("lr") * hyper("weight_decay")))
        return g
    return g + p * hyper("weight_decay")


def _moments(p: Tensor, g: Tensor, state: State, hyper: Hyper) -> tuple[Tensor, Tensor]:
    """The running means of the gradient and of its square, updated."""
    m, v = state["exp_avg"], state["exp_avg_sq"]
    beta1, beta2 = hyper("betas", 0), hyper("betas", 1)
    write(m, m + (g - m) * like(p, 1 - beta1))
    write(v, v * beta2 + g * g * like(p, 1 - beta2))
    return m, v


class Adam(Optimizer):
    """Kingma and Ba, 2014; with ``amsgrad`` Reddi et al., 2018.

    Args:
        params: tensors or groups.
        lr: the learning rate.
        betas: how slowly the means of the gradient and of its square move.
        eps: added to the denominator.
        weight_decay: an L2 penalty; of the weights themselves if ``decoupled_weight_decay``.
        amsgrad: divide by the largest second moment seen.
        maximize: ascend.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ):
        _check(lr, betas, eps, weight_decay)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": tuple(betas),
                "eps": eps,
                "weight_decay": float(weight_decay),
                "amsgrad": amsgrad,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "differentiable": differentiable,
                "fused": fused,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        made = {"step": number(), "exp_avg": zeros(p), "exp_avg_sq": zeros(p)}
        if group["amsgrad"]:
            made["max_exp_avg_sq"] = zeros(p)
        return made

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        t = count(state)
        g = _decayed(p, g, hyper)
        m, v = _moments(p, g, state, hyper)
        if hyper("amsgrad"):
            write(state["max_exp_avg_sq"], tc.maximum(state["max_exp_avg_sq"], v))
            v = state["max_exp_avg_sq"]
        step_size = hyper("lr") / (1 - hyper("betas", 0) ** t)
        scale = root(1 - hyper("betas", 1) ** t)
        denominator = v.sqrt() / like(p, scale) + hyper("eps")
        write(p, p - m / denominator * like(p, step_size))


class AdamW(Adam):
    """Adam whose weight decay acts on the weights themselves (Loshchilov and Hutter, 2017)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **options: Any,
    ):
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=True, **options
        )


class Adamax(Optimizer):
    """Adam with the infinity norm (Kingma and Ba, 2014)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ):
        _check(lr, betas, eps, weight_decay)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": tuple(betas),
                "eps": eps,
                "weight_decay": float(weight_decay),
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
        )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        return {"step": number(), "exp_avg": zeros(p), "exp_inf": zeros(p)}

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        t = count(state)
        if hyper.nonzero("weight_decay"):
            g = g + p * hyper("weight_decay")
        m, norm, beta1 = state["exp_avg"], state["exp_inf"], hyper("betas", 0)
        write(m, m + (g - m) * like(p, 1 - beta1))
        write(norm, tc.maximum(norm * hyper("betas", 1), g.abs() + hyper("eps")))
        write(p, p - m / norm * like(p, hyper("lr") / (1 - beta1**t)))


class NAdam(Optimizer):
    """Adam with Nesterov momentum (Dozat, 2016)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ):
        _check(lr, betas, eps, weight_decay)
        check("momentum_decay", momentum_decay)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": tuple(betas),
                "eps": eps,
                "weight_decay": float(weight_decay),
                "momentum_decay": float(momentum_decay),
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "differentiable": differentiable,
            },
        )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        return {
            "step": number(),
            "mu_product": number(1.0),
            "exp_avg": zeros(p),
            "exp_avg_sq": zeros(p),
        }

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        t = count(state)
        beta1, lr, decay = hyper("betas", 0), hyper("lr"), hyper("momentum_decay")
        mu = beta1 * (1.0 - 0.5 * 0.96 ** (t * decay))
        next_mu = beta1 * (1.0 - 0.5 * 0.96 ** ((t + 1) * decay))
        product = state["mu_product"]
        write(product, product * mu)
        product = product.double()
        g = _decayed(p, g, hyper)
        m, v = _moments(p, g, state, hyper)
        denominator = (v / like(p, 1 - hyper("betas", 1) ** t)).sqrt() + hyper("eps")
        of_gradient = like(p, lr * (1.0 - mu) / (1.0 - product))
        of_moment = like(p, lr * next_mu / (1.0 - product * next_mu))
        write(p, p - g / denominator * of_gradient - m / denominator * of_moment)


class RAdam(Optimizer):
    """Adam whose variance is rectified while it is uncertain (Liu et al., 2019)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ):
        _check(lr, betas, eps, weight_decay)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": tuple(betas),
                "eps": eps,
                "weight_decay": float(weight_decay),
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "decoupled_weight_decay": decoupled_weight_decay,
                "differentiable": differentiable,
            },
        )

    def init_state(self, p: Tensor, group: Group) -> dict[str, Callable[[], Tensor]]:
        return {"step": number(), "exp_avg": zeros(p), "exp_avg_sq": zeros(p)}

    def update(self, p: Tensor, g: Tensor, state: State, hyper: Hyper) -> None:
        t = count(state)
        g = _decayed(p, g, hyper)
        m, v = _moments(p, g, state, hyper)
        beta2 = hyper("betas", 1)
        correction = 1 - beta2**t
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * t * beta2**t / correction
        plain = m * like(p, hyper("lr") / (1 - hyper("betas", 0) ** t))
        adapted = like(p, root(correction)) / (v.sqrt() + hyper("eps"))
        if isinstance(length, Tensor):
            held = length.clamp(min=5.0)
            factor = tc.where(length > 5.0, like(p, _rectified(held, limit)), 1.0)
            write(p, p - plain * tc.where(length > 5.0, adapted * like(p, factor), 1.0))
        elif length > 5.0:
            write(p, p - plain * adapted * _rectified(length, limit))
        else:
            write(p, p - plain)


def _rectified(length: Any, limit: Any) -> Any:
    above = (length - 4) * (length - 2) * limit
    return root(above / ((limit - 4) * (limit - 2) * length))


class SparseAdam(Optimizer):
    """Refused: gradients here are never sparse."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise RuntimeError(
            "SparseAdam expects sparse gradients, and there are no sparse layouts here; use Adam"
        )
