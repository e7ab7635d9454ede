"""What a process tells the store, what it asks for, and what it learns from the replies.

Each part is asked directly, since between clients and a store these numbers decide no more than a few milliseconds;
the last tests are of a whole `SharedLimiter`, in virtual time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest

from tests import virtual_time
from tim_async import Lane, QuotaExhausted
from tim_async._limiter.demand import Demand
from tim_async._limiter.local import Use
from tim_async._limiter.permits import GrantedPermits, PermitOutcomes
from tim_async._limiter.queue import RequestQueue
from tim_async._limiter.reply import Reply, StoreView, read_reply
from tim_async._limiter.request import News, Request, terms
from tim_async._limiter.shared import SharedLimiter
from tim_async._limiter.sharing import Shares, StoreAway

# The part of every request that follows from the limit.


@pytest.mark.parametrize(
    ("limit", "strict", "ceiling", "burst"),
    [(200, False, 220, 10), (200, True, 200, 4), (500, True, 500, 10), (20, False, 22, 4), (20.5, True, 20.5, 4)],
)
def test_the_terms_of_a_limit(limit: float, strict: bool, ceiling: float, burst: float) -> None:
    """A tenth more to catch up and a twentieth at once; strictly the limit and a fiftieth; four at least."""
    assert terms(limit, 0.9, strict=strict) == {
        "limit": int(limit),
        "ceiling": pytest.approx(ceiling),
        "burst": pytest.approx(burst),
        "floor": pytest.approx(1.01 * ceiling / burst),
        "left_by_bulk": math.ceil(limit / 10 - 1e-6),
        "hold": 500_000,
        "settle": 450_000,
    }


# News.


def told_by(news: News | PermitOutcomes, now: float) -> tuple[Request, Callable[[], None]]:
    request: Request = {}
    told = news.tell(request, now)
    return request, told


def test_refusals_are_told_with_the_time_since_the_last_one() -> None:
    """Until the store has them; those that come meanwhile are told next time."""
    news = News()
    assert not news
    assert told_by(news, 10.0)[0] == {}
    news.refused(9.5)
    news.refused(9.0)
    assert news
    request, told = told_by(news, 10.0)
    assert request == told_by(news, 10.0)[0] == {"refusals": 2, "refused_ago": 500_000}
    news.refused(10.25)
    told()
    assert told_by(news, 10.5)[0] == {"refusals": 1, "refused_ago": 250_000}


@pytest.mark.parametrize(("now", "known"), [(12.0, True), (12.001, False)])
def test_refusals_and_alerts_are_forgotten_after_two_seconds(now: float, known: bool) -> None:
    news = News()
    news.refused(10.0)
    news.slow_down(0.5, 10.0)
    request, told = told_by(news, now)
    assert request == ({"refusals": 1, "taken": 0.5, "refused_ago": 2_000_000} if known else {})
    told()
    assert not news


@pytest.mark.parametrize("shares", [(0.5, 0.8), (0.8, 0.5)])
def test_of_two_alerts_the_lower_share_is_told(shares: tuple[float, float]) -> None:
    news = News()
    for share in shares:
        news.slow_down(share, 10.0)
    request, told = told_by(news, 10.5)
    assert request == {"taken": 0.5, "refused_ago": 500_000}
    news.slow_down(0.4, 10.6)
    told()
    assert news
    request, told = told_by(news, 10.6)
    assert request == {"taken": 0.4, "refused_ago": 0}
    told()
    assert not news


@pytest.mark.parametrize("ends", [(12.0, 13.0), (13.0, 12.0)])
def test_of_two_pauses_the_longer_one_is_told(ends: tuple[float, float]) -> None:
    news = News()
    for end in ends:
        news.pause(end)
    assert news
    request, told = told_by(news, 10.0)
    assert request == {"pause": 3_000_000}
    news.pause(15.0)
    told()
    request, told = told_by(news, 10.0)
    assert request == {"pause": 5_000_000}
    told()
    assert not news


@pytest.mark.parametrize("end", [9.0, 10.0])
def test_a_pause_that_is_over_is_not_told(end: float) -> None:
    news = News()
    news.pause(end)
    request, told = told_by(news, 10.0)
    assert request == {}
    told()
    assert not news


# Permits in hand, and their outcomes.


def test_permits_are_used_in_the_order_in_which_they_are_due() -> None:
    granted = GrantedPermits()
    assert (bool(granted), granted.soonest(), granted.latest(), granted.pop()) == (False, math.inf, -math.inf, None)
    for due, number in ((10.2, 1), (10.1, 3), (10.3, 2)):
        granted.add(due, number, Lane.BULK)
    assert (bool(granted), granted.soonest(), granted.latest()) == (True, 10.1, 10.3)
    assert granted.pop(due_by=10.0) is None
    assert granted.pop(due_by=10.1) == 3
    assert granted.pop(due_by=10.1) is None
    assert [granted.pop(), granted.pop(), granted.pop()] == [1, 2, None]


def test_an_interactive_call_does_not_wait_long_for_a_permit_of_bulk() -> None:
    """It asks for one of its own, once; bulk takes what there is."""
    granted = GrantedPermits()
    assert granted.lack(Lane.BULK, 10.0)
    assert granted.lack(Lane.INTERACTIVE, 10.0)
    granted.add(10.02, 1, Lane.BULK)
    assert granted.lack(Lane.INTERACTIVE, 10.0)
    assert not granted.lack(Lane.INTERACTIVE, 10.0101)
    assert not granted.lack(Lane.BULK, 10.0)
    granted.add(10.03, 2, Lane.INTERACTIVE)
    assert not granted.lack(Lane.INTERACTIVE, 10.0)


def test_outcomes_are_told_until_the_store_has_them() -> None:
    outcomes = PermitOutcomes()
    assert not outcomes
    for number in (1, 2, 3):
        outcomes.sent(number, 10.0)
    assert outcomes
    assert not outcomes.due(10.05)
    outcomes.answered(1, 10.02)
    outcomes.unsent(2)
    outcomes.unused(4)
    assert outcomes.due(10.05)
    request, told = told_by(outcomes, 10.05)
    assert request == told_by(outcomes, 10.05)[0] == {"answered": [("1", 30_000)], "unused": ["2", "4"]}
    outcomes.answered(3, 10.06)
    told()
    assert outcomes
    request, told = told_by(outcomes, 10.06)
    outcomes.unused(5)
    assert request == {"answered": [("3", 0)]}
    told()
    assert outcomes
    request, told = told_by(outcomes, 10.06)
    assert request == {"unused": ["5"]}
    told()
    assert not outcomes
    assert not outcomes.due(1000.0)


def test_a_call_in_flight_is_told_of_at_every_tick() -> None:
    """Not before it has lasted for one; a call by the fallback share at once, since the store knows nothing of it."""
    outcomes = PermitOutcomes()
    outcomes.sent(7, 10.0)
    assert not outcomes.due(10.099)
    assert outcomes.due(10.101)
    outcomes.sent(-1, 10.101)
    request, told = told_by(outcomes, 10.101)
    assert request == {"in_flight": ["7", "-1"]}
    assert outcomes.due(10.101)
    told()
    assert not outcomes.due(10.19)
    assert told_by(outcomes, 10.192)[0] == {"in_flight": ["7", "-1"]}


def test_an_answer_is_forgotten_after_two_seconds() -> None:
    outcomes = PermitOutcomes()
    for number, when in ((1, 10.0), (2, 10.5)):
        outcomes.sent(number, when)
        outcomes.answered(number, when)
    outcomes.forget(12.0)
    assert told_by(outcomes, 12.0)[0] == {"answered": [("1", 2_000_000), ("2", 1_500_000)]}
    outcomes.forget(12.001)
    assert told_by(outcomes, 12.0)[0] == {"answered": [("2", 1_500_000)]}


# What is asked for.


class Callers:
    """A queue, as a limiter sees it."""

    def __init__(self, *, interactive: int = 0, bulk: int = 0, deadline: float = math.inf) -> None:
        self._queued = {Lane.INTERACTIVE: interactive, Lane.BULK: bulk}
        self._deadline = deadline

    def queued(self, lane: Lane) -> int:
        return self._queued[lane]

    def patience(self) -> float:
        return self._deadline

    def advance(self) -> None:
        raise AssertionError

    def pause_until(self, moment: float) -> None:
        raise AssertionError


def reached(limit: float, round_trip: float) -> StoreView:
    """The view of a store that is so far away, and that was asked before time 50."""
    store = StoreView(limit, limit)
    for _ in range(100):
        store.hear(Reply(limit, 0), 50.0 - round_trip, 50.0)
    return store


def asked(demand: Demand, now: float = 100.0) -> Request:
    request: Request = {}
    demand.ask(request, now)
    return request


@pytest.mark.parametrize(
    ("lane", "limit", "round_trip", "waiting", "wanted"),
    [
        ("interactive", 200, 0.0, 50, 1),
        ("interactive", 200, 0.0401, 50, 17),  # those of two round trips, and one
        ("interactive", 200, 0.0401, 9, 9),
        ("interactive", 200, 0.1, 50, 20),  # a tenth of the limit
        ("interactive", 9, 1.0, 50, 1),
        ("bulk", 200, 0.0, 50, 4),  # a fiftieth of the limit
        ("bulk", 200, 0.0, 3, 3),
        ("bulk", 200, 0.0401, 50, 17),
        ("bulk", 9, 0.0, 50, 1),
        ("bulk", 20, 0.0, 50, 1),
        ("bulk", 2500, 0.0, 500, 50),
    ],
)
def test_as_many_permits_are_asked_for_as_can_be_used_soon(
    lane: str, limit: float, round_trip: float, waiting: int, wanted: int
) -> None:
    queue = Callers(**{lane: waiting})
    demand = Demand(queue, GrantedPermits(), reached(limit, round_trip), limit)
    demand.add(Lane[lane.upper()])
    assert asked(demand) == {"lane": lane, "wanted": wanted}
    assert asked(demand) == {}, "it is asked once"


@pytest.mark.parametrize("order", [(Lane.INTERACTIVE, Lane.BULK), (Lane.BULK, Lane.INTERACTIVE)])
def test_interactive_calls_are_asked_for_first(order: tuple[Lane, ...]) -> None:
    demand = Demand(Callers(interactive=1, bulk=5), GrantedPermits(), reached(200, 0.0), 200)
    for lane in order:
        demand.add(lane)
    assert asked(demand)["lane"] == "interactive"


def test_nothing_is_asked_for_that_nobody_can_use() -> None:
    """When the callers have gone, when there is a permit in hand, and when a reply has come."""
    granted, store = GrantedPermits(), reached(200, 0.0)
    gone = Demand(Callers(interactive=1), granted, store, 200)
    gone.add(Lane.BULK)
    assert asked(gone) == {}
    demand = Demand(Callers(interactive=1), granted, store, 200)
    demand.add(Lane.INTERACTIVE)
    demand.clear()
    assert asked(demand) == {}
    granted.add(100.0, 1, Lane.INTERACTIVE)
    demand.add(Lane.INTERACTIVE)
    assert asked(demand) == {}


@pytest.mark.parametrize(("deadline", "budget"), [(100.25, 250_000), (100.0, 0), (99.0, 0), (math.inf, None)])
def test_the_first_callers_deadline_is_the_budget(deadline: float, budget: int | None) -> None:
    demand = Demand(Callers(interactive=1, deadline=deadline), GrantedPermits(), reached(200, 0.0), 200)
    demand.add(Lane.INTERACTIVE)
    assert asked(demand).get("budget") == budget


# Replies.


def test_a_reply_is_read_whole() -> None:
    """Spans of time are microseconds there and seconds here."""
    text = (
        '{"rate":150.5,"cuts":2,"opens":1500000,"settling":450000,"slot_bound":true,"over":250000,'
        '"permits":[["9",2000],["10",0]]}'
    )
    assert read_reply(text) == Reply(150.5, 2, 1.5, 0.45, True, 0.25, ((9, 0.002), (10, 0.0)))
    assert read_reply('{"rate":0.5,"cuts":0,"opens":0}').rate == 0.5


@pytest.mark.parametrize("missing", ["rate", "cuts", "opens"])
def test_a_reply_of_another_program_is_named(missing: str) -> None:
    fields = {"rate": 1, "cuts": 0, "opens": 0}
    del fields[missing]
    with pytest.raises(ValueError, match=r"^the store's reply is not that of quota\.lua$"):
        read_reply(json.dumps(fields))


@pytest.mark.parametrize(
    ("field", "value"),
    [("rate", 0), ("rate", -1), ("rate", math.inf), *((name, math.nan) for name in ("opens", "settling", "over"))],
)
def test_a_time_that_cannot_be_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"^the store's reply has a rate or a time that cannot be$"):
        read_reply(json.dumps({"rate": 1, "cuts": 0, "opens": 0, field: value}))


def test_what_replies_teach() -> None:
    store = StoreView(200, 220)
    assert (store.rate, store.round_trip, store.saturated, store.not_before) == (220, 0.0, False, -math.inf)
    store.hear(Reply(150, 0, over=0.5, slot_bound=True), 99.9, 100.0)
    assert (store.rate, store.not_before, store.saturated) == (150, 100.5, False)
    assert store.round_trip == pytest.approx(0.2 * 0.1)
    store.hear(Reply(150, 0, slot_bound=True, permits=((1, 0.0),)), 100.0, 100.2)
    assert (store.saturated, store.not_before) == (True, 100.2)
    assert store.round_trip == pytest.approx(0.02 + 0.2 * (0.2 - 0.02))
    store.hear(Reply(150, 0, permits=((1, 0.0),)), 100.0, 100.2)
    assert not store.saturated


def test_a_cut_is_a_count_that_has_grown() -> None:
    """Of the first one it is unknown when it was; a store that has lost its data counts from the start."""
    store = StoreView(200, 220)
    assert [store.hear(Reply(200, cuts), 1.0, 1.0) for cuts in (5, 5, 6, 8, 0, 1)] == [
        False, False, True, True, False, True
    ]  # fmt: skip


def test_the_pace_to_expect_is_what_was_granted_of_late() -> None:
    """And the whole rate, when nothing was asked for a second."""
    store = StoreView(200, 220)
    assert store.pace(0.0) == 200
    store.hear(Reply(200, 0, permits=((1, 0.0), (2, 0.1))), 100.0, 100.0)
    granted = 1 / (0.7 / 200 + 0.3 * 0.1 / 2)
    assert store.pace(100.0) == store.pace(101.0) == pytest.approx(granted)
    assert store.pace(101.001) == 200
    store.hear(Reply(40, 0), 102.0, 102.0)
    assert store.pace(102.0) == 40
    assert store.pace(200.0) == 40
    store = StoreView(200, 220)
    store.hear(Reply(200, 0, permits=((1, 0.0),)), 100.0, 100.0)
    assert store.pace(100.0) == pytest.approx(200), "permits that are due at once were granted at the rate"


# A whole limiter.

LIMIT = 50
ROUND_TRIP = 0.05


class Store:
    """Grants at once what is asked, and keeps what it is told.

    Attributes:
        requests: all of them; and the loop times at which they came, in ``times``.
        reply: the fields of its replies, but for the permits.
        due: seconds until a permit may be used; None to grant none.
        takes: seconds until it replies.
        away: it cannot be reached.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.times: list[float] = []
        self.reply: dict[str, Any] = {"rate": LIMIT, "cuts": 0}
        self.due: float | None = 0.0
        self.takes = 0.0
        self.away = False
        self._numbers = itertools.count(1)

    async def exchange(self, request: Request) -> Reply:
        self.requests.append(request)
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes)
        if self.away:
            raise StoreAway
        count = 0 if self.due is None else request.get("wanted", 0)
        return Reply(**self.reply, permits=tuple((next(self._numbers), self.due or 0.0) for _ in range(count)))

    def told(self, field: str) -> list[Any]:
        """All that it was told in one field."""
        return [each for request in self.requests for each in request.get(field, ())]  # type: ignore[attr-defined]


