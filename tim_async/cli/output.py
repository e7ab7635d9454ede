"""Output: results on standard output, as tables or JSON; messages on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tim_async._plaintext import plain, plain_json

if TYPE_CHECKING:
    from rich.live import Live

__all__ = [
    "console_for",
    "examples",
    "json_option",
    "live_display",
    "make_table",
    "number_of",
    "plain",
    "plain_lines",
    "say",
    "show",
    "show_json",
]

_UNBOUNDED = 1_000_000


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
"""Adds the flag ``--json`` to a command."""


def examples(*lines: str) -> str:
    """Return the section of examples that ends a help text."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def console_for(stream: IO[str]) -> Console:
    """Return a console that wraps and colours on a terminal only: programs expect whole lines."""
    terminal = stream.isatty()
    return Console(
        file=stream,
        force_terminal=terminal,
        width=None if terminal else _UNBOUNDED,
        # Data is plain text, never markup or ":smile:".
        markup=False,
        emoji=False,
        highlight=False,
    )


def live_display(stream: IO[str]) -> Live | None:
    """Return a live display, not yet started; None if the stream is not a terminal that can redraw."""
    if not stream.isatty() or os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return None
    from rich.live import Live

    return Live(
        "",
        console=console_for(stream),
        auto_refresh=False,  # a refreshing thread would lose its errors
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


class PlainTable(Table):
    """A table with cells of untrusted text."""

    def add_row(self, *cells: str) -> None:  # type: ignore[override]
        """Add a row; control characters are escaped."""
        super().add_row(*map(plain, cells))


def make_table(*columns: str, right: Iterable[str] = ()) -> PlainTable:
    """Return an empty table.

    Args:
        columns: the headings of the columns.
        right: the headings of the columns with numbers.
    """
    table = PlainTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True, header_style="bold")
    numbers = set(right)
    for column in columns:
        if column in numbers:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            # A truncated id would be useless.
            table.add_column(column, overflow="fold")
    return table


def show(*parts: Table | str) -> None:
    """Print tables and text on standard output; line feeds in a text are kept."""
    console = console_for(sys.stdout)
    for part in parts:
        console.print(plain_lines(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str))


def show_json(document: object) -> None:
    """Print a document on standard output as indented JSON."""
    # Where the stream is not UTF-8, escapes keep the JSON intact.
    readable = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") in ("utf8", "utf8sig")
    click.echo(plain_json(document, ensure_ascii=not readable, indent=2))


def say(message: str) -> None:
    """Print a message on standard error."""
    click.echo(plain_lines(message), err=True)


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun: "1 row", "2 rows"."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def plain_lines(text: str) -> str:
    """Escape the control characters of a message, except line feeds.

    Pass untrusted text within it through `plain` first, which escapes line feeds, too.
    """
    return "\n".join(map(plain, text.split("\n")))
