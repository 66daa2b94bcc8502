"""Ops that hold graphs: calls, branches, loops, fused groups; and derivatives as nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracecc_ir.dims import Size
from tracecc_ir.errors import NotDifferentiable, TypeRuleError
from tracecc_ir.graph import Builder, Graph, Value, replay
from tracecc_ir.op import Expr, Op, op_named
from tracecc_ir.ops.constant import constant
from tracecc_ir.passes.decompose import decompose
from tracecc_ir.passes.grad import Derived, gradient
from tracecc_ir.types import TensorType, bool_

Types = tuple[TensorType, ...]


def _region(name: str, region: Graph, operands: Sequence[TensorType]) -> Types:
    """The result types of a region, which must take exactly these operands."""
    if region.state or region.updates:
        raise TypeRuleError(f"a region of {name} sees only its operands, so it holds no state")
    expected = [v.type for v in region.inputs]
    if expected != list(operands):
        raise TypeRuleError(f"the region of {name} takes {expected}, given {list(operands)}")
    return tuple(v.type for v in region.outputs)


def _call_type(*xs: TensorType, body: Graph) -> Types:
    return _region("call", body, xs)


call = Op(
    "call",
    "control",
    _call_type,
    vjp=Derived(),
    decomposition=lambda *xs, body: replay(body, xs),
    doc="the results of a graph; inlined by decompose",
)


def _kernel_type(*xs: TensorType, body: Graph, name: str, kind: str) -> Types:
    return _region("kernel", body, xs)


kernel = Op(
    "kernel",
    "kernel",
    _kernel_type,
    decomposition=lambda *xs, body, name, kind: replay(body, xs),
    doc="a fused group, which a backend turns into one kernel",
)


def _cond_type(p: TensorType, *xs: TensorType, then: Graph, otherwise: Graph) -> Types:
    if p != TensorType(bool_, ()):
        raise TypeRuleError(f"cond needs a condition bool[], given {p}")
    results, other = _region("cond", then, xs), _region("cond", otherwise, xs)
    if results != other:
        raise TypeRuleError(f"the branches of cond must agree, given {results} and {other}")
    return results


def _inexact_positions(xs: Sequence[Any]) -> list[int]:
    return [i for i, x in enumerate(xs) if x.dtype.is_inexact]


def _tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _cond_vjp(g: Any, y: Any, p: Expr, *xs: Expr, then: Graph, otherwise: Graph) -> tuple:
    """Each branch's gradient, which repeats that branch's forward computation."""
    wrt = _inexact_positions(xs)
    branches: Any = {"then": gradient(then, wrt), "otherwise": gradient(otherwise, wrt)}
    found = dict(zip(wrt, _tuple(cond(p, *xs, *_tuple(g), **branches)), strict=True)) if wrt else {}
    return (None, *(found.get(i) for i in range(len(xs))))


cond = Op(
    "cond",
    "control",
    _cond_type,
    vjp=_cond_vjp,
    doc="the results of `then` if the condition bool[] holds, else of `otherwise`",
)


def _while_type(*xs: TensorType, condition: Graph, body: Graph) -> Types:
    if _region("while", condition, xs) != (TensorType(bool_, ()),):
        raise TypeRuleError("the condition of while must return one bool[]")
    if (results := _region("while", body, xs)) != xs:
        raise TypeRuleError(f"the body of while must return what it takes, {xs}, not {results}")
    return results


def _while_vjp(*_: Any, **__: Any) -> tuple:
    raise NotDifferentiable(
        "while has no derivative, as its number of steps is unknown; use scan for a loop of known "
        "length, or detach() its operands"
    )


while_ = Op(
    "while",
    "control",
    _while_type,
    vjp=_while_vjp,
    doc="repeats `body` as long as `condition` holds; forward only",
)


def _scan_type(
    *operands: TensorType,
    body: Graph,
    consts: int,
    carries: int,
    length: Size,
    reverse: bool = False,
) -> Types:
    fixed, xs = operands[: consts + carries], operands[consts + carries :]
    for x in xs:
        if x.ndim == 0 or x.shape[0] != length:
            raise TypeRuleError(f"scan of length {length} needs operands that long, given {x}")
    results = _region("scan", body, [*fixed, *(x.with_shape(x.shape[1:]) for x in xs)])
    if results[:carries] != operands[consts : consts + carries]:
        raise TypeRuleError(
            f"the body of scan must return its carries {operands[consts : consts + carries]} "
            f"first, not {results[:carries]}"
        )
    return (*results[:carries], *(y.with_shape((length, *y.shape)) for y in results[carries:]))


# What the reverse scan reads from memory rather than computes again.
_COSTLY = ("dot_general", "conv", "conv_input_grad", "conv_weight_grad")


def _with_history(body: Graph, consts: int, carries: int, kept: Sequence[Value]) -> Graph:
    """The body of scan with the carries it was given, and values it computes, as more outputs."""
    b = Builder(body.name)
    inputs = [b.input(v.type, v.name) for v in body.inputs]
    whole = Graph(body.name, body.inputs, nodes=body.nodes, outputs=[*body.outputs, *kept])
    made = b.inline(whole, inputs)
    count = len(body.outputs)
    b.graph.outputs = made[:count] + inputs[consts : consts + carries] + made[count:]
    return b.graph


def _keeping(body: Graph, wrt: list[int]) -> tuple[Graph, list[Value]]:
    """The gradient of a body, and the costly values of the body that are its last inputs."""
    step = gradient(body, wrt)
    count = len(body.nodes)
    if [n.op for n in step.nodes[:count]] != [n.op for n in body.nodes]:
        return step, []
    costly = {
        copy.output: old.output
        for copy, old in zip(step.nodes[:count], body.nodes, strict=True)
        if copy.op.name in _COSTLY
    }
    needed = set(step.outputs)
    nodes = []
    for node in reversed(step.nodes):
        if needed & set(node.outputs) and not costly.keys() & set(node.outputs):
            needed.update(node.inputs)
            nodes.append(node)
    kept = {copy: old for copy, old in costly.items() if copy in needed}
    b = Builder(step.name)
    values = {v: b.input(v.type, v.name) for v in (*step.inputs, *kept)}
    for node in reversed(nodes):
        values.update(zip(node.outputs, b.copy(node, values), strict=True))
    b.graph.outputs = [values[v] for v in step.outputs]
    return b.graph, list(kept.values())


def _step_gradient(
    body: Graph, consts: int, carries: int, wrt: list[int]
) -> tuple[Graph, list[Value]]:
    """One step of the reverse scan, and the values of the body that it wants to be kept.

    Consts: those of the forward scan. Carries: cotangents of the float carries, then the sums so
    far for the float consts. Slices: the forward carries before the step, the kept values, the
    forward slices and the cotangents of the float ys. Returns the new carries, then gradients of
    the float slices.
    """
    step, kept = _keeping(body, wrt)
    b = Builder(body.name + "_grad")

    def inputs(values: Sequence[Value], suffix: str = "") -> list[Value]:
        return [b.input(v.type, v.name + suffix if v.name else "") for v in values]

    floats = [v for v in body.outputs[:carries] if v.dtype.is_inexact]
    held = inputs(body.inputs[:consts])
    flowing = inputs(floats, ".g")
    sums = inputs([body.inputs[i] for i in wrt if i < consts], ".g")
    before = inputs(body.inputs[consts : consts + carries])
    known = inputs(kept)
    slices = inputs(body.inputs[consts + carries :])
    coming = inputs([v for v in body.outputs[carries:] if v.dtype.is_inexact], ".g")
    given = iter(flowing + coming)
    gs = [next(given) if v.dtype.is_inexact else _zero(b, v.type) for v in body.outputs]
    found = b.inline(step, held + before + slices + gs + known)
    added = [(b.expr(s) + b.expr(f)).value for s, f in zip(sums, found[: len(sums)], strict=True)]
    rest = found[len(sums) :]
    b.graph.outputs = rest[: len(flowing)] + added + rest[len(flowing) :]
    return b.graph, kept


def _zero(b: Builder, type: TensorType) -> Value:
    (zero,) = b.emit(constant, (), {"value": 0, "shape": type.shape, "dtype": type.dtype})
    return zero


def _scan_vjp(
    g: Any,
    y: Any,
    *operands: Expr,
    body: Graph,
    consts: int,
    carries: int,
    length: Size,
    reverse: bool,
) -> tuple:
    """A scan the other way round, over the carries and products that a forward scan keeps."""
    wrt = _inexact_positions(operands)
    if not wrt:
        return (None,) * len(operands)
    gs, fixed = _tuple(g), consts + carries
    options: Any = {"length": length, "consts": consts}
    body = decompose(body)
    step, kept = _step_gradient(body, consts, carries, wrt)
    history = _tuple(
        scan(
            *operands,
            body=_with_history(body, consts, carries, kept),
            carries=carries,
            reverse=reverse,
            **options,
        )
    )[len(gs) :]
    flowing = [e for e in gs[:carries] if e.dtype.is_inexact]
    coming = [e for e in gs[carries:] if e.dtype.is_inexact]
    sums = [operands[i].full(0) for i in wrt if i < consts]
    found = _tuple(
        scan(
            *operands[:consts],
            *flowing,
            *sums,
            *history,
            *operands[fixed:],
            *coming,
            body=step,
            carries=len(flowing) + len(sums),
            reverse=not reverse,
            **options,
        )
    )
    n = len(flowing)
    in_order = [*found[n : n + len(sums)], *found[:n], *found[n + len(sums) :]]
    by_operand = dict(zip(wrt, in_order, strict=True))
    return tuple(by_operand.get(i) for i in range(len(operands)))


scan = Op(
    "scan",
    "control",
    _scan_type,
    vjp=_scan_vjp,
    doc="folds `body(consts, carries, slices) -> (carries, ys)`; last carries, stacked ys",
)


# The derivative of an op as a node, which the grad pass opens.


def _split(operands: Sequence[Any], types: Sequence[TensorType], of: str, attrs: tuple) -> int:
    """How many of vjp's operands are those of the op; as many results and cotangents follow."""
    op = op_named(of)
    for results in range(1, (len(types) + 1) // 2 + 1):
        count = len(types) - 2 * results
        if count < 0:
            break
        try:
            made = op.result_types(types[:count], dict(attrs))
        except (TypeRuleError, TypeError, ValueError, IndexError):
            continue
        if len(made) == results and made == tuple(types[count : count + results]):
            return count
    raise TypeRuleError(f"vjp of {of} needs its operands, results and cotangents, given {types}")


def _vjp_type(*xs: TensorType, of: str, attrs: tuple, wrt: tuple[int, ...]) -> Types:
    count = _split(xs, xs, of, attrs)
    if any(not 0 <= i < count for i in wrt):
        raise TypeRuleError(f"vjp of {of} has {count} operands, given wrt={wrt}")
    return tuple(xs[i] for i in wrt)


def _vjp(*xs: Expr, of: str, attrs: tuple, wrt: tuple[int, ...]) -> tuple[Expr, ...]:
    count = _split(xs, [x.type for x in xs], of, attrs)
    results = (len(xs) - count) // 2
    outs, gs = xs[count : count + results], xs[count + results :]
    wanted = [i in wrt for i in range(count)]
    found = op_named(of).gradients(wanted, gs, outs, xs[:count], dict(attrs))
    chosen = [(found[i], xs[i]) for i in wrt]
    return tuple(x.full(0) if f is None else f for f, x in chosen)


vjp = Op(
    "vjp",
    "control",
    _vjp_type,
    vjp=Derived(),
    decomposition=_vjp,
    doc="gradients of the operands `wrt` of an op from its operands, results and their cotangents",
)
