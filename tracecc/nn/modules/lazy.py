"""Layers that learn the size of their input at the first call."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import tracecc as tc
from tracecc.nn.modules.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from tracecc.nn.modules.linear import Linear
from tracecc.nn.modules.module import Module
from tracecc.nn.modules.norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from tracecc.nn.parameter import Parameter
from tracecc.trace import suspended


class UninitializedParameter(Parameter):
    """A parameter whose shape is not known yet."""

    __slots__ = ()

    def __new__(cls, requires_grad: bool = True) -> UninitializedParameter:
        return super().__new__(cls, tc.empty(0), requires_grad)  # type: ignore[return-value]

    def __init__(self, requires_grad: bool = True):
        super().__init__(None, requires_grad)

    def materialize(self, value: Any) -> None:
        """Becomes an ordinary parameter that holds ``value``."""
        self.__class__ = Parameter  # type: ignore[assignment]
        self.data = value

    def __repr__(self) -> str:
        return "<UninitializedParameter>"


class LazyModuleMixin(Module):
    """What makes a layer lazy: it turns into ``becomes`` when it first sees an input."""

    becomes: ClassVar[Any]
    _size: ClassVar[str]
    _axis: ClassVar[int] = 1
    _defaults: ClassVar[dict[str, Any]] = {}  # where they differ from those of ``becomes``

    def __init__(self, *args: Any, **kwargs: Any):
        Module.__init__(self)
        given = inspect.signature(self.becomes.__init__).bind(None, 1, *args, **kwargs)
        kwargs |= {k: v for k, v in self._defaults.items() if k not in given.arguments}
        object.__setattr__(self, "_given", (args, kwargs))
        self._take(self.becomes(given.arguments.get("groups", 1), *args, **kwargs))
        setattr(self, self._size, 0)
        for name, p in list(self._parameters.items()):
            if p is not None:
                self._parameters[name] = UninitializedParameter(p.requires_grad)

    def _take(self, made: Module) -> None:
        """The attributes of ``made``, and what it registered that this module has not."""
        tables = ("_parameters", "_buffers", "_modules")
        for table in tables:
            mine = self.__dict__[table]
            for name, value in made.__dict__[table].items():
                known = mine.get(name)
                if isinstance(known, UninitializedParameter):
                    known.materialize(value.detach())
                elif known is None or (table == "_buffers" and known.shape != value.shape):
                    mine[name] = value
        for name, value in made.__dict__.items():
            if not name.startswith("_") and name != "training":
                setattr(self, name, value)

    def has_uninitialized_params(self) -> bool:
        """Whether no input has been seen yet."""
        return any(isinstance(p, UninitializedParameter) for p in self._parameters.values())

    def initialize_parameters(self, input: Any) -> None:
        """Makes the layer fit ``input``."""
        args, kwargs = self._given
        unbatched = self._axis == 1 and input.ndim == getattr(self.becomes, "_rank", 99) + 1
        with suspended():
            self._take(self.becomes(input.shape[0 if unbatched else self._axis], *args, **kwargs))
        self.__class__ = self.becomes

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.initialize_parameters(args[0])
        return self(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **more: Any) -> None:
        for name, p in self._parameters.items():
            if isinstance(p, UninitializedParameter) and prefix + name in state_dict:
                p.materialize(tc.zeros_like(state_dict[prefix + name]))
        for name, b in self._buffers.items():
            given = state_dict.get(prefix + name)
            if b is not None and given is not None and b.shape != given.shape:
                self._buffers[name] = tc.zeros_like(given)
        super()._load_from_state_dict(state_dict, prefix, *args, **more)


class LazyLinear(LazyModuleMixin, Linear):
    """`Linear` whose ``in_features`` come from the first input.

    >>> import tracecc as tc
    >>> layer = tc.nn.LazyLinear(2)
    >>> layer(tc.zeros(3, 5)).shape, layer
    (tracecc.Size([3, 2]), Linear(in_features=5, out_features=2, bias=True))
    """

    becomes, _size, _axis = Linear, "in_features", -1


class LazyConv1d(LazyModuleMixin, Conv1d):
    """`Conv1d` whose ``in_channels`` come from the first input."""

    becomes, _size = Conv1d, "in_channels"


class LazyConv2d(LazyModuleMixin, Conv2d):
    """`Conv2d` whose ``in_channels`` come from the first input."""

    becomes, _size = Conv2d, "in_channels"


class LazyConv3d(LazyModuleMixin, Conv3d):
    """`Conv3d` whose ``in_channels`` come from the first input."""

    becomes, _size = Conv3d, "in_channels"


class LazyConvTranspose1d(LazyModuleMixin, ConvTranspose1d):
    """`ConvTranspose1d` whose ``in_channels`` come from the first input."""

    becomes, _size = ConvTranspose1d, "in_channels"


class LazyConvTranspose2d(LazyModuleMixin, ConvTranspose2d):
    """`ConvTranspose2d` whose ``in_channels`` come from the first input."""

    becomes, _size = ConvTranspose2d, "in_channels"


class LazyConvTranspose3d(LazyModuleMixin, ConvTranspose3d):
    """`ConvTranspose3d` whose ``in_channels`` come from the first input."""

    becomes, _size = ConvTranspose3d, "in_channels"


class LazyBatchNorm1d(LazyModuleMixin, BatchNorm1d):
    """`BatchNorm1d` whose ``num_features`` come from the first input."""

    becomes, _size = BatchNorm1d, "num_features"


class LazyBatchNorm2d(LazyModuleMixin, BatchNorm2d):
    """`BatchNorm2d` whose ``num_features`` come from the first input."""

    becomes, _size = BatchNorm2d, "num_features"


class LazyBatchNorm3d(LazyModuleMixin, BatchNorm3d):
    """`BatchNorm3d` whose ``num_features`` come from the first input."""

    becomes, _size = BatchNorm3d, "num_features"


_LEARNED: dict[str, Any] = {"affine": True, "track_running_stats": True}


class LazyInstanceNorm1d(LazyModuleMixin, InstanceNorm1d):
    """`InstanceNorm1d` whose ``num_features`` come from the first input."""

    becomes, _size, _defaults = InstanceNorm1d, "num_features", _LEARNED


class LazyInstanceNorm2d(LazyModuleMixin, InstanceNorm2d):
    """`InstanceNorm2d` whose ``num_features`` come from the first input."""

    becomes, _size, _defaults = InstanceNorm2d, "num_features", _LEARNED


class LazyInstanceNorm3d(LazyModuleMixin, InstanceNorm3d):
    """`InstanceNorm3d` whose ``num_features`` come from the first input."""

    becomes, _size, _defaults = InstanceNorm3d, "num_features", _LEARNED
