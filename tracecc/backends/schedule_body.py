"""From a fused group to straight-line scalar code over loops: movement is index arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from tracecc.backends.schedule_index import (
    Affine,
    Mapping,
    SplitLoop,
    Unfusable,
    linear,
    reshaped,
    row_major,
    split,
)
from tracecc_ir.graph import Graph, Node, Value
from tracecc_ir.types import DType, bool_, i64

REDUCES = ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min")


@dataclass(frozen=True)
class Instr:
    """One scalar operation.

    Attributes:
        op: an elementwise op's name, a reduction's, or load, const, index, inside, philox.
        args: numbers of earlier instructions.
        dtype: the element type of the result.
        index: for load the offset into the tensor, for index, inside and philox the value's own.
        tensor: for load, which parameter of the kernel.
        number: for const its value; for inside the size.
        guard: for load, an instruction that must hold, or -1.
    """

    op: str
    args: tuple[int, ...]
    dtype: DType
    index: Affine | None = None
    tensor: int = -1
    number: Any = None
    guard: int = -1


def operands(instr: Instr) -> tuple[int, ...]:
    """Every instruction that this one needs: arguments, guard and looked-up indices."""
    guard = (instr.guard,) if instr.guard >= 0 else ()
    looked = tuple(d[0] for d in instr.index.dynamic) if instr.index is not None else ()
    return (*instr.args, *guard, *looked)


@dataclass(frozen=True)
class Store:
    """Writes an instruction's result to a parameter of the kernel."""

    tensor: int
    value: int
    index: Affine


@dataclass
class Body:
    """A kernel's loops and code; every emitter works from this.

    Attributes:
        extents: of each loop, outermost first.
        reduced: whether each loop is reduced over.
        code: instructions in order.
        stores: what is written.
        types: element type of each parameter: inputs, then outputs.
        row: per instruction, True if it is computed once per row (it depends on no reduced loop).
        clip: (chunk loop, reduced loop, total) where a long reduction was cut into chunks: the
            reduced loop ends early in the last chunk.
    """

    extents: tuple[int, ...]
    reduced: tuple[bool, ...]
    code: list[Instr] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    types: list[DType] = field(default_factory=list)
    row: list[bool] = field(default_factory=list)
    clip: tuple[int, int, int] | None = None


