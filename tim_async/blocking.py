"""Calls from code without an event loop: views under WSGI, tasks of Celery and RQ, scripts.

`Portal` keeps one `TIMClient` for each process, in an event loop in its own thread, for all threads of the process.  It
has no second set of methods: it runs those of the client, or any function that takes the client.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import math
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from . import _arguments
from ._loop_thread import ONE_LOOP, LoopThread, threads_are_greenlets
from .client import TIMClient
from .errors import ClientClosed, ConnectionLost, RequestTimeout

_POLL = 0.5
"""Seconds between a waiting thread's checks for signals: one that came just before the wait does not end it."""

P = ParamSpec("P")
T = TypeVar("T")


class Portal:
    """One client for all threads of a process, in an event loop in its own thread.

    Make one for the whole program, also at import: the first call in each process makes the client, its loop and its
    thread, so that a server may import the program and fork its workers afterwards::

        portal = Portal(TIMClient.from_env)


        def unread(user: str) -> int:  # in any thread
            return portal.run(TIMClient.get_all_c2c_unread_msg_num, user)

    The threads share the client's connections, pace and look-ups.  The client is closed when the process exits.

    Args:
        make: makes the client; called in the portal's event loop.
        timeout: seconds, above 0, after which `run` cancels a call; None for the client's own time-outs alone.
    """

    def __init__(self, make: Callable[[], TIMClient], *, timeout: float | None = None) -> None:
        if not callable(make):
            raise TypeError(f"make must be a function that makes a client, not {type(make).__name__}")
        self._make = make
        self._timeout = None if timeout is None else _arguments.positive("timeout", timeout)
        self._closed = False
        # By process id: threads and the locks that they hold do not survive a fork, and a server written in C may fork
        # without Python's hooks.
        self._processes: dict[int, _Process] = {}

    def __repr__(self) -> str:
        process = self._processes.get(os.getpid())
        client = None if process is None or process.thread is None else process.client
        state = "closed" if self._closed else "not started" if client is None else repr(client)
        return f"<Portal: {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def run(
        self, function: Callable[Concatenate[TIMClient, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a function with the client, in the portal's event loop, and wait for its result.

        ::

            portal.run(TIMClient.set_unread_msg_num, "@TGS#public", "alice", 7)
            portal.run(lambda tim: tim.batch.get_c2c_unread_msg_num("alice", peers))

        It may be called from any thread without an event loop.  The function has the caller's context variables.  It
        must not block: that would delay the calls of all threads.  An exception in the waiting thread, such as
        `KeyboardInterrupt` or Celery's ``SoftTimeLimitExceeded``, cancels the call.

        Args:
            function: a coroutine method of `TIMClient`, or any function that takes the client and returns an awaitable.
            args: its other arguments.
            kwargs: its keyword arguments.

        Returns:
            The function's result.

        Raises:
            RequestTimeout: the portal's ``timeout`` has passed; the call was cancelled, and may have taken effect.
            ClientClosed: the portal is closed.
            ConnectionLost: the portal was closed, or its event loop ended, during the call.
            RuntimeError: an event loop runs in this thread, which must not block; no thread can be started; or a signal
                handler calls the portal while this thread starts it.
            TypeError: ``function`` does not return an awaitable, or ``make`` does not return a `TIMClient`.
            BaseException: any exception of the function, or of ``make`` in the first call.
        """
        self._refuse_event_loop()
        outcome: Future[T] = Future()  # before the call starts, so that an interrupt at any moment can cancel it
        try:
            process = self._process()
            with process.lock:
                if self._closed:
                    raise ClientClosed("the portal is closed")
                thread, client = process.started(self)
                assert thread.loop is not None
                call = _execute(outcome, client, function, *args, **kwargs)
                asyncio.run_coroutine_threadsafe(call, thread.loop)
            left = math.inf if self._timeout is None else self._timeout
            while not outcome.done() and left > 0:
                alive = thread.is_alive  # read before the wait: a thread that had ended by then sets no outcome later
                with contextlib.suppress(TimeoutError):  # of this wait, or the function's own
                    return outcome.result(min(left, _POLL))
                if not alive and not outcome.done() and outcome.cancel():
                    raise ConnectionLost("the portal's event loop ended during the call")
                left -= _POLL
            if not outcome.done() and outcome.cancel():
                raise RequestTimeout(f"the call did not end within {self._timeout:g} s and was cancelled")
            return outcome.result()
        except CancelledError:
            if not self._closed:
                raise
            raise ConnectionLost("the portal was closed during the call") from None
        except BaseException:
            outcome.cancel()
            raise
        finally:
            del outcome  # its error would refer to itself through the traceback

    def close(self) -> None:
        """Close the client and end the thread; calls under way raise `ClientClosed` or `ConnectionLost`.

        It is called when the process exits.  Call it in processes that end without exit handlers: in Celery's
        ``worker_process_shutdown``, and in a child of `multiprocessing`.  May be called more than once.

        Raises:
            RuntimeError: an event loop runs in this thread; or the portal's does not end within 10 s, because a
                function blocks it; the error shows its stack.
        """
        self._refuse_event_loop()
        process = self._process()
        with process.lock:
            self._closed = True
            thread, process.thread = process.thread, None
        atexit.unregister(self.close)
        if thread is not None and thread.is_alive:
            thread.leave()

    def _refuse_event_loop(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        thread = self._process().thread
        if thread is not None and thread.loop is loop and not thread.is_current:
            return  # with gevent's threads, all of them see the one loop that runs
        remedy = (
            ONE_LOOP if threads_are_greenlets() else "or move the code that blocks into a thread (asyncio.to_thread)"
        )
        raise RuntimeError(
            "an event loop runs in this thread, and a portal would block it: await the methods of a TIMClient, "
            + remedy
        )

    def _process(self) -> _Process:
        process = self._processes.get(os.getpid())
        # setdefault is atomic: concurrent first calls get the same one.
        return process or self._processes.setdefault(os.getpid(), _Process(self._make))


class _Process:
    """The client of one process, its thread, and the lock that guards them."""

    def __init__(self, make: Callable[[], TIMClient]) -> None:
        self.lock = threading.RLock()  # a signal handler may call the portal in the thread that holds the lock
        self.client: TIMClient | None = None
        self.thread: LoopThread | None = None
        self._make = make
        self._starting = False

    def started(self, portal: Portal) -> tuple[LoopThread, TIMClient]:
        """Return the running thread and its client, started if necessary; the caller holds the lock."""
        if self._starting:
            raise RuntimeError(
                "the portal is being started by this thread, which a signal handler has interrupted: "
                "let the handler only set a flag, or call the portal once before signals can arrive"
            )
        thread = self.thread
        if thread is None or not thread.is_alive:
            self._starting = True
            # Set before it runs: with gevent's threads, the others see its event loop from then on.
            thread = self.thread = LoopThread(self._open_client(), what="the portal", name="tim-portal")
            try:
                thread.start()
            except BaseException:
                self.thread = None
                raise
            finally:
                self._starting = False
            if self.thread is None:  # a signal handler has closed the portal meanwhile
                if thread.is_alive:
                    thread.leave()
                raise ClientClosed("the portal is closed")
            atexit.register(portal.close)
        assert self.client is not None
        return thread, self.client

    @contextlib.asynccontextmanager
    async def _open_client(self) -> AsyncIterator[None]:
        """Make and open the client in the running event loop, and close it there."""
        client = self._make()
        _arguments.kind("the result of make", client, TIMClient)
        async with client as self.client:
            yield


async def _execute(
    outcome: Future[T],
    client: TIMClient,
    function: Callable[Concatenate[TIMClient, P], Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> None:
    """Call a function for the thread that waits for ``outcome``; cancelling ``outcome`` cancels the call.

    It raises nothing: a SystemExit would end the event loop.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def cancel_call(outcome: Future[T]) -> None:  # runs in any thread
        if outcome.cancelled():
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the call with it
                loop.call_soon_threadsafe(task.cancel)

    outcome.add_done_callback(cancel_call)
    try:
        result = function(client, *args, **kwargs)
        if not inspect.isawaitable(result):
            name = getattr(function, "__qualname__", repr(function))
            raise TypeError(
                f"{name} returned a {type(result).__name__}, which cannot be awaited: call it in an `async def` that "
                f"takes the client"
            )
        value = await result
    except asyncio.CancelledError:
        outcome.cancel()
    except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            outcome.set_exception(error)
    else:
        with contextlib.suppress(InvalidStateError):
            outcome.set_result(value)
    finally:
        del outcome  # as in `Portal.run`