class Client:
    """A queue and its limiter, which shares the quota of a store."""

    def __init__(self, *, strict: bool = False, alone: float | None = 0.5) -> None:
        self.store = Store()
        self.limiter: SharedLimiter
        self._strict, self._alone = strict, alone
        self.queue = RequestQueue(LIMIT, limiter=self._limiter)

    def _limiter(self, queue: RequestQueue) -> SharedLimiter:
        self.limiter = SharedLimiter(
            self.store.exchange, queue, LIMIT, strict=self._strict, shares=Shares(0.9, self._alone), overdue=2.5
        )
        return self.limiter

    @property
    def now(self) -> float:
        return self.queue.now()

    async def call(self, *, answered: bool = True) -> float:
        """Make a call; returns the loop time at which it was sent."""
        permit = await self.queue.enter()
        await asyncio.sleep(ROUND_TRIP)
        self.queue.leave(permit, answered=answered)
        return permit.sent

    async def close(self) -> None:
        self.queue.close()
        await self.limiter.finish()


def run(main: Callable[[Client], Any], **options: Any) -> None:
    async def client() -> None:
        client = Client(**options)
        await main(client)
        await client.close()

    virtual_time.run(client())


def test_half_of_the_credit_leads_and_the_other_half_is_in_the_report() -> None:
    """An answer's slot is free sooner by half of the credit, the caller's next call by the other half."""

    async def main(client: Client) -> None:
        store = client.store
        for _ in range(20):
            await client.call()
        await asyncio.sleep(0.5)
        assert {request["lead"] for request in store.requests[:-1]} == {0}
        assert store.told("answered")[0] == ("1", 0)
        del store.requests[:]
        sent = await client.call()
        await asyncio.sleep(0.5)
        assert {request["lead"] for request in store.requests} == {21_500}
        ((_, ago),) = store.told("answered")
        assert ago == pytest.approx(1e6 * (store.times[-1] - sent - ROUND_TRIP) + 21_500, abs=2)
        assert 0.08 <= store.times[-1] - sent <= 0.12, "it is told at the next tick"

    run(main)


