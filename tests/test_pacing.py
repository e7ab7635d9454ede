"""The limiter's guarantees, in virtual time: against counting servers, over paths with jitter."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pace import Other, Path, simulate
from benchmarks.server import fullest_second
from tim_async._lanes import Lane
from tim_async._limiter.learning import Rate
from tim_async._limiter.local import SECOND
from tim_async._limiter.queue import RequestQueue
from tim_async.emulator._windows import Window

from . import virtual_time
from .hypotheses import at_most

Delay = Callable[[], tuple[float, float]]


class CountingServer:
    """Accepts `limit` calls in any sliding second and refuses the others."""

    def __init__(self, limit: int) -> None:
        self.window = Window("sliding", limit)
        self.accepted: list[float] = []
        self.refused: list[float] = []

    def arrive(self, now: float) -> bool:
        """Count an arrival and return whether it is accepted."""
        taken = self.window.admit(now)
        (self.accepted if taken else self.refused).append(now)
        return taken

    def accepted_between(self, start: float, end: float) -> float:
        """Return the calls accepted per second between two times."""
        return sum(start <= at < end for at in self.accepted) / (end - start)


async def send(queue: RequestQueue, server: CountingServer, delay: Delay) -> bool:
    """Make one call over a path with a delay in each direction; return whether it is accepted."""
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
) -> tuple[CountingServer, float]:
    """Saturate an endpoint with twice as many callers as its limit; return the server and the time of the start."""

    async def run() -> tuple[CountingServer, float]:
        loop = asyncio.get_running_loop()
        queue, server, start = RequestQueue(limit, strict=strict), CountingServer(limit), loop.time()

        async def caller() -> None:
            while loop.time() < start + seconds:
                if not await send(queue, server, delay):
                    await asyncio.sleep(0.5)

        async with asyncio.TaskGroup() as group:
            for _ in range(2 * limit):
                group.create_task(caller())
        return server, start

    return virtual_time.run(run())


def lognormal(seed: int, mean: float, variation: float) -> Delay:
    """Return delays drawn independently for each direction, with half the mean round trip each."""
    source = random.Random(seed)
    sigma = math.sqrt(math.log(1 + variation**2))
    mu = math.log(mean / 2) - sigma**2 / 2
    return lambda: (source.lognormvariate(mu, sigma), source.lognormvariate(mu, sigma))


@at_most(25)
@given(
    delays=st.lists(st.tuples(st.floats(0, 1.5), st.floats(0, 1.5)), min_size=1, max_size=40),
    limit=st.integers(1, 30),
)
def test_strict_is_never_refused_under_any_delays(delays: list[tuple[float, float]], limit: int) -> None:
    """No sliding second at the server has more arrivals than the limit, as proved."""
    chosen = random.Random(len(delays))
    server, _ = saturated(5, lambda: chosen.choice(delays), strict=True, limit=limit)
    assert server.refused == []
    assert fullest_second(server.accepted) <= limit


@pytest.mark.parametrize(("mean", "variation"), [(0.005, 0.3), (0.05, 0.3), (0.2, 1.0)])
def test_strict_is_never_refused_at_the_full_rate(mean: float, variation: float) -> None:
    """Its goodput is what the proof allows: the limit over a second and a round trip."""
    server, start = saturated(10, lognormal(1, mean, variation), strict=True)
    assert server.refused == []
    assert server.accepted_between(start + 3, start + 10) > 0.98 * 200 / (1 + mean)


@pytest.mark.parametrize(("mean", "least"), [(0.005, 0.985), (0.05, 0.96)])
def test_learning_uses_nearly_the_whole_limit_and_is_rarely_refused(mean: float, least: float) -> None:
    """In half a minute, at most 1 in 1,000 is refused, and the goodput is above that of strict."""
    server, start = saturated(30, lognormal(2, mean, 0.3))
    assert len(server.refused) <= (len(server.accepted) + len(server.refused)) / 1000
    assert server.accepted_between(start, start + 30) > least * 200


def test_the_first_second_is_not_a_burst() -> None:
    """The calls of a hundred simultaneous callers are spread out."""

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


class TestOtherClient:
    """Another client outside the quota for some 20 s; the server may count refused calls, too."""

    @pytest.mark.parametrize(
        ("counts", "rtt", "least", "refused"),
        [(False, 0.05, 114, 0.033), (True, 0.05, 108, 0.04), (False, 0.2, 107, 0.04), (True, 0.2, 100, 0.06)],
    )
    def test_the_rest_of_the_limit_is_used_and_then_the_whole_again(
        self, counts: bool, rtt: float, least: float, refused: float
    ) -> None:
        """120 of 200 are left; in the 10 s after the other has ended, more than 145 a second are used."""
        run = simulate(Window("sliding", 200, count_refused=counts), Path(rtt), seconds=34, other=Other(80, 4, 24))
        assert run.goodput(10, 24) > least
        assert run.refused_share(10, 24) < refused
        assert run.goodput(24, 34) > 145

    @pytest.mark.parametrize("rate", [20, 40, 120, 160])
    def test_any_rest_of_the_limit_is_found(self, rate: float) -> None:
        """The other uses a tenth to four fifths of the limit; refused calls count, and both clients are refused."""
        other = Other(rate, 4, 24, refusable=True)
        run = simulate(Window("sliding", 200, count_refused=True), seconds=24, other=other, seed=5)
        assert run.goodput(10, 24) > 0.86 * (200 - rate)
        assert run.refused_share(10, 24) < 0.06

    def test_the_peaks_of_a_random_client_are_avoided(self) -> None:
        """Its calls per second vary by 9 (one sigma), and one call too many has a whole second's calls refused."""
        run = simulate(Window("sliding", 200, count_refused=True), seconds=35, other=Other(80, 5, 35, random=True))
        assert run.goodput(15, 35) > 95
        assert run.refused_share(15, 35) < 0.08

    def test_correlated_delays_cost_little(self) -> None:
        """All calls in flight are held for up to a quarter of a second, ten times a minute."""
        run = simulate(
            Window("sliding", 200, count_refused=True), Path(stalls=1 / 6), seconds=35, other=Other(80, 5, 35), seed=2
        )
        assert run.goodput(15, 35) > 100
        assert run.refused_share(15, 35) < 0.06


