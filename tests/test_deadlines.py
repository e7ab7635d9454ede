"""Time-outs of attempts; `test_coincidences` has those that coincide with a caller's cancellation or an answer.

These tests use a private class: through a client, they would need a server for each of hundreds of attempts.
"""

from __future__ import annotations

import asyncio
import contextlib

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
