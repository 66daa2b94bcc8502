"""Integrals and derivatives of samples, and statistics: covariance, quantiles, histograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracecc.functional.complex import adjoint, complex, imag, real
from tracecc.functional.core import (
    Dims,
    emit,
    expanded,
    is_number,
    reshaped,
    splat,
    to_dtype,
    to_float,
    wrap_dim,
)
from tracecc.functional.joining import cat
from tracecc.functional.linalg import matmul
from tracecc.functional.logic import isnan
from tracecc.functional.pointwise import add, clamp, clone, div, lerp, mul, sqrt, sub, where
from tracecc.functional.reductions import ValuesIndices, cumsum
from tracecc.functional.reductions import mean as mean_
from tracecc.functional.reductions import sum as sum_
from tracecc.functional.shape import diagonal, movedim, narrow, squeeze
from tracecc.functional.sorting import sort
from tracecc.tensor import Tensor, wrap
from tracecc_ir import ops
from tracecc_ir.types import i64

# Integrals.


def _neighbours(y: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    n: Any = y._type.shape[axis]
    return narrow(y, axis, 1, n - 1), narrow(y, axis, 0, n - 1)


def _areas(name: str, y: Tensor, x: Tensor | None, dx: Any, dim: int) -> tuple[Tensor, int]:
    """The areas under the pieces of a curve."""
    axis = wrap_dim(dim, y.ndim)
    if not y._type.shape[axis]:
        return mul(y, dx if is_number(dx) else 1.0), axis
    right, left = _neighbours(y, axis)
    if x is None:
        return mul(div(add(right, left), 2.0), dx), axis
    if x.ndim == 1:
        if x._type.shape[0] != y._type.shape[axis]:
            raise RuntimeError(
                f"{name}: There must be one `x` value for each sample point, given "
                f"{x._type.shape[0]} for {y._type.shape[axis]}"
            )
        x = reshaped(x, tuple(x._type.size if d == axis else 1 for d in range(y.ndim)))
        step = sub(*_neighbours(x, axis))
    else:
        step = sub(*_neighbours(x, wrap_dim(dim, x.ndim)))
    return div(mul(add(right, left), step), 2.0), axis


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral of samples by the trapezoidal rule, at places ``x`` or ``dx`` apart."""
    areas, axis = _areas("trapezoid", y, x, 1.0 if dx is None else dx, dim)
    return sum_(areas, axis - y.ndim)


trapz = trapezoid


def cumulative_trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1
) -> Tensor:
    """The integral up to each sample but the first."""
    areas, axis = _areas("cumulative_trapezoid", y, x, 1.0 if dx is None else dx, dim)
    return cumsum(areas, axis - y.ndim)


# Derivatives.


def gradient(
    input: Tensor, *, spacing: Any = 1, dim: Dims = None, edge_order: int = 1
) -> tuple[Tensor, ...]:
    """Second-order estimates of the partial derivatives along ``dim`` (all by default).

    Args:
        input: samples of a function.
        spacing: one distance, one per dimension, or one vector of coordinates per dimension.
        dim: the dimensions.
        edge_order: 1 or 2, the order of the estimates at the ends.
    """
    if edge_order not in (1, 2):
        raise RuntimeError(
            f"torch.gradient only supports edge_order=1 and edge_order=2, given {edge_order}"
        )
    spacing = 1 if spacing is None else spacing
    if dim is None:
        given = len(spacing) if isinstance(spacing, (list, tuple)) else input.ndim
        dims = tuple(range(input.ndim))[:given] if given != input.ndim else tuple(range(input.ndim))
    else:
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
    steps: Any = spacing
    if isinstance(spacing, Tensor) or is_number(spacing):
        steps = [spacing] * len(dims)
    if len(steps) != len(dims):
        raise RuntimeError(
            f"torch.gradient expected spacing to be unspecified, a scalar, or a list of one per "
            f"dimension ({len(dims)}), given {len(steps)}"
        )
    axes = [wrap_dim(d, input.ndim) for d in dims]
    for axis in axes:
        if input._type.shape[axis] < edge_order + 1:  # type: ignore[operator]
            raise RuntimeError(
                "torch.gradient expected each dimension size to be at least edge_order+1"
            )
    return tuple(
        _derivative(to_float(input), axis, step, edge_order)
        for axis, step in zip(axes, steps, strict=True)
    )


