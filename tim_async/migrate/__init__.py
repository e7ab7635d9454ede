"""Migrations that survive anything: resumable, verifiable, nothing lost, nothing silently skipped.

::

    source = FileSource("export.csv", UNREAD)
    async with TIMClient.from_env() as tim, aclosing(run(tim, source, "export.csv.journal")) as events:
        async for event in events:
            ...

``tim-async migrate`` is this with a face.  `tim_async.migrate.streams` does it on many machines at once.  Each name is
imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tim_async._lazy import attach as _attach

if TYPE_CHECKING:
    from ._recorder import Recorder as Recorder
    from ._recorder import Series as Series
    from ._recorder import Slot as Slot
    from ._recorder import quantile as quantile
    from ._report import render as render
    from .errors import JournalError as JournalError
    from .errors import JournalInUse as JournalInUse
    from .errors import JournalMismatch as JournalMismatch
    from .errors import MigrateError as MigrateError
    from .errors import SourceError as SourceError
    from .events import Counts as Counts
    from .events import Ended as Ended
    from .events import Event as Event
    from .events import Finished as Finished
    from .events import Progress as Progress
    from .events import Reading as Reading
    from .events import Resumed as Resumed
    from .events import RowFailed as RowFailed
    from .events import RowLowered as RowLowered
    from .events import Started as Started
    from .events import Waiting as Waiting
    from .rejects import write_rejects as write_rejects
    from .rows import KINDS as KINDS
    from .rows import READ as READ
    from .rows import UNREAD as UNREAD
    from .rows import Kind as Kind
    from .rows import Rejected as Rejected
    from .rows import Row as Row
    from .runner import run as run
    from .schema import FailureCount as FailureCount
    from .sources import FileSource as FileSource
    from .sources import Source as Source
    from .status import Session as Session
    from .status import Status as Status
    from .status import read_status as read_status
    from .surveying import Survey as Survey
    from .surveying import survey as survey
    from .verifying import Difference as Difference
    from .verifying import Verified as Verified
    from .verifying import verify as verify

_HOME = {
    "Counts": "events",
    "Difference": "verifying",
    "Ended": "events",
    "Event": "events",
    "FailureCount": "schema",
    "FileSource": "sources",
    "Finished": "events",
    "JournalError": "errors",
    "JournalInUse": "errors",
    "JournalMismatch": "errors",
    "KINDS": "rows",
    "Kind": "rows",
    "MigrateError": "errors",
    "Progress": "events",
    "READ": "rows",
    "Reading": "events",
    "Recorder": "_recorder",
    "Rejected": "rows",
    "Resumed": "events",
    "Row": "rows",
    "RowFailed": "events",
    "RowLowered": "events",
    "Series": "_recorder",
    "Session": "status",
    "Slot": "_recorder",
    "Source": "sources",
    "SourceError": "errors",
    "Started": "events",
    "Status": "status",
    "Survey": "surveying",
    "UNREAD": "rows",
    "Verified": "verifying",
    "Waiting": "events",
    "quantile": "_recorder",
    "read_status": "status",
    "render": "_report",
    "run": "runner",
    "survey": "surveying",
    "verify": "verifying",
    "write_rejects": "rejects",
}

__all__ = list(_HOME)


if not TYPE_CHECKING:  # to a type checker, a name that is not above is a mistake
    __getattr__, __dir__ = _attach(__name__, _HOME)
