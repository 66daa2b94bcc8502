"""`autocast`: a region in which products run in a smaller dtype."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from tracecc.casts import cast
from tracecc.state import thread
from tracecc_ir.types import DType, bf16, f16


class autocast:
    """Inside, matrix products and convolutions cast their operands to ``dtype``.

    A context manager and a decorator; regions nest, and one with ``enabled=False`` ends casting.
    float64 tensors are left alone. Inside a compiled function the casts are part of the graph;
    outside, what a parameter was cast to is kept until the outermost region ends.

    Args:
        device_type: "cpu" (accepted: "cuda").
        dtype: bfloat16 (the default) or float16; any other warns, and the region casts nothing.
        enabled: whether the region casts.
        cache_enabled: whether casts of parameters are kept; by default as outside.

    >>> import tracecc as tc
    >>> with tc.autocast("cpu"):
    ...     (tc.ones(2, 2) @ tc.ones(2, 2)).dtype
    tracecc.bfloat16
    """

    def __init__(
        self,
        device_type: str = "cpu",
        dtype: DType | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ):
        if device_type not in ("cpu", "cuda"):
            raise RuntimeError(
                f"User specified an unsupported autocast device_type '{device_type}'"
            )
        self.device, self.fast_dtype = device_type, bf16 if dtype is None else dtype
        if enabled and self.fast_dtype not in (bf16, f16):
            warnings.warn(
                "autocast casts to bfloat16 or float16 only; this region casts nothing, given "
                f"dtype={dtype!r}",
                stacklevel=2,
            )
            enabled = False
        self._enabled, self._cache_enabled = enabled, cache_enabled
        self._before: list[tuple[DType | None, dict[Any, Any] | None]] = []

    def __enter__(self) -> autocast:
        self._before.append((thread.autocast, thread.casts))
        thread.autocast = self.fast_dtype if self._enabled else None
        if self._cache_enabled is False:
            thread.casts = None
        elif thread.casts is None:
            thread.casts = {}
        return self

    def __exit__(self, *error: Any) -> None:
        thread.autocast, thread.casts = self._before.pop()

    def __call__(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with autocast(self.device, self.fast_dtype, self._enabled, self._cache_enabled):
                return function(*args, **kwargs)

        return inside


def clear_autocast_cache() -> None:
    """Forgets what parameters were cast to in the present region."""
    if thread.casts is not None:
        thread.casts.clear()


def is_autocast_available(device_type: str) -> bool:
    """Whether regions for this device exist."""
    return device_type == "cpu"


def is_autocast_enabled(device_type: str = "cpu") -> bool:
    """Whether the running thread is in a region that casts."""
    return thread.autocast is not None


def get_autocast_dtype(device_type: str = "cpu") -> DType:
    """The dtype of the present region; bfloat16 outside."""
    return thread.autocast or bf16


def custom_fwd(
    fwd: Callable | None = None, *, device_type: str = "cpu", cast_inputs: DType | None = None
) -> Any:
    """Decorates a Function's ``forward``: with ``cast_inputs`` it runs in that dtype, uncast."""
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        if cast_inputs is None or thread.autocast is None:
            ctx._autocast = thread.autocast
            return fwd(ctx, *args, **kwargs)
        ctx._autocast = None
        args, kwargs = cast((args, kwargs), cast_inputs)
        with autocast(device_type, enabled=False):
            return fwd(ctx, *args, **kwargs)

    return forward


def custom_bwd(bwd: Callable | None = None, *, device_type: str = "cpu") -> Any:
    """Decorates a Function's ``backward``: it runs in the region its ``forward`` ran in."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def backward(ctx: Any, *args: Any) -> Any:
        with autocast(device_type, ctx._autocast, enabled=ctx._autocast is not None):
            return bwd(ctx, *args)

    return backward
