"""The text form of graphs: `print_graph` and `parse` are exact inverses."""

from tracecc_ir.parser import parse, parse_type
from tracecc_ir.printer import print_graph

__all__ = ["parse", "parse_type", "print_graph"]
