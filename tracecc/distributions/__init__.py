"""Probability distributions: densities, draws, entropies and divergences, with PyTorch's names."""

from tracecc.distributions.continuous import (
    Exponential,
    Gumbel,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    Uniform,
)
from tracecc.distributions.discrete import (
    Bernoulli,
    Categorical,
    Independent,
    OneHotCategorical,
    Poisson,
)
from tracecc.distributions.distribution import Distribution
from tracecc.distributions.kl import kl_divergence

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "Exponential",
    "Gumbel",
    "Independent",
    "Laplace",
    "LogNormal",
    "MultivariateNormal",
    "Normal",
    "OneHotCategorical",
    "Poisson",
    "Uniform",
    "kl_divergence",
]
