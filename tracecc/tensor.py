"""Tensor: a typed array with PyTorch's semantics, concrete (NumPy memory) or a traced value.

This file holds the data model: memory, views, versions, gradients. The operations are functions in
`tracecc.functional`, attached as methods there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tracecc.state import epoch, thread
from tracecc_ir.types import DType, TensorType, type_of_array

if TYPE_CHECKING:
    from tracecc.autograd.tape import TapeNode

ViewStep = tuple[Any, dict[str, Any]]  # (movement op, attributes)


class Storage:
    """Memory that a tensor and all of its views share.

    Attributes:
        version: counts in-place writes, so that autograd can refuse overwritten saved values.
        history: counts in-place writes that autograd recorded, so that views refresh theirs.
        array: the memory; None while it exists only inside a trace.
    """

    __slots__ = ("__weakref__", "array", "history", "version")

    def __init__(self, array: np.ndarray | None):
        self.array = array
        self.version = 0
        self.history = 0


class Tensor:
    """A multi-dimensional array that remembers how it was computed.

    Make one with :func:`tracecc.tensor`, :func:`tracecc.from_numpy` (shares memory) or any creation
    function. Names and semantics are PyTorch's.

    >>> import tracecc as tc
    >>> x = tc.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_array",
        "_base",
        "_chain",
        "_grad",
        "_grad_fn",
        "_history",
        "_hooks",
        "_output_index",
        "_post_hooks",
        "_requires_grad",
        "_retains_grad",
        "_storage",
        "_type",
        "_weak",
    )

    _array: np.ndarray | None
    _base: Tensor | None
    _chain: tuple[ViewStep, ...]
    _grad: Tensor | None
    _grad_fn: TapeNode | None
    _hooks: list[Callable] | None
    _post_hooks: list[Callable] | None
    _history: int
    _output_index: int
    _requires_grad: bool
    _retains_grad: bool
    _storage: Storage
    _type: TensorType
    _weak: bool

    if TYPE_CHECKING:  # attached by tracecc.methods

        def __getattr__(self, name: str) -> Any: ...

        __add__: Any
        __and__: Any
        __bool__: Any
        __float__: Any
        __ge__: Any
        __getitem__: Any
        __gt__: Any
        __int__: Any
        __invert__: Any
        __iter__: Any
        __le__: Any
        __lt__: Any
        __matmul__: Any
        __mul__: Any
        __neg__: Any
        __or__: Any
        __pow__: Any
        __radd__: Any
        __rmatmul__: Any
        __rmul__: Any
        __rpow__: Any
        __rsub__: Any
        __rtruediv__: Any
        __setitem__: Any
        __sub__: Any
        __truediv__: Any

    __array_priority__ = 1000
    __hash__ = object.__hash__

    def __init__(self, data: Any = (), *, requires_grad: bool = False):
        array = np.array(data, dtype=np.float32)
        _setup(self, array, type_of_array(array), Storage(array))
        self.requires_grad = requires_grad

    # Memory and type.

    @property
    def dtype(self) -> DType:
        return self._type.dtype

    @property
    def shape(self) -> Size:
        return Size(self._type.shape)

    @property
    def ndim(self) -> int:
        return len(self._type.shape)

    @property
    def data(self) -> Tensor:
        """The same memory without history; assigning replaces the memory."""
        return self.detach()

    @data.setter
    def data(self, other: Tensor) -> None:
        if thread.trace is not None:
            self._write(other.detach())
            return
        self._array, self._type = other._array, other._type
        self._storage, self._chain, self._base = other._storage, other._chain, None
        epoch.bump()

    @property
    def _version(self) -> int:
        return self._storage.version

    def detach(self) -> Tensor:
        """The same memory, without history and not requiring grad."""
        return handle(self)

    def is_traced(self) -> bool:
        """Whether this tensor lives inside a trace, so that it has no numbers yet."""
        return self._array is None

    def _numpy(self) -> np.ndarray:
        """The memory itself, for internal use; raises if there is none yet."""
        if self._array is None or thread.trace is not None:
            from tracecc.trace.errors import concrete_value_needed

            raise concrete_value_needed(self, "the numbers of a tensor")
        return self._array

    # Gradients.

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and not self._type.dtype.is_inexact:
            raise RuntimeError(
                "only floating point and complex tensors can require gradients, "
                f"given {self._type.dtype.public}"
            )
        if not value and self._grad_fn is not None:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables; "
                "use detach() to cut a result off its history"
            )
        if value != self._requires_grad:
            self._requires_grad = bool(value)
            epoch.bump()

    @property
    def is_leaf(self) -> bool:
        return self.grad_fn is None

    @property
    def grad_fn(self) -> TapeNode | None:
        """The tape node that made this tensor; None for leaves."""
        if self._base is not None and self._history != self._storage.history:
            from tracecc.views import refresh_history

            refresh_history(self)
        return self._grad_fn

    @property
    def grad(self) -> Tensor | None:
        if thread.trace is not None:
            thread.trace.reads_grad(self)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad must be a Tensor or None, given {type(value).__name__}")
            if value._type.shape != self._type.shape:
                raise RuntimeError(
                    f"assigned grad has shape {tuple(value._type.shape)}, "
                    f"expected the tensor's own {tuple(self._type.shape)}"
                )
            if value._type.dtype is not self._type.dtype:
                raise RuntimeError(
                    f"assigned grad has dtype {value._type.dtype.public}, "
                    f"expected the tensor's own {self._type.dtype.public}"
                )
        self._set_grad(value)

    def _set_grad(self, value: Tensor | None) -> None:
        if value is self._grad:
            return
        if thread.trace is not None:
            thread.trace.writes_grad(self)
        else:
            epoch.bump()
        self._grad = value

    # In-place writes.

    def _check_writable(self) -> None:
        """Refuses what PyTorch refuses to write in place."""
        if not (thread.grad_enabled and self._requires_grad):
            return
        if self.grad_fn is None:
            raise RuntimeError(
                "a leaf Variable that requires grad is being used in an in-place operation; "
                "wrap the write in no_grad()"
            )
        if self._base is not None and self._base._requires_grad and self._base.grad_fn is None:
            raise RuntimeError(
                "a view of a leaf Variable that requires grad is being used in an in-place "
                "operation; wrap the write in no_grad()"
            )

    def _write(self, result: Tensor) -> Tensor:
        """Stores ``result`` (same shape and dtype) into this tensor's memory; takes its history."""
        if result._type != self._type:
            raise RuntimeError(
                f"result type {result._type!r} can't be stored in place in a tensor of type "
                f"{self._type!r}"
            )
        updated = None
        if thread.trace is not None:
            updated = thread.trace.write(self, result)
        else:
            if self._array is not None and not self._array.flags.writeable:
                raise RuntimeError(
                    "this tensor's memory cannot be written: it is expanded or came from a "
                    "read-only array; clone() it first"
                )
            self._array[...] = result._array  # type: ignore[index]
        self._storage.version += 1
        if thread.grad_enabled and (result._requires_grad or self._requires_grad):
            from tracecc.views import take_history

            take_history(self, result, updated)
        return self

    # Python's own protocols that need no operation.

    def __len__(self) -> int:
        if not self._type.shape:
            raise TypeError("len() of a 0-d tensor")
        n: Any = self._type.shape[0]
        return int(n)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self._requires_grad:
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. "
                "Use tensor.detach().numpy() instead."
            )
        return np.array(self._numpy(), dtype=dtype, copy=copy)


