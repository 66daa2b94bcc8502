"""Signal processing: windows."""

from tracecc.signal import windows

__all__ = ["windows"]
