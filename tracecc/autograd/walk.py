"""The reverse walk over the tape, which knows no op, and the gradients that it leaves behind."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from tracecc.autograd.tape import Edge, TapeNode, anomaly, edge
from tracecc.eager import contiguous
from tracecc.state import enable_grad, no_grad, thread
from tracecc.tensor import Tensor, wrap


def backward_pass(
    roots: Sequence[Tensor],
    grads: Sequence[Tensor],
    wanted: Sequence[Tensor] | None,
    retain_graph: bool,
    create_graph: bool,
) -> list[Tensor | None] | None:
    """Walks the tape from ``roots`` in reverse order of creation.

    With ``wanted`` None, gradients are accumulated into the ``grad`` of every leaf. Otherwise they
    are returned for exactly these tensors and no ``grad`` changes.
    """
    edges = None if wanted is None else [edge(t) for t in wanted]
    return walk(roots, grads, edges, retain_graph, create_graph)


def walk(
    roots: Sequence[Tensor],
    grads: Sequence[Tensor],
    wanted: Sequence[Edge | None] | None,
    retain_graph: bool,
    create_graph: bool,
    since: int | None = None,
) -> list[Tensor | None] | None:
    """As `backward_pass`, for edges.

    With ``since`` it stops at leaves and at nodes up to this number: what arrives there is returned
    as it is, and hooks are left to the walk that goes on from there.
    """
    targets = None if wanted is None else {_key(e): i for i, e in enumerate(wanted)}
    found: list[Tensor | None] = [None] * len(wanted or ())
    reaches = None if targets is None else _reaching(roots, targets, since)
    pending: dict[TapeNode, list[Tensor | None]] = {}
    heap: list[tuple[int, TapeNode]] = []

    def send(to: Edge | None, g: Tensor | None, fresh: bool = False) -> None:
        if to is None or g is None:
            return
        node, index = to
        if targets is not None and outside(node, since):
            if (at := targets.get(_key(to))) is not None:
                found[at] = _sum(found[at], g)
            return
        if isinstance(node, Tensor):
            g = _run_hooks(node._hooks, g)
            if targets is None:
                _accumulate(node, g, create_graph, fresh and not node._hooks)
            elif (at := targets.get(_key(to))) is not None:
                found[at] = _sum(found[at], g)
            return
        if reaches is not None and node not in reaches and _key(to) not in (targets or ()):
            return
        slots = pending.get(node)
        if slots is None:
            slots = pending[node] = [None] * len(node.types)
            heapq.heappush(heap, (-node.sequence, node))
        slots[index] = _sum(slots[index], g)

    with enable_grad() if create_graph else no_grad():
        for root, g in zip(roots, grads, strict=True):
            send(edge(root), g)
        while heap:
            node = heapq.heappop(heap)[1]
            slots = pending.pop(node)
            _arrived(node, slots, targets, found)
            if reaches is not None and node not in reaches:
                continue
            want = [
                e is not None and (reaches is None or _useful(e, reaches, targets))
                for e in node.edges
            ]
            results = node.apply(slots, want, retain_graph)
            if anomaly.enabled and thread.trace is None:
                anomaly.check(node, results)
            if len(results) != len(node.edges):
                raise RuntimeError(
                    f"{node.name()} returned {len(results)} gradients, expected {len(node.edges)}"
                )
            for to, part in zip(node.edges, results, strict=True):
                send(to, part, node.fresh)
    return None if targets is None else found


def _sum(before: Tensor | None, g: Tensor) -> Tensor:
    return g if before is None else before + g


def _key(to: Edge | None) -> tuple[int, int]:
    return (0, 0) if to is None else (id(to[0]), to[1])


def _arrived(node: TapeNode, slots: list, targets: dict | None, found: list) -> None:
    """Hooks, retained gradients and requested gradients of a node's own outputs."""
    for i, g in enumerate(slots):
        if g is None:
            continue
        if node.hooks and i in node.hooks:
            g = slots[i] = _run_hooks(node.hooks[i], g)
        if node.retained and i in node.retained and targets is None:
            node.retained[i]._set_grad(g)
        if targets is not None and (at := targets.get((id(node), i))) is not None:
            found[at] = g


def _run_hooks(hooks: list[Callable] | None, g: Tensor) -> Tensor:
    for hook in hooks or ():
        changed = hook(g)
        if changed is None:
            continue
        name = getattr(hook, "__name__", type(hook).__name__)
        if not isinstance(changed, Tensor):
            raise TypeError(f"hook {name!r} returned {type(changed).__name__}, expected a Tensor")
        if changed._type.shape != g._type.shape:
            raise RuntimeError(
                f"hook {name!r} has changed the size of value: given {list(g._type.shape)}, "
                f"returned {list(changed._type.shape)}"
            )
        g = changed
    return g


def _useful(e: Edge, reaches: set, targets: dict | None) -> bool:
    return e[0] in reaches or (targets is not None and _key(e) in targets)


def outside(node: TapeNode | Tensor, since: int | None) -> bool:
    """Whether a leaf or node was there when nodes were counted up to ``since``."""
    return since is not None and (isinstance(node, Tensor) or node.sequence <= since)


def _reaching(roots: Sequence[Tensor], targets: dict, since: int | None) -> set:
    """The nodes from which some target can be reached."""
    reaches: set = set()
    seen: set = set()
    stack = [(e[0], False) for t in roots if (e := edge(t)) is not None]
    while stack:
        node, done = stack.pop()
        if isinstance(node, Tensor) or outside(node, since):
            continue
        if done:
            if any(e is not None and _useful(e, reaches, targets) for e in node.edges):
                reaches.add(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((e[0], False) for e in node.edges if e is not None)
    return reaches


def _accumulate(leaf: Tensor, g: Tensor, create_graph: bool, fresh: bool) -> None:
    """Adds ``g`` to a leaf's grad: in place, unless the gradient itself has a history.

    A ``fresh`` gradient's memory is nobody else's.
    """
    if g._type != leaf._type:
        raise RuntimeError(f"gradient of type {g._type!r} reached a leaf of type {leaf._type!r}")
    old = leaf.grad
    if create_graph:
        leaf._set_grad(g if old is None else old + g)
    elif old is None:
        leaf._set_grad(g if fresh and g._array is not None else _private(g))
    else:
        old._write(old + g)
    for hook in leaf._post_hooks or ():
        hook(leaf)


def _private(g: Tensor) -> Tensor:
    """A handle of its own memory, so that writing one leaf's grad changes no other tensor."""
    if g._array is None:
        assert thread.trace is not None
        return thread.trace.snapshot(g)
    return wrap(contiguous(g._array), g._type)
