"""The exchange with the store ends at any step, in any way: it is noticed, and no later call hangs.

The tests with `FakeStore` look inside, at `SharedLimiter`: only without sockets can every step of the loop be a moment
at which all tasks are cancelled, and the rest be virtual time.
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
from tim_async.quota import RedisQuota

from .support import NAME, calling, client, limiter_of, quota_on, until

LIMIT = 50
OVERDUE = 2.5
# Also where the loop of the suite does without.
FACTORIES: list[Any] = [None]
if sys.version_info >= (3, 12):

    def eager(loop: Any, coro: Any, *, name: Any = None, context: Any = None, **_: Any) -> asyncio.Task[Any]:
        """Start a task at once; uvloop hands on options that not every Python's own factory takes."""
        return asyncio.Task(coro, loop=loop, name=name, context=context, eager_start=True)

    FACTORIES.append(eager)

MANNERS = ("answers", "away", "defect", "stubborn", "deaf")
"""How an exchange ends without being cancelled; the last two swallow a cancellation, or all of them."""


class FakeStore:
    """Grants what is asked, after some steps of the loop; or behaves in another manner."""

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
            case "away":
                raise StoreUnavailable
            case "defect":
                raise TypeError("a defect")
        wanted = request.get("wanted", 0)
        return Reply(request["number"], "1", limit=LIMIT, rate=LIMIT, permits=((0.0, wanted),) if wanted else ())


def gated(store: FakeStore, alone: float | None) -> tuple[RequestQueue, SharedLimiter]:
    """A limiter that calls by a share of its own without the store; not at all where that is None."""
    return limiter_of(store.exchange, LIMIT, shares=Shares(fallback=alone, fail_closed=alone is None), overdue=OVERDUE)


def others() -> set[asyncio.Task[Any]]:
    """All tasks but this one and those of servers."""
    return {
        task
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task()
        and not {"_talk", "_accept_connection2"} & {*re.findall(r"\w+", repr(task))}
    }


def cancel_all() -> None:
    for task in others():
        task.cancel()


async def settled(limiter: SharedLimiter) -> None:
    """The store has been reached, and knows all there is to know."""
    while not limiter.shared or limiter._pending:  # noqa: ASYNC110 - no event says so
        await asyncio.sleep(0.1)


async def call(queue: RequestQueue) -> None:
    permit = await queue.enter()
    await asyncio.sleep(0.01)
    queue.leave(permit, answered=True)


@given(
    blows=st.lists(st.tuples(st.sampled_from(MANNERS), st.integers(0, 6), st.integers(0, 12)), min_size=1, max_size=5),
    alone=st.sampled_from([None, 0.1]),
    factory=st.sampled_from(FACTORIES),
    refused=st.booleans(),
)
def test_every_task_is_cancelled_at_any_step_and_the_next_call_has_its_permit(
    blows: list[tuple[str, int, int]], alone: float | None, factory: Any, refused: bool
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        if factory is not None:
            loop.set_task_factory(factory)
        store = FakeStore()
        queue, limiter = gated(store, alone)
        calls: list[asyncio.Task[None]] = []
        for manner, length, steps in blows:
            store.manner, store.steps = manner, length
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
        queue.close()
        await limiter.finish()
        store.released.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert others() == set()

    virtual_time.run(main())


@pytest.mark.parametrize("manner", ["defect", "deaf"])
@pytest.mark.parametrize("alone", [None, 0.1])
def test_a_call_that_waits_is_not_held_up_by_a_conversation_that_is_dead(
    caplog: pytest.LogCaptureFixture, manner: str, alone: float | None
) -> None:
    """A defect is logged once, with its traceback, and then all is as without the store, until the store answers."""

    async def main() -> None:
        store = FakeStore()
        queue, limiter = gated(store, alone)
        store.manner = manner
        waiting = asyncio.create_task(call(queue))
        await asyncio.sleep(OVERDUE + 1.0)
        assert not limiter.shared
        assert waiting.done() is (alone is not None)
        store.manner = "answers"
        async with asyncio.timeout(OVERDUE + 1.0):
            await waiting
            await settled(limiter)
            await call(queue)
        queue.close()
        await limiter.finish()
        store.released.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert others() == set()

    virtual_time.run(main())
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == (manner == "defect")
    for record in errors:
        assert record.exc_info is not None
        assert record.exc_info[0] is TypeError


def test_what_has_ended_is_told_once_and_then_there_is_silence() -> None:
    """With the requests that are made anyway; and how many are out, with each."""

    async def main() -> None:
        store = FakeStore()
        queue, limiter = gated(store, 0.1)
        unused, flying = [await queue.enter() for _ in range(2)]
        limiter.release(unused, asyncio.get_running_loop().time(), Use.UNSENT)
        for _ in range(80):
            await call(queue)
        assert {request["out"] for request in store.requests[2:]} == {1}
        queue.leave(flying, answered=True)
        await asyncio.sleep(1.0)
        told = len(store.requests)
        await asyncio.sleep(10.0)
        assert len(store.requests) == told == 2 + 80 + 1
        freed = [calls for request in store.requests for _, _, calls in request.get("freed", ())]
        assert sum(freed) == 81
        assert store.requests[-1]["out"] == 0
        queue.close()
        await limiter.finish()

    virtual_time.run(main())


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.05])
def test_a_call_that_would_not_wait_is_served_when_there_is_no_other(delay: float) -> None:
    """Asking the store takes a round trip, which is no waiting."""

    async def main() -> None:
        store = FakeStore()
        queue, limiter = gated(store, 0.1)
        store.delay = delay
        for _ in range(3):
            await call(queue)  # the time to the store and back is learned
            await asyncio.sleep(1.0)
        queue.leave(await queue.enter(max_wait=0), answered=True)
        queue.close()
        await limiter.finish()

    virtual_time.run(main())


