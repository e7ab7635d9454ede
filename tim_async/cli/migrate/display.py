"""Progress displays: a bar on a terminal, plain lines elsewhere, JSON Lines for programs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tim_async.cli.output import live_display, plain_lines, say, show
from tim_async.cli.stdio import OutputLost, abandon
from tim_async.migrate._supervision import beside

from .tables import emit

T = TypeVar("T")

BAR_INTERVAL = 0.4
"""Seconds between two updates of a bar."""

LINE_INTERVAL = 10.0
"""Seconds between two lines of progress, plain or JSON."""

_MIN_BAR_WIDTH = 10
"""Minimum width, in columns, of a bar on the line of its numbers; a narrower one has its own line."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar and its numbers, in as many lines as fit the terminal: no number is cut.

    Attributes:
        fraction: the filled part, 0 to 1; None for no bar.
        numbers: the texts beside the bar.
        problems: the texts below it.
        outage: the last line, cut to the width; "" for none.
    """

    fraction: float | None
    numbers: Sequence[str]
    problems: Sequence[str] = ()
    outage: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the bar."""
        width = options.max_width
        numbers = "  ".join(self.numbers)
        room = width - len(numbers) - 1
        if self.fraction is not None and room >= _MIN_BAR_WIDTH:
            row = Table.grid(padding=(0, 1, 0, 0))
            row.add_column(width=room)
            row.add_column(no_wrap=True)
            row.add_row(ProgressBar(total=1.0, completed=self.fraction, width=room), numbers)
            yield row
        else:
            if self.fraction is not None:
                yield ProgressBar(total=1.0, completed=self.fraction, width=width)
                yield Segment.line()
            yield from _flowing(self.numbers, "  ", width)
        yield from _flowing([f"{one}," for one in self.problems[:-1]] + [*self.problems[-1:]], " ", width)
        if self.outage:
            yield Text(self.outage, no_wrap=True, overflow="ellipsis")


def _flowing(items: Sequence[str], gap: str, width: int) -> Iterator[Text]:
    """Wrap items into lines of at most ``width`` columns, without breaking an item."""
    lines = [""]
    for item in items:
        if lines[-1] and len(lines[-1]) + len(gap) + len(item) > width:
            lines.append("")
        lines[-1] += gap + item if lines[-1] else item
    return (Text(line, no_wrap=True, overflow="crop") for line in lines if line)


class View(Protocol):
    """The progress of a task."""

    def line(self) -> str:
        """Return the progress in one line."""

    def bar(self) -> Bar:
        """Return the progress for a terminal."""

    def progress_event(self) -> tuple[str, dict[str, Any]]:
        """Return the progress as a JSON event, with its name."""


class Display:
    """A display of a view and of events; a context manager that restores the terminal.

    If JSON goes to a file or a pipe, a terminal on standard error still has its bar.

    Args:
        view: the progress to show.
        as_json: whether to print events to standard output, as JSON Lines.

    Attributes:
        on_output_lost: called when a standard stream is lost, and its output is discarded from then on; None to raise.
    """

    def __init__(self, view: View, *, as_json: bool) -> None:
        self.on_output_lost: Callable[[OutputLost], object] | None = None
        self._view = view
        self._as_json = as_json
        self._live = None if as_json and sys.stdout.isatty() else live_display(sys.stderr)
        self._last_event = time.monotonic()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @contextlib.contextmanager
    def _handling_loss(self) -> Iterator[None]:
        try:
            yield
        except OutputLost as error:
            if self.on_output_lost is None:
                raise
            abandon(error)
            self.on_output_lost(error)

    @property
    def interval(self) -> float:
        """Seconds from one `refresh` to the next."""
        return LINE_INTERVAL if self._live is None else BAR_INTERVAL

    def show_event(self, message: str, event: tuple[str, dict[str, Any]] | None) -> None:
        """Show an event at once.

        Args:
            message: the event in one line; "" for none.
            event: the event for JSON, with its name; None for none.
        """
        if message and (self._live is not None or not self._as_json):
            self.say(message)
        if event is not None and self._as_json:
            with self._handling_loss():
                emit(*event)

    def refresh(self) -> None:
        """Show the progress."""
        now = time.monotonic()
        with self._handling_loss():
            if self._live is not None:
                self._live.update(self._view.bar(), refresh=True)
            elif not self._as_json:
                say(self._view.line())
        if now - self._last_event >= LINE_INTERVAL - 0.001:
            self._last_event = now
            if self._as_json:
                self.show_event("", self._view.progress_event())

    def say(self, message: str) -> None:
        """Print a line on standard error, above the bar."""
        with self._handling_loss():
            if self._live is not None:
                self._live.console.print(plain_lines(message), soft_wrap=True)
            else:
                say(message)

    def print_result(self, line: str) -> None:
        """Print a line of data on standard output."""
        if self._live is not None and sys.stdout.isatty():
            self.say(line)  # on the same terminal, above the bar
        else:
            show(line)

    async def run(self, course: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, and refresh the display meanwhile.

        Raises:
            OutputLost: the output was lost and `on_output_lost` was not set; the coroutine was cancelled.
        """
        with self:
            return await beside(course, self._keep_refreshing())

    async def _keep_refreshing(self) -> None:
        while True:
            await asyncio.sleep(self.interval)
            self.refresh()
