"""How many rows of a stream are in which state."""

from __future__ import annotations

import asyncio

from tim_async.migrate.events import Counts

from .about import State


class FleetTally:
    """How many rows of a stream are in which state.

    Replies on two connections can overtake one another, so that a state may be older than the one before it.

    Args:
        most_errors: failed and rejected rows that are allowed; infinity for any number.
        stop: set when there are more.

    Attributes:
        state: the one that was heard last; None before the first.
        too_many_errors: the message once the store has reported too many errors; "" before.
    """

    def __init__(self, most_errors: float, stop: asyncio.Event) -> None:
        self._most_errors = most_errors
        self._stop = stop
        self.state: State | None = None
        self.too_many_errors: str = ""

    @property
    def counts(self) -> Counts:
        """The rows by state."""
        return Counts() if self.state is None else self.state.counts

    def move(self, before: str, after: str, rows: int = 1) -> None:
        """Nothing: the store counts."""

    def hear(self, state: State) -> None:
        """Take the store's word."""
        self.state = state
        errors = state.counts.errors
        if errors > self._most_errors:
            self.too_many_errors = f"{errors:,} rows failed or were rejected, and {self._most_errors:g} may"
            self._stop.set()
