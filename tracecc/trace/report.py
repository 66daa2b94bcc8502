"""The text of `CompiledFunction.explain()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracecc.trace.signature import shown

if TYPE_CHECKING:
    from tracecc.trace.entry import Entry


def report(function: Any, entries: list[Entry], log: list[str]) -> str:
    """Signatures, guards, retraces, memory plans, compile times and cache hits, as text."""
    lines = [f"{function.__name__}: {len(entries)} graph{'s' if len(entries) != 1 else ''}"]
    lines += ["", "Traces, in order"] + [f"  {line}" for line in log]
    for entry in entries:
        c = entry.capture
        lines += ["", f"Signature {shown(entry.key)}, called {entry.calls} times"]
        lines += [f"  state      {len(c.sources)} captured tensors and scalars"]
        lines += [f"  updates    {len(c.graph.updates)}; gradients set: {len(c.grads)}"]
        lines += ["  guards     " + d for d in c.guards.described]
        lines += ["  " + line for line in entry.forward.summary().splitlines()]
    return "\n".join(lines)
