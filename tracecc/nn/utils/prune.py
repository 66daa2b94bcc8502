"""Pruning: parameters multiplied by masks of zeros and ones at every use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tracecc as tc
from tracecc.nn.modules.module import Module
from tracecc.nn.parameter import Parameter
from tracecc.nn.utils.parametrize import computed, plain
from tracecc.state import no_grad
from tracecc.tensor import Tensor

__all__ = [
    "BasePruningMethod",
    "CustomFromMask",
    "Identity",
    "L1Unstructured",
    "LnStructured",
    "RandomStructured",
    "RandomUnstructured",
    "custom_from_mask",
    "global_unstructured",
    "identity",
    "is_pruned",
    "l1_unstructured",
    "ln_structured",
    "random_structured",
    "random_unstructured",
    "remove",
]


class BasePruningMethod:
    """Base class: define ``compute_mask(t, default_mask)``, which gives a mask of ``t``'s shape.

    Attributes:
        PRUNING_TYPE: "unstructured", "structured" (slices along ``dim``) or "global". A tensor that
            is pruned already is pruned further among what is left of it in that sense.
    """

    PRUNING_TYPE = "unstructured"
    dim = -1

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Ones where ``t`` is to be kept, given the mask that holds already."""
        raise TypeError(f"{type(self).__name__} must define compute_mask()")

    @no_grad()
    def _further(self, t: Tensor, mask: Tensor) -> Tensor:
        """``mask`` with more zeros."""
        if self.PRUNING_TYPE == "global":
            return self.compute_mask(t, mask)
        left: Any = mask == 1
        if self.PRUNING_TYPE == "structured":
            others = [d for d in range(t.ndim) if d != self.dim % t.ndim]
            kept = mask.sum(others) != 0
            left = tuple(kept if d == self.dim % t.ndim else slice(None) for d in range(t.ndim))
        found = mask.clone()
        found[left] = self.compute_mask(t[left], mask[left]).to(mask.dtype)
        return found

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Any = None, **kwargs: Any
    ) -> Any:
        """Prunes ``module.name``; ``args`` and ``kwargs`` are the method's own."""
        method = cls(*args, **kwargs)
        if name + "_mask" not in module._buffers:
            original = getattr(module, name).detach()
            parameter = module._parameters.pop(name)
            module.register_parameter(name + "_orig", parameter)
            module.register_buffer(name + "_mask", tc.ones_like(original))
            computed(module, name, "", lambda self: _masked(self, name))
        mask = getattr(module, name + "_mask")
        scores = getattr(module, name + "_orig") if importance_scores is None else importance_scores
        if scores.shape != mask.shape:
            raise ValueError(
                f"importance_scores must have the shape {list(mask.shape)} of the parameter, given "
                f"{list(scores.shape)}"
            )
        mask.copy_(method._further(scores.detach(), mask))
        return method

    def prune(
        self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Any = None
    ) -> Tensor:
        """``t`` with zeros where this method prunes it."""
        mask = tc.ones_like(t) if default_mask is None else default_mask
        return t * self._further(t if importance_scores is None else importance_scores, mask)


def _masked(module: Module, name: str) -> Tensor:
    return getattr(module, name + "_orig") * getattr(module, name + "_mask")


def _count(amount: float, size: int) -> int:
    """How many of ``size`` to prune: an int is a number, a float a share."""
    if isinstance(amount, bool) or amount < 0 or (isinstance(amount, float) and amount > 1):
        raise ValueError(f"amount={amount} should be a float in [0, 1] or a non-negative integer")
    if isinstance(amount, int) and amount > size:
        raise ValueError(f"amount={amount} should be smaller than the number to prune from, {size}")
    return amount if isinstance(amount, int) else round(amount * size)


class Identity(BasePruningMethod):
    """Prunes nothing, but makes the mask."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask


class CustomFromMask(BasePruningMethod):
    """Prunes by a given mask."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor):
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        return default_mask * self.mask.to(default_mask.dtype)


