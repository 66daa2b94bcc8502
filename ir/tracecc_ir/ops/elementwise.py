"""Elementwise primitives: all operands have one shape; nothing broadcasts or promotes here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracecc_ir.errors import TypeRuleError
from tracecc_ir.op import NO_GRADIENT, Op, Sample
from tracecc_ir.ops.complex import conj, real
from tracecc_ir.ops.rules import (
    ALL,
    ARITHMETIC,
    BITS,
    HALVES,
    INEXACT,
    NUMBERS,
    ORDERED,
    draw,
    wide,
)
from tracecc_ir.types import DTYPES, FLOATS, INTS, DType, TensorType, bool_, i64


def _same(x: TensorType, *rest: TensorType) -> TensorType:
    for y in rest:
        if y != x:
            raise TypeRuleError(
                f"elementwise operands must have one type, given {x} and {y}; "
                "broadcast or cast first"
            )
    return x


def _compared(x: TensorType, y: TensorType) -> TensorType:
    return _same(x, y).with_dtype(bool_)


def _predicate(x: TensorType) -> TensorType:
    return x.with_dtype(bool_)


def elementwise(
    name: str, reference: Callable, vjp: Any, scalar: str, infer: Callable, **rest: Any
) -> Op:
    def quiet(*arrays: np.ndarray, **attrs: Any) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(reference(*arrays, **attrs))

    return Op(name, "elementwise", infer, quiet, vjp, scalar, **rest)


def unary(
    name: str,
    reference: Callable,
    vjp: Any,
    scalar: str = "",
    cost: int = 10,
    dtypes: tuple[DType, ...] = INEXACT,
    domain: Any = (-3.0, 3.0),
    doc: str = "",
    holomorphic: bool = True,
) -> Op:
    vjp = vjp if vjp is NO_GRADIENT else (vjp,)
    return elementwise(
        name,
        reference,
        vjp,
        scalar or f"{name}({{0}})",
        lambda x: x,
        cost=cost,
        dtypes=dtypes,
        domain=domain,
        doc=doc,
        holomorphic=holomorphic,
    )


def binary(
    name: str,
    reference: Callable,
    vjp: Any,
    scalar: str,
    cost: int = 1,
    dtypes: tuple[DType, ...] = NUMBERS,
    domain: Any = (-3.0, 3.0),
    doc: str = "",
    holomorphic: bool = False,
) -> Op:
    return elementwise(
        name,
        reference,
        vjp,
        scalar,
        lambda x, y: _same(x, y),
        cost=cost,
        dtypes=dtypes,
        domain=domain,
        doc=doc,
        holomorphic=holomorphic,
    )


def comparison(
    name: str, reference: Callable, scalar: str, dtypes: tuple[DType, ...] = ORDERED
) -> Op:
    return elementwise(name, reference, NO_GRADIENT, scalar, _compared, dtypes=dtypes)


def through_f32(f: Callable) -> Callable:
    """Computes 16-bit floats in f32 and rounds once."""
    return lambda x: f(wide(x)).astype(x.dtype)


# Arithmetic.

add: Op = binary(
    "add", np.add, (lambda g, z, x, y: g, lambda g, z, x, y: g), "{0} + {1}", dtypes=ALL
)
sub: Op = binary(
    "sub",
    np.subtract,
    (lambda g, z, x, y: g, lambda g, z, x, y: -g),
    "{0} - {1}",
    dtypes=ARITHMETIC,
)
mul: Op = binary(
    "mul",
    np.multiply,
    (lambda g, z, x, y: g * y, lambda g, z, x, y: g * x),
    "{0} * {1}",
    dtypes=ALL,
    holomorphic=True,
)
div: Op = binary(
    "div",
    np.divide,
    (lambda g, z, x, y: g / y, lambda g, z, x, y: -g * z / y),
    "{0} / {1}",
    4,
    INEXACT,
    domain=((-3.0, 3.0), (0.5, 3.0)),
    doc="true division",
    holomorphic=True,
)
floor_div: Op = binary(
    "floor_div",
    np.floor_divide,
    (lambda g, z, x, y: g.full(0.0), lambda g, z, x, y: g.full(0.0)),
    "floor_div({0}, {1})",
    8,
    domain=((-9, 9), (1, 4)),
    doc="division rounded towards minus infinity",
)
trunc_div: Op = binary(
    "trunc_div",
    lambda x, y: (np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y))).astype(x.dtype),
    NO_GRADIENT,
    "trunc_div({0}, {1})",
    8,
    INTS,
    domain=((-9, 9), (1, 4)),
    doc="integer division rounded towards zero",
)
remainder: Op = binary(
    "remainder",
    np.remainder,
    (lambda g, z, x, y: g, lambda g, z, x, y: -g * floor(x / y)),
    "remainder({0}, {1})",
    8,
    domain=((-9.0, 9.0), (1.0, 4.0)),
    doc="x - y * floor(x / y): the sign of y",
)
fmod: Op = binary(
    "fmod",
    np.fmod,
    (lambda g, z, x, y: g, lambda g, z, x, y: -g * trunc(x / y)),
    "fmod({0}, {1})",
    8,
    domain=((-9.0, 9.0), (1.0, 4.0)),
    doc="x - y * trunc(x / y): the sign of x",
)


def _power(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of integers, a negative exponent gives 1 / x^|y| rounded to zero: 0 unless x is 1 or -1."""
    if x.dtype.kind in "fc" or x.dtype in HALVES or not (y < 0).any():
        return np.power(x, y)
    inverse = np.where(np.abs(x) == 1, np.power(x, y & 1), 0)
    return np.where(y < 0, inverse, np.power(x, np.maximum(y, 0))).astype(x.dtype)


