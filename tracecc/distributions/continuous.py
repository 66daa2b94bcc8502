"""Distributions over real numbers and vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tracecc as tc
from tracecc.distributions.distribution import Distribution, check, parameters
from tracecc.tensor import Tensor

LOG_2PI = math.log(2 * math.pi)


class _LocationScale(Distribution):
    """Draws are ``loc + scale * z`` with a fixed law of ``z``."""

    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        self.loc, self.scale = parameters(loc, scale)
        check(self, "scale", self.scale > 0, validate_args)
        super().__init__(self.loc.shape)

    def _standard(self, shape: Sequence[int]) -> Tensor:
        """Draws of ``z``."""
        raise TypeError(f"{type(self).__name__} must define _standard()")

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc + self.scale * self._standard(self._extended(sample_shape))

    def _z(self, value: Tensor) -> Tensor:
        return (value - self.loc) / self.scale


class Normal(_LocationScale):
    """The normal distribution with mean ``loc`` and standard deviation ``scale``.

    >>> import tracecc as tc
    >>> Normal(0.0, 1.0).log_prob(tc.tensor(1.0))
    tensor(-1.4189)
    """

    def _standard(self, shape: Sequence[int]) -> Tensor:
        return tc.randn(shape, dtype=self.loc.dtype)

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.loc

    mode = mean

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return self.scale.square()

    def log_prob(self, value: Tensor) -> Tensor:
        return -self._z(value).square() / 2 - self.scale.log() - LOG_2PI / 2

    def cdf(self, value: Tensor) -> Tensor:
        return (1 + tc.erf(self._z(value) / math.sqrt(2))) / 2

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * tc.erfinv(2 * value - 1) * math.sqrt(2)

    def entropy(self) -> Tensor:
        return 0.5 + LOG_2PI / 2 + self.scale.log()


class LogNormal(Normal):
    """What the exponential of a normal draw has."""

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return super().rsample(sample_shape).exp()

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return (self.loc + self.scale.square() / 2).exp()

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        square = self.scale.square()
        return tc.expm1(square) * (2 * self.loc + square).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value.log()) - value.log()

    def cdf(self, value: Tensor) -> Tensor:
        return super().cdf(value.log())

    def entropy(self) -> Tensor:
        return super().entropy() + self.loc


class Laplace(_LocationScale):
    """The double exponential distribution."""

    def _standard(self, shape: Sequence[int]) -> Tensor:
        u = tc.rand(shape, dtype=self.loc.dtype) * 2 - 1
        return -u.sign() * tc.log1p(-u.abs())

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.loc

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return 2 * self.scale.square()

    def log_prob(self, value: Tensor) -> Tensor:
        return -(2 * self.scale).log() - self._z(value).abs()

    def cdf(self, value: Tensor) -> Tensor:
        z = self._z(value)
        return 0.5 - 0.5 * z.sign() * tc.expm1(-z.abs())

    def entropy(self) -> Tensor:
        return 1 + (2 * self.scale).log()


class Gumbel(_LocationScale):
    """The distribution of the largest of many draws."""

    def _standard(self, shape: Sequence[int]) -> Tensor:
        u = tc.rand(shape, dtype=self.loc.dtype).clamp(min=tc.finfo(self.loc.dtype).tiny)
        return -(-u.log()).log()

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.loc + self.scale * 0.57721566490153286060

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return (math.pi**2 / 6) * self.scale.square()

    def log_prob(self, value: Tensor) -> Tensor:
        z = self._z(value)
        return -(z + (-z).exp()) - self.scale.log()

    def entropy(self) -> Tensor:
        return self.scale.log() + 1 + 0.57721566490153286060


class Uniform(Distribution):
    """Numbers in [low, high), all alike."""

    has_rsample = True

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None):
        self.low, self.high = parameters(low, high)
        check(self, "high", self.low < self.high, validate_args)
        super().__init__(self.low.shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = tc.rand(self._extended(sample_shape), dtype=self.low.dtype)
        return self.low + u * (self.high - self.low)

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return (self.high + self.low) / 2

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return (self.high - self.low).square() / 12

    def log_prob(self, value: Tensor) -> Tensor:
        inside = (value >= self.low) & (value < self.high)
        return tc.where(inside, -(self.high - self.low).log(), -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def entropy(self) -> Tensor:
        return (self.high - self.low).log()


class Exponential(Distribution):
    """Waiting times with ``rate`` events in a unit of time."""

    has_rsample = True

    def __init__(self, rate: Any, validate_args: bool | None = None):
        (self.rate,) = parameters(rate)
        check(self, "rate", self.rate > 0, validate_args)
        super().__init__(self.rate.shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = tc.rand(self._extended(sample_shape), dtype=self.rate.dtype)
        return -tc.log1p(-u) / self.rate

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.rate.reciprocal()

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return self.rate.pow(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.rate.log() - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        return -tc.expm1(-self.rate * value)

    def entropy(self) -> Tensor:
        return 1.0 - self.rate.log()


class MultivariateNormal(Distribution):
    """Normal vectors with mean ``loc`` [.., n] and one of three descriptions of their covariance.

    Args:
        loc: the means.
        covariance_matrix: [.., n, n], positive definite.
        precision_matrix: its inverse instead.
        scale_tril: its lower Cholesky factor instead.
    """

    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        given = [m for m in (covariance_matrix, precision_matrix, scale_tril) if m is not None]
        if len(given) != 1:
            raise ValueError(
                "Exactly one of covariance_matrix or precision_matrix or scale_tril may be "
                f"specified, given {len(given)}"
            )
        (matrix,) = given
        if precision_matrix is not None:
            matrix = tc.linalg.inv(precision_matrix)
        factor = matrix if scale_tril is not None else tc.linalg.cholesky(matrix)
        n, batch = loc.shape[-1], tc.broadcast_shapes(loc.shape[:-1], factor.shape[:-2])
        self.loc, self.scale_tril = loc.expand(*batch, n), factor.expand(*batch, n, n)
        super().__init__(batch, (n,))

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return self.loc

    mode = mean

    @property
    def covariance_matrix(self) -> Tensor:
        return self.scale_tril @ self.scale_tril.mT

    @property
    def variance(self) -> Tensor:  # type: ignore[override]
        return self.scale_tril.square().sum(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        z = tc.randn(self._extended(sample_shape), dtype=self.loc.dtype)
        return self.loc + (self.scale_tril @ z.unsqueeze(-1)).squeeze(-1)

    def _half_log_det(self) -> Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        away = (value - self.loc).unsqueeze(-1)
        factor = self.scale_tril.expand(*away.shape[:-2], *self.scale_tril.shape[-2:])
        z = tc.linalg.solve_triangular(factor, away, upper=False).squeeze(-1)
        n = self._event_shape[0]
        return -0.5 * (n * LOG_2PI + z.square().sum(-1)) - self._half_log_det()

    def entropy(self) -> Tensor:
        return 0.5 * self._event_shape[0] * (1 + LOG_2PI) + self._half_log_det()
