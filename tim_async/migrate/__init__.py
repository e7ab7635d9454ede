"""Resumable, verifiable migrations, which lose no row and skip none silently.

::

    source = FileSource("export.csv", UNREAD)
    async with TIMClient.from_env() as tim, aclosing(run(tim, source, "export.csv.journal")) as events:
        async for event in events:
            ...

``tim-async migrate`` is this on the command line; `tim_async.migrate.streams` does it on many machines at once.  Each
name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tim_async._lazy import attach as _attach

if TYPE_CHECKING:
    from ._engine import run as run
    from ._journal import read_status as read_status
    from ._memory import MemoryStore as MemoryStore
    from ._notes import Notes as Notes
    from ._options import MigrateOptions as MigrateOptions
    from ._recorder import Recorder as Recorder
    from ._recorder import Series as Series
    from ._recorder import Slot as Slot
    from ._recorder import quantile as quantile
    from ._rejects import write_rejects as write_rejects
    from ._report import DryRun as DryRun
    from ._report import render as render
    from ._rows import KINDS as KINDS
    from ._rows import READ as READ
    from ._rows import UNREAD as UNREAD
    from ._rows import Kind as Kind
    from ._rows import Rejected as Rejected
    from ._rows import Row as Row
    from ._sources import FileSource as FileSource
    from ._sources import MendedSource as MendedSource
    from ._sources import Source as Source
    from ._sqlite import SqliteStore as SqliteStore
    from ._store import Calls as Calls
    from ._store import FailureCount as FailureCount
    from ._store import Pace as Pace
    from ._store import Session as Session
    from ._store import Status as Status
    from ._store import Store as Store
    from ._surveying import Survey as Survey
    from ._surveying import survey as survey
    from ._verifying import Difference as Difference
    from ._verifying import Verified as Verified
    from ._verifying import verify as verify
    from .errors import JournalError as JournalError
    from .errors import JournalInUse as JournalInUse
    from .errors import JournalMismatch as JournalMismatch
    from .errors import MigrateError as MigrateError
    from .errors import SourceError as SourceError
    from .errors import StoreMisconfigured as StoreMisconfigured
    from .events import Counts as Counts
    from .events import Ended as Ended
    from .events import Event as Event
    from .events import Finished as Finished
    from .events import MendedRows as MendedRows
    from .events import PaceChanged as PaceChanged
    from .events import Progress as Progress
    from .events import Reading as Reading
    from .events import Resumed as Resumed
    from .events import RowFailed as RowFailed
    from .events import RowLowered as RowLowered
    from .events import Started as Started
    from .events import Waiting as Waiting

_HOME = {
    "Calls": "_store",
    "Counts": "events",
    "Difference": "_verifying",
    "DryRun": "_report",
    "Ended": "events",
    "Event": "events",
    "FailureCount": "_store",
    "FileSource": "_sources",
    "Finished": "events",
    "JournalError": "errors",
    "JournalInUse": "errors",
    "JournalMismatch": "errors",
    "KINDS": "_rows",
    "Kind": "_rows",
    "MemoryStore": "_memory",
    "MendedRows": "events",
    "MendedSource": "_sources",
    "MigrateError": "errors",
    "MigrateOptions": "_options",
    "Notes": "_notes",
    "PaceChanged": "events",
    "Pace": "_store",
    "Progress": "events",
    "READ": "_rows",
    "Reading": "events",
    "Recorder": "_recorder",
    "Rejected": "_rows",
    "Resumed": "events",
    "Row": "_rows",
    "RowFailed": "events",
    "RowLowered": "events",
    "Series": "_recorder",
    "Session": "_store",
    "Slot": "_recorder",
    "Source": "_sources",
    "SourceError": "errors",
    "SqliteStore": "_sqlite",
    "Started": "events",
    "Status": "_store",
    "Store": "_store",
    "StoreMisconfigured": "errors",
    "Survey": "_surveying",
    "UNREAD": "_rows",
    "Verified": "_verifying",
    "Waiting": "events",
    "quantile": "_recorder",
    "read_status": "_journal",
    "render": "_report",
    "run": "_engine",
    "survey": "_surveying",
    "verify": "_verifying",
    "write_rejects": "_rejects",
}

if not TYPE_CHECKING:  # a type checker reads the imports above, and reports any other name
    __all__ = list(_HOME)  # mypy would read any but a literal list as empty
    __getattr__, __dir__ = _attach(__name__, _HOME)
