"""Where a migration keeps its rows and their outcomes: the `Store` protocol, and the values that pass through it.

::

    open ──> plan* ──> planned ──> exchange* ──> close
       └──────────────────┴──> mend

A store knows the values of every row.  A row is known by its line: the line in the file it was read from.  Rows are
*planned* once: all are added, and of the rows of one member all but the last become superseded.  Then a run *exchanges*
outcomes for claims: the outcomes of finished rows go in, rows to be sent come out, in one step.  A claim is durable
before `exchange` returns; so after a kill at most the rows that were claimed are sent a second time.

`tim_async.migrate._sqlite` keeps a migration in one file, `tim_async.migrate._redis` shares it among machines, and
`tim_async.migrate._memory` keeps it as long as the process lives.
"""

from __future__ import annotations

import enum
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from tim_async._codes import code_of
from tim_async._stores import is_url

from ._recorder import Series
from ._rows import Rejected, Row
from .errors import JournalMismatch
from .events import Counts

_PORTS = {"http": 80, "https": 443}
_DIGITS_SHOWN = 12
"""Digits of a fingerprint that a message shows."""
_LONGEST_REASON = 300
"""Bytes of a reason that are kept: with hundreds of thousands of failures they are most of the store."""


class State(enum.IntEnum):
    """The state of a row.  A pending row that is claimed counts as ``sending``."""

    PENDING = 0
    """Not settled yet."""
    DONE = 1
    """Accepted by the service."""
    LOWERED = 2
    """Accepted, with a number above the group's messages, which the service lowers to that."""
    FAILED = 3
    """Refused by the service, or its group ignores unread counts."""
    REJECTED = 4
    """Invalid, never sent."""
    SUPERSEDED = 5
    """Never sent: a later row is for the same member."""


@dataclass(frozen=True, slots=True)
class About:
    """What a migration is of.

    Attributes:
        kind: the name of the kind of its rows.
        source: the name of the file, "-" for standard input.
        fingerprint: the SHA-256 of the file, as hexadecimal digits; "" while it is not known.
        arguments: the keyword arguments of its `FileSource`, which shape the rows.
        sdk_app_id: the app; 0 while it is not known.
        base_url: the URL of the app's service, "" while it is not known.
    """

    kind: str
    source: str
    fingerprint: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sdk_app_id: int = 0
    base_url: str = ""


@dataclass(slots=True)
class Claim:
    """A row to be sent.

    Attributes:
        row: the row.
        since: when it was claimed first, unix seconds; a row without a time of its own is marked read up to then.
        again: whether an earlier run claimed it and did not settle it, so that it may have been sent already.
        messages: how many messages its group holds; None when that is not known.
    """

    row: Row
    since: int
    again: bool = False
    messages: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a claimed row ended.

    Attributes:
        line: its line.
        state: ``DONE``, ``LOWERED`` or ``FAILED``.
        code: of a failed row, the service's code; None when there was none.
        reason: of a failed row, why; see `shortened`.
    """

    line: int
    state: State
    code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Calls:
    """The requests of one run.

    Attributes:
        sent: all of them.
        done: those that succeeded.
        refused: those over the rate.
        faults: those that failed otherwise.
        retried: those that were not the first of their call.
        again: rows that an earlier run may have sent already.
    """

    sent: int = 0
    done: int = 0
    refused: int = 0
    faults: int = 0
    retried: int = 0
    again: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """A rate that was set while a migration runs, by `tim-async migrate set`.

    Attributes:
        rate: calls/s that the service allows; None for unchanged.
        share: the share of it to use, above 0 and up to 1; None for unchanged.
    """

    rate: float | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """The answer to an exchange.

    Attributes:
        claims: rows to be sent.
        counts: all rows by state.
        over: whether no more rows will come: each is settled, or claimed by this run.  Without claims and without
            ``over``, rows are claimed by others, and may come back.
        held_by_others: rows that other workers have claimed.
        rejected: rows that turned out to be invalid only now; the store has counted them.
        pace: the pace that was set since the last exchange; None for none.
    """

    claims: list[Claim]
    counts: Counts
    over: bool
    held_by_others: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    pace: Pace | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A failed or rejected row.

    Attributes:
        line: its line.
        code: the service's code; None when there was none.
        reason: why, with the field at fault before it.
        fields: its values by field; of a rejected row, what was read of it.
    """

    line: int
    code: int | None
    reason: str
    fields: Mapping[str, Any]

    def to_document(self) -> dict[str, Any]:
        """The row as the rejected file holds it."""
        return {**self.fields, "Line": self.line, "Code": self.code, "Reason": self.reason}


