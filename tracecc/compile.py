"""`tracecc.compile`: from a Python function to one graph, its fused kernels and a launch table."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from tracecc.backends import Executable, get_backend
from tracecc.pytree import flatten
from tracecc.state import epoch, no_grad, thread
from tracecc.tensor import Tensor
from tracecc.trace.capture import Capture, capture
from tracecc.trace.debug import report_trace, run_passes
from tracecc.trace.entry import Entry
from tracecc.trace.partition import partition
from tracecc.trace.signature import shown, signature
from tracecc.trace.stages import Stages
from tracecc_ir.graph import Graph


def build(
    function: Callable, leaves: list[Any], structure: Any, names: list[str], key: Any
) -> Entry:
    """user function -> tracer -> graph -> passes -> schedule -> kernels -> executable."""
    started = time.perf_counter()
    with _without_collection():
        captured = trace(function, leaves, structure, names)
    if captured.cotangents:
        joint = run_passes(captured.graph, until="simplified")[-1][1]
        halves = partition(joint, captured.outputs, len(captured.cotangents))
        stages, forward = lower(halves.forward)
        _, backward = lower(halves.backward)
        entry = Entry(key, captured, stages, forward, backward, halves.saved)
        stages.traced = captured.graph
    else:
        stages, forward = lower(captured.graph)
        entry = Entry(key, captured, stages, forward)
    entry.epoch = epoch.count
    entry.seconds = time.perf_counter() - started
    return entry


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Graphs are many objects that live on: looking for dead cycles among them only takes time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def trace(function: Callable, leaves: list[Any], structure: Any, names: list[str]) -> Capture:
    """Captures one call; once more if an argument turns out to share memory that is written."""
    captured = capture(function, leaves, structure, names)
    direct = frozenset(
        i
        for i, leaf in enumerate(leaves)
        if isinstance(leaf, Tensor) and leaf._storage in captured.written
    )
    direct |= _written_aliases(captured, leaves)
    if direct:
        captured = capture(function, leaves, structure, names, direct)
    return captured


def _written_aliases(captured: Capture, leaves: list[Any]) -> frozenset[int]:
    """Arguments that are written and share memory with another argument or a captured tensor."""
    found: set[int] = set()
    known = {s.owner for s in captured.sources if s.kind == "storage"}
    for source in captured.sources:
        if source.kind != "input":
            continue
        written = leaves[source.key]
        sharing = [
            i
            for i, leaf in enumerate(leaves)
            if isinstance(leaf, Tensor)
            and leaf is not written
            and leaf._storage is written._storage
        ]
        if sharing or written._storage in known:
            found.update(sharing, (source.key,))
    return frozenset(found)


def lower(graph: Graph) -> tuple[Stages, Executable]:
    """Runs the passes and hands the result to the backend."""
    backend = get_backend("cpu")
    with _without_collection():
        stages = Stages(graph, backend)
    return stages, backend.compile_graph(stages.fused)


# Graphs kept per signature: a function whose guards fail at every call must not fill the memory.
MOST_ENTRIES = 32


class Listing(list):
    """A list that prints its items one after another."""

    def __str__(self) -> str:
        return "\n\n".join(map(str, self))


class CompiledFunction:
    """A function that is traced, fused and compiled at the first call of each signature.

    Call it like the function itself. ``ir(stage)``, ``kernels()`` and ``explain()`` show what
    became of the latest call; ``traces`` counts how often it was traced.
    """

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)
        self.function = function
        self._entries: dict[Any, list[Entry]] = {}
        self._last: Entry | None = None
        self.traces = 0
        self._log: list[str] = []
        self._lock = threading.RLock()
        self._bound: weakref.WeakKeyDictionary[Any, CompiledFunction] = weakref.WeakKeyDictionary()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method: one compiled function per instance."""
        if instance is None:
            return self
        found = self._bound.get(instance)
        if found is None:
            found = self._bound[instance] = CompiledFunction(self.function.__get__(instance, owner))
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if thread.trace is not None:  # nested: becomes part of the outer graph
            return self.function(*args, **kwargs)
        last = self._last
        if last is not None and not kwargs and last.accepts(args):
            return last.run(args)
        leaves, structure = flatten((args, kwargs))
        return self._entry(leaves, structure, args, kwargs).run(leaves)

    def trace(self, *args: Any, **kwargs: Any) -> None:
        """Traces and compiles for these arguments without running anything."""
        self._entry(*flatten((args, kwargs)), args, kwargs)

    def _entry(self, leaves: list[Any], structure: Any, args: tuple, kwargs: dict) -> Entry:
        key = signature(leaves, structure)
        entry = self._find(key, leaves)
        if entry is None:
            entry = self._build(key, leaves, structure, args, kwargs)
        self._last = entry
        return entry

    def _find(self, key: Any, leaves: list[Any]) -> Entry | None:
        for entry in self._entries.get(key, ()):
            if entry.refusal(leaves) is None:
                return entry
        return None

    def _build(self, key: Any, leaves: list[Any], structure: Any, args: Any, kwargs: Any) -> Entry:
        with self._lock:
            entry = self._find(key, leaves)
            if entry is not None:
                return entry
            why = self._reason(key, leaves)
            names = _leaf_names(self.function, args, kwargs)
            entry = build(self.function, leaves, structure, names, key)
            entries = self._entries.setdefault(key, [])
            entries.append(entry)
            del entries[:-MOST_ENTRIES]
            self.traces += 1
            self._log.append(f"{shown(key)}: {why}; {entry.seconds * 1e3:.0f} ms")
            report_trace(_name(self), self._log[-1])
        return entry

    def _reason(self, key: Any, leaves: list[Any]) -> str:
        """Why the call at hand needs a trace."""
        if not self._entries:
            return "first call"
        same = self._entries.get(key)
        return "a new signature" if not same else str(same[-1].refusal(leaves))

    # What users look at.

    def ir(self, stage: str = "traced") -> Graph | str:
        """The IR of the latest call after ``stage``: traced, grad, ..., fused or scheduled."""
        entry = self._latest()
        if stage == "scheduled":
            return entry.forward.schedule()
        if stage not in entry.stages:
            known = ", ".join([*entry.stages, "scheduled"])
            raise ValueError(f"there is no stage {stage!r}; expected one of {known}")
        return entry.stages[stage]

    def kernels(self) -> Any:
        """Each kernel of the latest call: source, ops and lines it came from, bytes, flops, why."""
        return Listing(self._latest().forward.kernels())

    def explain(self) -> str:
        """Signatures seen, guards, why it retraced, memory, compile times and cache hits."""
        from tracecc.trace.report import report

        return report(self, [e for es in self._entries.values() for e in es], self._log)

    def _latest(self) -> Entry:
        if self._last is None:
            raise RuntimeError(f"{_name(self)} has not been called yet: there is nothing to show")
        return self._last


