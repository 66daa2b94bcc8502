"""What the emitter hands on: one kernel's text and signature, and how to launch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tracecc_ir.types import DType

# How an element is kept in memory. Booleans are bytes, half precision travels as bits.
STORAGE = {
    "bool": "uint8",
    "u8": "uint8",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "f16": "uint16",
    "bf16": "uint16",
    "f32": "float32",
    "f64": "float64",
}


def storage(dtype: DType) -> str:
    """The type of a pointer's elements in kernel text."""
    return STORAGE[dtype.name]


class Parameter(NamedTuple):
    """A kernel parameter: a pointer to elements of ``type``, or a value of it."""

    name: str
    type: str
    pointer: bool

    def __str__(self) -> str:
        return f"{self.type}{'*' if self.pointer else ''} {self.name}"


@dataclass(frozen=True)
class CudaKernel:
    """Kernel text that depends on the group's structure, not on its sizes.

    Attributes:
        name: the function in ``source``.
        source: flat Python text in the subset that CUDA frontends compile.
        parameters: in call order.
        block: threads of a block, one-dimensional; compiled as the launch bound.
        allows: what the program itself asks for, among "f64", "64-bit division" and "local memory";
            anything else of the kind is a mistake of the emitter.
    """

    name: str
    source: str
    parameters: tuple[Parameter, ...]
    block: int
    allows: frozenset[str] = frozenset()


def flat(array: np.ndarray) -> np.ndarray:
    """An array as a kernel sees it: one dimension of storage elements, sharing memory.

    >>> flat(np.ones((2, 2), np.bool_))
    array([1, 1, 1, 1], dtype=uint8)
    """
    from tracecc_ir.types import from_numpy_dtype

    line = array.reshape(-1)
    if not np.shares_memory(line, array) and array.size:
        raise ValueError(
            f"a kernel argument of shape {array.shape} is not contiguous; copy it first"
        )
    return line.view(storage(from_numpy_dtype(array.dtype)))
