"""Runs launch tables: the compiled driver, its thread pool, and `Program`, a table ready to run."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import llvmlite.binding as llvm
import numpy as np

from tracecc import config
from tracecc.backends.cpu import driver_ir as layout
from tracecc.backends.cpu import toolchain
from tracecc.backends.cpu.target import target

ROW_WORDS = layout.ROW_WORDS
MAX_THREADS = 1024

_PYTHON_SYMBOLS = (
    "PyLong_AsLongLong",
    "PyLong_FromLongLong",
    "PyErr_Occurred",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyObject_CallObject",
    "Py_DecRef",
)


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


_METH_O = 0x0008


def _align(words: int) -> np.ndarray:
    """Zeroed i64 words that begin on a cache line."""
    raw = np.zeros(words + 8, np.int64)
    skip = -(raw.ctypes.data // 8) % 8
    return raw[skip : skip + words]


class _Driver:
    """The compiled functions and the pool of this process. The pool's memory is never freed."""

    def __init__(self) -> None:
        for name in _PYTHON_SYMBOLS:
            symbol = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
            assert symbol is not None
            llvm.add_symbol(name, symbol)
        triple = target().triple
        kernel = toolchain.compile_ir(lambda: layout.text(triple), f"driver 4 {triple}")
        lookup = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(kernel.address)
        self.addresses = {name: lookup(n) for n, name in enumerate(layout.FUNCTIONS)}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._pools: list[np.ndarray] = []
        self._starter = self._start
        self._call("set_starter", id(self._starter))
        self._method = _MethodDef(
            b"run",
            self.addresses["python_run"],
            _METH_O,
            b"run(program address) -> error word, with the GIL released",
        )
        new = ctypes.pythonapi.PyCFunction_NewEx
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        self.run: Callable[[int], int] = new(ctypes.addressof(self._method), None, None)
        self.pause_seconds = self._measure_pause()
        self.new_pool(config.num_threads())
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)
        atexit.register(self.shut_down)

    def _call(self, name: str, argument: int) -> None:
        ctypes.CFUNCTYPE(None, ctypes.c_int64)(self.addresses[name])(argument)

    def _measure_pause(self) -> float:
        best = 1.0
        for _ in range(3):
            start = time.perf_counter()
            self._call("spin", 500)
            best = min(best, time.perf_counter() - start)
        return best / 500

    @property
    def pool(self) -> np.ndarray:
        return self._pools[-1]

    def new_pool(self, threads: int) -> None:
        """Attaches a pool without workers; the first parallel launch starts them."""
        pool = _align(layout.POOL_WORDS)
        pool[layout.THREADS] = threads
        spin = config.get_int("TRACECC_SPIN") * 1e-6 / self.pause_seconds
        pool[layout.SPIN] = int(spin)
        self._call("prepare", pool.ctypes.data)
        self._pools.append(pool)
        self._threads = []
        self._call("attach", pool.ctypes.data)

    def _after_fork(self) -> None:
        """Only the forking thread lives on in a child: it gets a pool of its own."""
        self._lock = threading.Lock()
        self.new_pool(int(self.pool[layout.THREADS]))

    def _start(self) -> None:
        """Starts the workers that `set_num_threads` asked for and that do not run yet."""
        if sys.platform == "win32":
            return
        with self._lock:
            pool = self.pool
            worker = ctypes.CFUNCTYPE(None, ctypes.c_int64)(self.addresses["worker"])
            while len(self._threads) < pool[layout.THREADS] - 1:
                thread = threading.Thread(
                    target=worker, args=(pool.ctypes.data,), name="tracecc worker", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:
                    break
                self._threads.append(thread)
            pool[layout.WORKERS] = len(self._threads)
            if len(self._threads) < pool[layout.THREADS] - 1:
                pool[layout.THREADS] = len(self._threads) + 1

    def shut_down(self) -> None:
        """Sends the workers home; launches after this are serial."""
        with self._lock:
            self.pool[layout.THREADS] = 1
            self._call("stop", self.pool.ctypes.data)
            for thread in self._threads:
                thread.join(1.0)
            self.pool[layout.WORKERS] = 0


_driver: _Driver | None = None
_creation = threading.Lock()


def _get() -> _Driver:
    global _driver
    if _driver is None:
        with _creation:
            if _driver is None:
                _driver = _Driver()
    return _driver


def run_function() -> Callable[[int], int]:
    """The built-in `run(program address) -> error word`: the cheapest way in from Python."""
    return _get().run


def set_num_threads(count: int) -> None:
    """Sets the number of threads that kernels may use, the calling thread included.

    Raises:
        ValueError: `count` is not a whole number from 1 to 1024.
    """
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_THREADS:
        raise ValueError(f"the number of threads must be from 1 to {MAX_THREADS}, given {count!r}")
    _get().pool[layout.THREADS] = count


def get_num_threads() -> int:
    """The number of threads that kernels may use, the calling thread included."""
    return int(_get().pool[layout.THREADS]) if _driver else config.num_threads()


class Program:
    """A launch table with its scratch memory, ready to run.

    Rows are `[address, args, extent, grain]`: the kernel is called for units [0, extent) in one or
    several pieces of at least `grain` units; an extent of at most the grain is not split.
    A program may be run by several threads one after another, not at once: its scratch is shared.
    """

    def __init__(self, rows: Sequence[Sequence[int]], scratch_bytes: int = 0):
        """
        Args:
            rows: the launches, in order.
            scratch_bytes: memory that each thread gets for itself.
        """
        driver = _get()
        self._table = _align(max(1, len(rows)) * ROW_WORDS)
        for number, row in enumerate(rows):
            self._table[number * ROW_WORDS : number * ROW_WORDS + len(row)] = row
        self._words = _align(layout.PROGRAM_WORDS)
        self._words[layout.TABLE] = self._table.ctypes.data
        self._words[layout.ROWS] = len(rows)
        self._stride = -(-scratch_bytes // 64) * 64
        self._room = 0
        self._reserve()
        self._run = driver.run
        self.address: int = self._words.ctypes.data
        # Runs the launches in order, up to one that reports an error; returns the error word.
        self.run: Callable[[], int] = (
            self._run_with_scratch if self._stride else partial(driver.run, self.address)
        )

    @property
    def table(self) -> np.ndarray:
        """The rows, i64[n, 8]; extents and argument addresses may be changed between runs."""
        return self._table.reshape(-1, ROW_WORDS)

    @property
    def error_address(self) -> int:
        """Where kernels store a nonzero number to report an error; zeroed when a run begins."""
        return self._words.ctypes.data + 8 * layout.ERROR

    def _reserve(self) -> None:
        threads = max(get_num_threads(), 1)
        if self._stride and threads > self._room:
            self._scratch = _align(threads * self._stride // 8)
            self._room = threads
            self._words[layout.PROGRAM_SCRATCH] = self._scratch.ctypes.data
            self._words[layout.PROGRAM_STRIDE] = self._stride

    def _run_with_scratch(self) -> int:
        self._reserve()
        return self._run(self.address)
