"""The IR of tracecc: types, ops, graphs, text form, verifier, interpreter and passes. NumPy only."""
