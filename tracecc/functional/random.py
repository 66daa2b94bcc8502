"""Random tensors, drawn by Philox from a Generator: the same numbers eager and compiled."""

from __future__ import annotations

import math
import sys
from typing import Any

from tracecc.devices import check_device
from tracecc.functional.core import (
    check_keywords,
    default_dtype,
    emit,
    is_number,
    lift,
    sizes_from,
    splat,
    to_dtype,
)
from tracecc.functional.pointwise import add, mul
from tracecc.functional.subscript import write
from tracecc.random import Generator, draw
from tracecc.state import thread
from tracecc.tensor import Tensor
from tracecc_ir import ops
from tracecc_ir.types import DType, f32, f64, i64

Gen = Generator | None


def _uniform(shape: Any, dtype: DType, generator: Gen) -> Tensor:
    """Numbers in [0, 1); both parts of complex ones."""
    if dtype.is_complex:
        parts = [_uniform(shape, dtype.to_real(), generator) for _ in range(2)]
        return emit(ops.complex, *parts)
    kept = dtype if dtype in (f32, f64) else f32
    seed, position = draw(generator)
    return to_dtype(emit(ops.uniform, seed, position, shape=tuple(shape), dtype=kept), dtype)


def _normal(shape: Any, dtype: DType, generator: Gen) -> Tensor:
    """Numbers of mean 0 and variance 1, complex ones with half of it in each part."""
    if dtype.is_complex:
        parts = [_normal(shape, dtype.to_real(), generator) for _ in range(2)]
        return mul(emit(ops.complex, *parts), math.sqrt(0.5))
    kept = dtype if dtype in (f32, f64) else f32
    seed, position = draw(generator)
    return to_dtype(emit(ops.normal, seed, position, shape=tuple(shape), dtype=kept), dtype)


def _made(t: Tensor, requires_grad: bool) -> Tensor:
    t = t.detach()
    if requires_grad:
        t.requires_grad = True
    return t


def _float(name: str, dtype: DType | None) -> DType:
    dtype = default_dtype() if dtype is None else dtype
    if not dtype.is_inexact:
        raise NotImplementedError(f'"{name}" not implemented for {dtype.public}')
    return dtype


def rand(
    *size: Any,
    generator: Gen = None,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    **ignored: Any,
) -> Tensor:
    """Uniform numbers in [0, 1)."""
    check_device(device)
    shape = sizes_from(size or ((ignored.pop("size"),) if "size" in ignored else ()))
    check_keywords("rand", ignored)
    return _made(_uniform(shape, _float("rand", dtype), generator), requires_grad)


def randn(
    *size: Any,
    generator: Gen = None,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
    **ignored: Any,
) -> Tensor:
    """Standard normal numbers."""
    check_device(device)
    shape = sizes_from(size or ((ignored.pop("size"),) if "size" in ignored else ()))
    check_keywords("randn", ignored)
    return _made(_normal(shape, _float("randn", dtype), generator), requires_grad)


def _integers(low: int, high: int, shape: Any, generator: Gen) -> Tensor:
    """Uniform integers in [low, high) by scaling a 53-bit fraction, as int64."""
    if high <= low:
        raise RuntimeError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        )
    fraction = _uniform(shape, f64, generator)
    scaled = emit(ops.floor, emit(ops.mul, fraction, splat(float(high - low), shape, f64)))
    return emit(ops.add, to_dtype(scaled, i64), splat(low, shape, i64))


