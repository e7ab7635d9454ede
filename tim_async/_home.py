"""The event loop that a client belongs to, and the error for its use in any other."""

from __future__ import annotations

import asyncio
import os
import threading

REMEDY = "make one client for each event loop, or use a tim_async.blocking.Portal in code that runs none"


class WrongLoop(RuntimeError):
    """A client was used outside its event loop: an error of the program, never the outcome of a row."""


class Home:
    """The event loop in which a client was opened: the one that runs in this thread.

    Raises:
        WrongLoop: no event loop runs in this thread.
    """

    def __init__(self) -> None:
        self._loop = _running_loop()
        self._thread = threading.current_thread().name
        self._process = os.getpid()

    @property
    def is_closed(self) -> bool:
        """Whether the loop is closed; the client can then only be closed from another one."""
        return self._loop.is_closed()

    def check(self) -> None:
        """Check that this loop runs in this thread.

        Raises:
            WrongLoop: another loop runs in this thread, or none; the error names both and the remedy.
        """
        loop = _running_loop()
        if loop is self._loop:
            return
        state = "closed" if self._loop.is_closed() else "running" if self._loop.is_running() else "not running"
        process = "" if os.getpid() == self._process else f" in process {self._process}, which this one was forked from"
        raise WrongLoop(
            f"the client belongs to the event loop {_named(self._loop)} of thread {self._thread!r}{process}, which is "
            f"{state}; this is the event loop {_named(loop)} of thread {threading.current_thread().name!r}: {REMEDY}"
        )


def _running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop that runs in this thread.

    Raises:
        WrongLoop: there is none; the error names the remedy.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise WrongLoop(f"no event loop runs in thread {threading.current_thread().name!r}: {REMEDY}") from None


def _named(loop: asyncio.AbstractEventLoop) -> str:
    return f"{type(loop).__name__} at {id(loop):#x}"
