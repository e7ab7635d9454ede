"""The events of a migration, in the order in which a run yields them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from ._rows import Value


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of rows in each state.

    Attributes:
        pending: not sent yet.
        sending: in flight, or claimed by a run that was killed and may have sent them; those are sent again.
        done: accepted by the service.
        lowered: accepted, with a count above the group's number of messages, to which the service lowers it.
        failed: refused by the service, or of a group that ignores unread counts.
        rejected: invalid; never sent.
        superseded: never sent, because a later row is for the same member.
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
        """Failed and rejected rows."""
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
    """All rows are planned, and sending begins.

    Attributes:
        counts: the rows by state.
        resumed: whether an earlier run planned them.
    """

    counts: Counts
    resumed: bool


@dataclass(frozen=True, slots=True)
class RowFailed:
    """A row failed, or was found to be invalid.

    Attributes:
        line: its line in the file.
        values: its fields, in the order of its kind.
        code: the service's code; None when there was none.
        reason: why it failed.
    """

    line: int
    values: tuple[Value, ...]
    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class RowLowered:
    """A row was accepted with a count above its group's number of messages, to which the service lowers it.

    Attributes:
        line: its line in the file.
        values: its fields, in the order of its kind.
        messages: the group's number of messages.
    """

    line: int
    values: tuple[Value, ...]
    messages: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The run waits for the service, a store or other workers, and tries again every few seconds.

    Attributes:
        reason: the latest error, or the rows that are waited for.
        seconds: the length of the wait so far.
        until: the event that ends the wait.
    """

    reason: str
    seconds: float
    until: str = "the service is back"


@dataclass(frozen=True, slots=True)
class Resumed:
    """A wait is over.

    Attributes:
        seconds: its length.
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
        superseded: rows that will not be sent, because a later row is for the same member.
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
    """The reason for the end of a run."""

    DONE = "done"
    """All rows are settled."""
    NOTHING_TO_DO = "nothing to do"
    """All rows were settled before."""
    INTERRUPTED = "interrupted"
    """It was asked to stop."""
    LIMIT = "limit"
    """More errors, or a longer outage, than allowed."""
    ROW_LIMIT = "row limit"
    """The run sent as many rows as its ``limit``; others are left."""


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
