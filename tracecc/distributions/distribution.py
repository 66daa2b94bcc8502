"""What probability distributions have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tracecc as tc
from tracecc.state import no_grad
from tracecc.tensor import Size, Tensor
from tracecc.trace import is_tracing


class Distribution:
    """Base class: parameters of shape ``batch_shape``, each draw of shape ``event_shape``.

    A subclass defines ``rsample`` (or ``sample``), ``log_prob``, ``entropy``, ``mean`` and
    ``variance``.
    """

    has_rsample = False
    mean: Any
    variance: Any

    def __init__(
        self,
        batch_shape: Sequence[int] = (),
        event_shape: Sequence[int] = (),
        validate_args: bool | None = None,
    ):
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)

    @property
    def batch_shape(self) -> Size:
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        return self._event_shape

    @property
    def stddev(self) -> Tensor:
        """The square root of the variance."""
        return self.variance.sqrt()

    def _extended(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        return (*sample_shape, *self._batch_shape, *self._event_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws through which gradients flow to the parameters.

        Raises:
            NotImplementedError: there is no such formula for this distribution.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rsample(); use sample()")

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, without gradients."""
        with no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or of the probability, at ``value``."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob()")

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        raise NotImplementedError(f"{type(self).__name__} has no entropy()")

    def perplexity(self) -> Tensor:
        """The exponential of the entropy."""
        return self.entropy().exp()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch {list(self._batch_shape)})"


def check(distribution: Any, name: str, valid: Tensor, validate: bool | None) -> None:
    """Refuses parameters out of their domain, unless a trace does not know their numbers."""
    if validate is not False and not is_tracing() and not bool(valid.all()):
        raise ValueError(
            f"Expected parameter {name} of distribution {type(distribution).__name__} to be within "
            f"its domain, but found invalid values:\n{getattr(distribution, name)}"
        )


def parameters(*values: Any) -> list[Tensor]:
    """Numbers and tensors as tensors of one shape and dtype."""
    given = [v for v in values if isinstance(v, Tensor)]
    dtype = given[0].dtype if given else tc.get_default_dtype()
    tensors = [v if isinstance(v, Tensor) else tc.as_tensor(v, dtype=dtype) for v in values]
    return list(tc.broadcast_tensors(*tensors))
