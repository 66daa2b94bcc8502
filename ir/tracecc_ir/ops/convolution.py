"""Convolution over 1 to 3 spatial dimensions (channels first) and its two gradients.

All three are linear in each operand, and each one's derivatives are the other two.
"""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import Op, Sample, Usual
from tracecc_ir.ops.rules import check_length, check_same_dtype, draw, narrow, spatial_usuals, wide
from tracecc_ir.types import FLOATS, DType, Shape, TensorType

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def windowed_sizes(
    name: str, sizes: Shape, window: Shape, stride: Ints, padding: Padding, dilation: Ints
) -> Shape:
    """How many windows fit along each dimension."""
    for n, k, s, (low, high), d in zip(sizes, window, stride, padding, dilation, strict=True):
        if s < 1 or d < 1 or k < 1 or low < 0 or high < 0:
            raise TypeRuleError(
                f"{name} needs window, stride and dilation >= 1 and padding >= 0, given "
                f"window={k} stride={s} dilation={d} padding={(low, high)}"
            )
        if n + low + high <= (k - 1) * d:
            raise TypeRuleError(
                f"{name} needs an input of at least the window's size, given size {n} with padding "
                f"{(low, high)} for a window of {k} with dilation {d}"
            )
    return counts_of(sizes, window, stride, padding, dilation)


def counts_of(sizes: Shape, window: Shape, stride: Ints, padding: Padding, dilation: Ints) -> Any:
    return tuple(
        (n + low + high - (k - 1) * d - 1) // s + 1
        for n, k, s, (low, high), d in zip(sizes, window, stride, padding, dilation, strict=True)
    )


def taps(window: Ints, counts: Ints, stride: Ints, dilation: Ints) -> Iterator[tuple[Ints, tuple]]:
    """Each position in the window, and the index that reads it for all windows at once."""
    for tap in itertools.product(*map(range, window)):
        starts = [k * d for k, d in zip(tap, dilation, strict=True)]
        limits = [f + (n - 1) * s + 1 for f, n, s in zip(starts, counts, stride, strict=True)]
        index: tuple = (..., *map(builtins.slice, starts, limits, stride))
        yield tap, index


def padded(x: np.ndarray, padding: Padding, value: float = 0) -> np.ndarray:
    """``x`` with its trailing dimensions padded."""
    amounts = [(0, 0)] * (x.ndim - len(padding)) + list(padding)
    return np.pad(x, amounts, constant_values=value)


def unpadded(x: np.ndarray, padding: Padding) -> np.ndarray:
    bounds = zip(padding, x.shape[x.ndim - len(padding) :], strict=True)
    index: tuple = (..., *(builtins.slice(low, n - high) for (low, high), n in bounds))
    return x[index]


def _check(
    name: str,
    x: TensorType,
    w: TensorType,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
) -> Shape:
    """Checks an input [N, C, *S] and a weight [O, C / groups, *K]; returns the output's shape."""
    check_same_dtype(name, x, w)
    rank = x.ndim - 2
    if rank not in (1, 2, 3) or w.ndim != x.ndim:
        raise TypeRuleError(
            f"{name} needs an input [N, C, *S] and a weight [O, C / groups, *K] with 1 to 3 "
            f"spatial dimensions, given {x} and {w}"
        )
    check_length(name, x, rank, stride=stride, padding=padding, dilation=dilation)
    if groups < 1 or w.shape[0] % groups != 0 or x.shape[1] != w.shape[1] * groups:
        raise TypeRuleError(
            f"{name} of {x} and the weight {w} with groups={groups}: needs input channels = "
            "groups * the weight's second size, and output channels divisible by groups"
        )
    sizes = windowed_sizes(name, x.shape[2:], w.shape[2:], stride, padding, dilation)
    return (x.shape[0], w.shape[0], *sizes)


def _conv_type(
    x: TensorType,
    w: TensorType,
    *,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
) -> TensorType:
    return x.with_shape(_check("conv", x, w, stride, padding, dilation, groups))


