"""What goes wrong while tracing, said in one sentence with the user's line."""

from __future__ import annotations

from typing import Any

from tracecc.trace.location import user_location


class TraceError(RuntimeError):
    """The function cannot become one graph as written; the message names the line and a way out."""


def concrete_value_needed(t: Any, what: str) -> TraceError:
    """The error for code that wants the numbers of a tensor that has none yet."""
    return TraceError(
        f"{user_location()}: {what} is not known while tracing (the tensor is {t._type!r}); "
        "use tc.where or tc.cond for a choice, tc.while_loop or tc.scan for a loop, "
        "or move this line out of the compiled function"
    )
