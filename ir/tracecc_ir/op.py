"""What an op is: name, type rule, reference, derivative, lowering and samples, all in one object.

Rules are written once, over `Expr` handles, and run wherever an `Emitter` sends them: appended to a
graph by a builder, or evaluated at once by eager code. Calling an op on Exprs emits it.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from tracecc_ir.dims import Size
from tracecc_ir.errors import DTypeError, NotDifferentiable, TypeRuleError
from tracecc_ir.types import DType, Shape, TensorType

Attrs = Mapping[str, Any]
Kind = Literal[
    "elementwise",  # one output element from the elements at the same index
    "constant",  # no operands: constant, iota
    "movement",  # the same elements elsewhere: reshape, permute, broadcast, slice, pad, ...
    "reduce",  # sum, max, ... over axes
    "scan",  # cumulative ops along one axis
    "contraction",  # dot_general, conv and their kin
    "window",  # pooling
    "index",  # gather, scatter, sort, argmax
    "random",
    "linalg",
    "fourier",
    "library",  # elementwise functions that no backend has a kernel for: the interpreter runs them
    "control",  # ops that hold graphs: call, cond, while, scan; and barrier
    "composite",  # has a decomposition into other ops
    "kernel",  # a fused group
]


class Emitter(Protocol):
    """Where ops go. Values are the emitter's own: graph values, tensors or arrays."""

    def emit(self, op: Op, inputs: Sequence[Any], attrs: Attrs) -> tuple[Any, ...]: ...

    def type_of(self, value: Any) -> TensorType: ...


class Expr:
    """A value together with the emitter that made it, so that rules can be written as plain maths.

    Operators take Exprs of exactly the same type, or Python numbers, which become constants of that
    type. Nothing broadcasts or promotes.
    """

    __slots__ = ("emitter", "type", "value")

    def __init__(self, value: Any, emitter: Emitter):
        self.value = value
        self.emitter = emitter
        self.type = emitter.type_of(value)

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    @property
    def size(self) -> Size:
        return self.type.size

    def full(self, number: float, shape: Shape | None = None, dtype: DType | None = None) -> Expr:
        """A constant filled with ``number``, by default of this Expr's own type."""
        shape = self.shape if shape is None else tuple(shape)
        return OPS["constant"](like=self, value=number, shape=shape, dtype=dtype or self.dtype)

    def _binary(self, name: str, other: Expr | float, swap: bool = False) -> Expr:
        other = other if isinstance(other, Expr) else self.full(other)
        return OPS[name](other, self) if swap else OPS[name](self, other)

    def __add__(self, other: Expr | float) -> Expr:
        return self._binary("add", other)

    def __radd__(self, other: float) -> Expr:
        return self._binary("add", other, swap=True)

    def __sub__(self, other: Expr | float) -> Expr:
        return self._binary("sub", other)

    def __rsub__(self, other: float) -> Expr:
        return self._binary("sub", other, swap=True)

    def __mul__(self, other: Expr | float) -> Expr:
        return self._binary("mul", other)

    def __rmul__(self, other: float) -> Expr:
        return self._binary("mul", other, swap=True)

    def __truediv__(self, other: Expr | float) -> Expr:
        return self._binary("div", other)

    def __rtruediv__(self, other: float) -> Expr:
        return self._binary("div", other, swap=True)

    def __neg__(self) -> Expr:
        return OPS["neg"](self)

    # Comparisons give a bool Expr; `==` is left alone so that Exprs stay hashable by identity.
    def eq(self, other: Expr | float) -> Expr:
        return self._binary("eq", other)

    def ne(self, other: Expr | float) -> Expr:
        return self._binary("ne", other)

    def __lt__(self, other: Expr | float) -> Expr:
        return self._binary("lt", other)

    def __le__(self, other: Expr | float) -> Expr:
        return self._binary("le", other)

    def __gt__(self, other: Expr | float) -> Expr:
        return self._binary("gt", other)

    def __ge__(self, other: Expr | float) -> Expr:
        return self._binary("ge", other)

    def __repr__(self) -> str:
        return f"Expr({self.value}: {self.type})"


