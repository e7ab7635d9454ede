"""The promise of the pace, in virtual time: against servers that count, over paths that jitter."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tim_async._lanes import Lane
from tim_async._limiter.learning import Credit, Rate
from tim_async._limiter.local import SECOND, Slots
from tim_async._limiter.queue import RequestQueue

from . import virtual_time

Delay = Callable[[], tuple[float, float]]


class CountingServer:
    """Accepts `limit` calls in any sliding second, and refuses the rest."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.window: deque[float] = deque()
        self.accepted: list[float] = []
        self.refused: list[float] = []

    def arrive(self, now: float) -> bool:
        """Count one arrival."""
        while self.window and self.window[0] <= now - 1.0:
            self.window.popleft()
        taken = len(self.window) < self.limit
        if taken:
            self.window.append(now)
        (self.accepted if taken else self.refused).append(now)
        return taken

    def accepted_between(self, start: float, end: float) -> float:
        """Calls a second taken in a span of time."""
        return sum(start <= at < end for at in self.accepted) / (end - start)


def fullest_second(arrivals: list[float]) -> int:
    """The most arrivals in any half-open second."""
    window: deque[float] = deque()
    fullest = 0
    for at in sorted(arrivals):
        while window and window[0] <= at - 1.0:
            window.popleft()
        window.append(at)
        fullest = max(fullest, len(window))
    return fullest


async def send(queue: RequestQueue, server: CountingServer, delay: Delay) -> bool:
    """One call over a path that takes its time both ways."""
    sent = await queue.enter(Lane.BULK)
    there, back = delay()
    await asyncio.sleep(there)
    taken = server.arrive(asyncio.get_running_loop().time())
    await asyncio.sleep(back)
    queue.leave(sent, answered=True)
    if not taken:
        queue.refused(sent)
    return taken


def saturated(
    seconds: float,
    delay: Delay,
    *,
    strict: bool = False,
    limit: int = 200,
    foreign: tuple[float, float, float] | None = None,
) -> tuple[CountingServer, float]:
    """As many callers as the limit, each calling again at once; gives the server and the time of the start."""

    async def run() -> tuple[CountingServer, float]:
        loop = asyncio.get_running_loop()
        queue, server, start = RequestQueue(limit, strict=strict), CountingServer(limit), loop.time()

        async def caller() -> None:
            while loop.time() < start + seconds:
                if not await send(queue, server, delay):
                    await asyncio.sleep(0.5)

        async def other_consumer(rate: float, begin: float, end: float) -> None:
            await asyncio.sleep(begin)
            while loop.time() < start + end:
                server.window.append(loop.time())
                await asyncio.sleep(1 / rate)

        async with asyncio.TaskGroup() as group:
            for _ in range(2 * limit):
                group.create_task(caller())
            if foreign is not None:
                group.create_task(other_consumer(*foreign))
        return server, start

    return virtual_time.run(run())


def lognormal(seed: int, mean: float, variation: float) -> Delay:
    """Both ways drawn independently, with half the mean round trip each."""
    source = random.Random(seed)
    sigma = math.sqrt(math.log(1 + variation**2))
    mu = math.log(mean / 2) - sigma**2 / 2
    return lambda: (source.lognormvariate(mu, sigma), source.lognormvariate(mu, sigma))


@settings(max_examples=25)
@given(
    delays=st.lists(st.tuples(st.floats(0, 1.5), st.floats(0, 1.5)), min_size=1, max_size=40),
    limit=st.integers(1, 30),
)
def test_strict_is_never_refused_whatever_the_delays(delays: list[tuple[float, float]], limit: int) -> None:
    """The proof holds: no sliding second at the server ever has more arrivals than the limit."""
    chosen = random.Random(len(delays))
    server, _ = saturated(5, lambda: chosen.choice(delays), strict=True, limit=limit)
    assert server.refused == []
    assert fullest_second(server.accepted) <= limit


@pytest.mark.parametrize(("mean", "variation"), [(0.005, 0.3), (0.05, 0.3), (0.2, 1.0)])
def test_strict_is_never_refused_at_the_full_rate(mean: float, variation: float) -> None:
    """The goodput of strict is what the proof leaves: the slots over a second and a round trip."""
    server, start = saturated(20, lognormal(1, mean, variation), strict=True)
    assert server.refused == []
    assert server.accepted_between(start + 5, start + 20) > 0.98 * 200 / (1 + mean)


@pytest.mark.parametrize(("mean", "least"), [(0.005, 0.985), (0.05, 0.96)])
def test_the_learning_pace_gets_nearly_all_and_is_hardly_refused(mean: float, least: float) -> None:
    """Over a minute: at most 1 refused in 1,000, and more than the proof alone would give."""
    server, start = saturated(60, lognormal(2, mean, 0.3))
    assert len(server.refused) <= (len(server.accepted) + len(server.refused)) / 1000
    assert server.accepted_between(start, start + 60) > least * 200


