"""Signal processing: windows."""

from typing import Any

from tracecc.lacking import unknown
from tracecc.signal import windows

__all__ = ["windows"]


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