def test_strict_gives_up_the_credit() -> None:
    async def main(client: Client) -> None:
        for _ in range(30):
            await client.call()
        await asyncio.sleep(0.5)
        assert {request["lead"] for request in client.store.requests} == {0}

    run(main, strict=True)


def test_a_call_without_an_answer_teaches_no_round_trip() -> None:
    async def main(client: Client) -> None:
        for _ in range(30):
            await client.call(answered=False)
        await asyncio.sleep(0.5)
        assert {request["lead"] for request in client.store.requests} == {0}
        assert len(client.store.told("answered")) == 30

    run(main)


def test_a_cut_of_the_fleets_rate_takes_credit_back() -> None:
    async def main(client: Client) -> None:
        for _ in range(30):
            await client.call()
        await asyncio.sleep(0.5)
        await client.call()
        before = client.store.requests[-1]["lead"]
        client.store.reply["cuts"] = 1
        await client.call()
        await client.call()
        assert client.store.requests[-1]["lead"] == pytest.approx(0.85 * before, abs=1)

    run(main)


def test_every_request_has_the_terms_and_says_whether_there_were_calls() -> None:
    """Within two seconds."""

    async def main(client: Client) -> None:
        await client.call()
        await asyncio.sleep(0.5)
        await asyncio.sleep(2.0)
        await client.call()
        first, *_, reported, second = client.store.requests
        fixed = terms(LIMIT, 0.9, strict=False)
        assert first == {**fixed, "lead": 0, "lane": "interactive", "wanted": 1}
        assert {**reported, "answered": ()} == {**fixed, "lead": 0, "called_lately": True, "answered": ()}
        assert second == first

    run(main)


