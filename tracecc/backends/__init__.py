"""Backends: what turns a graph into something that runs."""
