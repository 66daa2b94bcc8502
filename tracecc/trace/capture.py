"""Capturing one call: run the user's function on traced tensors and note every effect it had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tracecc.autograd.tape import TapeNode, edge
from tracecc.autograd.walk import backward_pass
from tracecc.pytree import flatten, unflatten
from tracecc.tensor import Storage, Tensor
from tracecc.trace.guards import Guards
from tracecc.trace.location import locate
from tracecc.trace.signature import SCALAR
from tracecc.trace.tracer import Source, Tracer
from tracecc_ir.graph import Graph, Value
from tracecc_ir.types import TensorType


@dataclass
class Result:
    """How one leaf of the function's result is made at each call.

    Kinds: ``value`` (graph output ``index``), ``number`` (the same as a Python number),
    ``argument`` (the caller's own object), ``view`` (a view of argument ``index`` by ``chain``),
    ``object`` (``payload`` itself).
    """

    kind: str
    index: int = 0
    payload: Any = None
    chain: tuple = ()
    requires_grad: bool = False


@dataclass
class GradEffect:
    """``grad`` of ``target`` (a tensor, an argument's index) becomes output ``index``, or None."""

    target: Any
    index: int | None = None
    payload: Tensor | None = None


@dataclass
class Capture:
    """One traced call: the graph and how Python sees it."""

    graph: Graph
    sources: list[Source]
    guards: Guards
    arguments: list[int]  # which argument leaf each graph input is
    results: list[Result]
    structure: Any
    grads: list[GradEffect]
    direct: frozenset[int]
    written: set[Storage] = field(default_factory=set)
    outputs: int = 0  # how many graph outputs come before the gradients of a differentiable call
    cotangents: list[int] = field(default_factory=list)  # which outputs have a cotangent input
    leaves: list[Any] = field(
        default_factory=list
    )  # what gets gradients: tensors, argument indices


def capture(
    function: Callable,
    leaves: list[Any],
    structure: Any,
    names: list[str],
    direct: frozenset[int] = frozenset(),
) -> Capture:
    """Traces ``function`` on these arguments.

    Args:
        function: the user's function.
        leaves: the flattened arguments.
        structure: the structure of ``(args, kwargs)``.
        names: a readable name per leaf.
        direct: arguments that share memory with a captured tensor that the function writes; they
            are captured themselves instead of becoming graph inputs.
    """
    tracer = Tracer(getattr(function, "__name__", type(function).__name__).strip("<>"))
    tracer.guards.function(function)
    tracer.guards.arguments = leaves
    proxies, arguments = _proxies(tracer, leaves, names, direct)
    with tracer.active():
        args, kwargs = unflatten(structure, iter(proxies))
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            locate(error)
            raise
        made = _Outputs(tracer, leaves, proxies)
        out_leaves, out_structure = flatten(result)
        results = [made.result(leaf) for leaf in out_leaves]
        grads = [made.grad_effect(t, before) for t, before in tracer.grads.values()]
        outputs = len(made.values)
        cotangents, wanted = _differentiate(tracer, made, out_leaves, results)
    tracer.guards.arguments = ()
    for storage in tracer.written_inputs():
        index = next(i for i, p in enumerate(proxies) if _is_on(p, storage))
        tracer.make_state(storage, index)
        arguments.remove(index)
    return Capture(
        tracer.finish(made.values),
        tracer.sources,
        tracer.guards,
        arguments,
        results,
        out_structure,
        [g for g in grads if g is not None],
        direct,
        _written(tracer, proxies),
        outputs,
        cotangents,
        [made.position(t) for t in wanted],
    )


def _is_on(p: Any, storage: Storage) -> bool:
    return isinstance(p, Tensor) and p._storage is storage


def _proxies(
    tracer: Tracer, leaves: list[Any], names: list[str], direct: frozenset[int]
) -> tuple[list[Any], list[int]]:
    """What the function is called with: a traced tensor for each tensor and each float."""
    proxies: list[Any] = []
    arguments: list[int] = []
    seen: dict[int, Tensor] = {}
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and i not in direct:
            if id(leaf) not in seen:
                seen[id(leaf)] = p = tracer.input(leaf._type, names[i])
                p._requires_grad, p._weak = leaf._requires_grad, leaf._weak
                tracer.arguments[p._storage] = i
                arguments.append(i)
            proxies.append(seen[id(leaf)])
        elif type(leaf) is float:
            p = tracer.input(SCALAR, names[i])
            p._weak = True
            arguments.append(i)
            proxies.append(p)
        else:
            proxies.append(leaf)
    return proxies, arguments


def _written(tracer: Tracer, proxies: list[Any]) -> set[Storage]:
    """The storages that existed before the trace and are written by it."""
    return {
        s
        for s, m in tracer.memory.items()
        if m.source is not None and m.source.kind == "storage" and m.value is not m.initial
    }


class _Outputs:
    """Collects the graph's outputs."""

    def __init__(self, tracer: Tracer, leaves: list[Any], proxies: list[Any]):
        self.tracer, self.leaves = tracer, leaves
        self.values: list[Value] = []
        self._argument = {id(p): i for i, p in reversed(list(enumerate(proxies)))}
        self._memory = {
            p._storage: i
            for i, p in reversed(list(enumerate(proxies)))
            if isinstance(p, Tensor) and p._array is None
        }

    def add(self, value: Value) -> int:
        if value not in self.values:
            self.values.append(value)
        return self.values.index(value)

    def position(self, t: Tensor) -> Any:
        """A leaf's argument index, or the captured tensor itself."""
        return self._argument.get(id(t), t)

    def result(self, leaf: Any) -> Result:
        if not isinstance(leaf, Tensor):
            return Result("object", payload=leaf)
        if id(leaf) in self._argument:
            return Result("argument", self._argument[id(leaf)])
        if leaf._array is not None:
            return Result("object", payload=leaf)
        if leaf._weak:
            return Result("number", self.add(self.tracer.value(leaf)))
        if leaf._storage in self._memory and not leaf._requires_grad:
            return Result("view", self._memory[leaf._storage], chain=leaf._chain)
        return Result("value", self.add(self.tracer.value(leaf)), requires_grad=leaf._requires_grad)

    def grad_effect(self, t: Tensor, before: Tensor | None) -> GradEffect | None:
        now, target = t._grad, self._argument.get(id(t), t)
        if now is None:
            return GradEffect(target)  # also if it was None before: a later call may find one
        if now is before:
            return None
        if now._array is not None:
            return GradEffect(target, payload=now)
        value, of = self.tracer.value(now), self.tracer.memory.get(t._storage)
        if of is not None and of.initial is not None and not value.name:
            value.name = f"{of.initial.name or 'captured'}.grad"
        return GradEffect(target, self.add(value))


def _differentiate(
    tracer: Tracer, made: _Outputs, out_leaves: list[Any], results: list[Result]
) -> tuple[list[int], list[Tensor]]:
    """If results require grad outside, traces their backward pass into the same graph.

    Adds one input per differentiable output (its cotangent) and one output per leaf (its gradient).
    """
    roots: dict[int, Tensor] = {}
    for leaf, r in zip(out_leaves, results, strict=True):
        if r.kind == "value" and r.requires_grad:
            if _runs_backward(leaf):
                roots.setdefault(r.index, leaf)
            else:
                r.requires_grad = False
    if not roots:
        return [], []
    wanted = leaves_behind(list(roots.values()))
    cotangents = [
        tracer.input(TensorType(t.dtype, t._type.shape), "cotangent") for t in roots.values()
    ]
    found = backward_pass(list(roots.values()), cotangents, wanted, False, False)
    kept = [(t, g) for t, g in zip(wanted, found or (), strict=True) if g is not None]
    made.values.extend(tracer.value(g) for _, g in kept)
    return list(roots), [t for t, _ in kept]


def _runs_backward(t: Tensor) -> bool:
    """Whether the history of ``t`` was not consumed by a backward pass inside the function."""
    return all(getattr(node, "inputs", ()) is not None for node in _nodes([t]))


def leaves_behind(roots: list[Tensor]) -> list[Tensor]:
    """The leaves that the gradients of ``roots`` flow to, in a fixed order."""
    found: dict[int, Tensor] = {}
    for node in _nodes(roots):
        if isinstance(node, Tensor):
            found.setdefault(id(node), node)
    return list(found.values())


def _nodes(roots: list[Tensor]) -> Iterator[TapeNode | Tensor]:
    stack = [e[0] for t in roots if (e := edge(t)) is not None]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if not isinstance(node, Tensor):
            stack.extend(e[0] for e in reversed(node.edges) if e is not None)
