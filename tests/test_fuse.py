"""Golden texts of the fusion pass: what becomes a kernel, and the reason for what does not."""

from pathlib import Path

import pytest

from tracecc_ir.parser import parse
from tracecc_ir.passes.fuse import fuse
from tracecc_ir.printer import print_graph

TEXT = (Path(__file__).parent / "golden" / "fuse.txt").read_text()
# Each case: == what it shows, the graph before, --, the graph after.
CASES = dict(case.split("\n", 1) for case in TEXT.removeprefix("== ").split("\n== "))


@pytest.mark.parametrize("what", CASES)
def test_a_graph_is_grouped_as_the_text_says(what):
    before, after = CASES[what].split("\n--\n")
    assert print_graph(fuse(parse(before))).strip() == after.strip()
