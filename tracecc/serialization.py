"""`save` and `load`: PyTorch's zip checkpoints and safetensors files.

A checkpoint is a zip of a pickle and the raw memory of every storage. It is read by an unpickler
that knows a fixed list of names, so that a file can make tensors and containers and run nothing.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import tempfile
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from tracecc.devices import device
from tracecc.nn.parameter import Parameter
from tracecc.safetensors import read_safetensors, write_safetensors
from tracecc.tensor import Size, Tensor, wrap
from tracecc_ir.types import DTYPES, DType

__all__ = ["load", "save"]

_STORAGES = {
    "f64": "DoubleStorage",
    "f32": "FloatStorage",
    "f16": "HalfStorage",
    "bf16": "BFloat16Storage",
    "i64": "LongStorage",
    "i32": "IntStorage",
    "i16": "ShortStorage",
    "i8": "CharStorage",
    "u8": "ByteStorage",
    "bool": "BoolStorage",
    "c64": "ComplexFloatStorage",
    "c128": "ComplexDoubleStorage",
}
_PROTOCOL = 2


class _Global:
    """A name that the pickle refers to; nothing of that name needs to exist here."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def __call__(self) -> None:
        raise TypeError(f"{self.module}.{self.name} stands for a name only")


class _Storage:
    """One piece of memory of the file."""

    def __init__(self, array: np.ndarray, dtype: DType, key: str):
        self.array, self.dtype, self.key = array, dtype, key


_REBUILD = _Global("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = _Global("torch._utils", "_rebuild_parameter")
_SIZE = _Global("torch", "Size")
_DEVICE = _Global("torch", "device")


class _Pickler(pickle._Pickler):  # the one in Python, whose names can be chosen
    def __init__(self, file: io.BytesIO):
        super().__init__(file, _PROTOCOL)
        self.storages: list[_Storage] = []
        self._by_memory: dict[Any, _Storage] = {}

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())  # type: ignore[attr-defined]
        elif isinstance(obj, DType):
            self.save(_Global("torch", obj.public.rpartition(".")[2]))
        elif isinstance(obj, Tensor) and id(obj) not in self.memo:  # type: ignore[attr-defined]
            self.save_reduce(*self._reduced(obj), obj=obj)  # type: ignore[attr-defined]
        elif isinstance(obj, Size):
            self.save_reduce(_SIZE, (tuple(obj),), obj=obj)  # type: ignore[attr-defined]
        elif isinstance(obj, device):
            self.save_reduce(_DEVICE, (str(obj),), obj=obj)  # type: ignore[attr-defined]
        elif isinstance(obj, np.generic):
            self.save(obj.item())
        elif callable(obj) and obj not in (OrderedDict, Counter, defaultdict, dict, list, set):
            raise pickle.PicklingError(
                f"save() stores tensors, numbers, strings and containers, given {obj!r}; "
                "save a module's or an optimizer's state_dict()"
            )
        else:
            super().save(obj, save_persistent_id)  # type: ignore[misc]

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Storage):
            return None
        kind = _Global("torch", _STORAGES[obj.dtype.name])
        return ("storage", kind, obj.key, "cpu", int(obj.array.size))

    def _reduced(self, t: Tensor) -> tuple[Any, tuple]:
        if isinstance(t, Parameter):
            return _PARAMETER, (t.detach(), t.requires_grad, OrderedDict())
        array = t.detach()._numpy()
        base = t._storage.array
        if base is None or not base.flags.c_contiguous or base.dtype != array.dtype:
            base = array = np.ascontiguousarray(array)
        storage = self._storage(base, t)
        offset = (array.ctypes.data - base.ctypes.data) // array.itemsize if array.size else 0
        strides = tuple(s // array.itemsize for s in array.strides)
        shape = tuple(int(n) for n in array.shape)
        return _REBUILD, (storage, offset, shape, strides, t.requires_grad, OrderedDict())

    def _storage(self, base: np.ndarray, t: Tensor) -> _Storage:
        key = (base.ctypes.data, base.nbytes, base.dtype.str)
        found = self._by_memory.get(key) if base.nbytes else None
        if found is None:
            found = _Storage(base.reshape(-1), t.dtype, str(len(self.storages)))
            self.storages.append(found)
            self._by_memory[key] = found
        return found


def _atomically(path: Any, write: Callable[[Any], None]) -> None:
    """Writes a file beside ``path`` and renames it, so that a crash leaves the old one."""
    if hasattr(path, "write"):
        write(path)
        return
    if not isinstance(path, (str, os.PathLike)):
        raise AttributeError(
            "save() expects 'f' to be a path or a file with a 'write' attribute, "
            f"given {type(path).__name__}"
        )
    path = os.fspath(path)
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise RuntimeError(f"Parent directory {os.path.dirname(path)} does not exist")
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".saving-")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def save(obj: Any, f: Any, **options: Any) -> None:
    """Writes tensors in nested containers to a file that PyTorch's ``load`` reads too.

    Args:
        obj: tensors, parameters, numbers, strings, dicts, lists, tuples, sets, dtypes.
        f: a path (written atomically) or a binary file. A path that ends in ".safetensors" takes a
            dict of names and tensors.

    Raises:
        PicklingError: an object of another type.
    """
    if isinstance(f, (str, os.PathLike)) and os.fspath(f).endswith(".safetensors"):
        _atomically(f, lambda file: write_safetensors(obj, file))
        return
    text = io.BytesIO()
    pickler = _Pickler(text)
    pickler.dump(obj)

    def write(file: Any) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

            def put(name: str, data: Any) -> None:
                info = zipfile.ZipInfo("archive/" + name)
                start = archive.fp.tell() + 30 + len(info.filename)  # type: ignore[union-attr]
                gap = (-start - 4) % 64  # memory starts at multiples of 64 bytes
                info.extra = struct.pack("<HH", 0x4246, gap) + b"Z" * gap
                archive.writestr(info, data)

            put("data.pkl", text.getvalue())
            put("byteorder", b"little")
            for storage in pickler.storages:
                put(f"data/{storage.key}", storage.array.tobytes())
            put("version", b"3\n")

    _atomically(f, write)


