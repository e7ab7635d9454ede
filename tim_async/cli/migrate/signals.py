"""SIGINT, SIGTERM and SIGHUP: the first stops a run gracefully, the second at once, and a watchdog ends one that hangs.

::

    first signal ── grace ──> cancelled, as by a second signal ── CLOSE_TIMEOUT ──> the process exits
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
"""Seconds within which the calls in progress may finish."""

CLOSE_TIMEOUT = 6.0
"""Seconds after that within which everything must be closed: twice the wait for a dead file system."""

_POLL_INTERVAL = 0.2
"""Seconds between two checks of the watchdog."""
_FORCED_EXIT = b"Interrupted; exited because the command hung.\n"


def run_interruptibly(
    main: Callable[[asyncio.Event], Coroutine[Any, Any, T]], grace: Callable[[], float] = lambda: GRACE
) -> T | None:
    """Run a coroutine in a new event loop, and stop it on signals; call this in the main thread.

    From the third signal on, signals have their earlier handlers again.

    Args:
        main: makes the coroutine, given an event that the first signal sets: the coroutine is to end then.
        grace: returns the seconds that it has for that; it is called at the first signal.

    Returns:
        The result of the coroutine; None if it was cancelled by a second signal, or after the grace.
    """
    with contextlib.ExitStack() as stack:
        # Until the end of the command: its last output may hang, too.
        command = click.get_current_context(silent=True)
        watchdog = (stack.enter_context if command is None else command.with_resource)(_Watchdog())
        return asyncio.run(_run(main, grace, watchdog))


async def _run(
    main: Callable[[asyncio.Event], Coroutine[Any, Any, T]], grace: Callable[[], float], watchdog: _Watchdog
) -> T | None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    requests, cancelled = 0, False

    def cancel() -> None:
        nonlocal cancelled
        cancelled = True
        running.cancel()

    def request() -> None:
        nonlocal requests
        requests += 1
        if requests > 1:
            handlers.close()
            cancel()
            return
        loop.call_later(grace(), cancel)
        stop.set()

    # Not the loop's own handlers, which never run while the loop is blocked on a full pipe.
    def handle(_number: int, _frame: FrameType | None) -> None:
        watchdog.signalled()
        loop.call_soon_threadsafe(request)

    # Not by the loop's task factory: an eager task would start before the handlers are installed.
    running = asyncio.Task(main(stop))
    try:
        with _signal_handlers(_stop_signals(), handle) as handlers:
            await asyncio.wait([running])
    finally:
        await end([running])
    return None if cancelled and running.cancelled() else result_of(running)


def _stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a run; without SIGHUP where it is ignored, as under nohup."""
    found = [signal.SIGTERM, signal.SIGINT]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


@contextlib.contextmanager
def _signal_handlers(
    numbers: list[signal.Signals], handle: Callable[[int, FrameType | None], object]
) -> Iterator[contextlib.ExitStack]:
    """Handle signals within the block, or until the yielded stack is closed."""
    with contextlib.ExitStack() as handlers:
        for number in numbers:
            handlers.callback(signal.signal, number, signal.signal(number, handle))
        yield handlers


class _Watchdog:
    """A thread that ends a process still running `GRACE` + `CLOSE_TIMEOUT` seconds after a signal; a context manager.

    The main thread may hang, e.g. on a full pipe.
    """

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._deadline = math.inf

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="tim-async-signals", daemon=True).start()
        _watchdogs.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _watchdogs.remove(self)
        self._ended.set()

    def signalled(self) -> None:
        """Start the countdown; called by the signal handler."""
        self._deadline = min(self._deadline, time.monotonic() + GRACE + CLOSE_TIMEOUT)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Suspend the countdown within the block; it has `CLOSE_TIMEOUT` seconds left afterwards."""
        signalled, self._deadline = self._deadline < math.inf, math.inf
        try:
            yield
        finally:
            if signalled:
                self._deadline = time.monotonic() + CLOSE_TIMEOUT

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_INTERVAL):
            if time.monotonic() > self._deadline:
                # Only if standard error is writable; on Windows, select is for sockets only.
                if sys.platform != "win32" and select.select([], [2], [], 0)[1]:
                    os.write(2, _FORCED_EXIT)
                os._exit(INTERRUPTED)


_watchdogs: list[_Watchdog] = []
"""The active watchdogs of this process: one at most, except in tests."""


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt within the block, as Ctrl-C does; for code without an event loop.

    Suspends the watchdog of an earlier signal.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with contextlib.ExitStack() as stack:
        for watchdog in _watchdogs:
            stack.enter_context(watchdog.paused())
        stack.enter_context(_signal_handlers([one for one in _stop_signals() if one is not signal.SIGINT], interrupt))
        yield