def test_the_first_second_is_not_a_burst() -> None:
    """A hundred callers at once are spread out, not sent at once."""

    async def run() -> list[float]:
        queue, loop = RequestQueue(200), asyncio.get_running_loop()
        start = loop.time()

        async def caller() -> float:
            sent = await queue.enter()
            queue.leave(sent, answered=True)
            return sent.sent - start

        return await asyncio.gather(*(caller() for _ in range(100)))

    sent = virtual_time.run(run())
    assert sum(at < 0.1 for at in sent) <= 10 + 22 + 1
    assert max(sent) == pytest.approx(100 / 220, abs=0.06)


def test_another_consumer_is_yielded_to_and_its_share_taken_back() -> None:
    """While another takes 80/s, few calls are refused; after it has gone the rate returns within seconds."""
    server, start = saturated(60, lognormal(3, 0.05, 0.3), foreign=(80, 10, 40))
    refused = sum(start + 20 <= at < start + 40 for at in server.refused)
    assert server.accepted_between(start + 20, start + 40) > 0.9 * 120
    assert refused < 0.05 * 20 * 120
    assert server.accepted_between(start + 50, start + 60) > 0.93 * 200


def test_a_stall_is_not_followed_by_more_than_the_limit() -> None:
    """The server reads nothing for a second, then everything at once: still at most 200 in any second."""
    resumes = 0.0

    async def run() -> list[float]:
        nonlocal resumes
        loop = asyncio.get_running_loop()
        queue, start, arrivals = RequestQueue(200), loop.time(), list[float]()
        stall, resumes = start + 3.0, start + 4.0

        async def caller() -> None:
            while loop.time() < start + 8:
                sent = await queue.enter()
                await asyncio.sleep(0.002)
                if stall <= loop.time() < resumes:
                    await asyncio.sleep(resumes - loop.time())
                arrivals.append(loop.time())
                await asyncio.sleep(0.003)
                queue.leave(sent, answered=True)

        async with asyncio.TaskGroup() as group:
            for _ in range(600):
                group.create_task(caller())
        return arrivals

    arrivals = virtual_time.run(run())
    assert fullest_second(arrivals) <= 200
    assert sum(resumes <= at < resumes + 4 for at in arrivals) > 0.95 * 4 * 200


def test_a_call_without_an_answer_holds_its_slot_a_second_beyond_its_end() -> None:
    """With two slots, a third call waits until a second after the first one's connection was closed."""

    async def run() -> float:
        queue, loop = RequestQueue(2), asyncio.get_running_loop()
        first, second = await queue.enter(), await queue.enter()
        await asyncio.sleep(5)
        ended = loop.time()
        queue.leave(first, answered=False)
        third = await queue.enter()
        queue.leave(second, answered=False)
        queue.leave(third, answered=False)
        return third.sent - ended

    assert virtual_time.run(run()) == pytest.approx(SECOND, abs=0.001)


def test_refusals_of_one_event_cut_the_rate_once() -> None:
    """A hundred refusals of calls that were on their way together are one event."""

    async def run() -> tuple[float, float]:
        queue = RequestQueue(200)
        sent = [await queue.enter() for _ in range(100)]
        for at in sent:
            queue.leave(at, answered=True)
            queue.refused(at)
        after_one_event = queue.rate
        await asyncio.sleep(1.1)
        later = await queue.enter()
        queue.leave(later, answered=True)
        queue.refused(later)
        return after_one_event, queue.rate

    once, twice = virtual_time.run(run())
    assert once == pytest.approx(0.4 * 200)
    assert twice < once


class TestRate:
    """What refusals do to the rate, and what quiet does."""

    def test_falls_to_a_little_below_what_was_taken(self) -> None:
        """The server took six of ten calls in the last second."""
        rate = Rate(200, 1.1, 20)
        assert rate.value(10) == pytest.approx(220)
        assert rate.refused(now=10, sent=9.9, taken=0.6)
        assert rate.value(10) == pytest.approx(0.97 * 0.6 * 200)

    def test_falls_by_five_per_cent_at_least(self) -> None:
        """A refusal while nearly all was taken is not nothing."""
        rate = Rate(200, 1.1, 20)
        rate.refused(now=10, sent=9.9, taken=0.995)
        assert rate.value(10) == pytest.approx(0.95 * 200)

    def test_never_falls_below_the_floor(self) -> None:
        """Refused again and again, it still tries."""
        rate = Rate(200, 1.1, 20)
        for second in range(10, 40, 2):
            rate.refused(now=second, sent=second - 0.1, taken=0)
        assert rate.value(38) == 20

    def test_climbs_faster_the_longer_nothing_is_refused(self) -> None:
        """2(1 + t) calls a second each second, up to the ceiling."""
        rate = Rate(200, 1.0, 20)
        rate.refused(now=10, sent=9.9, taken=0.5)
        low = rate.value(10)
        assert rate.value(11) - low == pytest.approx(3)
        assert rate.value(12) - low == pytest.approx(8)
        assert rate.value(100) == 200

    def test_calls_under_way_at_the_cut_do_not_cut_again(self) -> None:
        """They were sent at the old rate and say nothing of the new one."""
        rate = Rate(200, 1.1, 20)
        assert rate.refused(now=10, sent=9.9, taken=0.8)
        assert not rate.refused(now=15, sent=9.95, taken=0.8)
        assert not rate.refused(now=10.5, sent=10.2, taken=0.8)
        assert rate.refused(now=15, sent=14.9, taken=0.8)


