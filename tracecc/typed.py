"""``FloatTensor`` and its kin: constructors and checks with a dtype in their name."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracecc.functional.creation import empty, tensor
from tracecc.tensor import Tensor
from tracecc_ir.types import DTYPES, DType

_NAMES = {"Half": "f16", "BFloat16": "bf16", "Float": "f32", "Double": "f64", "Bool": "bool"}
_NAMES |= {"Byte": "u8", "Char": "i8", "Short": "i16", "Int": "i32", "Long": "i64"}


class _Typed(type):
    """The class of typed constructors: calling one makes a plain tensor of its dtype."""

    dtype: DType

    def __call__(cls, *args: Any, **options: Any) -> Tensor:
        first = args[0] if len(args) == 1 else None
        if isinstance(first, (list, tuple, np.ndarray)):
            return tensor(first, dtype=cls.dtype)
        if isinstance(first, Tensor):
            if first.dtype is not cls.dtype:
                raise TypeError(
                    f"{cls.__name__} of a tensor expects dtype {cls.dtype.public}, given "
                    f"{first.dtype.public}; convert it with .to()"
                )
            return first.detach()
        return empty(args or (0,), dtype=cls.dtype)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is cls.dtype


def _constructor(name: str, dtype: DType) -> Any:
    doc = f"A tensor of {dtype.public}: of given sizes (zeros), or of given numbers."
    return _Typed(name, (), {"dtype": dtype, "__doc__": doc, "__module__": __name__})


TYPES = {f"{name}Tensor": DTYPES[short] for name, short in _NAMES.items()}
globals().update({name: _constructor(name, dtype) for name, dtype in TYPES.items()})
