"""Generators: the seed and the position of a stream of random numbers, both tensors.

Because they are tensors a trace captures them as state, so that a compiled function goes on with
the stream exactly where eager code would.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tracecc.devices import check_device
from tracecc.dispatch import apply
from tracecc.state import no_grad, thread
from tracecc.tensor import Tensor, wrap
from tracecc.trace import name_state, suspended
from tracecc_ir import ops
from tracecc_ir.types import i64


class Generator:
    """A stream of random numbers: Philox keyed by a seed, counting positions.

    >>> import tracecc as tc
    >>> g = tc.Generator().manual_seed(3)
    >>> a = tc.rand(2, generator=g)
    >>> g = g.manual_seed(3)
    >>> tc.equal(a, tc.rand(2, generator=g))
    True
    """

    def __init__(self, device: Any = "cpu"):
        self.device = check_device(device)
        self._seed = wrap(np.array(0, np.int64))
        self._position = wrap(np.array(0, np.int64))

    def manual_seed(self, seed: int) -> Generator:
        """Restarts the stream with this seed (taken modulo 2**64)."""
        if not isinstance(seed, (int, np.integer)):
            raise RuntimeError(f"manual_seed expected an int, given {type(seed).__name__}")
        seed = int(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"Overflow when unpacking long long: the seed {seed} needs 65 bits")
        self._set(seed, 0)
        return self

    def _set(self, seed: int, position: int) -> None:
        for t, value in ((self._seed, seed), (self._position, position)):
            value = (value + 2**63) % 2**64 - 2**63
            t._write(apply(ops.constant, (), {"value": value, "shape": (), "dtype": i64})[0])

    def seed(self) -> int:
        """Restarts the stream with a seed from the operating system, and returns it."""
        seed = int.from_bytes(os.urandom(7), "little")
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        """The seed of the stream."""
        with suspended():
            return int(self._seed._numpy()) % 2**64

    def get_state(self) -> Tensor:
        """The seed and the position as 16 bytes."""
        pair = np.array([self._seed._numpy(), self._position._numpy()], np.int64)
        return wrap(pair.view(np.uint8))

    def set_state(self, new_state: Tensor) -> Generator:
        """Goes on from a state of `get_state`."""
        if not isinstance(new_state, Tensor):
            raise TypeError(f"RNG state must be a tensor, given {type(new_state).__name__}")
        data = new_state.detach()._numpy()
        if data.dtype != np.uint8 or data.size != 16:
            raise (RuntimeError if data.dtype == np.uint8 else TypeError)(
                f"RNG state must be a uint8 tensor of 16 bytes, given {new_state._type!r}"
            )
        seed, position = np.ascontiguousarray(data).view(np.int64)
        self._set(int(seed), int(position))
        return self

    def mark(self) -> tuple[Tensor, Tensor]:
        """The place in the stream as tensors, which a trace has too; for `rewind`."""
        name_state(self._seed, "rng.seed")
        name_state(self._position, "rng.position")
        pair, trace = (self._seed, self._position), thread.trace
        a, b = (t.clone() if trace is None else trace.snapshot(t) for t in pair)
        return a, b

    def rewind(self, mark: tuple[Tensor, Tensor]) -> None:
        """Goes on from ``mark``."""
        for t, value in zip((self._seed, self._position), mark, strict=True):
            t._write(value)

    def clone_state(self) -> Generator:
        """Another generator at the same place."""
        return Generator(self.device).set_state(self.get_state())

    def __getstate__(self) -> bytes:
        return self.get_state()._numpy().tobytes()

    def __setstate__(self, state: bytes) -> None:
        self.__init__()  # type: ignore[misc]
        self.set_state(wrap(np.frombuffer(state, np.uint8)))


default_generator = Generator()


def draw(generator: Generator | None) -> tuple[Tensor, Tensor]:
    """The seed and the present position of a generator, which moves on by one."""
    g = default_generator if generator is None else generator
    if not isinstance(g, Generator):
        raise TypeError(f"argument 'generator' must be Generator, not {type(g).__name__}")
    name_state(g._seed, "rng.seed")
    name_state(g._position, "rng.position")
    with no_grad():
        one = apply(ops.constant, (), {"value": 1, "shape": (), "dtype": i64})[0]
        position = (
            thread.trace.snapshot(g._position)
            if thread.trace is not None
            else wrap(g._position._numpy().copy())
        )
        g._position._write(apply(ops.add, (position, one))[0])
    return g._seed, position


def manual_seed(seed: int) -> Generator:
    """Restarts the default generator with this seed."""
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Restarts the default generator with a seed from the operating system."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default generator."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Restores the default generator."""
    default_generator.set_state(new_state)
