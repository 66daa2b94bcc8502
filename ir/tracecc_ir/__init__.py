"""The IR of tracecc: types, ops, graphs, text, verifier, interpreter and passes. NumPy only."""
