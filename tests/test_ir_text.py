"""The text form is exact, errors point at the fault, and the reference is up to date."""

from __future__ import annotations

import math
import pathlib
import re

import numpy as np
import pytest

from tracecc_ir.errors import ParseError, TypeRuleError, VerifyError
from tracecc_ir.graph import Builder, bind_sizes, specialize
from tracecc_ir.interpret import interpret
from tracecc_ir.op import OPS, Op, Sample
from tracecc_ir.printer import attribute
from tracecc_ir.reference import updated
from tracecc_ir.text import parse, parse_type, print_graph
from tracecc_ir.types import type_of_array
from tracecc_ir.verify import verify

RNG = np.random.default_rng(0)
ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = """\
graph main(%p: bool[], %x: f64[b, 3], %i: i64[])
  state %w: f64[3] "0.weight", %lr: f64[] "SGD.\\"lr\\"" {
  %h   = broadcast(%w) axes=(1,) : f64[b, 3]  # digits.py:31 forward
  %h.1 = mul(%h, 2.0) : f64[b, 3]             # digits.py:32 <lambda>; why: it reads well
  %m   = ge(%h.1, 0.1) : bool[b, 3]
  %h.2 = select(%m, %x, -0.0) : f64[b, 3]     # grad of digits.py:32
  %q   = cond(%p, %h.2) : f64[b, 3] {
    then(%a: f64[b, 3]) {
      %c = neg(%a) : f64[b, 3]
      return %c
    }
    otherwise(%a: f64[b, 3]) {
      return %a
    }
  }
  %k   = kernel neg_add(%q, %h=%h.2) kind="elementwise" : f64[b, 3] {
    %o = add(%q, %h) : f64[b, 3]
    return %o
  }
  %0   = reduce_sum(%k) axes=(0,) : f64[3]
  %g   = vjp reduce_sum(%k, %0, %w) wrt=(0,) axes=(0,) : f64[b, 3]
  %1   = pad(%g) low=(0, 0) high=(0, 1) interior=(0, 0) value=inf : f64[b, 4]
  update %w = %0
  return %1, %0
}
"""


def canonical(text: str) -> str:
    return print_graph(parse(text))


def test_text_parses_back_byte_for_byte() -> None:
    text = canonical(PROGRAM)
    assert canonical(text) == text
    verify(parse(text))


def test_the_program_above_is_in_canonical_form_but_for_inner_names() -> None:
    assert canonical(PROGRAM).replace("%h=%h.2", "%h.2").count("%h.2") >= 4
    assert "# grad of digits.py:32\n" in canonical(PROGRAM)
    assert "# digits.py:32 <lambda>; why: it reads well\n" in canonical(PROGRAM)


def test_locations_can_be_left_out() -> None:
    assert "#" not in print_graph(parse(PROGRAM), locations=False)


@pytest.mark.parametrize(
    "number", [0.1, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308, 1e22]
)
def test_floats_keep_their_bits(number: float) -> None:
    text = f"graph f(%x: f64[2]) {{ %c = {number!r} : f64[2] %y = add(%x, {number!r}) : f64[2] "
    graph = parse(canonical(text + "return %y, %c }"))
    for value in (graph.outputs[1], graph.outputs[0].node.inputs[1]):  # type: ignore[union-attr]
        got = value.node.attrs["value"]  # type: ignore[union-attr]
        assert np.float64(got).tobytes() == np.float64(number).tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("graph f(%x: f32[3]) { %y = ex(%x) : f32[3] }", r"line 1:28: there is no op ex"),
        ("graph f(%x: f33[3]) { }", r"line 1:13: there is no dtype f33"),
        ("graph f(%x: f32[3]) {\n  %y = exp(%z) : f32[3]\n}", r"line 2:12: %z is not defined"),
        ("graph f(%x: f32[3], %x: f32[3]) { }", r"%x is defined twice"),
        ("graph f(%x: f32[3]) { %y = exp(2.0) : f32[3] }", r"the type of a number is not known"),
        ("graph f(%x: f32[3]) { %y = exp(%x) size=3 : f32[3] }", r"exp has no attribute size"),
        ("graph f(%x: f32[3]) { update %x = %x }", r"%x is not a state"),
        ("graph f(%x: f32[3]) { return %x", r"expected '}', found 'the end"),
        ("graph f(%x: f32[3]) { ~ }", r"unexpected character '~'"),
        ("graph f(%x: f32[3]) { %y, %z = exp(%x) : f32[3] }", r"2 names for 1 results"),
    ],
)
def test_parse_errors_name_line_and_column(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message) as raised:
        parse(text)
    assert re.search(r"\n *\^$", str(raised.value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%y = exp(%x) : f64[3] return %y", "f64\\[3\\] is recorded"),
        ("%y = add(%x, %x) : f32[3] %z = add(%y, %b) : f32[3]", "must have one type"),
        ("%y = permute(%x) axes=(1,) : f32[3]", "no axis 1"),
    ],
)
def test_the_verifier_shows_the_line_at_fault(text: str, message: str) -> None:
    with pytest.raises(VerifyError, match=message) as raised:
        verify(parse(f"graph f(%x: f32[3], %b: f32[4]) {{ {text} }}"))
    assert sum(line.startswith(">>") for line in str(raised.value).splitlines()) == 1


