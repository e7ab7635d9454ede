"""How a migration stands, in a few words and in a sentence or two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tim_async.migrate._store import Problem, Session, Status
from tim_async.migrate.events import Counts

from ._words import clock, duration, rate, rows

_BEGUN = {
    "interrupted": "Interrupted",
    "limit": "Stopped at a limit",
    "row_limit": "Stopped after --limit rows",
    "failed": "Stopped by an error",
    "": "Cut off",
    None: "Not begun",
}
"""How a run ended that left rows; None for none."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a dry run tells beside the state of the rows.

    Attributes:
        rate: calls/s that a run would make.
        first: the first rows as they would be sent: what is in the request, by field.
        rejected: the rejected rows, by line.
    """

    rate: float
    first: Sequence[Mapping[str, Any]] = ()
    rejected: Iterable[Problem] = ()


class Headline(NamedTuple):
    """How it stands, in a few words and in a sentence or two; and whether that is good, bad or open."""

    tone: str
    title: str
    said: str


def headline_of(status: Status) -> Headline:
    """How a migration stands."""
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
        said = f"As of {clock(seen)} UTC. {_summary(counts)}{pace}{rest}"
        return Headline("open", f"Still running, {left} left", said)
    if not counts.total:
        return Headline("open", "There were no rows", "The file holds none, so that nothing was sent.")
    if counts.left:
        how = status.sessions[-1].how if status.sessions else None
        why = "The run was killed, or its machine was. " if how == "" else ""
        title = f"{_BEGUN.get(how, 'Not finished')}, {left} left"
        return Headline("bad", title, f"{why}{_summary(counts)} The same command resumes.")
    if counts.errors:
        return Headline("bad", f"{rows(counts.errors)} did not arrive", _summary(counts))
    return Headline("good", "Every row arrived", _summary(counts))


def rehearsed(status: Status, dry_run: DryRun) -> Headline:
    """What a run would do."""
    counts = status.counts
    takes = f" in about {duration(counts.left / dry_run.rate)} at {rate(dry_run.rate)}/s" if counts.left else ""
    said = f"{rows(counts.left)} of {counts.total:,} would be sent{takes}. Nothing was sent."
    if counts.rejected:
        return Headline("bad", f"{rows(counts.rejected)} would be rejected", said)
    if not counts.left:
        return Headline("open", "There is nothing to send", said)
    return Headline("good", "Every row can be sent", said)


def _summary(counts: Counts) -> str:
    """The rows in one or two sentences."""
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
    """The verb after a count."""
    return "was" if count == 1 else "were"


def last_seen(session: Session) -> float:
    """The last moment of it that is known, unix seconds."""
    if session.ended is not None:
        return session.ended
    series = session.series
    return session.started if series is None or not series.slots else series.started + series.seconds
