"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second for one at once, and the end comes in any case.

::

    first signal ── GRACE ──> as after a second one ── LAST ──> the process ends, whatever it hangs in
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Self, TypeVar

import click

from tim_async.cli.failures import INTERRUPTED
from tim_async.migrate.supervision import end, result_of

T = TypeVar("T")

GRACE = 5.0
"""Seconds in which what is under way may finish."""

LAST = 6.0
"""Seconds after that in which everything must have been put away: twice what a dead file system is waited for."""

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_LAST_WORD = b"Interrupted; it did not end by itself.\n"


class Stopping:
    """How a course that can be stopped learns of it.

    Attributes:
        event: set when it is to end.
        begun: called then, in the event loop.
    """

    def __init__(self) -> None:
        self.event: asyncio.Event = asyncio.Event()
        self.begun: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Ask for the end."""
        self.event.set()
        self.begun()


def run_stoppable(course: Callable[[Stopping], Coroutine[Any, Any, T]]) -> T | None:
    """Run a coroutine in an event loop of its own, and have signals end it.

    To be called in the main thread.

    Args:
        course: makes the coroutine; given what tells it of the first signal.

    Returns:
        Its result; None when it was cut short by a second signal, or because it did not end in time after the first.
    """
    with contextlib.ExitStack() as stack:
        # To the end of the command: what it prints last may hang, too.
        command = click.get_current_context(silent=True)
        watchdog = (stack.enter_context if command is None else command.with_resource)(_Watchdog())
        return asyncio.run(_run(course, watchdog.asked))


async def _run(course: Callable[[Stopping], Coroutine[Any, Any, T]], asked: Callable[[], object]) -> T | None:
    stopping = Stopping()
    # Not by the loop's task factory: an eager task would begin before the signals are handled.
    running = asyncio.Task(course(stopping))
    cut_short = False
    failures: list[Exception] = []

    def cut() -> None:
        nonlocal cut_short
        cut_short = True
        running.cancel()

    def begin() -> None:
        try:
            stopping.begin()
        except Exception as error:  # noqa: BLE001 - nobody calls this who could be told
            failures.append(error)
            running.cancel()

    try:
        with stop_signals(begin, cut, asked):
            await asyncio.wait([running])
    finally:
        await end([running])
    if failures:
        raise failures[0]
    return None if cut_short and running.cancelled() else result_of(running)


@contextlib.contextmanager
def stop_signals(
    first: Callable[[], None], second: Callable[[], None], asked: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Have signals end what runs in the block: SIGINT, which is Ctrl-C, and SIGTERM alike.

    To be entered in a running loop of the main thread.  From the third signal on they do what they always did.

    Args:
        first: called in the loop at the first signal; it should ask for an orderly end.
        second: called in the loop at the next, or after `GRACE`; it should see to an end at once.
        asked: called at each signal, whatever the loop is doing.
    """
    loop = asyncio.get_running_loop()
    count = 0
    timers = contextlib.ExitStack()

    def take() -> None:
        nonlocal count
        count += 1
        if count == 1:
            timers.callback(loop.call_later(GRACE, second).cancel)
            first()
        else:
            handlers.close()
            second()

    # Not the loop's own handlers: those wait for a loop that may be waiting for a pipe that nobody reads.
    def signalled(_number: int, _frame: FrameType | None) -> None:
        asked()
        loop.call_soon_threadsafe(take)

    with timers, contextlib.ExitStack() as handlers:
        for number in _NUMBERS:
            handlers.callback(signal.signal, number, signal.signal(number, signalled))
        yield


class _Watchdog:
    """Ends the process when a signal has not, `GRACE` + `LAST` seconds later; to be used with ``with``.

    A thread: the main one may hang in anything, such as a pipe that nobody reads.
    """

    def __init__(self) -> None:
        self._told: SimpleQueue[str] = SimpleQueue()  # whose put() may be called in a signal's handler

    def __enter__(self) -> Self:
        _watchdogs.append(self)
        threading.Thread(target=self._watch, name="tim-async-signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        _watchdogs.remove(self)
        self._told.put("end")

    def asked(self) -> None:
        """Note that a signal has come."""
        self._told.put("asked")

    def pause(self) -> None:
        """Let what is done now take its time."""
        self._told.put("pause")

    def resume(self) -> None:
        """Go on; what is left has `LAST` seconds if a signal came before."""
        self._told.put("resume")

    def _watch(self) -> None:
        deadline: float | None = None
        paused = False
        while True:
            try:
                left = None if deadline is None or paused else max(0.0, deadline - time.monotonic())
                message = self._told.get(timeout=left)
            except Empty:
                # Unless nobody reads that either; Windows asks that of sockets only.
                if sys.platform != "win32" and select.select([], [2], [], 0)[1]:
                    os.write(2, _LAST_WORD)
                os._exit(INTERRUPTED)
            if message == "end":
                return
            if message == "asked" and deadline is None:
                deadline = time.monotonic() + GRACE + LAST
            elif message == "resume" and deadline is not None:
                deadline = time.monotonic() + LAST
            paused = message == "pause" or (paused and message != "resume")


_watchdogs: list[_Watchdog] = []
"""Those of this process, which is one at most unless a test runs several commands."""


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Have SIGTERM raise KeyboardInterrupt in the block, as Ctrl-C does; for code outside an event loop.

    After a signal that came before it, the block may take its time.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    for watchdog in _watchdogs:
        watchdog.pause()
    try:
        yield
    finally:
        for watchdog in _watchdogs:
            watchdog.resume()
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def interruptible() -> Iterator[contextlib.AbstractContextManager[None]]:
    """Hold SIGINT and SIGTERM back in the block, but for the part of it that is within what is yielded.

    There they raise KeyboardInterrupt, also those that came before.  For code outside an event loop, whose parts must
    not be interrupted while they are made.
    """
    noted = within = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal noted
        noted = True
        if within:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def part() -> Iterator[None]:
        nonlocal within
        within = True
        try:
            if noted:
                raise KeyboardInterrupt
            yield
        finally:
            within = False

    before = [(number, signal.signal(number, interrupt)) for number in _NUMBERS]
    try:
        yield part()
        if noted:
            raise KeyboardInterrupt
    finally:
        for number, handler in before:
            signal.signal(number, handler)
