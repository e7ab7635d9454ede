"""Background tasks: their failure or cancellation ends their owner, and none is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tim_async.migrate import JournalError, MigrateError
from tim_async.migrate._event_queue import running
from tim_async.migrate._executor import SerialExecutor
from tim_async.migrate._supervision import beside, together

from .storing import executor_threads


@pytest.fixture(autouse=True)
async def no_task_or_thread_is_left() -> AsyncIterator[None]:
    before = executor_threads()
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert executor_threads() <= before


async def forever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise KeyError("mine")


async def returns() -> str:
    return "value"


async def is_cancelled() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def test_background_tasks_end_with_the_main_one() -> None:
    """A background task that returns ends nothing."""
    assert await beside(returns(), forever(), forever()) == "value"
    go = asyncio.Event()

    async def main() -> str:
        await go.wait()
        return "value"

    async def piece() -> None:
        go.set()

    assert await beside(main(), piece()) == "value"
    assert await together(returns(), returns()) == ["value", "value"]


async def test_a_failing_background_task_ends_the_main_one() -> None:
    cleaned = False

    async def main() -> None:
        nonlocal cleaned
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned = True

    with pytest.raises(KeyError, match="mine"):
        await beside(main(), forever(), fails())
    assert cleaned
    with pytest.raises(KeyError, match="mine"):
        await together(forever(), fails(), forever())


async def test_a_cancelled_background_task_has_failed() -> None:
    """Also if it is cancelled before its first step, as by a loop over all tasks."""
    with pytest.raises(MigrateError, match="was cancelled"):
        await beside(forever(), is_cancelled())
    with pytest.raises(MigrateError, match="was cancelled"):
        await beside(is_cancelled(), forever())
    running = asyncio.create_task(beside(forever(), forever()))
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {running, asyncio.current_task()}:
        task.cancel()
    with pytest.raises(MigrateError, match="was cancelled"):
        await running


async def test_the_caller_can_be_cancelled() -> None:
    for steps in range(1, 5):
        running = asyncio.create_task(beside(forever(), forever()))
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_repeated_cancellation_does_not_interrupt_the_cleanup() -> None:
    go, cleaned = asyncio.Event(), asyncio.Event()

    async def course() -> None:
        try:
            await forever()
        finally:
            await go.wait()
            cleaned.set()

    async def caller() -> None:
        async with running(course()):
            await forever()

    task = asyncio.create_task(caller())
    for _ in range(5):
        await asyncio.sleep(0)
        task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()


# The executor's thread


@pytest.mark.parametrize(
    "error", [ValueError, MemoryError, StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit]
)
async def test_the_thread_passes_exceptions_on(error: type[BaseException]) -> None:
    """And continues: a future refuses StopIteration, and a BaseException would end the event loop."""
    executor = SerialExecutor()

    def work() -> None:
        raise error("mine")

    with pytest.raises(error if error in (ValueError, MemoryError) else RuntimeError, match="mine"):
        await executor.run(work)
    assert await executor.run(lambda: 7) == 7
    await executor.close()


async def test_a_job_runs_even_if_its_caller_is_cancelled() -> None:
    """Also if it has not begun."""
    done: list[int] = []
    executor, go = SerialExecutor(), threading.Event()
    waiting = asyncio.create_task(executor.run(go.wait))
    queued = asyncio.create_task(executor.run(done.append, 1))
    await asyncio.sleep(0)
    queued.cancel()
    go.set()
    await waiting
    await executor.close()
    assert done == [1]


@contextlib.contextmanager
def hanging() -> Iterator[Callable[[], object]]:
    """Yield a function that hangs until the end; then wait for the threads that were left behind."""
    go, before = threading.Event(), executor_threads()
    try:
        yield go.wait
    finally:
        go.set()
        for thread in executor_threads() - before:
            thread.join()


async def test_a_hanging_thread_is_abandoned() -> None:
    """At the end of a run, however late it hangs: waiting and later callers get an error."""
    executor = SerialExecutor()
    with hanging() as hang:
        executor.hurry(0.02)
        assert await executor.run(lambda: 7) == 7
        for job in (hang, lambda: None):
            waiting = [asyncio.create_task(executor.run(job)) for _ in range(2)]
            for result in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(result, JournalError)
                assert "has not responded for 0.02 s" in str(result)
        await executor.close()


async def test_closing_does_not_wait_for_a_hanging_thread() -> None:
    executor = SerialExecutor()
    with hanging() as hang:
        waiting = asyncio.create_task(executor.run(hang))
        await asyncio.sleep(0)
        waiting.cancel()
        executor.hurry(0.0)
        await executor.close()


async def test_a_closed_executor_can_be_used_again() -> None:
    """In another thread; what it was told about the end of the earlier use does not apply."""
    executor, go = SerialExecutor(), threading.Event()
    executor.hurry(0.0)
    await executor.close()
    waiting = asyncio.create_task(executor.run(go.wait))
    await asyncio.sleep(0.01)
    go.set()
    assert await waiting
    closing = asyncio.create_task(executor.close())
    await asyncio.sleep(0)
    closing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await closing
    assert await executor.run(lambda: 7) == 7
    await executor.close()


async def test_hurry_does_not_affect_a_disk_that_responds() -> None:
    executor = SerialExecutor()
    executor.hurry()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await executor.run(lambda: 7) == 7
    await executor.close()
