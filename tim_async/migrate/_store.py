"""The `Store` protocol, which keeps the rows of a migration and their outcomes, and the values passed through it.

::

    open ──> plan* ──> planned ──> exchange* ──> close
       └──────────────────┴──> mend

A store holds the values of every row, and identifies a row by its line in the file.  Rows are *planned* once: all are
added, and of the rows of one member all but the last become superseded.  Then a run *exchanges* outcomes for claims:
the outcomes of finished rows go in, rows to be sent come out, in one step.  A claim is durable before `exchange`
returns, so that after a kill only claimed rows may be sent a second time.

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
"""Digits of a fingerprint shown in a message."""
_LONGEST_REASON = 300
"""Bytes kept of a reason: with hundreds of thousands of failures, reasons fill most of the store."""


class RowState(enum.IntEnum):
    """The state of a row.  A pending row that is claimed counts as ``sending``."""

    PENDING = 0
    """Not settled yet."""
    DONE = 1
    """Accepted by the service."""
    LOWERED = 2
    """Accepted, with a count above the group's number of messages, to which the service lowers it."""
    FAILED = 3
    """Refused by the service, or its group ignores unread counts."""
    REJECTED = 4
    """Invalid, never sent."""
    SUPERSEDED = 5
    """Never sent: a later row is for the same member."""


@dataclass(frozen=True, slots=True)
class About:
    """The identity of a migration: its source and its app.

    Attributes:
        kind: the name of the kind of its rows.
        source: the name of the file, "-" for standard input.
        fingerprint: the SHA-256 of the file, as hexadecimal digits; "" while unknown.
        arguments: the keyword arguments of its `FileSource`, which determine the rows.
        sdk_app_id: the app; 0 while unknown.
        base_url: the URL of the app's service, "" while unknown.
    """

    kind: str
    source: str
    fingerprint: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sdk_app_id: int = 0
    base_url: str = ""


@dataclass(slots=True)
class Claim:
    """A claimed row, to be sent.

    Attributes:
        row: the row.
        since: the time of its first claim, unix seconds; a row without a time of its own is marked read up to it.
        again: whether an earlier run claimed it and did not settle it, so that it may have been sent already.
        messages: the number of messages in its group; None when unknown.
    """

    row: Row
    since: int
    again: bool = False
    messages: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a claimed row.

    Attributes:
        line: its line.
        state: ``DONE``, ``LOWERED`` or ``FAILED``.
        code: of a failed row, the service's code; None when there was none.
        reason: of a failed row, why it failed; see `shortened`.
    """

    line: int
    state: RowState
    code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Calls:
    """The numbers of requests of one run.

    Attributes:
        sent: all requests.
        done: those that succeeded.
        refused: those over the rate.
        faults: those that failed otherwise.
        retried: those that were not the first of their call.
        again: rows sent that an earlier run may have sent already.
    """

    sent: int = 0
    done: int = 0
    refused: int = 0
    faults: int = 0
    retried: int = 0
    again: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """A rate or a share set during a run, by `tim-async migrate set`.

    Attributes:
        rate: calls/s that the service allows; None for unchanged.
        share: the share of it to use, above 0 and up to 1; None for unchanged.
    """

    rate: float | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """The result of an exchange.

    Attributes:
        claims: rows to be sent.
        counts: all rows by state.
        exhausted: whether no more rows will come: each is settled, or claimed by this run.  If False and without
            claims, other workers have claimed rows, and may give them back.
        rejected: rows found to be invalid in this exchange; the store has counted them.
        pace: the pace that was set since the last exchange; None for none.
    """

    claims: list[Claim]
    counts: Counts
    exhausted: bool
    rejected: list[Rejected] = field(default_factory=list)
    pace: Pace | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A failed or rejected row.

    Attributes:
        line: its line.
        code: the service's code; None when there was none.
        reason: why it failed or was rejected, after the name of the field at fault.
        fields: its values by field; of a rejected row, those that could be read.
    """

    line: int
    code: int | None
    reason: str
    fields: Mapping[str, Any]

    def to_document(self) -> dict[str, Any]:
        """Return the row as the rejected file holds it."""
        return {**self.fields, "Line": self.line, "Code": self.code, "Reason": self.reason}


