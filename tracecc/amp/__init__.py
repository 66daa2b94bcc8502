"""Mixed precision: `autocast` regions and `GradScaler`, with PyTorch's semantics on the CPU."""

from typing import Any

from tracecc.amp.autocast import (
    autocast,
    clear_autocast_cache,
    custom_bwd,
    custom_fwd,
    get_autocast_dtype,
    is_autocast_available,
    is_autocast_enabled,
)
from tracecc.amp.scaler import GradScaler
from tracecc.lacking import unknown

__all__ = [
    "GradScaler",
    "autocast",
    "clear_autocast_cache",
    "custom_bwd",
    "custom_fwd",
    "get_autocast_dtype",
    "is_autocast_available",
    "is_autocast_enabled",
]


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
