"""The exceptions of the IR. Each message is one sentence: given, expected, where, and the fix."""


class IRError(RuntimeError):
    """A program that the IR refuses: a type rule, the verifier or the parser found a fault."""


class TypeRuleError(IRError):
    """Operands or attributes that an op's type rule refuses (wrong shape, dtype or attribute)."""


class DTypeError(TypeRuleError, NotImplementedError):
    """An op is not defined for the dtype of its operands."""


class OutOfBounds(IRError, IndexError):
    """An index that lies outside of the dimension that it reads or writes."""


class VerifyError(IRError):
    """A graph that breaks SSA form or whose recorded types disagree with its ops."""


class ParseError(IRError):
    """Text that is not a graph; the message gives the line and column."""


class NotDifferentiable(IRError):
    """A gradient was asked of an op that has no derivative rule; the message names the op."""


class LinAlgError(IRError):
    """A matrix that a factorisation or solve cannot take: singular, not positive definite, NaN."""
