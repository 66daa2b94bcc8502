"""Conveniences around training: data loading."""

from tracecc.utils import data

__all__ = ["data"]
