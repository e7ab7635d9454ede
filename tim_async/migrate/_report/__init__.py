"""The report: a migration as one self-contained HTML page, without scripts, network or other files."""

from ._headline import DryRun
from ._page import render

__all__ = ["DryRun", "render"]
