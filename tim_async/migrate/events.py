"""The events of a migration, in the order in which a run yields them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from ._rows import Value


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows are in which state.

    Attributes:
        pending: not sent yet.
        sending: under way, or claimed by a run that was killed, so that they may have been sent; they are sent again.
        done: accepted by the service.
        lowered: done, with a number above the group's messages, which the service lowers to that.
        failed: refused by the service, or their group ignores unread counts.
        rejected: invalid; never sent.
        superseded: a later row is for the same member; never sent.
    """

    pending: int = 0
    sending: int = 0
    done: int = 0
    lowered: int = 0
    failed: int = 0
    rejected: int = 0
    superseded: int = 0

    @property
    def total(self) -> int:
        """All rows."""
        return self.left + self.settled

    @property
    def left(self) -> int:
        """Rows that are not settled."""
        return self.pending + self.sending

    @property
    def settled(self) -> int:
        """Rows that are settled."""
        return self.done + self.lowered + self.failed + self.rejected + self.superseded

    @property
    def taken(self) -> int:
        """Rows that the service accepted."""
        return self.done + self.lowered

    @property
    def errors(self) -> int:
        """Rows that will not arrive: failed or rejected."""
        return self.failed + self.rejected


@dataclass(frozen=True, slots=True)
class Reading:
    """The file is being read and checked; nothing is sent yet.

    Attributes:
        rows: rows read so far.
    """

    rows: int


@dataclass(frozen=True, slots=True)
class Started:
    """All rows are known, and sending begins.

    Attributes:
        counts: the rows by state.
        resumed: whether the journal is of an earlier run.
    """

    counts: Counts
    resumed: bool


@dataclass(frozen=True, slots=True)
class RowFailed:
    """One row will not arrive.

    Attributes:
        line: where it is in the file.
        values: its fields, in the order of its kind.
        code: the service's code; None when there was none.
        reason: why.
    """

    line: int
    values: tuple[Value, ...]
    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class RowLowered:
    """One row was accepted with a number above its group's messages, which the service lowers to that.

    Attributes:
        line: where it is in the file.
        values: its fields, in the order of its kind.
        messages: how many messages the group has.
    """

    line: int
    values: tuple[Value, ...]
    messages: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The service accepts nothing at present; the migration waits, and tries again every few seconds.

    Attributes:
        reason: the latest error.
        seconds: how long that has lasted.
        until: the event that ends the wait.
    """

    reason: str
    seconds: float
    until: str = "the service is back"


@dataclass(frozen=True, slots=True)
class Resumed:
    """The wait is over: the service, or whatever was waited for, is back.

    Attributes:
        seconds: how long it lasted.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress so far.

    Attributes:
        counts: the rows by state.
    """

    counts: Counts


@dataclass(frozen=True, slots=True)
class MendedRows:
    """Corrected rows took the places of failed and rejected ones.

    Attributes:
        taken: rows that will be sent.
        superseded: rows for whose member a later row exists; they are not sent.
        rejected: rows that are still invalid.
        skipped: lines that need no correction: done or superseded already, or not of this migration.
    """

    taken: int
    superseded: int
    rejected: int
    skipped: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PaceChanged:
    """The pace was changed during the run.

    Attributes:
        rate: calls/s that the service allows.
        share: the share of it to use.
    """

    rate: float
    share: float


class Ended(enum.Enum):
    """Why a run ended."""

    DONE = "done"
    """All rows are settled."""
    NOTHING_TO_DO = "nothing to do"
    """All rows were settled before."""
    INTERRUPTED = "interrupted"
    """It was asked to stop."""
    LIMIT = "limit"
    """More errors, or a longer outage, than allowed."""
    ROW_LIMIT = "row limit"
    """As many rows were sent as this run was to send; others are left."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a run that was not stopped by an exception.

    Attributes:
        counts: the rows by state.
        ended: why it ended.
        failures: the number of failed and rejected rows by code; None stands for those without one.
        reason: the limit that was reached, "" for any other end.
    """

    counts: Counts
    ended: Ended
    failures: dict[int | None, int] = field(default_factory=dict)
    reason: str = ""


Event = Reading | MendedRows | Started | RowFailed | RowLowered | Waiting | Resumed | PaceChanged | Progress | Finished
