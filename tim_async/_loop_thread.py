"""An async context manager in its own thread, for code without an event loop: the emulator, and a `Portal`.

anyio's blocking portal does this and more, but anyio is no dependency of aiohttp, and both work without extras.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import AbstractAsyncContextManager

ONE_LOOP = "with gevent or eventlet, a process has one event loop, and so one portal or emulator"
_MOD_WSGI = "with mod_wsgi: WSGIApplicationGroup %{GLOBAL}"
PATIENCE = 10.0
"""Seconds within which the thread must enter or leave the context manager; otherwise it counts as blocked."""


def require_sockets(what: str, *, loop: bool) -> None:
    """Check that a socket can be opened now and, with ``loop``, an event loop.

    If it cannot, asyncio would leave a half-made loop behind, which warns and fails again when it is collected.

    Args:
        what: the name of the part that needs them, for the error.
        loop: whether an event loop is needed.

    Raises:
        RuntimeError: it cannot be opened; the error names the cause and the remedy.
    """
    with contextlib.ExitStack() as opened:
        try:
            # The listener first: if a test suite blocks sockets, it is refused before it is open.
            opened.enter_context(socket.socket())
            if loop:
                for end in socket.socketpair():
                    opened.enter_context(end)
                opened.enter_context(selectors.DefaultSelector())
        except OSError as error:
            raise RuntimeError(
                f"{what} cannot open sockets: {error}; close files that are not needed, or raise the limit of "
                f"open files (ulimit -n)"
            ) from error
        except Exception as error:
            raise RuntimeError(
                f"{what} cannot open sockets: {type(error).__name__}: {error} "
                f"If pytest-socket blocks them, mark the test with @pytest.mark.enable_socket, or replace "
                f"--disable-socket by --allow-hosts=127.0.0.1"
            ) from error


def threads_are_greenlets() -> bool:
    """Whether gevent or eventlet has replaced threads by greenlets, which all see the one event loop that runs."""
    return threading.get_ident.__module__ != "_thread"


def _refuse_event_loop() -> None:
    """Raise if an event loop runs in this thread: a second one could be made, but not even be closed."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("another one runs there")


class LoopThread:
    """A thread with an event loop that enters an async context manager, and leaves it.

    The thread is a daemon: a process that is killed before `leave` does not hang.

    Args:
        context: the context manager.
        what: a name for errors.
        name: the thread's name.
        new_loop: makes its event loop; by default the standard library's under any policy, because uvloop hangs when it
            is closed after a SystemExit.

    Attributes:
        loop: the event loop; None before it is made.
    """

    def __init__(
        self,
        context: AbstractAsyncContextManager[object],
        *,
        what: str,
        name: str,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._loop_runs = False
        self._context = context
        self._what = what
        self._new_loop = new_loop
        self._entered: Future[None] = Future()
        self._leave_requested: Future[None] = Future()
        self._cause: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until it has entered the context manager.

        Raises:
            RuntimeError: sockets or a thread cannot be opened, or entering takes longer than `PATIENCE`.
            BaseException: any exception of entering it.
        """
        require_sockets(self._what, loop=True)
        try:
            self._start_thread()
            if not wait([self._entered], PATIENCE).done:
                raise self._blocked()
        except BaseException:
            self._request_leave()  # it leaves as soon as it has entered
            raise
        if self._entered.exception() is not None:
            self._thread.join(PATIENCE)
        self._entered.result()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs in this process; False in a child after a fork."""
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether it is the calling thread."""
        return self._thread is threading.current_thread()

    def leave(self) -> None:
        """Leave the context manager and end the thread.

        Raises:
            RuntimeError: the thread had ended already, or does not end within `PATIENCE`.
        """
        ended = not self.is_alive
        self._request_leave()
        self._thread.join(PATIENCE)
        if self.is_alive:
            raise self._blocked()
        if ended or self._cause is not None:
            cause = "" if self._cause is None else f": {self._cause!r}"
            raise RuntimeError(f"the event loop of {self._what} has ended{cause}") from self._cause

    def _request_leave(self) -> None:
        with contextlib.suppress(InvalidStateError):  # requested before, or cancelled by the end of the loop
            self._leave_requested.set_result(None)

    def _start_thread(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:
            if self._thread.ident is not None:
                raise  # it has started: a signal handler raised this during the start
            text = str(error)
            remedy = "end threads or processes"
            if "shutdown" in text:
                remedy = "start it before the program ends"
            elif "sub" in text:
                remedy = f"run it in the main interpreter ({_MOD_WSGI})"
            raise RuntimeError(f"{self._what} cannot start a thread: {text}; {remedy}") from error

    def _main(self) -> None:
        try:
            _refuse_event_loop()
            with asyncio.Runner(loop_factory=self._make_loop) as runner:
                runner.run(self._run())
        except BaseException as error:  # noqa: BLE001 - raised in the threads that wait for this one
            if self._entered.done():
                self._cause = error
            elif isinstance(error, RuntimeError) and not self._loop_runs:
                self._entered.set_exception(self._no_loop(error))
            else:
                self._entered.set_exception(error)

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        self.loop = self._new_loop()
        return self.loop

    async def _run(self) -> None:
        self._loop_runs = True
        async with self._context:
            self._entered.set_result(None)
            await asyncio.wrap_future(self._leave_requested)

    def _no_loop(self, cause: RuntimeError) -> RuntimeError:
        # Before Python 3.12, the interpreters of a process share asyncio's record of each thread's running loop.
        remedy = ONE_LOOP if threads_are_greenlets() else f"run it in the main interpreter ({_MOD_WSGI})"
        error = RuntimeError(f"{self._what} cannot run an event loop in its thread: {cause}; {remedy}")
        error.__cause__ = cause
        return error

    def _blocked(self) -> RuntimeError:
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - the documented function for a stack
        where = "".join(traceback.format_stack(frame)) if frame is not None else ""
        return RuntimeError(f"the thread of {self._what} has not responded for {PATIENCE:g} s; it is at\n{where}")
