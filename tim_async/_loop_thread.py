"""An async context manager in a thread of its own, for code that runs no event loop: the emulator, and a `Portal`.

anyio's blocking portal does this and more, but aiohttp does not bring anyio, and both work from a plain installation.
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
"""Seconds within which a context manager is entered and left, unless its thread is blocked."""


def require_sockets(what: str, *, loop: bool) -> None:
    """Make sure that a socket can be opened now and, if wanted, an event loop.

    Where it cannot, asyncio leaves a half-made loop behind, which warns and fails again as it is collected.

    Args:
        what: who needs them, for the error.
        loop: whether an event loop is to be made.

    Raises:
        RuntimeError: it cannot; the error names the cause and the remedy.
    """
    with contextlib.ExitStack() as opened:
        try:
            # The listener first: where a test suite blocks sockets, this one is refused before it is open.
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
                f"Where pytest-socket blocks them, mark the test with @pytest.mark.enable_socket, or replace "
                f"--disable-socket by --allow-hosts=127.0.0.1"
            ) from error


def threads_are_greenlets() -> bool:
    """Whether gevent or eventlet has replaced threads: all of them then see the one event loop that runs."""
    return threading.get_ident.__module__ != "_thread"


def _refuse_event_loop() -> None:
    """Make sure that no event loop runs in this thread, before one is made that could not even be closed."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("another one runs there")


class LoopThread:
    """Enters an async context manager in a thread with an event loop, and leaves it there.

    The thread is a daemon: a process that is killed before `leave` does not hang.

    Args:
        context: the context manager.
        what: what it is, for errors.
        name: the thread's.
        new_loop: makes its event loop: by default the standard library's under any policy, since uvloop hangs when it
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
        self._runs = False
        self._context = context
        self._what = what
        self._new_loop = new_loop
        self._entered: Future[None] = Future()
        self._leaving: Future[None] = Future()
        self._cause: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until it has entered the context manager.

        Raises:
            RuntimeError: sockets or a thread cannot be opened, or entering takes longer than `PATIENCE`.
            BaseException: entering raises it.
        """
        require_sockets(self._what, loop=True)
        try:
            self._start_thread()
            if not wait([self._entered], PATIENCE).done:
                raise self._blocked()
        except BaseException:
            self._let_go()  # it leaves as soon as it has entered
            raise
        if self._entered.exception() is not None:
            self._thread.join(PATIENCE)
        self._entered.result()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs in this process; after a fork, it does not in the child."""
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether it is the thread that asks."""
        return self._thread is threading.current_thread()

    def leave(self) -> None:
        """Leave the context manager and end the thread.

        Raises:
            RuntimeError: the thread has ended before, or does not end within `PATIENCE`.
        """
        ended = not self.is_alive
        self._let_go()
        self._thread.join(PATIENCE)
        if self.is_alive:
            raise self._blocked()
        if ended or self._cause is not None:
            cause = "" if self._cause is None else f": {self._cause!r}"
            raise RuntimeError(f"the event loop of {self._what} has ended{cause}") from self._cause

    def _let_go(self) -> None:
        with contextlib.suppress(InvalidStateError):  # done before, or cancelled as the loop ended
            self._leaving.set_result(None)

    def _start_thread(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:
            if self._thread.ident is not None:
                raise  # it has started, and a signal handler raised this in the wait for that
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
            elif isinstance(error, RuntimeError) and not self._runs:
                self._entered.set_exception(self._no_loop(error))
            else:
                self._entered.set_exception(error)

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        self.loop = self._new_loop()
        return self.loop

    async def _run(self) -> None:
        self._runs = True
        async with self._context:
            self._entered.set_result(None)
            await asyncio.wrap_future(self._leaving)

    def _no_loop(self, cause: RuntimeError) -> RuntimeError:
        # Before Python 3.12, the interpreters of a process share what asyncio knows of each thread's loop.
        remedy = ONE_LOOP if threads_are_greenlets() else f"run it in the main interpreter ({_MOD_WSGI})"
        error = RuntimeError(f"{self._what} cannot run an event loop in its thread: {cause}; {remedy}")
        error.__cause__ = cause
        return error

    def _blocked(self) -> RuntimeError:
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - the documented way to a stack
        where = "".join(traceback.format_stack(frame)) if frame is not None else ""
        return RuntimeError(f"the thread of {self._what} has not answered for {PATIENCE:g} s; it is at\n{where}")
