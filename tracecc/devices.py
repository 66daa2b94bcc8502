"""Devices: where tensors live."""

from __future__ import annotations

from typing import Any


class device:
    """A place for tensors: ``device("cpu")``, ``device("cuda", 0)``."""

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: Any = "cpu", index: int | None = None):
        if isinstance(type, device):
            type, index = type.type, type.index
        kind, _, number = str(type).partition(":")
        if kind not in ("cpu", "cuda", "meta"):
            raise RuntimeError(
                f"Expected one of cpu, cuda device type at start of device string: {type}"
            )
        if number and not number.isdigit():
            raise RuntimeError(f"Invalid device string: '{type}'")
        if index is not None and index < 0:
            raise RuntimeError(f"Device index must not be negative, given {index}")
        self.type, self.index = kind, int(number) if number else index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __enter__(self) -> device:
        """Creation functions inside use this device; only the CPU is there."""
        return check_device(self)

    def __exit__(self, *error: object) -> None:
        pass

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{index})"


CPU = device("cpu")


def is_device(x: Any) -> bool:
    """Whether ``x`` names a device."""
    return isinstance(x, device) or (
        isinstance(x, str) and x.partition(":")[0] in ("cpu", "cuda", "meta")
    )


def check_device(given: Any) -> device:
    """The device asked for; raises RuntimeError for one that this machine has no backend for."""
    found = CPU if given is None else device(given)
    if found.type != "cpu":
        raise RuntimeError(
            f"there is no {found.type.upper()} backend on this machine; use device 'cpu'"
        )
    return found