def _exponent_gradient(g: Any, z: Any, x: Any, y: Any) -> Any:
    """g z log(x), and 0 where z is 0 for all exponents nearby."""
    flat = bit_and(x.eq(0.0), (real(y) if y.dtype.is_complex else y) >= 0.0)
    return g * select(flat, z.full(0.0), z * log(select(flat, x.full(1.0), x)))


pow: Op = binary(
    "pow",
    _power,
    (
        lambda g, z, x, y: select(y.eq(0.0), y.full(0.0), g * y * pow(x, y - 1.0)),
        _exponent_gradient,
    ),
    "pow({0}, {1})",
    20,
    ARITHMETIC,
    domain=((0.3, 2.5), (0.0, 3.0)),
    holomorphic=True,
)


def _half_at_ties(g: Any, x: Any, y: Any, loses: Any) -> Any:
    """The gradient of max or min for x: half at ties, all of it beside NaN (PyTorch's choice)."""
    return select(loses, g.full(0.0), select(x.eq(y), g * 0.5, g))


maximum: Op = binary(
    "maximum",
    np.maximum,
    (
        lambda g, z, x, y: _half_at_ties(g, x, y, x < y),
        lambda g, z, x, y: _half_at_ties(g, x, y, y < x),
    ),
    "maximum({0}, {1})",
    dtypes=ORDERED,
    doc="NaN if either is NaN",
)
minimum: Op = binary(
    "minimum",
    np.minimum,
    (
        lambda g, z, x, y: _half_at_ties(g, x, y, x > y),
        lambda g, z, x, y: _half_at_ties(g, x, y, y > x),
    ),
    "minimum({0}, {1})",
    dtypes=ORDERED,
    doc="NaN if either is NaN",
)


def _over_square_norm(a: Any, x: Any, y: Any) -> Any:
    """a / (x^2 + y^2), and 0 at the origin (PyTorch's choice)."""
    norm = x * x + y * y
    origin = norm.eq(0.0)
    return select(origin, a.full(0.0), a / select(origin, a.full(1.0), norm))


atan2: Op = binary(
    "atan2",
    np.arctan2,
    (
        lambda g, z, x, y: _over_square_norm(g * y, x, y),
        lambda g, z, x, y: _over_square_norm(-g * x, x, y),
    ),
    "atan2({0}, {1})",
    20,
    FLOATS,
    domain=((0.3, 3.0), (0.3, 3.0)),
)


def _direction(g: Any, y: Any, x: Any) -> Any:
    """What is left of g beside its part along x / |x| = y, over |x|; 0 at the origin."""
    if not x.dtype.is_complex:
        return g.full(0.0)
    along = cast(real(conj(y) * g), dtype=x.dtype) * y
    size = abs(x)
    origin = size.eq(0.0)
    size = cast(select(origin, size.full(1.0), size), dtype=x.dtype)
    return select(origin, g.full(0.0), (g - along) / size)


