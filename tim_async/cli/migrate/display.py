"""Progress displays: a bar on a terminal, plain lines elsewhere, JSON Lines for programs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from rich.console import Group
from rich.padding import Padding
from rich.progress_bar import ProgressBar

from tim_async.cli.output import live_display, plain_lines, say, show
from tim_async.cli.stdio import OutputLost
from tim_async.migrate._supervision import beside

from .tables import emit

T = TypeVar("T")

BAR_INTERVAL = 0.4
"""Seconds between two updates of a bar."""

LINE_INTERVAL = 10.0
"""Seconds between two lines of progress, plain or JSON."""


class View(Protocol):
    """The progress of a task."""

    def line(self) -> str:
        """Return the progress in one line."""

    def fraction(self) -> float | None:
        """Return the completed part, 0 to 1; None while the total is unknown."""

    def progress_event(self) -> tuple[str, dict[str, Any]]:
        """Return the progress as a JSON event, with its name."""


class Display:
    """A display of a view and of events.

    If JSON goes to a file or a pipe, a terminal on standard error still has its bar.

    Args:
        view: the progress to show.
        as_json: whether to print events to standard output, as JSON Lines.

    Attributes:
        on_output_lost: called when a standard stream is lost; None to raise.
    """

    def __init__(self, view: View, *, as_json: bool) -> None:
        self.on_output_lost: Callable[[OutputLost], object] | None = None
        self._view = view
        self._as_json = as_json
        self._live = None if as_json and sys.stdout.isatty() else live_display(sys.stderr)
        self._last_event = time.monotonic()

    @contextlib.contextmanager
    def _handling_loss(self) -> Iterator[None]:
        try:
            yield
        except OutputLost as error:
            if self.on_output_lost is None:
                raise
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
                self._live.update(bar(self._view), refresh=True)
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

    async def run(self, course: Coroutine[Any, Any, T], *background: Coroutine[Any, Any, object]) -> T:
        """Run a coroutine with others in the background, and refresh the display meanwhile; then restore the terminal.

        Raises:
            OutputLost: the output was lost and `on_output_lost` was not set; the coroutine was cancelled.
        """
        with self._live or contextlib.nullcontext():
            return await beside(course, self._keep_refreshing(), *background)

    async def _keep_refreshing(self) -> None:
        while True:
            await asyncio.sleep(self.interval)
            self.refresh()


def bar(view: View) -> Group:
    """Return the progress for a terminal: a bar, if the total is known, above the line."""
    fraction = view.fraction()
    if fraction is None:
        return Group(view.line())
    # A bar alone does not end its line.
    return Group(Padding(ProgressBar(total=1.0, completed=fraction)), view.line())
