"""A migration as one HTML page that needs nothing else: no script, no network, no file beside it."""

from ._headline import DryRun
from ._page import render

__all__ = ["DryRun", "render"]
