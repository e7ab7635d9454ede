"""The lanes: two priorities of calls."""

from __future__ import annotations

import enum
from contextvars import ContextVar


class Lane(enum.IntEnum):
    """The priority of a call: interactive calls go before bulk calls."""

    INTERACTIVE = 0
    """Calls that a user waits for."""
    BULK = 1
    """Batches and migrations: they use the rate that interactive calls leave."""


LANE: ContextVar[Lane] = ContextVar("tim_async_lane", default=Lane.INTERACTIVE)
"""The lane of calls made in the current context."""
