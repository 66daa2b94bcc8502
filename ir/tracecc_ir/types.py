"""Element types with PyTorch's promotion rules; tensor types with (possibly symbolic) shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import ml_dtypes
import numpy as np

from tracecc_ir.dims import Dim, Size, product

Shape = tuple[Size, ...]


class DType:
    """An element type. There is one object per type, so ``is`` compares them.

    Attributes:
        name: the IR's spelling, ``f32``.
        public: PyTorch's spelling, ``float32``.
        kind: ``bool``, ``int``, ``float`` or ``complex``, in the order of promotion (``rank``).
        numpy: the NumPy dtype that holds it.
        is_complex: whether the kind is ``complex``.
        is_inexact: whether gradients flow through its tensors: it is floating point or complex.
    """

    __slots__ = ("bits", "is_complex", "is_inexact", "kind", "name", "numpy", "public")

    def __init__(self, name: str, public: str, kind: str, numpy: np.dtype):
        self.name, self.public, self.kind, self.numpy = name, public, kind, numpy
        self.bits = numpy.itemsize * 8
        self.is_complex = kind == "complex"
        self.is_inexact = kind in ("float", "complex")

    @property
    def itemsize(self) -> int:
        return self.numpy.itemsize

    @property
    def is_floating_point(self) -> bool:
        return self.kind == "float"

    def to_real(self) -> DType:
        """The dtype of real and imaginary parts; a real dtype itself."""
        return {"c64": f32, "c128": f64}.get(self.name, self)

    def to_complex(self) -> DType:
        """The complex dtype of such parts, at least complex64; a complex dtype itself."""
        return c128 if self in (f64, c128) else c64

    @property
    def is_signed(self) -> bool:
        return self.name not in ("bool", "u8")

    @property
    def rank(self) -> int:
        return ("bool", "int", "float", "complex").index(self.kind)

    def __repr__(self) -> str:
        return f"tracecc.{self.public}"

    def __reduce__(self) -> tuple:
        return dtype, (self.name,)


bool_ = DType("bool", "bool", "bool", np.dtype(np.bool_))
u8 = DType("u8", "uint8", "int", np.dtype(np.uint8))
i8 = DType("i8", "int8", "int", np.dtype(np.int8))
i16 = DType("i16", "int16", "int", np.dtype(np.int16))
i32 = DType("i32", "int32", "int", np.dtype(np.int32))
i64 = DType("i64", "int64", "int", np.dtype(np.int64))
f16 = DType("f16", "float16", "float", np.dtype(np.float16))
bf16 = DType("bf16", "bfloat16", "float", np.dtype(ml_dtypes.bfloat16))
f32 = DType("f32", "float32", "float", np.dtype(np.float32))
f64 = DType("f64", "float64", "float", np.dtype(np.float64))
c64 = DType("c64", "complex64", "complex", np.dtype(np.complex64))
c128 = DType("c128", "complex128", "complex", np.dtype(np.complex128))

INTS = (u8, i8, i16, i32, i64)
FLOATS = (f16, bf16, f32, f64)
COMPLEX = (c64, c128)
DTYPES: dict[str, DType] = {d.name: d for d in (bool_, *INTS, *FLOATS, *COMPLEX)}
_BY_NUMPY: dict[np.dtype, DType] = {d.numpy: d for d in DTYPES.values()}


def dtype(name: str) -> DType:
    """The dtype with this IR name."""
    return DTYPES[name]


def from_numpy_dtype(numpy_dtype: object) -> DType:
    """The dtype that a NumPy dtype holds; raises TypeError for one the IR does not have."""
    found = _BY_NUMPY.get(np.dtype(numpy_dtype))  # type: ignore[call-overload]
    if found is None:
        known = ", ".join(d.public for d in DTYPES.values())
        raise TypeError(f"NumPy dtype {numpy_dtype} has no tensor dtype; expected one of {known}")
    return found


def promote_types(a: DType, b: DType) -> DType:
    """The smallest dtype that both convert to (PyTorch's lattice).

    >>> promote_types(i64, f16), promote_types(u8, i8), promote_types(f16, bf16)
    (tracecc.float16, tracecc.int16, tracecc.float32)
    """
    if a is b:
        return a
    for x in (a, b):
        if not isinstance(x, DType):
            raise TypeError(f"promote_types takes two dtypes, given {x!r}")
    if a.rank != b.rank:
        lower, higher = sorted((a, b), key=lambda d: d.rank)
        return c128 if higher is c64 and lower is f64 else higher
    if a.kind == "float":
        if {a, b} == {f16, bf16}:
            return f32
        return a if a.bits > b.bits else b
    if u8 in (a, b):
        other = b if a is u8 else a
        return i16 if other is i8 else other
    return a if a.bits > b.bits else b


class Operand(NamedTuple):
    """What promotion looks at: a dtype and its priority.

    Priorities: 2 a tensor with dimensions, 1 a 0-d tensor, 0 a Python number.
    """

    dtype: DType
    priority: int


def result_type(operands: Iterable[Operand], default: DType = f32) -> DType:
    """PyTorch's result type: a lower-priority operand matters only if its kind is higher.

    ``default`` is what a Python float becomes when it meets only integers, and the parts of a
    Python complex number are. A complex number keeps the precision of the floats that it meets.

    >>> result_type([Operand(f32, 2), Operand(f64, 1)])
    tracecc.float32
    >>> result_type([Operand(i64, 2), Operand(f64, 0)])
    tracecc.float32
    >>> result_type([Operand(f64, 2), Operand(c64, 1)])
    tracecc.complex128
    """
    best: DType | None = None
    groups: dict[int, DType] = {}
    for op in operands:
        seen = groups.get(op.priority)
        groups[op.priority] = op.dtype if seen is None else promote_types(seen, op.dtype)
    for priority in (2, 1, 0):
        here = groups.get(priority)
        if here is None:
            continue
        if priority == 0 and here.is_inexact:
            here = default.to_complex() if here.is_complex else default
        if best is None or here.rank > best.rank:
            best = best.to_complex() if best is not None and best.kind == "float" else here
    if best is None:
        raise ValueError("result_type needs at least one operand")
    return best


class TensorType(NamedTuple):
    """A dtype and a shape; printed ``f32[64, 10]``.

    >>> TensorType(f32, (Dim.symbol("b"), 10))
    f32[b, 10]
    """

    dtype: DType
    shape: Shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        return product(self.shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of a type without symbolic sizes.

        Raises:
            TypeError: a size is symbolic.
        """
        known = tuple(s for s in self.shape if isinstance(s, int))
        if len(known) < len(self.shape):
            raise TypeError(f"the sizes of {self!r} are not known")
        return known

    @property
    def nbytes(self) -> Size:
        return self.size * self.dtype.itemsize

    @property
    def is_symbolic(self) -> bool:
        return any(isinstance(s, Dim) for s in self.shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def with_shape(self, shape: Iterable[Size]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def __repr__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


def type_of_array(array: np.ndarray) -> TensorType:
    return TensorType(from_numpy_dtype(array.dtype), array.shape)