neg: Op = unary("neg", np.negative, lambda g, y, x: -g, "-{0}", 1, ARITHMETIC, holomorphic=False)
abs: Op = elementwise(
    "abs",
    np.abs,
    (lambda g, y, x: cast(g, dtype=x.dtype) * sign(x) if x.dtype.is_complex else g * sign(x),),
    "abs({0})",
    lambda x: x.with_dtype(x.dtype.to_real()),
    dtypes=ARITHMETIC,
)
sign: Op = unary(
    "sign",
    lambda x: np.where((x != x) & (x.dtype.kind != "c"), np.zeros_like(x), np.sign(x)),
    _direction,
    cost=2,
    dtypes=ARITHMETIC,
    doc="-1, 0 or 1; 0 of NaN; of complex numbers x / |x|, and 0 of 0 (PyTorch's choices)",
    holomorphic=False,
)
square: Op = unary("square", np.square, lambda g, y, x: g * (x * 2.0), "{0} * {0}", 1, ARITHMETIC)
reciprocal: Op = unary(
    "reciprocal",
    through_f32(lambda x: 1 / x),
    lambda g, y, x: -g * y * y,
    "1 / {0}",
    4,
    domain=(0.5, 3.0),
)

# Rounding: the gradient is zero everywhere it exists.

floor: Op = unary("floor", np.floor, lambda g, y, x: g.full(0.0), cost=1, dtypes=FLOATS)
ceil: Op = unary("ceil", np.ceil, lambda g, y, x: g.full(0.0), cost=1, dtypes=FLOATS)
trunc: Op = unary("trunc", np.trunc, lambda g, y, x: g.full(0.0), cost=1, dtypes=FLOATS)
round: Op = unary(
    "round",
    np.rint,
    lambda g, y, x: g.full(0.0),
    cost=1,
    dtypes=FLOATS,
    doc="to nearest, ties to even",
)

# Exponentials, logarithms, roots.


def _exp2(x: np.ndarray) -> np.ndarray:
    return np.exp(x * math.log(2)) if x.dtype.kind == "c" else np.exp2(x)


exp: Op = unary("exp", np.exp, lambda g, y, x: g * y)
exp2: Op = unary("exp2", _exp2, lambda g, y, x: g * y * math.log(2))
expm1: Op = unary("expm1", np.expm1, lambda g, y, x: g * (y + 1.0))
log: Op = unary("log", np.log, lambda g, y, x: g / x, domain=(0.1, 5.0))
log2: Op = unary("log2", np.log2, lambda g, y, x: g / (x * math.log(2)), domain=(0.1, 5.0))
log10: Op = unary("log10", np.log10, lambda g, y, x: g / (x * math.log(10)), domain=(0.1, 5.0))
log1p: Op = unary("log1p", np.log1p, lambda g, y, x: g / (x + 1.0), domain=(-0.9, 5.0))
sqrt: Op = unary("sqrt", np.sqrt, lambda g, y, x: g * 0.5 / y, cost=4, domain=(0.1, 5.0))
rsqrt: Op = unary(
    "rsqrt",
    through_f32(lambda x: 1 / np.sqrt(x)),
    lambda g, y, x: g * -0.5 * y / x,
    cost=6,
    domain=(0.1, 5.0),
)

# Trigonometric and hyperbolic functions.

sin: Op = unary("sin", np.sin, lambda g, y, x: g * cos(x))
cos: Op = unary("cos", np.cos, lambda g, y, x: -g * sin(x))
tan: Op = unary("tan", np.tan, lambda g, y, x: g * (y * y + 1.0), domain=(-1.2, 1.2))
asin: Op = unary("asin", np.arcsin, lambda g, y, x: g * rsqrt(1.0 - x * x), domain=(-0.9, 0.9))
acos: Op = unary("acos", np.arccos, lambda g, y, x: -g * rsqrt(1.0 - x * x), domain=(-0.9, 0.9))
atan: Op = unary("atan", np.arctan, lambda g, y, x: g / (x * x + 1.0))
sinh: Op = unary("sinh", np.sinh, lambda g, y, x: g * cosh(x))
cosh: Op = unary("cosh", np.cosh, lambda g, y, x: g * sinh(x))
tanh: Op = unary("tanh", np.tanh, lambda g, y, x: g * (1.0 - y * y))
asinh: Op = unary("asinh", np.arcsinh, lambda g, y, x: g * rsqrt(x * x + 1.0))
acosh: Op = unary(
    "acosh",
    np.arccosh,
    lambda g, y, x: (
        g * (rsqrt(x - 1.0) * rsqrt(x + 1.0) if x.dtype.is_complex else rsqrt(x * x - 1.0))
    ),
    domain=(1.2, 5.0),
)
atanh: Op = unary("atanh", np.arctanh, lambda g, y, x: g / (1.0 - x * x), domain=(-0.9, 0.9))

# Predicates, comparisons, bits.

