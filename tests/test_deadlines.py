"""Time-outs of attempts, which never replace a caller's cancellation."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async._deadlines import Deadlines

from .virtual_time import run


async def timed(deadlines: Deadlines, seconds: float, work: float) -> str:
    """Work for some time under a time-out, as an attempt does."""
    deadline = deadlines.start(seconds)
    try:
        await asyncio.sleep(work)
    except asyncio.CancelledError:
        if deadline.overruled():
            raise
        assert deadline.expired
        return "timed out"
    finally:
        deadlines.finish(seconds, deadline)
    return "done"


async def outcome(task: asyncio.Task[str]) -> str:
    await asyncio.wait([task])
    return "cancelled" if task.cancelled() else task.result()


attempts = st.tuples(st.floats(0, 20), st.sampled_from([0.5, 3.0, 10.0]), st.floats(0, 30))


@given(st.lists(attempts, max_size=30))
def test_each_attempt_ends_at_its_deadline_and_not_before(plan: list[tuple[float, float, float]]) -> None:
    """For any mix of starts, time-outs and durations."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop)

        async def one(start: float, seconds: float, work: float) -> None:
            await asyncio.sleep(start)
            begun = loop.time()
            found = await timed(deadlines, seconds, work)
            took = loop.time() - begun
            if abs(work - seconds) > 1e-6:
                assert found == ("done" if work < seconds else "timed out")
            assert took <= min(work, seconds) + 1e-6
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

        async with asyncio.TaskGroup() as group:
            for start, seconds, work in plan:
                group.create_task(one(start, seconds, work))
        await asyncio.sleep(60)
        assert not deadlines._queues, "no timer is left, and no attempt"

    run(main())


@pytest.mark.parametrize("cancel_at", [0.0, 1.0, 9.999, 10.0, 10.001])
@pytest.mark.parametrize("order", ["deadline first", "caller first"])
def test_a_cancellation_in_the_iteration_of_the_deadline_takes_precedence(cancel_at: float, order: str) -> None:
    """It is never swallowed; a later one does not change the time-out."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop)
        task: asyncio.Task[str]

        def cancel() -> None:
            task.cancel()

        at = loop.time() + cancel_at
        if order == "caller first":
            loop.call_at(at, cancel)
        task = asyncio.create_task(timed(deadlines, 10.0, 30.0))
        await asyncio.sleep(0)
        if order == "deadline first":
            loop.call_at(at, cancel)
        assert await outcome(task) == ("timed out" if cancel_at > 10.0 else "cancelled")

    run(main())


def test_an_attempt_of_a_cancelled_task_can_time_out() -> None:
    """A cleanup after a cancellation may call the service."""

    async def main() -> None:
        deadlines = Deadlines(asyncio.get_running_loop())
        cleaned: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                cleaned.append(await timed(deadlines, 1.0, 5.0))

        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert cleaned == ["timed out"]

    run(main())


def test_an_attempt_that_ends_in_the_iteration_of_its_deadline_leaves_no_cancellation() -> None:
    """The deadline has requested a cancellation that the task has not seen; the task's next await is not cancelled."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop)
        answer: asyncio.Future[str] = loop.create_future()

        async def work() -> tuple[str, int]:
            deadline = deadlines.start(10.0)
            found = "done"
            try:
                await answer
            except asyncio.CancelledError:
                assert deadline.expired
                assert not deadline.overruled()
                found = "timed out"
            finally:
                deadlines.finish(10.0, deadline)
            task = asyncio.current_task()
            assert task is not None
            await asyncio.sleep(1)
            return found, task.cancelling()

        loop.call_at(loop.time() + 10.0, answer.set_result, "late")
        task = asyncio.create_task(work())
        assert (await task)[1] == 0

    run(main())


def test_an_attempt_that_swallows_the_cancellation_of_its_deadline_leaves_none() -> None:
    """A caller's middleware may turn it into an error or an answer; the task's next await is not cancelled."""

    async def main() -> None:
        deadlines = Deadlines(asyncio.get_running_loop())
        task = asyncio.current_task()
        assert task is not None
        deadline = deadlines.start(10.0)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(100)
        assert task.cancelling() == 1
        deadlines.finish(10.0, deadline)
        assert task.cancelling() == 0

    run(main())
