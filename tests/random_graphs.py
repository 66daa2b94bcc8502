"""Hypothesis strategies for random well-typed graphs, with state and updates, in several dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tracecc_ir import ops
from tracecc_ir.graph import Builder, Graph, Update
from tracecc_ir.op import OPS, Expr
from tracecc_ir.types import TensorType, bool_, f32, f64, i32, i64

UNARY = ("neg", "abs", "square", "tanh", "sigmoid", "sin", "exp", "erf", "relu", "silu", "gelu")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
COMPARE = ("lt", "ge", "eq")
REDUCE = ("reduce_sum", "reduce_max", "mean")
DTYPES = (f32, f64, i32, i64, bool_)


@dataclass
class Drawn:
    """A graph with arrays for its inputs and state."""

    graph: Graph
    inputs: list[np.ndarray]
    state: list[np.ndarray]

    def floats(self) -> list[int]:
        return [i for i, v in enumerate(self.graph.inputs) if v.dtype.kind == "float"]


def array(rng: np.random.Generator, type: TensorType) -> np.ndarray:
    if type.dtype is bool_:
        return rng.integers(0, 2, type.shape).astype(np.bool_)
    if type.dtype.kind == "int":
        return np.asarray(rng.integers(-3, 4, type.shape)).astype(type.dtype.numpy)
    return np.asarray(rng.standard_normal(type.shape)).astype(type.dtype.numpy)


@st.composite
def graphs(draw: Any, size: int = 10) -> Drawn:
    """A graph of up to ``size`` drawn steps over inputs and state of several dtypes."""
    b = Builder("drawn")
    shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
    pool: list[Expr] = [b.expr(b.input(TensorType(draw(st.sampled_from((f32, f64))), (2, 3)), "x"))]
    for _ in range(draw(st.integers(0, 2))):
        pool.append(b.expr(b.input(TensorType(draw(st.sampled_from(DTYPES)), draw(shapes)))))
    held = [
        b.state(TensorType(f64, draw(shapes)), f"state.{i}", "s")
        for i in range(draw(st.integers(0, 2)))
    ]
    pool += map(b.expr, held)
    for _ in range(draw(st.integers(1, size))):
        pool.append(_step(draw, draw(st.sampled_from(pool)), pool))
    count = draw(st.integers(1, 3))
    b.graph.outputs = [e.value for e in pool[-count:]]
    for s in held:
        same = [e.value for e in pool if e.type == s.type]
        b.graph.updates.append(Update(s, draw(st.sampled_from(same))))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    inputs = [array(rng, v.type) for v in b.graph.inputs]
    return Drawn(b.graph, inputs, [array(rng, v.type) for v in held])


def _step(draw: Any, x: Expr, pool: list[Expr]) -> Expr:
    """One more value, made from x and perhaps others."""
    kinds = [_elementwise, _movement, _cast]
    if x.dtype is not bool_ and x.ndim:
        kinds += [_reduce, _dot, _gather]
    return draw(st.sampled_from(kinds))(draw, x, pool)


def _elementwise(draw: Any, x: Expr, pool: list[Expr]) -> Expr:
    same = [e for e in pool if e.type == x.type]
    y = draw(st.sampled_from(same)) if draw(st.booleans()) else x.full(draw(st.integers(0, 2)))
    if x.dtype is bool_:
        return draw(st.sampled_from((ops.bit_and, ops.bit_or)))(x, y)
    if x.dtype.kind == "float" and draw(st.booleans()):
        return OPS[draw(st.sampled_from(UNARY))](x)
    if draw(st.booleans()):
        return OPS[draw(st.sampled_from(BINARY))](x, y)
    masks = [e for e in pool if e.dtype is bool_ and e.shape == x.shape]
    mask = draw(st.sampled_from(masks)) if masks else OPS[draw(st.sampled_from(COMPARE))](x, y)
    return ops.select(mask, x, y)


def _movement(draw: Any, x: Expr, pool: list[Expr]) -> Expr:
    n = x.ndim
    kind = draw(
        st.sampled_from(("permute", "reshape", "broadcast", "slice", "pad", "flip", "concat"))
    )
    if kind == "permute":
        return ops.permute(x, axes=tuple(draw(st.permutations(range(n)))))
    if kind == "broadcast" and n < 3:
        at = draw(st.integers(0, n))
        shape = (*x.shape[:at], draw(st.integers(1, 3)), *x.shape[at:])
        return ops.broadcast(x, shape=shape, axes=tuple(i for i in range(n + 1) if i != at))
    if kind == "slice" and n:
        starts = tuple(draw(st.integers(0, s - 1)) for s in x.shape)
        strides = tuple(draw(st.integers(1, 2)) for _ in x.shape)
        return ops.slice(x, starts=starts, limits=x.shape, strides=strides)
    if kind == "pad" and n and max(x.shape) < 5:
        low, high, interior = (tuple(draw(st.integers(0, 1)) for _ in x.shape) for _ in range(3))
        return ops.pad(x, low=low, high=high, interior=interior, value=0)
    if kind == "flip":
        return ops.flip(x, axes=tuple(i for i in range(n) if draw(st.booleans())))
    if kind == "concat" and n and x.shape[0] < 5:
        return ops.concat(x, x, axis=0)
    return ops.reshape(x, shape=(x.size,) if draw(st.booleans()) else (1, x.size))


def _cast(draw: Any, x: Expr, pool: list[Expr]) -> Expr:
    wide = (f32, f64) if x.dtype.kind == "float" else DTYPES
    return ops.cast(x, dtype=draw(st.sampled_from(wide)))


def _reduce(draw: Any, x: Expr, pool: list[Expr]) -> Expr:
    axes = tuple(i for i in range(x.ndim) if draw(st.booleans()))
    if x.dtype.kind == "float" and draw(st.booleans()):
        last = x.ndim - 1
        return draw(st.sampled_from((ops.softmax, ops.log_softmax, ops.cumsum)))(x, axis=last)
    name = draw(st.sampled_from(REDUCE if x.dtype.kind == "float" else REDUCE[:2]))
    return OPS[name](x, axes=axes)


def _dot(draw: Any, x: Expr, pool: list[Expr]) -> Expr:
    a = draw(st.integers(0, x.ndim - 1))
    fits = [
        (e, i)
        for e in pool
        if e.dtype is x.dtype
        for i in range(e.ndim)
        if e.shape[i] == x.shape[a]
    ]
    y, i = draw(st.sampled_from(fits))
    if x.ndim + y.ndim > 5:
        return x
    return ops.dot_general(x, y, contract=((a,), (i,)), batch=((), ()))


def _gather(draw: Any, x: Expr, pool: list[Expr]) -> Expr:
    axis = draw(st.integers(0, x.ndim - 1))
    index = ops.iota(like=x, shape=(2,), axis=0, dtype=i64)
    index = ops.minimum(index, index.full(x.shape[axis] - 1))
    return ops.gather(x, index, axes=(axis,))
