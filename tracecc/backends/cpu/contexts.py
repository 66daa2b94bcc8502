"""Numba's typing and lowering contexts for kernels: every rule is looked up once per operand types.

Numba tries all templates of a function at each use. Kernels use few functions on few types, over
and over; here the answers are remembered, and the vocabulary (`Primitive`) gives its own at once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from llvmlite import ir
from numba.core import types, typing
from numba.core.cpu import CPUContext
from numba.core.errors import TypingError
from numba.core.typing import signature
from numba.extending import models, register_model

Emit = Callable[[ir.IRBuilder, list[ir.Value], list[Any]], ir.Value]


class Primitive:
    """A function of the vocabulary.

    Attributes:
        name: what kernels call it.
        arity: the number of parameters.
        result: the result type from the (non-literal) parameter types; raises TypingError.
        emit: builds the value from the builder, values and parameter types.
        widens: whether arguments are converted to 64-bit integers.
    """

    def __init__(
        self,
        name: str,
        arity: int,
        result: Callable[..., types.Type],
        emit: Emit,
        *,
        widens: bool = False,
    ):
        self.name, self.arity = name, arity
        self.result, self.emit, self.widens = result, emit, widens
        self._numba_type_ = _PrimitiveType(self)


class _PrimitiveType(types.Callable, types.Opaque):
    """The type of one `Primitive`."""

    def __init__(self, primitive: Primitive):
        self.primitive = primitive
        self._signatures: dict[Any, Any] = {}
        super().__init__(f"primitive({primitive.name})")

    def get_call_type(self, context: Any, args: tuple, kws: Mapping) -> Any:
        found = self._signatures.get(args)
        if found is None:
            p = self.primitive
            if len(args) != p.arity or kws:
                raise TypingError(f"{p.name} takes {p.arity} arguments, given {len(args)}")
            plain = [types.int64 if p.widens else types.unliteral(a) for a in args]
            found = self._signatures[args] = signature(p.result(*plain), *plain)
        return found

    def get_call_signatures(self) -> tuple[list, bool]:
        return list(self._signatures.values()), True

    def get_impl_key(self, sig: Any) -> Any:
        return self.primitive


class _Function(types.Function):
    """A function that Numba knows, whose templates are tried once per operand types."""

    def __init__(self, template: Any):
        super().__init__(template)
        self._answers: dict[Any, Any] = {}

    def augment(self, other: types.Type) -> _Function | None:
        if not isinstance(other, types.Function) or other.typing_key != self.typing_key:
            return None
        return _Function(self.templates + other.templates)

    def get_call_type(self, context: Any, args: tuple, kws: Mapping) -> Any:
        if kws:
            return super().get_call_type(context, args, kws)
        answer = self._answers.get(args)
        if answer is None:
            try:
                answer = super().get_call_type(context, args, kws)
            except TypingError as error:
                answer = error
            self._answers[args] = answer
        if isinstance(answer, TypingError):
            raise answer
        return answer


for _kind in (_PrimitiveType, _Function):
    register_model(_kind)(models.OpaqueModel)


class _Typing(typing.Context):
    """Reads the registries once, and makes every function one that remembers."""

    def init(self) -> None:
        self._read = False

    def refresh(self) -> None:
        if not self._read:
            self._read = True
            super().refresh()

    def insert_global(self, gv: Any, gty: Any) -> None:
        remembers = type(gty) is types.Function
        super().insert_global(gv, _Function(gty.templates) if remembers else gty)


class _Target(CPUContext):
    """Reads the registries once, and has one set of options."""

    def init(self) -> None:
        super().init()
        self._read = False
        self._found: dict[Any, Any] = {}
        self._kernels: Any = None

    def refresh(self) -> None:
        if not self._read:
            self._read = True
            super().refresh()

    def subtarget(self, **options: Any) -> Any:
        if self._kernels is None:
            self._kernels = super().subtarget(**options)
        return self._kernels

    def get_function(self, fn: Any, sig: Any, _firstcall: bool = True) -> Any:
        key = fn, sig.args, sig.return_type
        found = self._found.get(key)
        if found is None:
            if isinstance(fn, _PrimitiveType):
                found = _inline(fn.primitive.emit, list(sig.args))
            elif (direct := _direct(fn, sig)) is not None:
                found = _inline(direct, fn.typing_key)
            else:
                found = super().get_function(fn, sig, _firstcall)
            self._found[key] = found
        return found


def _inline(emit: Callable[..., ir.Value], detail: Any) -> Callable[..., ir.Value]:
    def implementation(builder: ir.IRBuilder, values: Any, loc: Any = None) -> ir.Value:
        return emit(builder, list(values), detail)

    return implementation


def _direct(fn: Any, sig: Any) -> Emit | None:
    """What replaces Numba's implementation, which branches."""
    key = getattr(fn, "typing_key", None)
    if key in (operator.floordiv, operator.mod) and sig.args == (types.int64, types.int64):
        return _divide
    if key is operator.truediv and sig.args in ((types.float32,) * 2, (types.float64,) * 2):
        return lambda b, values, _: b.fdiv(*values)
    return None


def _divide(b: ir.IRBuilder, values: list[ir.Value], kind: Any) -> ir.Value:
    """Python's `//` or `%` of indices without a branch; a divisor of 0 counts as 1.

    (Numba's branches on the divisor make LLVM duplicate the loops around them.)
    """
    x, y = values
    zero = x.type(0)
    divisor = b.or_(y, b.zext(b.icmp_signed("==", y, zero), x.type))
    rest = b.srem(x, divisor)
    differs = b.icmp_signed("<", b.xor(rest, divisor), zero)
    down = b.and_(b.icmp_signed("!=", rest, zero), differs)
    if kind is operator.mod:
        return b.select(down, b.add(rest, divisor), rest)
    whole = b.sdiv(x, divisor)
    return b.sub(whole, b.zext(down, x.type))


TYPING = _Typing()
TARGET = _Target(TYPING, "cpu")
