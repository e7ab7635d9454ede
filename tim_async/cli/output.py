"""Output: results on standard output, as tables or JSON; messages on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tim_async._plaintext import plain, plain_json

if TYPE_CHECKING:
    from rich.live import Live

__all__ = [
    "Cell",
    "console_for",
    "examples",
    "json_option",
    "live_display",
    "make_table",
    "number_of",
    "plain",
    "plain_lines",
    "print_error",
    "say",
    "show",
    "show_json",
]

_UNBOUNDED = 1_000_000

Cell = str | float | None
"""The content of a cell."""
_TEXTS: dict[str, Callable[[Any], str]] = {
    "text": plain,
    "number": str,
    "count": "{:,.12g}".format,
    "rate": "{:,.1f}".format,
    "share": "{:.0%}".format,
}
"""The format of the cells of each kind.  Texts are untrusted."""


json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of a table."
)
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


def make_table(columns: Mapping[str, str], rows: Iterable[Sequence[Cell]]) -> Table:
    """Return a table.

    Args:
        columns: the kind of the cells by heading: ``text``, ``number`` (shown as it is), ``count``, ``rate``, or
            ``share`` (0 to 1).
        rows: the cells by column; None for an empty cell.  The last cells may be missing.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True, header_style="bold")
    for heading, kind in columns.items():
        if kind == "text":
            table.add_column(heading, overflow="fold")  # a truncated id would be useless
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    texts = [_TEXTS[kind] for kind in columns.values()]
    for row in rows:
        table.add_row(*("" if cell is None else text(cell) for text, cell in zip(texts, row, strict=False)))
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


def print_error(message: str) -> None:
    """Print an error, in one line, on standard error."""
    click.echo(f"Error: {plain(message)}", err=True)


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun: "1 row", "2 rows"."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def plain_lines(text: str) -> str:
    """Escape the control characters of a message, except line feeds.

    Pass untrusted text within it through `plain` first, which escapes line feeds, too.
    """
    return "\n".join(map(plain, text.split("\n")))
