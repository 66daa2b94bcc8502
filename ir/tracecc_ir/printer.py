"""From graphs to text: one node a line, aligned, defaults and whatever a type implies left out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tracecc_ir.dims import Dim
from tracecc_ir.graph import Graph, Node, Value
from tracecc_ir.op import OPS, Op
from tracecc_ir.types import DType

WIDTH = 100
SHORT_REASON = 60  # a longer note stands on a line of its own
COMMENT_COLUMN = 88  # comments are aligned up to here
NAME_COLUMN = 10  # results are aligned up to this many characters
COMPARISONS = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")


def print_graph(graph: Graph, locations: bool = True) -> str:
    """The text of a graph; `parse` is its exact inverse.

    Args:
        graph: may be malformed: an undefined operand prints as ``%?name``.
        locations: whether lines end in where they come from.
    """
    return "\n".join(Printer(locations).function(f"graph {graph.name}", graph, "")) + "\n"


def base_name(hint: str) -> str:
    """A hint without the number that made it unique: ``h.1`` gives ``h``, ``3`` gives nothing."""
    hint = re.sub(r"[^A-Za-z0-9_.]", "_", hint)
    return "" if hint.isdigit() else re.sub(r"(\.\d+)+\Z", "", hint).strip(".")


class Names:
    """Unique names for the values of one graph, in order of appearance."""

    def __init__(self) -> None:
        self.of: dict[Value, str] = {}
        self._taken: dict[str, int] = {}
        self._unnamed = 0

    def add(self, value: Value, hint: str | None = None) -> str:
        base = base_name(value.name if hint is None else hint)
        if not base:
            name, self._unnamed = str(self._unnamed), self._unnamed + 1
        else:
            seen = self._taken.get(base, 0)
            self._taken[base] = seen + 1
            name = f"{base}.{seen}" if seen else base
        self.of[value] = f"%{name}"
        return self.of[value]

    def reserve(self, value: Value, name: str) -> None:
        """Gives a value the name that it has around the region."""
        self.of[value] = f"%{name}"
        base = base_name(name)
        number = name[len(base) + 1 :]
        self._taken[base] = max(self._taken.get(base, 0), int(number or 0) + 1)

    def __getitem__(self, value: Value) -> str:
        return self.of.get(value) or f"%?{value.name or 'value'}"


class Printer:
    """Writes graphs; the line of the node ``mark`` begins with ``>>``."""

    def __init__(self, locations: bool = True, mark: Node | None = None):
        self.locations, self.mark = locations, mark

    def function(self, head: str, graph: Graph, indent: str) -> list[str]:
        """A graph or region with its signature."""
        names = Names()
        inputs = [f"{names.add(v)}: {v.type}" for v in graph.inputs]
        state = [f"{names.add(s.value)}: {s.value.type} {json.dumps(s.label)}" for s in graph.state]
        lines = _wrapped(indent, f"{head}(", inputs, ")")
        if state:
            lines += _wrapped(indent + "  ", "state ", state, "")
        lines[-1] += " {"
        return [*lines, *self.block(graph, names, indent + "  "), indent + "}"]

    def block(self, graph: Graph, names: Names, indent: str) -> list[str]:
        """The nodes, updates and outputs of a graph."""
        inlined = inline_constants(graph)
        nodes = [n for n in graph.nodes if n not in inlined]
        for node in nodes:
            for v in node.outputs:
                names.add(v)
        lefts = [", ".join(names[v] for v in n.outputs) for n in nodes]
        column = max((len(t) for t in lefts if len(t) <= NAME_COLUMN), default=0)
        made = [
            self._node(n, f"{indent}{left:{column}} =", names, inlined, indent)
            for n, left in zip(nodes, lefts, strict=True)
        ]
        comments = [self._comment(n) for n in nodes]
        widths = [len(head[-1]) for (head, _), c in zip(made, comments, strict=True) if c[0]]
        edge = max((w for w in widths if w <= COMMENT_COLUMN), default=0)
        lines: list[str] = []
        for node, (head, body), (first, *reasons) in zip(nodes, made, comments, strict=True):
            at = len(lines)
            lines += head
            if first:
                lines[-1] = f"{lines[-1]:{edge}}  # {first}"
            lines += [f"{indent}  # {reason}" for reason in reasons]
            if node is self.mark:
                lines[at] = f">>{lines[at][2:]}"
            lines += body
        lines += [f"{indent}update {names[u.state]} = {names[u.value]}" for u in graph.updates]
        if graph.outputs:
            lines += [f"{indent}return {', '.join(names[v] for v in graph.outputs)}"]
        return lines

    def _comment(self, node: Node) -> list[str]:
        """What follows the node's line, then what stands on lines below: one reason each."""
        if not self.locations:
            return [""]
        where = str(node.loc) if node.loc is not None else ""
        why = [f"why: {r}" for r in " ".join(node.why.split()).split("; ") if r]
        if len(why) > 1 or len("".join(why)) > SHORT_REASON:
            return [where, *why]
        return ["; ".join((where, *why))]

    def _node(
        self, node: Node, left: str, names: Names, inlined: set[Node], indent: str
    ) -> tuple[list[str], list[str]]:
        """The node without and with its regions: the lines of its head, and of its regions."""
        types = ", ".join(str(v.type) for v in node.outputs)
        if node.op.name == "constant" and _plain_constant(node):
            return [f"{left} {literal(node.attrs['value'], node.output.dtype)} : {types}"], []
        op, attrs, title = _heading(node)
        implied = implied_attrs(op, node, attrs)
        shown = {
            k: v
            for k, v in attrs.items()
            if not isinstance(v, Graph)
            and not (k in op.defaults and _same(v, op.defaults[k]))
            and not (k in implied and _same(v, implied[k]))
        }
        regions = {k: v for k, v in attrs.items() if isinstance(v, Graph)}
        operands = [
            literal(v.node.attrs["value"], v.dtype)
            if v.node is not None and v.node in inlined
            else names[v]
            for v in node.inputs
        ]
        body = regions.get("body") if bound_body(node) else None
        inner = Names()
        if body is not None:
            operands = _bindings(body, operands, inner)
        settings = "".join(f" {k}={attribute(v)}" for k, v in shown.items())
        first = f"{left} {title}({', '.join(operands)}){settings}"
        first += f" : {types}" if types else ""
        if not regions:
            return _filled(first, indent), []
        if body is not None:
            nested = self.block(body, inner, indent + "  ")
        else:
            nested = [
                line for k, r in regions.items() for line in self.function(k, r, indent + "  ")
            ]
        return _filled(first + " {", indent), [*nested, indent + "}"]