@dataclass(frozen=True, slots=True)
class Mended:
    """What became of mended rows.

    Attributes:
        taken: rows that took their new values and are pending.
        superseded: rows that took their new values, and a later row is for the same member.
        rejected: rows that are still invalid.
        skipped: lines that need no mending: done or superseded already, or not of this migration.
        busy: lines that cannot be mended now, since an earlier row of the same member is being sent by another worker.
    """

    taken: int = 0
    superseded: int = 0
    rejected: int = 0
    skipped: tuple[int, ...] = ()
    busy: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Failed or rejected rows that have the code or the field in common.

    Attributes:
        code: the service's code; None when there was none.
        reason: that of the first of them.
        rows: how many.
        first_line: the first of them.
        rejected: whether they were never sent.
    """

    code: int | None
    reason: str
    rows: int
    first_line: int
    rejected: bool

    @property
    def meaning(self) -> str:
        """What the service says with the code, in a sentence; "" without a code that this library knows."""
        return code_of(self.code).meaning

    @property
    def remedy(self) -> str:
        """What to do about it, likewise."""
        return code_of(self.code).remedy


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a migration; of a fleet, all workers that ran at the same time.

    Attributes:
        started: when it began to send, unix seconds.
        ended: when it ended; None when it is running, or was killed.
        how: "done", "interrupted", "limit" or "failed"; "" when it is not known to have ended.
        series: its calls over time, saved every few seconds; None when they were not recorded.
        calls: its requests in all, saved with each outcome.
    """

    started: float
    ended: float | None
    how: str
    series: Series | None
    calls: Calls = Calls()


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that sends rows of a shared migration.

    Attributes:
        name: its host, its process and a random part.
        rows: rows whose outcome it was the first to report.
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
class Status:
    """A migration at one moment.

    Attributes:
        journal: where it is kept: a path, or a URL without its password.
        kind: the name of the kind of its rows.
        source: the file, "-" for standard input.
        arguments: what shapes its rows: the keyword arguments of its `FileSource`.
        sdk_app_id: the app; 0 while it is not known.
        base_url: the URL of the app's service.
        planned: whether all rows are known; False while the file is read.
        running: whether a run works on it at this moment.
        counts: the rows by state.
        failures: the failed and rejected rows by code or field, the most frequent first.
        sessions: the runs that sent something, in their order.
        workers: of a shared migration, all that have ever worked on it, those seen last first.
        name: of a shared migration, its name.
        rate: of a shared migration, outcomes a second over the last minute.
        missing: of a shared migration, rows that the store has lost.
    """

    journal: str
    kind: str
    source: str
    arguments: dict[str, Any]
    sdk_app_id: int
    base_url: str
    planned: bool
    running: bool
    counts: Counts
    failures: list[FailureCount]
    sessions: list[Session]
    workers: list[Worker] = field(default_factory=list)
    name: str = ""
    rate: float = 0.0
    missing: int = 0

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest of a shared migration takes at its present rate; None when nothing can be said."""
        if not self.counts.left:
            return 0.0
        return self.counts.left / self.rate if self.rate else None


@runtime_checkable
class Store(Protocol):
    """Keeps one migration.  All methods but `close` raise `JournalError` when the store fails.

    One run uses a store at a time, and one call is under way at a time; `keep` runs beside the others.
    """

    @property
    def name(self) -> str:
        """The path, or the URL without its password."""

    async def open(self, about: About, *, restart: bool = False) -> About | None:
        """Begin, or resume, a migration.

        Args:
            about: what it is of.
            restart: forget everything that the store knows of an earlier one.

        Returns:
            What the store holds, if its rows are planned already; None if they are to be planned.

        Raises:
            JournalMismatch: the store holds another migration.
            JournalInUse: another run uses it.
        """

    async def join(self, sdk_app_id: int, base_url: str) -> About | None:
        """Take part in a migration that somebody else planned, for an app.

        Returns:
            What the store holds; None when the run is to end before the rows are planned.

        Raises:
            JournalMismatch: the store holds the migration of another app.
        """

    async def plan(self, rows: Sequence[Row | Rejected]) -> None:
        """Add rows, by rising line, some thousands at a time."""

    async def planned(self, fingerprint: str) -> None:
        """Note that all rows are added, and what the SHA-256 of the file is; find those that are superseded."""

    async def mend(self, rows: Sequence[Row | Rejected]) -> Mended:
        """Give failed, rejected and pending rows new values, by their lines; each then becomes pending, or superseded.

        What holds for planned rows holds afterwards: of the rows of one member, the last is the one that is sent.
        """

    async def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        """Settle rows and claim others; durable when this returns.

        Args:
            outcomes: of rows that this run has claimed.
            room: claim at most so many rows.
            calls: the requests of this run so far.
        """

    async def counts(self) -> Counts:
        """How many rows are in which state."""

    async def failures(self) -> list[FailureCount]:
        """The failed and rejected rows by code or field, the most frequent first."""

    async def release(self, lines: Sequence[int]) -> None:
        """Give rows back that were claimed and not sent; this run does not claim them again."""

    async def save_series(self, series: str) -> None:
        """Save how the calls of this run went over time, as `Series.to_json` writes it."""

    async def keep(self) -> None:
        """Stay in touch while a run sends: renew what expires.  Returns only by cancellation or an error."""

    async def status(self) -> Status:
        """All there is to know but the rows, at one moment; may be called without `open`."""

    def problems(self) -> AsyncIterator[Problem]:
        """Each failed or rejected row, by line; may be called without `open`."""

    def accepted(self, after: int, most: int) -> AsyncIterator[Row]:
        """Rows in the state ``DONE``, by line, at most so many after a line; may be called without `open`."""

    async def set_pace(self, pace: Pace) -> None:
        """Set the pace of the runs under way; may be called without `open`."""

    async def note(self, name: str, value: str | None = None) -> str:
        """A text kept under a name, "" when there is none; with ``value``, keep that.  May be called without `open`."""

    def hurry(self) -> None:
        """Have `close` wait only briefly for a store that does not respond: the run is to end."""

    async def close(self, how: str = "") -> None:
        """End, however the run went; the rows that are still claimed are given back where others could take them.

        Args:
            how: how the run ended: "done", "interrupted", "limit" or "failed"; "" when nothing was sent.
        """


def differing(found: About, wanted: About) -> str:
    """What two sides have to agree on and do not, as what a journal is "of"; "" when they agree.

    Args:
        found: what the journal is of.
        wanted: what it should be of.  A fingerprint or an app that is not known agrees with any, and so does an
            argument that is not given.
    """
    differences = []
    if found.kind != wanted.kind:
        differences.append(f"of a migration of {found.kind!r}, and this is one of {wanted.kind!r}")
    if found.fingerprint and wanted.fingerprint and found.fingerprint != wanted.fingerprint:
        then, now = (side.fingerprint[:_DIGITS_SHOWN] for side in (found, wanted))
        if found.source != wanted.source:
            differences.append(f"of another file: {found.source} ({then}…), and this is {wanted.source} ({now}…)")
        else:
            differences.append(f"of an earlier content of {found.source}: its SHA-256 was {then}… and is {now}…")
    compared = {name: found.arguments.get(name) for name in wanted.arguments}
    if _named(compared) != _named(wanted.arguments):
        then, now = _named(compared), _named(wanted.arguments)
        differences.append(f"of other arguments: {then} then, {now} now")
    if found.sdk_app_id and wanted.sdk_app_id:
        if found.sdk_app_id != wanted.sdk_app_id:
            differences.append(f"of app {found.sdk_app_id}, and this is app {wanted.sdk_app_id}")
        if _place(found.base_url) != _place(wanted.base_url):
            differences.append(f"of the app at {found.base_url}, and this is the one at {wanted.base_url}")
    return "; and ".join(differences)


def mismatch(name: str, differences: str) -> JournalMismatch:
    """The error for a journal of another migration.

    Args:
        name: the store's name.
        differences: as `differing` gives them.
    """
    other = "--name" if is_url(name) else "--journal"
    return JournalMismatch(
        f"{name} is the journal {differences}.  Use --restart to start over, or another {other}; failed and rejected"
        " rows are corrected by --mended"
    )


def as_json(value: Any) -> str:
    """A value as text that is equal for equal values."""
    return json.dumps(value, sort_keys=True)


def _place(base_url: str) -> tuple[str | None, int | None, str] | str:
    """What two spellings of one base URL have in common: host, port and path."""
    try:
        parts = urlsplit(base_url)
        return parts.hostname, parts.port or _PORTS.get(parts.scheme), parts.path.rstrip("/")
    except ValueError:  # of a journal: a client's has been checked
        return base_url


def _named(arguments: Mapping[str, Any]) -> str:
    """Arguments as a message can hold them: those that say something."""
    values = {name: value for name, value in arguments.items() if value}
    return json.dumps(values, ensure_ascii=False, sort_keys=True) if values else "none"


def shortened(reason: str) -> str:
    """A reason as it is kept: not too long, and without what UTF-8 or a text of C cannot hold."""
    return reason.replace("\0", "\\x00").encode("utf-8", "backslashreplace")[:_LONGEST_REASON].decode("utf-8", "ignore")


def with_field(field_at_fault: str, reason: str) -> str:
    """A reason with the field at fault, if it is one field's."""
    return f"{field_at_fault}: {reason}" if field_at_fault else reason
