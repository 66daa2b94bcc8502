"""The IR of tracecc: types, ops, graphs, text, verifier, interpreter and passes. NumPy only."""

from tracecc_ir.graph import Graph
from tracecc_ir.interpret import interpret
from tracecc_ir.text import parse, print_graph
from tracecc_ir.verify import verify

__all__ = ["Graph", "interpret", "parse", "print_graph", "verify"]
