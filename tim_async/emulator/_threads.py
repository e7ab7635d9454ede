"""An event loop in a thread of its own, for code that has none.

anyio's blocking portal does this and more, but aiohttp does not bring anyio, and the emulator works from a plain
installation.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import sys
import threading
import traceback
from collections.abc import Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds within which the emulator starts and stops, unless its thread is blocked."""


def require_sockets() -> None:
    """Make sure that an event loop and a server can be opened now.

    asyncio leaves a half-made loop behind where they cannot, which warns, and fails again, as it is collected.

    Raises:
        RuntimeError: they cannot; it names the cause and the remedy.
    """
    with contextlib.ExitStack() as opened:
        try:
            # The listener first: where a test suite blocks sockets, this one is refused before it is open.
            opened.enter_context(socket.socket())
            for end in socket.socketpair():
                opened.enter_context(end)
            opened.enter_context(selectors.DefaultSelector())
        except OSError as error:
            raise RuntimeError(
                f"the emulator cannot open sockets: {error}; close files that are not needed, or raise the limit of "
                f"open files (ulimit -n)"
            ) from error
        except Exception as error:
            raise RuntimeError(
                f"the emulator cannot open sockets: {type(error).__name__}: {error} "
                f"Where pytest-socket blocks them, mark the test with @pytest.mark.enable_socket, or replace "
                f"--disable-socket by --allow-hosts=127.0.0.1"
            ) from error


class LoopThread:
    """Runs coroutines in another thread while the caller waits for them, as for any other function.

    The thread is a daemon: a caller that is killed before it closes this one does not hang.

    Args:
        name: the thread's name.

    Raises:
        RuntimeError: the thread or its loop cannot start.
    """

    def __init__(self, name: str) -> None:
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise RuntimeError(f"the emulator cannot start a thread: {error}; end threads or processes") from error
        try:
            self._loop = self._started.result()
        except Exception as error:
            self._thread.join()
            raise RuntimeError(f"the emulator cannot start its event loop: {type(error).__name__}: {error}") from error

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, and return what it returns or raise what it raises.

        Raises:
            RuntimeError: the loop has ended, or does not finish the coroutine within `PATIENCE`.
        """
        future: Future[T] | None = None
        # After a fork, the thread is not in the child.
        if self._thread.is_alive() and not self._ended.done():
            with contextlib.suppress(RuntimeError):  # the loop is being closed
                future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        if future is not None:
            either: tuple[Future[Any], ...] = (future, self._ended)
            wait(either, PATIENCE, FIRST_COMPLETED)
            if future.done() and not future.cancelled():
                return future.result()
            if not (future.cancelled() or self._ended.done()):
                raise self._blocked()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise self._blocked()
        coroutine.close()  # it has ended with the loop, or never begun
        raise self._end()

    def close(self) -> None:
        """End the loop, with all that still runs in it, and the thread.

        Raises:
            RuntimeError: the loop has ended before, or the thread does not end within `PATIENCE`.
        """
        if self._ended.done() or not self._thread.is_alive():
            raise self._end()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise self._blocked()

    def _main(self) -> None:
        try:
            # The standard library's, whatever the policy says: uvloop hangs when it is closed after a SystemExit.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                loop = runner.get_loop()
                self._started.set_result(loop)
                loop.run_forever()
        except BaseException as error:  # noqa: BLE001 - raised in the threads that wait for this one
            (self._ended if self._started.done() else self._started).set_exception(error)
        else:
            self._ended.set_result(None)

    def _end(self) -> RuntimeError:
        cause = self._ended.exception() if self._ended.done() else None
        error = RuntimeError("the emulator's event loop has ended" + ("" if cause is None else f": {cause!r}"))
        error.__cause__ = cause
        return error

    def _blocked(self) -> RuntimeError:
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - the documented way to a stack
        where = "".join(traceback.format_stack(frame)) if frame is not None else ""
        return RuntimeError(f"the emulator's thread has not answered for {PATIENCE:g} s; it is at\n{where}")
