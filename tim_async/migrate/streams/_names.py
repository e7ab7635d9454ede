"""The events, results and exceptions of `tim_async.migrate.streams`, most of them also in `tim_async.migrate`."""

from __future__ import annotations

from dataclasses import dataclass, field

from tim_async.migrate import _store, errors, events

Fleet = _store.Status
Loading = events.Reading
StoreError = errors.JournalError
StreamMismatch = errors.JournalMismatch
Worker = _store.Worker


@dataclass(frozen=True, slots=True)
class Loaded:
    """The last event of a load that was not ended by an exception.

    Attributes:
        complete: whether all rows are loaded; False when the load was asked to stop.
        before: whether they had been loaded before.
        counts: the rows by state.
        failures: the failed and rejected rows by code or field.
        warning: why the store may lose rows; "" when no reason is known.
    """

    complete: bool
    before: bool
    counts: events.Counts
    failures: list[_store.FailureCount] = field(default_factory=list)
    warning: str = ""