def test_symbolic_sizes_bind_specialise_and_refuse_disagreement() -> None:
    graph = parse("graph f(%x: f32[b, 2*b]) { %y = reshape(%x) : f32[2*b, b] return %y }")
    verify(graph)
    x = np.arange(18, dtype=np.float32).reshape(3, 6)
    assert bind_sizes(graph, [x]) == {"b": 3}
    assert "f32[6, 3]" in str(specialize(graph, {"b": 3}))
    assert interpret(graph, [x])[0][0].shape == (6, 3)
    with pytest.raises(TypeRuleError, match="where b = 3, given an array of f32\\[3, 5\\]"):
        bind_sizes(graph, [x[:, :5]])


CASES = [
    (op, s)
    for op in OPS.values()
    if op.samples and op.kind != "constant"
    for s in op.samples(RNG, op.dtypes[-1])
]


@pytest.mark.parametrize(("op", "sample"), CASES, ids=lambda x: getattr(x, "name", ""))
def test_attributes_are_left_out_only_if_they_are_told(op: Op, sample: Sample) -> None:
    b = Builder("f")
    inputs = [b.input(type_of_array(x), "x") for x in sample.inputs]
    b.graph.outputs = list(b.emit(op, inputs, sample.attrs))
    text = print_graph(b.graph)
    (found,), (node,) = parse(text).nodes, b.graph.nodes
    assert [*map(repr, found.attrs.items())] == [*map(repr, node.attrs.items())]
    shown = "".join(f" {k}={attribute(v)}" for k, v in node.attrs.items())
    types = ", ".join(str(v.type) for v in node.outputs)
    names = ", ".join(f"%x.{i}" if i else "%x" for i in range(len(inputs)))
    head = text[: text.index("{") + 1]
    results = ", ".join(f"%{i}" for i in range(len(node.outputs)))
    spelled = f"{head} {results} = {op.name}({names}){shown} : {types} return {results} }}"
    assert print_graph(parse(spelled)) == text


def test_long_lines_are_broken_and_long_notes_stand_below() -> None:
    operands = ", ".join(f"%operand.{i}: f32[2]" for i in range(11))
    graph = parse(
        f"graph f({operands}) {{ %y = concat({operands.replace(': f32[2]', '')}) axis=0 "
        ": f32[22]  # a.py:3; why: one; two; three\n return %y }"
    )
    text = print_graph(graph)
    assert text.splitlines()[-6:] == [
        "      %operand.7, %operand.8, %operand.9, %operand.10) axis=0 : f32[22]  # a.py:3",
        "    # why: one",
        "    # why: two",
        "    # why: three",
        "  return %y",
        "}",
    ]
    assert all(len(line) <= 100 for line in text.splitlines())
    assert canonical(text) == text
    assert parse(text).nodes[0].why == "one; two; three"


def test_types_parse_alone() -> None:
    assert str(parse_type("f32[2*b + 1, 10]")) == "f32[2*b + 1, 10]"
    with pytest.raises(ParseError, match="end of the text"):
        parse_type("f32[3] x")


def test_the_reference_is_generated_from_the_code() -> None:
    text = (ROOT / "ir" / "README.md").read_text()
    assert updated(text) == text, "run: python -m tracecc_ir.reference ir/README.md"
