"""An exchange with the store that fails, hangs or is cancelled at any step does not make a later call hang.

The tests with `FakeStore` use the private `SharedLimiter`: only without sockets can all tasks be cancelled at each step
of the loop, in virtual time.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from typing import Any

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from tests import virtual_time
from tests.stand_in import StandIn
from tests.store import Store
from tim_async._limiter.local import Use
from tim_async._limiter.queue import RequestQueue
from tim_async._limiter.reply import Reply
from tim_async._limiter.request import Request
from tim_async._limiter.shared import SharedLimiter
from tim_async._limiter.sharing import Shares, StoreUnavailable

from .support import NAME, calling, client, limiter_of, quota_on, until

LIMIT = 50
OVERDUE = 2.5
# Eager tasks are tested on every loop of the suite.
FACTORIES: list[Any] = [None]
if sys.version_info >= (3, 12):

    def eager(loop: Any, coro: Any, *, name: Any = None, context: Any = None, **_: Any) -> asyncio.Task[Any]:
        """Start a task at once; uvloop hands on options that not every Python's own factory takes."""
        return asyncio.Task(coro, loop=loop, name=name, context=context, eager_start=True)

    FACTORIES.append(eager)

MANNERS = ("answers", "unreachable", "defect", "stubborn", "deaf")
"""The ways in which an exchange ends; "stubborn" swallows one cancellation, "deaf" all."""


class FakeStore:
    """Grants the permits requested, after some steps of the loop; or behaves in another manner."""

    def __init__(self) -> None:
        self.manner = "answers"
        self.steps = 3
        self.delay = 0.0
        self.released = asyncio.Event()
        self.requests: list[Request] = []

    async def exchange(self, request: Request) -> Reply:
        self.requests.append(request)
        manner, steps = self.manner, self.steps
        while manner == "deaf" and not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                continue
        for step in range(steps):
            try:
                await asyncio.sleep(0 if step else self.delay)
            except asyncio.CancelledError:
                if manner != "stubborn":
                    raise
        match manner:
            case "unreachable":
                raise StoreUnavailable
            case "defect":
                raise TypeError("a defect")
        wanted = request.get("wanted", 0)
        return Reply(request["number"], "1", limit=LIMIT, rate=LIMIT, permits=((0.0, wanted),) if wanted else ())


def make_limiter(store: FakeStore, fallback: float | None) -> tuple[RequestQueue, SharedLimiter]:
    """Make a queue and its limiter with this fallback share; None to fail closed."""
    return limiter_of(
        store.exchange, LIMIT, shares=Shares(fallback=fallback, fail_closed=fallback is None), overdue=OVERDUE
    )


def other_tasks() -> set[asyncio.Task[Any]]:
    """Return all tasks but this one and those of servers."""
    return {
        task
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task()
        and not {"_talk", "_accept_connection2"} & {*re.findall(r"\w+", repr(task))}
    }


def cancel_all() -> None:
    for task in other_tasks():
        task.cancel()


async def settled(limiter: SharedLimiter) -> None:
    """Wait until the store has replied and everything has been reported."""
    while not limiter.shared or limiter._pending:  # noqa: ASYNC110 - no event says so
        await asyncio.sleep(0.1)


async def call(queue: RequestQueue) -> None:
    permit = await queue.enter()
    await asyncio.sleep(0.01)
    queue.leave(permit, answered=True)


async def end(store: FakeStore, queue: RequestQueue, limiter: SharedLimiter) -> None:
    """Close; assert that no task is left once the store lets go of its exchange."""
    queue.close()
    await limiter.finish()
    store.released.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert other_tasks() == set()


