"""Process-wide switches of PyTorch programs; most of them ask for what is always done here."""

from __future__ import annotations

from typing import Any

from tracecc.autograd import set_detect_anomaly
from tracecc.autograd.tape import anomaly
from tracecc.devices import CPU, check_device, device
from tracecc.functional.creation import set_default_dtype
from tracecc.typed import TYPES


class _Modes:
    """What was asked for last."""

    deterministic, warn_only = False, False
    precision, warn_always = "highest", False


_modes = _Modes()


def set_default_device(device: Any) -> None:
    """Where creation functions put tensors; only the CPU is there.

    Raises:
        RuntimeError: the device has no backend on this machine.
    """
    check_device(device)


def get_default_device() -> device:
    """Where creation functions put tensors.

    >>> get_default_device()
    device(type='cpu')
    """
    return CPU


def set_default_tensor_type(t: Any) -> None:
    """Sets the default dtype by a typed constructor or its name, such as ``FloatTensor``."""
    name = t if isinstance(t, str) else t.__name__
    kind = TYPES.get(name.rpartition(".")[2])
    if kind is None or not kind.is_floating_point:
        raise TypeError(
            f"only floating-point types are supported as the default type, given {name}"
        )
    set_default_dtype(kind)


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepted: results are the same bits in every run and for every number of threads anyway."""
    _modes.deterministic, _modes.warn_only = bool(mode), bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """What `use_deterministic_algorithms` was given last."""
    return _modes.deterministic


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """What `use_deterministic_algorithms` was given last as ``warn_only``."""
    return _modes.warn_only


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """`use_deterministic_algorithms` by a level: "default" (0), "warn" (1) or "error" (2)."""
    levels = ("default", "warn", "error")
    level = levels[debug_mode] if isinstance(debug_mode, int) else debug_mode
    if level not in levels:
        raise RuntimeError(f"invalid value of debug_mode, expected one of {levels}, given {level}")
    use_deterministic_algorithms(level != "default", warn_only=level == "warn")


def get_deterministic_debug_mode() -> int:
    """The level that `set_deterministic_debug_mode` set: 0, 1 or 2."""
    return 0 if not _modes.deterministic else 2 - _modes.warn_only


def set_float32_matmul_precision(precision: str) -> None:
    """Accepted: products of float32 numbers are computed in float32 whatever is asked for."""
    if precision not in ("highest", "high", "medium"):
        raise RuntimeError(f"{precision} is not one of 'highest', 'high', or 'medium'")
    _modes.precision = precision


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` was given last."""
    return _modes.precision


def set_flush_denormal(mode: bool) -> bool:
    """False: the processor's handling of denormal numbers is left alone."""
    return False


def set_warn_always(b: bool) -> None:
    """Accepted: warnings are Python's."""
    _modes.warn_always = bool(b)


def is_warn_always_enabled() -> bool:
    """What `set_warn_always` was given last."""
    return _modes.warn_always


def get_num_interop_threads() -> int:
    """1: operations run one after another, each on all threads."""
    return 1


def set_num_interop_threads(num: int) -> None:
    """Accepted: operations run one after another, each on all threads."""
    if num < 1:
        raise RuntimeError(f"set_num_interop_threads expects a positive integer, given {num}")


def is_anomaly_enabled() -> bool:
    """Whether backward refuses NaN (`autograd.set_detect_anomaly`)."""
    return anomaly.enabled


def set_anomaly_enabled(mode: bool, check_nan: bool = True) -> None:
    """`autograd.set_detect_anomaly`."""
    set_detect_anomaly(mode, check_nan)


def is_anomaly_check_nan_enabled() -> bool:
    """True: what anomaly mode looks for is NaN."""
    return True
