"""``tim-async`` with one thing in it that fails, hangs or is cancelled: ``python -m tests.cli.faulty FAULT ARGS…``."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tim_async.cli import main
from tim_async.cli.migrate import ending, progress, signals
from tim_async.client import TIMClient
from tim_async.migrate import Recorder, Series, ledger, runner
from tim_async.migrate._sources import FileSource
from tim_async.migrate.journal import Journal
from tim_async.migrate.ledger import Ledger
from tim_async.migrate.outage import Patience
from tim_async.migrate.sending import Sender
from tim_async.migrate.telling import Telling

SAID = "this was injected"
HANGING = b"now it hangs\n"

Fault = Callable[..., Any]


def overflow(*_: Any, **__: Any) -> Any:
    raise OverflowError(SAID)


def type_error(*_: Any, **__: Any) -> Any:
    raise TypeError(SAID)


def no_memory(*_: Any, **__: Any) -> Any:
    raise MemoryError(SAID)


def disk_full(*_: Any, **__: Any) -> Any:
    raise OSError(28, SAID)


def leave(*_: Any, **__: Any) -> Any:
    raise SystemExit(SAID)


def stop_iteration(*_: Any, **__: Any) -> Any:
    raise StopIteration(SAID)


def hang(*_: Any, **__: Any) -> Any:
    os.write(2, HANGING)
    time.sleep(3600)


async def fails(*_: Any, **__: Any) -> Any:
    raise TypeError(SAID)


async def is_cancelled(*_: Any, **__: Any) -> Any:
    """A task that somebody has cancelled: not the run, and not whoever waits for it."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel(SAID)
    await asyncio.sleep(0)


def after(number: int, method: Any, fault: Fault) -> Fault:
    """Fail from the call of this number on, counted from 0."""
    calls = iter(range(sys.maxsize))

    def call(*args: Any, **kwargs: Any) -> Any:
        return (fault if next(calls) >= number else method)(*args, **kwargs)

    return call


def rows_then(fault: Fault, readings: int) -> Fault:
    """Have a source fail after its first row, in its reading of this number."""
    read = FileSource.read
    count = iter(range(sys.maxsize))

    def broken(self: FileSource) -> Iterator[Any]:
        rows = read(self)
        if next(count) < readings:
            return rows
        return cut(rows)

    def cut(rows: Iterator[Any]) -> Iterator[Any]:
        yield next(rows)
        fault()

    return broken


FAULTS: dict[str, tuple[Any, str, Any]] = {
    # Threads
    "the journal refuses a value": (Journal, "save", overflow),
    "the journal has a bug": (Journal, "save", after(3, Journal.save, type_error)),
    "the disk is full": (Journal, "save", disk_full),
    "no memory to save": (Journal, "save", no_memory),
    "the writer's thread is left": (Journal, "save", leave),
    "the writer's thread ends an iteration": (Journal, "save", stop_iteration),
    "the journal cannot be read": (Journal, "unsettled", type_error),
    "the journal cannot be counted": (Journal, "counts", type_error),
    "the journal has no sessions": (Journal, "begin_session", type_error),
    "the journal cannot be closed": (Journal, "close", type_error),
    "planning has a bug": (Journal, "plan", type_error),
    "the source has a bug while it is read": (FileSource, "read", rows_then(type_error, 0)),
    "the source has a bug while it is sent": (FileSource, "read", rows_then(type_error, 1)),
    "the source cannot be compared": (FileSource, "fingerprint", type_error),
    "no thread can be started": (threading.Thread, "start", no_memory),
    # Tasks
    "the series cannot be saved": (Series, "to_json", type_error),
    "the series cannot be kept": (Journal, "save_session", overflow),
    "the writer's task has a bug": (Ledger, "_gather", fails),
    "the writer's task is cancelled": (Ledger, "_gather", is_cancelled),
    "whoever heeds the stop fails": (runner._Run, "_heed", fails),
    "whoever heeds the stop is cancelled": (runner._Run, "_heed", is_cancelled),
    "the keeper is cancelled": (runner._Run, "_keep_series", is_cancelled),
    "the feeder fails": (Sender, "_feed", fails),
    "the feeder is cancelled": (Sender, "_feed", is_cancelled),
    "a worker fails": (Sender, "_work", fails),
    "a worker is cancelled": (Sender, "_work", is_cancelled),
    "the whole run is cancelled": (runner._Run, "_with_journal", is_cancelled),
    "a call has a bug": (TIMClient, "set_unread_msg_num", fails),
    "a call is cancelled": (TIMClient, "set_unread_msg_num", is_cancelled),
    "a look-up has a bug": (TIMClient, "call", fails),
    "a look-up is cancelled": (TIMClient, "call", is_cancelled),
    "patience has a bug": (Patience, "_answered", type_error),
    # What is called by others
    "counting has a bug": (Recorder, "_count", type_error),
    "telling of a row has a bug": (Telling, "row", fails),
    "telling has a bug": (Telling, "emit", type_error),
    "the display's clock is cancelled": (progress, "_tick", is_cancelled),
    "the rejected rows have a bug": (ending, "write_rejects", type_error),
}
"""What is replaced, and by what: everything a run does beside the one coroutine that is waited for."""

TEXT_FAULTS: dict[str, tuple[Any, str, Any]] = {
    "the display has a bug": (progress.Lines, "take", type_error),
    "the display's clock has a bug": (progress.Lines, "tick", type_error),
    "the summary has a bug": (ending, "counts_table", type_error),
}
"""The same of what is there without ``--json`` only."""

HANGS: dict[str, tuple[Any, str, Any]] = {
    "the journal": (Journal, "save", hang),
    "the journal, late": (Journal, "save", after(3, Journal.save, hang)),
    "the series": (Journal, "save_session", hang),
    "closing": (Journal, "close", hang),
    "opening": (Journal, "__init__", hang),
    "the source while it is read": (FileSource, "read", rows_then(hang, 0)),
    "the source while it is sent": (FileSource, "read", rows_then(hang, 1)),
    "the event loop": (progress.Lines, "take", hang),
}
"""What does not return, some of it only once a run is to end."""

IN_FULL = ("the journal", "the event loop")
"""Of these, those that are waited for as long as they really are."""


if __name__ == "__main__":
    fault = sys.argv.pop(1)
    # What is done every few seconds is done all the time.
    runner._SAVE_EVERY = progress.Lines.every = 0.05
    if fault in HANGS and fault not in IN_FULL:
        signals.GRACE, signals.LAST, ledger.PATIENCE = 0.2, 3.0, 0.2
    owner, name, replacement = (FAULTS | TEXT_FAULTS | HANGS)[fault]
    setattr(owner, name, replacement)
    sys.exit(main())