def test_a_store_that_pauses_holds_the_queue() -> None:
    async def main(client: Client) -> None:
        await client.call()
        client.store.reply["opens"] = 3.0
        begin = client.now
        caller = asyncio.create_task(client.call())
        await asyncio.sleep(0.01)
        assert client.queue.opens_at() == pytest.approx(begin + 3.0)
        client.store.reply["opens"] = 0.0
        assert await caller == pytest.approx(begin + 3.0, abs=0.05)

    run(main)


def test_the_latency_is_three_round_trips_within_bounds() -> None:
    async def main(client: Client) -> None:
        assert client.limiter.latency == 0.03
        for takes, latency in ((0.05, 0.15), (0.5, 0.25), (0.002, 0.03)):
            client.store.takes = takes
            for _ in range(50):
                await client.call()
                await asyncio.sleep(0.5)
            assert client.limiter.latency == pytest.approx(latency, rel=0.01)

    run(main)


def test_the_rate_is_the_stores_up_to_the_limit_and_the_share_without_it() -> None:
    async def main(client: Client) -> None:
        queue, limiter = client.queue, client.limiter
        assert (queue.rate, queue.shared) == (LIMIT, True)
        for rate, known in ((30.0, 30.0), (55.0, LIMIT)):
            client.store.reply["rate"] = rate
            await client.call()
            await asyncio.sleep(2.0)
            assert (queue.rate, limiter.pace(client.now), queue.shared) == (known, known, True)
        client.store.away = True
        await client.call()
        assert (queue.rate, limiter.pace(client.now), queue.shared) == (LIMIT / 2, LIMIT / 2, False)
        limiter.slow_down(0.6, client.now)
        assert queue.rate == pytest.approx(0.97 * 0.6 * LIMIT / 2)

    run(main)


