"""Modules that hold modules or parameters: Sequential, ModuleList, ModuleDict and their kin."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tracecc.nn.modules.module import Module, guard
from tracecc.nn.parameter import Parameter
from tracecc.state import epoch, thread
from tracecc.tensor import Tensor


def _position(index: Any, length: int) -> int:
    i = operator.index(index)
    if not -length <= i < length:
        raise IndexError(f"index {i} is out of range for a container of {length}")
    return i % length


def _iterable(name: str, what: str, given: Any) -> Any:
    if not isinstance(given, Iterable):
        raise TypeError(f"{name} expects an iterable of {what}, but got {type(given).__name__}")
    return given


class _Listed(Module):
    """A container whose children are numbered."""

    def _items(self) -> list[Any]:
        if thread.trace is not None:
            guard(self)
        return list(self._modules.values())

    def _renumber(self, items: Iterable[Any]) -> None:
        epoch.bump()
        self._modules.clear()
        for i, item in enumerate(items):
            self.add_module(str(i), item)

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items())

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._sliced(index)
        items = self._items()
        return items[_position(index, len(items))]

    def _sliced(self, index: slice) -> Any:
        return type(self)(self._items()[index])  # type: ignore[call-arg]

    def __setitem__(self, index: Any, module: Module) -> None:
        names = list(self._modules)
        setattr(self, names[_position(index, len(names))], module)

    def __delitem__(self, index: Any) -> None:
        items = self._items()
        if isinstance(index, slice):
            del items[index]
        else:
            del items[_position(index, len(items))]
        self._renumber(items)

    def append(self, module: Module) -> Any:
        self.add_module(str(len(self)), module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        items = self._items()
        items.insert(index, module)
        self._renumber(items)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        for module in _iterable("ModuleList.extend", "modules", modules):
            self.append(module)
        return self

    def pop(self, key: Any) -> Any:
        found = self[key]
        del self[key]
        return found


class Sequential(_Listed):
    """Calls its modules one after another, each with the result of the one before.

    >>> from tracecc import nn
    >>> nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *args: Any):
        super().__init__()
        named = isinstance(args[0], dict) if len(args) == 1 else False
        for name, module in args[0].items() if named else enumerate(args):
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input

    def _sliced(self, index: slice) -> Sequential:
        return type(self)(dict(list(self._modules.items())[index]))


class ModuleList(_Listed):
    """A list of modules."""

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        self.extend(modules or ())

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __repr__(self) -> str:
        """Equal neighbours are shown once, with their number."""
        shown = [repr(m) for m in self]
        if not shown:
            return f"{self._get_name()}()"
        lines, start = [], 0
        for i in range(1, len(shown) + 1):
            if i < len(shown) and shown[i] == shown[start]:
                continue
            text = shown[start].replace("\n", "\n  ")
            several = i - start > 1
            lines.append(
                f"({start}-{i - 1}): {i - start} x {text}" if several else f"({start}): {text}"
            )
            start = i
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"

    def __iadd__(self, other: Iterable[Module]) -> ModuleList:
        return self.extend(other)


class ModuleDict(Module):
    """A dict of modules."""

    def __init__(self, modules: Mapping[str, Module] | None = None):
        super().__init__()
        if modules is not None:
            self.update(modules)

    def _table(self) -> dict[str, Any]:
        if thread.trace is not None:
            guard(self)
        return self._modules

    def __getitem__(self, key: str) -> Any:
        return self._table()[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        epoch.bump()
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._table())

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __contains__(self, key: str) -> bool:
        return key in self._table()

    def clear(self) -> None:
        epoch.bump()
        self._modules.clear()

    def pop(self, key: str) -> Any:
        found = self[key]
        del self[key]
        return found

    def keys(self) -> Any:
        return self._table().keys()

    def items(self) -> Any:
        return self._table().items()

    def values(self) -> Any:
        return self._table().values()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        items = modules.items() if isinstance(modules, Mapping) else modules
        for key, module in _iterable("ModuleDict.update", "pairs of names and modules", items):
            self[key] = module


def _as_parameter(value: Any) -> Any:
    plain = isinstance(value, Tensor) and not isinstance(value, Parameter)
    return Parameter(value) if plain else value


class ParameterList(Module):
    """A list of parameters; plain tensors given to it become parameters."""

    def __init__(self, values: Iterable[Any] | None = None):
        super().__init__()
        self.extend(values or ())

    def _items(self) -> list[Any]:
        if thread.trace is not None:
            guard(self)
        return list(self._parameters.values())

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items())

    def __getitem__(self, index: Any) -> Any:
        items = self._items()
        if isinstance(index, slice):
            return ParameterList(items[index])
        return items[_position(index, len(items))]

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, str(_position(index, len(self))), _as_parameter(value))

    def append(self, value: Any) -> ParameterList:
        self.register_parameter(str(len(self)), _as_parameter(value))
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        for value in values:
            self.append(value)
        return self

    def extra_repr(self) -> str:
        return "\n".join(_described(name, p) for name, p in self._parameters.items())


class ParameterDict(Module):
    """A dict of parameters; plain tensors given to it become parameters."""

    def __init__(self, parameters: Mapping[str, Any] | None = None):
        super().__init__()
        self.update(parameters or {})

    def _table(self) -> dict[str, Any]:
        if thread.trace is not None:
            guard(self)
        return self._parameters

    def __getitem__(self, key: str) -> Any:
        return self._table()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.register_parameter(key, _as_parameter(value))

    def __delitem__(self, key: str) -> None:
        epoch.bump()
        del self._parameters[key]

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __contains__(self, key: str) -> bool:
        return key in self._parameters

    def keys(self) -> Any:
        return self._table().keys()

    def items(self) -> Any:
        return self._table().items()

    def values(self) -> Any:
        return self._table().values()

    def update(self, parameters: Mapping[str, Any]) -> None:
        for key, value in parameters.items():
            self[key] = value

    def extra_repr(self) -> str:
        return "\n".join(_described(name, p) for name, p in self._parameters.items())


def _described(name: str, p: Any) -> str:
    size = "x".join(str(n) for n in p.shape)
    return f"({name}): Parameter containing: [{p.dtype!r} of size {size}]"


class DataParallel(Module):
    """``module`` itself, as there is one device; its parameters are named ``module.*``.

    Args:
        module: what is called.
        device_ids, output_device, dim: accepted for PyTorch's sake.
    """

    def __init__(
        self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0
    ):
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)