def lower_body(graph: Graph) -> Body:
    """The body of a kernel.

    Raises:
        Unfusable: the group has no single loop nest.
    """
    extents, reduced = _loops(graph)
    for _ in range(16):
        try:
            return _collapse(_Lowering(graph, extents, reduced).run())
        except SplitLoop as request:
            n, k = extents[request.loop], request.loop
            extents = (*extents[:k], n // request.size, request.size, *extents[k + 1 :])
            reduced = (*reduced[:k], reduced[k], *reduced[k:])
    raise Unfusable("the reshapes of the group split its loops too often")


def _anchor(graph: Graph) -> Node | None:
    found = [
        n
        for n in graph.nodes
        if n.op.name in REDUCES and math.prod(n.output.shape) != math.prod(n.inputs[0].shape)
    ]
    return found[0] if found else None


def _loops(graph: Graph) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    anchor = _anchor(graph)
    if anchor is None:
        shape = max((v.shape for v in graph.outputs), key=math.prod)
        sizes = tuple(s for s in shape if s != 1)
        return sizes, (False,) * len(sizes)
    axes, shape = anchor.attrs["axes"], anchor.inputs[0].shape
    dims = [(s, i in axes) for i, s in enumerate(shape) if s != 1]
    if dims and not dims[-1][1]:  # columns: the loops stay in memory order
        return tuple(s for s, _ in dims), tuple(r for _, r in dims)
    dims = [d for d in dims if not d[1]] + [d for d in dims if d[1]]
    return tuple(s for s, _ in dims), tuple(r for _, r in dims)


class _Lowering:
    """Evaluates the graph's outputs symbolically, index by index."""

    def __init__(self, graph: Graph, extents: tuple[int, ...], reduced: tuple[bool, ...]):
        self.graph = graph
        self.body = Body(extents, reduced)
        self.n = len(extents)
        self.memo: dict[Any, int] = {}
        self.known: dict[tuple[Instr, str], int] = {}
        self.tensor = {v: i for i, v in enumerate(graph.inputs)}
        self.element = self._element_mapping()
        kept = [e for e, r in zip(extents, reduced, strict=True) if not r]
        strides = iter(row_major(kept))
        self.row_index = Affine(0, tuple(0 if r else next(strides) for r in reduced))
        self.rows = math.prod(kept)

    def _element_mapping(self) -> Affine:
        """The loop's element as a row-major index in the reduction's operand or map's output."""
        anchor = _anchor(self.graph)
        if anchor is None:
            return Affine(0, row_major(self.body.extents))
        axes, shape = anchor.attrs["axes"], anchor.inputs[0].shape
        strides = row_major(shape)
        # The loops refine the kept dimensions in order and the reduced ones in order.
        by_role = {
            role: [(shape[i], strides[i]) for i in range(len(shape)) if (i in axes) == role]
            for role in (False, True)
        }
        coefs = [0] * self.n
        for role, dims in by_role.items():
            loops = [k for k in range(self.n) if self.body.reduced[k] == role]
            for size, stride in reversed(dims):
                if size == 1:
                    continue
                inner = 1
                while inner < size:
                    k = loops.pop()
                    coefs[k] = stride * inner
                    inner *= self.body.extents[k]
        return Affine(0, tuple(coefs))

    def run(self) -> Body:
        body = self.body
        body.types = [v.dtype for v in self.graph.inputs] + [v.dtype for v in self.graph.outputs]
        base = len(self.graph.inputs)
        for i, v in enumerate(self.graph.outputs):
            if math.prod(v.shape) == math.prod(body.extents):
                index = self.element
            elif math.prod(v.shape) == self.rows:
                index = self.row_index
            else:
                raise Unfusable("results of different sizes")
            mapping = split(index, v.shape, body.extents)
            value = self.value(v, mapping, -1)
            body.stores.append(Store(base + i, value, index))
        self._levels()
        return body

    def _levels(self) -> None:
        body = self.body
        for instr in body.code:
            uses = instr.index is not None and any(
                c and r for c, r in zip(instr.index.coefs, body.reduced, strict=True)
            )
            free = not uses and all(body.row[a] for a in operands(instr))
            body.row.append(instr.op in REDUCES or free)

    def _emit(self, instr: Instr) -> int:
        key = (instr, repr(instr.number))  # -0.0 and 0.0 are equal but not the same constant
        if key not in self.known:
            self.known[key] = len(self.body.code)
            self.body.code.append(instr)
        return self.known[key]

    def value(self, v: Value, mapping: Mapping, guard: int) -> int:
        """The instruction (its number) that computes ``v`` at an index where ``guard`` holds."""
        key = (v, mapping, guard)
        if key not in self.memo:
            self.memo[key] = self._value(v, mapping, guard)
        return self.memo[key]

    def _value(self, v: Value, m: Mapping, guard: int) -> int:
        node = v.node
        if v in self.tensor:
            index = linear(m, row_major(v.shape), self.n)
            return self._emit(Instr("load", (), v.dtype, index, self.tensor[v], None, guard))
        assert node is not None
        name, attrs = node.op.name, node.attrs
        if node.op.kind == "elementwise":
            args = tuple(self.value(x, m, guard) for x in node.inputs)
            if name == "stop_gradient" or (name == "cast" and node.inputs[0].dtype is v.dtype):
                return args[0]
            if attrs and name != "cast":
                raise Unfusable(f"{name} has no scalar code")
            return self._emit(Instr(name, args, v.dtype))
        if name == "constant":
            return self._emit(Instr("const", (), v.dtype, number=attrs["value"]))
        if name == "iota":
            return self._index(m[attrs["axis"]], v.dtype)
        if name == "philox":
            seed, position = (self.value(x, (), guard) for x in node.inputs)
            index = linear(m, row_major(v.shape), self.n)
            if index.dynamic:
                raise Unfusable("random bits at looked-up positions")
            return self._emit(Instr("philox", (seed, position), v.dtype, index))
        if name in REDUCES:
            return self._reduce(node, m, guard)
        if name == "pad":
            return self._pad(node, m, guard)
        if name in ("gather", "gather_along"):
            return self._gather(node, m, guard)
        return self.value(node.inputs[0], self._moved(node, m), guard)

    def _index(self, index: Affine, dtype: DType) -> int:
        if index.dynamic:
            raise Unfusable("a counter at looked-up positions")
        found = self._emit(Instr("index", (), i64, index))
        return found if dtype is i64 else self._emit(Instr("cast", (found,), dtype))

    def _moved(self, node: Node, m: Mapping) -> Mapping:
        name, attrs, x = node.op.name, node.attrs, node.inputs[0]
        if name == "broadcast":
            zero = Affine(0, (0,) * self.n)
            return tuple(
                m[a] if s != 1 else zero for a, s in zip(attrs["axes"], x.shape, strict=True)
            )
        if name == "permute":
            inverse = sorted(range(len(m)), key=lambda i: attrs["axes"][i])
            return tuple(m[i] for i in inverse)
        if name == "slice":
            return tuple(
                i.scaled(step).shifted(start)
                for i, start, step in zip(m, attrs["starts"], attrs["strides"], strict=True)
            )
        if name == "flip":
            return tuple(
                i.scaled(-1).shifted(n - 1) if a in attrs["axes"] else i
                for a, (i, n) in enumerate(zip(m, x.shape, strict=True))
            )
        if name == "reshape":
            return reshaped(m, node.output.shape, x.shape, self.body.extents)
        raise Unfusable(f"{name} does not fuse")

    def _reduce(self, node: Node, m: Mapping, guard: int) -> int:
        x = node.inputs[0]
        if math.prod(x.shape) == math.prod(node.output.shape):
            axes, rest = node.attrs["axes"], iter(m)
            zero = Affine(0, (0,) * self.n)
            full = tuple(zero if a in axes else next(rest) for a in range(len(x.shape)))
            return self.value(x, full, guard)
        here = linear(m, row_major(node.output.shape), self.n)
        if here != self.row_index or guard >= 0:
            raise Unfusable("a reduction's result is read at other positions")
        mapping = split(self.element, x.shape, self.body.extents)
        value = self.value(x, mapping, -1)
        return self._emit(Instr(node.op.name, (value,), node.output.dtype))

    def _pad(self, node: Node, m: Mapping, guard: int) -> int:
        x, attrs = node.inputs[0], node.attrs
        inner = []
        conditions = [guard] if guard >= 0 else []
        for i, low, high, size in zip(m, attrs["low"], attrs["high"], x.shape, strict=True):
            i = i.shifted(-low)
            inner.append(i)
            if low or high:
                if i.dynamic:
                    raise Unfusable("padding at looked-up positions")
                conditions.append(self._emit(Instr("inside", (), bool_, i, number=size)))
        own = conditions[0] if conditions else -1
        for c in conditions[1:]:
            own = self._emit(Instr("bit_and", (own, c), bool_))
        value = self.value(x, tuple(inner), own)
        if own < 0:
            return value
        fill = self._emit(Instr("const", (), x.dtype, number=attrs["value"]))
        return self._emit(Instr("select", (own, value, fill), x.dtype))

    def _gather(self, node: Node, m: Mapping, guard: int) -> int:
        x = node.inputs[0]
        if node.op.name == "gather_along":
            axis = node.attrs["axis"]
            at = self._lookup(node.inputs[1], m, x.shape[axis], guard)
            return self.value(x, (*m[:axis], at, *m[axis + 1 :]), guard)
        axes, indices = node.attrs["axes"], node.inputs[1:]
        rank = len(indices[0].shape) if indices else 0
        looked = {
            a: self._lookup(i, m[:rank], x.shape[a], guard)
            for a, i in zip(axes, indices, strict=True)
        }
        rest = iter(m[rank:])
        full = tuple(looked[a] if a in looked else next(rest) for a in range(len(x.shape)))
        return self.value(x, full, guard)

    def _lookup(self, index: Value, m: Mapping, size: int, guard: int) -> Affine:
        """An index read at run time: from the end if negative, and never outside the dimension."""
        at = self.value(index, m, guard)
        safe = self._emit(Instr("wrap", (at,), i64, Affine(size, (0,) * self.n)))
        return Affine(0, (0,) * self.n, ((safe, 1, size),))


def _collapse(body: Body) -> Body:
    """Merges adjacent loops of one role that every index walks as one."""
    indices = [i.index for i in body.code if i.index is not None]
    indices += [s.index for s in body.stores]
    extents, reduced = list(body.extents), list(body.reduced)
    columns = [list(i.coefs) for i in indices]
    k = len(extents) - 2
    while k >= 0:
        inner = extents[k + 1]
        if reduced[k] == reduced[k + 1] and all(c[k] == c[k + 1] * inner for c in columns):
            extents[k : k + 2] = [extents[k] * inner]
            del reduced[k]
            for c in columns:
                del c[k]
        k -= 1
    new = iter([i._replace(coefs=tuple(c)) for i, c in zip(indices, columns, strict=True)])
    code = [
        Instr(i.op, i.args, i.dtype, next(new), i.tensor, i.number, i.guard)
        if i.index is not None
        else i
        for i in body.code
    ]
    stores = [Store(s.tensor, s.value, next(new)) for s in body.stores]
    return Body(tuple(extents), tuple(reduced), code, stores, body.types, body.row)