def _wrapped(indent: str, head: str, items: Sequence[str], tail: str) -> list[str]:
    """One line if it fits, else one item a line."""
    line = f"{indent}{head}{', '.join(items)}{tail}"
    if len(line) <= WIDTH - 2 or len(items) < 2:
        return [line]
    between = [f"{indent}    {item}," for item in items]
    between[-1] = between[-1][:-1]
    return [f"{indent}{head}".rstrip(), *between] + ([f"{indent}{tail}"] if tail else [])


def _filled(line: str, indent: str) -> list[str]:
    """A node's line, broken between operands, attributes and types where it is too long."""
    if len(line) <= WIDTH:
        return [line]
    lines, at, depth, quoted = [""], 0, 0, False
    for i, c in enumerate(f"{line} "):
        if c == '"' and line[i - 1] != "\\":
            quoted = not quoted
        elif not quoted and c in "([":
            depth += depth > 0 or c == "[" or line[i - 1] == "="
        elif not quoted and c in ")]":
            depth -= depth > 0
        elif c == " " and not (quoted or depth or line[i - 1] == ":" or line[i + 1 :] == "{"):
            if lines[-1] and len(lines[-1]) + 1 + i - at > WIDTH:
                lines.append(f"{indent}   ")
            lines[-1] += line[at - 1 : i] if at else line[:i]
            at = i + 1
    return lines