def test_what_is_made_alone_is_reported_as_such() -> None:
    async def main(client: Client) -> None:
        client.store.away = True
        for _ in range(3):
            await client.call()
        client.store.away = False
        del client.store.requests[:]
        await asyncio.sleep(0.5)
        first, *others = client.store.requests
        assert first["alone"]
        assert len(client.store.told("answered")) == 3
        assert all(int(number) < 0 for number, _ in client.store.told("answered"))
        assert not any("alone" in request for request in others)
        assert client.queue.shared

    run(main)


def test_a_refusal_is_told_at_once_and_also_slows_the_fallback_share() -> None:
    async def main(client: Client) -> None:
        now = client.now
        client.limiter.refused(now - 0.2, now)
        await asyncio.sleep(0.01)
        assert client.store.requests[-1]["refusals"] == 1
        assert client.store.requests[-1]["refused_ago"] == 200_000
        assert client.queue.rate == LIMIT
        client.store.away = True
        await client.call()
        client.limiter.refused(client.now, client.now)
        assert client.queue.rate < LIMIT / 2

    run(main)


def test_a_permit_that_no_call_took_in_time_is_given_back() -> None:
    """A tenth of a second after it was due; until then the next caller takes it."""

    async def main(client: Client) -> None:
        client.store.due = 0.3
        for number, wait in (("1", 0.35), ("2", 0.6)):
            caller = asyncio.create_task(client.call())
            await asyncio.sleep(0.01)
            caller.cancel()
            await asyncio.sleep(wait - 0.01)
            if number == "1":
                begin = client.now
                assert await client.call() == begin
            assert client.store.told("unused") == ([] if number == "1" else [number])

    run(main)


