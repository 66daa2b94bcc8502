"""Methods that are no functions of tensors: filling, conversion, gradients, facts and copies."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracecc import autograd
from tracecc.devices import check_device, is_device
from tracecc.functional import FUNCTIONS, shape
from tracecc.functional.core import sizes_from, to_dtype, wrap_dim
from tracecc.functional.creation import check_dtype
from tracecc.functional.pointwise import clone
from tracecc.functional.subscript import store
from tracecc.state import thread
from tracecc.tensor import Tensor, _new, _setup, wrap
from tracecc.trace.errors import concrete_value_needed
from tracecc_ir.types import DType


def zero_(self: Tensor) -> Tensor:
    """Overwrites with zeros."""
    store(self, 0)
    return self


def fill_(self: Tensor, value: Any) -> Tensor:
    """Overwrites with one number."""
    if isinstance(value, Tensor) and value.ndim:
        raise RuntimeError(
            "fill_ only supports 0-dimension value tensor but got tensor with "
            f"{value.ndim} dimensions."
        )
    store(self, value)
    return self


def copy_(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Overwrites with ``src``, converted and broadcast."""
    store(self, src)
    return self


def resize_(self: Tensor, *sizes: Any) -> Tensor:
    """Only to the size it has: memory here is never resized."""
    if tuple(sizes_from(sizes)) != tuple(self._type.shape):
        raise RuntimeError(
            f"a tensor of shape {list(self._type.shape)} can't be resized in place, as its "
            "memory may be shared; use reshape() or make a new tensor"
        )
    return self


def become(self: Tensor, view: Tensor) -> Tensor:
    """Turns a tensor into a view of its own memory (``t_()``, ``squeeze_()`` and their kin)."""
    if self._requires_grad:
        raise RuntimeError("the shape of a tensor that requires grad can't be changed in place")
    self._array, self._type, self._chain = view._array, view._type, view._chain
    return self


def reshaping(name: str, function: Callable) -> Callable:
    def method(self: Tensor, *args: Any) -> Tensor:
        return become(self, function(self, *args))

    method.__name__ = name + "_"
    method.__doc__ = f"`{name}` in place: only the shape changes."
    return method


# Conversion.


def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Another dtype or device: ``to(dtype)``, ``to(device, dtype)``, ``to(other)``."""
    dtype, place = kwargs.get("dtype"), kwargs.get("device")
    for a in args[:2]:
        if isinstance(a, Tensor):
            dtype = a.dtype
        elif isinstance(a, DType) or a in (float, int, bool, complex):
            dtype = a
        elif is_device(a):
            place = a
        elif not isinstance(a, bool) and a is not None:
            kind = RuntimeError if isinstance(a, str) else TypeError
            raise kind(f"to() expects a dtype, a device or a Tensor, given {a!r}")
    check_device(place)
    copied = kwargs.get("copy", any(a is True for a in args[2:]))
    result = self if dtype is None else to_dtype(self, check_dtype(dtype))
    return clone(result) if copied and result is self else result


def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The name of the tensor's type, or the tensor converted to another."""
    if dtype is None:
        names = {"float32": "Float", "float64": "Double", "float16": "Half", "int64": "Long"}
        names |= {"complex64": "ComplexFloat", "complex128": "ComplexDouble"}
        names |= {"int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte", "bool": "Bool"}
        return f"tracecc.{names.get(self.dtype.public, 'BFloat16')}Tensor"
    if isinstance(dtype, str):
        raise ValueError(f"invalid type: {dtype!r}; expected a dtype such as tracecc.float32")
    return to_dtype(self, check_dtype(dtype))


def type_as(self: Tensor, other: Tensor) -> Tensor:
    """Converted to the dtype of ``other``; itself if it has that dtype."""
    return to_dtype(self, other.dtype)


def conversion(name: str, dtype: DType) -> Callable:
    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        return to_dtype(self, dtype)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Converted to {dtype.public}; itself if it has that dtype."
    return method


def cpu(self: Tensor) -> Tensor:
    """The tensor itself: all memory is the CPU's."""
    return self


def cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """Refused: there is no CUDA backend on this machine."""
    check_device("cuda")
    return self


def item(self: Tensor) -> Any:
    """The only element as a Python number."""
    if self._type.size != 1:
        raise RuntimeError(
            f"a Tensor with {self._type.size} elements cannot be converted to Scalar"
        )
    array = _concrete(self, "the number that .item() returns")
    value = array.reshape(()).item()
    return value if isinstance(value, (bool, int, float, complex)) else float(value)


def _concrete(self: Tensor, what: str) -> np.ndarray:
    if self._array is None or thread.trace is not None:
        raise concrete_value_needed(self, what)
    return self._array


def tolist(self: Tensor) -> Any:
    """Nested lists of Python numbers."""
    array = _concrete(self, "the list that .tolist() returns")
    return (array if array.dtype.kind in "biufc" else array.astype(np.float32)).tolist()


def numpy(self: Tensor, *, force: bool = False) -> np.ndarray:
    """An array over the same memory; for tensors that require grad only with ``force``."""
    if self._requires_grad and not force:
        raise RuntimeError(
            "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
        )
    return _concrete(self, "the array that .numpy() returns")


def dlpack(self: Tensor, **kwargs: Any) -> Any:
    """The memory as a DLPack capsule."""
    if self._requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    return numpy(self).__dlpack__(**kwargs)


def dlpack_device(self: Tensor) -> Any:
    """(1, 0): the CPU."""
    return (1, 0)


def array_namespace(self: Tensor, *, api_version: str | None = None) -> Any:
    """The functions of the array API standard: :mod:`tracecc.array_api`.

    Raises:
        ValueError: another version of the standard is asked for.
    """
    from tracecc import array_api

    if api_version not in (None, "2021.12", "2022.12", "2023.12", "2024.12"):
        raise ValueError(f"api_version must be 2024.12 or one before it, given {api_version!r}")
    return array_api


def to_device(self: Tensor, device: Any, /, *, stream: Any = None) -> Tensor:
    """The tensor on a device; itself if it is there."""
    return to(self, device)


def scalar(kind: type, what: str) -> Callable:
    def method(self: Tensor) -> Any:
        if self._type.size != 1:
            if kind is bool:
                size = "no values" if self._type.size == 0 else "more than one value"
                raise RuntimeError(
                    f"Boolean value of Tensor with {size} is ambiguous, "
                    f"given {self._type.size}; use any() or all()"
                )
            raise ValueError(
                f"{kind.__name__}() takes tensors of one element, given {self._type.size}"
            )
        return kind(_concrete(self, what).reshape(()).item())

    return method


def is_nonzero(self: Tensor) -> bool:
    """Whether the only element is not zero."""
    return bool(scalar(bool, "the truth of a tensor")(self))


def index(self: Tensor) -> int:
    """The only element as an index; integers only."""
    if self.dtype.is_inexact or self._type.size != 1:
        raise TypeError(
            "only integer tensors of a single element can be converted to an index, "
            f"given {self._type!r}"
        )
    return int(_concrete(self, "a tensor used as an index").reshape(()).item())


def iterate(self: Tensor) -> Iterator[Tensor]:
    """Over the first dimension."""
    if self.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(shape.unbind(self, 0))


def contains(self: Tensor, element: Any) -> bool:
    """Whether some element equals a number or tensor."""
    if not isinstance(element, (Tensor, int, float, complex, np.generic)):
        raise RuntimeError(f"`in` a Tensor takes a Tensor or a number, given {element!r}")
    return bool(FUNCTIONS["any"](FUNCTIONS["eq"](self, element)))


def format_(self: Tensor, spec: str) -> str:
    """0-d tensors format like their number."""
    if self.ndim == 0 and self._array is not None and thread.trace is None:
        return format(item(self), spec)
    return format(repr(self), spec)


# Gradients.


def backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Accumulates the gradient of this tensor into the ``grad`` of the leaves it comes from."""
    autograd.backward(self, gradient, retain_graph, create_graph, inputs)


def requires_grad_(self: Tensor, requires_grad: bool = True) -> Tensor:
    """Sets requires_grad and returns the tensor."""
    self.requires_grad = requires_grad
    return self


def detach_(self: Tensor) -> Tensor:
    """Cuts the tensor off its history."""
    if self._base is not None:
        raise RuntimeError("Can't detach views in-place. Use detach() instead.")
    self._grad_fn, self._requires_grad = None, False
    return self


class RemovableHandle:
    """Removes a hook when asked to."""

    def __init__(self, hooks: list[Callable], hook: Callable):
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        """Takes the hook away; harmless the second time."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def _added(hooks: list[Callable], hook: Callable) -> RemovableHandle:
    hooks.append(hook)
    return RemovableHandle(hooks, hook)


def register_hook(self: Tensor, hook: Callable) -> RemovableHandle:
    """Calls ``hook(grad)`` when the gradient is known; a returned tensor replaces it."""
    if not self._requires_grad:
        raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
    node = self.grad_fn
    if node is not None:
        node.hooks = {} if node.hooks is None else node.hooks
        return _added(node.hooks.setdefault(self._output_index, []), hook)
    self._hooks = [] if self._hooks is None else self._hooks
    return _added(self._hooks, hook)


def register_post_accumulate_grad_hook(self: Tensor, hook: Callable) -> RemovableHandle:
    """Calls ``hook(tensor)`` after the gradient of this leaf was accumulated."""
    if not self._requires_grad or self.grad_fn is not None:
        raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    self._post_hooks = [] if self._post_hooks is None else self._post_hooks
    return _added(self._post_hooks, hook)


def retain_grad(self: Tensor) -> None:
    """Keeps the gradient of a tensor that is not a leaf."""
    if not self._requires_grad:
        raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
    node = self.grad_fn
    if node is not None:
        node.retained = {} if node.retained is None else node.retained
        node.retained[self._output_index] = self
        self._retains_grad = True


# Facts.


def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or the size of one dimension."""
    return self.shape if dim is None else self.shape[wrap_dim(dim, self.ndim)]


def stride(self: Tensor, dim: int | None = None) -> Any:
    """How many elements lie between neighbours, for each dimension or one."""
    if self._array is None:
        steps = [1]
        for n in reversed(self._type.shape[1:]):
            steps.append(steps[-1] * n)  # type: ignore[arg-type]
        found = tuple(reversed(steps))[: self.ndim]
    else:
        found = tuple(s // self._array.itemsize for s in self._array.strides)
    return found if dim is None else found[wrap_dim(dim, self.ndim)]


def data_ptr(self: Tensor) -> int:
    """The address of the first element."""
    return _concrete(self, "an address").ctypes.data


# Copies.


def deepcopy(self: Tensor, memo: dict) -> Tensor:
    """A leaf with a copy of the memory, shared among copies as it was among the originals."""
    if id(self) in memo:
        return memo[id(self)]
    if self.grad_fn is not None:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
            "protocol at the moment"
        )
    t = rebuild(type(self), _concrete(self, "a copy").copy(), self._requires_grad, {})
    memo[id(self)] = t
    if self._grad is not None:
        t._grad = copy.deepcopy(self._grad, memo)
    t.__dict__.update(copy.deepcopy(self.__dict__, memo))
    return t


def rebuild(kind: type, array: np.ndarray, requires_grad: bool, extra: dict) -> Tensor:
    """A tensor of class ``kind`` over ``array``."""
    t: Tensor = _new(kind)
    fresh = wrap(array)
    _setup(t, array, fresh._type, fresh._storage)
    t._requires_grad = requires_grad
    t.__dict__.update(extra)
    return t


def reduce_ex(self: Tensor, protocol: Any) -> tuple:
    """How to pickle: the numbers, requires_grad and attributes."""
    array = np.array(_concrete(self, "a pickle"), order="C")
    return rebuild, (type(self), array, self._requires_grad, dict(self.__dict__))
