"""What loading tells, beside `Reading`, `Waiting` and `Resumed`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tim_async.migrate.events import Counts
from tim_async.migrate.schema import FailureCount


@dataclass(frozen=True, slots=True)
class Loading:
    """The file is read and checked, and its rows go to the stream.

    Attributes:
        loaded: rows that have been put on the stream, by this load and those before it.
        rows: all that are to be.
    """

    loaded: int
    rows: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """The last event of a load that was not stopped by an exception.

    Attributes:
        complete: whether every row is on the stream; False when the load was asked to stop.
        before: whether it was complete before.
        counts: the rows of the file, as the load saw them: those for the stream are ``pending``.
        loaded: rows that have been put on the stream.
        failures: the rejected rows by field.
        warning: why the store may lose them, "" when nothing speaks for that.
    """

    complete: bool
    before: bool
    counts: Counts
    loaded: int
    failures: list[FailureCount] = field(default_factory=list)
    warning: str = ""
