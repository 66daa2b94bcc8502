"""What is true of the running thread (grad mode, the active trace), and the guard epoch."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tracecc.trace.tracer import Tracer
    from tracecc_ir.types import DType

F = TypeVar("F", bound=Callable[..., Any])


class _ThreadState(threading.local):
    grad_enabled: bool = True
    inference: bool = False
    autocast: DType | None = None
    casts: dict[Any, Any] | None = None  # of parameters, while a region lasts
    trace: Tracer | None = None


thread = _ThreadState()


class Epoch:
    """Counts changes to anything a compiled function may have guarded (see trace/guards.py).

    Module attributes, rebound tensor memory and replaced gradients bump it, so that an unchanged
    count proves in one comparison that all of these guards still hold.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def bump(self) -> None:
        self.count += 1


epoch = Epoch()


class _GradMode:
    """A context manager and decorator that sets grad mode for the running thread."""

    def __init__(self, enabled: bool, inference: bool | None = None):
        self.enabled, self.inference = enabled, inference
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._before.append((thread.grad_enabled, thread.inference))
        thread.grad_enabled = self.enabled
        if self.inference is not None:
            thread.inference = self.inference

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread.grad_enabled, thread.inference = self._before.pop()

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with type(self)(*self._arguments()):
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]

    def _arguments(self) -> tuple:
        return ()


class no_grad(_GradMode):
    """Inside, results do not require grad. A context manager and a decorator.

    >>> import tracecc as tc
    >>> x = tc.ones(2, requires_grad=True)
    >>> with tc.no_grad():
    ...     (x * 2).requires_grad
    False
    """

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(_GradMode):
    """Inside, gradients are recorded again, also within ``no_grad``."""

    def __init__(self) -> None:
        super().__init__(True)


class inference_mode(_GradMode):
    """Like ``no_grad``; its results may never be used where gradients are recorded."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode, mode)

    def _arguments(self) -> tuple:
        return (bool(self.inference),)


class set_grad_enabled(_GradMode):
    """Sets grad mode at once; as a context manager, restores it on exit."""

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        self._outer = (thread.grad_enabled, thread.inference)
        thread.grad_enabled = mode

    def __enter__(self) -> None:
        self._before.append(self._outer)

    def _arguments(self) -> tuple:
        return (self.enabled,)


def is_grad_enabled() -> bool:
    return thread.grad_enabled


def is_inference_mode_enabled() -> bool:
    return thread.inference
