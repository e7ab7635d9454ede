"""How far the demo is, live: a table on a terminal, a line every other second anywhere else."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from rich.live import Live
from rich.table import Table

from tim_async.cli.output import console_for, make_table, say
from tim_async.migrate.supervision import beside

if TYPE_CHECKING:
    from tim_async._attempts import Attempt

T = TypeVar("T")

_REFRESH = 0.25
_LINE_EVERY = 2.0
_RATE_OVER = 8  # refreshes
_BAR = 12


@dataclass(slots=True)
class Counts:
    """What became of one endpoint's attempts so far.

    Attributes:
        total: calls to be made.
        attempts: requests made.
        done: those that succeeded.
        failures: those that did not.
        retries: those that were not a call's first.
    """

    total: int
    attempts: int = 0
    done: int = 0
    failures: int = 0
    retries: int = 0
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_RATE_OVER + 1))

    def rate(self) -> float:
        """Requests a second over the last two seconds or so."""
        if not self.recent:
            return 0.0
        (since, before), (now, after) = self.recent[0], self.recent[-1]
        return (after - before) / (now - since) if now > since else 0.0


class Progress:
    """Counts attempts by endpoint.

    Args:
        totals: the calls to be made to each endpoint.
    """

    def __init__(self, totals: Mapping[str, int]) -> None:
        self.counts: dict[str, Counts] = {endpoint: Counts(total) for endpoint, total in totals.items()}
        self.started: float = time.monotonic()

    def attempt(self, attempt: Attempt) -> None:
        """Count one attempt that has ended."""
        counts = self.counts[attempt.endpoint]
        counts.attempts += 1
        counts.retries += attempt.number > 1
        if attempt.error is None:
            counts.done += 1
        else:
            counts.failures += 1

    def sample(self) -> None:
        """Remember how many attempts there were by now, for the rates."""
        now = time.monotonic()
        for counts in self.counts.values():
            # An endpoint that has nothing left to do keeps the rate it last had.
            if counts.done < counts.total:
                counts.recent.append((now, counts.attempts))


async def shown(progress: Progress, course: Coroutine[Any, Any, T]) -> T:
    """Carry out a coroutine, and show the progress on standard error meanwhile."""
    progress.started = time.monotonic()
    progress.sample()
    show = _live if sys.stderr.isatty() else _lines
    return await beside(course, show(progress))


async def _live(progress: Progress) -> None:
    console = console_for(sys.stderr)
    with Live(
        live_table(progress), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as live:
        try:
            while True:
                await asyncio.sleep(_REFRESH)
                progress.sample()
                live.update(live_table(progress), refresh=True)
        finally:
            live.update(live_table(progress), refresh=True)


async def _lines(progress: Progress) -> None:
    spoken = progress.started
    try:
        while True:
            await asyncio.sleep(_REFRESH)
            progress.sample()
            if time.monotonic() - spoken >= _LINE_EVERY:
                spoken += _LINE_EVERY
                say(line(progress))
    finally:
        say(line(progress))


def live_table(progress: Progress) -> Table:
    """A line for each endpoint."""
    numbers = ("done", "calls/s", "retries", "failures")
    table = make_table(f"{time.monotonic() - progress.started:4.1f} s", "", *numbers, right=numbers)
    for endpoint, counts in progress.counts.items():
        filled = _BAR * counts.done // counts.total if counts.total else _BAR
        table.add_row(
            endpoint,
            "━" * filled + "╌" * (_BAR - filled),
            f"{counts.done:,}/{counts.total:,}",
            f"{counts.rate():.0f}",
            str(counts.retries),
            str(counts.failures),
        )
    return table


def line(progress: Progress) -> str:
    """The same in one line."""
    parts = [
        f"{endpoint} {counts.done}/{counts.total} at {counts.rate():.0f}/s"
        for endpoint, counts in progress.counts.items()
    ]
    retries = sum(counts.retries for counts in progress.counts.values())
    failures = sum(counts.failures for counts in progress.counts.values())
    seconds = time.monotonic() - progress.started
    return f"{seconds:4.1f} s: {', '.join(parts)}; {failures} failed attempts, {retries} retries"
