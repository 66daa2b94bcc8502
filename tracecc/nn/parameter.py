"""Parameter and Buffer: tensors that a Module registers when they are assigned to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracecc.lacking import unknown
from tracecc.tensor import Tensor, _new, _setup


def _adopt(cls: type[Tensor], data: Tensor | None) -> Any:
    """An instance of ``cls`` over the memory of ``data``."""
    source = Tensor() if data is None else data
    if not isinstance(source, Tensor):
        raise TypeError(f"{cls.__name__} expects a Tensor, given {type(data).__name__}")
    made = _new(cls)
    _setup(made, source._array, source._type, source._storage)
    made._chain = source._chain
    return made


def _restore_parameter(array: np.ndarray, requires_grad: bool) -> Parameter:
    from tracecc.tensor import wrap

    return Parameter(wrap(array), requires_grad)


class Parameter(Tensor):
    """A tensor that is a parameter of the Module it is assigned to.

    Args:
        data: the initial value; its memory is shared.
        requires_grad: whether gradients flow to it.

    >>> import tracecc as tc
    >>> tc.nn.Parameter(tc.zeros(2))
    Parameter containing:
    tensor([0., 0.], requires_grad=True)
    """

    __slots__ = ()

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        return _adopt(cls, data)

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True):
        self.requires_grad = requires_grad

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) not in memo:
            copy = Parameter(self.detach().clone(), self._requires_grad)  # type: ignore[attr-defined]
            memo[id(self)] = copy
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _restore_parameter, (np.array(self.detach()._numpy()), self._requires_grad)


class Buffer(Tensor):
    """A tensor that is a buffer (state without gradient) of the Module it is assigned to.

    Args:
        data: the initial value; its memory is shared.
        persistent: whether ``state_dict`` holds it.
    """

    __slots__ = ("persistent",)

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        return _adopt(cls, data)

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True):
        self.persistent = persistent


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