class Size(tuple):
    """A shape; a tuple that prints like PyTorch's and counts its elements."""

    def numel(self) -> int:
        total = 1
        for n in self:
            total *= n
        return total

    def __repr__(self) -> str:
        return f"tracecc.Size({list(self)})"


def _setup(t: Tensor, array: np.ndarray | None, type: TensorType, storage: Storage) -> None:
    t._array, t._type, t._storage = array, type, storage
    t._chain, t._base, t._history = (), None, 0
    t._requires_grad, t._grad, t._grad_fn, t._output_index = False, None, None, 0
    t._hooks = t._post_hooks = None
    t._retains_grad = t._weak = False


_new = object.__new__


def wrap(array: np.ndarray, type: TensorType | None = None) -> Tensor:
    """A tensor over this memory (not copied); ``type`` is the array's, if it is known."""
    t = _new(Tensor)
    _setup(t, array, type or type_of_array(array), Storage(array))
    return t


def wrap_traced(type: TensorType) -> Tensor:
    """A tensor without memory; the trace knows its value by its storage."""
    t = _new(Tensor)
    _setup(t, None, type, Storage(None))
    return t


def handle(t: Tensor) -> Tensor:
    """Another tensor over the same memory and view, without history."""
    h = _new(Tensor)
    _setup(h, t._array, t._type, t._storage)
    h._chain = t._chain
    return h
