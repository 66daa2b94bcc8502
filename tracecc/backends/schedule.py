"""The target-neutral schedule: a fused graph as an ordered list of launches over planned buffers.

Emitters for every target work from it; nothing here knows how a kernel is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from tracecc.backends.schedule_body import Body, Unfusable, lower_body
from tracecc.backends.schedule_chunk import chunked
from tracecc.backends.schedule_epilogue import tiled
from tracecc.backends.schedule_memory import place
from tracecc.backends.schedule_program import Buffer, Launch, LibraryPlan, Operand, Planner, Program
from tracecc.backends.schedule_shares import Share, rows_apart, units_in_rows
from tracecc_ir.graph import Graph, Node, Value
from tracecc_ir.passes.anchor import anchor_of, epilogue_of
from tracecc_ir.passes.fuse_space import fusible
from tracecc_ir.types import DType, TensorType, u8

# A loop of at most so many launches is spelled out.
MOST_SPELLED_OUT = 4096


def schedule(
    graph: Graph,
    planner: Planner = lambda node: None,
    *,
    lone: bool = False,
    body: Callable[[Graph], Graph] | None = None,
    share: Callable[[int], Share | None] = lambda rows: None,
) -> Program:
    """Plans a fused graph of concrete sizes.

    Args:
        graph: after the fusion pass.
        planner: the backend's kernels of its own.
        lone: whether one thread does all of a work unit. It then reads a row's state before it
            writes it, so that reductions too may update state in place.
        body: makes the body of a loop ready to be scheduled. Loops of a known number of turns are
            then spelled out, launch by launch; without it they stay one step.
        share: into what shares to cut so many rows of a loop that do not meet; None for no shares.
    """
    return _Scheduler(graph, planner, lone, body, share).run()


class _Scheduler:
    def __init__(
        self,
        graph: Graph,
        planner: Planner,
        lone: bool,
        body: Callable[[Graph], Graph] | None,
        cut: Callable[[int], Share | None],
        share: Share | None = None,
    ):
        self.graph, self.planner, self.lone, self.body = graph, planner, lone, body
        self.cut, self.share = cut, share  # of loops in the graph; of the loop whose body it is
        self.launches: list[Launch] = []
        self.home: dict[Value, Buffer] = {}
        self.buffers: list[Buffer] = []
        self.wanted: dict[Value, Buffer] = {}
        self._bodies: dict[int, Body] = {}

    def run(self) -> Program:
        graph = self.graph
        for kind, values in (
            ("input", graph.inputs),
            ("state", [s.value for s in graph.state]),
        ):
            for i, v in enumerate(values):
                self.home[v] = self._buffer(kind, i, v.type, v.name)
        outputs = [self._buffer("output", i, v.type, v.name) for i, v in enumerate(graph.outputs)]
        self._choose_homes(outputs)
        for node in graph.nodes:
            self._node(node)
        self._copies(outputs)
        arena = place(self.buffers, self.launches, together=self.share is not None)
        return Program(
            graph.name, self.launches, self.buffers, arena, [v.type for v in graph.outputs]
        )

    def _buffer(self, kind: str, place: int, type: TensorType, name: str) -> Buffer:
        made = Buffer(kind, place, int(type.nbytes), name)  # type: ignore[arg-type]
        self.buffers.append(made)
        return made

    # Where results go.

    def _choose_homes(self, outputs: list[Buffer]) -> None:
        """Results are computed where they are wanted: outputs, and state where that is safe."""
        for v, b in zip(self.graph.outputs, outputs, strict=True):
            if v.node is not None:
                self.wanted.setdefault(v, b)
        position = {n: i for i, n in enumerate(self.graph.nodes)}
        last: dict[Value, int] = {}
        for n, i in position.items():
            for v in n.inputs:
                last[self._source(v)] = i
        kept = {self._source(v) for v in self.graph.results()}
        targets: set[Value] = set()
        for u in self.graph.updates:
            v, node = u.value, u.value.node
            if node is None or v in self.wanted or u.state in kept or v in targets:
                continue
            if node.op.name != "kernel" or last.get(u.state, -1) > position[node]:
                continue
            if last.get(u.state) == position[node] and not self._same_index(node, u.state, v):
                continue
            targets.add(v)
            self.wanted[v] = self.home[u.state]

    def _body(self, graph: Graph) -> Body:
        """The loops and scalar code of a group, found once."""
        if id(graph) not in self._bodies:
            self._bodies[id(graph)] = lower_body(graph)
        return self._bodies[id(graph)]

    def _same_index(self, node: Node, state: Value, result: Value) -> bool:
        """Whether the kernel reads ``state`` only at the index where it writes ``result``."""
        graph = node.attrs["body"]
        same = [v for v, outer in zip(graph.inputs, node.inputs, strict=True) if outer is state]
        anchor = anchor_of(graph)
        if anchor is not None:
            if any(v in anchor.inputs for v in same):
                return False
            graph = epilogue_of(graph, anchor)
        inputs = [i for i, v in enumerate(graph.inputs) if v in same]
        try:
            body = self._body(graph) if anchor is None else lower_body(graph)
        except Unfusable:
            return False
        if not inputs or (any(body.reduced) and not self.lone):
            return False
        place = len(graph.inputs) + node.outputs.index(result)
        (target,) = [s.index for s in body.stores if s.tensor == place]
        if any(c and r for c, r in zip(target.coefs, body.reduced, strict=True)):
            return False  # a later pass over the row may read it again
        loads = [i.index for i in body.code if i.op == "load" and i.tensor in inputs]
        return all(i == target for i in loads)

    def _source(self, v: Value) -> Value:
        """The value whose memory a reshape shares."""
        while v.node is not None and v.node.op.name == "reshape":
            v = v.node.inputs[0]
        return v

    def _target(self, v: Value) -> Operand:
        if v not in self.home:
            found = self.wanted.get(v)
            self.home[v] = found or self._buffer("arena", -1, v.type, v.name)
        return Operand(self.home[v], v.type)

    def _operand(self, v: Value) -> Operand:
        return Operand(self.home[v], v.type)

    # Nodes.

    def _node(self, node: Node) -> None:
        if all(v.type.size == 0 for v in node.outputs):
            for v in node.outputs:
                self._target(v)
        elif node.op.name == "reshape" and node.output not in self.wanted:
            self.home[node.output] = self.home[node.inputs[0]]
        elif node.op.name == "kernel":
            self._kernel(node)
        elif fusible(node):
            self._single(node, node.why)
        elif node.op.name != "scan" or not self._spell_out(node):
            self._step(node)

    def _spell_out(self, node: Node) -> bool:
        """A scan as its body's launches for each turn, over slices; False if that is not wanted."""
        attrs = node.attrs
        consts, carries, length = attrs["consts"], attrs["carries"], attrs["length"]
        if self.body is None or not 0 < length <= MOST_SPELLED_OUT:
            return False
        inner, share = self._turn(attrs["body"], consts)
        if length * len(inner.launches) > MOST_SPELLED_OUT:
            return False
        if any(launch.kind == "host" for launch in inner.launches):
            return False
        given = [self._operand(v) for v in node.inputs]
        made = [self._target(v) for v in node.outputs]
        arena = self._buffer("arena", -1, TensorType(u8, (inner.arena_bytes,)), "turn")
        plans = [self._packed_once(launch, consts) for launch in inner.launches]
        carried = given[consts : consts + carries]
        spare = [
            [Operand(self._buffer("arena", -1, o.type, "carry"), o.type) for o in carried]
            for _ in range(2)
        ]
        order = range(length)[:: -1 if attrs["reverse"] else 1]
        kept = _kept_carries(attrs["body"], consts, carries)
        for turn, at in enumerate(order):
            after = made[:carries]
            if turn < length - 1:
                # A carry that a y keeps goes where the next turn would copy it to.
                history = {j: _row(made[y], order[turn + 1]) for j, y in kept.items()}
                after = [history.get(j, o) for j, o in enumerate(spare[turn % 2])]
            places = {
                "input": [
                    *given[:consts],
                    *carried,
                    *(_row(o, at) for o in given[consts + carries :]),
                ],
                "output": [*after, *(_row(o, at) for o in made[carries:])],
            }

            def moved(o: Operand, places: dict[str, list[Operand]] = places) -> Operand:
                if o.buffer.kind == "arena":
                    return Operand(arena, o.type, o.buffer.place + o.offset)
                outer = places[o.buffer.kind][o.buffer.place]
                return Operand(outer.buffer, o.type, outer.offset + o.offset)

            for launch, (first, later, more) in zip(inner.launches, plans, strict=True):
                placed = replace(
                    launch,
                    inputs=[moved(o) for o in launch.inputs],
                    outputs=[moved(o) for o in launch.outputs],
                    temporaries=[*map(moved, launch.temporaries), *more],
                    plan=later if turn else first,
                    turn=turn,
                    loop=(node, turn, *launch.loop) if launch.loop else (node,) if share else (),
                    share=share or launch.share,
                )
                if not _copies_onto_itself(placed):
                    self.launches.append(placed)
            carried = after
        return True

    def _turn(self, graph: Graph, consts: int) -> tuple[Program, Share | None]:
        """A loop's body, and the shares in which threads can take it through all turns."""
        assert self.body is not None
        ready = self.body(graph)
        share = self.cut(rows_apart(ready, consts))
        if share is not None:
            program = _Scheduler(ready, self.planner, self.lone, self.body, self.cut, share).run()
            if all(_is_shared(launch, share) for launch in program.launches):
                return program, share
        return _Scheduler(ready, self.planner, self.lone, self.body, self.cut).run(), None

    def _planned(self, node: Node) -> LibraryPlan | None:
        plan = self.planner(node)
        if plan is None or plan.shared is None or self.share is None:
            return plan
        return plan.shared(self.share.each)

    def _packed_once(
        self, launch: Launch, consts: int
    ) -> tuple[LibraryPlan | None, LibraryPlan | None, list[Operand]]:
        """The plans of a launch in the first turn and later, and memory that they share."""
        plan = launch.plan
        if plan is None or plan.packed is None:
            return plan, plan, []
        source = launch.inputs[1].buffer
        if source.kind != "input" or source.place >= consts:
            return plan, plan, []
        first, later = plan.packed()
        return first, later, [self._scratch(first.temporaries[-1])]

    def _step(self, node: Node) -> None:
        """One op by the backend's own kernel, or by the interpreter if it has none."""
        plan = self._planned(node)
        kind = "host" if plan is None else "library"
        self.launches.append(
            Launch(
                kind,
                node.op.name,
                [self._operand(v) for v in node.inputs],
                [self._target(v) for v in node.outputs],
                None,
                node,
                [node.op.name],
                [str(node.loc)] if node.loc else [],
                node.why,
                plan,
                [self._scratch(size) for size in plan.temporaries] if plan else [],
            )
        )

    def _single(self, node: Node, why: str) -> None:
        """One op as a kernel of its own, or a host step if that has no loop form."""
        body = _alone(node)
        try:
            self._emit(
                lower_body(body), node.op.name, list(node.inputs), list(node.outputs), [node], why
            )
        except Unfusable:
            self._step(node)

    def _kernel(self, node: Node) -> None:
        graph = node.attrs["body"]
        anchor = anchor_of(graph)
        if anchor is not None:
            return self._product(node, graph, anchor)
        try:
            body = self._body(graph)
        except Unfusable as reason:
            return self._open(node, graph, f"ran op by op: {reason}")
        name = node.attrs["name"]
        self._emit(body, name, list(node.inputs), list(node.outputs), graph.nodes, node.why)
        return None

    def _product(self, node: Node, graph: Graph, anchor: Node) -> None:
        """A product and what finishes its tiles: one launch if the backend can do that."""
        outer = dict(zip(graph.inputs, node.inputs, strict=True))
        plan, rest = self._planned(anchor), epilogue_of(graph, anchor)
        try:
            if plan is None or not plan.epilogue:
                raise Unfusable(f"this {anchor.op.name} takes no epilogue")
            body = tiled(lower_body(rest), plan.cols)
        except Unfusable as reason:
            return self._apart(node, graph, anchor, f"two launches: {reason}")
        reads = [self._operand(outer[v]) for v in (*anchor.inputs, *rest.inputs[1:])]
        self.launches.append(
            Launch(
                "library",
                node.attrs["name"],
                reads,
                [self._target(v) for v in node.outputs],
                body,
                anchor,
                [n.op.name for n in graph.nodes],
                _lines(graph.nodes),
                node.why,
                plan,
                [self._scratch(size) for size in plan.temporaries],
            )
        )
        return None

    def _apart(self, node: Node, graph: Graph, anchor: Node, why: str) -> None:
        """A product, then its epilogue as a kernel of its own."""
        for inner, outer in zip(graph.inputs, node.inputs, strict=True):
            self.home[inner] = self.home[outer]
        product, rest = anchor.output, epilogue_of(graph, anchor)
        rest.outputs, places = [], []
        for inner, outer in zip(graph.outputs, node.outputs, strict=True):
            if inner is not product:
                rest.outputs.append(inner)
                places.append(outer)
                continue
            found = self.wanted.pop(outer, None)
            if found is not None and found.kind == "output":
                self.wanted[outer] = self.wanted[inner] = found
            self.home[outer] = self._target(inner).buffer
        self._step(anchor)
        if not places:
            return
        try:
            body = lower_body(rest)
        except Unfusable as reason:
            return self._open_nodes(rest, places, f"ran op by op: {reason}")
        self._emit(body, rest.name, rest.inputs, places, rest.nodes, why)

    def _open(self, node: Node, graph: Graph, why: str) -> None:
        """A group that has no single loop runs op by op."""
        for inner, outer in zip(graph.inputs, node.inputs, strict=True):
            self.home[inner] = self.home[outer]
        self._open_nodes(graph, node.outputs, why)

    def _open_nodes(self, graph: Graph, outputs: Sequence[Value], why: str) -> None:
        """The same for a graph whose inputs have homes."""
        for inner, outer in zip(graph.outputs, outputs, strict=True):
            found = self.wanted.get(outer)
            if found is not None and found.kind == "output":
                self.wanted[inner] = found
        for n in graph.nodes:
            if n.op.name == "reshape" and n.output not in self.wanted:
                self.home[n.output] = self.home[n.inputs[0]]
            else:
                self._single(n, why)
        for inner, outer in zip(graph.outputs, outputs, strict=True):
            self.home[outer] = self.home[inner]
            if self.wanted.get(outer) is not self.home[outer]:
                self.wanted.pop(outer, None)

    def _emit(
        self,
        body: Body,
        name: str,
        inputs: list[Value],
        outputs: list[Value],
        nodes: list[Node],
        why: str,
    ) -> None:
        ops = [n.op.name for n in nodes]
        lines = _lines(nodes)
        reads = [self._operand(v) for v in inputs]
        cut = chunked(body, len(inputs))
        if cut is not None:
            partial, body, types, size = cut
            parts = [self._part(t, size) for t in types]
            kind = _kind(partial)
            self.launches.append(
                Launch(kind, f"{name}_part", reads, parts, partial, None, ops, lines, why)
            )
            reads = [*reads, *parts]
        writes = [self._target(v) for v in outputs]
        self.launches.append(Launch(_kind(body), name, reads, writes, body, None, ops, lines, why))

    def _part(self, dtype: DType, size: int) -> Operand:
        type = TensorType(dtype, (size,))
        return Operand(self._buffer("arena", -1, type, "part"), type)

    def _scratch(self, size: int) -> Operand:
        type = TensorType(u8, (size,))
        return Operand(self._buffer("arena", -1, type, "scratch"), type)

    # Copies at the end.

    def _copies(self, outputs: list[Buffer]) -> None:
        """Results not computed in place: first those that read memory others overwrite."""
        pairs = [
            (self._operand(v), Operand(b, v.type))
            for v, b in zip(self.graph.outputs, outputs, strict=True)
        ]
        late = [
            (self._operand(u.value), Operand(self.home[u.state], u.state.type))
            for u in self.graph.updates
        ]
        targets = {id(t.buffer) for _, t in late}
        for i, (source, target) in enumerate(late):
            if id(source.buffer) in targets and source.buffer is not target.buffer:
                saved = Operand(self._buffer("arena", -1, source.type, "old"), source.type)
                pairs.append((source, saved))
                late[i] = (saved, target)
        for source, target in (*pairs, *late):
            if source.buffer is not target.buffer and target.type.size != 0:
                self._copy(source, target)

    def _copy(self, source: Operand, target: Operand) -> None:
        graph = Graph("copy")
        dtype, size = source.type.dtype, int(source.type.size)  # type: ignore[arg-type]
        flat = (2 * size,) if dtype.is_complex else (size,)
        x = Value(TensorType(dtype.to_real(), flat), "x")
        graph.inputs, graph.outputs = [x], [x]
        self.launches.append(
            Launch("map", "copy", [source], [target], lower_body(graph), None, ["copy"])
        )


