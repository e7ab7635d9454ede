"""A migration as one HTML page that needs nothing else: no script, no network, no file beside it."""

from .page import render

__all__ = ["render"]
