"""The user's line and variable name behind the operation that is running now."""

from __future__ import annotations

import dis
import os
import sys
from functools import lru_cache
from types import CodeType, FrameType

import tracecc_ir
from tracecc_ir.graph import Loc

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OURS = (_HERE + os.sep, os.path.dirname(os.path.abspath(tracecc_ir.__file__)) + os.sep)
_LIBRARY = tuple(os.path.join(_HERE, name) for name in ("nn", "optim"))
_STORES = ("STORE_FAST", "STORE_NAME", "STORE_DEREF", "STORE_GLOBAL")


@lru_cache(maxsize=4096)
def _is_ours(filename: str) -> bool:
    return filename.startswith((*_OURS, "<")) or filename.endswith("contextlib.py")


def user_frame() -> FrameType | None:
    """The innermost frame outside of this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_ours(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def user_location() -> Loc:
    """Where in the user's program the running operation was called."""
    frame = user_frame()
    if frame is None:
        return Loc("<unknown>", 0)
    name = frame.f_code.co_name
    return Loc(frame.f_code.co_filename, frame.f_lineno, "" if name == "<module>" else name)


@lru_cache(maxsize=256)
def _stores(code: CodeType) -> dict[int, str]:
    """For each instruction directly before a store, its offsets and the variable stored to.

    While a call runs, its frame may stand anywhere in the inline caches behind the instruction.
    """
    found: dict[int, str] = {}
    previous = None
    for instruction in dis.get_instructions(code):
        if previous is not None and instruction.opname in _STORES:
            offsets = range(previous, instruction.offset, 2)
            found.update(dict.fromkeys(offsets, str(instruction.argval)))
        previous = instruction.offset
    return found


def assigned_name() -> str:
    """The variable that the user's running expression is assigned to, or the empty string."""
    frame = user_frame()
    return "" if frame is None else _stores(frame.f_code).get(frame.f_lasti, "")


def locate(error: Exception) -> None:
    """Puts the user's line before the message of an error that this package raised below it.

    Errors that the user's own code raised are left as they are.
    """
    found: Loc | None = None
    below = False
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        below = _is_ours(code.co_filename)
        if not below:
            name = code.co_name
            found = Loc(code.co_filename, step.tb_lineno, "" if name == "<module>" else name)
        step = step.tb_next
    plain = len(error.args) == 1 and isinstance(error.args[0], str)
    if found is None or not below or not plain or isinstance(error, (KeyError, OSError)):
        return
    if not str(error).startswith(f"{found}: "):
        error.args = (f"{found}: {error}",)