class _Unstructured(BasePruningMethod):
    """Prunes the elements with the smallest scores."""

    def __init__(self, amount: float):
        _count(amount, 1 << 62)
        self.amount = amount

    def scores(self, t: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define scores()")

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        mask = default_mask.clone().reshape(-1)
        count = _count(self.amount, t.numel())
        if count:
            mask[tc.topk(self.scores(t).reshape(-1), count, largest=False).indices] = 0
        return mask.reshape(default_mask.shape)


class RandomUnstructured(_Unstructured):
    """Prunes elements at random."""

    def scores(self, t: Tensor) -> Tensor:
        return -tc.rand(t.shape)


class L1Unstructured(_Unstructured):
    """Prunes the elements nearest to zero."""

    def scores(self, t: Tensor) -> Tensor:
        return t.abs()


class _Structured(BasePruningMethod):
    """Prunes the slices along ``dim`` with the smallest scores."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, dim: int = -1):
        _count(amount, 1 << 62)
        self.amount, self.dim = amount, dim

    def scores(self, t: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define scores()")

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        size = t.shape[self.dim]
        kept = tc.topk(self.scores(t), size - _count(self.amount, size)).indices
        mask = tc.zeros(size, dtype=default_mask.dtype)
        mask[kept] = 1
        shape = [1] * t.ndim
        shape[self.dim] = size
        return default_mask * mask.reshape(shape)


class RandomStructured(_Structured):
    """Prunes slices along ``dim`` at random."""

    def scores(self, t: Tensor) -> Tensor:
        return tc.rand(t.shape[self.dim])


class LnStructured(_Structured):
    """Prunes the slices along ``dim`` with the smallest norm of order ``n``."""

    def __init__(self, amount: float, n: Any, dim: int = -1):
        super().__init__(amount, dim)
        self.n = n

    def scores(self, t: Tensor) -> Tensor:
        others = [d for d in range(t.ndim) if d != self.dim % t.ndim]
        return tc.norm(t, p=self.n, dim=others)


def identity(module: Any, name: str) -> Any:
    """Makes a mask of ones for ``module.name``; returns the module."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Any, name: str, amount: float) -> Any:
    """Prunes elements at random: a number of them, or a share if a float."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Any, name: str, amount: float, importance_scores: Any = None) -> Any:
    """Prunes the elements nearest to zero, or with the smallest ``importance_scores``.

    >>> import tracecc as tc
    >>> layer = l1_unstructured(tc.nn.Linear(4, 2), "weight", amount=0.5)
    >>> (layer.weight == 0).sum()
    tensor(4)
    """
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: Any, name: str, amount: float, dim: int) -> Any:
    """Prunes slices along ``dim`` at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: Any, name: str, amount: float, n: Any, dim: int, importance_scores: Any = None
) -> Any:
    """Prunes the slices along ``dim`` with the smallest norm of order ``n``."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Any, name: str, mask: Tensor) -> Any:
    """Prunes where ``mask`` is zero."""
    CustomFromMask.apply(module, name, mask)
    return module


@no_grad()
def global_unstructured(
    parameters: Iterable[tuple[Module, str]],
    pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prunes several parameters as if they were one."""
    pairs, given = list(parameters), importance_scores or {}
    scores, masks = [], []
    for module, name in pairs:
        original = module._parameters.get(name + "_orig")
        value = getattr(module, name) if original is None else original
        scores.append(given.get((module, name), value).detach())
        mask = module._buffers.get(name + "_mask")
        masks.append(tc.ones_like(value) if mask is None else mask)
    joined = [tc.cat([t.reshape(-1) for t in ts]) for ts in (scores, masks)]
    found = pruning_method(**kwargs)._further(*joined)
    start = 0
    for (module, name), mask in zip(pairs, masks, strict=True):
        custom_from_mask(module, name, found[start : start + mask.numel()].reshape(mask.shape))
        start += mask.numel()


def remove(module: Any, name: str) -> Any:
    """Makes pruning permanent: the parameter is an ordinary one with zeros in it."""
    if name + "_mask" not in module._buffers:
        raise ValueError(
            f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed"
        )
    with no_grad():
        value = _masked(module, name)
    plain(module, name)
    parameter: Parameter = module._parameters.pop(name + "_orig")
    parameter.data = value
    del module._buffers[name + "_mask"]
    module.register_parameter(name, parameter)
    return module


def is_pruned(module: Module) -> bool:
    """Whether the module or one inside of it has a mask."""
    return any(
        name.endswith("_mask") and name[:-5] + "_orig" in m._parameters
        for m in module.modules()
        for name in m._buffers
    )
