"""What learning rate schedules share: they set a group's ``lr``, which compiled steps read anew."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from tracecc.optim.optimizer import Group, Optimizer
from tracecc.state import no_grad
from tracecc.tensor import Tensor

Rates = list[Any]


def per_group(name: str, optimizer: Optimizer, given: Any) -> list[Any]:
    """One value for each parameter group, from one for all or a sequence."""
    groups = len(optimizer.param_groups)
    if not isinstance(given, (list, tuple)):
        return [given] * groups
    if len(given) != groups:
        raise ValueError(
            f"{name} must have the same length as optimizer.param_groups. {name} has {len(given)} "
            f"values, param_groups has {groups}."
        )
    return list(given)


def set_rate(group: Group, lr: Any) -> None:
    """Sets a group's rate; a rate that is a tensor is overwritten in place."""
    if isinstance(group["lr"], Tensor):
        with no_grad():
            group["lr"].fill_(float(lr))
    else:
        group["lr"] = float(lr)


def cosine(low: float, high: float, part: float) -> float:
    """From ``high`` to ``low`` along half a cosine as ``part`` goes from 0 to 1."""
    return low + (high - low) * (1 + math.cos(math.pi * part)) / 2


class LRScheduler:
    """Base class of schedules: ``step()`` once per epoch, after the optimizer's.

    Subclasses define ``get_lr``: one rate per group for epoch ``last_epoch``.
    """

    _initial = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer, self.last_epoch = optimizer, last_epoch
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                lr = group["lr"]
                group.setdefault("initial_lr", lr.item() if isinstance(lr, Tensor) else lr)
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming "
                    "scheduler with last_epoch >= 0; load the optimizer's state_dict first"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._initial = True
        self.step()
        del self._initial

    def _rates(self) -> Rates:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return [lr.item() if isinstance(lr, Tensor) else lr for lr in rates]

    def get_lr(self) -> Rates:
        """The rate of each group for epoch ``last_epoch``, from the present ones."""
        raise TypeError(f"{type(self).__name__} must define get_lr()")

    def _get_closed_form_lr(self) -> Rates:
        """The same from the initial rates, for jumps to an epoch."""
        return self.get_lr()

    def get_last_lr(self) -> Rates:
        """The rates that were set last."""
        return self._last_lr

    def step(self, epoch: Any = None) -> None:
        """Moves to the next epoch, or to ``epoch``, and sets the rates."""
        self._step_count += 1
        self._update_lr(epoch)

    def _update_lr(self, epoch: Any = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._set(self.get_lr() if epoch is None else self._get_closed_form_lr())

    def _set(self, rates: Rates) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            set_rate(group, lr)
        self._last_lr = self._rates()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and functions, in PyTorch's layout."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer" and not callable(v)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self.__dict__.update(state_dict)


class FactorLR(LRScheduler):
    """A schedule that is the initial rate times ``scale_at(epoch)``.

    Each step multiplies the present rate by the ratio of two factors, so that several schedules can
    be chained.
    """

    def scale_at(self, epoch: Any) -> float:
        raise TypeError(f"{type(self).__name__} must define scale_at()")

    def get_lr(self) -> Rates:
        if self._initial and self.last_epoch > 0:
            return self._rates()
        now = self.scale_at(self.last_epoch)
        before = 1.0 if self.last_epoch <= 0 else self.scale_at(self.last_epoch - 1)
        ratio = 1.0 if now == before else now / before
        return [lr * ratio for lr in self._rates()]

    def _get_closed_form_lr(self) -> Rates:
        return [base * self.scale_at(self.last_epoch) for base in self.base_lrs]


def saved_functions(functions: list[Callable]) -> list[dict[str, Any] | None]:
    """What a state dict keeps of functions: the attributes of callable objects."""
    return [None if inspect.isroutine(f) else dict(f.__dict__) for f in functions]


def restore_functions(functions: list[Any], saved: list[dict[str, Any] | None]) -> None:
    """The inverse of `saved_functions`."""
    for f, attributes in zip(functions, saved, strict=True):
        if attributes is not None:
            f.__dict__.update(attributes)