@dataclass(frozen=True, slots=True)
class Mended:
    """The result of a mend.

    Attributes:
        taken: rows that have their new values and are pending.
        superseded: rows that have their new values, and a later row is for the same member.
        rejected: rows that are still invalid.
        skipped: lines that need no mending: done or superseded already, or not of this migration.
        busy: lines that cannot be mended yet: another worker is sending them, or an earlier row of the same member.
    """

    taken: int = 0
    superseded: int = 0
    rejected: int = 0
    skipped: tuple[int, ...] = ()
    busy: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FailureCount:
    """The failed or rejected rows with the same code or field at fault.

    Attributes:
        code: the service's code; None when there was none.
        reason: the reason of the first row.
        rows: the number of rows.
        first_line: the line of the first row.
        rejected: whether they were never sent.
    """

    code: int | None
    reason: str
    rows: int
    first_line: int
    rejected: bool

    @property
    def meaning(self) -> str:
        """The meaning of the code, a sentence; "" without a code that this library knows."""
        return code_of(self.code).meaning

    @property
    def remedy(self) -> str:
        """The remedy for the code, likewise."""
        return code_of(self.code).remedy


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a migration; of a fleet, all workers that ran at the same time.

    Attributes:
        started: the time when it began to send, unix seconds.
        ended: the time of its end; None when it is running, or was killed.
        how: its end: "done", "interrupted", "limit" or "failed"; "" when none was recorded.
        series: its calls over time, saved every few seconds; None when they were not recorded.
        calls: the totals of its requests, saved with each outcome.
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
        started: the time of its start, unix seconds by its own clock.
        how: its end: "done", "interrupted", "limit", "failed" or "nothing_to_do"; "" when none was recorded.
        working: whether it seems to work: it has not ended, and its lease has not expired.
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
        journal: its store: a path, or a URL without its password.
        kind: the name of the kind of its rows.
        source: the file, "-" for standard input.
        arguments: the keyword arguments of its `FileSource`, which determine the rows.
        sdk_app_id: the app; 0 while unknown.
        base_url: the URL of the app's service.
        planned: whether all rows are known; False while the file is read.
        running: whether a run works on it at this moment.
        counts: the rows by state.
        failures: the failed and rejected rows by code or field, the most frequent first.
        sessions: the runs that sent something, in their order.
        workers: of a shared migration, all workers it has had, the most recently seen first.
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
        """Seconds left of a shared migration at its present rate; None when unknown."""
        if not self.counts.left:
            return 0.0
        return self.counts.left / self.rate if self.rate else None


@runtime_checkable
class Store(Protocol):
    """Keeps one migration.  All methods but `close` raise `JournalError` when the store fails.

    One run uses a store at a time, and makes one call at a time, apart from `keep`.
    """

    @property
    def name(self) -> str:
        """The path, or the URL without its password."""

    async def open(self, about: About, *, restart: bool = False) -> About | None:
        """Begin, or resume, a migration.

        Args:
            about: its identity.
            restart: erase an earlier migration first.

        Returns:
            The identity of the migration in the store, if its rows are planned; None if they are to be planned.

        Raises:
            JournalMismatch: the store holds another migration.
            JournalInUse: another run uses it.
        """

    async def plan(self, rows: Sequence[Row | Rejected]) -> None:
        """Add rows in ascending order of line, some thousands at a time."""

    async def planned(self, fingerprint: str) -> None:
        """Record that all rows are added, and the SHA-256 of the file; mark the superseded rows."""

    async def mend(self, rows: Sequence[Row | Rejected]) -> Mended:
        """Give failed, rejected and pending rows new values, by their lines; each then becomes pending, or superseded.

        Afterwards as before, only the last row of each member is sent.
        """

    async def exchange(self, outcomes: Sequence[Outcome], room: int, calls: Calls) -> Exchange:
        """Settle rows and claim others; durable when this returns.

        Args:
            outcomes: the outcomes of rows that this run has claimed.
            room: the maximum number of rows to claim.
            calls: the requests of this run so far.
        """

    async def counts(self) -> Counts:
        """Return the number of rows in each state."""

    async def release(self, lines: Sequence[int]) -> None:
        """Give back claimed rows that were not sent; this run does not claim them again."""

    async def save_series(self, series: str) -> None:
        """Save the calls of this run over time, as written by `Series.to_json`."""

    async def keep(self) -> None:
        """Renew leases, if there are any, while a run sends.  Returns only by cancellation or an error."""

    async def status(self) -> Status:
        """Return everything but the rows, as of one moment; may be called without `open`."""

    def problems(self) -> AsyncIterator[Problem]:
        """Yield each failed or rejected row, by line; may be called without `open`."""

    def accepted(self, after: int, most: int) -> AsyncIterator[Row]:
        """Yield rows in the state ``DONE``, by line, at most ``most`` after a line; may be called without `open`."""

    async def set_pace(self, pace: Pace) -> None:
        """Set the pace of the current runs; may be called without `open`."""

    async def note(self, name: str, value: str | None = None) -> str:
        """Return a text by its name, "" when there is none; store ``value`` first.  May be called without `open`."""

    def hurry(self) -> None:
        """Make `close` wait only briefly for a store that does not respond: the run is to end."""

    async def close(self, how: str = "") -> None:
        """Close the store; give back rows that are still claimed, where other workers could take them.

        Args:
            how: the end of the run: "done", "interrupted", "limit" or "failed"; "" when nothing was sent.
        """


