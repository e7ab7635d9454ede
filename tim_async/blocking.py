"""Calls from code that runs no event loop: views under WSGI, tasks of Celery and RQ, scripts.

`Portal` keeps one `TIMClient` for each process, in an event loop in a thread of its own, which all threads of the
process share.  It has no second set of methods: it runs those of the client, or any function that takes the client.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import math
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from . import _arguments
from ._loop_thread import ONE_LOOP, LoopThread, threads_are_greenlets
from .client import TIMClient
from .errors import ClientClosed, ConnectionLost, RequestTimeout

_LOOK = 0.5
"""Seconds after which a thread that waits looks for signals: one that came just before the wait does not end it."""

P = ParamSpec("P")
T = TypeVar("T")


class Portal:
    """One client for all threads of a process, in an event loop in a thread of its own.

    Make one for the whole program, also at import: the client, its loop and its thread are made with the first call,
    and anew in each process, so that a server may import the program and fork its workers afterwards::

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
        # By process id: neither a thread nor a lock that a thread holds survives a fork, and a server written in C may
        # fork without Python's hooks.
        self._processes: dict[int, _Process] = {}

    def __repr__(self) -> str:
        process = self._processes.get(os.getpid())
        client = None if process is None or process.thread is None else process.life.client
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

        It may be called from any thread without an event loop.  The function sees the caller's context variables; it
        must not block, since it would delay the calls of all threads.  An exception in the waiting thread, such as
        `KeyboardInterrupt` or Celery's ``SoftTimeLimitExceeded``, cancels the call.

        Args:
            function: a coroutine method of `TIMClient`, or any function that takes the client and returns an awaitable.
            args: its further arguments.
            kwargs: its keyword arguments.

        Returns:
            The function's result.

        Raises:
            RequestTimeout: the portal's ``timeout`` is over; the call was cancelled, and may have taken effect.
            ClientClosed: the portal is closed; `ConnectionLost` where that was during the call.
            RuntimeError: an event loop runs in this thread, which must not wait; no thread can be started; or this
                thread starts the portal, and a signal handler calls it meanwhile.
            TypeError: ``function`` does not return an awaitable, or ``make`` no `TIMClient`.
            BaseException: whatever the function raises, or ``make`` with the first call.
        """
        self._refuse_event_loop()
        outcome: Future[T] = Future()  # before the call starts, so that an interrupt at any time can cancel it
        try:
            process = self._process()
            with process.lock:
                if self._closed:
                    raise ClientClosed("the portal is closed")
                thread, client = process.started(self)
                assert thread.loop is not None
                call = _carry_out(outcome, client, function, *args, **kwargs)
                asyncio.run_coroutine_threadsafe(call, thread.loop)
            left = math.inf if self._timeout is None else self._timeout
            while not outcome.done() and left > 0:
                runs = thread.is_alive  # before the wait, by whose end the thread has then done what it will ever do
                with contextlib.suppress(TimeoutError):  # that of this wait, or the function's own
                    return outcome.result(min(left, _LOOK))
                if not runs and not outcome.done() and outcome.cancel():
                    raise ConnectionLost("the portal's event loop ended during the call")
                left -= _LOOK
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
            del outcome  # or its error would refer to itself, by its traceback

    def close(self) -> None:
        """Close the client and end the thread; calls under way raise `ClientClosed` or `ConnectionLost`.

        It is called when the process exits.  Call it yourself where a process ends without that: in Celery's
        ``worker_process_shutdown``, and in a child of `multiprocessing`.  May be called more than once.

        Raises:
            RuntimeError: an event loop runs in this thread; or the portal's does not end within 10 s, since a function
                blocks it; the error shows where.
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
            return  # where gevent has replaced threads, all of them see the loop that one runs
        remedy = (
            ONE_LOOP if threads_are_greenlets() else "or move the code that blocks into a thread (asyncio.to_thread)"
        )
        raise RuntimeError(
            "an event loop runs in this thread, and a portal would block it: await the methods of a TIMClient, "
            + remedy
        )

    def _process(self) -> _Process:
        process = self._processes.get(os.getpid())
        # setdefault is atomic: two threads that come first find the same.
        return process or self._processes.setdefault(os.getpid(), _Process(_Life(self._make)))


class _Life:
    """Makes the client and opens it in the loop that runs, and closes it there."""

    def __init__(self, make: Callable[[], TIMClient]) -> None:
        self._make = make
        self.client: TIMClient | None = None

    async def __aenter__(self) -> None:
        client = self._make()
        _arguments.kind("the result of make", client, TIMClient)
        self.client = await client.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        assert self.client is not None
        await self.client.aclose()


class _Process:
    """The client of one process, its thread, and the lock that guards them."""

    def __init__(self, life: _Life) -> None:
        self.lock = threading.RLock()  # a signal handler may call the portal in the thread that holds it
        self.life = life
        self.thread: LoopThread | None = None
        self._starts = False

    def started(self, portal: Portal) -> tuple[LoopThread, TIMClient]:
        """The running thread and its client, made if need be; the caller holds the lock."""
        if self._starts:
            raise RuntimeError(
                "the portal is being started by this thread, which a signal handler has interrupted: "
                "let the handler set a flag, or call the portal once before the signals come"
            )
        thread = self.thread
        if thread is None or not thread.is_alive:
            self._starts = True
            # Known before it runs: where threads are greenlets, others see its event loop from then on.
            thread = self.thread = LoopThread(self.life, what="the portal", name="tim-portal")
            try:
                thread.start()
            except BaseException:
                self.thread = None
                raise
            finally:
                self._starts = False
            if self.thread is None:  # a signal handler has closed the portal meanwhile
                if thread.is_alive:
                    thread.leave()
                raise ClientClosed("the portal is closed")
            atexit.register(portal.close)
        assert self.life.client is not None
        return thread, self.life.client


async def _carry_out(
    outcome: Future[T],
    client: TIMClient,
    function: Callable[Concatenate[TIMClient, P], Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> None:
    """Call a function for a thread that waits for the outcome; to cancel that cancels the call.

    Nothing is raised here, since an exit would end the event loop.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def ended(outcome: Future[T]) -> None:  # in whatever thread ends it
        if outcome.cancelled():
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the call with it
                loop.call_soon_threadsafe(task.cancel)

    outcome.add_done_callback(ended)
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
    except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
        with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
            outcome.set_exception(error)
    else:
        with contextlib.suppress(InvalidStateError):
            outcome.set_result(value)
    finally:
        del outcome  # as in `Portal.run`
