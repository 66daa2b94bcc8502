"""Counter-based random bits: the same draws on every device, for every number of threads.

Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import NO_GRADIENT, Op, Sample
from tracecc_ir.types import DType, Shape, TensorType, i32, i64

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the key after each round
LOW = np.uint64(0xFFFFFFFF)
HIGH_BITS = np.uint64(32)
BLOCK = 8192  # elements whose counters stay in the nearest cache


def philox4x32(counter: Sequence[np.ndarray], key: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Four words of 32 random bits from four counter words (all u64 arrays) and two key words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = (c * np.uint64(m) for c, m in zip((c0, c2), MULTIPLIERS, strict=True))
        c0, c1, c2, c3 = (
            (p1 >> HIGH_BITS) ^ c1 ^ np.uint64(k0),
            p1 & LOW,
            (p0 >> HIGH_BITS) ^ c3 ^ np.uint64(k1),
            p0 & LOW,
        )
        k0, k1 = ((k + w) & 0xFFFFFFFF for k, w in zip((k0, k1), WEYL, strict=True))
    return c0, c1, c2, c3


def _philox_type(seed: TensorType, position: TensorType, *, shape: Shape) -> TensorType:
    if (seed, position) != (TensorType(i64, ()),) * 2:
        raise TypeRuleError(f"philox needs a seed and a position i64[], given {seed}, {position}")
    return TensorType(i32, tuple(shape))


def _words(number: np.ndarray) -> tuple[int, int]:
    bits = int(number) & (2**64 - 1)
    return bits & 0xFFFFFFFF, bits >> 32


def _philox(seed: np.ndarray, position: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    low, high = (np.array([word], np.uint64) for word in _words(position))
    bits = np.empty(math.prod(shape), np.uint32)
    for start in range(0, bits.size, BLOCK):
        element = np.arange(start, min(start + BLOCK, bits.size), dtype=np.uint64)
        counter = (element & LOW, element >> HIGH_BITS, low, high)
        bits[start : start + BLOCK] = philox4x32(counter, _words(seed))[0]
    return bits.view(np.int32).reshape(shape)


def _philox_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape in ((5,), (), (2, 3), (0, 3)):
        seed, position = rng.integers(-(2**63), 2**63 - 1, 2)
        yield Sample((np.asarray(seed), np.asarray(position)), {"shape": shape})


philox: Op = Op(
    "philox",
    "random",
    _philox_type,
    _philox,
    NO_GRADIENT,
    dtypes=(i64,),
    samples=_philox_samples,
    doc="32 random bits: word 0 of Philox4x32-10, counter = (element, position), key = seed",
)
