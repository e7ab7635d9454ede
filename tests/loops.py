"""The event loops on which the suite runs, ``pytest --loop=asyncio|uvloop|eager|debug``; the steps and tasks of one.

The kind is set by the process's event loop policy, so that it also applies to `asyncio.run` and `asyncio.Runner`, in
tests and in the code under test, and to loops in other threads.  Programs that a test starts use the default.
"""

from __future__ import annotations

import asyncio
import asyncio.constants
import importlib.util
import math
import sys
import warnings
from typing import Any, TypeVar

KINDS = ("asyncio", "uvloop", "eager", "debug")

Loop = TypeVar("Loop", bound=asyncio.AbstractEventLoop)
_chosen = "asyncio"


def choose(kind: str) -> None:
    """Choose the kind of every event loop of this process.

    Raises:
        ValueError: this interpreter or environment has no such loop.
    """
    global _chosen  # noqa: PLW0603 - the policy is global, too
    if kind == "eager" and sys.version_info < (3, 12):
        raise ValueError("--loop=eager needs Python 3.12 or later")
    if kind == "uvloop" and importlib.util.find_spec("uvloop") is None:
        raise ValueError("--loop=uvloop needs uvloop: pip install uvloop")
    _chosen = kind
    if kind == "asyncio":
        return
    if kind == "debug":
        # Every callback, task, coroutine and future records its stack; under pytest that is dozens of frames, and
        # recording them all takes three quarters of the time.
        sys.tracebacklimit = 1
        asyncio.constants.DEBUG_STACK_DEPTH = 1  # type: ignore[misc]  # final by its stub only

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            if kind == "uvloop":
                import uvloop

                return uvloop.new_event_loop()
            return adapt(super().new_event_loop())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.14 on
        asyncio.set_event_loop_policy(Policy())


def adapt(loop: Loop) -> Loop:
    """Give a loop the task factory or the debug mode of the chosen kind."""
    if _chosen == "eager" and sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    if _chosen == "debug":
        loop.set_debug(True)
        # pytest-asyncio would turn it off again.
        loop.set_debug = lambda enabled: None  # type: ignore[method-assign]
        # A busy machine is slow; that is no failure.
        loop.slow_callback_duration = math.inf
    return loop


async def steps(number: int) -> None:
    """Let the event loop make that many iterations."""
    for _ in range(number):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    """Return all tasks but the current one, those of a stand-in, and those by which the loop accepts connections."""
    strange = ("StandIn", "_accept_connection2")
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    return {task for task in tasks if not any(name in repr(task) for name in strange)}