def _name(function: Any) -> str:
    return getattr(function, "__name__", "the function")


def _leaf_names(function: Callable, args: tuple, kwargs: dict) -> list[str]:
    """A readable name for every leaf of the arguments, from the function's parameters."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    plain = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    names: list[str] = []
    for i, arg in enumerate(args):
        name = plain[i] if i < len(plain) else f"arg{i}"
        names.extend([name] * len(flatten(arg)[0]))
    for name, arg in kwargs.items():
        names.extend([name] * len(flatten(arg)[0]))
    return names


class CompiledGraph:
    """A graph made callable: ``compiled(*inputs)``, or ``compiled(*inputs, state=[...])``.

    The graph's symbolic sizes are read off the inputs; updates are written into the state tensors.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self._executables: dict[Any, Executable] = {}

    def __call__(self, *inputs: Tensor, state: Any = ()) -> Any:
        from tracecc.tensor import wrap
        from tracecc_ir.graph import bind_sizes, specialize

        for t in (*inputs, *state):
            if not isinstance(t, Tensor):
                raise TypeError(f"{self.graph.name} expects Tensors, given {type(t).__name__}")
        arrays = [t._numpy() for t in inputs]
        held = [t._numpy() for t in state]
        sizes = bind_sizes(self.graph, [*arrays, *held])
        key = tuple(sorted(sizes.items()))
        if key not in self._executables:
            graph = specialize(self.graph, sizes) if sizes else self.graph
            self._executables[key] = lower(graph)[1]
        with no_grad():
            outputs = tuple(wrap(a) for a in self._executables[key](arrays, held))
        return outputs[0] if len(outputs) == 1 else outputs


def compile(target: Any = None, **options: Any) -> Any:
    """Compiles a function, a method, a Module or a Graph. Also a decorator.

    At the first call of each signature (types of the tensors, values of the other arguments) the
    function is traced: forward, backward and optimiser become one graph, which is fused and
    compiled. There is no fallback: what cannot be traced raises a TraceError.

    Args:
        target: what to compile.
        options: PyTorch's ``fullgraph``, ``dynamic``, ``mode`` and ``backend`` are accepted where
            they ask for what tracecc always does.

    >>> import tracecc as tc
    >>> @tc.compile
    ... def f(x):
    ...     return (x * 2).relu()
    >>> f(tc.tensor([-1.0, 3.0]))
    tensor([0., 6.])
    """
    unknown = set(options) - {"fullgraph", "dynamic", "mode", "backend", "options"}
    if unknown:
        raise TypeError(f"compile() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    if target is None:
        return compile
    if isinstance(target, Graph):
        return CompiledGraph(target)
    if isinstance(target, CompiledFunction):
        return target
    if hasattr(target, "named_parameters") and not isinstance(target, type):
        from tracecc.nn.compiled import CompiledModule

        return CompiledModule(target)
    if not callable(target):
        raise TypeError(
            f"compile() expects a function, Module or Graph, given {type(target).__name__}"
        )
    return CompiledFunction(target)