Exprs = Expr | tuple[Expr, ...]


@dataclass(frozen=True)
class Sample:
    """One example call of an op, for the tests that are generated from the table."""

    inputs: tuple[np.ndarray, ...]
    attrs: Attrs = field(default_factory=dict)


@dataclass(frozen=True)
class Usual:
    """The value of an attribute that goes without saying: texts leave it out.

    Attributes:
        doc: the value in words, for the reference table.
        value: ``value(operand types, first result type, the attributes given)``.
    """

    doc: str
    value: Callable[[Sequence[TensorType], TensorType, Attrs], Any]


class _NoGradient:
    """Marks an op whose results carry no gradient at all (comparisons, argmax, random bits)."""

    def __repr__(self) -> str:
        return "NO_GRADIENT"


NO_GRADIENT = _NoGradient()
OPS: dict[str, Op] = {}


@dataclass(eq=False)
class Op:
    """One operation of the language.

    Attributes:
        name: as printed in graphs.
        kind: how backends treat it.
        infer: the type rule, ``infer(*operand_types, **attrs)`` gives a TensorType or a
            tuple of them; its keyword-only parameters are the op's attributes, with their defaults.
        reference: the NumPy meaning, ``reference(*arrays, **attrs)``; None for composites (the
            decomposition is the meaning) and for control flow (the interpreter runs the regions).
        vjp: the derivative. A tuple with one rule (or None) per operand, each
            ``rule(g, out, *operands, **attrs) -> Expr``; or one function of the same arguments that
            returns a tuple with one entry per operand; or passes.grad.Derived(), which
            differentiates the decomposition; or NO_GRADIENT. For an op with several outputs
            ``g`` and ``out`` are tuples (a ``g`` that nobody asked for is zeros).
        holomorphic: whether ``vjp`` is written as for real numbers, so that for complex ones its
            factors are to be conjugated. Gradients are PyTorch's: dL/dRe(x) + i dL/dIm(x).
        scalar: for elementwise ops, the result element as an expression over ``{0}``, ``{1}``, ...
            in Python operators and the math vocabulary that every backend provides.
        decomposition: for composites, ``decomposition(*exprs, **attrs) -> Expr | tuple``.
        cost: floating point operations per element of an elementwise op (about 10 for exp).
        domain: the interval that test inputs are drawn from, per operand or one for all.
        dtypes: the dtypes that operand 0 may have.
        usual: what texts leave out because the operands, the result and the other attributes say
            it; in code every attribute without a default is given.
        samples: example calls for the generated tests, ``samples(rng, dtype)`` yields
            Samples; elementwise ops need none.
        doc: one line for the reference table.
    """

    name: str
    kind: Kind
    infer: Callable[..., Any]
    reference: Callable[..., Any] | None = None
    vjp: Any = None
    scalar: str | None = None
    decomposition: Callable[..., Exprs] | None = None
    cost: int = 1
    domain: Any = (-3.0, 3.0)
    dtypes: tuple[DType, ...] = ()
    samples: Callable[[np.random.Generator, DType], Iterable[Sample]] | None = None
    usual: Mapping[str, Usual] = field(default_factory=dict)
    doc: str = ""
    holomorphic: bool = False
    defaults: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.name in OPS:
            raise ValueError(f"op {self.name} is defined twice")
        OPS[self.name] = self
        parameters = inspect.signature(self.infer).parameters.values()
        self.attr_names = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        self.defaults = {
            p.name: p.default
            for p in parameters
            if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
        }

    def bind(self, attrs: Attrs) -> dict[str, Any]:
        """All attributes in declared order with defaults; raises on unknown or missing ones."""
        if tuple(attrs) == self.attr_names:
            return dict(attrs)
        unknown = [k for k in attrs if k not in self.attr_names]
        if unknown:
            raise TypeRuleError(
                f"{self.name} has no attribute {unknown[0]}; "
                f"it takes {', '.join(self.attr_names) or 'none'}"
            )
        try:
            return {k: attrs[k] if k in attrs else self.defaults[k] for k in self.attr_names}
        except KeyError as missing:
            raise TypeRuleError(f"{self.name} needs the attribute {missing.args[0]}") from None

    def implied(
        self, operands: Sequence[TensorType], result: TensorType, given: Attrs
    ) -> dict[str, Any]:
        """The attributes that a text need not show, with their values."""
        known = {"shape": result.shape, "dtype": result.dtype}
        found = {k: v for k, v in known.items() if k in self.attr_names and k not in self.defaults}
        usual = self.usual.items() if operands else ()
        return found | {k: u.value(operands, result, given) for k, u in usual}

    def result_types(self, operands: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        """Runs the type rule; every result is a tuple here."""
        if self.dtypes and operands and operands[0].dtype not in self.dtypes:
            allowed = ", ".join(d.name for d in self.dtypes)
            raise DTypeError(
                f"{self.name} of {operands[0]} is not defined; expected a dtype among {allowed}"
            )
        result = self.infer(*operands, **attrs)
        return (result,) if isinstance(result, TensorType) else tuple(result)

    @property
    def differentiable(self) -> bool:
        return self.vjp is not NO_GRADIENT

    def gradients(
        self,
        wanted: Sequence[bool],
        gs: Sequence[Expr],
        outs: Sequence[Expr],
        xs: Sequence[Expr],
        attrs: Attrs,
    ) -> list[Expr | None]:
        """Applies the derivative rule: the gradient of each wanted operand, None for the others.

        None for a wanted operand means zero.
        """
        if self.vjp is NO_GRADIENT:
            return [None] * len(xs)
        rule = self.vjp
        if rule is None:
            raise NotDifferentiable(
                f"{self.name} has no derivative rule; detach() its inputs to treat it as constant"
            )
        if hasattr(rule, "gradients"):
            return list(rule.gradients(self, wanted, gs, xs, attrs))
        conjugate = self.holomorphic and any(g.dtype.is_complex for g in gs)
        if conjugate:
            gs = [conjugated(g) for g in gs]
        g: Any = gs[0] if len(outs) == 1 else tuple(gs)
        out: Any = outs[0] if len(outs) == 1 else tuple(outs)
        if callable(rule):
            found = tuple(rule(g, out, *xs, **attrs))
        else:
            found = tuple(
                r(g, out, *xs, **attrs) if w and r is not None else None
                for r, w in zip(rule, wanted, strict=True)
            )
        if conjugate:
            found = tuple(None if f is None else conjugated(f) for f in found)
        return [f if w else None for f, w in zip(found, wanted, strict=True)]

    def __call__(self, *operands: Expr, like: Expr | None = None, **attrs: Any) -> Any:
        """Emits the op where its operands (or ``like``) live; several results are a tuple."""
        anchor = operands[0] if operands else like
        if anchor is None:
            raise TypeError(f"{self.name} takes no operands: say where it goes with like=")
        emitter = anchor.emitter
        values = emitter.emit(self, [x.value for x in operands], self.bind(attrs))
        exprs = tuple(Expr(v, emitter) for v in values)
        return exprs[0] if len(exprs) == 1 else exprs

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> tuple:
        return op_named, (self.name,)


def conjugated(x: Expr) -> Any:
    """The complex conjugate; real numbers as they are."""
    return OPS["conj"](x) if x.dtype.is_complex else x


def op_named(name: str) -> Op:
    """The op with this name; raises TypeRuleError with the nearest names if there is none."""
    try:
        return OPS[name]
    except KeyError:
        near = ", ".join(difflib.get_close_matches(name, OPS)) or "see ir/README.md"
        raise TypeRuleError(f"there is no op {name}; nearest: {near}") from None
