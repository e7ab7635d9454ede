"""Benchmarks of tim_async and of simpler recipes: `python -m benchmarks --help`."""
