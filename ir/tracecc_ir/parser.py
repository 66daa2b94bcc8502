"""From text to graphs: a recursive descent parser whose errors show the line and a caret."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from tracecc_ir.dims import Dim, Size
from tracecc_ir.errors import IRError, ParseError
from tracecc_ir.graph import Builder, Graph, Loc, Node, Update, Value
from tracecc_ir.op import Op
from tracecc_ir.ops import op_named  # which fills the op table first
from tracecc_ir.printer import base_name, literal_type
from tracecc_ir.types import DTYPES, TensorType

TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+) | (?P<comment>\#[^\n]*) | (?P<value>%[A-Za-z0-9_.]+)
      | (?P<complex>-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf|nan)
          [+-](?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf|nan)j\b)
      | (?P<number>-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|-inf) | (?P<word>[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*") | (?P<mark>[()\[\]{},:=+*])""",
    re.VERBOSE,
)
LOCATION = re.compile(r"(grad of )?([^:;]+):(\d+)(?: ([^;]*))?\Z")
KEYWORDS = {"True": True, "False": False, "None": None, "inf": math.inf, "nan": math.nan}
NUMBERS = ("inf", "nan", "True", "False")


class Token(NamedTuple):
    kind: str
    text: str
    at: int
    line: int


def parse(text: str) -> Graph:
    """The graph that a text describes.

    Raises:
        ParseError: with line, column, the line itself and a caret under the fault.

    >>> graph = parse("graph f(%x: f32[3]) { %y = exp(%x) : f32[3] return %y }")
    >>> print(graph)
    graph f(%x: f32[3]) {
      %y = exp(%x) : f32[3]
      return %y
    }
    """
    return Parser(text).graph()


def parse_type(text: str) -> TensorType:
    """A tensor type from its text, such as ``f32[b, 10]``."""
    parser = Parser(text)
    found = parser.type()
    parser.end()
    return found