class TestTokenBuckets:
    """Servers with a token bucket, which refuse calls that come close together."""

    def test_a_capacity_of_1_is_used_with_few_refusals(self) -> None:
        """Arrivals less than 5 ms apart are refused, so jitter of 1 ms (one sigma) alone limits them to some 140/s."""
        run = simulate(Window("bucket", 200, capacity=1), Path(0.005), seconds=25)
        assert run.goodput(10, 25) > 112
        assert run.refused_share(10, 25) < 0.03

    def test_a_capacity_of_5_allows_the_full_rate(self) -> None:
        run = simulate(Window("bucket", 200, capacity=5), Path(0.005), seconds=25)
        assert run.goodput(10, 25) > 195
        assert run.refused_share(10, 25) < 0.005


def test_on_a_long_path_the_credit_is_found_within_seconds() -> None:
    """With a round trip of 200 ms strict reaches 167/s; the credit raises that, almost without refusals."""
    runs = [simulate(Window("sliding", 200), Path(0.2), seconds=10, seed=seed) for seed in range(4)]
    assert sum(run.goodput(0, 10) for run in runs) / 4 > 185.5
    assert sum(len(run.refused) for run in runs) <= 2


def test_a_stall_is_not_followed_by_more_than_the_limit() -> None:
    """The server reads nothing for a second and then everything at once: still at most 200 in any second."""
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


def test_a_call_without_an_answer_holds_its_slot_for_a_second_after_its_end() -> None:
    """With two slots, a third call waits until a second after the first one has ended."""

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
    """A hundred refusals of calls that were in flight together are one event."""

    async def run() -> tuple[float, float, float]:
        queue = RequestQueue(200)
        sent = [await queue.enter() for _ in range(100)]
        for at in sent:
            queue.leave(at, answered=True)
            queue.refused(at)
        after_one_event = queue.rate
        await asyncio.sleep(1.1)
        later = await queue.enter()
        queue.leave(later, answered=True)
        before = queue.rate
        queue.refused(later)
        return after_one_event, before, queue.rate

    once, before, twice = virtual_time.run(run())
    assert once == pytest.approx(Rate.CUT * Rate.IDLE * 200 - 99)
    assert once < before
    assert twice < before


def test_a_limit_of_2000_is_kept_and_nearly_used() -> None:
    """Such a limit has its slots taken in blocks."""
    server, start = saturated(2, lognormal(4, 0.005, 0.3), limit=2000)
    assert fullest_second(sorted(server.accepted + server.refused)) <= 2000
    assert server.accepted_between(start, start + 2) > 0.97 * 2000
