"""Every setting of tracecc: its environment variable, default and help, in one table."""

from __future__ import annotations

import os
import pathlib
import sys
from dataclasses import dataclass


class SettingError(ValueError):
    """An environment variable holds something it must not."""


@dataclass(frozen=True)
class Setting:
    """One environment variable: its name, its default as text, and what it does."""

    variable: str
    default: str
    help: str


def _default_cache() -> str:
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return str(pathlib.Path(base) / "tracecc")


SETTINGS: tuple[Setting, ...] = (
    Setting("TRACECC_CACHE_DIR", _default_cache(), "folder of the compiled-kernel cache"),
    Setting(
        "TRACECC_CACHE_SIZE", "512", "bound of the compiled-kernel cache in MiB; 0 turns it off"
    ),
    Setting(
        "TRACECC_COMPILE_PROCESSES",
        "",
        "processes that compile kernels at once where many are missing; 0 or 1: this one alone; "
        "default: the CPUs of this process, at most 4",
    ),
    Setting(
        "TRACECC_NUM_THREADS",
        "",
        "threads that kernels may use; default: OMP_NUM_THREADS, else the CPUs of this process",
    ),
    Setting(
        "TRACECC_SPIN",
        "50",
        "microseconds that an idle worker thread spins for the next kernel before it sleeps",
    ),
    Setting(
        "TRACECC_CPU",
        "host",
        "CPU to compile for, by LLVM's name: host, generic, x86-64-v2, x86-64-v3, ...",
    ),
    Setting(
        "TRACECC_CPU_FEATURES",
        "",
        "CPU features switched on or off after TRACECC_CPU, such as -avx512f,-fma",
    ),
    Setting(
        "TRACECC_VECTOR_BITS",
        "0",
        "widest vector that kernels use, in bits; 0: what the CPU has (at most 512)",
    ),
    Setting("TRACECC_POOL_SIZE", "1024", "MiB of freed output arrays kept for reuse; 0 keeps none"),
    Setting(
        "TRACECC_DEBUG",
        "0",
        "1: a line on stderr per trace, with its reason and compile time; 2: also the IR after "
        "each stage; 3: also verify the graph after every pass",
    ),
)

_TABLE = {setting.variable: setting for setting in SETTINGS}


def get(variable: str) -> str:
    """The value of a setting: the environment's where it is set and not empty, else the default.

    Args:
        variable: a name in `SETTINGS`.

    Raises:
        KeyError: `variable` is not a setting.

    >>> get("TRACECC_SPIN").isdigit()
    True
    """
    return os.environ.get(variable) or _TABLE[variable].default


def get_int(variable: str) -> int:
    """The value of a numeric setting.

    Raises:
        SettingError: the environment holds something that is not a whole number of at least 0.
    """
    text = get(variable)
    if not text.strip().isdigit():
        raise SettingError(f"{variable} must be a whole number of at least 0, given {text!r}")
    return int(text)


def cache_dir() -> pathlib.Path:
    """The folder of the compiled-kernel cache; it may not exist yet."""
    return pathlib.Path(get("TRACECC_CACHE_DIR")).expanduser()


def debug_level() -> int:
    """`TRACECC_DEBUG` as a number."""
    return get_int("TRACECC_DEBUG")


def num_threads() -> int:
    """The number of threads kernels may use before anyone calls `set_num_threads`."""
    for text in (get("TRACECC_NUM_THREADS"), os.environ.get("OMP_NUM_THREADS", "").split(",")[0]):
        if text.strip().isdigit() and int(text) > 0:
            return int(text)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def help_text() -> str:
    """All settings with their defaults and meanings, one paragraph each.

    >>> "TRACECC_CACHE_DIR" in help_text()
    True
    """
    return "\n".join(
        f"  {s.variable}\n      {s.help}" + (f" (default: {s.default})" if s.default else "")
        for s in SETTINGS
    )