def _derivative(f: Tensor, axis: int, step: Any, edge_order: int) -> Tensor:
    n: Any = f._type.shape[axis]

    def at(start: int, length: int) -> Tensor:
        return narrow(f, axis, start, length)

    if isinstance(step, Tensor) and step.ndim == 1:
        shape = tuple(n - 1 if d == axis else 1 for d in range(f.ndim))
        h = reshaped(sub(narrow(step, 0, 1, n - 1), narrow(step, 0, 0, n - 1)), shape)
    else:
        h = None
    gap: Callable[[int], Any] = (
        (lambda i: narrow(h, axis, i, 1)) if h is not None else (lambda i: step)
    )
    parts = []
    if n > 2:
        if h is None:
            middle = div(sub(at(2, n - 2), at(0, n - 2)), mul_any(step, 2.0))
        else:
            a, b = narrow(h, axis, 0, n - 2), narrow(h, axis, 1, n - 2)
            total = add(a, b)
            below = mul(at(0, n - 2), div(mul(b, -1.0), mul(a, total)))
            centre = mul(at(1, n - 2), div(sub(b, a), mul(a, b)))
            middle = add(add(below, centre), mul(at(2, n - 2), div(a, mul(b, total))))
        parts = [middle]
    if edge_order == 1:
        first = div(sub(at(1, 1), at(0, 1)), gap(0))
        last = div(sub(at(n - 1, 1), at(n - 2, 1)), gap(n - 2))
    else:
        first = _one_sided(at(0, 1), at(1, 1), at(2, 1), gap(0), gap(1))
        last = _one_sided(at(n - 1, 1), at(n - 2, 1), at(n - 3, 1), gap(n - 2), gap(n - 3))
        last = mul(last, -1.0)
    return cat([first, *parts, last], axis)


def mul_any(step: Any, factor: float) -> Any:
    return mul(step, factor) if isinstance(step, Tensor) else step * factor


def _one_sided(f0: Tensor, f1: Tensor, f2: Tensor, a: Any, b: Any) -> Tensor:
    """The derivative at the first of three points that are ``a`` and ``b`` apart."""
    if not isinstance(a, Tensor):
        total = a + b
        weights = (-(2 * a + b) / (a * total), total / (a * b), -a / (b * total))
        terms = [mul(f, w) for f, w in zip((f0, f1, f2), weights, strict=True)]
    else:
        total = add(a, b)
        start = mul(f0, div(mul(add(mul(a, 2.0), b), -1.0), mul(a, total)))
        terms = [start, mul(f1, div(total, mul(a, b)))]
        terms.append(mul(f2, div(mul(a, -1.0), mul(b, total))))
    return add(add(terms[0], terms[1]), terms[2])


# Covariance.


