"""What the store knows of a stream and of those who work on it, at any time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tim_async.migrate._recorder import Series
from tim_async.migrate.rejects import write_documents
from tim_async.migrate.schema import FailureCount
from tim_async.migrate.status import Session, Status

from .about import State, StreamAbout
from .errors import StoreError
from .keys import DEFAULT_NAME
from .merging import merged
from .store import Store

_MINUTE = 60
_LATEST = 1e11
"""Unix seconds that no clock will show."""
_SLOT = 5
"""Seconds of a slot of the pace, see `scripts.RECORD`."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as the store knows it.

    Attributes:
        name: its host, its process and a random part.
        rows: rows whose outcome it was the first to write.
        seen: seconds since its last sign of life.
        started: when it began, unix seconds by its own clock.
        how: how it ended: "done", "interrupted", "limit", "failed" or "nothing_to_do"; "" when it is not known to have.
        working: whether it works, as far as one can tell: it has not ended, and its lease is not over.
    """

    name: str
    rows: int
    seen: float
    started: float
    how: str
    working: bool


@dataclass(frozen=True, slots=True)
class Fleet:
    """A stream and its workers.

    Attributes:
        name: the stream's name.
        url: the store's, without a password.
        status: the migration, as of a file's; its sessions are those of all workers, added up.
        loaded: rows that have been put on the stream.
        rows: rows that are to be.
        complete: whether the load is complete.
        workers: all that have ever worked on it, those seen last first.
        rate: outcomes a second over the last minute.
        seconds_left: how long the rest takes at that rate; None when nothing can be said.
        missing: rows that the store has lost.
    """

    name: str
    url: str
    status: Status
    loaded: int
    rows: int
    complete: bool
    workers: list[Worker]
    rate: float
    seconds_left: float | None
    missing: int


async def read_fleet(url: str, *, name: str = DEFAULT_NAME) -> Fleet:
    """Read what the store knows of a stream.

    Args:
        url: the store, as for `load`.
        name: the stream's.

    Raises:
        ValueError: a URL or a name that cannot be.
        StoreError: there is no such stream, or the store cannot be reached or refuses.
    """
    async with Store(url, name, patient=False) as store:
        about = await _about(store)
        state, now, found = await store.survey()
        try:
            return _fleet(store, about, state, now, found)
        except ValueError:
            raise StoreError(
                f"the stream {store.name} at {store.shown} is damaged: its counts are no numbers"
            ) from None


async def write_fleet_rejects(url: str, to: str | Path, *, name: str = DEFAULT_NAME) -> int:
    """Write the failed and rejected rows of a stream as JSON Lines, by line, as `write_rejects` does.

    Args:
        url: the store, as for `load`.
        to: the file to write; replaced as a whole, and removed when there is nothing to write.
        name: the stream's.

    Returns:
        How many rows it holds.

    Raises:
        ValueError: a URL or a name that cannot be.
        StoreError: there is no such stream, or the store cannot be reached or refuses.
        OSError: the file cannot be written.
    """
    async with Store(url, name, patient=False) as store:
        await _about(store)
        found = {**await store.documents("failed"), **await store.documents("rejected")}
    return write_documents(Path(to), lambda: by_line(found))


def by_line(found: Mapping[tuple[int, int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Documents in the order of their lines."""
    return (found[position] for position in sorted(found))


async def _about(store: Store) -> StreamAbout:
    about = await store.look()
    if about is None:
        raise StoreError(f"there is no stream {store.name} at {store.shown}")
    store.of(about)
    return about


def _fleet(store: Store, about: StreamAbout, state: State, now: int, found: Mapping[str, Mapping[str, str]]) -> Fleet:
    workers = sorted(_workers(found["workers"], now), key=lambda worker: (worker.seen, worker.name))
    rate = _rate(found["pace"], now)
    left = state.counts.left
    failures = failures_of(found["causes"], found["firsts"])
    status = Status(
        kind=about.kind,
        source=about.source,
        arguments=about.arguments,
        sdk_app_id=about.sdk_app_id,
        base_url=about.base_url,
        planned=True,
        running=any(worker.working for worker in workers),
        counts=state.counts,
        failures=sorted(failures + about.failures, key=lambda failure: (-failure.rows, failure.first_line)),
        sessions=merged(_sessions(found["series"])),
    )
    return Fleet(
        name=store.name,
        url=store.shown,
        status=status,
        loaded=state.loaded,
        rows=state.rows,
        complete=bool(state.complete),
        workers=workers,
        rate=rate,
        seconds_left=0.0 if not left else left / rate if rate else None,
        missing=state.missing,
    )


def failures_of(causes: Mapping[str, str], firsts: Mapping[str, str]) -> list[FailureCount]:
    """The rows that failed, or that a worker rejected, by their causes; see `outcomes.cause_of`.

    Raises:
        ValueError: it is something else.
    """
    found = []
    for cause, rows in causes.items():
        line, _, reason = firsts.get(cause, "0 ").partition(" ")
        code = None if cause.startswith((":", "!")) else int(cause)
        found.append(FailureCount(code, reason, int(rows), int(line), rejected=cause.startswith("!")))
    return sorted(found, key=lambda failure: (-failure.rows, failure.first_line))


# Left out in the two below: what is of another version of this program, or damaged.
_UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


def _workers(found: Mapping[str, str], now: int) -> Iterator[Worker]:
    for name, text in found.items():
        seen, _, document = text.partition(" ")
        with contextlib.suppress(*_UNREADABLE):
            info = json.loads(document)
            ago = max(0.0, now - _moment(seen))
            working = not info["how"] and ago <= max(float(info["lease"]), 2.0)
            yield Worker(name, int(info["rows"]), ago, _moment(info["started"]), str(info["how"]), working)


def _sessions(found: Mapping[str, str]) -> Iterator[Session]:
    for text in found.values():
        with contextlib.suppress(*_UNREADABLE):
            session = json.loads(text)
            series = Series.from_json(session["series"])
            ended = None if session["ended"] is None else _moment(session["ended"])
            yield Session(_moment(session["started"]), ended, str(session["how"]), series)


def _moment(value: object) -> float:
    """Unix seconds, as text or as a number."""
    moment = float(str(value))
    if not 0 <= moment < _LATEST:
        raise ValueError("no moment")
    return moment


def _rate(pace: Mapping[str, str], now: int) -> float:
    """Outcomes a second over the last minute, or since the first of them when that is less."""
    slots = {int(slot): int(rows) for slot, rows in pace.items() if now - _MINUTE < int(slot) + _SLOT}
    if not slots:
        return 0.0
    seconds = min(float(_MINUTE), now - min(slots) + 1.0)
    return sum(slots.values()) / seconds
