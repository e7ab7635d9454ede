"""SIGINT, SIGTERM and SIGHUP: the first asks for an orderly end, the second ends at once, and the end comes anyway.

::

    first signal ── GRACE ──> as after a second one ── CLOSE_TIMEOUT ──> the process ends, whatever it hangs in
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, Self, TypeVar

import click

from tim_async.cli.failures import INTERRUPTED
from tim_async.migrate._supervision import end, result_of

T = TypeVar("T")

GRACE = 5.0
"""Seconds in which what is under way may finish."""

CLOSE_TIMEOUT = 6.0
"""Seconds after that in which everything must have been closed: twice what a dead file system is waited for."""

_POLL_INTERVAL = 0.2
"""Seconds between two looks of the watchdog."""
_FORCED_EXIT = b"Interrupted; it did not end by itself.\n"


class StopRequest:
    """How a coroutine that can be stopped learns of it.

    Attributes:
        event: set when it is to end.
        begun: called then, in the event loop.
        cut: cancels the coroutine.
    """

    def __init__(self, cut: Callable[[], object]) -> None:
        self.event: asyncio.Event = asyncio.Event()
        self.on_request: Callable[[], object] = lambda: None
        self.cancel: Callable[[], object] = cut


def run_interruptibly(main: Callable[[StopRequest], Coroutine[Any, Any, T]]) -> T | None:
    """Run a coroutine in an event loop of its own, and have signals end it; to be called in the main thread.

    From the third signal on, signals do what they always did.

    Args:
        main: makes the coroutine; given what tells it of the first signal.

    Returns:
        Its result; None when it was cut short by a second signal, or because it did not end in time after the first.
    """
    with contextlib.ExitStack() as stack:
        # To the end of the command: what it prints last may hang, too.
        command = click.get_current_context(silent=True)
        watchdog = (stack.enter_context if command is None else command.with_resource)(_Watchdog())
        return asyncio.run(_run(main, watchdog))


async def _run(main: Callable[[StopRequest], Coroutine[Any, Any, T]], watchdog: _Watchdog) -> T | None:
    loop = asyncio.get_running_loop()
    asked, cut_short = 0, False
    failures: list[Exception] = []

    def cut() -> None:
        nonlocal cut_short
        cut_short = True
        running.cancel()

    def take() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            handlers.close()
            cut()
            return
        timers.callback(loop.call_later(GRACE, cut).cancel)
        stop.event.set()
        try:
            stop.on_request()
        except Exception as error:  # noqa: BLE001 - the loop calls this, and raises nothing to anybody
            failures.append(error)
            running.cancel()

    # Not the loop's own handlers: those wait for a loop that may be waiting for a pipe that nobody reads.
    def handle(_number: int, _frame: FrameType | None) -> None:
        watchdog.signalled()
        loop.call_soon_threadsafe(take)

    stop = StopRequest(cut)
    # Not by the loop's task factory: an eager task would begin before the signals are handled.
    running = asyncio.Task(main(stop))
    try:
        with contextlib.ExitStack() as timers, _signal_handlers(_stop_signals(), handle) as handlers:
            await asyncio.wait([running])
    finally:
        await end([running])
    if failures:
        raise failures[0]
    return None if cut_short and running.cancelled() else result_of(running)


def _stop_signals() -> list[signal.Signals]:
    """The signals that end a run; SIGHUP is left alone where it is ignored, as under nohup."""
    found = [signal.SIGTERM, signal.SIGINT]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


@contextlib.contextmanager
def _signal_handlers(
    numbers: list[signal.Signals], handle: Callable[[int, FrameType | None], object]
) -> Iterator[contextlib.ExitStack]:
    """Handle signals in the block, or until what is yielded is closed."""
    with contextlib.ExitStack() as handlers:
        for number in numbers:
            handlers.callback(signal.signal, number, signal.signal(number, handle))
        yield handlers


class _Watchdog:
    """Ends the process when a signal has not, `GRACE` + `CLOSE_TIMEOUT` seconds later; to be used with ``with``.

    A thread: the main one may hang in anything, such as a pipe that nobody reads.
    """

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._deadline = math.inf
        self._paused = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="tim-async-signals", daemon=True).start()
        _watchdogs.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _watchdogs.remove(self)
        self._ended.set()

    def signalled(self) -> None:
        """Note that a signal has come; called by its handler."""
        self._deadline = min(self._deadline, time.monotonic() + GRACE + CLOSE_TIMEOUT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let the block take its time; what comes after it has `CLOSE_TIMEOUT` seconds if a signal came before."""
        self._paused = True
        try:
            yield
        finally:
            if self._deadline < math.inf:
                self._deadline = time.monotonic() + CLOSE_TIMEOUT
            self._paused = False

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_INTERVAL):
            if not self._paused and time.monotonic() > self._deadline:
                # Unless nobody reads that either; Windows asks that of sockets only.
                if sys.platform != "win32" and select.select([], [2], [], 0)[1]:
                    os.write(2, _FORCED_EXIT)
                os._exit(INTERRUPTED)


_watchdogs: list[_Watchdog] = []
"""Those of this process, which is one at most unless a test runs several commands."""


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt in the block, as Ctrl-C does; for code outside an event loop.

    After a signal that came before it, the block may take its time.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with contextlib.ExitStack() as stack:
        for watchdog in _watchdogs:
            stack.enter_context(watchdog.paused())
        stack.enter_context(_signal_handlers([one for one in _stop_signals() if one is not signal.SIGINT], interrupt))
        yield