@given(
    failures=st.lists(
        st.tuples(st.sampled_from(MANNERS), st.integers(0, 6), st.integers(0, 12)), min_size=1, max_size=5
    ),
    fallback=st.sampled_from([None, 0.1]),
    factory=st.sampled_from(FACTORIES),
    refused=st.booleans(),
)
def test_after_all_tasks_are_cancelled_at_any_step_the_next_call_gets_its_permit(
    failures: list[tuple[str, int, int]], fallback: float | None, factory: Any, refused: bool
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        store = FakeStore()
        queue, limiter = make_limiter(store, fallback)
        calls: list[asyncio.Task[None]] = []
        for manner, duration, steps in failures:
            store.manner, store.steps = manner, duration
            calls += [loop.create_task(call(queue)) for _ in range(2)]
            if refused:
                limiter.refused(loop.time(), loop.time())
            for _ in range(steps):
                await asyncio.sleep(0)
            cancel_all()
        store.manner, store.steps = "answers", 3
        async with asyncio.timeout(OVERDUE + 1.0):
            for _ in range(2):
                await call(queue)
        async with asyncio.timeout(OVERDUE + 1.0):
            await settled(limiter)
        await end(store, queue, limiter)

    virtual_time.run(main())


@pytest.mark.parametrize("manner", ["defect", "deaf"])
@pytest.mark.parametrize("fallback", [None, 0.1])
def test_a_waiting_call_survives_a_failing_or_hanging_exchange(
    caplog: pytest.LogCaptureFixture, manner: str, fallback: float | None
) -> None:
    """It is treated as an outage until the store replies; a defect is logged once, with its traceback."""

    async def main() -> None:
        store = FakeStore()
        queue, limiter = make_limiter(store, fallback)
        store.manner = manner
        waiting = asyncio.create_task(call(queue))
        await asyncio.sleep(OVERDUE + 1.0)
        assert not limiter.shared
        assert waiting.done() is (fallback is not None)
        store.manner = "answers"
        async with asyncio.timeout(OVERDUE + 1.0):
            await waiting
            await settled(limiter)
            await call(queue)
        await end(store, queue, limiter)

    virtual_time.run(main())
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == (manner == "defect")
    for record in errors:
        assert record.exc_info is not None
        assert record.exc_info[0] is TypeError


def test_ended_calls_are_reported_once_and_then_nothing_is_sent() -> None:
    """With the requests for permits, each of which also has the number of calls in flight."""

    async def main() -> None:
        store = FakeStore()
        queue, limiter = make_limiter(store, 0.1)
        unused, flying = [await queue.enter() for _ in range(2)]
        limiter.release(unused, asyncio.get_running_loop().time(), Use.UNSENT)
        for _ in range(80):
            await call(queue)
        assert {request["out"] for request in store.requests[2:]} == {1}
        queue.leave(flying, answered=True)
        await asyncio.sleep(1.0)
        reported = len(store.requests)
        await asyncio.sleep(10.0)
        assert len(store.requests) == reported == 2 + 80 + 1
        freed = [calls for request in store.requests for _, _, calls in request.get("freed", ())]
        assert sum(freed) == 81
        assert store.requests[-1]["out"] == 0
        await end(store, queue, limiter)

    virtual_time.run(main())


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.05])
def test_max_wait_0_is_served_when_no_other_call_waits(delay: float) -> None:
    """The round trip to the store does not count as waiting."""

    async def main() -> None:
        store = FakeStore()
        queue, limiter = make_limiter(store, 0.1)
        store.delay = delay
        for _ in range(3):
            await call(queue)  # the round trip is learned
            await asyncio.sleep(1.0)
        queue.leave(await queue.enter(max_wait=0), answered=True)
        await end(store, queue, limiter)

    virtual_time.run(main())


@pytest.mark.parametrize("manner", ["stubborn", "deaf"])
def test_close_does_not_wait_for_a_hanging_exchange(manner: str) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        store = FakeStore()
        queue, limiter = make_limiter(store, 0.1)
        await call(queue)  # its end is to be reported
        store.manner = manner
        begin = loop.time()
        await end(store, queue, limiter)
        return loop.time() - begin

    assert virtual_time.run(main()) <= OVERDUE + 0.001


