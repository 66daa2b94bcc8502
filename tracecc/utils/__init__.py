"""Conveniences around training: data loading, checkpointing."""

from tracecc.utils import checkpoint, data

__all__ = ["checkpoint", "data"]
