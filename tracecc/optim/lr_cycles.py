"""Schedules that go up and down: warm restarts, one cycle, many cycles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tracecc.optim.optimizer import Group, Optimizer
from tracecc.optim.schedule import (
    LRScheduler,
    Rates,
    cosine,
    per_group,
    restore_functions,
    saved_functions,
)


def set_momentum(group: Group, value: float) -> None:
    """Sets a group's momentum, or its first beta."""
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


def check_momentum(optimizer: Optimizer) -> None:
    """Refuses optimizers that have none."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError(
            "optimizer must support momentum or beta1 with `cycle_momentum` option enabled"
        )


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half cosines, each ``T_mult`` times as long as the last (Loshchilov and Hutter, 2016)."""

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ):
        if T_0 <= 0 or T_mult < 1:
            raise ValueError(f"expected T_0 > 0 and T_mult >= 1, given {T_0} and {T_mult}")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        self.T_i, self.T_cur = T_0, float(last_epoch)
        super().__init__(optimizer, last_epoch)

    def _update_lr(self, epoch: Any = None) -> None:
        """``epoch`` may be a fraction."""
        at = self.last_epoch + 1 if epoch is None else epoch
        if at < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        self.last_epoch = math.floor(at)
        self.T_cur, self.T_i = at, self.T_0
        while self.T_cur >= self.T_i:
            self.T_cur, self.T_i = self.T_cur - self.T_i, self.T_i * self.T_mult
        self._set(self.get_lr())

    def get_lr(self) -> Rates:
        return [cosine(self.eta_min, base, self.T_cur / self.T_i) for base in self.base_lrs]


class OneCycleLR(LRScheduler):
    """Up to ``max_lr`` and far down again within one run (Smith and Topin, 2017); step per batch.

    ``cycle_momentum`` moves momentum (or the first beta) the other way.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Any,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.85,
        max_momentum: Any = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        if total_steps is None and (epochs is None or steps_per_epoch is None):
            raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', got {anneal_strategy}"
            )
        if not 0 <= pct_start <= 1:
            raise ValueError(f"Expected pct_start between 0 and 1, but got {pct_start}")
        if total_steps is not None and total_steps <= 0:
            raise ValueError(f"Expected positive integer total_steps, but got {total_steps}")
        self.total_steps = total_steps or (epochs or 0) * (steps_per_epoch or 0)
        self._anneal_func_type = anneal_strategy
        up = pct_start * self.total_steps - 1
        end = self.total_steps - 1
        self._ends = [up, 2 * up, end] if three_phase else [up, end]
        self.cycle_momentum = cycle_momentum
        groups = optimizer.param_groups
        if last_epoch == -1:
            for group, high in zip(groups, per_group("max_lr", optimizer, max_lr), strict=True):
                group["initial_lr"], group["max_lr"] = high / div_factor, high
                group["min_lr"] = group["initial_lr"] / final_div_factor
        if cycle_momentum:
            check_momentum(optimizer)
            lows = per_group("base_momentum", optimizer, base_momentum)
            highs = per_group("max_momentum", optimizer, max_momentum)
            for group, low, high in zip(groups, lows, highs, strict=True):
                if last_epoch == -1:
                    group["base_momentum"], group["max_momentum"] = low, high
        super().__init__(optimizer, last_epoch)

    def _at(self, low: float, high: float, final: float) -> float:
        """A value that runs low, high, (low,) final over the phases."""
        points = [low, high, low, final] if len(self._ends) == 3 else [low, high, final]
        start = 0.0
        for i, end in enumerate(self._ends):
            if self.last_epoch <= end or i == len(self._ends) - 1:
                part = (self.last_epoch - start) / (end - start)
                a, b = points[i], points[i + 1]
                return (
                    a + (b - a) * part if self._anneal_func_type == "linear" else cosine(b, a, part)
                )
            start = end
        return final

    def get_lr(self) -> Rates:
        if self.last_epoch > self.total_steps:
            raise ValueError(
                f"Tried to step {self.last_epoch} times. The specified number of total steps is "
                f"{self.total_steps}"
            )
        groups = self.optimizer.param_groups
        if self.cycle_momentum:
            for group in groups:
                high, low = group["max_momentum"], group["base_momentum"]
                set_momentum(group, self._at(high, low, high))
        return [self._at(g["initial_lr"], g["max_lr"], g["min_lr"]) for g in groups]


class CyclicLR(LRScheduler):
    """Up and down between ``base_lr`` and ``max_lr`` (Smith, 2015); step per batch.

    Args:
        optimizer: whose rates to set.
        base_lr: the lower end, one or per group.
        max_lr: the upper end of the first cycle, one or per group.
        step_size_up: steps of the rising half.
        step_size_down: steps of the falling half; as many by default.
        mode: ``triangular``; ``triangular2`` halves the height each cycle; ``exp_range`` scales it
            by ``gamma`` to the power of the step.
        gamma: for ``exp_range``.
        scale_fn: scales the height instead of ``mode``.
        scale_mode: whether ``scale_fn`` is given the ``cycle`` or the ``iterations``.
        cycle_momentum: move momentum (or the first beta) the other way.
        base_momentum: its lower end.
        max_momentum: its upper end.
        last_epoch: the last batch, when resuming.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: Any,
        max_lr: Any,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.8,
        max_momentum: Any = 0.9,
        last_epoch: int = -1,
    ):
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError(
                "mode must be 'triangular', 'triangular2' or 'exp_range' if scale_fn is None, "
                f"given {mode!r}"
            )
        lows = per_group("base_lr", optimizer, base_lr)
        if last_epoch == -1:
            for group, low in zip(optimizer.param_groups, lows, strict=True):
                group["lr"] = low
        self.max_lrs = per_group("max_lr", optimizer, max_lr)
        down = step_size_up if step_size_down is None else step_size_down
        self.total_size = float(step_size_up + down)
        self.step_ratio = step_size_up / self.total_size
        self.mode, self.gamma, self._scale_fn_custom = mode, gamma, scale_fn
        self.scale_mode = scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            check_momentum(optimizer)
            self.base_momentums = per_group("base_momentum", optimizer, base_momentum)
            self.max_momentums = per_group("max_momentum", optimizer, max_momentum)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lows

    def scale_fn(self, x: float) -> float:
        """How high the cycle or iteration ``x`` reaches, relative to the first."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular2":
            return 1 / 2.0 ** (x - 1)
        return self.gamma**x if self.mode == "exp_range" else 1.0

    def get_lr(self) -> Rates:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        up = self.step_ratio
        height = x / up if x <= up else (x - 1) / (up - 1)
        height *= self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            bounds = zip(self.base_momentums, self.max_momentums, strict=True)
            for group, (low, high) in zip(self.optimizer.param_groups, bounds, strict=True):
                set_momentum(group, high - (high - low) * height)
        pairs = zip(self.base_lrs, self.max_lrs, strict=True)
        return [low + (high - low) * height for low, high in pairs]

    def state_dict(self) -> dict[str, Any]:
        own = self._scale_fn_custom
        saved = None if own is None else saved_functions([own])[0]
        return {**super().state_dict(), "_scale_fn_custom": saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = self._scale_fn_custom
        if own is not None:
            restore_functions([own], [state_dict["_scale_fn_custom"]])
        super().load_state_dict({**state_dict, "_scale_fn_custom": own})
