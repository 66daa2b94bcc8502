"""Pooling: reductions over sliding windows of the trailing dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tracecc_ir.dims import product
from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Expr, Op, Sample, Usual
from tracecc_ir.ops.convolution import counts_of, padded, taps, unpadded, windowed_sizes
from tracecc_ir.ops.index import scatter_along
from tracecc_ir.ops.movement import reshape
from tracecc_ir.ops.rules import NUMBERS, check_length, draw, narrow, spatial_usuals, wide
from tracecc_ir.types import DType, Shape, TensorType, i64

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def _windows(
    name: str, x: TensorType, window: Ints, stride: Ints, padding: Padding, dilation: Ints
) -> TensorType:
    rank = len(window)
    check_length(name, x, rank, stride=stride, padding=padding, dilation=dilation)
    if not 1 <= rank <= x.ndim:
        raise TypeRuleError(f"{name} of {x} cannot slide a window of {rank} dimensions")
    lead = x.ndim - rank
    sizes = windowed_sizes(name, x.shape[lead:], window, stride, padding, dilation)
    return x.with_shape((*x.shape[:lead], *sizes))


def _window_max_type(
    x: TensorType, *, window: Ints, stride: Ints, padding: Padding, dilation: Ints
) -> tuple[TensorType, TensorType]:
    values = _windows("window_max", x, window, stride, padding, dilation)
    for k, (low, high), d in zip(window, padding, dilation, strict=True):
        if low > (k - 1) * d or high > (k - 1) * d:
            raise TypeRuleError(
                f"window_max of {x} may not have windows of padding alone, given "
                f"padding={(low, high)} for a window of {k} with dilation {d}"
            )
    return values, values.with_dtype(i64)


def _window_max(
    x: np.ndarray, window: Ints, stride: Ints, padding: Padding, dilation: Ints
) -> tuple[np.ndarray, np.ndarray]:
    w, spatial = wide(x), x.shape[x.ndim - len(window) :]
    lowest = -np.inf if w.dtype.kind == "f" else np.iinfo(w.dtype).min
    source = padded(w, padding, lowest)
    inside = padded(np.arange(math.prod(spatial)).reshape(spatial), padding, -1)
    counts = counts_of(spatial, window, stride, padding, dilation)
    reads = [index for _, index in taps(window, counts, stride, dilation)]
    values = np.stack([source[index] for index in reads])
    positions = np.stack([inside[index] for index in reads])
    positions = positions.reshape(len(reads), *[1] * (x.ndim - len(window)), *counts)
    best = values.max(axis=0)
    # Padding is never chosen, even where all the numbers are -inf.
    candidates = ((values == best) | np.isnan(values)) & (positions >= 0)
    positions = np.broadcast_to(positions, values.shape)
    first = np.take_along_axis(positions, candidates.argmax(axis=0)[None], axis=0)[0]
    return narrow(best, x.dtype), np.maximum(first, 0)


def _flat(x: Expr, rank: int) -> Expr:
    lead = x.shape[: x.ndim - rank]
    return reshape(x, shape=(*lead, product(x.shape[x.ndim - rank :])))


def _window_max_vjp(gs: tuple, outs: tuple, x: Expr, window: Ints, **attrs: Any) -> tuple:
    """Each window's gradient goes to its maximum: a scatter over the flat spatial positions."""
    rank = len(window)
    index, g = _flat(outs[1], rank), _flat(gs[0], rank)
    zeros = _flat(x.full(0), rank)
    dx = scatter_along(zeros, index, g, axis=x.ndim - rank, mode="add")
    return (reshape(dx, shape=x.shape),)


