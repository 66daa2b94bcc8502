"""Numbers that decide shapes: read off what the caller passed, and guarded by their value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracecc.state import thread
from tracecc.tensor import Tensor
from tracecc.trace.errors import concrete_value_needed


def known(t: Tensor, read: Callable[[np.ndarray], Any], what: str) -> Any:
    """``read`` of the tensor's numbers; under a trace only if they are there before the call runs.

    That holds for arguments and captured tensors that are not written before, and for views of
    them. The graph is then valid for this one result: numbers that give another are traced again.
    So this is for what decides shapes, as the sizes of a split, and changes rarely.

    Args:
        t: where the numbers are.
        read: from an array to a comparable value; it may raise what is wrong with the numbers.
        what: names the value in errors and in ``explain()``.

    Raises:
        TraceError: if the numbers are computed by the traced function itself.

    >>> import tracecc as tc
    >>> f = tc.compile(lambda x, sizes: [part.sum() for part in x.tensor_split(sizes)])
    >>> f(tc.arange(4.0), tc.tensor([1, 3]))
    [tensor(0.), tensor(3.), tensor(3.)]
    """
    tracer = thread.trace
    if tracer is None:
        return read(t.detach()._numpy())
    numbers = tracer.origin(t)
    if numbers is None:
        raise concrete_value_needed(t, what)
    return tracer.guards.known(t, lambda leaves: read(numbers(leaves)), what)


def counted(t: Tensor, name: str) -> np.ndarray:
    """The numbers of a tensor, on which the size of ``name``'s result depends: eager only."""
    if thread.trace is not None or t.is_traced():
        raise concrete_value_needed(
            t, f"the size of {name}'s result, which depends on the numbers,"
        )
    return t.detach()._numpy()
