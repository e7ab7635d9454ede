"""The sessions of many workers as those of one: what went on at the same time is added up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tim_async.migrate._recorder import SLOTS, Series, Slot
from tim_async.migrate.status import Session

_PAUSE = 30.0
"""Seconds without any worker after which what follows is another session."""


def merged(sessions: Iterable[Session]) -> list[Session]:
    """Add sessions up.

    Args:
        sessions: of workers, those that ran at the same time and those that did not, in any order.

    Returns:
        One for each time in which there were workers, in their order.  Its ``how`` is that of the worker that ended
        last; its limit is the highest of theirs, since they share it.
    """
    groups: list[list[Session]] = []
    until = 0.0
    for session in sorted(sessions, key=lambda session: session.started):
        if not groups or session.started > until + _PAUSE:
            groups.append([])
        groups[-1].append(session)
        until = max(until, _end(session))
    return [_one(group) for group in groups]


def _one(sessions: Sequence[Session]) -> Session:
    """Sessions that ran at about the same time as one."""
    last = max(sessions, key=_end)
    found = [session.series for session in sessions if session.series is not None and session.series.slots]
    ends = [session.ended for session in sessions if session.ended is not None]
    return Session(
        started=min(session.started for session in sessions),
        # One that was killed before the others ended is not what the whole ended by.
        ended=max(ends) if ends and last.ended is not None else None,
        how=last.how,
        series=_sum(found) if found else None,
    )


def _end(session: Session) -> float:
    """The last that is known of it."""
    if session.ended is not None:
        return session.ended
    series = session.series
    return session.started if series is None or not series.slots else series.started + series.seconds


def _sum(found: Sequence[Series]) -> Series:
    started = min(series.started for series in found)
    until = max(series.started + series.seconds for series in found)
    width = max(series.width for series in found)
    while (until - started) / width >= SLOTS:
        width *= 2
    total = Series(started, width, max(series.limit for series in found), until=until)
    for series in found:
        for number, slot in enumerate(series.slots):
            # By its middle: slots of one width stay apart, wherever each worker's seconds begin.
            index = int((series.started + (number + 0.5) * series.width - started) / width)
            index = min(index, SLOTS - 1)
            while len(total.slots) <= index:
                total.slots.append(Slot())
            total.slots[index].add(slot)
    return total
