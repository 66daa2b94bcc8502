"""Distributions over whole numbers and classes, and independent dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tracecc as tc
from tracecc.distributions.distribution import Distribution, check, parameters
from tracecc.nn import functional as F
from tracecc.state import no_grad
from tracecc.tensor import Tensor


def _one_of(name: str, probs: Any, logits: Any) -> None:
    if (probs is None) == (logits is None):
        raise ValueError(f"{name} expects either `probs` or `logits`, and not both")


class Bernoulli(Distribution):
    """0 or 1, by the probability of 1 or its log odds."""

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        _one_of("Bernoulli", probs, logits)
        if logits is None:
            (self.probs,) = parameters(probs)
            check(self, "probs", (self.probs >= 0) & (self.probs <= 1), validate_args)
            edge = tc.finfo(self.probs.dtype).eps
            p = self.probs.clamp(edge, 1 - edge)
            self.logits = p.log() - tc.log1p(-p)
        else:
            (self.logits,) = parameters(logits)
            self.probs = self.logits.sigmoid()
        super().__init__(self.logits.shape)

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.probs

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return self.probs * (1 - self.probs)

    @no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return tc.bernoulli(self.probs.expand(self._extended(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        logits, value = tc.broadcast_tensors(self.logits, value)
        return -F.binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")


class Categorical(Distribution):
    """Classes 0 to n - 1 along the last dimension, by probabilities or unnormalised logarithms.

    >>> import tracecc as tc
    >>> Categorical(tc.tensor([1.0, 3.0])).probs
    tensor([0.2500, 0.7500])
    """

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        _one_of(type(self).__name__, probs, logits)
        if logits is None:
            self.probs = probs
            check(self, "probs", (probs >= 0).all(-1) & (probs.sum(-1) > 0), validate_args)
            self.probs = probs / probs.sum(-1, keepdim=True)
            edge = tc.finfo(probs.dtype).eps
            self.logits = self.probs.clamp(edge, 1 - edge).log()
        else:
            self.logits = logits - logits.logsumexp(-1, keepdim=True)
            self.probs = self.logits.exp()
        self._num_events = self.logits.shape[-1]
        super().__init__(self.logits.shape[:-1])

    @no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = (*sample_shape, *self._batch_shape)
        rows = self.probs.reshape(-1, self._num_events)
        count = 1
        for n in sample_shape:
            count *= n
        drawn = tc.multinomial(rows, count, replacement=True)
        return drawn.T.reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        value, _ = tc.broadcast_tensors(value.long(), self.logits[..., 0])
        logits = self.logits.expand(*value.shape, self._num_events)
        return logits.gather(-1, value.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        least = tc.finfo(self.logits.dtype).min
        return -(self.logits.clamp(min=least) * self.probs).sum(-1)

    @property
    def mode(self) -> Tensor:
        return self.probs.argmax(-1)


class OneHotCategorical(Categorical):
    """The same as rows with a single 1."""

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        super().__init__(probs, logits, validate_args)
        self._event_shape = self.logits.shape[-1:]

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.probs

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        drawn = super().sample(sample_shape)
        return F.one_hot(drawn, self._num_events).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value.argmax(-1))


class Poisson(Distribution):
    """Counts of events that come ``rate`` times on average."""

    def __init__(self, rate: Any, validate_args: bool | None = None):
        (self.rate,) = parameters(rate)
        check(self, "rate", self.rate >= 0, validate_args)
        super().__init__(self.rate.shape)

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.rate

    variance = mean

    @no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return tc.poisson(self.rate.expand(self._extended(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        return tc.xlogy(value, self.rate) - self.rate - tc.lgamma(value + 1)


class Independent(Distribution):
    """A distribution whose last batch dimensions are one event: their log probabilities add up."""

    def __init__(
        self,
        base_distribution: Distribution,
        reinterpreted_batch_ndims: int,
        validate_args: bool | None = None,
    ):
        shape = base_distribution.batch_shape
        if not 0 <= reinterpreted_batch_ndims <= len(shape):
            raise ValueError(
                "Expected reinterpreted_batch_ndims <= len(base_distribution.batch_shape), actual "
                f"{reinterpreted_batch_ndims} vs {len(shape)}"
            )
        self.base_dist, self._count = base_distribution, reinterpreted_batch_ndims
        self.has_rsample = base_distribution.has_rsample
        at = len(shape) - reinterpreted_batch_ndims
        super().__init__(shape[:at], (*shape[at:], *base_distribution.event_shape))

    def _added(self, t: Tensor) -> Tensor:
        return t.sum(tuple(range(-self._count, 0))) if self._count else t

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.base_dist.mean

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return self.base_dist.variance

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._added(self.base_dist.log_prob(value))

    def entropy(self) -> Tensor:
        return self._added(self.base_dist.entropy())
