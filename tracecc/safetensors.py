"""The safetensors format: a JSON header that describes tensors, then their memory end to end."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tracecc.tensor import Tensor, wrap
from tracecc_ir.types import DTYPES, DType

_NAMES = {
    "f64": "F64",
    "f32": "F32",
    "f16": "F16",
    "bf16": "BF16",
    "i64": "I64",
    "i32": "I32",
    "i16": "I16",
    "i8": "I8",
    "u8": "U8",
    "bool": "BOOL",
    "c64": "C64",
}
_KINDS: dict[str, DType] = {_NAMES[n]: d for n, d in DTYPES.items() if n in _NAMES}
_MOST_HEADER = 100_000_000


def write_safetensors(tensors: Any, file: Any) -> None:
    """Writes a dict of names and tensors to a binary file.

    Raises:
        TypeError: ``tensors`` is anything else, or the format does not have a tensor's dtype.
    """
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise TypeError("a .safetensors file holds a dict of names and tensors, nothing else")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, end = [], 0
    widest_first = sorted(tensors.items(), key=lambda item: (-item[1].dtype.bits, item[0]))
    for name, t in widest_first:
        array = np.ascontiguousarray(t.detach()._numpy())
        start, end = end, end + array.nbytes
        shape = [int(n) for n in t.shape]
        kind = _NAMES.get(t.dtype.name)
        if kind is None:
            raise TypeError(
                f"a .safetensors file has no {t.dtype.public}, the dtype of {name!r}; convert it "
                "or save a .pt file"
            )
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        parts.append(array.tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    for part in (len(text).to_bytes(8, "little"), text, *parts):
        file.write(part)


def read_safetensors(data: bytes) -> dict[str, Tensor]:
    """The tensors of a file's bytes by name.

    Raises:
        ValueError: the header is damaged or a tensor reaches beyond the file.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, _MOST_HEADER):
        raise ValueError("not a .safetensors file: its header is longer than the file")
    header, memory = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    found = {}
    for name, part in header.items():
        if name == "__metadata__":
            continue
        dtype, shape = _KINDS.get(part["dtype"]), tuple(part["shape"])
        if dtype is None:
            raise ValueError(f"tensor {name!r} has the dtype {part['dtype']}, which is not known")
        start, end = part["data_offsets"]
        wanted = int(np.prod(shape, dtype=np.int64)) * dtype.numpy.itemsize
        if not 0 <= start <= end <= len(memory) or end - start != wanted:
            raise ValueError(f"tensor {name!r} reaches beyond its memory")
        array = np.frombuffer(memory, dtype.numpy, wanted // dtype.numpy.itemsize, start)
        found[name] = wrap(array.reshape(shape).copy())
    return found
