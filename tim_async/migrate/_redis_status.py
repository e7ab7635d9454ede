"""The status of a shared migration: its workers, and their sessions, where those that overlapped count as one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from ._recorder import SLOTS, Series, Slot
from ._redis_replies import UNREADABLE, about_of, as_list, as_number, as_time, code_and_reason, place_of, progress_of
from ._store import Calls, FailureCount, Session, Status, Worker

_MINUTE = 60
_SLOT = 5
"""Seconds of a slot of ``recent``, see ``_lua``."""
_PAUSE = 30.0
"""Seconds without any worker after which the next one begins another session."""
_SHORTEST_LEASE = 2.0
"""Seconds of silence before which no worker counts as dead: the store's clock shows whole seconds."""


def status_of(journal: str, name: str, reply: Mapping[str, Any], series: Mapping[str, str]) -> Status:
    """Read the status of a migration.

    Args:
        journal: the store's URL.
        name: the migration's name.
        reply: the reply to the operation ``status``.
        series: the calls over time, by worker.
    """
    about = about_of(reply["about"])
    progress = progress_of(reply)
    now = as_number(reply["now"])
    workers, sessions = [], []
    for worker, session in _workers(reply["workers"], series, now):
        workers.append(worker)
        if worker.rows or session.calls != Calls() or session.series is not None:  # it has sent something
            sessions.append(session)
    with contextlib.suppress(*UNREADABLE):
        forgotten = json.loads(reply["about"]["forgotten"])
        sessions.append(_session(forgotten, forgotten, None))
    return Status(
        journal=journal,
        kind=about.kind,
        source=about.source,
        arguments=dict(about.arguments),
        sdk_app_id=about.sdk_app_id,
        base_url=about.base_url,
        planned=reply["about"].get("complete") == "1",
        running=any(worker.working for worker in workers),
        counts=progress.counts,
        failures=_failures(reply),
        sessions=merged(sessions),
        workers=sorted(workers, key=lambda worker: (worker.seen, worker.name)),
        name=name,
        rate=_rate(reply["recent"], now),
        missing=progress.missing,
    )


def _failures(reply: Mapping[str, Any]) -> list[FailureCount]:
    """Read the failed and rejected rows by cause, the most frequent first."""
    failures = [_failure(cause) for cause in as_list(reply["causes"])]
    return sorted(failures, key=lambda failure: (-failure.rows, failure.first_line))


def _failure(found: Mapping[str, Any]) -> FailureCount:
    code, reason = code_and_reason(json.loads(found["document"]))
    rejected = str(found["cause"]).startswith("!")
    return FailureCount(code, reason, as_number(found["rows"]), place_of(found["first"])[0], rejected)


def _workers(found: Mapping[str, str], series: Mapping[str, str], now: int) -> Iterator[tuple[Worker, Session]]:
    """Yield each worker with its session, except damaged ones."""
    for name, text in found.items():
        with contextlib.suppress(*UNREADABLE):
            seen, rows, document = text.split(" ", 2)
            info = json.loads(document)
            silence = max(0.0, now - as_time(seen))
            working = not info["how"] and silence <= max(float(info["lease"]), _SHORTEST_LEASE)
            session = _session(info, info["calls"], _series(series.get(name)))
            yield Worker(name, int(rows), silence, session.started, session.how, working), session


def _series(series: str | None) -> Series | None:
    try:
        return Series.from_json(series) if series else None
    except UNREADABLE:
        return None


def _session(info: Mapping[str, Any], calls: Mapping[str, Any], series: Series | None) -> Session:
    counted = Calls(**{field.name: as_number(calls.get(field.name, 0)) for field in fields(Calls)})
    ended = info.get("ended")
    return Session(
        as_time(info["started"]),
        None if ended is None else as_time(ended),
        str(info.get("how", "")),
        series,
        counted,
    )


def _rate(recent: Mapping[str, str], now: int) -> float:
    """Return the outcomes a second over the last minute, or since the first of them if that is less."""
    slots = {int(slot): int(rows) for slot, rows in recent.items() if now - _MINUTE < int(slot) + _SLOT}
    if not slots:
        return 0.0
    seconds = min(float(_MINUTE), now - min(slots) + 1.0)
    return sum(slots.values()) / seconds


def merged(sessions: Iterable[Session]) -> list[Session]:
    """Merge sessions that overlapped.

    Args:
        sessions: the sessions of all workers, in any order.

    Returns:
        One session for each period with workers, in order.  Its ``how`` is that of the worker that ended last; its
        limit is the highest of theirs, since they share it.
    """
    groups: list[list[Session]] = []
    until = 0.0
    for session in sorted(sessions, key=lambda session: session.started):
        if not groups or session.started > until + _PAUSE:
            groups.append([])
        groups[-1].append(session)
        until = max(until, _last_seen(session))
    return [_merge(group) for group in groups]


def _merge(sessions: Sequence[Session]) -> Session:
    """Return overlapping sessions as one."""
    last = max(sessions, key=_last_seen)
    found = [session.series for session in sessions if session.series is not None and session.series.slots]
    ends = [session.ended for session in sessions if session.ended is not None]
    return Session(
        started=min(session.started for session in sessions),
        # A worker that was killed before the others ended does not leave the whole without an end.
        ended=max(ends) if ends and last.ended is not None else None,
        how=last.how,
        series=_sum_series(found) if found else None,
        calls=Calls(*map(sum, zip(*(asdict(session.calls).values() for session in sessions), strict=True))),
    )


def _last_seen(session: Session) -> float:
    """Return the last time at which a session is known to have run."""
    if session.ended is not None:
        return session.ended
    series = session.series
    return session.started if series is None or not series.slots else series.started + series.seconds


def _sum_series(found: Sequence[Series]) -> Series:
    started = min(series.started for series in found)
    until = max(series.started + series.seconds for series in found)
    width = max(series.width for series in found)
    while (until - started) / width >= SLOTS:
        width *= 2
    total = Series(started, width, max(series.limit for series in found), until=until)
    for series in found:
        for number, slot in enumerate(series.slots):
            # By its middle, so that slots of equal width stay apart, wherever the seconds of each worker begin.
            index = int((series.started + (number + 0.5) * series.width - started) / width)
            index = min(index, SLOTS - 1)
            while len(total.slots) <= index:
                total.slots.append(Slot())
            total.slots[index].add(slot)
    return total
