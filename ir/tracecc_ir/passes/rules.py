"""The rewrite rules of `simplify`: from a node's operands and attributes to what stands for it.

For floats a rule must hold for NaN, infinities and both zeros: x + 0.0 is not x (for x = -0.0), but
x + -0.0 is; x * 0 and x - x stay. Rounding may only improve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tracecc_ir.dims import product
from tracecc_ir.graph import Node
from tracecc_ir.op import Attrs, Expr, Op
from tracecc_ir.ops.contraction import dot_general
from tracecc_ir.ops.elementwise import abs as absolute
from tracecc_ir.ops.elementwise import cast, reciprocal, select, square, sub
from tracecc_ir.ops.movement import broadcast, flip, permute, reshape
from tracecc_ir.ops.movement import slice as slice_
from tracecc_ir.ops.reduce import reduce_max, reduce_min, reduce_sum
from tracecc_ir.ops.rules import others
from tracecc_ir.passes.rules_gather import (
    dot_gathered,
    permute_gathered,
    reshape_gathered,
    scatter_moved,
    scatter_product,
)
from tracecc_ir.types import DType

Ints = tuple[int, ...]
Found = Any  # Expr | None


def made_by(x: Expr, name: str) -> Node | None:
    """The node that made x, if it is one of this op."""
    node = x.value.node
    return node if node is not None and node.op.name == name else None


def operand(x: Expr, node: Node, index: int = 0) -> Expr:
    return Expr(node.inputs[index], x.emitter)


def is_number(x: Expr, n: float) -> bool:
    """Whether x is n everywhere, the sign of zero included."""
    node = made_by(x, "constant")
    if node is None:
        return False
    value = node.attrs["value"]
    if x.dtype.is_complex and n == 0:
        return False  # its zero has two signs
    if x.dtype.kind != "float":
        return bool(value == n)
    return bool(value == n) and math.copysign(1, value) == math.copysign(1, n)


def same(x: Expr, y: Expr) -> bool:
    return x.value is y.value


def under(x: Expr, name: str) -> Expr | None:
    """The operand of the unary op ``name`` that made x."""
    node = made_by(x, name)
    return None if node is None else operand(x, node)


# Arithmetic.


def _add(x: Expr, y: Expr) -> Found:
    nothing = -0.0 if x.dtype.kind == "float" else 0
    if is_number(y, nothing):
        return x
    if is_number(x, nothing):
        return y
    if x.dtype.kind != "bool" and (n := under(y, "neg")) is not None:
        return sub(x, n)
    if x.dtype.kind != "bool" and (n := under(x, "neg")) is not None:
        return sub(y, n)
    return None


def _sub(x: Expr, y: Expr) -> Found:
    if is_number(y, 0.0):
        return x
    if (n := under(y, "neg")) is not None:
        return x + n
    return x.full(0) if x.dtype.kind == "int" and same(x, y) else None


def _mul(x: Expr, y: Expr) -> Found:
    for a, b in ((x, y), (y, x)):
        if is_number(b, 1.0):
            return a
        if b.dtype.is_signed and is_number(b, -1.0):
            return -a
        if b.dtype.kind == "int" and is_number(b, 0):
            return b
    m, n = under(x, "neg"), under(y, "neg")
    return m * n if m is not None and n is not None else None


def _div(x: Expr, y: Expr) -> Found:
    if is_number(y, 1.0):
        return x
    if is_number(y, -1.0):
        return -x
    node = made_by(y, "constant")
    # A larger constant is likely a count of elements (a mean): if 512 became a product and 320 did
    # not, each batch size would have kernels of its own.
    value = 0.0 if node is None or x.dtype.is_complex else node.attrs["value"]
    return x * (1 / value) if abs(value) <= 4 and exact_inverse(value, x.dtype) else None


def exact_inverse(value: float, dtype: DType) -> bool:
    """Whether 1 / value is a normal number of every float dtype without rounding."""
    mantissa, exponent = math.frexp(value)
    limit = 12 if dtype.bits == 16 else 100
    return abs(mantissa) == 0.5 and abs(exponent) <= limit


def _pow(x: Expr, y: Expr) -> Found:
    if x.dtype.kind != "float":
        return None
    powers: dict[float, Callable[[], Any]] = {
        0.0: lambda: x.full(1.0),
        1.0: lambda: x,
        2.0: lambda: x * x,
        3.0: lambda: x * x * x,
        -1.0: lambda: reciprocal(x),
    }
    node = made_by(y, "constant")
    made = powers.get(float(node.attrs["value"])) if node is not None else None
    return made() if made is not None else None


def _neg(x: Expr) -> Found:
    if (n := under(x, "neg")) is not None:
        return n
    node = made_by(x, "sub")
    return sub(operand(x, node, 1), operand(x, node)) if node and x.dtype.kind == "int" else None


def _abs(x: Expr) -> Found:
    if under(x, "abs") is not None or (under(x, "square") is not None and x.dtype.kind == "float"):
        return x
    return absolute(n) if (n := under(x, "neg")) is not None else None


def _square(x: Expr) -> Found:
    n = under(x, "neg") or under(x, "abs")
    return None if n is None or n.dtype is not x.dtype else square(n)


def _idempotent(x: Expr, y: Expr) -> Found:
    return x if same(x, y) else None


def _bit_and(x: Expr, y: Expr) -> Found:
    for a, b in ((x, y), (y, x)):
        if x.dtype.kind == "bool" and is_number(b, True):
            return a
        if is_number(b, 0):
            return b
    return _idempotent(x, y)


def _bit_or(x: Expr, y: Expr) -> Found:
    for a, b in ((x, y), (y, x)):
        if x.dtype.kind == "bool" and is_number(b, True):
            return b
        if is_number(b, 0):
            return a
    return _idempotent(x, y)


# Choice and conversion.


def _select(c: Expr, x: Expr, y: Expr) -> Found:
    if same(x, y):
        return x
    if is_number(c, True):
        return x
    if is_number(c, False):
        return y
    if (n := under(c, "bit_not")) is not None:
        return select(n, y, x)
    inner = made_by(x, "select")
    if inner is not None and inner.inputs[0] is c.value:
        return select(c, operand(x, inner, 1), y)
    inner = made_by(y, "select")
    if inner is not None and inner.inputs[0] is c.value:
        return select(c, x, operand(y, inner, 2))
    return None


def _cast(x: Expr, dtype: DType) -> Found:
    if x.dtype is dtype:
        return x
    inner = under(x, "cast")
    if inner is not None and widens(inner.dtype, x.dtype):
        return cast(inner, dtype=dtype)
    return None


def widens(a: DType, b: DType) -> bool:
    """Whether every number of dtype a is one of dtype b."""
    if a.kind == "bool":
        return True
    if a.kind == b.kind == "int":
        return a.bits < b.bits and (b.is_signed or not a.is_signed)
    return a.kind == b.kind == "float" and a.bits < b.bits


# Movement.


def _reshape(x: Expr, shape: tuple) -> Found:
    if x.shape == tuple(shape):
        return x
    inner = under(x, "reshape")
    return None if inner is None else reshape(inner, shape=shape)


def _permute(x: Expr, axes: Ints) -> Found:
    if tuple(axes) == tuple(range(x.ndim)):
        return x
    if (node := made_by(x, "permute")) is not None:
        return permute(operand(x, node), axes=tuple(node.attrs["axes"][a] for a in axes))
    if (node := made_by(x, "broadcast")) is not None:
        moved = tuple(list(axes).index(a) for a in node.attrs["axes"])
        if list(moved) == sorted(moved):
            shape = tuple(x.shape[a] for a in axes)
            return broadcast(operand(x, node), shape=shape, axes=moved)
    if (node := made_by(x, "dot_general")) is not None:
        return _swapped(x, node, axes)
    return None


def _swapped(x: Expr, node: Node, axes: Ints) -> Found:
    """The transpose of a product is the product of the operands the other way round."""
    a, b = operand(x, node), operand(x, node, 1)
    contract, batch = node.attrs["contract"], node.attrs["batch"]
    n = len(batch[0])
    first = a.ndim - n - len(contract[0])
    turned = (*range(n), *range(n + first, x.ndim), *range(n, n + first))
    if tuple(axes) != turned:
        return None
    return dot_general(b, a, contract=(contract[1], contract[0]), batch=(batch[1], batch[0]))


def _broadcast(x: Expr, shape: tuple, axes: Ints) -> Found:
    if x.shape == tuple(shape):
        return x
    if (node := made_by(x, "broadcast")) is not None:
        chained = tuple(axes[a] for a in node.attrs["axes"])
        return broadcast(operand(x, node), shape=shape, axes=chained)
    return None


def _slice(x: Expr, starts: tuple, limits: tuple, strides: Ints) -> Found:
    if all(s == 0 for s in starts) and tuple(limits) == x.shape and set(strides) <= {1}:
        return x
    node = made_by(x, "slice")
    if node is None or set(strides) | set(node.attrs["strides"]) > {1}:
        return None
    before = node.attrs["starts"]
    return slice_(
        operand(x, node),
        starts=tuple(a + b for a, b in zip(before, starts, strict=True)),
        limits=tuple(a + b for a, b in zip(before, limits, strict=True)),
        strides=strides,
    )


def _pad(x: Expr, low: tuple, high: tuple, interior: Ints, value: float) -> Found:
    return x if all(p == 0 for p in (*low, *high, *interior)) else None


def _flip(x: Expr, axes: Ints) -> Found:
    if not axes:
        return x
    node = made_by(x, "flip")
    if node is None:
        return None
    return flip(operand(x, node), axes=tuple(sorted(set(axes) ^ set(node.attrs["axes"]))))


def _concat(*xs: Expr, axis: int) -> Found:
    return xs[0] if len(xs) == 1 else None


# Reductions and products.


def _reduction(name: str, op: Op) -> Callable[..., Found]:
    def rule(x: Expr, axes: Ints) -> Found:
        if not axes:
            return x
        if all(x.shape[a] == 1 for a in axes):
            return reshape(x, shape=tuple(x.shape[a] for a in others(x.ndim, axes)))
        node = made_by(x, name)
        if node is not None:
            inner = operand(x, node)
            left = others(inner.ndim, node.attrs["axes"])
            together = sorted((*node.attrs["axes"], *(left[a] for a in axes)))
            return op(inner, axes=tuple(together))
        return _of_repeated(x, axes) if name == "reduce_sum" else None

    return rule


def _of_repeated(x: Expr, axes: Ints) -> Found:
    """The sum along dimensions in which x repeats is x times their sizes."""
    node = made_by(x, "broadcast")
    if node is None or set(axes) & set(node.attrs["axes"]):
        return None
    times = product([x.shape[a] for a in axes])
    if not isinstance(times, int) or x.dtype.bits == 16 or times == 0:
        return None
    left = others(x.ndim, axes)
    kept = tuple(left.index(a) for a in node.attrs["axes"])
    shape = tuple(x.shape[a] for a in left)
    return broadcast(operand(x, node) * times, shape=shape, axes=kept)


def _dot_general(x: Expr, y: Expr, contract: tuple, batch: tuple) -> Found:
    """Reads a transposed operand where it lies."""
    sides = []
    for e, c, b in ((x, contract[0], batch[0]), (y, contract[1], batch[1])):
        node = made_by(e, "permute")
        if node is not None:
            axes = node.attrs["axes"]
            free = [axes[a] for a in others(e.ndim, (*c, *b))]
            if free == sorted(free):
                e = operand(e, node)
                c, b = tuple(axes[a] for a in c), tuple(axes[a] for a in b)
        sides.append((e, tuple(c), tuple(b)))
    (p, pc, pb), (q, qc, qb) = sides
    if same(p, x) and same(q, y):
        return None
    return dot_general(p, q, contract=(pc, qc), batch=(pb, qb))


def _small_first(op: Op, xs: Sequence[Expr], attrs: Attrs) -> Found:
    """An elementwise op of operands repeated in the same way is computed before repeating."""
    spread = [made_by(x, "broadcast") for x in xs]
    first = next((n for n in spread if n is not None), None)
    if first is None:
        return None
    small = []
    for x, node in zip(xs, spread, strict=True):
        constant = made_by(x, "constant")
        if constant is not None:
            small.append(x.full(constant.attrs["value"], shape=first.inputs[0].shape))
        elif node is not None and node.attrs["axes"] == first.attrs["axes"]:
            small.append(operand(x, node))
        else:
            return None
    return broadcast(op(*small, **attrs), shape=first.attrs["shape"], axes=first.attrs["axes"])


ELEMENTWISE_RULES: tuple[Callable[..., Found], ...] = (_small_first,)
RULES: dict[str, tuple[Callable[..., Found], ...]] = {
    "add": (_add,),
    "sub": (_sub,),
    "mul": (_mul,),
    "div": (_div,),
    "pow": (_pow,),
    "neg": (_neg,),
    "abs": (_abs,),
    "square": (_square,),
    "maximum": (_idempotent,),
    "minimum": (_idempotent,),
    "bit_and": (_bit_and,),
    "bit_or": (_bit_or,),
    "bit_not": (lambda x: under(x, "bit_not"),),
    "select": (_select,),
    "conj": (lambda x: under(x, "conj"),),
    "real": (lambda x: operand(x, n) if (n := made_by(x, "complex")) else None,),
    "imag": (lambda x: operand(x, n, 1) if (n := made_by(x, "complex")) else None,),
    "cast": (_cast,),
    "reshape": (_reshape, reshape_gathered),
    "permute": (_permute, permute_gathered),
    "broadcast": (_broadcast,),
    "slice": (_slice,),
    "pad": (_pad,),
    "flip": (_flip,),
    "concat": (_concat,),
    "reduce_sum": (_reduction("reduce_sum", reduce_sum),),
    "reduce_max": (_reduction("reduce_max", reduce_max),),
    "reduce_min": (_reduction("reduce_min", reduce_min),),
    "dot_general": (_dot_general, dot_gathered),
    "scatter": (scatter_moved, scatter_product),
}