def test_a_permit_in_hand_is_given_back_by_closing() -> None:
    async def main(client: Client) -> None:
        client.store.due = 0.3
        caller = asyncio.create_task(client.queue.enter())
        await asyncio.sleep(0.01)
        client.queue.close()
        await client.limiter.finish()
        assert client.store.told("unused") == ["1"]
        assert not client.queue.shared
        await asyncio.gather(caller, return_exceptions=True)

    run(main)


def test_a_deadline_that_the_store_cannot_keep_is_refused_at_once() -> None:
    """The store is told the time left; what it says instead is when there would be a permit."""

    async def main(client: Client) -> None:
        client.store.due, client.store.reply["over"] = None, 0.5
        begin = client.now
        with pytest.raises(QuotaExhausted, match=r"^no permit within max_wait; try again in 0\.5 s$") as raised:
            await client.queue.enter(max_wait=0.2)
        assert client.now == begin
        assert raised.value.retry_after == pytest.approx(0.5)
        assert client.store.requests[-1]["budget"] == 200_000

    run(main)


def test_a_slow_exchange_is_given_up_when_it_is_overdue() -> None:
    async def main(client: Client) -> None:
        client.store.takes = 1e6
        begin = client.now
        assert await client.call() == pytest.approx(begin + 2.5, abs=0.45)
        assert not client.queue.shared
        client.store.takes = 0.0
        await asyncio.sleep(3.2)
        assert client.queue.shared

    run(main)


def test_a_defect_of_the_exchange_is_logged_once_until_it_works(caplog: pytest.LogCaptureFixture) -> None:
    async def main(client: Client) -> None:
        for _ in range(2):
            client.store.reply["unknown"] = 1
            await client.call()
            await asyncio.sleep(1.0)
            del client.store.reply["unknown"]
            await asyncio.sleep(1.0)

    run(main)
    text = "a defect in the exchange with the shared quota; treated as an outage"
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [text, text]
    assert all(record.exc_info for record in caplog.records if record.levelno == logging.ERROR)


def test_without_a_share_of_its_own_it_waits_for_the_store() -> None:
    async def main(client: Client) -> None:
        client.store.away = True
        caller = asyncio.create_task(client.call())
        await asyncio.sleep(5.0)
        assert not caller.done()
        assert client.queue.rate == LIMIT
        client.store.away = False
        begin = client.now
        assert await caller <= begin + 0.13

    run(main, alone=None)


