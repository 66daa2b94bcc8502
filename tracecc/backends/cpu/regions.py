"""Control flow on the CPU: each region is an executable; Python walks between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tracecc_ir.graph import Graph, Node

if TYPE_CHECKING:
    from tracecc.backends.cpu.executable import Executable

Arrays = Sequence[np.ndarray]
Compile = Callable[[Graph], "Executable"]


class Region:
    """The compiled graphs of one control flow op.

    Attributes:
        parts: its executables.
    """

    parts: list[Executable]

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """Computes the op's results into ``outputs``."""
        raise TypeError(f"{type(self).__name__} does not run")

    @property
    def kernels_compiled(self) -> int:
        return sum(part.kernels_compiled for part in self.parts)


class Choice(Region):
    """cond: one of two graphs."""

    def __init__(self, node: Node, compile_graph: Compile):
        self.parts = [compile_graph(node.attrs[side]) for side in ("then", "otherwise")]

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        taken = self.parts[0] if bool(inputs[0]) else self.parts[1]
        taken(inputs[1:], (), dict(enumerate(outputs)))


class Loop(Region):
    """while: a condition and a body over carried values, in two sets of buffers by turns."""

    def __init__(self, node: Node, compile_graph: Compile):
        self.parts = [compile_graph(node.attrs[side]) for side in ("condition", "body")]
        self._next = [np.empty(v.shape, v.dtype.numpy) for v in node.outputs]

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        condition, body = self.parts
        now: Arrays = inputs
        targets, spare = list(outputs), self._next
        while bool(condition(now)[0]):
            now = body(now, (), dict(enumerate(targets)))
            targets, spare = spare, targets
        for target, value in zip(outputs, now, strict=True):
            if target is not value:
                np.copyto(target, value)


class Scan(Region):
    """scan: a body over slices; ys are written in place, carries to two buffers by turns."""

    def __init__(self, node: Node, compile_graph: Compile):
        attrs = node.attrs
        self.consts, self.carries = attrs["consts"], attrs["carries"]
        self.length, self.reverse = attrs["length"], attrs["reverse"]
        self.parts = [compile_graph(attrs["body"])]
        carried = node.outputs[: self.carries]
        self._turns = [[np.empty(v.shape, v.dtype.numpy) for v in carried] for _ in range(2)]

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        (body,) = self.parts
        fixed = list(inputs[: self.consts])
        carry: Arrays = inputs[self.consts : self.consts + self.carries]
        xs, ys = inputs[self.consts + self.carries :], outputs[self.carries :]
        steps = range(self.length - 1, -1, -1) if self.reverse else range(self.length)
        for turn, i in enumerate(steps):
            made = [*self._turns[turn % 2], *(y[i] for y in ys)]
            reuse = {k: a for k, a in enumerate(made) if a.ndim or k < self.carries}
            found = body([*fixed, *carry, *(np.asarray(x[i]) for x in xs)], (), reuse)
            for k, y in enumerate(ys, self.carries):
                if k not in reuse:  # a row of a vector is a number, not memory
                    y[i] = found[k]
            carry = found[: self.carries]
        for target, value in zip(outputs, carry, strict=False):
            np.copyto(target, value)


REGIONS: dict[str, Callable[[Node, Compile], Region]] = {
    "cond": Choice,
    "while": Loop,
    "scan": Scan,
}
