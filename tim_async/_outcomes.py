"""Concurrent calls over rows: the result of ``batch.map``.

Memory is bounded: a row is pulled only when there is room for its outcome, which is kept until it is read.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ._home import WrongLoop
from ._lanes import LANE, Lane
from .models import Done, Failed

Item = TypeVar("Item")
Value = TypeVar("Value")


class Outcomes(Generic[Item, Value]):
    """The outcomes of a ``batch.map``: enter with ``async with``, iterate with ``async for``, once.

    Running calls and unread outcomes together are at most twice the concurrency.
    """

    def __init__(
        self,
        method: Callable[..., Awaitable[Value]],
        rows: Iterable[Item] | AsyncIterable[Item],
        concurrency: int,
        lane: Lane,
    ) -> None:
        self._method = method
        self._pull = _pull_function(rows)
        self._concurrency = concurrency
        self._context = contextvars.copy_context()
        self._context.run(LANE.set, lane)
        self._workers: list[asyncio.Task[None]] = []
        self._running = 0
        self._ended = False
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        if self._workers:
            raise RuntimeError("these outcomes have been entered already; call batch.map again")
        self._room = asyncio.Semaphore(2 * self._concurrency)
        # None is the end: the rows are exhausted, or `_failure` is an error that belongs to no row.
        self._ready: asyncio.Queue[Done[Item, Value] | Failed[Item] | None] = asyncio.Queue()
        self._running = self._concurrency
        loop = asyncio.get_running_loop()
        self._workers = [loop.create_task(self._work(), context=self._context.copy()) for _ in range(self._concurrency)]
        for worker in self._workers:
            # A callback, because a worker that is cancelled before its first step runs no code.
            worker.add_done_callback(self._worker_ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = True
        # Not a TaskGroup, which would wrap an exception of the block in an ExceptionGroup.
        running = self._workers
        cancelled: asyncio.CancelledError | None = None
        while running:
            for worker in running:
                worker.cancel()
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError as again:  # raised once the workers have ended, as a TaskGroup does
                cancelled = again
            running = [worker for worker in running if not worker.done()]
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                cancelled = None  # or its traceback would make a reference cycle

    def __aiter__(self) -> Self:
        if not self._workers:
            raise RuntimeError("not entered: use `async with tim.batch.map(…) as outcomes`")
        return self

    async def __anext__(self) -> Done[Item, Value] | Failed[Item]:
        if self._ended:
            raise StopAsyncIteration
        outcome = await self._ready.get()
        if outcome is None:
            self._ended = True
            if self._failure is not None:
                raise self._failure
            raise StopAsyncIteration
        self._room.release()
        return outcome

    async def _work(self) -> None:
        try:
            while True:
                await self._room.acquire()
                if self._ended or self._failure is not None:
                    return
                item = await self._pull()
                if item is _EXHAUSTED:
                    return
                self._ready.put_nowait(await self._call(item))
        except BaseException as error:  # of the rows' iterator, or a cancellation
            self._failure = error  # before any other worker pulls from the failed iterator
            raise

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        """Count a worker that has ended; the last one ends the iteration."""
        if worker.cancelled():
            self._failure = self._failure or asyncio.CancelledError()
        else:
            worker.exception()  # marks it as retrieved; the reader gets it after the outcomes so far
        # Wakes the next worker that waits for room, so that it ends, too.
        self._room.release()
        self._running -= 1
        if not self._running:
            self._ready.put_nowait(None)

    async def _call(self, item: Item) -> Done[Item, Value] | Failed[Item]:
        try:
            args, kwargs = _arguments(item)
            return Done(item, await self._method(*args, **kwargs))
        except WrongLoop:
            raise
        except Exception as error:  # noqa: BLE001 - not swallowed: it is the row's outcome
            return Failed(item, error)


def _arguments(row: object) -> tuple[Iterable[Any], Mapping[str, Any]]:
    if isinstance(row, Mapping):
        return (), row
    if isinstance(row, str | bytes | set | frozenset) or not isinstance(row, Iterable):  # a set has no order
        raise TypeError(f"a row must be a tuple or a mapping of arguments, not {type(row).__name__}")
    return row, {}


_EXHAUSTED: Any = object()


def _pull_function(rows: Iterable[Any] | AsyncIterable[Any]) -> Callable[[], Awaitable[Any]]:
    """Return a coroutine function that returns the next row, or `_EXHAUSTED`."""
    if isinstance(rows, AsyncIterable):
        source, lock = aiter(rows), asyncio.Lock()

        async def pull_async() -> Any:
            async with lock:  # an async generator cannot be advanced concurrently
                return await anext(source, _EXHAUSTED)

        return pull_async
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise TypeError(f"rows must be an iterable of argument tuples, not {type(rows).__name__}")
    iterator = iter(rows)

    async def pull() -> Any:
        return next(iterator, _EXHAUSTED)

    return pull