def test_close_abandons_an_exchange_that_hangs_already() -> None:
    """Its timeout passes once, not again for the remaining reports."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        store = FakeStore()
        queue, limiter = make_limiter(store, 0.1)
        await call(queue)
        store.manner = "deaf"
        limiter.refused(loop.time(), loop.time())  # is reported at once
        await asyncio.sleep(0)
        begin = loop.time()
        await end(store, queue, limiter)
        assert len(store.requests) == 2
        return loop.time() - begin

    assert virtual_time.run(main()) == pytest.approx(OVERDUE)


def test_a_cancelled_close_leaves_no_task() -> None:
    async def main() -> None:
        store = FakeStore()
        queue, limiter = make_limiter(store, 0.1)
        await call(queue)
        store.steps = 1000
        queue.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await limiter.finish()
        for _ in range(5):
            await asyncio.sleep(0)
        assert other_tasks() == set()

    virtual_time.run(main())


# With a real store.


@pytest.mark.parametrize("factory", FACTORIES)
async def test_a_lost_connection_is_replaced_within_a_second(service: StandIn, store: Store, factory: Any) -> None:
    asyncio.get_running_loop().set_task_factory(factory)
    quota = quota_on(store)
    with redis.Redis.from_url(store.url) as operator:
        async with client(service, quota, LIMIT) as tim, calling((tim, "alice")):
            for _ in range(5):
                seen = len(service.seen)
                await until(lambda: len(service.seen) > seen + 5)  # noqa: B023 - called at once
                operator.client_kill_filter(_type="normal", skipme=True)
                await until(lambda: tim.stats()[NAME].shared, 1.0)


@pytest.mark.parametrize("factory", FACTORIES)
async def test_after_all_tasks_are_cancelled_at_each_step_of_a_real_exchange_the_next_call_succeeds(
    service: StandIn, lasting: Store, factory: Any
) -> None:
    asyncio.get_running_loop().set_task_factory(factory)
    quota = quota_on(lasting, fail_closed=True)
    async with client(service, quota, 500) as tim:
        for steps in range(40):
            calls = [asyncio.create_task(tim.get_all_c2c_unread_msg_num("a")) for _ in range(2)]
            for _ in range(steps):
                await asyncio.sleep(0)
            cancel_all()
            async with asyncio.timeout(5):
                assert await tim.get_all_c2c_unread_msg_num("alice") == 7
            await asyncio.wait(calls)
        await until(lambda: tim.stats()[NAME].shared)


async def test_close_does_not_wait_for_a_hanging_driver(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = quota_on(lasting)
    tim = client(service, quota, LIMIT)
    await tim.get_all_c2c_unread_msg_num("alice")
    aclose, released, ended = redis.asyncio.Redis.aclose, asyncio.Event(), asyncio.Event()

    async def late(driver: Any) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        await aclose(driver)
        ended.set()

    monkeypatch.setattr(redis.asyncio.Redis, "aclose", late)
    async with asyncio.timeout(5):
        await tim.aclose()
    released.set()
    await ended.wait()
    assert "take too long to close" in caplog.text


async def test_a_driver_that_fails_to_close_is_logged(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its traceback; the client is closed nevertheless."""
    aclose = redis.asyncio.Redis.aclose

    async def broken(driver: Any) -> None:
        await aclose(driver)
        raise OSError("a defect of the driver")

    tim = client(service, quota_on(lasting), LIMIT)
    await tim.get_all_c2c_unread_msg_num("alice")
    monkeypatch.setattr(redis.asyncio.Redis, "aclose", broken)
    await tim.aclose()
    (record,) = [record for record in caplog.records if record.exc_info is not None]
    assert re.fullmatch(r"closing the connections to the shared quota at RedisQuota\(.*\) failed", record.message)
