"""Module: what holds parameters, buffers and other modules, and computes `forward`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tracecc.nn.modules.hooks import (
    EVERYWHERE,
    Hooked,
    register_module_backward_hook,
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
)
from tracecc.nn.modules.saving import Saving
from tracecc.nn.parameter import Buffer, Parameter
from tracecc.state import epoch, thread
from tracecc.tensor import Tensor
from tracecc.trace import name_state
from tracecc_ir.types import DType, bf16, f16, f32, f64

__all__ = [
    "Module",
    "register_module_backward_hook",
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
]

M = TypeVar("M", bound="Module")

_TABLES = ("_parameters", "_buffers", "_modules")


def _no_forward(self: Module, *args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward"')


class Module(Hooked, Saving):
    """Base class of everything in a network.

    Assigning a Parameter, a Buffer or a Module to an attribute registers it. A compiled function
    that called the module notices every later change of an attribute and retraces, except for
    those named in ``_runtime_scalars``, which its graph reads anew at each call.

    >>> import tracecc as tc
    >>> class Scale(tc.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.by = tc.nn.Parameter(tc.ones(1))
    ...     def forward(self, x):
    ...         return x * self.by
    >>> [name for name, _ in Scale().named_parameters()]
    ['by']
    """

    _version = 1
    _runtime_scalars: tuple[str, ...] = ()
    training: bool
    forward: Callable[..., Any] = _no_forward

    def __init__(self) -> None:
        for name in _TABLES:
            object.__setattr__(self, name, {})
        for name in (
            "_pre_hooks",
            "_hooks",
            "_backward_hooks",
            "_backward_pre_hooks",
            "_save_pre_hooks",
            "_save_hooks",
            "_load_pre_hooks",
            "_load_post_hooks",
        ):
            object.__setattr__(self, name, OrderedDict())
        object.__setattr__(self, "_non_persistent", set())
        object.__setattr__(self, "training", True)

    # Attributes.

    def __setattr__(self, name: str, value: Any) -> None:
        epoch.bump()
        tables = self.__dict__
        if "_parameters" not in tables:
            if isinstance(value, (Parameter, Module, Buffer)):
                raise AttributeError(
                    f"cannot assign {name} before Module.__init__() call; "
                    "call super().__init__() first"
                )
            object.__setattr__(self, name, value)
            return
        if isinstance(value, Parameter):
            self._forget(name, "_parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._forget(name, "_modules")
            self._modules[name] = value
        elif isinstance(value, Buffer):
            self._forget(name, "_buffers")
            self.register_buffer(name, value, value.persistent)
        elif name in self._parameters:
            if value is not None:
                raise TypeError(
                    f"cannot assign {type(value).__name__} as parameter '{name}' "
                    "(nn.Parameter or None expected)"
                )
            self._parameters[name] = None
        elif name in self._modules and value is None:
            self._modules[name] = None
        elif name in self._modules:
            raise TypeError(
                f"cannot assign {type(value).__name__} as child module '{name}' "
                "(nn.Module or None expected)"
            )
        elif name in self._buffers:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"cannot assign {type(value).__name__} as buffer '{name}' "
                    "(Tensor or None expected)"
                )
            self._buffers[name] = value
        else:
            object.__setattr__(self, name, value)

    def _forget(self, name: str, keep: str) -> None:
        """Makes room for a registered object; in its own table, ``keep``, the old place is kept."""
        self.__dict__.pop(name, None)
        for table in _TABLES:
            if table != keep:
                self.__dict__[table].pop(name, None)
        self._non_persistent.discard(name)

    @property
    def _structure(self) -> tuple[tuple[str, int], ...]:
        """What is registered, for guards."""
        tables = [self.__dict__[name] for name in _TABLES]
        own = (self._pre_hooks, self._hooks, self._backward_hooks, self._backward_pre_hooks)
        hooks: Any = (*own, EVERYWHERE)
        members = [(name, id(value)) for table in tables for name, value in table.items()]
        return (*members, *(("hook", key) for table in hooks for key in table))

    def __getattr__(self, name: str) -> Any:
        tables = self.__dict__
        for table in _TABLES:
            found = tables.get(table)
            if found is not None and name in found:
                if thread.trace is not None:
                    guard(self)
                return found[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        epoch.bump()
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._non_persistent.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted(
            {*super().__dir__(), *self._parameters, *self._buffers, *self._modules}  # type: ignore[misc]
        )

    # Registration.

    def _check_name(self, kind: str, name: str, table: dict) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string, given {type(name).__name__}")
        if "." in name:
            raise KeyError(f"{kind} name can't contain '.', given {name!r}")
        if name == "":
            raise KeyError(f"{kind} name can't be an empty string")
        if hasattr(self, name) and name not in table:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter, or a name that may get one later (None)."""
        self._check_name("parameter", name, self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign {type(param).__name__} object to parameter '{name}' "
                "(nn.Parameter or None required)"
            )
        if param is not None and param.grad_fn is not None:
            raise ValueError(
                f"cannot assign non-leaf Tensor to parameter '{name}'; "
                "a parameter is a leaf: compute derived weights in forward()"
            )
        epoch.bump()
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is state but not a parameter, such as a running mean."""
        self._check_name("buffer", name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' "
                "(Tensor or None required)"
            )
        epoch.bump()
        self._buffers[name] = tensor
        (self._non_persistent.discard if persistent else self._non_persistent.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a child module."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name("module", name, self._modules)
        epoch.bump()
        self._modules[name] = module

    register_module = add_module

    # Calling.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if thread.trace is not None:
            guard(self)
            _label(self)
        own = self._pre_hooks or self._hooks or self._backward_hooks or self._backward_pre_hooks
        if own or EVERYWHERE:
            return self._call_with_hooks(args, kwargs)
        return self.forward(*args, **kwargs)

    # Walking.

    def named_modules(
        self, memo: set | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Every module below and including this one, with its dotted name, each once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        if thread.trace is not None:
            guard(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                below = prefix + ("." if prefix else "") + name
                yield from child.named_modules(memo, below, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct children, each once."""
        seen: set[Module] = set()
        if thread.trace is not None:
            guard(self)
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def _named_members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else [(prefix, self)]
        )
        for base, module in modules:
            for name, member in getattr(module, table).items():
                if member is None or (remove_duplicate and id(member) in seen):
                    continue
                seen.add(id(member))
                yield base + ("." if base else "") + name, member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted name, each once."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Every buffer with its dotted name, each once."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (b for _, b in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module with this dotted name ("" is this one)."""
        module: Any = self
        for name in target.split(".") if target else ():
            module = getattr(module, name, None)
            if not isinstance(module, Module):
                raise AttributeError(f"{type(self).__name__} has no submodule {target!r}")
        return module

    def set_submodule(self, target: str, module: Module) -> None:
        """Replaces the module with this dotted name."""
        path, _, name = target.rpartition(".")
        if not name:
            raise ValueError("Cannot set the submodule without a target name!")
        setattr(self.get_submodule(path), name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with this dotted name."""
        path, _, name = target.rpartition(".")
        found = self.get_submodule(path)._parameters.get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no parameter {target!r}")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer with this dotted name."""
        path, _, name = target.rpartition(".")
        found = self.get_submodule(path)._buffers.get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__} has no buffer {target!r}")
        return found

    # Changing everything below.

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Calls ``fn`` on every module, children first."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def _apply(self: M, fn: Callable[[Tensor], Tensor]) -> M:
        """Replaces the memory of every parameter, gradient and buffer by ``fn`` of it."""
        for module in self.modules():
            for p in module._parameters.values():
                if p is not None:
                    p.data = fn(p.detach())
                    if p.grad is not None:
                        p.grad = fn(p.grad.detach())
            for name, b in module._buffers.items():
                if b is not None:
                    module._buffers[name] = fn(b)
        epoch.bump()
        return self

    def to(self: M, *args: Any, **kwargs: Any) -> M:
        """Moves and casts, in place: ``to(device)``, ``to(dtype)``, ``to(tensor)``.

        A dtype changes floating point and complex parameters and buffers only.
        """
        given = [*args, *kwargs.values()]
        dtypes = [a if isinstance(a, DType) else a.dtype for a in given if hasattr(a, "dtype")]
        dtypes += [a for a in given if isinstance(a, DType)]
        if dtypes and not dtypes[0].is_inexact:
            raise TypeError(
                "nn.Module.to only accepts floating point or complex dtypes, given "
                f"{dtypes[0].public}"
            )

        def move(t: Any) -> Tensor:
            if t.dtype.is_inexact or not dtypes:
                return t.to(*args, **kwargs)
            places = [a for a in args if not isinstance(a, DType) and not hasattr(a, "dtype")]
            return t.to(*places) if places else t

        return self._apply(move)

    def _cast(self: M, dtype: DType) -> M:
        return self._apply(lambda t: t.to(dtype) if t.dtype.kind == "float" else t)  # type: ignore[attr-defined]

    def float(self: M) -> M:
        return self._cast(f32)

    def double(self: M) -> M:
        return self._cast(f64)

    def half(self: M) -> M:
        return self._cast(f16)

    def bfloat16(self: M) -> M:
        return self._cast(bf16)

    def cpu(self: M) -> M:
        return self._apply(lambda t: t.to("cpu"))  # type: ignore[attr-defined]

    def cuda(self: M, device: Any = None) -> M:
        return self._apply(lambda t: t.cuda(device))  # type: ignore[attr-defined]

    def train(self: M, mode: bool = True) -> M:
        """Sets training mode, which changes what dropout and batch normalisation do."""
        if not isinstance(mode, bool):
            raise ValueError(f"training mode is expected to be boolean, given {mode!r}")
        for module in self.modules():
            if module.training is not mode:
                module.training = mode
        return self

    def eval(self: M) -> M:
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Sets whether gradients flow to the parameters."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of the parameters."""
        from tracecc.optim.optimizer import clear_grad

        for p in self.parameters():
            clear_grad(p, set_to_none)

    def type(self: M, dst_type: DType) -> M:
        """Casts every floating point parameter and buffer."""
        return self._cast(dst_type)

    def to_empty(self: M, *, device: Any = None, recurse: bool = True) -> M:
        """Replaces all memory by new memory that holds nothing in particular."""
        return self._apply(lambda t: t.clone())  # type: ignore[attr-defined]

    def share_memory(self: M) -> M:
        return self

    def compile(self, **options: Any) -> None:
        """Compiles ``forward`` of this module in place."""
        from tracecc.compile import compile

        object.__setattr__(self, "forward", compile(self.forward, **options))
        epoch.bump()

    # Printing.

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the parentheses; subclasses override it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr().split("\n") if self.extra_repr() else []
        children = [
            f"({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self._modules.items()
        ]
        if not children and len(extra) <= 1:
            return f"{self._get_name()}({''.join(extra)})"
        return f"{self._get_name()}(\n  " + "\n  ".join(extra + children) + "\n)"


def guard(module: Module) -> None:
    """Tells the active trace that it read ``module``: later changes retrace."""
    if "_replaced" in module.__dict__:  # by func.functional_call, for this call only
        return
    guards = thread.trace.guards  # type: ignore[union-attr]
    guards.attribute(module, "_structure", module._structure)
    for name, value in module.__dict__.items():
        if not name.startswith("_") and name not in module._runtime_scalars:
            guards.attribute(module, name, value)


def _label(module: Module) -> None:
    """Names the state below ``module`` in dumps; an enclosing module has named it already."""
    labels = thread.trace.labels  # type: ignore[union-attr]
    tables = (module.named_parameters(), module.named_buffers())
    for members in tables:
        for name, t in members:
            if t._storage not in labels:
                name_state(t, name)
