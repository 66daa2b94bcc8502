"""Parameters computed from others at every use: `register_parametrization` and its kin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from tracecc.lacking import unknown
from tracecc.nn.modules.container import ModuleDict, ModuleList
from tracecc.nn.modules.module import Module
from tracecc.nn.parameter import Parameter
from tracecc.state import no_grad
from tracecc.tensor import Tensor

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "type_before_parametrizations",
]


class _Cache:
    """The values of parametrized tensors inside `cached`, by module and name."""

    depth = 0
    values: ClassVar[dict[tuple[int, str], Tensor]] = {}


@contextmanager
def cached() -> Iterator[None]:
    """Inside, each parametrized tensor is computed once, when it is first used."""
    _Cache.depth += 1
    try:
        yield
    finally:
        _Cache.depth -= 1
        if not _Cache.depth:
            _Cache.values.clear()


def _value(module: Any, name: str) -> Tensor:
    """The value of ``module.name``, from the cache inside `cached`."""
    key = id(module), name
    if key in _Cache.values:
        return _Cache.values[key]
    value = module.parametrizations[name]()
    if _Cache.depth:
        _Cache.values[key] = value
    return value


def type_before_parametrizations(module: Module) -> type:
    """The module's class without the one that parametrizations made of it."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def computed(module: Module, name: str, prefix: str, value: Any, assign: Any = None) -> None:
    """Makes ``module.name`` a property, in a class of the module's own."""
    cls = type(module)
    if not getattr(cls, "_own_class", False):
        cls = type(
            prefix + cls.__name__, (cls,), {"_own_class": True, "__module__": cls.__module__}
        )
        module.__class__ = cls
    setattr(cls, name, property(value, assign))


def plain(module: Module, name: str) -> None:
    """Undoes `computed`; the last one restores the class."""
    cls = type(module)
    delattr(cls, name)
    if not any(isinstance(v, property) for v in vars(cls).values()):
        module.__class__ = cls.__bases__[0]


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, applied in order, and the original it comes from."""

    def __init__(self, modules: list[Module], original: Tensor):
        super().__init__(modules)
        value: Any = original.detach()
        with no_grad():
            for m in reversed(modules):
                if hasattr(m, "right_inverse"):
                    with suppress(NotImplementedError):  # then the original is the value itself
                        value = m.right_inverse(value)
        self.is_tensor = isinstance(value, Tensor)
        grad = original.requires_grad
        if self.is_tensor:
            if isinstance(original, Parameter):
                original.data = value.detach()
                self.original = original
            else:
                self.register_buffer("original", value)
        else:
            self.ntensors = len(value)
            for i, part in enumerate(value):
                setattr(self, f"original{i}", Parameter(part.detach().clone(), grad))

    def _originals(self) -> list[Tensor]:
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def forward(self) -> Tensor:
        first, *rest = self
        x = first(*self._originals())
        for m in rest:
            x = m(x)
        return x

    @no_grad()
    def right_inverse(self, value: Tensor) -> None:
        """Sets the originals so that the result is ``value``."""
        found: Any = value
        for m in reversed(list(self)):
            if not hasattr(m, "right_inverse"):
                raise RuntimeError(
                    f"parametrization {type(m).__name__} does not implement right_inverse."
                )
            found = m.right_inverse(found)
        parts = [found] if isinstance(found, Tensor) else found
        for original, part in zip(self._originals(), parts, strict=True):
            original.copy_(part)


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Computes ``module.tensor_name`` by ``parametrization`` of the present parameter from now on.

    Several may be registered one after another. ``parametrization.right_inverse``, if it exists,
    gives the original for a value.
    """
    if is_parametrized(module, tensor_name):
        module.parametrizations[tensor_name].append(parametrization)
        return module
    table = module._parameters if tensor_name in module._parameters else module._buffers
    if tensor_name not in table:
        raise ValueError(
            f"Module '{type(module).__name__}' does not have a parameter, a buffer, or a "
            f"parametrized element with name '{tensor_name}'"
        )
    made = ParametrizationList([parametrization], table[tensor_name])  # type: ignore[arg-type]
    delattr(module, tensor_name)
    if "parametrizations" not in module._modules:
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = made
    computed(
        module,
        tensor_name,
        "Parametrized",
        lambda self: _value(self, tensor_name),
        lambda self, value: self.parametrizations[tensor_name].right_inverse(value),
    )
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module, or one tensor of it, has a parametrization."""
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def remove_parametrizations(
    module: Module, tensor_name: str, leave_parametrized: bool = True
) -> Module:
    """Makes ``tensor_name`` a parameter again, of its present or of its original value."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    parts = module.parametrizations[tensor_name]
    if not leave_parametrized and not parts.is_tensor:
        raise ValueError("Cannot leave unparametrized a tensor that is made of several originals")
    with no_grad():
        value = getattr(module, tensor_name) if leave_parametrized else parts.original
    original = parts._originals()[0]
    del module.parametrizations[tensor_name]
    plain(module, tensor_name)
    if parts.is_tensor and isinstance(original, Parameter):
        original.data = value.detach().clone()
        module.register_parameter(tensor_name, original)
    else:
        module.register_parameter(tensor_name, Parameter(value.detach().clone()))
    if not len(module.parametrizations):
        del module.parametrizations
    return module


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
