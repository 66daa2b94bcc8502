"""Data types of the array API, and what the library says of itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import tracecc as tc
from tracecc.tensor import Tensor

_KINDS: dict[str, tuple[Any, ...]] = {
    "bool": (tc.bool,),
    "signed integer": (tc.int8, tc.int16, tc.int32, tc.int64),
    "unsigned integer": (tc.uint8,),
    "real floating": (tc.float32, tc.float64),
    "complex floating": (tc.complex64, tc.complex128),
}
_KINDS["integral"] = _KINDS["signed integer"] + _KINDS["unsigned integer"]
_KINDS["numeric"] = _KINDS["integral"] + _KINDS["real floating"] + _KINDS["complex floating"]


def _dtype(x: Any) -> Any:
    return x.dtype if isinstance(x, Tensor) else x


def astype(x: Tensor, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """x as another dtype; without ``copy`` x itself where it already has it.

    Raises:
        TypeError: complex numbers would lose their imaginary parts.

    >>> astype(tc.tensor([1.5, -2.5]), tc.int64)
    tensor([ 1, -2])
    """
    if x.dtype.is_complex and not dtype.is_complex:
        raise TypeError(f"astype cannot make {dtype} of {x.dtype}; take real() or imag() first")
    return x.to(device=x.device if device is None else device, dtype=dtype, copy=copy)


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether promotion alone leads from one dtype to the other.

    >>> can_cast(tc.int8, tc.int32), can_cast(tc.int32, tc.int8)
    (True, False)
    """
    given = _dtype(from_)
    return given == to or tc.promote_types(given, to) == to


class FloatLimits(NamedTuple):
    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: Any


class IntegerLimits(NamedTuple):
    bits: int
    max: int
    min: int
    dtype: Any


def finfo(type: Any, /) -> FloatLimits:
    """The limits of a floating dtype; of a complex one, those of its parts.

    >>> finfo(tc.float32).eps
    1.1920928955078125e-07
    """
    dtype = _dtype(type)
    if dtype.is_complex:
        dtype = tc.float32 if dtype == tc.complex64 else tc.float64
    found = tc.finfo(dtype)
    return FloatLimits(found.bits, found.eps, found.max, found.min, found.smallest_normal, dtype)


def iinfo(type: Any, /) -> IntegerLimits:
    """The limits of an integer dtype.

    >>> iinfo(tc.int8).max
    127
    """
    found = tc.iinfo(_dtype(type))
    return IntegerLimits(found.bits, found.max, found.min, _dtype(type))


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is the given one, of the kind of that name, or any of several such.

    >>> isdtype(tc.int8, "integral"), isdtype(tc.int8, (tc.float32, "bool"))
    (True, False)
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise ValueError(f"isdtype: kind must be one of {', '.join(_KINDS)}, given {kind!r}")
        return dtype in _KINDS[kind]
    return dtype == kind


def result_type(*arrays_and_dtypes: Any) -> Any:
    """The dtype that arrays, dtypes and Python numbers are promoted to together.

    >>> result_type(tc.int8, tc.uint8), result_type(tc.ones(2), 1)
    (tracecc.int16, tracecc.float32)
    """
    if not arrays_and_dtypes:
        raise ValueError("result_type needs an array or a dtype, given nothing")
    scalars = [x for x in arrays_and_dtypes if isinstance(x, bool | int | float | complex)]
    found = None
    for x in arrays_and_dtypes:
        if not any(x is s for s in scalars):
            found = _dtype(x) if found is None else tc.promote_types(found, _dtype(x))
    if found is None:
        raise ValueError("result_type needs an array or a dtype, given Python numbers alone")
    for s in scalars:
        found = tc.result_type(tc.ones(1, dtype=found), s)
    return found


class Info:
    """What ``__array_namespace_info__()`` gives."""

    def capabilities(self) -> dict[str, Any]:
        """What of the optional behaviours there is."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Any:
        """The device of arrays whose creation names none."""
        return tc.device("cpu")

    def default_dtypes(self, *, device: Any = None) -> dict[str, Any]:
        """The dtypes of arrays whose creation names none."""
        real = tc.get_default_dtype()
        return {
            "real floating": real,
            "complex floating": tc.complex128 if real == tc.float64 else tc.complex64,
            "integral": tc.int64,
            "indexing": tc.int64,
        }

    def devices(self) -> list[Any]:
        """The devices that arrays can be on."""
        return [tc.device("cpu")]

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, Any]:
        """The dtypes of a kind, or of any of several, or all of the standard that there are."""
        everything = (*_KINDS["bool"], *_KINDS["numeric"])
        return {str(d).split(".")[-1]: d for d in everything if kind is None or isdtype(d, kind)}


def __array_namespace_info__() -> Info:
    """What the library says of its devices, dtypes and capabilities."""
    return Info()