def _input_grad_type(
    g: TensorType,
    w: TensorType,
    *,
    x_spatial: Shape,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
) -> TensorType:
    check_length("conv_input_grad", w, w.ndim - 2, x_spatial=x_spatial)
    if g.ndim != w.ndim:
        raise TypeRuleError(f"conv_input_grad needs operands of one rank, given {g} and {w}")
    x = g.with_shape((g.shape[0], w.shape[1] * groups, *x_spatial))
    out = x.with_shape(_check("conv_input_grad", x, w, stride, padding, dilation, groups))
    if g != out:
        raise TypeRuleError(f"conv_input_grad for an input {x} needs a gradient {out}, given {g}")
    return x


def _weight_grad_type(
    x: TensorType,
    g: TensorType,
    *,
    w_spatial: Shape,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
) -> TensorType:
    if g.ndim != x.ndim or x.ndim < 3 or groups < 1 or x.shape[1] % groups != 0:
        raise TypeRuleError(
            f"conv_weight_grad needs an input and a gradient of one rank and channels divisible by "
            f"groups={groups}, given {x} and {g}"
        )
    check_length("conv_weight_grad", x, x.ndim - 2, w_spatial=w_spatial)
    w = x.with_shape((g.shape[1], x.shape[1] // groups, *w_spatial))
    out = x.with_shape(_check("conv_weight_grad", x, w, stride, padding, dilation, groups))
    if g != out:
        raise TypeRuleError(f"conv_weight_grad for a weight {w} needs a gradient {out}, given {g}")
    return w


# The references go tap by tap: one small matrix product for each position in the window, over
# arrays split into groups. [N, G, C, *S] @ [G, O, C] contracts the channels of each group.


def _grouped(x: np.ndarray, groups: int) -> np.ndarray:
    n, c, *sizes = x.shape
    return wide(x).reshape([n, groups, c // groups, *sizes])


def _split_weight(w: np.ndarray, groups: int) -> np.ndarray:
    o, c, *window = w.shape
    return wide(w).reshape([groups, o // groups, c, *window])


def _conv(
    x: np.ndarray, w: np.ndarray, stride: Ints, padding: Padding, dilation: Ints, groups: int
) -> np.ndarray:
    window = w.shape[2:]
    counts = counts_of(x.shape[2:], window, stride, padding, dilation)
    source, weight = padded(_grouped(x, groups), padding), _split_weight(w, groups)
    columns = np.stack(
        [source[index] for _, index in taps(window, counts, stride, dilation)], axis=3
    )
    n, g, c, k = columns.shape[:4]
    rows = columns.reshape(n, g, c * k, math.prod(counts))
    matrix = weight.reshape(g, w.shape[0] // g, c * k)
    with np.errstate(all="ignore"):
        y = np.matmul(matrix, rows)
    return narrow(y.reshape([n, w.shape[0], *counts]), x.dtype)


def _conv_input_grad(
    g: np.ndarray,
    w: np.ndarray,
    x_spatial: Ints,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
) -> np.ndarray:
    n, counts, window = g.shape[0], g.shape[2:], w.shape[2:]
    gradient, weight = _grouped(g, groups), _split_weight(w, groups)
    channels = w.shape[1]
    sizes = [s + low + high for s, (low, high) in zip(x_spatial, padding, strict=True)]
    result = np.zeros([n, groups, channels, *sizes], gradient.dtype)
    rows = gradient.reshape(n, groups, gradient.shape[2], math.prod(counts))
    with np.errstate(all="ignore"):
        for tap, index in taps(window, counts, stride, dilation):
            here: tuple = (..., *tap)
            matrix = weight[here].swapaxes(-1, -2)
            result[index] += np.matmul(matrix, rows).reshape([n, groups, channels, *counts])
    x = unpadded(result, padding)
    return narrow(x.reshape([n, groups * channels, *x_spatial]), g.dtype)


def _conv_weight_grad(
    x: np.ndarray,
    g: np.ndarray,
    w_spatial: Ints,
    stride: Ints,
    padding: Padding,
    dilation: Ints,
    groups: int,
) -> np.ndarray:
    counts = g.shape[2:]
    source, gradient = padded(_grouped(x, groups), padding), _grouped(g, groups)
    n, _, o = gradient.shape[:3]
    c = source.shape[2]
    rows = gradient.reshape(n, groups, o, math.prod(counts)).transpose(1, 2, 0, 3)
    matrix = rows.reshape(groups, o, n * math.prod(counts))
    parts = []
    with np.errstate(all="ignore"):
        for _, index in taps(w_spatial, counts, stride, dilation):
            columns = source[index].reshape(n, groups, c, math.prod(counts)).transpose(1, 0, 3, 2)
            parts.append(np.matmul(matrix, columns.reshape(groups, n * math.prod(counts), c)))
    result = np.stack(parts, axis=-1).reshape([groups * o, c, *w_spatial])
    return narrow(result, x.dtype)


class Case(NamedTuple):
    x: Ints
    w: Ints
    stride: Ints
    padding: Padding
    dilation: Ints
    groups: int

    @property
    def y(self) -> Ints:
        sizes = counts_of(self.x[2:], self.w[2:], self.stride, self.padding, self.dilation)
        return (self.x[0], self.w[0], *sizes)

    @property
    def attrs(self) -> dict[str, Any]:
        keys = ("stride", "padding", "dilation", "groups")
        return {key: getattr(self, key) for key in keys}


CASES = (
    Case((2, 3, 5, 6), (4, 3, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    Case((2, 4, 7, 5), (6, 2, 3, 2), (2, 1), ((0, 2), (1, 0)), (2, 3), 2),
    Case((1, 3, 4, 4), (6, 1, 2, 2), (3, 2), ((0, 0), (0, 0)), (1, 1), 3),
    Case((2, 2, 9), (3, 2, 3), (2,), ((1, 0),), (2,), 1),
    Case((1, 2, 4, 3, 5), (2, 1, 2, 3, 1), (1, 2, 2), ((1, 0), (1, 1), (0, 0)), (1, 1, 2), 2),
    Case((0, 2, 3, 3), (2, 2, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),
)


def _conv_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for c in CASES:
        yield Sample((draw(rng, dtype, *c.x), draw(rng, dtype, *c.w)), c.attrs)


def _input_grad_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for c in CASES:
        operands = draw(rng, dtype, *c.y), draw(rng, dtype, *c.w)
        yield Sample(operands, {"x_spatial": c.x[2:], **c.attrs})


def _weight_grad_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for c in CASES:
        operands = draw(rng, dtype, *c.x), draw(rng, dtype, *c.y)
        yield Sample(operands, {"w_spatial": c.w[2:], **c.attrs})


USUAL = {
    **spatial_usuals(lambda operands, given: operands[0].ndim - 2),
    "groups": Usual("1", lambda operands, result, given: 1),
}
SIZES = Usual("the result's", lambda operands, result, given: result.shape[2:])

conv: Op = Op(
    "conv",
    "contraction",
    _conv_type,
    _conv,
    (
        lambda g, y, x, w, **a: conv_input_grad(g, w, x_spatial=x.shape[2:], **a),
        lambda g, y, x, w, **a: conv_weight_grad(x, g, w_spatial=w.shape[2:], **a),
    ),
    dtypes=FLOATS,
    samples=_conv_samples,
    usual=USUAL,
    doc="cross-correlation of x [N, C, *S] with w [O, C / groups, *K]; padding ((low, high), ...)",
)
conv_input_grad: Op = Op(
    "conv_input_grad",
    "contraction",
    _input_grad_type,
    _conv_input_grad,
    (
        lambda c, y, g, w, x_spatial, **a: conv(c, w, **a),
        lambda c, y, g, w, x_spatial, **a: conv_weight_grad(c, g, w_spatial=w.shape[2:], **a),
    ),
    dtypes=FLOATS,
    samples=_input_grad_samples,
    usual={"x_spatial": SIZES, **USUAL},
    doc="conv's gradient for x from that of its result: the transposed convolution",
)
conv_weight_grad: Op = Op(
    "conv_weight_grad",
    "contraction",
    _weight_grad_type,
    _conv_weight_grad,
    (
        lambda c, y, x, g, w_spatial, **a: conv_input_grad(g, c, x_spatial=x.shape[2:], **a),
        lambda c, y, x, g, w_spatial, **a: conv(x, c, **a),
    ),
    dtypes=FLOATS,
    samples=_weight_grad_samples,
    usual={"w_spatial": SIZES, **USUAL},
    doc="conv's gradient for w from x and the gradient of its result",
)
