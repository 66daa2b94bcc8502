"""Long reductions as two launches: fixed chunks into partial results, then their combination.

The chunks depend on sizes only, never on the number of threads, so results are bitwise the same.
"""

from __future__ import annotations

import math

from tracecc.backends.schedule_body import REDUCES, Body, Instr, Store, operands
from tracecc.backends.schedule_index import Affine, row_major
from tracecc_ir.types import DType, f32

CHUNK_ELEMENTS = 1 << 15
MOST_CHUNKS = 64
FEW_ROWS = 8


def chunked(body: Body, inputs: int) -> tuple[Body, Body, list[DType], int] | None:
    """Cuts a reduction that would otherwise be one long serial loop.

    Args:
        body: the whole kernel.
        inputs: how many of its parameters are inputs.

    Returns:
        The partial kernel (inputs -> partials), the combining one (inputs, partials -> outputs),
        the partials' element types and how many elements each has; None where one launch is right.
    """
    found = [n for n, i in enumerate(body.code) if i.op in REDUCES]
    loops = [k for k, r in enumerate(body.reduced) if r]
    total = math.prod(body.extents)
    rows = math.prod(e for e, r in zip(body.extents, body.reduced, strict=True) if not r)
    if not found or total <= 2 * CHUNK_ELEMENTS:
        return None
    if body.reduced[-1] and rows >= FEW_ROWS:
        return None
    if any(_by_element(s.index, loops) for s in body.stores) or _nested(body):
        return None
    loop = max(loops, key=lambda k: body.extents[k])
    chunks = min(MOST_CHUNKS, -(-total // CHUNK_ELEMENTS), body.extents[loop])
    per = -(-body.extents[loop] // chunks)
    chunks = -(-body.extents[loop] // per)
    types = [f32 if body.code[n].dtype.bits == 16 else body.code[n].dtype for n in found]
    types = [
        t if body.code[n].dtype.kind == "float" else body.code[n].dtype
        for t, n in zip(types, found, strict=True)
    ]
    partial = _partial(body, found, loop, chunks, per, rows, inputs, types)
    return partial, _combining(body, found, chunks, rows, inputs, types), types, chunks * rows


def _by_element(index: Affine, loops: list[int]) -> bool:
    return any(index.coefs[k] for k in loops)


def _nested(body: Body) -> bool:
    """Whether an element-wise instruction reads a reduction's result."""
    late = [False] * len(body.code)
    for n, instr in enumerate(body.code):
        late[n] = any(late[a] or body.code[a].op in REDUCES for a in operands(instr))
        if late[n] and (instr.op in REDUCES or not body.row[n]):
            return True
    return False


def _needed(body: Body, roots: list[int]) -> list[int]:
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        n = stack.pop()
        if n not in seen:
            seen.add(n)
            stack.extend(operands(body.code[n]))
    return sorted(seen)


def _renumbered(instr: Instr, new: dict[int, int], index: Affine | None, tensor: int) -> Instr:
    if index is not None:
        index = index._replace(dynamic=tuple((new[i], c, n) for i, c, n in index.dynamic))
    args = tuple(new[a] for a in instr.args)
    guard = new[instr.guard] if instr.guard >= 0 else -1
    return Instr(instr.op, args, instr.dtype, index, tensor, instr.number, guard)


def _partial(
    body: Body,
    found: list[int],
    loop: int,
    chunks: int,
    per: int,
    rows: int,
    inputs: int,
    types: list[DType],
) -> Body:
    def cut(index: Affine) -> Affine:
        c = index.coefs
        return index._replace(coefs=(*c[:loop], c[loop] * per, c[loop], *c[loop + 1 :]))

    extents = (*body.extents[:loop], chunks, per, *body.extents[loop + 1 :])
    reduced = (*body.reduced[:loop], False, True, *body.reduced[loop + 1 :])
    made = Body(extents, reduced, types=[*body.types[:inputs], *types])
    made.clip = (loop, loop + 1, body.extents[loop])
    new: dict[int, int] = {}
    for n in _needed(body, found):
        instr = body.code[n]
        new[n] = len(made.code)
        index = cut(instr.index) if instr.index is not None else None
        made.code.append(_renumbered(instr, new, index, instr.tensor))
        made.row.append(body.row[n])
    kept = [e if not r else 1 for e, r in zip(body.extents, body.reduced, strict=True)]
    strides = [0 if r else s for s, r in zip(row_major(kept), body.reduced, strict=True)]
    place = Affine(0, (*strides[:loop], rows, 0, *strides[loop + 1 :]))
    made.stores = [Store(inputs + i, new[n], place) for i, n in enumerate(found)]
    return made


def _combining(
    body: Body, found: list[int], chunks: int, rows: int, inputs: int, types: list[DType]
) -> Body:
    keep = [k for k, r in enumerate(body.reduced) if not r]
    kept = tuple(body.extents[k] for k in keep)

    def moved(index: Affine) -> Affine:
        return index._replace(coefs=(0, *(index.coefs[k] for k in keep)))

    made = Body(
        (chunks, *kept),
        (True, *(False,) * len(kept)),
        types=[*body.types[:inputs], *types, *body.types[inputs:]],
    )
    place = Affine(0, (rows, *row_major(kept)))
    new: dict[int, int] = {}
    inside = {a for n in found for a in _needed(body, [body.code[n].args[0]])}
    wanted = _needed(body, [s.value for s in body.stores])
    after = _after(body, wanted, found)
    for n in wanted:
        instr = body.code[n]
        if n in found:
            i = found.index(n)
            made.code.append(Instr("load", (), types[i], place, inputs + i))
            made.code.append(Instr(instr.op, (len(made.code) - 1,), instr.dtype))
            made.row += [False, True]
        elif n in after or n not in inside:
            index = moved(instr.index) if instr.index is not None else None
            made.code.append(_renumbered(instr, new, index, instr.tensor))
            made.row.append(True)
        else:
            continue
        new[n] = len(made.code) - 1
    shift = len(types)
    made.stores = [Store(s.tensor + shift, new[s.value], moved(s.index)) for s in body.stores]
    return made


def _after(body: Body, wanted: list[int], found: list[int]) -> set[int]:
    """What the stores need besides the reductions' own operands."""
    seen: set[int] = set()
    stack = [s.value for s in body.stores]
    while stack:
        n = stack.pop()
        if n not in seen:
            seen.add(n)
            if n not in found:
                stack.extend(operands(body.code[n]))
    return seen & set(wanted)
