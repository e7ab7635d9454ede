"""The lanes: who goes first."""

from __future__ import annotations

import enum
from contextvars import ContextVar


class Lane(enum.IntEnum):
    """Who goes first."""

    INTERACTIVE = 0
    """Somebody waits for the answer."""
    BULK = 1
    """Batches and migrations: whatever interactive calls leave."""


LANE: ContextVar[Lane] = ContextVar("tim_async_lane", default=Lane.INTERACTIVE)
"""The lane of the calls made in this context."""
