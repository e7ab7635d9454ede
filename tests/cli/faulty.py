"""``tim-async`` with an injected error, hang or cancellation: ``python -m tests.cli.faulty FAULT ARGS…``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tim_async.cli import main
from tim_async.cli.migrate import display, ending, signals
from tim_async.cli.migrate.tally import Tally
from tim_async.client import TIMClient
from tim_async.migrate import FileSource, Recorder, Series, _engine
from tim_async.migrate._breaker import CircuitBreaker
from tim_async.migrate._event_queue import EventQueue
from tim_async.migrate._executor import SerialExecutor
from tim_async.migrate._journal_writer import Writer
from tim_async.migrate._sending import Sender

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
    """Cancel the current task, as neither the run nor its caller does."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel(SAID)
    await asyncio.sleep(0)


def after(number: int, method: Any, fault: Fault) -> Fault:
    """Fail from the call with this number on, counted from 0."""
    calls = iter(range(sys.maxsize))

    def call(*args: Any, **kwargs: Any) -> Any:
        return (fault if next(calls) >= number else method)(*args, **kwargs)

    return call


def rows_then(fault: Fault) -> Fault:
    """Make a source fail after its first row."""
    read = FileSource.read

    def cut(self: FileSource) -> Iterator[Any]:
        with contextlib.closing(read(self)) as rows:  # type: ignore[type-var]  # a generator
            yield next(rows)
        fault()

    return cut


_exchange = Writer.exchange

FAULTS: dict[str, tuple[Any, str, Any]] = {
    # Threads
    "the journal refuses a value": (Writer, "exchange", overflow),
    "the journal has a bug": (Writer, "exchange", after(3, _exchange, type_error)),
    "the disk is full": (Writer, "exchange", disk_full),
    "no memory to save": (Writer, "exchange", no_memory),
    "the journal's thread is left": (Writer, "exchange", leave),
    "the journal's thread ends an iteration": (Writer, "exchange", stop_iteration),
    "the journal cannot be read": (Writer, "_read_ahead", type_error),
    "the journal has no sessions": (Writer, "save_session", type_error),
    "the journal cannot be closed": (Writer, "close", type_error),
    "planning has a bug": (Writer, "plan", type_error),
    "the source has a bug": (FileSource, "read", rows_then(type_error)),
    "the source cannot be compared": (FileSource, "fingerprint", type_error),
    "no thread can be started": (threading.Thread, "start", no_memory),
    # Tasks
    "the series cannot be saved": (Series, "to_json", type_error),
    "claiming fails": (Sender, "_exchange_all", fails),
    "claiming is cancelled": (Sender, "_exchange_all", is_cancelled),
    "gathering has a bug": (Sender, "_gather", fails),
    "the stop watcher fails": (_engine._Run, "_forward_stop", fails),
    "the stop watcher is cancelled": (_engine._Run, "_forward_stop", is_cancelled),
    "the series writer is cancelled": (_engine._Run, "_keep_series", is_cancelled),
    "admitting fails": (Sender, "_admit_all", fails),
    "admitting is cancelled": (Sender, "_admit_all", is_cancelled),
    "a worker fails": (Sender, "_work", fails),
    "a worker is cancelled": (Sender, "_work", is_cancelled),
    "the whole run is cancelled": (_engine._Run, "_migrate", is_cancelled),
    "a call has a bug": (TIMClient, "set_unread_msg_num", fails),
    "a call is cancelled": (TIMClient, "set_unread_msg_num", is_cancelled),
    "a look-up has a bug": (TIMClient, "call", fails),
    "a look-up is cancelled": (TIMClient, "call", is_cancelled),
    "the circuit breaker has a bug": (CircuitBreaker, "_answered", type_error),
    # Callbacks
    "counting has a bug": (Recorder, "_count", type_error),
    "a row's event has a bug": (EventQueue, "row", fails),
    "emitting has a bug": (EventQueue, "emit", type_error),
    "the display's clock is cancelled": (display.Display, "_keep_refreshing", is_cancelled),
    "the rejected rows have a bug": (ending, "write_rejects", type_error),
}
"""The function to replace, and its replacement, for everything that a run does outside of its main coroutine."""

TEXT_FAULTS: dict[str, tuple[Any, str, Any]] = {
    "the display has a bug": (Tally, "message", type_error),
    "the display's clock has a bug": (Tally, "line", type_error),
    "the summary has a bug": (ending, "counts_table", type_error),
}
"""The same for functions that only run without ``--json``."""

HANGS: dict[str, tuple[Any, str, Any]] = {
    "the journal": (Writer, "exchange", hang),
    "the journal, late": (Writer, "exchange", after(3, _exchange, hang)),
    "the series": (Writer, "save_session", hang),
    "closing": (Writer, "close", hang),
    "opening": (Writer, "open", hang),
    "the source": (FileSource, "read", rows_then(hang)),
    "the event loop": (Tally, "message", hang),
}
"""Functions that hang, some of them only when a run is to end."""

IN_FULL = ("the journal", "the event loop")
"""The ones of these that are tested with the real time-outs."""


if __name__ == "__main__":
    fault = sys.argv.pop(1)
    # Do constantly what is done every few seconds.
    _engine._SAVE_EVERY = display.LINE_INTERVAL = 0.05
    if fault in HANGS and fault not in IN_FULL:
        signals.GRACE, signals.CLOSE_TIMEOUT = 0.2, 3.0
        SerialExecutor.hurry.__defaults__ = (0.2,)
    owner, name, replacement = (FAULTS | TEXT_FAULTS | HANGS)[fault]
    setattr(owner, name, replacement)
    sys.exit(main())
