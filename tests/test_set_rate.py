"""Rates that change at run time: `TIMClient.set_rate` and the limiter's `set_limit`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tim_async import ClientClosed, Lane
from tim_async._limiter.learning import Credit
from tim_async._limiter.local import LocalLimiter
from tim_async._limiter.queue import RequestQueue
from tim_async.emulator._windows import Bucket, Window, WindowKind
from tim_async.endpoints import GET_GROUP_INFO, SET_UNREAD_MSG_NUM

from . import virtual_time
from .hypotheses import at_most
from .stand_in import StandIn, client_of
from .test_pacing import Delay, lognormal

SET = SET_UNREAD_MSG_NUM.name


class Call:
    """One call of a simulation.

    Attributes:
        sent: the time at which it was sent, seconds since the start.
        limit: the limit before that time: a permit granted in the iteration of a change may come before it.
        arrived: the time of its arrival at the server.
    """

    def __init__(self, sent: float, limit: int) -> None:
        self.sent = sent
        self.limit = limit
        self.arrived = sent


def simulate(
    seconds: float,
    delay: Delay,
    changes: list[tuple[float, int]],
    *,
    strict: bool,
    admit: Callable[[float], bool] = lambda now: True,
) -> list[Call]:
    """Saturate a queue whose limit changes at the given times, the first at 0; return the calls by arrival."""
    calls: list[Call] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        queue = RequestQueue(changes[0][1], strict=strict)
        for at, to in changes[1:]:
            loop.call_at(start + at, queue.set_limit, to)

        async def caller() -> None:
            while loop.time() < start + seconds:
                permit = await queue.enter(Lane.BULK)
                made = [to for at, to in changes[1:] if start + at < permit.sent]
                call = Call(permit.sent - start, made[-1] if made else changes[0][1])
                there, back = delay()
                await asyncio.sleep(there)
                call.arrived = loop.time() - start
                calls.append(call)
                taken = admit(loop.time())
                await asyncio.sleep(back)
                queue.leave(permit, answered=True)
                if not taken:
                    queue.refused(permit)

        async with asyncio.TaskGroup() as group:
            for _ in range(2 * max(to for _, to in changes)):
                group.create_task(caller())

    virtual_time.run(run(), resolution=0.0 if strict else 1e-3)
    return calls


@at_most(50)
@given(
    delays=st.lists(st.tuples(st.floats(0, 1.5), st.floats(0, 1.5)), min_size=1, max_size=20),
    first=st.integers(1, 30),
    # A loop runs timers of the same time in any order.
    changes=st.lists(
        st.tuples(st.integers(0, 4000).map(lambda ms: ms / 1000), st.integers(1, 30)),
        max_size=4,
        unique_by=lambda one: one[0],
    ),
)
@example(delays=[(0.0, 0.0)], first=21, changes=[(1 / 3, 1)])
@example(delays=[(0.0, 0.0)], first=21, changes=[(0.0, 1)])
def test_no_second_holds_more_than_the_limit_of_its_last_call(
    delays: list[tuple[float, float]], first: int, changes: list[tuple[float, int]]
) -> None:
    """Under strict and any delays; a second across a change may hold as many as the limit of its last call."""
    chosen = random.Random(len(delays))
    calls = simulate(5, lambda: chosen.choice(delays), [(0.0, first), *sorted(changes)], strict=True)
    for index, one in enumerate(calls):
        second = [each for each in calls[index:] if each.arrived < one.arrived + 1.0]
        assert len(second) <= max(second, key=lambda each: each.sent).limit


class Server(Window):
    """A window whose limit can change."""

    def change(self, limit: int) -> None:
        self._capacity = limit
        if isinstance(self._counter, Bucket):
            self._counter._rate = limit


@pytest.mark.parametrize(("before", "after"), [(100, 300), (300, 100)])
@pytest.mark.parametrize("kind", get_args(WindowKind))
def test_a_new_limit_is_used_at_once_without_refusals(kind: WindowKind, before: int, after: int) -> None:
    """Of a server whose limit changes at the same time, except for refusals of calls in flight."""
    changed, end = 10.3, 16.0
    calls = simulate(end, lognormal(3, 0.05, 0.3), [(0.0, before), (changed, after)], strict=False)
    server, refused = Server(kind, before), list[Call]()
    for call in calls:
        if call.arrived >= changed:
            server.change(after)
        if not server.admit(1000.0 + call.arrived):
            refused.append(call)
    assert all(call.sent < changed <= call.arrived and after < before for call in refused)
    in_time = sum(changed + 1.1 <= call.arrived < end for call in calls)
    assert in_time > 0.94 * after * (end - changed - 1.1)
    if after > before:
        assert sum(changed <= call.arrived < changed + 1.0 for call in calls) > 0.9 * after, "the new slots are used"
    else:
        assert sum(changed + 0.1 <= call.arrived < changed + 1.1 for call in calls) < after


def test_a_new_limit_keeps_the_learned_rate_and_ignores_refusals_of_earlier_calls() -> None:
    async def run() -> None:
        queue = RequestQueue(200)
        sent = [await queue.enter() for _ in range(30)]
        await asyncio.sleep(0.01)
        queue.set_limit(150)
        for permit in sent:
            queue.leave(permit, answered=True)
            queue.refused(permit)
        assert queue.rate == 150
        await asyncio.sleep(1.1)
        queue.slow_down(0.6)
        low = queue.rate
        assert low == pytest.approx(0.97 * 0.6 * 150)
        for limit, rate in ((400, low), (60, 60), (200, 60)):
            queue.set_limit(limit)
            assert queue.rate == pytest.approx(rate)
        await asyncio.sleep(15.0)
        assert queue.rate == 200

    virtual_time.run(run())


def test_a_new_limit_adds_no_second_burst() -> None:
    async def run() -> None:
        now, limiter = asyncio.get_running_loop().time(), LocalLimiter(200)
        while limiter.wait(now, Lane.BULK) == 0.0:
            limiter.take(now)
        limiter.set_limit(400)
        assert limiter.wait(now, Lane.BULK) > 0.0
        await asyncio.sleep(0.1)
        assert limiter.wait(now + 0.1, Lane.BULK) == 0.0

    virtual_time.run(run())


def test_a_lower_limit_resets_the_credit_to_the_smallest_round_trip() -> None:
    """With fewer slots, the spread averages out less; a higher limit keeps the credit."""

    async def run() -> None:
        limiter = LocalLimiter(200)
        for number in range(4000):
            limiter._credit.answered(0.1 + 0.05 * (number % 3 > 0), 200, saturated=True)
        limiter.set_limit(300)
        learned = limiter._credit.value
        limiter.set_limit(200)
        assert learned > limiter._credit.value == pytest.approx(0.9 * 0.1 - Credit.SLACK)

    virtual_time.run(run())


def test_a_call_gets_its_permit_after_any_change_of_a_lowered_rate() -> None:
    """The bucket holds at least the cost of a call at the least rate."""

    async def run() -> None:
        loop, limiter = asyncio.get_running_loop(), LocalLimiter(1000)
        for _ in range(20):
            limiter.slow_down(0.4, loop.time())
            limiter.refused(loop.time(), loop.time())
            await asyncio.sleep(1.0)
        for limit in (5000, 1, 20, 3):
            limiter.set_limit(limit)
            await asyncio.sleep(1.0)
            assert limiter.wait(loop.time(), Lane.BULK) == 0.0

    virtual_time.run(run())


def test_waiting_calls_get_permits_at_the_new_rate() -> None:
    """At the old rate, the next slot would be free a second later."""

    async def run() -> None:
        loop, queue = asyncio.get_running_loop(), RequestQueue(1)
        queue.leave(await queue.enter(), answered=True)
        start = loop.time()
        waiting = [asyncio.create_task(queue.enter()) for _ in range(50)]
        await asyncio.sleep(0.1)
        assert queue.waiting == 50
        queue.set_limit(100)
        for permit in await asyncio.gather(*waiting):
            queue.leave(permit, answered=True)
        assert 0.3 < loop.time() - start < 0.7, "no burst"

    virtual_time.run(run())


# The client


@pytest.mark.parametrize("rate", [10**6, 10**9, 1e300])
async def test_a_very_high_rate_takes_few_steps(service: StandIn, monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    """The bucket is emptied in large steps, since single permits would be refilled faster than they are taken."""
    acquire, steps = LocalLimiter._acquire, [0]

    def counted(limiter: LocalLimiter, amount: float) -> None:
        steps[0] += 1
        assert steps[0] < 10_000
        acquire(limiter, amount)

    monkeypatch.setattr(LocalLimiter, "_acquire", counted)
    async with client_of(service) as tim:
        tim.set_rate(SET, rate)
        await tim.set_unread_msg_num("g", "alice", 1)
        assert tim.stats()[SET].limit == rate


async def test_set_rate_changes_the_rate_of_one_endpoint(service: StandIn) -> None:
    """By its name or command, before or after its first call, from the client or a view."""
    async with client_of(service, rates={SET: 50}) as tim:
        tim.set_rate(SET, 300)
        assert tim.stats()[SET].rate == 300
        await tim.set_unread_msg_num("g", "alice", 1)
        tim.with_options(lane=Lane.BULK).set_rate(SET_UNREAD_MSG_NUM.command, 4.5)
        tim.set_rate("get_group_info", 20)
        rates = {name: figures.rate for name, figures in tim.stats().items()}
        assert (rates.pop(SET), rates.pop(GET_GROUP_INFO.command), set(rates.values())) == (4.5, 20, {200})
        # No public name shows the budget, of which a tenth of the rate is refilled each second.
        assert tim._caller.channel(SET_UNREAD_MSG_NUM).budget.per_second == 0.45
    with pytest.raises(ClientClosed):
        tim.set_rate(SET, 100)


@pytest.mark.parametrize(
    ("method", "rate", "options", "kind", "words"),
    [
        (SET, 0.5, {}, ValueError, "at least 1"),
        (SET, float("inf"), {}, ValueError, "finite"),
        (SET, True, {}, TypeError, "bool"),
        (SET, "100", {}, TypeError, "str"),
        ("set_unread", 100, {}, ValueError, "no endpoint 'set_unread'"),
        (SET, 100, {"bulk_share": 0.5}, ValueError, "quota"),
        (SET, 100, {"bulk_share": 0}, ValueError, "above 0"),
        (SET, 100, {"bulk_share": 1.1}, ValueError, "at most 1"),
        (SET, 100, {"bulk_share": "half"}, TypeError, "str"),
    ],
)
async def test_a_bad_argument_of_set_rate_changes_nothing(
    service: StandIn, method: str, rate: Any, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    async with client_of(service) as tim:
        with pytest.raises(kind, match=words):
            tim.set_rate(method, rate, **options)
        assert {figures.rate for figures in tim.stats().values()} == {200}
