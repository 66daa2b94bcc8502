"""The disk cache of kernels and fused graphs: checksums, atomic writes, bounded, never fatal."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
import tempfile

from tracecc import config

_MAGIC = b"tracecc1"
_HEADER = len(_MAGIC) + 2 * hashlib.sha256().digest_size
_SUFFIX = ".kernel"
GRAPHS = ".graph"  # the suffix of graphs
_written = 0  # bytes stored by this process since it last looked at the size of the cache


def digest(key: str) -> str:
    """The hexadecimal SHA-256 of a key: the stem of its file."""
    return hashlib.sha256(key.encode()).hexdigest()


def path(key: str, suffix: str = _SUFFIX) -> pathlib.Path:
    """Where the entry of `key` is or would be."""
    name = digest(key)
    return config.cache_dir() / name[:2] / (name + suffix)


def enabled() -> bool:
    """Whether anything is read or stored at all (`TRACECC_CACHE_SIZE` is not 0)."""
    return config.get_int("TRACECC_CACHE_SIZE") > 0


@functools.cache
def fingerprint(folder: pathlib.Path, pattern: str = "**/*.py") -> str:
    """A digest of the source files of a folder, for keys of what they compute."""
    files = hashlib.sha256()
    for file in sorted(folder.glob(pattern)):
        files.update(str(file.relative_to(folder)).encode() + b"\0")
        files.update(file.read_bytes())
    return files.hexdigest()


def get(key: str, suffix: str = _SUFFIX) -> bytes | None:
    """The bytes stored under `key`; None if there are none or the entry is not to be trusted."""
    if not enabled():
        return None
    try:
        entry = path(key, suffix).read_bytes()
    except OSError:
        return None
    data = entry[_HEADER:]
    return data if entry[:_HEADER] == _header(key, data) else None


def put(key: str, data: bytes, source: str = "", suffix: str = _SUFFIX) -> pathlib.Path | None:
    """Stores bytes under a key. A folder that cannot be written is silently left as it is.

    Args:
        key: any text; equal keys must mean equal data.
        data: what `get` will return.
        source: readable text stored beside the entry (the kernel's source), never read back.
        suffix: of the file, by which kernels and graphs are told apart.

    Returns:
        The path of the source file (the entry if there is no source); None if nothing was stored.
    """
    if not enabled():
        return None
    target = path(key, suffix)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source:
            _write(target.with_suffix(".py"), source.encode())
        _write(target, _header(key, data) + data)
        _bound(len(data))
    except OSError:
        return None
    return target.with_suffix(".py") if source else target


def info() -> dict[str, str | int]:
    """Where the cache is, how many kernels and graphs it holds, and their size in bytes."""
    files = _files()
    return {
        "folder": str(config.cache_dir()),
        "kernels": sum(file.suffix == _SUFFIX for file, _ in files),
        "graphs": sum(file.suffix == GRAPHS for file, _ in files),
        "bytes": sum(status.st_size for _, status in files),
        "limit": config.get_int("TRACECC_CACHE_SIZE") << 20,
    }


def clear() -> None:
    """Removes every entry. Kernels already loaded keep working."""
    for file, _ in _files():
        _remove(file)


def _header(key: str, data: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(key.encode()).digest() + hashlib.sha256(data).digest()


def _write(target: pathlib.Path, data: bytes) -> None:
    """Readers see the old file or the new one, never a part: written aside, then renamed."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, target)
    except OSError:
        _remove(pathlib.Path(temporary))
        raise


def _bound(size: int) -> None:
    """Removes the oldest entries once the cache may have outgrown its bound."""
    global _written
    _written += size
    limit = config.get_int("TRACECC_CACHE_SIZE") << 20
    if _written * 16 < limit:
        return
    _written = 0
    files = sorted(_files(), key=lambda entry: entry[1].st_mtime)
    total = sum(status.st_size for _, status in files)
    for file, status in files:
        if total <= limit:
            break
        _remove(file)
        total -= status.st_size


def _files() -> list[tuple[pathlib.Path, os.stat_result]]:
    found = []
    for file in config.cache_dir().glob("[0-9a-f][0-9a-f]/*"):
        if file.suffix in (_SUFFIX, GRAPHS, ".py", ".part"):
            with contextlib.suppress(OSError):
                found.append((file, file.stat()))
    return found


def _remove(file: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
