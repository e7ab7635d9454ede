"""Measurements of tim_async beside simpler recipes: `python -m benchmarks --help`."""
