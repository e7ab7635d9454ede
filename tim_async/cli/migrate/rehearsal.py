"""``--dry-run``: everything is read and checked, and nothing is sent."""

from __future__ import annotations

from tim_async.cli.failures import Failure

from .settings import Settings


def rehearse(settings: Settings) -> int:
    """Check all rows, and say what a run would do with them."""
    raise Failure(f"--dry-run of {settings.file}: not in this state of the engine")