def randint(
    *arguments: Any,
    low: int | None = None,
    high: int | None = None,
    size: Any = None,
    generator: Gen = None,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform integers in [low, high): ``randint(high, size)`` or ``randint(low, high, size)``."""
    check_device(device)
    given = list(arguments)
    if size is None:
        if not given or not isinstance(given[-1], (tuple, list)):
            raise TypeError("randint() needs a size, a tuple of ints")
        size = given.pop()
    if len(given) == 2:
        low, high = given
    elif len(given) == 1:
        low, high = (0, given[0]) if high is None else (given[0], high)
    if high is None:
        raise TypeError("randint() needs an upper limit")
    t = _integers(int(low or 0), int(high), tuple(size), generator)
    return _made(to_dtype(t, dtype or i64), requires_grad)


def randperm(
    n: int,
    *,
    generator: Gen = None,
    dtype: DType | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A random permutation of 0 .. n-1: the order of random keys."""
    from tracecc.functional.sorting import argsort

    check_device(device)
    if n < 0:
        raise RuntimeError(f"randperm expects n >= 0, given {n}")
    keys = _uniform((n,), f64, generator)
    order = argsort(keys) if n else to_dtype(keys, i64)
    return _made(to_dtype(order, dtype or i64), requires_grad)


def rand_like(input: Tensor, *, dtype: DType | None = None, **keywords: Any) -> Tensor:
    """Uniform numbers of the shape and dtype of ``input``."""
    keywords.pop("memory_format", None)
    return rand(tuple(input._type.shape), dtype=dtype or input.dtype, **keywords)


def randn_like(input: Tensor, *, dtype: DType | None = None, **keywords: Any) -> Tensor:
    """Standard normal numbers of the shape and dtype of ``input``."""
    keywords.pop("memory_format", None)
    return randn(tuple(input._type.shape), dtype=dtype or input.dtype, **keywords)


def randint_like(
    input: Tensor, low: int, high: int | None = None, *, dtype: DType | None = None, **keywords: Any
) -> Tensor:
    """Uniform integers of the shape and dtype of ``input``."""
    keywords.pop("memory_format", None)
    low, high = (0, low) if high is None else (low, high)
    size = tuple(input._type.shape)
    return randint(low, high, size, dtype=dtype or input.dtype, **keywords)


def _check_weights(name: str, expected: str, weights: Any, most: float) -> None:
    """Refuses numbers outside of [0, most] and NaN; in a trace there are none to look at."""
    if isinstance(weights, Tensor):
        if weights._array is None or thread.trace is not None or not weights._type.size:
            return
        extremes = (float(weights._array.min()), float(weights._array.max()))
    else:
        extremes = (weights, weights)
    for value in extremes:
        if not 0.0 <= value <= most:
            raise RuntimeError(f"{name} expects {expected}, given {value}")


def bernoulli(input: Tensor, p: Any = None, *, generator: Gen = None) -> Tensor:
    """1 with the probability that each element gives (or ``p``), else 0."""
    if p is None and input.dtype.kind != "float":
        raise RuntimeError(f"bernoulli expects float probabilities, given {input.dtype.public}")
    _check_weights("bernoulli", "probabilities in [0, 1]", input if p is None else p, 1.0)
    shape = input._type.shape
    dtype = f64 if input.dtype is f64 and p is None else f32
    chance = lift(input if p is None else p, dtype, shape)
    hit = emit(ops.lt, _uniform(shape, dtype, generator), chance)
    return to_dtype(hit, input.dtype)


def normal(
    mean: Any,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Gen = None,
    dtype: DType | None = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """Normal numbers with the given means and standard deviations."""
    from tracecc.functional.core import broadcast_shapes, promoted, shape_of

    check_device(device)
    if is_number(std) and std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    shape = broadcast_shapes(shape_of(mean), shape_of(std)) if size is None else tuple(size)
    found = promoted(mean, std) if dtype is None else dtype
    t = _normal(shape, _float("normal", found), generator)
    return _made(add(mul(t, std), mean), requires_grad)


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Gen = None
) -> Tensor:
    """Class indices drawn with the given weights, by the exponential race or the cumulative sum."""
    from tracecc.functional.pointwise import div, log, neg
    from tracecc.functional.reductions import cumsum, sum
    from tracecc.functional.sorting import searchsorted, topk

    if input.dtype.kind != "float" or not 1 <= input.ndim <= 2:
        raise RuntimeError(f"multinomial expects 1-d or 2-d float weights, given {input._type!r}")
    _check_weights("multinomial", "finite weights >= 0", input, sys.float_info.max)
    n: Any = input._type.shape[-1]
    if replacement:
        steps = cumsum(input, -1)
        at = _uniform((*input._type.shape[:-1], num_samples), input.dtype, generator)
        return searchsorted(steps, mul(at, sum(input, -1, True)), right=True)
    if num_samples > n:
        raise RuntimeError(
            "cannot sample n_sample > prob_dist.size(-1) samples without replacement, "
            f"given {num_samples} of {n}"
        )
    at = _uniform(input._type.shape, input.dtype, generator)
    race = div(neg(log(add(neg(at), 1.0))), input)
    return topk(race, num_samples, -1, largest=False).indices


def poisson(input: Tensor, generator: Gen = None) -> Tensor:
    """Poisson counts with the given rates, eager only."""
    import numpy as np

    from tracecc.tensor import wrap

    seed = int(_integers(0, 2**53, (), generator)._numpy())
    counts = np.random.default_rng(seed).poisson(input.detach()._numpy())
    return wrap(np.asarray(counts).astype(input.dtype.numpy))


# In place.


def uniform_(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Gen = None) -> Tensor:
    """Overwrites with uniform numbers in [a, b)."""
    if a > b:
        raise RuntimeError(
            f"uniform_ expects to return a [from, to) range, but found from={a} > to={b}"
        )
    t = _uniform(self._type.shape, _float("uniform_", self.dtype), generator)
    return write(self, add(mul(t, b - a), a).detach())


def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Gen = None) -> Tensor:
    """Overwrites with normal numbers."""
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    t = _normal(self._type.shape, _float("normal_", self.dtype), generator)
    return write(self, add(mul(t, std), mean).detach())


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Gen = None) -> Tensor:
    """Overwrites with 1 with probability ``p``, else 0."""
    return write(self, bernoulli(self.detach(), p, generator=generator))


