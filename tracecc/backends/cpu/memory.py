"""Memory that survives calls: aligned arenas, and a pool that takes dead output arrays back."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from tracecc import config

ALIGNMENT = 64
_PAGE = mmap.PAGESIZE
_HUGE_PAGE = 2 << 20


def _interface_address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


def _field_address(a: np.ndarray) -> int:
    return _word_at(id(a) + _DATA_FIELD).value


# In CPython, NumPy's array object begins with its reference count, its type and the address of its
# data: reading that field costs a fifth of asking for the array interface.
_word_at = ctypes.c_int64.from_address
_DATA_FIELD = 16


def _fields_are_known() -> bool:
    probe = np.zeros(3, np.int32)[1:]
    return (
        sys.implementation.name == "cpython"
        and object.__basicsize__ == _DATA_FIELD
        and _field_address(probe) == _interface_address(probe)
    )


address_of = _field_address if _fields_are_known() else _interface_address


def aligned_bytes(size: int) -> np.ndarray:
    """Zeroed memory that begins on a cache line (from 2 MiB on: huge pages where possible).

    Args:
        size: bytes, at least 0.

    Returns:
        u8[size].
    """
    if size < _HUGE_PAGE:
        raw = np.zeros(size + ALIGNMENT, np.uint8)
        skip = -raw.ctypes.data % ALIGNMENT
        return raw[skip : skip + size]
    return np.frombuffer(_mapped(size), np.uint8)[:size]


def _mapped(size: int) -> mmap.mmap:
    """Anonymous pages, at a multiple of the huge page's size in length so that they can be huge."""
    memory = mmap.mmap(-1, -(-size // _HUGE_PAGE) * _HUGE_PAGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # A system kernel without huge pages.
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Arena:
    """Blocks of one size that are kept from call to call.

    An executable takes one for its temporaries at each call; concurrent calls need one each.
    `acquire` gives the calling thread a block nobody else holds, `release` hands it back.
    """

    def __init__(self, size: int):
        """
        Args:
            size: bytes of each block.
        """
        self.size = size
        self._free: deque[np.ndarray] = deque()

    def acquire(self) -> np.ndarray:
        """u8[size], 64-byte aligned, with whatever the last user left in it."""
        try:
            return self._free.pop()
        except IndexError:
            return aligned_bytes(self.size)

    def release(self, block: np.ndarray) -> None:
        """Keeps a block for the next call."""
        self._free.append(block)


class _Block(ctypes.Structure):
    """The owner of one output's memory; arrays hold it as their base. Subclassed per size."""

    address: int
    size_class: int
    pool: OutputPool

    def __del__(self) -> None:
        self.pool.take_back(self.size_class, self.address)


class OutputPool:
    """Hands out arrays whose memory returns to the pool when the last reference to it dies.

    In steady state a step's outputs use the memory of the outputs before: no page faults.
    """

    def __init__(self, limit: int | None = None):
        """
        Args:
            limit: bytes of free memory kept; default: `TRACECC_POOL_SIZE`.
        """
        self._limit = config.get_int("TRACECC_POOL_SIZE") << 20 if limit is None else limit
        self._free: dict[int, deque[int]] = {}
        self._types: dict[int, type[_Block]] = {}
        self._memory: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        self._kept = 0

    def empty(self, shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
        """An uninitialised C-contiguous array, 64-byte aligned.

        >>> OutputPool().empty((2, 3), np.float32).shape
        (2, 3)
        """
        dtype = np.dtype(dtype)
        count = 1
        for extent in shape:
            count *= extent
        size_class = _size_class(count * dtype.itemsize)
        block = self._block(size_class)
        return np.ndarray(shape, dtype, cast(Any, block))

    @property
    def free_bytes(self) -> int:
        """Bytes that wait for the next array."""
        return self._kept

    @property
    def owned_bytes(self) -> int:
        """Bytes of all blocks, free and in use."""
        return sum(memory.nbytes for memory in list(self._memory.values()))

    def take_back(self, size_class: int, address: int) -> None:
        """Called when an array has died, in whatever thread that happened."""
        if self._kept + size_class > self._limit:
            self._memory.pop(address, None)
            return
        self._kept += size_class
        self._free[size_class].append(address)

    def _block(self, size_class: int) -> _Block:
        kind = self._types.get(size_class) or self._new_class(size_class)
        try:
            address = self._free[size_class].pop()
            self._kept -= size_class
        except IndexError:
            memory = aligned_bytes(size_class)
            address = memory.ctypes.data
            self._memory[address] = memory
        block = kind.from_address(address)
        block.address = address
        return block

    def _new_class(self, size_class: int) -> type[_Block]:
        with self._lock:
            if size_class not in self._types:
                self._free[size_class] = deque()
                fields = {
                    "_fields_": [("bytes", ctypes.c_char * size_class)],
                    "size_class": size_class,
                    "pool": self,
                }
                self._types[size_class] = type("Block", (_Block,), fields)
            return self._types[size_class]


def _size_class(size: int) -> int:
    """Sizes in steps of at most a quarter: few classes, little waste."""
    if size <= 256:
        return 256
    step = 1 << max(size.bit_length() - 3, 6)
    return -(-size // step) * step
