"""Background work that is never left alone: the first task that fails ends the run, and cancelled is failed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from .errors import MigrateError

T = TypeVar("T")


async def beside(main: Coroutine[Any, Any, T], *background: Coroutine[Any, Any, object]) -> T:
    """Run a coroutine with background work beside it.

    When ``main`` ends, the background work is cancelled.  When a piece of the background work fails, ``main`` is
    cancelled.  A piece that merely returns ends nothing.  No task outlives the call.

    Args:
        main: the coroutine whose result is wanted.
        background: what runs meanwhile.

    Returns:
        The result of ``main``.

    Raises:
        Exception: the first failure, of either.
        MigrateError: a task was cancelled by somebody else.
    """
    wanted = asyncio.create_task(main)
    tasks: list[asyncio.Task[Any]] = [wanted, *map(asyncio.create_task, background)]
    pending: set[asyncio.Task[Any]] = {*tasks}
    try:
        while not wanted.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {wanted}:
                result_of(task)
        return result_of(wanted)
    finally:
        await end(tasks)  # those that have failed at the same moment, too


async def together(*pieces: Coroutine[Any, Any, T]) -> list[T]:
    """Run coroutines at the same time; the first failure cancels the others, and no task outlives the call."""
    tasks = [asyncio.create_task(piece) for piece in pieces]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await end(tasks)


def result_of(task: asyncio.Task[T]) -> T:
    """The result of a task that has ended.

    Raises:
        MigrateError: it was cancelled, and nobody who waits for it was.
    """
    if task.cancelled():
        raise MigrateError(f"a task of the run was cancelled: {task.get_name()}")
    return task.result()


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; what they raise is of no interest any more."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def outlast(task: asyncio.Task[Any]) -> None:
    """Wait until a task has ended, however often the caller is cancelled meanwhile: it still has to be cleaned up."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