class Parser:
    """Walks the tokens of one text. Comments stay tokens, as a node's line may end in one."""

    def __init__(self, text: str):
        self.text = text
        self.tokens = self._tokens()
        self.index = 0

    def _tokens(self) -> list[Token]:
        tokens, at, line = [], 0, 1
        while at < len(self.text):
            match = TOKEN.match(self.text, at)
            if match is None:
                self.fail(f"unexpected character {self.text[at]!r}", Token("", "", at, line))
            if match.lastgroup != "space":
                tokens.append(Token(str(match.lastgroup), match.group(), at, line))
            line += match.group().count("\n")
            at = match.end()
        return [*tokens, Token("end", "the end of the text", at, line)]

    def fail(self, message: str, token: Token | None = None) -> NoReturn:
        token = token or self.peek()
        start = self.text.rfind("\n", 0, token.at) + 1
        stop = self.text.find("\n", token.at)
        source = self.text[start : stop if stop >= 0 else len(self.text)]
        column = token.at - start
        caret = re.sub(r"[^\t]", " ", source[:column]) + "^"
        raise ParseError(f"line {token.line}:{column + 1}: {message}\n  {source}\n  {caret}")

    # Tokens.

    def peek(self, ahead: int = 0) -> Token:
        i = self.index
        while True:
            token = self.tokens[min(i, len(self.tokens) - 1)]
            if token.kind != "comment":
                if ahead == 0:
                    return token
                ahead -= 1
            i += 1

    def next(self) -> Token:
        while self.tokens[self.index].kind == "comment":
            self.index += 1
        token = self.tokens[self.index]
        if token.kind != "end":
            self.index += 1
        return token

    def take(self, text: str) -> bool:
        if self.peek().text == text and self.peek().kind != "string":
            self.next()
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.take(text):
            self.fail(f"expected {text!r}, found {self.peek().text!r}")

    def kind(self, kind: str, what: str) -> Token:
        if self.peek().kind != kind:
            self.fail(f"expected {what}, found {self.peek().text!r}")
        return self.next()

    def many(self, item: Callable[[], Any], close: str) -> list[Any]:
        """Items between commas up to ``close``; a trailing comma is fine."""
        items = []
        while not self.take(close):
            items.append(item())
            if not self.take(","):
                self.expect(close)
                break
        return items

    def end(self) -> None:
        if self.peek().kind != "end":
            self.fail(f"expected the end of the text, found {self.peek().text!r}")

    # Types and attribute values.

    def type(self) -> TensorType:
        name = self.kind("word", "a dtype")
        if name.text not in DTYPES:
            self.fail(f"there is no dtype {name.text}; expected one of {', '.join(DTYPES)}", name)
        self.expect("[")
        return TensorType(DTYPES[name.text], tuple(self.many(self.size, "]")))

    def size(self) -> Size:
        """A sum of products of integers and symbols."""
        total = self._product()
        while self.take("+"):
            total = total + self._product()
        return total

    def _product(self) -> Size:
        total = self._factor()
        while self.take("*"):
            total = total * self._factor()
        return total

    def _factor(self) -> Size:
        token = self.next()
        if token.kind == "number" and re.fullmatch(r"-?\d+", token.text):
            return int(token.text)
        if token.kind != "word":
            self.fail(f"expected a size, found {token.text!r}", token)
        return Dim.symbol(token.text)

    def attribute(self) -> Any:
        token = self.peek()
        if self.take("("):
            return tuple(self.many(self.attribute, ")"))
        if token.kind == "string":
            return json.loads(self.next().text)
        if token.kind == "word" and token.text in KEYWORDS:
            self.next()
            return KEYWORDS[token.text]
        if token.kind == "word" and token.text in DTYPES:
            self.next()
            return DTYPES[token.text]
        if token.kind == "complex":
            return complex(self.next().text)
        if token.kind == "number" and not re.fullmatch(r"-?\d+", token.text):
            return float(self.next().text)
        return self.size()

    # Graphs.

    def graph(self) -> Graph:
        self.expect("graph")
        name = self.kind("word", "the graph's name").text
        graph = self.function(name, with_state=True)
        self.end()
        return graph

    def function(self, name: str, with_state: bool = False) -> Graph:
        """A signature and a block."""
        b, values = Builder(name), dict[str, Value]()
        self.expect("(")

        def declared(add: Callable[..., Value], *label: str) -> None:
            token, type_ = self._typed()
            made = (self.kind("string", "the state's label"),) if label else ()
            labels = [json.loads(t.text) for t in made]
            self._define(values, token, add(type_, *labels, base_name(token.text[1:])))

        self.many(lambda: declared(b.input), ")")
        if with_state and self.take("state"):
            declared(b.state, "label")
            while self.take(","):
                declared(b.state, "label")
        self.expect("{")
        return self.block(b, values)

    def _typed(self) -> tuple[Token, TensorType]:
        token = self.kind("value", "a %name")
        self.expect(":")
        return token, self.type()

    def _define(self, values: dict[str, Value], token: Token, value: Value) -> None:
        if token.text in values:
            self.fail(f"{token.text} is defined twice", token)
        values[token.text] = value

    def _use(self, values: dict[str, Value]) -> Value:
        token = self.kind("value", "a %name")
        if token.text not in values:
            self.fail(f"{token.text} is not defined here", token)
        return values[token.text]

    def block(self, b: Builder, values: dict[str, Value]) -> Graph:
        """Nodes, updates and outputs up to the closing brace."""
        graph = b.graph
        while self.peek().kind == "value":
            self.node(b, values)
        while self.take("update"):
            state = self.peek()
            value = self._use(values)
            if all(s.value is not value for s in graph.state):
                self.fail(f"{state.text} is not a state, so it cannot be updated", state)
            self.expect("=")
            graph.updates.append(Update(value, self._use(values)))
        if self.take("return"):
            graph.outputs.append(self._use(values))
            while self.take(","):
                graph.outputs.append(self._use(values))
        self.expect("}")
        return graph

    def node(self, b: Builder, values: dict[str, Value]) -> None:
        targets = [self.kind("value", "a %name")]
        while self.take(","):
            targets.append(self.kind("value", "a %name"))
        self.expect("=")
        token = self.peek()
        node = self._constant() if self._is_literal(token) else self._application(b, values)
        if len(targets) != len(node.outputs):
            self.fail(f"{len(targets)} names for {len(node.outputs)} results", token)
        for target, value in zip(targets, node.outputs, strict=True):
            value.name = base_name(target.text[1:])
            self._define(values, target, value)
        b.append(node)

    @staticmethod
    def _is_literal(token: Token) -> bool:
        return token.kind in ("number", "complex") or (
            token.kind == "word" and token.text in NUMBERS
        )

    def _constant(self) -> Node:
        value = self.attribute()
        self.expect(":")
        type_ = self.type()
        node = _constant_node(value, type_)
        self._comment(node)
        return node

    def _application(self, b: Builder, values: dict[str, Value]) -> Node:
        """An op, its operands, attributes, types and regions."""
        token = self.kind("word", "an op")
        op, shown = self._op(token.text, token), None
        attrs: dict[str, Any] = {}
        if self.peek().kind == "word" and op.name in ("vjp", "kernel"):
            second = self.next()
            if op.name == "kernel":
                attrs["name"] = second.text
            else:
                shown = self._op(second.text, second)
        self.expect("(")
        operands = self.many(lambda: self._operand(values), ")")
        while self.peek().kind == "word" and self.peek(1).text == "=":
            key = self.next().text
            self.expect("=")
            attrs[key] = self.attribute()
        types: list[TensorType] = []
        if self.take(":"):
            types.append(self.type())
            while self.take(","):
                types.append(self.type())
        node = Node(op, [], {}, types)
        if self.peek().text == "{":
            self.next()
            self._comment(node)
            attrs |= self._regions(op, operands)
        else:
            self._comment(node)
        given = [x.type for _, x, _ in operands if isinstance(x, Value)]
        node.attrs = self._bound(op, shown, attrs, types, given, token)
        node.inputs = self._inputs(b, node, operands)
        return node

    def _op(self, name: str, token: Token) -> Op:
        try:
            return op_named(name)
        except IRError as error:
            self.fail(str(error), token)

    def _operand(self, values: dict[str, Value]) -> tuple[Token, Any, str]:
        """Where it is, the value or the number, and its name inside a call or kernel."""
        token = self.peek()
        if self._is_literal(token):
            return token, self.attribute(), ""
        if self.peek(1).text == "=":
            self.next(), self.next()
            return token, self._use(values), token.text
        return token, self._use(values), token.text

    def _inputs(self, b: Builder, node: Node, operands: list) -> tuple[Value, ...]:
        """The operands, with a constant for each literal."""
        given = [x if isinstance(x, Value) else None for _, x, _ in operands]
        placeholder = _constant_node(0, TensorType(DTYPES["f32"], ())).output
        node.inputs = tuple(v or placeholder for v in given)
        found = []
        for i, (token, x, _) in enumerate(operands):
            if given[i] is None:
                type_ = literal_type(node, i) if node.outputs else None
                if type_ is None:
                    self.fail(
                        f"the type of a number is not known at this operand of "
                        f"{node.op.name}; give it a line of its own",
                        token,
                    )
                x = b.append(_constant_node(x, type_))[0]
            found.append(x)
        return tuple(found)

    def _regions(self, op: Op, operands: list) -> dict[str, Graph]:
        """The graphs between a node's braces, whose opening brace is read."""
        if op.name in ("call", "kernel"):
            b, values = Builder("body"), dict[str, Value]()
            for token, x, name in operands:
                if not isinstance(x, Value):
                    self.fail(f"an operand of {op.name} cannot be a number", token)
                made = b.input(x.type, base_name(name[1:]))
                self._define(values, Token("value", name, token.at, token.line), made)
            return {"body": self.block(b, values)}
        regions: dict[str, Graph] = {}
        while not self.take("}"):
            key = self.kind("word", "the name of a region").text
            regions[key] = self.function(key)
        return regions

    def _bound(
        self,
        op: Op,
        shown: Op | None,
        attrs: dict[str, Any],
        types: list,
        operands: list[TensorType],
        token: Token,
    ) -> dict[str, Any]:
        """All attributes, with those that operands and results tell and the defaults."""
        try:
            if shown is not None:
                wrt = attrs.pop("wrt", ())
                if operands:
                    attrs = shown.implied(operands, operands[-1], attrs) | attrs
                inner = tuple(shown.bind(attrs).items())
                return op.bind({"of": shown.name, "attrs": inner, "wrt": wrt})
            if types:
                attrs = op.implied(operands, types[0], attrs) | attrs
            return op.bind(attrs)
        except IRError as error:
            self.fail(str(error), token)

    def _comment(self, node: Node) -> None:
        """Reads the location and the reasons off the comments behind and below a line."""
        line, reasons = self.tokens[self.index - 1].line, []
        while (token := self.tokens[self.index]).kind == "comment":
            where, mark, why = token.text[1:].strip().partition("why: ")
            if token.line != line and (where or not mark):
                return
            self.index += 1
            reasons += [why] if mark else []
            node.why = "; ".join(reasons)
            match = LOCATION.match(where.removesuffix("; ").strip())
            if match:
                grad, file, number, function = match.groups()
                node.loc = Loc(file, int(number), function or "", bool(grad))


def _constant_node(value: Any, type: TensorType) -> Node:
    attrs = {"value": value, "shape": type.shape, "dtype": type.dtype}
    return Node(op_named("constant"), (), attrs, (type,))