class TestCredit:
    """How much earlier than a second after its response a slot is used again."""

    def test_starts_at_what_the_smallest_round_trip_makes_sure(self) -> None:
        """Nine tenths of the smallest, less the slack."""
        credit = Credit()
        for rtt in (0.08, 0.05, 0.07) * Credit.ENOUGH:
            credit.answered(rtt, 200, saturated=False)
        assert credit.value == pytest.approx(0.9 * 0.05 - Credit.SLACK)

    def test_is_nothing_before_there_were_enough_round_trips(self) -> None:
        """The first ones are longer than any that follow: connections are being set up."""
        credit = Credit()
        for _ in range(Credit.ENOUGH - 1):
            credit.answered(0.05, 200, saturated=True)
        assert credit.value == 0.0
        credit.answered(0.05, 200, saturated=True)
        assert credit.value > 0.0

    def test_is_nothing_where_the_round_trip_is_too_short_to_rely_on(self) -> None:
        """Below the fineness of timers there is nothing to win."""
        credit = Credit()
        for _ in range(Credit.ENOUGH):
            credit.answered(0.002, 200, saturated=False)
        assert credit.value == 0.0

    def test_grows_only_while_the_endpoint_is_saturated(self) -> None:
        """An idle hour proves nothing."""
        idle, busy = Credit(), Credit()
        for _ in range(2000):
            for rtt in (0.05, 0.07, 0.07):
                idle.answered(rtt, 200, saturated=False)
                busy.answered(rtt, 200, saturated=True)
        assert idle.value == pytest.approx(0.9 * 0.05 - Credit.SLACK)
        assert busy.value > idle.value

    def test_steps_back_to_nothing_when_refused_again_and_again(self) -> None:
        """From then on it is the proof."""
        credit = Credit()
        for _ in range(10):
            credit.refused()
        for _ in range(Credit.ENOUGH):
            credit.answered(0.05, 200, saturated=False)
        assert credit.value == 0.0

    def test_forgets_a_path_that_has_become_longer(self) -> None:
        """The smallest round trip of last hour no longer counts."""
        credit = Credit()
        credit.answered(0.05, 200, saturated=False)
        for _ in range(2 * Credit.LEARNT):
            credit.answered(0.1, 200, saturated=False)
        assert credit.value == pytest.approx(0.9 * 0.1 - Credit.SLACK)

    def test_a_stall_moves_it_little(self) -> None:
        """Two hundred answers that are a second late say nothing about where arrivals lie."""
        credit = Credit()
        for _ in range(2000):
            credit.answered(0.005, 200, saturated=True)
        before = credit.value
        for _ in range(200):
            credit.answered(1.0, 200, saturated=True)
        assert credit.value - before < 0.001


class TestSlots:
    """N places, each taken for a second beyond its response."""

    def test_a_slot_is_free_a_second_after_its_response_less_the_credit(self) -> None:
        """To the moment."""
        slots = Slots(1)
        slots.take()
        slots.give_back(10.0)
        assert slots.wait(10.5, 0.0) == pytest.approx(SECOND - 0.5)
        assert slots.wait(10.5, 0.2) == pytest.approx(SECOND - 0.7)
        assert slots.wait(10.0 + SECOND, 0.0) == 0.0

    def test_only_an_answer_helps_when_all_are_in_flight(self) -> None:
        """No time can be named."""
        slots = Slots(1)
        slots.take()
        assert slots.wait(10.0, 0.0) == math.inf

    def test_an_unused_slot_is_free_at_once(self) -> None:
        """A call that was never sent never arrives."""
        slots = Slots(1)
        slots.take()
        slots.unused()
        assert slots.wait(10.0, 0.0) == 0.0


def test_a_raised_rate_is_taken_in_blocks_and_still_kept() -> None:
    """At 5,000 calls a second, too, no second has more, and nearly all are used."""
    server, start = saturated(2, lognormal(4, 0.005, 0.3), limit=5000)
    assert fullest_second(server.accepted + server.refused) <= 5000
    assert server.accepted_between(start, start + 2) > 0.97 * 5000