def _heading(node: Node) -> tuple[Op, Mapping[str, Any], str]:
    """Whose attributes are shown, which, and what stands before the operands."""
    attrs = dict(node.attrs)
    if node.op.name == "vjp" and attrs.get("of") in OPS:
        op = OPS[attrs["of"]]
        return op, {"wrt": attrs["wrt"], **dict(attrs["attrs"])}, f"vjp {op.name}"
    if node.op.name == "kernel" and IDENTIFIER.match(attrs["name"]):
        return node.op, attrs, f"kernel {attrs.pop('name')}"
    return node.op, attrs, node.op.name


def bound_body(node: Node) -> bool:
    """Whether the node is a call or kernel, whose body prints without a signature of its own."""
    return node.op.name in ("call", "kernel")


def _bindings(body: Graph, operands: Sequence[str], inner: Names) -> list[str]:
    """Operands of a call or kernel; inside, each is known by its own name if that is free."""
    texts = []
    for value, operand in zip(body.inputs, operands, strict=False):
        name = operand[1:]
        if f"%{name}" in inner.of.values() or name.isdigit():
            name = ""
        if name:
            inner.reserve(value, name)
            texts.append(operand)
        else:
            inside = inner.add(value, value.name)
            texts.append(operand if inside == operand else f"{inside}={operand}")
    return texts


def inline_constants(graph: Graph) -> set[Node]:
    """The constants that print as literals: those whose every use implies their type."""
    fits: dict[Node, bool] = {}
    for node in graph.nodes:
        for i, v in enumerate(node.inputs):
            c = v.node
            if c is not None and c.op.name == "constant":
                fits[c] = fits.get(c, True) and literal_type(node, i) == v.type
    for v in graph.results():
        fits.pop(v.node, None)  # type: ignore[arg-type]
    return {c for c, fit in fits.items() if fit and _plain_constant(c)}


def literal_type(node: Node, index: int) -> Any:
    """The type that a literal at this operand of a node has, or None if there can be none."""
    if node.op.kind != "elementwise" or len(node.inputs) < 2:
        return None
    if node.op.name in COMPARISONS:
        for v in node.inputs:
            if v.node is None or v.node.op.name != "constant":
                return v.type
        return None
    if node.op.name == "select" and index == 0:
        return None
    return node.outputs[0].type


def _plain_constant(node: Node) -> bool:
    a = node.attrs
    return (a["shape"], a["dtype"]) == (node.output.shape, node.output.dtype)


def implied_attrs(op: Op, node: Node, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that operands and results tell; a vjp's last operand is like op's result."""
    told = node.outputs if op is node.op else node.inputs[-1:]
    if not told:
        return {}
    return op.implied([v.type for v in node.inputs], told[0].type, attrs)


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and attribute(a) == attribute(b)


def literal(number: Any, dtype: DType) -> str:
    """A constant's value in the notation of its dtype's kind."""
    if dtype.is_complex:
        return attribute(complex(number))
    if dtype.kind == "float":
        return repr(float(number))
    if dtype.kind == "bool":
        return str(bool(number))
    return str(int(number))


def attribute(value: Any) -> str:
    """An attribute value; floats print so that they parse to the same bits."""
    if isinstance(value, tuple | list):
        items = ", ".join(map(attribute, value))
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DType):
        return value.name
    if value is None or isinstance(value, bool | Dim):
        return str(value)
    if isinstance(value, complex):
        sign = "+" if math.copysign(1, value.imag) > 0 or math.isnan(value.imag) else ""
        return f"{value.real!r}{sign}{value.imag!r}j"
    return repr(float(value)) if isinstance(value, float) else str(int(value))
