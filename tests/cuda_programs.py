"""Graphs whose kernels cover the CUDA emitter: written by hand, and drawn at random."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tracecc_ir.dims import product
from tracecc_ir.graph import Builder, Graph
from tracecc_ir.op import OPS, Expr
from tracecc_ir.types import DType, TensorType, bf16, bool_, f16, f32, f64, i8, i32, i64, u8

O = OPS
Build = Callable[..., Expr | tuple[Expr, ...]]


def graph_of(build: Build, *types: TensorType) -> Graph:
    b = Builder(build.__name__)
    made = build(*(b.expr(b.input(t, f"x{i}")) for i, t in enumerate(types)))
    b.graph.outputs = [e.value for e in (made if isinstance(made, tuple) else (made,))]
    return b.graph


def along(v: Expr, shape: tuple[int, ...], axes: tuple[int, ...]) -> Expr:
    return O["broadcast"](v, shape=shape, axes=axes)


def softmax(x):
    shape = x.shape
    kept = tuple(range(len(shape) - 1))
    last = (len(shape) - 1,)
    e = O["exp"](x - along(O["reduce_max"](x, axes=last), shape, kept))
    return e / along(O["reduce_sum"](e, axes=last), shape, kept)


def layer_norm(x, weight, bias):
    shape, n = x.shape, x.shape[-1]
    mean = O["reduce_sum"](x, axes=(1,)) / n
    d = x - along(mean, shape, (0,))
    rstd = O["rsqrt"](O["reduce_sum"](d * d, axes=(1,)) / n + 1e-5)
    y = d * along(rstd, shape, (0,)) * along(weight, shape, (1,)) + along(bias, shape, (1,))
    return y, mean, rstd


def gelu(x, y):
    u = x * 0.5 * (O["erf"](x * (1 / math.sqrt(2))) + 1.0)
    return u, u * y


def batch_statistics(x):
    n = x.size // x.shape[1]
    mean = O["reduce_sum"](x, axes=(0, 2)) / n
    d = x - along(mean, x.shape, (1,))
    return mean, O["reduce_sum"](O["square"](d), axes=(0, 2)) / n


def column_sums(x):
    return O["reduce_sum"](x * 2.0, axes=(0,)), O["reduce_max"](x, axes=(0,))


def middle_sums(x):
    return O["reduce_min"](x, axes=(1,))


def total(x):
    return O["reduce_sum"](O["square"](x), axes=tuple(range(len(x.shape))))


def moved(x):
    y = O["permute"](x, axes=(1, 0))
    y = O["flip"](O["slice"](y, starts=(1, 0), limits=(5, 4), strides=(2, 1)), axes=(1,))
    return O["pad"](y, low=(1, 0), high=(0, 2), interior=(0, 0), value=3) * 2.0


def reshaped(x):
    y = O["permute"](O["reshape"](x, shape=(2, 3, 4)), axes=(2, 0, 1))
    return O["reshape"](y, shape=(8, 3)) + 1.0


def predicates(x):
    small = x < 0.5
    return small, O["reduce_max"](small, axes=(1,)), O["reduce_min"](small, axes=(1,))


def integers(x, y):
    z = O["floor_div"](x, y) + O["remainder"](x, y) * 2
    return z, O["reduce_prod"](z, axes=(1,)), O["reduce_max"](z, axes=(1,))


def lookup(table, index):
    return O["gather"](table, index, axes=(0,)) * 2.0


def picked(x, index):
    return O["reduce_sum"](O["log"](O["gather_along"](x, index, axis=1)), axes=(1,))


def dropped(x, seed, position):
    bits = O["philox"](seed, position, shape=x.shape)
    return O["select"](bits > 0, x * 2.0, x.full(0.0)), bits


def counted(x):
    i = O["iota"](like=x, shape=x.shape, axis=1, dtype=i64)
    return O["cast"](O["flip"](i, axes=(1,)), dtype=f32) * x


def mixed(x, h, d):
    y = O["cast"](x, dtype=f32) + O["cast"](h, dtype=f32)
    return O["cast"](y, dtype=bf16), O["cast"](O["cast"](y, dtype=f64) * d, dtype=f16)


def norms(x):
    return O["reduce_sum"](x, axes=(1,)), O["reduce_prod"](x, axes=(1,))


def trigamma(x):
    return O["polygamma"](x + 1.0, n=1) * 2.0


def t(dtype: DType, *shape: int) -> TensorType:
    return TensorType(dtype, shape)


PROGRAMS: list[tuple[Build, tuple[TensorType, ...]]] = [
    (softmax, (t(f32, 5, 70),)),
    (softmax, (t(f32, 2, 3, 7),)),
    (softmax, (t(f64, 3, 1100),)),
    (softmax, (t(bf16, 4, 33),)),
    (layer_norm, (t(f32, 3, 40), t(f32, 40), t(f32, 40))),
    (layer_norm, (t(f32, 2, 1300), t(f32, 1300), t(f32, 1300))),
    (gelu, (t(f32, 3, 50), t(f32, 3, 50))),
    (batch_statistics, (t(f32, 4, 3, 10),)),
    (column_sums, (t(f32, 9, 70),)),
    (column_sums, (t(i32, 6, 5),)),
    (middle_sums, (t(f32, 3, 5, 4),)),
    (total, (t(f32, 30, 20),)),
    (total, (t(f64, 5),)),
    (moved, (t(f32, 4, 6),)),
    (reshaped, (t(f32, 6, 4),)),
    (predicates, (t(f32, 4, 40),)),
    (integers, (t(i32, 3, 8), t(i32, 3, 8))),
    (integers, (t(i8, 3, 8), t(i8, 3, 8))),
    (integers, (t(u8, 3, 8), t(u8, 3, 8))),
    (lookup, (t(f32, 6, 5), t(i64, 4))),
    (picked, (t(f32, 3, 9), t(i64, 3, 4))),
    (dropped, (t(f32, 4, 10), t(i64), t(i64))),
    (counted, (t(f32, 3, 11),)),
    (mixed, (t(bf16, 37), t(f16, 37), t(f64, 37))),
    (norms, (t(f16, 3, 40),)),
]


def name_of(case: tuple[Build, tuple[TensorType, ...]]) -> str:
    build, types = case
    return f"{build.__name__}-{types[0].dtype.name}-{'x'.join(map(str, types[0].shape))}"


def arrays_for(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [_draw(rng, v.type) for v in graph.inputs]


def _draw(rng: np.random.Generator, type: TensorType) -> np.ndarray:
    dtype, shape = type
    if dtype is bool_:
        return rng.integers(0, 2, shape).astype(bool)
    if not dtype.is_floating_point:
        return rng.integers(1, 4, shape).astype(dtype.numpy)
    return rng.uniform(0.3, 1.5, shape).astype(dtype.numpy)


# Random graphs: each step applies one op to values drawn so far.

UNARY = ("exp", "neg", "tanh", "sigmoid", "abs", "square", "floor", "erf", "isnan")
BINARY = ("add", "sub", "mul", "maximum", "minimum", "lt")


class Random:
    """Draws a graph of elementwise ops, movement and reductions over small f32 tensors."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.b = Builder(f"random{seed}")
        for i in range(int(self.rng.integers(1, 4))):
            shape = tuple(int(n) for n in self.rng.integers(1, 6, self.rng.integers(1, 4)))
            self.values = [
                *getattr(self, "values", []),
                self.b.expr(self.b.input(t(f32, *shape), f"x{i}")),
            ]

    def graph(self, steps: int) -> Graph:
        for _ in range(steps):
            x = self.pick(self.values)
            step = self.pick(
                [self.unary, self.binary, self.binary, self.move, self.move, self.reduce]
            )
            self.values.append(step(x))
        last = self.values[-3:]
        self.b.graph.outputs = [e.value for e in last if e.value.node is not None]
        return self.b.graph

    def pick(self, items):
        return items[int(self.rng.integers(len(items)))]

    def unary(self, x: Expr) -> Expr:
        y = O[self.pick(UNARY)](x * 0.25)
        return O["cast"](y, dtype=f32) if y.dtype is not f32 else y

    def binary(self, x: Expr) -> Expr:
        other = self.pick(self.values)
        y = self.matched(other, x)
        z = O[self.pick(BINARY)](x, y)
        return O["select"](z, x, y) if z.dtype is bool_ else z

    def matched(self, y: Expr, like: Expr) -> Expr:
        """``y``, if it can be broadcast to another's shape; otherwise a number."""
        axes: list[int] = []
        for size in y.shape:
            found = [
                a for a in range(axes[-1] + 1 if axes else 0, like.ndim) if like.shape[a] == size
            ]
            if not found:
                return like.full(float(self.rng.integers(-2, 3)))
            axes.append(found[0])
        return along(y, like.shape, tuple(axes))

    def move(self, x: Expr) -> Expr:
        rng, n = self.rng, x.ndim
        kind = self.pick(["permute", "slice", "pad", "flip", "reshape", "broadcast"])
        if kind == "permute":
            return O[kind](x, axes=tuple(int(a) for a in rng.permutation(n)))
        if kind == "flip":
            return O[kind](x, axes=tuple(a for a in range(n) if rng.integers(2)))
        if kind == "slice":
            starts = tuple(int(rng.integers(0, s)) for s in x.shape)
            limits = tuple(
                int(rng.integers(a + 1, s + 1)) for a, s in zip(starts, x.shape, strict=True)
            )
            strides = tuple(int(i) for i in rng.integers(1, 3, n))
            return O[kind](x, starts=starts, limits=limits, strides=strides)
        if kind == "pad":
            low, high = (tuple(int(i) for i in rng.integers(0, 3, n)) for _ in range(2))
            return O[kind](x, low=low, high=high, interior=(0,) * n, value=int(rng.integers(-1, 2)))
        if kind == "reshape":
            return O[kind](
                x,
                shape=self.pick([(product(x.shape),), (1, *x.shape), (*x.shape, 1), x.shape[::-1]]),
            )
        return along(x, (int(rng.integers(1, 4)), *x.shape), tuple(range(1, n + 1)))

    def reduce(self, x: Expr) -> Expr:
        axes = tuple(a for a in range(x.ndim) if self.rng.integers(2))
        return O[self.pick(["reduce_sum", "reduce_max", "reduce_min"])](x, axes=axes)
