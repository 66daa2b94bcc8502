"""Products of gathered rows become products of the table: the same numbers for less work."""

from __future__ import annotations

import numpy as np
import pytest

from tracecc_ir.graph import Graph
from tracecc_ir.interpret import interpret
from tracecc_ir.passes.grad import gradient
from tracecc_ir.passes.pipeline import run
from tracecc_ir.text import parse

# An embedding, its batch and time exchanged, and a linear layer.
TEXT = """
graph main(%t: f64[5, 16], %w: f64[7, 16], %i: i64[3, 4]) {
  %e = gather(%t, %i) axes=(0,) : f64[3, 4, 16]
  %m = MOVED
  %y = dot_general(%m, %w) contract=((2,), (1,)) batch=((), ()) : f64[4, 3, 7]
  return %y
}
"""
PERMUTED = "permute(%e) axes=(1, 0, 2) : f64[4, 3, 16]"
RESHAPED = "reshape(%e) shape=(4, 3, 16) : f64[4, 3, 16]"


def simplified(graph: Graph) -> Graph:
    return dict(run(graph, until="simplified"))["simplified"]


def products(graph: Graph) -> list[tuple]:
    return sorted(n.output.shape for n in graph.nodes if n.op.name == "dot_general")


def inputs(rows: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal((5, 16)),
        rng.standard_normal((7, 16)),
        rng.integers(0, rows, (3, 4)),
    ]


@pytest.mark.parametrize("moved", [PERMUTED, RESHAPED])
def test_the_table_is_multiplied_not_its_gathered_rows(moved: str) -> None:
    graph = parse(TEXT.replace("MOVED", moved))
    found = simplified(graph)
    assert products(found) == [(5, 7)]
    (a,), (b,) = interpret(graph, inputs())[0], interpret(found, inputs())[0]
    np.testing.assert_allclose(a, b, 1e-12)


@pytest.mark.parametrize("moved", [PERMUTED, RESHAPED])
def test_cotangents_are_summed_by_row_before_they_are_multiplied(moved: str) -> None:
    text = TEXT.replace("MOVED", moved).replace("[7, 16]", "[17, 16]").replace("3, 7]", "3, 17]")
    graph = gradient(parse(text), [0, 1])
    found = simplified(graph)
    assert products(found) == [(5, 16), (17, 16)]
    table, _, index = inputs()
    rng = np.random.default_rng(1)
    given = [table, rng.standard_normal((17, 16)), index, rng.standard_normal((4, 3, 17))]
    for a, b in zip(interpret(graph, given)[0], interpret(found, given)[0], strict=True):
        np.testing.assert_allclose(a, b, 1e-12, 1e-12)


def test_rows_that_no_index_names_stay_out() -> None:
    graph = gradient(parse(TEXT.replace("MOVED", PERMUTED)), [0, 1])
    found = simplified(graph)
    table, weight, index = inputs(rows=4)
    table[4] = np.nan
    given = [table, weight, index, np.ones((4, 3, 7))]
    for a, b in zip(interpret(graph, given)[0], interpret(found, given)[0], strict=True):
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, 1e-12, 1e-12)
    weight[:] = np.inf
    rows = interpret(found, given)[0][0]
    assert (rows[4] == 0).all()
    assert not np.isfinite(rows[:4]).any()


@pytest.mark.parametrize(
    "change", [("f64[5, 16]", "f64[50, 16]"), ("f64", "f16")], ids=["rows few use", "16 bits"]
)
def test_where_it_does_not_pay_nothing_changes(change: tuple[str, str]) -> None:
    graph = parse(TEXT.replace("MOVED", PERMUTED).replace(*change))
    assert products(simplified(graph)) == [(4, 3, 7)]