def about_from(values: Mapping[str, Any]) -> About:
    """Return the identity of a migration from its fields, as a store has kept them.

    Raises:
        KeyError, TypeError: a field is missing or invalid.
    """
    about = About(**{name: values[name] for name in About.__slots__})
    if not (
        all(isinstance(text, str) for text in (about.kind, about.source, about.fingerprint, about.base_url))
        and isinstance(about.arguments, dict)
        and isinstance(about.sdk_app_id, int)
        and 0 <= about.sdk_app_id < 2**63
    ):
        raise TypeError("it does not identify a migration")
    return about


def differing(found: About, wanted: About) -> str:
    """Return the differences between two migrations, as the end of a sentence "it is the journal …"; "" for none.

    Args:
        found: the migration in the journal.
        wanted: the expected one.  An unknown fingerprint or app matches any, and so does an argument that is not given.
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
    then = _as_text({name: found.arguments.get(name) for name in wanted.arguments})
    now = _as_text(wanted.arguments)
    if then != now:
        differences.append(f"of other arguments: {then} then, {now} now")
    if found.sdk_app_id and wanted.sdk_app_id:
        if found.sdk_app_id != wanted.sdk_app_id:
            differences.append(f"of app {found.sdk_app_id}, and this is app {wanted.sdk_app_id}")
        if _normalized(found.base_url) != _normalized(wanted.base_url):
            differences.append(f"of the app at {found.base_url}, and this is the one at {wanted.base_url}")
    return "; and ".join(differences)


def mismatch(name: str, differences: str) -> JournalMismatch:
    """Return the error for a journal of another migration.

    Args:
        name: the store's name.
        differences: as `differing` returns them.
    """
    other = "--name" if is_url(name) else "--journal"
    return JournalMismatch(
        f"{name} is the journal {differences}.  Use --restart to start over, or another {other}; failed and rejected"
        " rows are corrected by --mended"
    )


def as_json(value: Any) -> str:
    """Return a value as JSON, equal for equal values, in ASCII: the name of a file may be invalid UTF-8."""
    return json.dumps(value, sort_keys=True)


def _normalized(base_url: str) -> tuple[str | None, int | None, str] | str:
    """Return the host, the port and the path of a base URL, however it is spelled."""
    try:
        parts = urlsplit(base_url)
        return parts.hostname, parts.port or _PORTS.get(parts.scheme), parts.path.rstrip("/")
    except ValueError:  # from a journal: a client's URL is valid
        return base_url


def _as_text(arguments: Mapping[str, Any]) -> str:
    """Return arguments as a message shows them, without empty ones."""
    values = {name: value for name, value in arguments.items() if value}
    return json.dumps(values, ensure_ascii=False, sort_keys=True) if values else "none"


def shortened(reason: str) -> str:
    """Return a reason as it is kept: of limited length, with NUL and everything that UTF-8 cannot encode escaped."""
    return reason.replace("\0", "\\x00").encode("utf-8", "backslashreplace")[:_LONGEST_REASON].decode("utf-8", "ignore")


def with_field(field_at_fault: str, reason: str) -> str:
    """Return a reason after the name of the field at fault, if there is one."""
    return f"{field_at_fault}: {reason}" if field_at_fault else reason
