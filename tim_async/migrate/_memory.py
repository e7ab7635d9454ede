"""A store in memory, which ends with the process: the simplest implementation of `Store`, and useful in tests."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from itertools import islice

from ._recorder import Series
from ._rows import KINDS, Rejected, Row
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
    RowState,
    Session,
    Status,
    differing,
    mismatch,
    with_field,
)
from .errors import JournalError, JournalInUse
from .events import Counts


class MemoryStore:
    """Keeps a migration in memory; see `Store` for its methods.

    Args:
        clock: returns the time, unix seconds.

    Attributes:
        name: "memory".
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.name: str = "memory"
        self._clock = clock
        self._in_use = False
        self._about: About | None = None
        self._pace: Pace | None = None
        self._forget()

    def _forget(self) -> None:
        self._planned = False
        self._rows: dict[int, Row | Rejected] = {}  # by line, in ascending order
        self._states: dict[int, RowState] = {}
        self._failures: dict[int, tuple[int | None, str]] = {}
        self._claims: dict[int, int] = {}
        self._sessions: list[Session] = []
        self._notes: dict[str, str] = {}

    async def open(self, about: About, *, restart: bool = False) -> About | None:
        """See `Store.open`."""
        if self._in_use:
            raise JournalInUse(f"another run uses the {self.name}")
        if restart or not self._planned:
            self._forget()
            self._about = about
        assert self._about is not None
        if differences := differing(self._about, about):
            raise mismatch(self.name, differences)
        self._in_use = True
        self._claimed_before = set(self._claims)
        self._mine: set[int] = set()
        self._session = False
        self._pace = None
        return self._about if self._planned else None

    async def plan(self, rows: Sequence[Row | Rejected]) -> None:
        """See `Store.plan`."""
        for row in rows:
            self._put(row)

    async def planned(self, fingerprint: str) -> None:
        """See `Store.planned`."""
        assert self._about is not None
        self._about = replace(self._about, fingerprint=fingerprint)
        self._supersede()
        self._planned = True

    async def mend(self, rows: Sequence[Row | Rejected]) -> Mended:
        """See `Store.mend`."""
        open_ = (RowState.PENDING, RowState.FAILED, RowState.REJECTED)
        skipped = sorted({row.line for row in rows if self._states.get(row.line) not in open_})
        mended = [row for row in rows if row.line not in skipped]
        for row in mended:
            self._put(row)
        self._supersede()
        states = Counter(self._states[line] for line in {row.line for row in mended})
        return Mended(states[RowState.PENDING], states[RowState.SUPERSEDED], states[RowState.REJECTED], tuple(skipped))

    def _put(self, row: Row | Rejected) -> None:
        self._rows[row.line] = row
        self._failures.pop(row.line, None)
        self._states[row.line] = RowState.PENDING if isinstance(row, Row) else RowState.REJECTED
        if isinstance(row, Rejected):
            self._claims.pop(row.line, None)

    def _supersede(self) -> None:
        """Of the rows of each member, make the last pending, unless it is settled, and supersede the others."""
        members: defaultdict[bytes, list[int]] = defaultdict(list)
        for line, row in self._rows.items():
            if isinstance(row, Row):
                members[row.identity].append(line)
        for *earlier, last in members.values():
            if self._states[last] is RowState.SUPERSEDED:
                self._states[last] = RowState.PENDING
            for line in earlier:
                if self._states[line] in (RowState.PENDING, RowState.FAILED):
                    self._states[line] = RowState.SUPERSEDED
                    self._claims.pop(line, None)

    async def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        """See `Store.exchange`."""
        if not self._session:
            self._sessions.append(Session(self._clock(), None, "", None))
            self._session = True
        self._sessions[-1] = replace(self._sessions[-1], calls=calls)
        for outcome in outcomes:
            self._mine.remove(outcome.line)
            del self._claims[outcome.line]
            self._states[outcome.line] = outcome.state
            if outcome.state is RowState.FAILED:
                self._failures[outcome.line] = (outcome.code, outcome.reason)
        free = [line for line, state in self._states.items() if state is RowState.PENDING and line not in self._mine]
        claims = []
        for line in free[:room]:
            row = self._rows[line]
            assert isinstance(row, Row)
            since = self._claims.setdefault(line, int(self._clock()))
            claims.append(Claim(row, since, again=line in self._claimed_before))
            self._mine.add(line)
        pace, self._pace = self._pace, None
        return Exchange(claims, await self.counts(), len(free) <= room, pace=pace)

    async def counts(self) -> Counts:
        """See `Store.counts`."""
        found = Counter(state.name.lower() for state in self._states.values())
        found["pending"] -= len(self._claims)
        return Counts(sending=len(self._claims), **found)

    async def _failure_counts(self) -> list[FailureCount]:
        causes: dict[object, list[Problem]] = {}
        async for problem in self.problems():
            row = self._rows[problem.line]
            field = row.field if isinstance(row, Rejected) else None
            cause = (problem.code, field, problem.reason if problem.code is None and not field else "")
            causes.setdefault(cause, []).append(problem)
        failures = [
            FailureCount(first.code, first.reason, 1 + len(others), first.line, first.line not in self._failures)
            for first, *others in causes.values()
        ]
        return sorted(failures, key=lambda failure: (-failure.rows, failure.first_line))

    async def release(self, lines: Sequence[int]) -> None:
        """See `Store.release`."""
        for line in lines:
            self._mine.remove(line)
            if line not in self._claimed_before:
                del self._claims[line]

    async def save_series(self, series: str) -> None:
        """See `Store.save_series`."""
        if self._session:
            self._sessions[-1] = replace(self._sessions[-1], series=Series.from_json(series))

    async def keep(self) -> None:
        """See `Store.keep`: nothing expires."""
        await asyncio.Event().wait()

    async def status(self) -> Status:
        """See `Store.status`."""
        if self._about is None:
            raise JournalError("the store holds no migration")
        return Status(
            journal=self.name,
            kind=self._about.kind,
            source=self._about.source,
            arguments=dict(self._about.arguments),
            sdk_app_id=self._about.sdk_app_id,
            base_url=self._about.base_url,
            planned=self._planned,
            running=self._in_use,
            counts=await self.counts(),
            failures=await self._failure_counts(),
            sessions=[*self._sessions],
        )

    async def problems(self) -> AsyncIterator[Problem]:
        """See `Store.problems`."""
        assert self._about is not None
        names = [column.name for column in KINDS[self._about.kind].columns]
        for line, row in self._rows.items():
            if isinstance(row, Rejected):
                yield Problem(line, None, with_field(row.field, row.reason), row.found)
            elif self._states[line] is RowState.FAILED:
                values = zip(names, row.values, strict=True)
                yield Problem(line, *self._failures[line], {name: value for name, value in values if value is not None})

    async def accepted(self, after: int, most: int) -> AsyncIterator[Row]:
        """See `Store.accepted`."""
        done = (row for line, row in self._rows.items() if line > after and self._states[line] is RowState.DONE)
        for row in islice(done, most):
            assert isinstance(row, Row)
            yield row

    async def set_pace(self, pace: Pace) -> None:
        """See `Store.set_pace`."""
        self._pace = pace

    async def note(self, name: str, value: str | None = None) -> str:
        """See `Store.note`."""
        if value is not None:
            self._notes[name] = value
        return self._notes.get(name, "")

    def hurry(self) -> None:
        """See `Store.hurry`: no method waits."""

    async def close(self, how: str = "") -> None:
        """See `Store.close`."""
        self._in_use = False
        if how and self._session:
            last = self._sessions[-1]
            self._sessions[-1] = replace(last, ended=max(last.started, self._clock()), how=how)