def random_(
    self: Tensor, low: int = 0, high: int | None = None, *, generator: Gen = None
) -> Tensor:
    """Overwrites with uniform integers in [low, high)."""
    low, high = (0, low) if high is None and low else (low, high or _limit(self.dtype))
    return write(self, to_dtype(_integers(low, high, self._type.shape, generator), self.dtype))


def _limit(dtype: DType) -> int:
    if dtype.kind == "float":
        return 2 ** {16: 8, 32: 24, 64: 53}[dtype.bits]
    return 2 if dtype.kind == "bool" else int(2 ** min(dtype.bits - dtype.is_signed, 53)) - 1


def _from_uniform(self: Tensor, name: str, generator: Gen) -> Tensor:
    """Uniform numbers in (0, 1], so that their logarithm is finite."""
    t = _uniform(self._type.shape, _float(name, self.dtype), generator)
    return add(mul(t, -1.0), 1.0)


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Gen = None) -> Tensor:
    """Overwrites with exponential numbers of rate ``lambd``."""
    from tracecc.functional.pointwise import log

    if lambd <= 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    t = mul(log(_from_uniform(self, "exponential_", generator)), -1.0 / lambd)
    return write(self, t.detach())


def cauchy_(
    self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Gen = None
) -> Tensor:
    """Overwrites with Cauchy numbers."""
    from tracecc.functional.pointwise import tan

    t = _uniform(self._type.shape, _float("cauchy_", self.dtype), generator)
    t = tan(mul(add(t, -0.5), math.pi))
    return write(self, add(mul(t, sigma), median).detach())


def log_normal_(
    self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Gen = None
) -> Tensor:
    """Overwrites with numbers whose logarithms are normal."""
    from tracecc.functional.pointwise import exp

    t = _normal(self._type.shape, _float("log_normal_", self.dtype), generator)
    return write(self, exp(add(mul(t, std), mean)).detach())


def geometric_(self: Tensor, p: float, *, generator: Gen = None) -> Tensor:
    """Overwrites with the number of trials until the first success of probability ``p``."""
    from tracecc.functional.pointwise import ceil, log

    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    u = _uniform(self._type.shape, f64, generator)
    t = ceil(mul(log(add(mul(u, -1.0), 1.0)), 1 / math.log(1 - p)))
    return write(self, to_dtype(t, self.dtype).detach())