@pytest.mark.parametrize("manner", ["stubborn", "deaf"])
def test_closing_waits_for_no_exchange_that_does_not_end(manner: str) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        store = FakeStore()
        queue, limiter = gated(store, 0.1)
        await call(queue)  # there is something to tell
        store.manner = manner
        begin = loop.time()
        queue.close()
        await limiter.finish()
        store.released.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert others() == set()
        return loop.time() - begin

    assert virtual_time.run(main()) <= OVERDUE + 0.001


def test_closing_gives_up_an_exchange_that_is_under_way_and_does_not_end() -> None:
    """It is given its time once, not once more for what is left to tell."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        store = FakeStore()
        queue, limiter = gated(store, 0.1)
        await call(queue)
        store.manner = "deaf"
        limiter.refused(loop.time(), loop.time())  # is told at once
        await asyncio.sleep(0)
        begin = loop.time()
        queue.close()
        await limiter.finish()
        assert len(store.requests) == 2
        store.released.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert others() == set()
        return loop.time() - begin

    assert virtual_time.run(main()) == pytest.approx(OVERDUE)


def test_closing_that_is_cancelled_leaves_no_conversation() -> None:
    async def main() -> None:
        store = FakeStore()
        queue, limiter = gated(store, 0.1)
        await call(queue)
        store.steps = 1000
        queue.close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await limiter.finish()
        for _ in range(5):
            await asyncio.sleep(0)
        assert others() == set()

    virtual_time.run(main())


# With a real store.


@pytest.mark.parametrize("factory", FACTORIES)
async def test_a_connection_that_is_lost_is_replaced_within_a_second(
    service: StandIn, store: Store, factory: Any
) -> None:
    loop = asyncio.get_running_loop()
    if factory is not None:
        loop.set_task_factory(factory)
    quota = quota_on(store)
    with redis.Redis.from_url(store.url) as operator:
        async with client(service, quota, LIMIT) as tim, calling((tim, "alice")):
            for _ in range(5):
                seen = len(service.seen)
                await until(lambda: len(service.seen) > seen + 5)  # noqa: B023 - called at once
                operator.client_kill_filter(_type="normal", skipme=True)
                await until(lambda: tim.stats()[NAME].shared, 1.0)


@pytest.mark.parametrize("factory", FACTORIES)
async def test_every_task_is_cancelled_at_every_step_of_an_exchange_with_a_store(
    service: StandIn, lasting: Store, factory: Any
) -> None:
    loop = asyncio.get_running_loop()
    if factory is not None:
        loop.set_task_factory(factory)
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


async def test_closing_waits_for_no_driver_that_does_not_close(
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


async def test_a_driver_that_fails_to_close_is_named(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log, with its traceback: the client has closed all the same."""
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


def test_a_description_that_was_refused_can_be_shown() -> None:
    """Crash reporters show the locals of a frame, also of the constructor's own."""
    for url, options in ((5, {}), ("http://:secret@h", {}), ("redis://:secret@h", {"timeout": 0})):
        half_made = RedisQuota.__new__(RedisQuota)
        with pytest.raises((ValueError, TypeError)):
            half_made.__init__(url, **options)  # type: ignore[misc]
        assert "secret" not in repr(half_made)
