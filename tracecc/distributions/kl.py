"""The Kullback-Leibler divergence between two distributions of one kind."""

from __future__ import annotations

import functools
from typing import Any

import tracecc as tc
from tracecc.distributions.continuous import Exponential, MultivariateNormal, Normal, Uniform
from tracecc.distributions.discrete import Bernoulli, Categorical, Independent, Poisson
from tracecc.distributions.distribution import Distribution
from tracecc.tensor import Tensor


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The mean of ``p.log_prob(x) - q.log_prob(x)`` over draws ``x`` of ``p``, by a formula.

    Raises:
        NotImplementedError: there is no formula for these two.

    >>> kl_divergence(Normal(0.0, 1.0), Normal(1.0, 1.0))
    tensor(0.5000)
    """
    if type(p) is not type(q):
        raise NotImplementedError(
            f"no KL divergence is known from {type(p).__name__} to {type(q).__name__}"
        )
    return _from(p, q)


@functools.singledispatch
def _from(p: Any, q: Any) -> Tensor:
    raise NotImplementedError(f"no KL divergence is known between two {type(p).__name__}")


@_from.register
def _(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale).square()
    shift = ((p.loc - q.loc) / q.scale).square()
    return 0.5 * (ratio + shift - 1 - ratio.log())


@_from.register
def _(p: Uniform, q: Uniform) -> Tensor:
    inside = (q.low <= p.low) & (p.high <= q.high)
    return tc.where(inside, ((q.high - q.low) / (p.high - p.low)).log(), tc.inf)


@_from.register
def _(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - ratio.log() - 1


@_from.register
def _(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@_from.register
def _(p: Bernoulli, q: Bernoulli) -> Tensor:
    def part(a: Tensor, b: Tensor) -> Tensor:
        found = tc.xlogy(a, a) - tc.xlogy(a, b)
        return tc.where((b == 0) & (a != 0), tc.inf, found)

    return part(p.probs, q.probs) + part(1 - p.probs, 1 - q.probs)


@_from.register
def _(p: Categorical, q: Categorical) -> Tensor:
    terms = p.probs * (p.logits - q.logits)
    terms = tc.where((q.probs == 0).expand_as(terms), tc.inf, terms)
    return tc.where((p.probs == 0).expand_as(terms), 0.0, terms).sum(-1)


@_from.register
def _(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    shape = (*tc.broadcast_shapes(p.batch_shape, q.batch_shape), *p.scale_tril.shape[-2:])
    mine, theirs = p.scale_tril.expand(shape), q.scale_tril.expand(shape)
    spread = tc.linalg.solve_triangular(theirs, mine, upper=False).square().sum((-2, -1))
    away = (q.loc - p.loc).expand(shape[:-1]).unsqueeze(-1)
    shift = tc.linalg.solve_triangular(theirs, away, upper=False).square().sum((-2, -1))
    return q._half_log_det() - p._half_log_det() + 0.5 * (spread + shift - shape[-1])


@_from.register
def _(p: Independent, q: Independent) -> Tensor:
    return p._added(kl_divergence(p.base_dist, q.base_dist))
