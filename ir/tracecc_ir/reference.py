"""The op table of ir/README.md, from the code: ``python -m tracecc_ir.reference ir/README.md``."""

from __future__ import annotations

import inspect
import pathlib
import sys

from tracecc_ir.op import Op
from tracecc_ir.ops import OPS
from tracecc_ir.printer import attribute

BEGIN, END = "<!-- begin: op table -->", "<!-- end: op table -->"


def reference() -> str:
    """One Markdown table per kind of op."""
    kinds = dict.fromkeys(op.kind for op in OPS.values())
    parts = []
    for kind in kinds:
        rows = [_row(op) for op in OPS.values() if op.kind == kind]
        head = [f"### {kind}", "", "| op | dtypes | derivative | meaning |", "| - | - | - | - |"]
        parts.append("\n".join([*head, *rows]))
    return "\n\n".join(parts)


def _row(op: Op) -> str:
    parameters = inspect.signature(op.infer).parameters.values()
    operands = [
        f"*{p.name}" if p.kind is p.VAR_POSITIONAL else p.name
        for p in parameters
        if p.kind is not p.KEYWORD_ONLY
    ]
    attrs = [_attribute(op, k) for k in op.attr_names]
    call = f"`{op.name}({', '.join(operands)}{'; ' if attrs else ''}{', '.join(attrs)})`"
    dtypes = ", ".join(d.name for d in op.dtypes) or "any"
    if not op.differentiable:
        rule = "none"
    elif hasattr(op.vjp, "gradients"):
        rule = "derived"
    else:
        rule = "refused" if op.vjp is None or op.name == "while" else "rule"
    return f"| {call} | {dtypes} | {rule} | {op.doc or op.name} |"


def _attribute(op: Op, name: str) -> str:
    if name in op.defaults:
        return f"{name}={attribute(op.defaults[name])}"
    return f"{name} ({op.usual[name].doc})" if name in op.usual else name


def updated(text: str) -> str:
    """A document with the table between its two marks replaced."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    path = pathlib.Path(sys.argv[1])
    path.write_text(updated(path.read_text()))
