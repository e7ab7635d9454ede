"""Background tasks that cannot end unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def together(main: Coroutine[Any, Any, T], *beside: Coroutine[Any, Any, object]) -> T:
    """Run a coroutine with others beside it, which end when it does.

    Returns:
        What ``main`` returned.

    Raises:
        BaseException: that of the first of all that raised one; then ``main`` was cancelled.
        RuntimeError: something cancelled one of them, but not the caller.
    """
    first = asyncio.ensure_future(main)
    tasks: set[asyncio.Future[Any]] = {first, *map(asyncio.ensure_future, beside)}
    running = set(tasks)
    try:
        while not first.done():
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.cancelled():
                    raise RuntimeError("a task of the run was cancelled by something else")
                task.result()
        return first.result()
    finally:
        for task in tasks:
            task.cancel()
        # Waits for all of them even if it is cancelled meanwhile, and then cancels them once more.
        await asyncio.gather(*tasks, return_exceptions=True)
