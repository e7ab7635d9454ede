"""A store that lives as long as the process: the reference for what a `Store` does, and of use in tests."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from .errors import JournalInUse, JournalMismatch
from .events import Counts
from .recorder import Series
from ._store import (
    About,
    Calls,
    Claim,
    Exchange,
    FailureCount,
    Mended,
    Outcome,
    Pace,
    Problem,
    Session,
    State,
    Status,
    differing,
    with_field,
)
from .rows import KINDS, Rejected, Row


class MemoryStore:
    """Keeps a migration in memory.

    Args:
        clock: the time, unix seconds.

    Attributes:
        name: "memory".
    """

    name = "memory"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._used = False
        self._notes: dict[str, str] = {}
        self._pace: Pace | None = None
        self._sessions: list[Session] = []
        self._forget()

    def _forget(self) -> None:
        self._about: About | None = None
        self._planned = False
        self._rows: dict[int, Row | Rejected] = {}
        self._states: dict[int, State] = {}
        self._failures: dict[int, tuple[int | None, str]] = {}
        self._claimed: dict[int, int] = {}
        self._mine: set[int] = set()
        self._sessions.clear()
        self._notes.clear()

    async def open(self, about: About, *, restart: bool = False) -> bool:
        """See `Store.open`."""
        if self._used:
            raise JournalInUse("another run uses this store")
        if restart or not self._planned:
            self._forget()
            self._about = about
        assert self._about is not None
        if differences := differing(self._about, about):
            raise JournalMismatch(f"the store is {differences}")
        self._used = True
        self._mine.clear()
        self._pace = None
        return self._planned

    async def plan(self, rows: Sequence[Row | Rejected]) -> None:
        """See `Store.plan`."""
        for row in rows:
            self._put(row)

    async def planned(self, fingerprint: str) -> None:
        """See `Store.planned`."""
        assert self._about is not None
        self._about = About(
            self._about.kind,
            self._about.source,
            fingerprint,
            self._about.arguments,
            self._about.sdk_app_id,
            self._about.base_url,
        )
        self._supersede(row.identity for row in self._rows.values() if isinstance(row, Row))
        self._planned = True

    def _put(self, row: Row | Rejected) -> None:
        self._rows[row.line] = row
        self._failures.pop(row.line, None)
        self._states[row.line] = State.PENDING if isinstance(row, Row) else State.REJECTED

    def _supersede(self, identities: Iterable[bytes]) -> None:
        """Of the rows of each of these members, have the last be pending, unless it is settled, and no other."""
        wanted = set(identities)
        members: dict[bytes, list[int]] = {}
        for line in sorted(self._rows):
            row = self._rows[line]
            if isinstance(row, Row) and row.identity in wanted:
                members.setdefault(row.identity, []).append(line)
        for *earlier, last in members.values():
            if self._states[last] is State.SUPERSEDED:
                self._states[last] = State.PENDING
            for line in earlier:
                if self._states[line] in (State.PENDING, State.FAILED):
                    self._states[line] = State.SUPERSEDED
                    self._claimed.pop(line, None)

    async def mend(self, rows: Sequence[Row | Rejected]) -> Mended:
        """See `Store.mend`."""
        skipped = []
        touched: set[bytes] = set()
        mended: dict[int, Row | Rejected] = {}
        for row in rows:
            if self._states.get(row.line) not in (State.PENDING, State.FAILED, State.REJECTED):
                skipped.append(row.line)
                continue
            mended[row.line] = row
            touched |= {one.identity for one in (self._rows[row.line], row) if isinstance(one, Row)}
            self._put(row)
            if isinstance(row, Rejected):
                self._claimed.pop(row.line, None)
        self._supersede(touched)
        states = Counter(self._states[line] for line in mended)
        return Mended(states[State.PENDING], states[State.SUPERSEDED], states[State.REJECTED], tuple(skipped))

    async def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        """See `Store.exchange`."""
        now = int(self._clock())
        for outcome in outcomes:
            self._claimed.pop(outcome.line)
            self._mine.discard(outcome.line)
            self._states[outcome.line] = outcome.state
            if outcome.state is State.FAILED:
                self._failures[outcome.line] = (outcome.code, outcome.reason)
        claims = []
        for line in sorted(self._states):
            if len(claims) >= room:
                break
            row = self._rows[line]
            if isinstance(row, Row) and self._states[line] is State.PENDING and line not in self._mine:
                claims.append(Claim(row, self._claimed.setdefault(line, now), again=line in self._before))
                self._mine.add(line)
        if not self._session:
            self._sessions.append(Session(self._clock(), None, "", None))
            self._session = True
        last = self._sessions[-1]
        self._sessions[-1] = Session(last.started, None, "", last.series, calls)
        pace, self._pace = self._pace, None
        return Exchange(claims, self._counts(), len(claims) < room, pace=pace)

    async def release(self, lines: Sequence[int]) -> None:
        """See `Store.release`."""
        for line in lines:
            self._mine.discard(line)
            if line not in self._before:
                self._claimed.pop(line, None)

    async def save_series(self, series: str) -> None:
        """See `Store.save_series`."""
        last = self._sessions[-1]
        self._sessions[-1] = Session(last.started, last.ended, last.how, Series.from_json(series), last.calls)

    async def keep(self) -> None:
        """See `Store.keep`."""
        await asyncio.Event().wait()
