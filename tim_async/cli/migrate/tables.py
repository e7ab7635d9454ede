"""Counts, failures, notes and events, as text and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tim_async._codes import explanations
from tim_async._plaintext import plain_json
from tim_async.cli.output import make_table, plain

if TYPE_CHECKING:
    from rich.table import Table

    from tim_async.migrate import Counts, FailureCount, Notes


def counts_table(counts: Counts) -> Table:
    """Return a table of the rows by state, with the meaning of each state."""
    lowered = "of these, above the group's number of messages, to which the service lowers them"
    rows = [
        ("total", counts.total),
        ("accepted", counts.taken, "by the service"),
        *([("  lowered", counts.lowered, lowered)] if counts.lowered else []),
        ("failed", counts.failed, "refused, or the group ignores unread counts"),
        ("rejected", counts.rejected, "invalid, never sent"),
        ("superseded", counts.superseded, "never sent: a later row has the same two ids"),
        ("left", counts.left, "still to be sent"),
    ]
    return make_table({"": "text", "rows": "count", " ": "text"}, rows)


def failure_lines(failures: Sequence[FailureCount]) -> list[Table | str]:
    """Return a table of the failed and rejected rows by cause, and an explanation of each known code."""
    columns = {"code": "text", "failures": "count", "first line": "count", "example": "text"}
    rows = [
        (
            "rejected" if failure.rejected else "none" if failure.code is None else str(failure.code),
            failure.rows,
            failure.first_line,
            failure.reason,
        )
        for failure in failures
    ]
    table = make_table(columns, rows)
    lines = explanations(failure.code for failure in failures)
    return [table, "", *lines] if lines else [table]


def note_lines(notes: Notes) -> list[str]:
    """Return the notes about the rows of a file, as lines below a table."""
    lines = [f"note: {plain(sentence)}" for sentence in notes.sentences()]
    return ["", *lines] if lines else []


def speed(limit: float) -> str:
    """Format calls/s without trailing zeros."""
    return f"{limit:,.2f}".rstrip("0").rstrip(".") + "/s"


def duration(seconds: float) -> str:
    """Format seconds as ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def emit(event: str, fields: Mapping[str, Any]) -> None:
    """Print one event as one line of JSON on standard output."""
    # ASCII: every stream can encode it, and a Unicode line separator in a reason does not end the line.
    click.echo(plain_json({"event": event, "time": round(time.time(), 3), **fields}, ensure_ascii=True))


def counts_dict(counts: Counts) -> dict[str, int]:
    """Return the counts by state, with their sums, ready for JSON."""
    return {"total": counts.total, "taken": counts.taken, "left": counts.left, **asdict(counts)}


def rows_dict(counts: Counts, failures: Iterable[FailureCount], notes: Notes) -> dict[str, Any]:
    """Return the counts, the failed and rejected rows by cause, and the notes, ready for JSON."""
    return {
        "counts": counts_dict(counts),
        "failures": [{**asdict(failure), "meaning": failure.meaning, "remedy": failure.remedy} for failure in failures],
        "notes": json.loads(notes.to_json()),
    }


def loaded_rows(counts: Counts) -> int:
    """Return the number of rows that a load has put on a stream."""
    return counts.total - counts.rejected - counts.superseded
