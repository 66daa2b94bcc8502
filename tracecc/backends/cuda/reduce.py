"""Reductions as kernel text: how values combine, and how a warp or a block agrees on one."""

from __future__ import annotations

import math
from typing import NamedTuple

from tracecc.backends.cuda.vocabulary import COMPUTE, literal
from tracecc_ir.types import DType, bool_

WARP = 32
_SHUFFLED = ("int32", "int64", "float32", "float64")


class Reduction(NamedTuple):
    """One of reduce_sum, reduce_prod, reduce_max, reduce_min over elements of ``dtype``."""

    op: str
    dtype: DType

    @property
    def neutral(self) -> str:
        """What a reduction starts from.

        >>> from tracecc_ir.types import f32, i32
        >>> Reduction("reduce_max", f32).neutral, Reduction("reduce_max", i32).neutral
        ('float32(-inf)', 'int32(-2147483648)')
        """
        d = self.dtype
        if self.op in ("reduce_sum", "reduce_prod"):
            return literal(int(self.op == "reduce_prod"), d)
        largest = self.op == "reduce_min"
        if d is bool_:
            return literal(largest, d)
        if d.is_floating_point:
            kind = COMPUTE[d.name]
            return f"{kind}({'' if largest else '-'}{math.inf})"
        if not d.is_signed:
            return literal(2**d.bits - 1 if largest else 0, d)
        return literal(2 ** (d.bits - 1) - 1 if largest else -(2 ** (d.bits - 1)), d)

    def combine(self, a: str, b: str) -> str:
        """The expression of two partial results; a NaN on either side stays.

        >>> from tracecc_ir.types import f32
        >>> Reduction("reduce_sum", f32).combine("a", "b")
        'float32(a + b)'
        """
        if self.dtype is bool_:
            return f"{a} {'or' if self.op == 'reduce_max' else 'and'} {b}"
        if self.op in ("reduce_sum", "reduce_prod"):
            return f"{COMPUTE[self.dtype.name]}({a} {'+' if self.op == 'reduce_sum' else '*'} {b})"
        sign = ">" if self.op == "reduce_max" else "<"
        nan = f" or {a} != {a}" if self.dtype.is_floating_point else ""
        return f"{a} if {a} {sign} {b}{nan} else {b}"

    @property
    def carrier(self) -> str:
        """The type that travels between threads: shuffles move 32 and 64 bits."""
        kind = "" if self.dtype is bool_ else COMPUTE[self.dtype.name]
        return kind if kind in _SHUFFLED else "int32"

    def packed(self, value: str) -> str:
        """A value as its carrier."""
        if self.dtype is bool_:
            return f"int32(1) if {value} else int32(0)"
        return value if self.carrier == COMPUTE[self.dtype.name] else f"{self.carrier}({value})"

    def unpacked(self, value: str) -> str:
        """The carrier as a value."""
        if self.dtype is bool_:
            return f"{value} != int32(0)"
        kind = COMPUTE[self.dtype.name]
        return value if self.carrier == kind else f"{kind}({value})"

    def across_warp(self, name: str) -> list[str]:
        """Statements after which every lane of a full warp holds the result in ``name``.

        All lanes combine the same values in the same tree, so they agree to the last bit.
        """
        other = f"{name}_other"
        given = self.packed(name)
        exchange = [f"{name}_packed = {given}"] if given != name else []
        sent = f"{name}_packed" if exchange else name
        return [
            f"for distance in ({', '.join(str(WARP >> k) for k in range(1, 6))}):",
            *(f"    {e}" for e in exchange),
            f"    {other} = cuda.shfl_xor_sync(0xffffffff, {sent}, distance)",
            *self._merge(name, other),
        ]

    def across_block(self, name: str, shared: str, warps: int) -> list[str]:
        """Statements after which every thread of the block holds the result in ``name``.

        ``shared`` is an array with one element of the carrier per warp. The first barrier keeps
        the array until all threads have read what an earlier reduction left there.
        """
        return [
            *self.across_warp(name),
            "cuda.syncthreads()",
            "if lane == uint32(0):",
            f"    {shared}[warp] = {self.packed(name)}",
            "cuda.syncthreads()",
            f"{name} = {self.unpacked(f'{shared}[uint32(0)]')}",
            f"for w in range(1, {warps}):",
            f"    {name}_other = {shared}[uint32(w)]",
            *self._merge(name, f"{name}_other"),
        ]

    def _merge(self, name: str, other: str) -> list[str]:
        """Two indented lines: unpack what came, combine."""
        value = self.unpacked(other)
        unpack = [f"    {name}_value = {value}"] if value != other else []
        return [*unpack, f"    {name} = {self.combine(name, f'{name}_value' if unpack else other)}"]
