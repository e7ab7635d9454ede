"""What a process tells the store, what it asks for, and what it learns from the replies.

Each part is asked directly, since between clients and a store these numbers decide no more than a few milliseconds.  A
whole limiter is tested in test_limiter.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest

from tim_async import Lane
from tim_async._limiter.demand import Demand
from tim_async._limiter.permits import GrantedPermits, PermitOutcomes
from tim_async._limiter.reply import Reply, StoreView, read_reply
from tim_async._limiter.request import News, Request, terms

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
