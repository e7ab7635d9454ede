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
        loop: the event loop; set when the context manager has been entered.

    Raises:
        RuntimeError: sockets or a thread cannot be opened, or entering takes longer than `PATIENCE`.
        BaseException: entering raises it.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        context: AbstractAsyncContextManager[object],
        *,
        what: str,
        name: str,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop,
    ) -> None:
        require_sockets(what, loop=True)
        self._context = context
        self._what = what
        self._new_loop = new_loop
        self._entered: Future[None] = Future()
        self._leaving: Future[None] = Future()
        self._cause: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise RuntimeError(f"{what} cannot start a thread: {error}; end threads or processes") from error
        try:
            if not wait([self._entered], PATIENCE).done:
                raise self._blocked()
        except BaseException:
            self._leaving.set_result(None)  # it leaves as soon as it has entered
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
        with contextlib.suppress(InvalidStateError):  # cancelled, as the loop ends
            self._leaving.set_result(None)
        self._thread.join(PATIENCE)
        if self.is_alive:
            raise self._blocked()
        if ended or self._cause is not None:
            cause = "" if self._cause is None else f": {self._cause!r}"
            raise RuntimeError(f"the event loop of {self._what} has ended{cause}") from self._cause

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._new_loop) as runner:
                runner.run(self._run())
        except BaseException as error:  # noqa: BLE001 - raised in the threads that wait for this one
            if self._entered.done():
                self._cause = error
            else:
                self._entered.set_exception(error)

    async def _run(self) -> None:
        async with self._context:
            self.loop = asyncio.get_running_loop()
            self._entered.set_result(None)
            await asyncio.wrap_future(self._leaving)

    def _blocked(self) -> RuntimeError:
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - the documented way to a stack
        where = "".join(traceback.format_stack(frame)) if frame is not None else ""
        return RuntimeError(f"the thread of {self._what} has not answered for {PATIENCE:g} s; it is at\n{where}")
