"""Vector mathematics: LLVM functions `tcc.NAME.TYPE`, branch-free so that loops which call them vectorise."""

from __future__ import annotations

from tracecc.backends.cpu.target import Target


def link(text: str, goal: Target) -> str:
    """The module text with the definitions of the `tcc.` functions that it calls."""
    return text
