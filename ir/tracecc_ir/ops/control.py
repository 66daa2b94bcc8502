"""Ops that hold graphs: calls, branches, loops, fused groups; derivatives as nodes; barriers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracecc_ir.errors import NotDifferentiable, TypeRuleError
from tracecc_ir.graph import Graph, replay
from tracecc_ir.op import Expr, Op, Sample, op_named
from tracecc_ir.ops.rules import ALL, draw
from tracecc_ir.passes.grad import Derived, gradient
from tracecc_ir.types import TensorType, bool_

Types = tuple[TensorType, ...]


def region_types(name: str, region: Graph, operands: Sequence[TensorType]) -> Types:
    """The result types of a region, which must take exactly these operands."""
    if region.state or region.updates:
        raise TypeRuleError(f"a region of {name} sees only its operands, so it holds no state")
    expected = [v.type for v in region.inputs]
    if expected != list(operands):
        raise TypeRuleError(f"the region of {name} takes {expected}, given {list(operands)}")
    return tuple(v.type for v in region.outputs)


def _call_type(*xs: TensorType, body: Graph) -> Types:
    return region_types("call", body, xs)


call = Op(
    "call",
    "control",
    _call_type,
    vjp=Derived(),
    decomposition=lambda *xs, body: replay(body, xs),
    doc="the results of a graph; inlined by decompose",
)


def _kernel_type(*xs: TensorType, body: Graph, name: str, kind: str) -> Types:
    return region_types("kernel", body, xs)


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
    results, other = region_types("cond", then, xs), region_types("cond", otherwise, xs)
    if results != other:
        raise TypeRuleError(f"the branches of cond must agree, given {results} and {other}")
    return results


def inexact_positions(xs: Sequence[Any]) -> list[int]:
    return [i for i, x in enumerate(xs) if x.dtype.is_inexact]


def tupled(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _cond_vjp(g: Any, y: Any, p: Expr, *xs: Expr, then: Graph, otherwise: Graph) -> tuple:
    """Each branch's gradient, which repeats that branch's forward computation."""
    wrt = inexact_positions(xs)
    branches: Any = {"then": gradient(then, wrt), "otherwise": gradient(otherwise, wrt)}
    found = dict(zip(wrt, tupled(cond(p, *xs, *tupled(g), **branches)), strict=True)) if wrt else {}
    return (None, *(found.get(i) for i in range(len(xs))))


cond = Op(
    "cond",
    "control",
    _cond_type,
    vjp=_cond_vjp,
    doc="the results of `then` if the condition bool[] holds, else of `otherwise`",
)


def _while_type(*xs: TensorType, condition: Graph, body: Graph) -> Types:
    if region_types("while", condition, xs) != (TensorType(bool_, ()),):
        raise TypeRuleError("the condition of while must return one bool[]")
    if (results := region_types("while", body, xs)) != xs:
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


barrier = Op(
    "barrier",
    "control",
    lambda *xs: xs,
    reference=lambda *xs: xs,
    vjp=lambda g, y, *xs: tupled(g),
    dtypes=ALL,
    samples=lambda rng, dtype: [Sample((draw(rng, dtype, 3, 4), draw(rng, dtype, 2)))],
    doc="its operands; what reads one of them runs after all are there, and is not merged with "
    "what reads the operand itself",
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
