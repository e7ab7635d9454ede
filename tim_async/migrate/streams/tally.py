"""How many rows of a stream are in which state."""

from __future__ import annotations

import asyncio

from tim_async.migrate.events import Counts

from .about import State


class FleetTally:
    """How many rows are in which state, by the store's last word.

    Args:
        most_errors: failed and rejected rows that are borne; infinity for any number.
        stop: set when there are more.
    """

    def __init__(self, most_errors: float, stop: asyncio.Event) -> None:
        self._most_errors = most_errors
        self._stop = stop
        self.state: State | None = None

    @property
    def counts(self) -> Counts:
        """The rows by state."""
        return Counts() if self.state is None else self.state.counts

    @property
    def too_many_errors(self) -> str:
        """What is said of more errors than are borne; "" when they are not."""
        errors = self.counts.errors
        if errors <= self._most_errors:
            return ""
        return f"{errors:,} rows failed or were rejected, and {self._most_errors:g} may"

    def move(self, before: str, after: str, rows: int = 1) -> None:
        """Nothing: the store counts."""

    def hear(self, state: State) -> None:
        """Take the store's word."""
        self.state = state
        if self.too_many_errors:
            self._stop.set()