def cov(
    input: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """The covariance matrix of variables (rows) over observations (columns).

    Args:
        input: [variables, observations], or one variable.
        correction: 1 for the unbiased estimate.
        fweights: how often each observation counts, integers.
        aweights: how much each observation counts.
    """
    if input.ndim > 2:
        raise RuntimeError(
            f"cov(): expected input to have two or fewer dimensions but got an input with "
            f"{input.ndim} dimensions"
        )
    n: Any = input._type.shape[-1] if input.ndim else 1
    x = to_float(reshaped(input, (input._type.size // n if n else 1, n)))
    weights = None
    if fweights is not None:
        weights = fweights
    if aweights is not None:
        weights = aweights if weights is None else mul(weights, aweights)
    if weights is None:
        total: Any = n
        centred = sub(x, mean_(x, 1, True))
        scaled = centred
        norm: Any = max(total - correction, 0)
    else:
        w = to_dtype(weights, x.dtype.to_real())
        total = sum_(w)
        centred = sub(x, div(sum_(mul(x, w), 1, True), total))
        scaled = mul(centred, w)
        norm = _normaliser(total, w, aweights, correction)
        norm = clamp(norm, min=0)
    product = matmul(scaled, adjoint(centred))
    result = div(product, norm) if isinstance(norm, Tensor) or norm else div(product, 0.0)
    return reshaped(result, ()) if result._type.size == 1 else result


def _normaliser(total: Tensor, w: Tensor, aweights: Tensor | None, correction: int) -> Tensor:
    if aweights is None or not correction:
        return sub(total, correction)
    share = div(sum_(mul(w, to_dtype(aweights, w.dtype))), total)
    return sub(total, mul(share, correction))


def corrcoef(input: Tensor) -> Tensor:
    """The Pearson correlation coefficients of variables (rows) over observations (columns)."""
    if input.ndim > 2:
        raise RuntimeError(
            f"corrcoef(): expected input to have two or fewer dimensions but got an input with "
            f"{input.ndim} dimensions"
        )
    c = cov(input)
    if c.ndim == 0:
        return div(c, c)
    deviation = sqrt(real(diagonal(c)))
    n = deviation._type.size
    c = div(div(c, reshaped(deviation, (n, 1))), reshaped(deviation, (1, n)))
    if c.dtype.is_complex:
        return complex(clamp(real(c), -1, 1), clamp(imag(c), -1, 1))
    return clamp(c, -1, 1)


# Quantiles.


def quantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The values below which shares ``q`` (a number or a vector in [0, 1]) of the elements lie.

    ``interpolation`` between neighbours is "linear", "lower", "higher", "midpoint" or "nearest";
    NaN wins.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


def nanquantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """`quantile` of the elements that are not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


def _quantile(
    name: str, input: Tensor, q: Any, dim: int | None, keepdim: bool, how: str, skip_nan: bool
) -> Tensor:
    if input.dtype.kind != "float":
        raise RuntimeError(
            f"{name}() input tensor must be either float or double dtype, given "
            f"{input.dtype.public}"
        )
    if how not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise RuntimeError(
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, "
            f"but got {how}"
        )
    if not isinstance(q, Tensor):
        if not 0 <= q <= 1:
            raise RuntimeError(f"{name}() q values must be in the range [0, 1], given {q}")
        q = splat(q, (), input.dtype)
    if q.dtype is not input.dtype:
        raise RuntimeError(
            f"{name}() q tensor must be same dtype as the input tensor, given "
            f"{q.dtype.public} and {input.dtype.public}"
        )
    if not input._type.size:
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    axis = 0 if dim is None else wrap_dim(dim, input.ndim)
    x = reshaped(input, (input._type.size,)) if dim is None or not input.ndim else input
    x = movedim(x, axis, -1)
    n: Any = x._type.shape[-1]
    x = sort(x, -1)[0]
    points = reshaped(q, (q._type.size,))
    shape = (*x._type.shape[:-1], points._type.size)
    points = expanded(points, shape)
    bad = isnan(x)
    if skip_nan:
        count = sub(n, sum_(to_dtype(bad, i64), -1, True))
        rank = mul(points, to_dtype(clamp(sub(count, 1), min=0), x.dtype))
    else:
        rank = mul(points, float(n - 1))
        rank = where(narrow(bad, -1, n - 1, 1), float(n - 1), rank)
    if how == "lower":
        rank = emit(ops.floor, rank)
    elif how == "higher":
        rank = emit(ops.ceil, rank)
    elif how == "nearest":
        rank = emit(ops.round, rank)
    low = emit(ops.floor, rank.detach())
    high = emit(ops.ceil, rank.detach())
    below = emit(ops.gather_along, x, to_dtype(low, i64), axis=x.ndim - 1)
    found = below
    if how in ("linear", "midpoint"):
        above = emit(ops.gather_along, x, to_dtype(high, i64), axis=x.ndim - 1)
        found = lerp(below, above, 0.5 if how == "midpoint" else sub(rank, low))
    return _placed(found, q, axis, input, dim, keepdim)


def _placed(
    found: Tensor, q: Tensor, axis: int, input: Tensor, dim: int | None, keepdim: bool
) -> Tensor:
    """The results for several q come first; the reduced dimension stays if asked for."""
    found = movedim(found, -1, 0)
    rest: list[Any] = list(found._type.shape[1:])
    if keepdim:
        kept: list[Any] = [1] * input.ndim
        if dim is not None and input.ndim:
            kept = [*rest[:axis], 1, *rest[axis:]]
        rest = kept
    lead: list[Any] = [q._type.size] if q.ndim else []
    return reshaped(clone(found), [*lead, *rest])


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """The most frequent value along ``dim`` (the smallest of several), and its last position."""
    if input.ndim == 0:
        return ValuesIndices(clone(input), wrap(np.zeros((), np.int64)))
    axis = wrap_dim(dim, input.ndim)
    if not input._type.shape[axis]:
        raise IndexError(f"mode(): Expected reduction dim {axis} to have non-zero size.")
    x, order = sort(input.detach(), axis, stable=True)
    shape: Any = x._type.shape
    here = emit(ops.iota, shape=shape, axis=axis, dtype=i64)
    # A run of equal values starts where one differs from the value before.
    before = cat([narrow(x, axis, 0, 1), narrow(x, axis, 0, shape[axis] - 1)], axis)
    starts = where(emit(ops.ne, x, before), here, 0)
    length = sub(here, emit(ops.cummax, starts, axis=axis))
    end = emit(ops.argmax, length, axis=axis)
    end = reshaped(end, tuple(1 if d == axis else shape[d] for d in range(x.ndim)))
    at = emit(ops.gather_along, order, end, axis=axis)
    values = emit(ops.gather_along, input, at, axis=axis)
    if keepdim:
        return ValuesIndices(values, at)
    return ValuesIndices(clone(squeeze(values, axis)), clone(squeeze(at, axis)))


# Histograms.


def histogram(
    input: Tensor,
    bins: Any,
    *,
    range: Any = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> tuple[Tensor, Tensor]:
    """How many elements (or how much weight) fall into each bin, and the bins' edges."""
    x = input.detach()._numpy().reshape(-1)
    w = None if weight is None else weight.detach()._numpy().reshape(-1)
    edges = bins.detach()._numpy() if isinstance(bins, Tensor) else bins
    limits = None if range is None else tuple(range)
    if limits is None and not isinstance(bins, Tensor):
        limits = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
        if limits[0] == limits[1]:
            limits = (limits[0] - 0.5, limits[1] + 0.5) if x.size else (0.0, 1.0)
    counts, found = np.histogram(x, edges, limits, weights=w, density=density)
    dtype = input.dtype.numpy
    return wrap(counts.astype(dtype)), wrap(found.astype(dtype))


def histogramdd(
    input: Tensor,
    bins: Any,
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """`histogram` of points [.., d] in d dimensions."""
    array = input.detach()._numpy()
    points = array.reshape(-1, array.shape[-1])
    d = points.shape[1]
    w = None if weight is None else weight.detach()._numpy().reshape(-1)
    if isinstance(bins, int):
        edges: Any = [bins] * d
    else:
        edges = [b.detach()._numpy() if isinstance(b, Tensor) else b for b in bins]
    limits: Any = None if range is None else np.asarray(range).reshape(d, 2).tolist()
    if limits is None and points.size == 0:
        limits = [(0.0, 1.0)] * d
    counts, found = np.histogramdd(points, edges, limits, weights=w, density=density)
    dtype = input.dtype.numpy
    return wrap(counts.astype(dtype)), [wrap(e.astype(dtype)) for e in found]