def _kept_carries(body: Graph, consts: int, carries: int) -> dict[int, int]:
    """The carries that a scan returns as a turn found them, with the number of that result."""
    number = {v: i for i, v in enumerate(body.outputs) if i >= carries}
    given = enumerate(body.inputs[consts : consts + carries])
    return {j: number[v] for j, v in given if v in number}


def _is_shared(launch: Launch, share: Share) -> bool:
    """Whether a launch of a loop's body can be cut into shares."""
    if launch.plan is not None:
        return launch.plan.shares
    operands = [*launch.inputs, *launch.outputs]
    sizes = [int(o.type.size) for o in operands]  # type: ignore[arg-type]
    return launch.body is not None and units_in_rows(launch.body, sizes, share.rows)


def _copies_onto_itself(launch: Launch) -> bool:
    ends = [(o.buffer, o.offset) for o in (*launch.inputs, *launch.outputs)]
    return launch.ops == ["copy"] and ends[0] == ends[1]


def _row(o: Operand, index: int) -> Operand:
    """One slice along the first dimension."""
    type = TensorType(o.type.dtype, o.type.shape[1:])
    return Operand(o.buffer, type, o.offset + index * int(type.nbytes))  # type: ignore[arg-type]


def _lines(nodes: Iterable[Node]) -> list[str]:
    """The user's lines that nodes come from."""
    return list(dict.fromkeys(str(n.loc) for n in nodes if n.loc))


def _kind(body: Body) -> str:
    if not any(body.reduced):
        return "map"
    return "rows" if body.reduced[-1] else "columns"


def _alone(node: Node) -> Graph:
    """A graph of one node over inputs of its own."""
    graph = Graph(node.op.name)
    values = {v: Value(v.type, v.name) for v in dict.fromkeys(node.inputs)}
    graph.inputs = [values.get(v, v) for v in node.inputs]
    copy = Node(node.op, graph.inputs, node.attrs, [v.type for v in node.outputs], (), node.loc)
    graph.nodes, graph.outputs = [copy], list(copy.outputs)
    return graph