# Input sizes, window, stride, padding, dilation.
CASES: tuple[tuple[Ints, Ints, Ints, Padding, Ints], ...] = (
    ((2, 3, 6, 6), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    ((1, 2, 7, 5), (3, 2), (1, 2), ((1, 1), (1, 0)), (1, 2)),
    ((9,), (3,), (2,), ((1, 2),), (2,)),
    ((2, 4, 3, 5), (2, 1, 3), (1, 1, 2), ((1, 0), (0, 0), (0, 2)), (1, 1, 1)),
    ((0, 4), (2,), (2,), ((0, 0),), (1,)),
)


def _window_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for shape, *rest in CASES:
        names = ("window", "stride", "padding", "dilation")
        yield Sample((draw(rng, dtype, *shape),), dict(zip(names, rest, strict=True)))


USUAL = {
    **spatial_usuals(lambda operands, given: len(given.get("window", ()))),
    "stride": Usual("window", lambda operands, result, given: given.get("window")),
}

window_max: Op = Op(
    "window_max",
    "window",
    _window_max_type,
    _window_max,
    _window_max_vjp,
    dtypes=NUMBERS,
    samples=_window_samples,
    usual=USUAL,
    doc="maxima of windows, and each one's flat position in the input's trailing dimensions; "
    "padding acts as -inf, the first maximum wins, NaN above all",
)


def _window_sum_type(
    x: TensorType, *, window: Ints, stride: Ints, padding: Padding, dilation: Ints
) -> TensorType:
    return _windows("window_sum", x, window, stride, padding, dilation)


def _window_sum(
    x: np.ndarray, window: Ints, stride: Ints, padding: Padding, dilation: Ints
) -> np.ndarray:
    source, lead = padded(wide(x), padding), x.ndim - len(window)
    counts = counts_of(x.shape[lead:], window, stride, padding, dilation)
    result = np.zeros(x.shape[:lead] + counts, source.dtype)
    with np.errstate(all="ignore"):
        for _, index in taps(window, counts, stride, dilation):
            result += source[index]
    return narrow(result, x.dtype)


def _window_sum_vjp(g: Expr, y: Expr, x: Expr, window: Ints, **attrs: Any) -> Any:
    spatial = x.shape[x.ndim - len(window) :]
    return window_sum_grad(g, x_spatial=spatial, window=window, **attrs)


window_sum: Op = Op(
    "window_sum",
    "window",
    _window_sum_type,
    _window_sum,
    (_window_sum_vjp,),
    dtypes=NUMBERS,
    samples=_window_samples,
    usual=USUAL,
    doc="sums of windows of the trailing dimensions; padding counts as 0",
)


def _window_sum_grad_type(
    g: TensorType,
    *,
    x_spatial: Shape,
    window: Ints,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
) -> TensorType:
    check_length("window_sum_grad", g, len(window), x_spatial=x_spatial)
    x = g.with_shape((*g.shape[: g.ndim - len(window)], *x_spatial))
    sums = _windows("window_sum_grad", x, window, stride, padding, dilation)
    if g != sums:
        raise TypeRuleError(f"window_sum_grad for an input {x} needs a gradient {sums}, given {g}")
    return x


def _window_sum_grad(
    g: np.ndarray, x_spatial: Ints, window: Ints, stride: Ints, padding: Padding, dilation: Ints
) -> np.ndarray:
    lead = g.ndim - len(window)
    sizes = [n + low + high for n, (low, high) in zip(x_spatial, padding, strict=True)]
    result = np.zeros([*g.shape[:lead], *sizes], wide(g).dtype)
    with np.errstate(all="ignore"):
        for _, index in taps(window, g.shape[lead:], stride, dilation):
            result[index] += wide(g)
    return narrow(unpadded(result, padding), g.dtype)


def _window_sum_grad_vjp(c: Expr, y: Expr, g: Expr, x_spatial: Shape, **attrs: Any) -> Any:
    return window_sum(c, **attrs)


def _window_sum_grad_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for sample in _window_samples(rng, dtype):
        (x,) = sample.inputs
        lead = x.ndim - len(sample.attrs["window"])
        g = _window_sum(x, **sample.attrs)
        attrs = {"x_spatial": x.shape[lead:], **sample.attrs}
        yield Sample((draw(rng, dtype, *g.shape),), attrs)


window_sum_grad: Op = Op(
    "window_sum_grad",
    "window",
    _window_sum_grad_type,
    _window_sum_grad,
    (_window_sum_grad_vjp,),
    dtypes=NUMBERS,
    samples=_window_sum_grad_samples,
    usual={
        "x_spatial": Usual(
            "the result's",
            lambda operands, result, given: result.shape[
                result.ndim - len(given.get("window", ())) :
            ],
        ),
        **USUAL,
    },
    doc="window_sum's gradient from that of its result: each window's number to all its elements",
)
