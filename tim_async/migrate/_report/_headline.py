"""The headline of the report: the state of a migration, as a title and a summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tim_async.migrate._store import Problem, Session, Status
from tim_async.migrate.events import Counts

from ._words import clock, duration, rate, rows

ENDS = {
    "interrupted": "interrupted",
    "limit": "stopped at a limit",
    "row_limit": "stopped after --limit rows",
    "failed": "stopped by an error",
    "": "killed",
}
"""Descriptions of the ends of runs that may have left rows."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """The results of a dry run beside the state of the rows.

    Attributes:
        rate: the rate of the run, calls/s.
        first: the first rows that would be sent: the values of the request, by field.
        rejected: the rejected rows, by line.
    """

    rate: float
    first: Sequence[Mapping[str, Any]] = ()
    rejected: Iterable[Problem] = ()


class Headline(NamedTuple):
    """The headline of a report; its tone is "good", "bad" or "open"."""

    tone: str
    title: str
    summary: str


def headline_of(status: Status) -> Headline:
    """Return the headline of a migration."""
    counts, left = status.counts, rows(status.counts.left)
    if status.missing:
        return Headline("bad", f"{rows(status.missing)} lost by the store", _summary(counts))
    if not status.planned:
        if status.running:
            return Headline("open", "Still reading the file", f"{rows(counts.total)} so far; nothing is sent yet.")
        return Headline("bad", "Nothing was sent", "It ended before the file was read to its end. Run it again.")
    if status.running:
        seen = max((last_seen(session) for session in status.sessions), default=0.0)
        pace = f" {rate(status.rate)} rows/s over the last minute." if status.rate else ""
        rest = f" About {duration(status.seconds_left)} left." if status.seconds_left else ""
        summary = f"As of {clock(seen)} UTC. {_summary(counts)}{pace}{rest}"
        return Headline("open", f"Still running, {left} left", summary)
    if not counts.total:
        return Headline("open", "There were no rows", "The file holds none, so that nothing was sent.")
    if counts.left:
        end = ENDS.get(status.sessions[-1].how, "not finished") if status.sessions else "not started"
        why = "The run was killed, or its machine was. " if end == "killed" else ""
        title = f"{end.capitalize()}, {left} left"
        return Headline("bad", title, f"{why}{_summary(counts)} The same command resumes.")
    if counts.errors:
        return Headline("bad", f"{rows(counts.errors)} did not arrive", _summary(counts))
    return Headline("good", "Every row arrived", _summary(counts))


def dry_run_headline(status: Status, dry_run: DryRun) -> Headline:
    """Return the headline of a dry run."""
    counts = status.counts
    takes = f" in about {duration(counts.left / dry_run.rate)} at {rate(dry_run.rate)}/s" if counts.left else ""
    summary = f"{rows(counts.left)} of {counts.total:,} would be sent{takes}. Nothing was sent."
    if counts.rejected:
        return Headline("bad", f"{rows(counts.rejected)} would be rejected", summary)
    if not counts.left:
        return Headline("open", "There is nothing to send", summary)
    return Headline("good", "Every row can be sent", summary)


def _summary(counts: Counts) -> str:
    """Return the counts in one or two sentences."""
    more = []
    if counts.failed:
        more.append(f"{counts.failed:,} failed")
    if counts.rejected:
        more.append(f"{counts.rejected:,} {were(counts.rejected)} invalid and never sent")
    if counts.superseded:
        by = "a later one" if counts.superseded == 1 else "later ones"
        more.append(f"{counts.superseded:,} {were(counts.superseded)} superseded by {by}")
    text = f"The service accepted {counts.taken:,} of {rows(counts.total)}."
    return f"{text} {', '.join(more)}." if more else text


def were(count: int) -> str:
    """Return the verb after a count."""
    return "was" if count == 1 else "were"


def last_seen(session: Session) -> float:
    """Return the last known time of a session, unix seconds."""
    if session.ended is not None:
        return session.ended
    series = session.series
    return session.started if series is None or not series.slots else series.started + series.seconds
