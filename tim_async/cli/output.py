"""What commands show: tables for people, JSON for machines, and everything that is not data on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any, TypeVar

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
    "plain",
    "plain_lines",
    "say",
    "show",
    "show_json",
]

Command = TypeVar("Command", bound=Callable[..., Any])

_UNBOUNDED = 1_000_000


def json_option(command: Command) -> Command:
    """Give a command the flag ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")(command)


def examples(*lines: str) -> str:
    """The examples at the end of a help text."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def console_for(stream: IO[str]) -> Console:
    """A console that neither wraps nor colours unless it is a terminal: programs that read it expect whole lines."""
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
    """A part of a terminal that is drawn anew, once it is started; None where a stream is no terminal that can."""
    if not stream.isatty() or os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return None
    from rich.live import Live

    return Live(
        "",
        console=console_for(stream),
        auto_refresh=False,  # not by a thread of its own, whose failures nobody would hear of
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


class PlainTable(Table):
    """A table whose cells are untrusted texts."""

    def add_row(self, *cells: str) -> None:  # type: ignore[override]
        """Add a row of texts; control characters are escaped."""
        super().add_row(*map(plain, cells))


def make_table(*columns: str, right: Iterable[str] = ()) -> PlainTable:
    """An empty table.

    Args:
        columns: the headings.
        right: the headings of columns that hold numbers.
    """
    table = PlainTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True, header_style="bold")
    numbers = set(right)
    for column in columns:
        if column in numbers:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            # Folded, not cut: a truncated id is useless.
            table.add_column(column, overflow="fold")
    return table


def show(*parts: Table | str) -> None:
    """Print tables and lines of data on standard output; line feeds in a line are kept."""
    console = console_for(sys.stdout)
    for part in parts:
        console.print(plain_lines(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str))


def show_json(document: object) -> None:
    """Print a document on standard output, as indented JSON."""
    # ASCII escapes where the stream is not UTF-8: the same JSON.
    readable = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") in ("utf8", "utf8sig")
    click.echo(plain_json(document, ensure_ascii=not readable, indent=2))


def say(message: str) -> None:
    """Print a message on standard error."""
    click.echo(plain_lines(message), err=True)


def plain_lines(text: str) -> str:
    """Escape a message's control characters, all but line feeds.

    Untrusted texts within it should have passed `plain`, which escapes their line feeds, too.
    """
    return "\n".join(map(plain, text.split("\n")))
