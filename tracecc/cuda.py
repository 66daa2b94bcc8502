"""`torch.cuda` for programs that ask whether there is a GPU: tensors live on the CPU, so no."""

from __future__ import annotations

from typing import Any

from tracecc.devices import check_device
from tracecc.lacking import unknown

__all__ = [
    "current_device",
    "device_count",
    "empty_cache",
    "get_device_name",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "synchronize",
]


def is_available() -> bool:
    """False: no tensor can be put on a GPU.

    >>> import tracecc as tc
    >>> tc.device("cuda" if tc.cuda.is_available() else "cpu")
    device(type='cpu')
    """
    return False


def is_initialized() -> bool:
    """False, as `is_available`."""
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """False, as `is_available`."""
    return False


def device_count() -> int:
    """0, as `is_available`."""
    return 0


def manual_seed(seed: int) -> None:
    """Seeds the GPU's generator, if there were one."""
    int(seed)


def manual_seed_all(seed: int) -> None:
    """Seeds every GPU's generator, if there were any."""
    int(seed)


def empty_cache() -> None:
    """Releases the GPU memory in reserve: none."""


def current_device() -> int:
    """The index of the GPU in use.

    Raises:
        RuntimeError: there is none.
    """
    return check_device("cuda").index or 0


def get_device_name(device: Any = None) -> str:
    """The name of a GPU.

    Raises:
        RuntimeError: there is none.
    """
    return str(check_device("cuda"))


def synchronize(device: Any = None) -> None:
    """Waits for a GPU.

    Raises:
        RuntimeError: there is none.
    """
    check_device("cuda")


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)
