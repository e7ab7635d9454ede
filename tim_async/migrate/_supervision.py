"""Structured concurrency: the first task that fails ends the others, and a cancelled task has failed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from .errors import MigrateError

T = TypeVar("T")


async def beside(main: Coroutine[Any, Any, T], *background: Coroutine[Any, Any, object]) -> T:
    """Run a coroutine with background coroutines beside it.

    When ``main`` ends, the background coroutines are cancelled.  When one of them fails, ``main`` is cancelled.  One
    that merely returns ends nothing.  No task outlives the call.

    Args:
        main: the coroutine whose result is returned.
        background: the coroutines that run meanwhile.

    Returns:
        The result of ``main``.

    Raises:
        Exception: the first failure, of either.
        MigrateError: a task was cancelled from outside.
    """
    main_task = asyncio.create_task(main)
    tasks: list[asyncio.Task[Any]] = [main_task, *map(asyncio.create_task, background)]
    pending = set(tasks)
    try:
        while not main_task.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {main_task}:
                result_of(task)
        return result_of(main_task)
    finally:
        await end(tasks)  # also retrieves the errors of others that failed at the same moment


async def together(*pieces: Coroutine[Any, Any, T]) -> list[T]:
    """Run coroutines at the same time; the first failure cancels the others, and no task outlives the call."""
    tasks = [asyncio.create_task(piece) for piece in pieces]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await end(tasks)


def result_of(task: asyncio.Task[T]) -> T:
    """Return the result of a task that has ended.

    Raises:
        MigrateError: the task was cancelled, and its waiter was not.
    """
    if task.cancelled():
        raise MigrateError(f"a task of the run was cancelled: {task.get_name()}")
    return task.result()


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, for some seconds at most; return whether it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; ignore their errors."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def outlast(task: asyncio.Task[Any]) -> None:
    """Wait until a task has ended, however often the caller is cancelled, so that the task can clean up."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
