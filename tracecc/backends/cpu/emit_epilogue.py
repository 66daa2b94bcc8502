"""Source of epilogues: what is done to each finished tile of a product, see `compile_epilogue`."""

from __future__ import annotations

from tracecc.backends.cpu.emit import Emitted, KernelText
from tracecc.backends.cpu.emit_scalar import loaded, stored
from tracecc.backends.cpu.target import PARAMETERS
from tracecc.backends.schedule_body import Body, Instr
from tracecc.backends.schedule_epilogue import TILE


def emit_epilogue(body: Body, name: str) -> Emitted:
    """The source of an epilogue for a body made by `schedule_epilogue.tiled`."""
    text = _Text(body)
    last = len(body.extents) - 1
    rows = list(range(last))
    text.nest = [last]
    text.ranges[last] = ("col0", "col0 + cols")
    known: set[int] = set()
    code = text.needed([s.value for s in body.stores], known)
    for n in code:
        if text.depth(n) < 0:
            text.prologue.append(text.code(n))
            known.add(n)
    stores = [text.store(i) for i in range(len(body.stores))]
    text.write_nest(code, stores, known)
    inside = ["at = (row - row0) * ldt - col0", *text.decoded(rows, "row"), *text.bases]
    lines = [f"    {t}" for t in (*text.head, "t = " + text.tile, *text.prologue)]
    lines.append("    for row in range(row0, row0 + rows):")
    lines += ["        " + t for t in inside]
    return text.named(name, PARAMETERS["epilogue"], "\n".join([*lines, *text.w.lines]) + "\n", 0)


class _Text(KernelText):
    """Kernel text whose first operand lies in the tile."""

    @property
    def tile(self) -> str:
        return f"{'f64' if self.body.types[TILE].name == 'f64' else 'f32'}_at(tile)"

    def _load(self, instr: Instr) -> str:
        if instr.tensor != TILE:
            return super()._load(instr)
        element = f"t[at + i{self.nest[-1]}]"
        # A tile of 16-bit results holds f32: it is rounded here, as it would be in memory.
        half = instr.dtype.name in ("f16", "bf16")
        return loaded(stored(element, instr.dtype), instr.dtype) if half else element