isnan: Op = elementwise("isnan", np.isnan, NO_GRADIENT, "{0} != {0}", _predicate, dtypes=INEXACT)
isfinite: Op = elementwise(
    "isfinite", np.isfinite, NO_GRADIENT, "isfinite({0})", _predicate, dtypes=INEXACT
)
eq: Op = comparison("eq", np.equal, "{0} == {1}", ALL)
ne: Op = comparison("ne", np.not_equal, "{0} != {1}", ALL)
lt: Op = comparison("lt", np.less, "{0} < {1}")
le: Op = comparison("le", np.less_equal, "{0} <= {1}")
gt: Op = comparison("gt", np.greater, "{0} > {1}")
ge: Op = comparison("ge", np.greater_equal, "{0} >= {1}")
bit_and: Op = binary(
    "bit_and", np.bitwise_and, NO_GRADIENT, "{0} & {1}", dtypes=BITS, doc="logical and on bool"
)
bit_or: Op = binary(
    "bit_or", np.bitwise_or, NO_GRADIENT, "{0} | {1}", dtypes=BITS, doc="logical or on bool"
)
bit_xor: Op = binary(
    "bit_xor", np.bitwise_xor, NO_GRADIENT, "{0} ^ {1}", dtypes=BITS, doc="logical xor on bool"
)
bit_not: Op = unary(
    "bit_not", np.invert, NO_GRADIENT, "bit_not({0})", 1, BITS, doc="logical not on bool"
)
shift_left: Op = binary(
    "shift_left", np.left_shift, NO_GRADIENT, "{0} << {1}", dtypes=INTS, domain=(0, 5)
)
shift_right: Op = binary(
    "shift_right",
    np.right_shift,
    NO_GRADIENT,
    "{0} >> {1}",
    dtypes=INTS,
    domain=(0, 5),
    doc="arithmetic",
)

# Choice and conversion.


def _select_type(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if condition.dtype is not bool_:
        raise TypeRuleError(f"select needs a bool condition, given {condition}")
    _same(x, y)
    _same(condition, x.with_dtype(bool_))
    return x


def _select_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for chosen in ALL:
        for shape in ((), (3, 0), (2, 5)):
            yield Sample(tuple(draw(rng, d, *shape) for d in (bool_, chosen, chosen)))


select: Op = elementwise(
    "select",
    np.where,
    (
        None,
        lambda g, z, c, x, y: select(c, g, g.full(0.0)),
        lambda g, z, c, x, y: select(c, g.full(0.0), g),
    ),
    "({1} if {0} else {2})",
    _select_type,
    dtypes=(bool_,),
    samples=_select_samples,
    doc="x where the condition holds, else y",
)


def _cast_type(x: TensorType, *, dtype: DType) -> TensorType:
    return x.with_dtype(dtype)


def _cast(x: np.ndarray, dtype: DType) -> np.ndarray:
    if dtype is bool_:
        return np.asarray(x != 0)
    if x.dtype.kind == "c" and not dtype.is_complex:
        x = x.real
    if dtype.kind == "int" and x.dtype.kind not in "biu":
        return _truncated(x, dtype)
    return x.astype(dtype.numpy)


def _truncated(x: np.ndarray, dtype: DType) -> np.ndarray:
    """Floats to integers, alike on every machine: NaN gives 0, what does not fit i64 its limits.

    Narrower integers take the low bits of an i32 made in the same way.
    """
    wide = np.iinfo(np.int64 if dtype is i64 else np.int32)
    y = x.astype(np.float64)
    limit = 2.0 ** (wide.bits - 1)
    if not (inside := (y >= -limit) & (y < limit)).all():
        edge = np.where(y > 0, wide.max, np.where(y < 0, wide.min, 0))
        return np.where(inside, np.where(inside, y, 0).astype(wide.dtype), edge).astype(dtype.numpy)
    return y.astype(wide.dtype).astype(dtype.numpy)


def _cast_samples(rng: np.random.Generator, dtype: DType) -> Iterator[Sample]:
    for target in ALL:
        for shape in ((), (3, 0), (2, 5)):
            x = draw(rng, dtype, *shape)
            if target is DTYPES["u8"] and dtype.is_signed:  # C leaves negative floats open
                x = np.asarray(np.abs(x))
            yield Sample((x,), {"dtype": target})


cast: Op = elementwise(
    "cast",
    _cast,
    (lambda g, y, x, dtype: cast(g, dtype=x.dtype),),
    "cast({0})",
    _cast_type,
    dtypes=ALL,
    samples=_cast_samples,
    doc="to another dtype; complex to real drops the imaginary part, float to int truncates, "
    "anything to bool is != 0",
)
stop_gradient: Op = elementwise(
    "stop_gradient",
    lambda x: x,
    NO_GRADIENT,
    "{0}",
    lambda x: x,
    dtypes=ALL,
    doc="the identity, constant to autodiff",
)
