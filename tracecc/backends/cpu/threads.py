"""The number of threads: what `tracecc.set_num_threads` and `tracecc.get_num_threads` are."""

from tracecc.backends.cpu.driver import get_num_threads, set_num_threads

__all__ = ["get_num_threads", "set_num_threads"]
