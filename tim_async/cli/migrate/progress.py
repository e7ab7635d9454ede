"""What is shown while a migration runs: a bar on a terminal, plain lines anywhere else, JSON lines for machines."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tim_async.cli.output import console_for, plain_lines, say
from tim_async.migrate import Event, Finished, Progress, Reading, Resumed, RowFailed, RowLowered, Started, Waiting
from tim_async.migrate.supervision import beside

from . import tally as tallies
from .tables import counts_as_plain, emit, speed
from .tally import News, Tally

T = TypeVar("T")

REFRESH = 0.4
"""Seconds between two looks of a terminal's bar."""

EVERY = 10.0
"""Seconds between two lines that say how far it is."""


class Display(Protocol):
    """One way of showing a run.

    Attributes:
        every: seconds from one `tick` to the next.
    """

    every: float

    def take(self, event: Event) -> None:
        """Show an event, if it is worth it; the tally has it already."""

    def tick(self) -> None:
        """Show how far it is."""

    def warn(self, message: str) -> None:
        """Say on standard error what a person should know at once."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def display_for(tally: Tally, *, as_json: bool) -> Display:
    """What suits the streams: with JSON on a standard output that is elsewhere, a terminal has its bar all the same."""
    bar = sys.stderr.isatty() and not (as_json and sys.stdout.isatty())
    person: Display | None = Bar(tally) if bar else None
    if as_json:
        return JsonLines(tally, person)
    return person or Lines(tally)


async def shown(display: Display, course: Coroutine[Any, Any, T]) -> T:
    """Carry out a coroutine, and have a display look at it every so often.

    Raises:
        OutputLost: nobody can see it any more; the coroutine was cancelled for that.
    """
    try:
        return await beside(course, _tick(display))
    finally:
        display.close()


async def _tick(display: Display) -> None:
    while True:
        await asyncio.sleep(display.every)
        display.tick()


class Lines:
    """Plain lines on standard error, for a log or a file."""

    every = EVERY

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._news = News()

    def take(self, event: Event) -> None:
        """Print what is worth a line at once."""
        if news := self._news.of(event):
            say(news)

    def tick(self) -> None:
        """Print how far it is."""
        say(tallies.line(self._tally))

    def warn(self, message: str) -> None:
        """Print a line."""
        say(message)

    def close(self) -> None:
        """Nothing: there is nothing to undo."""


class Bar:
    """A bar and its numbers at the bottom of a terminal; whatever is worth a line scrolls by above."""

    every = REFRESH

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._news = News()
        self._live = Live(
            Text(""),
            console=console_for(sys.stderr),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def take(self, event: Event) -> None:
        """Print what is worth a line at once."""
        if news := self._news.of(event):
            self.warn(news)

    def tick(self) -> None:
        """Draw the bar anew."""
        self._live.update(picture(self._tally), refresh=True)

    def warn(self, message: str) -> None:
        """Print a line above the bar."""
        self._live.console.print(plain_lines(message), soft_wrap=True)

    def close(self) -> None:
        """Take the bar away and give the cursor back."""
        self._live.stop()


def picture(tally: Tally) -> Group:
    """The bar and its numbers: two lines, or three during an outage, none of them wider than the terminal."""
    counts = tally.counts
    if counts is None:
        return Group(_line(tallies.line(tally)))
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    texts = [
        f"{tallies.percent(counts):.1f} %",
        f"{counts.settled:,}/{counts.total:,}",
        f"{tally.rate:.0f}/s of {speed(tally.limit)}",
        tallies.remaining(tally),
    ]
    for _ in texts:
        row.add_column(no_wrap=True)
    row.add_row(ProgressBar(total=counts.total, completed=counts.settled), *texts)
    waiting = tallies.waiting(tally)
    return Group(row, _line(tallies.troubles(tally)), *([_line(waiting)] if waiting else []))


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


class JsonLines:
    """One JSON object a line on standard output, for machines.

    Args:
        tally: what is known of the run.
        person: what a person sees beside it; None for nothing.
    """

    def __init__(self, tally: Tally, person: Display | None = None) -> None:
        self._tally = tally
        self._person = person
        self._waiting = False
        self._spoken = time.monotonic()
        self.every: float = EVERY if person is None else person.every

    def take(self, event: Event) -> None:
        """Print an event, unless it is of those that come every second."""
        if self._person is not None:
            self._person.take(event)
        match event:
            case Started(counts, resumed):
                emit("started", {"resumed": resumed, "counts": counts_as_plain(counts)})
            case RowFailed() | RowLowered():
                emit("row_failed" if isinstance(event, RowFailed) else "row_lowered", asdict(event))
            case Waiting():
                if not self._waiting:
                    self._waiting = True
                    emit("waiting", asdict(event))
            case Resumed():
                self._waiting = False
                emit("resumed", asdict(event))
            case Reading() | Progress() | Finished():
                pass  # `tick` tells of the first two, and the ending of the last

    def tick(self) -> None:
        """Print how far it is, every ten seconds."""
        if self._person is not None:
            self._person.tick()
        now = time.monotonic()
        if now - self._spoken < EVERY - 0.001:
            return
        self._spoken = now
        tally = self._tally
        if tally.counts is None:
            emit("reading", {"rows": tally.read})
            return
        if tally.waiting is not None:
            waiting = {**asdict(tally.waiting), "seconds": round(tally.waited, 3)}
            emit("waiting", waiting)
        emit("progress", {"counts": counts_as_plain(tally.counts), **tally.as_plain()})

    def warn(self, message: str) -> None:
        """Print a line on standard error."""
        if self._person is not None:
            self._person.warn(message)
        else:
            say(message)

    def close(self) -> None:
        """Close what a person sees."""
        if self._person is not None:
            self._person.close()