def test_while_the_store_settles_the_fallback_share_is_used_until_it_grants() -> None:
    async def main(client: Client) -> None:
        client.store.due, client.store.reply["settling"] = None, 0.45
        caller = asyncio.create_task(client.call())
        await asyncio.sleep(0.01)
        assert (client.queue.shared, client.queue.rate) == (True, LIMIT / 2)
        client.store.reply["settling"] = 0.0
        told = len(client.store.requests)
        await asyncio.sleep(0.13)
        assert len(client.store.requests) == told + 1, "it is asked again at the next tick"
        await caller
        assert client.queue.rate == LIMIT

    run(main)


def test_a_permit_of_the_store_is_used_while_the_fallback_share_waits() -> None:
    async def main(client: Client) -> None:
        client.store.due = 0.2
        callers = [asyncio.create_task(client.call()) for _ in range(2)]
        await asyncio.sleep(0.01)
        begin = client.now
        client.store.away = True
        client.limiter.refused(begin, begin)
        await asyncio.sleep(0.01)
        assert not client.queue.shared
        sent = sorted(await asyncio.gather(*callers))
        assert sent[0] == pytest.approx(begin + 0.19, abs=0.005)
        assert sent[1] >= begin + 0.2 + 0.3 - 0.01, "and then a silence that begins with the last permit"

    run(main)


def test_a_pause_and_an_alert_are_told_at_once() -> None:
    """A tick later another process may have sent ten calls."""

    async def main(client: Client) -> None:
        client.limiter.paused(2.0)
        await asyncio.sleep(0.01)
        assert client.store.requests[-1]["pause"] == 2_000_000
        client.limiter.slow_down(0.5, client.now)
        await asyncio.sleep(0.01)
        assert client.store.requests[-1]["taken"] == 0.5

    run(main)


def test_an_interactive_call_asks_although_bulk_has_a_permit_that_is_due_later() -> None:
    """And each has the next permit that is due."""

    async def main(client: Client) -> None:
        queue, begin = client.queue, client.now
        client.store.due = 0.3
        bulk = asyncio.create_task(queue.enter(Lane.BULK))
        await asyncio.sleep(0.01)
        client.store.due = 0.1
        callers = [asyncio.create_task(queue.enter())]
        await asyncio.sleep(0.001)
        callers.append(asyncio.create_task(queue.enter()))
        await asyncio.sleep(0.01)
        assert [request.get("lane") for request in client.store.requests] == ["bulk", "interactive"]
        assert client.store.times == [begin, begin + 0.01]
        sent = [permit.sent for permit in await asyncio.gather(*callers, bulk)]
        assert sent[0] == pytest.approx(begin + 0.11)
        assert sent[1] == pytest.approx(begin + 0.21), "it asked when the first one had its permit"
        assert sent[2] == pytest.approx(begin + 0.3)

    run(main)


def test_a_caller_is_told_of_its_deadline_only_once() -> None:
    """What the store has said about the next permit is not asked again before."""

    async def main(client: Client) -> None:
        client.store.due, client.store.reply["over"], client.store.takes = None, 0.5, 0.01
        caller = asyncio.create_task(client.queue.enter(max_wait=0.51))
        await asyncio.sleep(0.4)
        assert len(client.store.requests) == 1
        await asyncio.gather(caller, return_exceptions=True)

    run(main)


def test_a_caller_that_would_not_wait_has_nothing_that_was_not_granted() -> None:
    async def main(client: Client) -> None:
        client.store.due, client.store.takes = None, 0.001
        begin = client.now
        with pytest.raises(QuotaExhausted):
            await client.queue.enter(max_wait=0)
        assert client.now == pytest.approx(begin + 0.03)
        assert client.queue.shared

    run(main)


def test_a_permit_of_the_fallback_share_that_was_not_used_is_free_at_once() -> None:
    async def main(client: Client) -> None:
        client.store.away = True
        permit = await client.queue.enter()
        client.limiter.leave(permit, client.now, Use.UNSENT)
        assert client.limiter.wait(client.now, Lane.BULK) == 0.0
        assert client.limiter.rate(client.now) == 1.0

    run(main, alone=1 / LIMIT)
