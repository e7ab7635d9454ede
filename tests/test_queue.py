"""The request queue of an endpoint: lanes, order, cancellation, pauses, deadlines, closing."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest

from tim_async._lanes import Lane
from tim_async._limiter.local import LocalLimiter, Permit
from tim_async._limiter.queue import Connections, RequestQueue
from tim_async.errors import ClientClosed, ConnectFailed, QuotaExhausted

from . import virtual_time


async def enter_and_leave(
    queue: RequestQueue, log: list[object], name: object, lane: Lane = Lane.INTERACTIVE, *, again: bool = False
) -> None:
    """Enter, log the name, and leave."""
    sent = await queue.enter(lane, again)
    log.append(name)
    queue.leave(sent, answered=True)


async def filled(limit: int = 4) -> RequestQueue:
    """Return a queue whose slots are all in flight, so that the next caller must wait."""
    queue = RequestQueue(limit)
    for _ in range(limit):
        await queue.enter()
    return queue


def release(queue: RequestQueue, count: int = 4) -> None:
    """Leave for the calls in flight, as answered."""
    for _ in range(count):
        queue.leave(Permit(queue.now()), answered=True)


def test_a_lane_is_first_in_first_out() -> None:
    """A thousand callers leave the queue in the order in which they joined it."""

    async def run() -> list[object]:
        queue, log = await filled(), list[object]()
        tasks = [asyncio.create_task(enter_and_leave(queue, log, n)) for n in range(1000)]
        await asyncio.sleep(0)
        release(queue)
        await asyncio.gather(*tasks)
        return log

    assert virtual_time.run(run()) == list(range(1000))


def test_new_callers_do_not_overtake_waiting_ones_on_a_busy_loop() -> None:
    """Callers that arrive while the loop is blocked get permits in the order of arrival."""

    async def run() -> list[object]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        queue, log = RequestQueue(50), list[object]()
        tasks: list[asyncio.Task[None]] = []

        async def arrivals() -> None:
            for n in range(300):
                tasks.append(asyncio.create_task(enter_and_leave(queue, log, n)))
                loop.now += random.Random(n).choice((0.0, 0.001, 0.02))  # the loop was blocked meanwhile
                await asyncio.sleep(0)

        await arrivals()
        await asyncio.gather(*tasks)
        return log

    assert virtual_time.run(run()) == list(range(300))


def test_interactive_calls_precede_bulk_ones_and_retries_precede_first_attempts() -> None:
    """The order of arrival does not matter between the four classes of callers."""

    async def run() -> list[object]:
        queue, log = await filled(), list[object]()
        tasks = [
            asyncio.create_task(enter_and_leave(queue, log, "bulk", Lane.BULK)),
            asyncio.create_task(enter_and_leave(queue, log, "bulk again", Lane.BULK, again=True)),
            asyncio.create_task(enter_and_leave(queue, log, "user")),
            asyncio.create_task(enter_and_leave(queue, log, "user again", again=True)),
        ]
        await asyncio.sleep(0)
        release(queue)
        await asyncio.gather(*tasks)
        return log

    assert virtual_time.run(run()) == ["user again", "user", "bulk again", "bulk"]


def test_cancelled_waiters_leave_the_queue_at_once() -> None:
    """1,000 of 10,000 are cancelled; all others get permits, in order, and the queue is empty in the end."""

    async def run() -> tuple[list[object], int, int]:
        queue, log = await filled(200), list[object]()
        tasks = [asyncio.create_task(enter_and_leave(queue, log, n)) for n in range(10_000)]
        await asyncio.sleep(0)
        for task in tasks[::10]:
            task.cancel()
        await asyncio.sleep(0)
        waiting = queue.waiting
        release(queue, 200)
        await asyncio.gather(*tasks, return_exceptions=True)
        return log, waiting, queue.waiting

    log, waiting, left = virtual_time.run(run())
    assert log == [n for n in range(10_000) if n % 10]
    assert waiting == 9_000
    assert left == 0


@pytest.mark.parametrize("steps", range(6))
def test_a_waiter_cancelled_at_any_moment_leaks_no_slot(steps: int) -> None:
    """Neither does one that has a permit and has not woken yet."""

    async def run() -> int:
        queue = await filled(1)
        first = asyncio.create_task(enter_and_leave(queue, [], "first"))
        await asyncio.sleep(0)
        queue.leave(Permit(queue.now()), answered=True)
        await asyncio.sleep(0.99)
        for _ in range(steps):
            await asyncio.sleep(0.005)
        first.cancel()
        passed = list[object]()
        for n in range(3):
            await asyncio.wait_for(enter_and_leave(queue, passed, n), 60)
        return len(passed)

    assert virtual_time.run(run()) == 3


def test_a_waiter_cancelled_between_its_permit_and_its_wakeup_frees_its_slot_at_once() -> None:
    """Its call was never sent, so the next caller gets the slot without the wait of a second."""

    async def run() -> tuple[list[object], float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        queue, log = RequestQueue(1), list[object]()
        queue.pause(1)
        first = asyncio.create_task(enter_and_leave(queue, log, "first"))
        second = asyncio.create_task(enter_and_leave(queue, log, "second"))
        await asyncio.sleep(0)
        loop.now += 1
        queue.advance()
        assert queue.waiting == 1
        first.cancel()
        await second
        await asyncio.gather(first, return_exceptions=True)
        return log, loop.now - 1001.0

    log, waited = virtual_time.run(run())
    assert log == ["second"]
    assert waited < 0.1


def test_a_caller_cancelled_in_the_very_moment_its_wait_ends_in_an_error_is_cancelled() -> None:
    """No error takes the place of a cancellation."""

    async def run() -> None:
        queue = RequestQueue(1)
        queue.pause(1)
        caller = asyncio.create_task(queue.enter())
        await asyncio.sleep(0)
        queue.close()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

    virtual_time.run(run())


def test_a_pause_is_not_shortened() -> None:
    """Neither a shorter pause nor a success ends a longer one."""

    async def run() -> float:
        queue = RequestQueue(200)
        start, sent = queue.now(), await queue.enter()
        queue.pause(5)
        queue.pause(1)
        queue.leave(sent, answered=True)
        again = await queue.enter()
        queue.leave(again, answered=True)
        return again.sent - start

    assert virtual_time.run(run()) == pytest.approx(5, abs=0.001)


def test_a_pause_is_capped_at_a_minute() -> None:
    """A gateway may ask for any time."""

    async def run() -> float:
        queue = RequestQueue(200)
        start = queue.now()
        queue.pause(86_400)
        return (await queue.enter()).sent - start

    assert virtual_time.run(run()) == pytest.approx(60, abs=0.001)


def test_a_paused_endpoint_does_not_slow_another() -> None:
    """Not even one that shares its few connections."""

    async def run() -> float:
        connections = Connections(2)
        paused, free = RequestQueue(200, connections=connections), RequestQueue(200, connections=connections)
        paused.pause(30)
        waiting = [asyncio.create_task(enter_and_leave(paused, [], n)) for n in range(10)]
        await asyncio.sleep(0)
        start, log = free.now(), list[object]()
        for n in range(100):
            await enter_and_leave(free, log, n)
        elapsed = free.now() - start
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return elapsed

    assert virtual_time.run(run()) < 0.6


def test_connections_limit_the_calls_in_flight_of_all_endpoints() -> None:
    """Four endpoints, three connections: never more than three calls in flight, and every call succeeds."""

    async def run() -> tuple[int, int]:
        connections = Connections(3)
        queues = [RequestQueue(200, connections=connections) for _ in range(4)]
        now = most = done = 0

        async def call(queue: RequestQueue) -> None:
            nonlocal now, most, done
            sent = await queue.enter()
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1
            done += 1
            queue.leave(sent, answered=True)

        await asyncio.gather(*(call(queue) for queue in queues for _ in range(50)))
        return most, done

    assert virtual_time.run(run()) == (3, 200)


def test_a_free_connection_goes_to_an_endpoint_that_can_use_it() -> None:
    """The endpoint that has waited longest has lost its only caller; the next endpoint gets the connection."""

    async def run() -> list[object]:
        connections, log = Connections(1), list[object]()
        holder, gone, waiting = (RequestQueue(200, connections=connections) for _ in range(3))
        sent = await holder.enter()
        first = asyncio.create_task(enter_and_leave(gone, log, "gone"))
        await asyncio.sleep(0)
        second = asyncio.create_task(enter_and_leave(waiting, log, "waiting"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        holder.leave(sent, answered=True)
        await second
        return log

    assert virtual_time.run(run()) == ["waiting"]


def test_a_free_connection_goes_to_the_endpoint_that_has_waited_longest() -> None:
    """And connections that nobody waits for are free again, all of them."""

    async def run() -> tuple[list[object], int]:
        connections, log = Connections(3), list[object]()
        queue, *others = (RequestQueue(200, connections=connections) for _ in range(4))
        permits = [await queue.enter() for _ in range(3)]
        calls = []
        for name, other in enumerate(others):
            calls.append(asyncio.create_task(enter_and_leave(other, log, name)))
            await asyncio.sleep(0)
        for permit in permits:
            queue.leave(permit, answered=True)
        await asyncio.gather(*calls)
        free = 0
        while connections.free(queue):
            connections.take()
            free += 1
        return log, free

    assert virtual_time.run(run()) == ([0, 1, 2], 3)


@pytest.mark.parametrize("lane", Lane)
def test_closing_raises_a_separate_error_in_each_waiting_caller(lane: Lane) -> None:
    """It is a ConnectFailed: nothing was sent."""

    async def run() -> list[object]:
        queue = await filled()
        tasks = [asyncio.create_task(queue.enter(lane)) for _ in range(3)]
        await asyncio.sleep(0)
        queue.close()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    errors = virtual_time.run(run())
    assert all(isinstance(error, ConnectFailed) for error in errors)
    assert len({id(error) for error in errors}) == 3


def test_a_defect_of_the_limiter_is_raised_in_the_waiting_caller() -> None:
    """It would otherwise wait forever; the next caller gets its permit."""

    class Defective(LocalLimiter):
        failed = False

        def take(self, now: float) -> Permit:
            if asyncio.get_running_loop().time() > 1000.0 and not self.failed:
                self.failed = True
                raise RuntimeError("a defect")
            return super().take(now)

    async def run() -> None:
        queue = RequestQueue(1, limiter=lambda _: Defective(1))
        queue.leave(await queue.enter(), answered=True)
        first, second = asyncio.create_task(queue.enter()), asyncio.create_task(queue.enter())
        with pytest.raises(RuntimeError, match="a defect"):
            await first
        queue.leave(await second, answered=True)

    virtual_time.run(run())


def test_calls_continue_at_the_least_rate() -> None:
    """They are some tens of milliseconds apart."""

    async def run() -> float:
        queue = RequestQueue(200)
        sent = await queue.enter()
        for _ in range(200):
            queue.refused(sent)
        start = queue.now()
        for _ in range(20):
            queue.leave(await queue.enter(), answered=True)
        return (queue.now() - start) / 20

    assert 0.02 < virtual_time.run(run()) < 0.06


@pytest.mark.parametrize("limit", [1, 2, 7, 200, 5000])
def test_calls_continue_at_the_least_rate_of_any_limit(limit: int) -> None:
    """However many calls are refused, a call never costs more than the bucket holds."""

    async def run() -> float:
        queue = RequestQueue(limit)
        for _ in range(8):
            sent = await queue.enter()
            queue.leave(sent, answered=True)
            for _ in range(2 * limit):
                queue.refused(sent)
            await asyncio.sleep(1.01)
        start = queue.now()
        for _ in range(5):
            queue.leave(await queue.enter(), answered=True)
        return queue.now() - start

    assert virtual_time.run(run()) < 5 * 25 / limit + 0.01


class PlainHandle(asyncio.Handle):
    """A timer's handle without `when`."""

    def __init__(self, handle: asyncio.Handle, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(handle.cancel, (), loop)
        self._handle = handle

    def cancel(self) -> None:
        self._handle.cancel()
        super().cancel()


class CoarseLoop(virtual_time.VirtualTimeLoop):
    """Like uvloop: its clock and its timers have a resolution of 1 ms, and its timers have plain handles."""

    def time(self) -> float:
        return round(super().time() * 1e3) / 1e3

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        when = round(when * 1e3) / 1e3
        if when <= self.time():
            return PlainHandle(self.call_soon(callback, *args, context=context), self)
        return PlainHandle(super().call_at(when, callback, *args, context=context), self)


def test_the_queue_works_on_a_loop_with_a_coarse_clock_and_plain_handles() -> None:
    """Callers either get a permit or QuotaExhausted, and the limit is kept."""

    async def run() -> tuple[list[float], set[type[BaseException] | None]]:
        queue, sent = RequestQueue(20), list[float]()

        async def call() -> None:
            permit = await queue.enter(max_wait=0.1)
            sent.append(queue.now())
            await asyncio.sleep(0.0004)
            queue.leave(permit, answered=True)

        tasks = []
        for _ in range(300):
            tasks.append(asyncio.create_task(call()))
            await asyncio.sleep(0.01)
        await asyncio.wait(tasks)
        return sent, {type(error) if (error := task.exception()) else None for task in tasks}

    with asyncio.Runner(loop_factory=CoarseLoop) as runner:
        sent, ends = runner.run(run())
    assert ends == {None, QuotaExhausted}
    assert len(sent) >= 55
    assert all(later - earlier >= 1.0 for earlier, later in zip(sent, sent[20:], strict=False))


# Times and errors that callers get


def test_leave_returns_the_duration_of_the_attempt() -> None:
    """After a wait, it counts from the caller's wakeup."""

    async def run() -> None:
        queue = RequestQueue(200)
        permit = await queue.enter()
        assert permit.sent == queue.now() == 1000.0
        await asyncio.sleep(0.25)
        assert queue.leave(permit, answered=True) == pytest.approx(0.25)
        queue.pause(1)
        permit = await queue.enter()
        assert permit.sent == queue.now() == pytest.approx(1001.25)
        await asyncio.sleep(0.5)
        assert queue.leave(permit, answered=False) == pytest.approx(0.5)

    virtual_time.run(run())


@pytest.mark.parametrize(("max_wait", "permitted"), [(9.9, False), (10.1, True), (math.inf, True)])
def test_a_pause_beyond_max_wait_raises_quota_exhausted_at_once(max_wait: float, permitted: bool) -> None:
    async def run() -> None:
        queue = RequestQueue(200)
        queue.slow_down(0.5)  # a lower rate makes no difference
        queue.pause(10)
        assert queue.opens_at() == 1010.0
        if permitted:
            assert (await queue.enter(max_wait=max_wait)).sent == pytest.approx(1010.0)
        else:
            with pytest.raises(QuotaExhausted, match=r"^no permit within max_wait; try again in 0\.1 s$"):
                await queue.enter(max_wait=max_wait)
            assert queue.now() == 1000.0

    virtual_time.run(run())


@pytest.mark.parametrize(
    ("lane", "again", "ahead"),
    [(Lane.INTERACTIVE, True, 1), (Lane.INTERACTIVE, False, 3), (Lane.BULK, True, 7), (Lane.BULK, False, 15)],
)
def test_the_expected_wait_counts_all_callers_ahead(lane: Lane, again: bool, ahead: int) -> None:
    """The next permit comes at the end of the pause; each caller ahead adds the reciprocal of the rate."""

    async def run() -> None:
        queue = RequestQueue(20)
        queue.pause(10)
        callers = [
            asyncio.create_task(queue.enter(*place))
            for place, count in (
                ((Lane.INTERACTIVE, True), 1),
                ((Lane.INTERACTIVE, False), 2),
                ((Lane.BULK, True), 4),
                ((Lane.BULK, False), 8),
            )
            for _ in range(count)
        ]
        await asyncio.sleep(0)
        assert (queue.waiting, queue.queued(Lane.INTERACTIVE), queue.queued(Lane.BULK)) == (15, 3, 12)
        with pytest.raises(QuotaExhausted) as raised:
            await queue.enter(lane, again, max_wait=1.0)
        assert raised.value.retry_after == pytest.approx(10 - 1 + ahead / 20)
        assert queue.waiting == 15
        queue.close()
        assert queue.waiting == queue.queued(Lane.INTERACTIVE) == queue.queued(Lane.BULK) == 0
        errors = await asyncio.gather(*callers, return_exceptions=True)
        assert {str(error) for error in errors} == {"the client was closed"}

    virtual_time.run(run())


def test_a_longer_pause_ends_the_wait_of_callers_that_it_would_make_late_and_of_no_other() -> None:
    async def run() -> None:
        queue = RequestQueue(200)
        queue.pause(1)
        hurried = [asyncio.create_task(queue.enter(max_wait=2)) for _ in range(2)]
        patient = asyncio.create_task(queue.enter())
        await asyncio.sleep(0)
        queue.pause(10)
        for caller in hurried:
            with pytest.raises(QuotaExhausted) as raised:
                await caller
            assert queue.now() == pytest.approx(1001)
            assert raised.value.retry_after == pytest.approx(9)
        assert (await patient).sent == pytest.approx(1010)

    virtual_time.run(run())


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("lane", Lane)
def test_the_limiter_is_asked_for_the_lane_of_the_head(lane: Lane, again: bool) -> None:
    """A store keeps bulk to its share."""
    asked = set[Lane]()

    class Asked(LocalLimiter):
        def wait(self, now: float, lane: Lane) -> float:
            asked.add(lane)
            return super().wait(now, lane)

    async def run() -> None:
        queue = RequestQueue(200, limiter=lambda _: Asked(200))
        queue.pause(1)
        await queue.enter(lane, again)

    virtual_time.run(run())
    assert asked == {lane}


@pytest.mark.parametrize(("strict", "calls"), [(False, 20), (True, 8)])
def test_a_strict_queue_lets_fewer_calls_go_at_once(strict: bool, calls: int) -> None:
    async def run() -> None:
        queue = RequestQueue(400, strict=strict)
        begin, sent = queue.now(), list[float]()
        for _ in range(30):
            sent.append((await queue.enter()).sent)
        assert sent.count(begin) == calls

    virtual_time.run(run())


def test_quota_exhausted_says_when_there_may_be_a_permit() -> None:
    """Not before the reciprocal of the rate, also where the wait cannot be computed; callers behind it stay queued."""

    async def run() -> None:
        queue = await filled(4)
        ahead = asyncio.create_task(queue.enter(max_wait=0.5))
        behind = [asyncio.create_task(queue.enter(Lane.BULK)) for _ in range(3)]
        with pytest.raises(QuotaExhausted) as raised:
            await ahead
        assert queue.now() == pytest.approx(1000.5)
        assert raised.value.retry_after == pytest.approx(1 / 4)
        assert queue.waiting == 3
        assert queue.head_deadline() == math.inf
        release(queue)
        await asyncio.gather(*behind)

    virtual_time.run(run())


def test_the_deadline_of_a_queue_is_that_of_its_head() -> None:
    async def run() -> None:
        queue = RequestQueue(200)
        assert queue.head_deadline() == math.inf
        queue.pause(1)
        places = ((Lane.BULK, False, 3.0), (Lane.BULK, True, 4.0), (Lane.INTERACTIVE, False, 5.0), (0, True, math.inf))
        callers = []
        for lane, again, max_wait in places:
            callers.append(asyncio.create_task(queue.enter(Lane(lane), again, max_wait)))
            await asyncio.sleep(0)
            assert queue.head_deadline() == 1000.0 + max_wait
        await asyncio.gather(*callers)

    virtual_time.run(run())


class ShortGrace(LocalLimiter):
    """A limiter whose permits are valid for a tenth of a second."""

    grace = 0.1


@pytest.mark.parametrize("late", [0.1, 0.2])
def test_an_expired_permit_is_returned_and_another_one_taken(late: float) -> None:
    """The loop was blocked between the grant and the caller's wakeup; the slot of the expired permit is free again."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        connections = Connections(1)
        queue = RequestQueue(1, connections=connections, limiter=lambda _: ShortGrace(1))
        queue.pause(1)
        caller = asyncio.create_task(queue.enter())
        await asyncio.sleep(0)
        loop.now = 1001.0
        queue.advance()
        loop.now = 1001.0 + late - 1e-9
        permit = await caller
        assert permit.sent == pytest.approx(1001.0 + late)
        queue.leave(permit, answered=True)
        assert queue.waiting == 0
        assert (await queue.enter()).sent == pytest.approx(1002.0 + late, abs=0.01)

    virtual_time.run(run())


def test_an_expired_permit_of_a_closed_queue_raises_client_closed() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        queue = RequestQueue(1, limiter=lambda _: ShortGrace(1))
        queue.pause(1)
        caller = asyncio.create_task(queue.enter())
        await asyncio.sleep(0)
        loop.now = 1001.0
        queue.advance()
        queue.close()
        loop.now = 1001.2
        with pytest.raises(ClientClosed, match=r"^the client was closed$"):
            await caller

    virtual_time.run(run())


@pytest.mark.parametrize("lane", Lane)
@pytest.mark.parametrize("max_wait", [1.1, 1.9, math.inf])
def test_a_caller_with_an_expired_permit_keeps_its_place(lane: Lane, max_wait: float) -> None:
    """It is the head again: no later caller gets the permit that it returns."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        queue, log = RequestQueue(1, limiter=lambda _: ShortGrace(1)), list[object]()

        async def call(name: object, max_wait: float = math.inf) -> None:
            permit = await queue.enter(lane, max_wait=max_wait)
            log.append((name, round(queue.now(), 2)))
            queue.leave(permit, answered=True)

        queue.pause(1)
        late = asyncio.create_task(call("late", max_wait))
        await asyncio.sleep(0)
        others = [asyncio.create_task(call(name)) for name in ("second", "third")]
        await asyncio.sleep(0)
        loop.now = 1001.0
        queue.advance()
        loop.now = 1001.2
        await asyncio.gather(late, *others)
        assert log == [("late", 1001.2), ("second", 1002.2), ("third", 1003.2)]

    virtual_time.run(run())


def test_a_caller_with_an_expired_permit_keeps_its_deadline() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        connections = Connections(1)
        queue = RequestQueue(1, connections=connections, limiter=lambda _: ShortGrace(1))
        queue.pause(1)
        late = asyncio.create_task(queue.enter(max_wait=1.9))
        await asyncio.sleep(0)
        loop.now = 1001.0
        queue.advance()
        queue.pause(4)
        loop.now = 1001.2
        with pytest.raises(QuotaExhausted):
            await late
        assert queue.now() <= 1001.9
        assert connections.free(queue), "the returned connection is free"
        assert queue.waiting == 0

    virtual_time.run(run())


def test_a_free_permit_is_taken_without_a_loop_iteration() -> None:
    """Also after other callers have waited and left."""

    async def run() -> None:
        queue = RequestQueue(200)
        queue.pause(1)
        await asyncio.gather(*(enter_and_leave(queue, [], n) for n in range(3)))
        with pytest.raises(StopIteration) as returned:
            queue.enter().send(None)
        queue.leave(returned.value.value, answered=True)

    virtual_time.run(run())


def test_closing_fails_the_callers_of_a_lane_in_order() -> None:
    async def run() -> list[object]:
        queue, log = RequestQueue(200), list[object]()
        queue.pause(1)

        async def call(name: object) -> None:
            with pytest.raises(ClientClosed):
                await queue.enter()
            log.append(name)

        calls = [asyncio.create_task(call(n)) for n in range(5)]
        await asyncio.sleep(0)
        queue.close()
        await asyncio.gather(*calls)
        return log

    assert virtual_time.run(run()) == list(range(5))