# Reading.


def _rebuild_tensor(
    storage: np.ndarray,
    offset: int,
    shape: tuple,
    strides: tuple,
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    need = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if all(shape) else 0
    if offset < 0 or any(s < 0 for s in strides) or offset + need > storage.size:
        raise pickle.UnpicklingError("a tensor of the file reaches beyond its memory")
    steps = tuple(s * storage.itemsize for s in strides)
    array = np.ndarray(tuple(shape), storage.dtype, storage, offset * storage.itemsize, steps)
    t = wrap(array)
    t.requires_grad = bool(requires_grad)
    return t


def _rebuild_parameter(data: Tensor, requires_grad: bool, hooks: Any = None) -> Parameter:
    return Parameter(data, requires_grad)


def _known() -> dict[tuple[str, str], Any]:
    """Every name that a file may refer to."""
    known: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "Counter"): Counter,
        ("collections", "defaultdict"): defaultdict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        ("torch", "Size"): Size,
        ("torch", "device"): device,
    }
    for module in ("builtins", "__builtin__"):
        for kind in (dict, list, tuple, set, frozenset, int, float, complex, bool, bytearray):
            known[module, kind.__name__] = kind
    for dtype in DTYPES.values():
        known["torch", dtype.public.rpartition(".")[2]] = dtype
        if dtype.name in _STORAGES:
            known["torch", _STORAGES[dtype.name]] = dtype
    return known


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, storage: Callable[[DType, str, int], np.ndarray]):
        super().__init__(file, encoding="utf-8")
        self._storage, self._names = storage, _known()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._names[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the file refers to {module}.{name}, which load() does not run: it reads tensors, "
                "numbers, strings and containers only (save state_dict()s)"
            ) from None

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _, size = pid
        if kind != "storage" or not isinstance(dtype, DType):
            raise pickle.UnpicklingError(f"unknown persistent object {kind!r}")
        return self._storage(dtype, str(key), int(size))


def _check_archive(f: Any) -> None:
    """Refuses what is no zip file, saying what it is instead."""
    if not isinstance(f, (str, os.PathLike)) and not hasattr(f, "seek"):
        raise AttributeError(
            f"load() expects 'f' to be a path or a seekable binary file, given {type(f).__name__}"
        )
    with nullcontext(f) if hasattr(f, "seek") else open(f, "rb") as file:
        start = file.tell()
        head = file.read(4)
        file.seek(start)
        if zipfile.is_zipfile(file):
            file.seek(start)
            return
    expected = "load() expects a zip checkpoint (PyTorch 1.6 or later) or a .safetensors file"
    if not head:
        raise EOFError(f"{expected}, given an empty file")
    if head == b"PK\x03\x04":
        raise RuntimeError(f"{expected}, given a damaged or cut off zip file")
    raise pickle.UnpicklingError(f"{expected}, given a file that begins with {head!r}")


def load(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **options: Any,
) -> Any:
    """Reads what `save` or PyTorch's ``save`` wrote; no code of the file is ever run.

    Args:
        f: a path or a binary file.
        map_location: accepted; everything is loaded to the CPU.
        weights_only: accepted; the reader is always that strict.

    Raises:
        UnpicklingError: the file holds objects other than tensors, numbers, strings, containers.
    """
    if isinstance(f, (str, os.PathLike)) and os.fspath(f).endswith(".safetensors"):
        with open(f, "rb") as file:
            return read_safetensors(file.read())
    _check_archive(f)
    with zipfile.ZipFile(f) as archive:
        pickled = next((n for n in archive.namelist() if n.endswith("/data.pkl")), None)
        if pickled is None:
            raise RuntimeError("the checkpoint has no data.pkl: it is damaged or of another kind")
        root = pickled.removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") == b"big":
            raise RuntimeError("the checkpoint was written on a big-endian machine")
        storages: dict[str, np.ndarray] = {}

        def storage(dtype: DType, key: str, size: int) -> np.ndarray:
            if key not in storages:
                data = bytearray(archive.read(f"{root}data/{key}"))
                storages[key] = np.frombuffer(data, dtype.numpy)
            found = storages[key]
            if found.dtype != dtype.numpy or found.size < size:
                raise pickle.UnpicklingError(f"storage {key} is not of the type or size recorded")
            return found

        return _Unpickler(io.BytesIO(archive.read(pickled)), storage).load()
