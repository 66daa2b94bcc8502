"""Conveniences around training: data loading, checkpointing."""

from typing import Any

from tracecc.lacking import unknown
from tracecc.utils import checkpoint, data

__all__ = ["checkpoint", "data"]


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
