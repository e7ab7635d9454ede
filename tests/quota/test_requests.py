"""The parts of a shared limiter: pending events, permits and ledger, demand, and the view of the store.

Each part is tested directly, since between clients and a store these numbers decide no more than a few milliseconds.
test_limiter.py tests the whole.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async import Lane
from tim_async._limiter.demand import Demand
from tim_async._limiter.permits import GrantedPermits, Ledger
from tim_async._limiter.queue import RequestQueue
from tim_async._limiter.reply import Reply, StoreView
from tim_async._limiter.request import PendingEvents, Request

# Pending events.


def reported_by(pending: PendingEvents, now: float) -> tuple[Request, Callable[[], None]]:
    request: Request = {}
    acknowledge = pending.report(request, now)
    return request, acknowledge


def test_refusals_are_reported_with_the_time_since_the_last_one() -> None:
    """Until acknowledged; refusals in between are reported next time."""
    pending = PendingEvents()
    assert not pending
    assert reported_by(pending, 10.0)[0] == {}
    pending.refused(9.5)
    pending.refused(9.0)
    assert pending
    request, acknowledge = reported_by(pending, 10.0)
    assert request == reported_by(pending, 10.0)[0] == {"refusals": 2, "refused_ago": 500_000}
    pending.refused(10.25)
    acknowledge()
    assert reported_by(pending, 10.5)[0] == {"refusals": 1, "refused_ago": 250_000}


@pytest.mark.parametrize(("now", "known"), [(12.0, True), (12.001, False)])
def test_refusals_and_alerts_expire_after_two_seconds(now: float, known: bool) -> None:
    pending = PendingEvents()
    pending.refused(10.0)
    pending.slow_down(0.5, 10.0)
    request, acknowledge = reported_by(pending, now)
    assert request == ({"refusals": 1, "accepted": 0.5, "refused_ago": 2_000_000} if known else {})
    acknowledge()
    assert not pending


@pytest.mark.parametrize("shares", [(0.5, 0.8), (0.8, 0.5)])
def test_of_two_alerts_the_lower_share_is_reported(shares: tuple[float, float]) -> None:
    pending = PendingEvents()
    for share in shares:
        pending.slow_down(share, 10.0)
    request, acknowledge = reported_by(pending, 10.5)
    assert request == {"accepted": 0.5, "refused_ago": 500_000}
    pending.slow_down(0.4, 10.6)
    acknowledge()
    assert pending
    request, acknowledge = reported_by(pending, 10.6)
    assert request == {"accepted": 0.4, "refused_ago": 0}
    acknowledge()
    assert not pending


@pytest.mark.parametrize("ends", [(12.0, 13.0), (13.0, 12.0)])
def test_of_two_pauses_the_longer_one_is_reported(ends: tuple[float, float]) -> None:
    pending = PendingEvents()
    for end in ends:
        pending.pause(end)
    assert pending
    request, acknowledge = reported_by(pending, 10.0)
    assert request == {"pause": 3_000_000}
    pending.pause(15.0)
    acknowledge()
    request, acknowledge = reported_by(pending, 10.0)
    assert request == {"pause": 5_000_000}
    acknowledge()
    assert not pending


@pytest.mark.parametrize("end", [9.0, 10.0])
def test_a_pause_that_is_over_is_not_reported(end: float) -> None:
    pending = PendingEvents()
    pending.pause(end)
    request, acknowledge = reported_by(pending, 10.0)
    assert request == {}
    acknowledge()
    assert not pending


# Unused permits, and the ledger.


def test_permits_are_used_in_the_order_of_their_due_times() -> None:
    granted = GrantedPermits()
    assert (len(granted), granted.soonest(), granted.latest(), granted.pop()) == (0, math.inf, -math.inf, None)
    for due in (10.2, 10.1, 10.3):
        granted.add(due, Lane.BULK)
    assert (len(granted), granted.soonest(), granted.latest()) == (3, 10.1, 10.3)
    assert granted.pop(due_by=10.0) is None
    assert granted.pop(due_by=10.1) == 10.1
    assert granted.pop(due_by=10.1) is None
    assert [granted.pop(), granted.pop(), granted.pop()] == [10.2, 10.3, None]
    granted.add(5.0, Lane.BULK)
    assert granted.latest() == 5.0


def test_an_interactive_call_does_not_wait_long_for_a_permit_of_bulk() -> None:
    """It requests one of its own, once; a bulk call takes any permit."""
    granted = GrantedPermits()
    assert not granted.suits(Lane.BULK, 10.0)
    granted.add(10.02, Lane.BULK)
    assert not granted.suits(Lane.INTERACTIVE, 10.0)
    assert granted.suits(Lane.INTERACTIVE, 10.0101)
    assert granted.suits(Lane.BULK, 10.0)
    granted.add(10.03, Lane.INTERACTIVE)
    assert granted.suits(Lane.INTERACTIVE, 10.0)


class Books:
    """A store's record of one process, kept by the rule of ``quota.lua``."""

    def __init__(self) -> None:
        self.number = self.out = 0
        self.cooling: list[float] = []

    def hear(self, request: Request, now: float, granted: int = 0) -> bool:
        """Process a request; return whether it is new."""
        if request["number"] <= self.number:
            return False
        for first, ahead, calls in request.get("freed", ()):
            if first > self.number:
                self.cooling += [now + ahead / 1e6] * calls
        self.number, self.out = request["number"], request["out"] + granted
        return True


class Reporter:
    """A process that makes calls and reports them to a store.

    Attributes:
        freed: the times from which the ended calls no longer count.
    """

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.now = 1000.0
        self.books = self.known = Books()
        self.ledger, self.granted = Ledger(), GrantedPermits()
        self.number = self.heard = 0
        self.freed: list[float] = []
        self.sent: list[Request] = []

    def live(self) -> None:
        """Let some time pass; send and end some calls, and return some permits."""
        self.now += self.dice.choice([0.0, 0.0004, 0.3])
        for what in self.dice.choices(["send", "end", "return"], k=self.dice.randint(0, 3)):
            if what == "end" and self.ledger.in_flight:
                self.ledger.in_flight -= 1
                self.freed.append(self.now + self.dice.choice([0.9, 1.0005]))
                self.ledger.cool(self.freed[-1])
            elif what != "end" and (due := self.granted.pop()) is not None:
                self.ledger.in_flight += what == "send"
                if what == "return":
                    self.freed.append(due)
                    self.ledger.cool(due)

    def tell(self, fate: str) -> None:
        """Make one exchange, which ends as its fate says."""
        self.number += 1
        request: Request = {"number": self.number}
        self.ledger.report(request, self.now, len(self.granted), self.heard)
        self.sent.append(request)
        if fate == "overtaken":
            for old in self.dice.sample(self.sent, k=len(self.sent)):
                self.books.hear(old, self.now)
        if fate.startswith("forgotten"):
            self.books = Books()
        new = self.dice.randint(0, 3)
        if fate == "lost" or not self.books.hear(request, self.now, new) or fate.endswith("no reply"):
            return
        if self.books is not self.known:
            self.ledger.report_again(self.heard)
            self.known = self.books
        self.heard = self.number
        for _ in range(new):
            self.granted.add(self.now + 0.1, Lane.BULK)


FATES = ("heard", "heard", "lost", "no reply", "overtaken", "forgotten", "forgotten, no reply")


@given(seed=st.integers(0, 2**32), fates=st.lists(st.sampled_from(FATES), max_size=40))
def test_reports_are_complete_despite_lost_late_and_repeated_messages(seed: int, fates: list[str]) -> None:
    """The store knows the calls in flight, and counts each ended call once and long enough.

    A store that has lost its data gets the reports again.
    """
    reporter = Reporter(random.Random(seed))
    for fate in [*fates, "heard", "heard"]:
        reporter.live()
        reporter.tell(fate)
    books, ledger, freed = reporter.books, reporter.ledger, [free for free in reporter.freed if free > reporter.now]
    assert books.out == ledger.in_flight + len(reporter.granted)
    assert len(books.cooling) <= len(reporter.freed)
    for free in freed:
        assert sum(each >= free - 1e-5 for each in books.cooling) >= sum(each >= free for each in freed)
    assert ledger.counted(reporter.now) == bool(ledger.in_flight or freed)
    assert not ledger.unreported()


def test_calls_that_end_within_a_millisecond_are_told_as_one() -> None:
    """By the time of the last; those told before, or later ones, are told apart."""
    ledger = Ledger()

    def told(number: int) -> object:
        request: Request = {"number": number}
        ledger.report(request, 10.0, 0, 0)
        return request["freed"]

    for until in (11.0, 11.0009, 11.0004, 11.002):
        ledger.cool(until)
    first = [(1, pytest.approx(1_000_900, abs=1), 3), (1, pytest.approx(1_002_000, abs=1), 1)]
    assert told(1) == first
    ledger.cool(11.002)
    assert told(2) == [*first, (2, pytest.approx(1_002_000, abs=1), 1)]


# Demand.


class Callers(RequestQueue):
    """A queue with these callers, as a `Demand` sees it: without an event loop."""

    def __init__(self, *, interactive: int = 0, bulk: int = 0, deadline: float = math.inf) -> None:
        self._queued = {Lane.INTERACTIVE: interactive, Lane.BULK: bulk}
        self._deadline = deadline

    def queued(self, lane: Lane) -> int:
        return self._queued[lane]

    def head_deadline(self) -> float:
        return self._deadline


def said(**fields: Any) -> Reply:
    """A reply of a store with a limit of 200."""
    return Reply(**{"number": 1, "epoch": "1", "limit": 200.0, "rate": 200.0, **fields})


def reached(limit: float = 200, round_trip: float = 0.0) -> StoreView:
    """Return the view of a store with this round trip, which was asked before time 50."""
    store = StoreView(limit)
    store.update(said(limit=limit, rate=limit), None, 50.0 - round_trip, 50.0)
    return store


def asked(demand: Demand, now: float = 100.0) -> Request:
    request: Request = {}
    demand.ask(request, now)
    return request


@pytest.mark.parametrize(
    ("lane", "limit", "round_trip", "waiting", "wanted"),
    [
        ("interactive", 200, 0.0, 50, 1),
        ("interactive", 200, 0.0401, 50, 21),  # those for the time until the reply to the next request
        ("interactive", 200, 0.0401, 9, 9),
        ("interactive", 200, 1.0, 150, 100),  # half of the limit
        ("interactive", 1, 1.0, 50, 1),
        ("bulk", 200, 0.0, 50, 4),  # a fiftieth of the limit
        ("bulk", 200, 0.0, 3, 3),
        ("bulk", 200, 0.0401, 50, 21),
        ("bulk", 9, 0.0, 50, 1),
        ("bulk", 2500, 0.0, 500, 50),
    ],
)
def test_as_many_permits_are_requested_as_can_be_used_soon(
    lane: str, limit: float, round_trip: float, waiting: int, wanted: int
) -> None:
    demand = Demand(Callers(**{lane: waiting}), GrantedPermits(), reached(limit, round_trip))
    assert demand.horizon == pytest.approx(2.5 * round_trip + 0.008)
    demand.add(Lane[lane.upper()])
    assert asked(demand) == {"lane": lane, "wanted": wanted}
    assert asked(demand) == {}, "requested once"


@pytest.mark.parametrize("order", [(Lane.INTERACTIVE, Lane.BULK), (Lane.BULK, Lane.INTERACTIVE)])
def test_permits_for_interactive_calls_are_requested_first(order: tuple[Lane, ...]) -> None:
    demand = Demand(Callers(interactive=1, bulk=5), GrantedPermits(), reached())
    for lane in order:
        demand.add(lane)
    assert asked(demand)["lane"] == "interactive"


def test_no_permit_is_requested_that_no_caller_can_use() -> None:
    """After the callers have gone, with an unused permit, and after a reply."""
    granted, store = GrantedPermits(), reached()
    gone = Demand(Callers(interactive=1), granted, store)
    assert gone.wait(Lane.BULK, 100.0) == math.inf
    gone.add(Lane.BULK)
    assert asked(gone) == {}
    demand = Demand(Callers(interactive=1), granted, store)
    assert demand.wait(Lane.INTERACTIVE, 100.0) == 0.0
    demand.add(Lane.INTERACTIVE)
    demand.clear()
    assert asked(demand) == {}
    granted.add(100.0, Lane.INTERACTIVE)
    assert demand.wait(Lane.INTERACTIVE, 100.0) == math.inf
    demand.add(Lane.INTERACTIVE)
    assert asked(demand) == {}


@pytest.mark.parametrize(
    ("round_trip", "due", "asks"),
    [(0.003, 100.0, False), (0.003, 99.99, True), (0.1, 100.12, True), (0.1, 100.14, False)],
)
def test_the_next_permits_are_requested_in_time(round_trip: float, due: float, asks: bool) -> None:
    """With a distant store, while the last ones are not due yet."""
    granted = GrantedPermits()
    granted.add(due, Lane.INTERACTIVE)
    demand = Demand(Callers(interactive=5), granted, reached(round_trip=round_trip))
    demand.add(Lane.INTERACTIVE)
    assert (demand.wait(Lane.INTERACTIVE, 100.0) == 0.0) is asks
    assert ("wanted" in asked(demand)) is asks


@pytest.mark.parametrize(("waiting", "wanted"), [(1, None), (2, 1), (5, 4)])
@pytest.mark.parametrize(("lane", "due"), [(Lane.INTERACTIVE, 99.99), (Lane.BULK, 100.05)])
def test_the_permits_in_hand_are_not_asked_for_again(lane: Lane, due: float, waiting: int, wanted: int | None) -> None:
    """An interactive call that does not wait for a permit of bulk asks for one in any case."""
    granted = GrantedPermits()
    granted.add(due, lane)
    demand = Demand(Callers(interactive=waiting), granted, reached(round_trip=0.1))
    demand.add(Lane.INTERACTIVE)
    assert asked(demand).get("wanted") == (wanted or (1 if lane is Lane.BULK else None))


@pytest.mark.parametrize(("deadline", "budget"), [(100.25, 250_000), (100.0, 0), (99.0, 0), (math.inf, None)])
def test_the_deadline_of_the_head_of_the_queue_is_the_budget(deadline: float, budget: int | None) -> None:
    demand = Demand(Callers(interactive=1, deadline=deadline), GrantedPermits(), reached())
    demand.add(Lane.INTERACTIVE)
    assert asked(demand).get("budget") == budget


def test_a_caller_asks_again_when_the_store_says() -> None:
    """Sooner: an interactive call after a reply to bulk, and a caller with a later deadline."""
    store = reached()
    store.update(said(again=0.5), Lane.BULK, 100.0, 100.0)
    callers = Callers(interactive=1, bulk=1, deadline=100.4)
    demand = Demand(callers, GrantedPermits(), store)
    assert demand.wait(Lane.BULK, 100.1) == pytest.approx(0.4)
    assert demand.wait(Lane.BULK, 100.6) == 0.0
    assert demand.wait(Lane.INTERACTIVE, 100.1) == 0.0
    store.update(said(again=0.5, over=True), Lane.INTERACTIVE, 100.0, 100.0)
    assert demand.wait(Lane.INTERACTIVE, 100.1) == demand.wait(Lane.BULK, 100.1) == pytest.approx(0.4)
    callers._deadline = 100.6
    assert demand.wait(Lane.INTERACTIVE, 100.1) == 0.0
    store.update(said(), None, 100.2, 100.2)
    assert demand.wait(Lane.BULK, 100.2) == 0.0


# The view of the store.


def test_the_view_has_the_mean_round_trip_and_whether_slots_were_missing() -> None:
    store = StoreView(200)
    assert (store.rate, store.limit, store.members, store.round_trip, store.saturated) == (200, 200, 0, 0.0, False)
    store.update(said(rate=150, limit=180, members=3, again=0.5, slot_bound=True), Lane.BULK, 99.9, 100.0)
    assert (store.rate, store.limit, store.members, store.saturated) == (150, 180, 3, False)
    assert store.round_trip == pytest.approx(0.1)
    store.update(said(slot_bound=True, permits=((0.0, 1),)), Lane.BULK, 100.0, 100.2)
    assert store.saturated
    assert store.round_trip == pytest.approx(0.2), "the first one had to connect"
    store.update(said(permits=((0.0, 1),)), Lane.BULK, 100.0, 100.4)
    assert not store.saturated
    assert store.round_trip == pytest.approx(0.2 + 0.2 * 0.2)
    store.update(said(), None, 100.0, 110.0)
    assert store.round_trip == pytest.approx(0.24 + 0.2 * (2 * 0.24 + 0.01)), "an outlier counts less"


def test_the_highest_recent_number_of_members_counts() -> None:
    """A store that has lost its data learns of them one by one."""
    store = StoreView(200)
    counts = []
    for now, members in ((0.0, 30), (10.0, 1), (20.0, 5), (60.1, 6), (70.0, 9)):
        store.update(said(members=members), None, now, now)
        counts.append(store.members)
    assert counts == [30, 30, 30, 6, 9]


def test_members_are_spread_evenly_over_a_timetable() -> None:
    phases = []
    for place in range(50):
        store = StoreView(200)
        store.update(said(place=place), None, 0.0, 0.0)
        phases.append(store.phase)
    phases.sort()
    gaps = [later - sooner for sooner, later in itertools.pairwise([*phases, phases[0] + 1])]
    assert 0.01 < min(gaps) < max(gaps) < 0.04


@given(
    true=st.floats(-1e6, 1e6),
    ways=st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)), min_size=1, max_size=10),
    even=st.booleans(),
)
def test_the_clock_offset_is_estimated_from_the_round_trip(
    true: float, ways: list[tuple[float, float]], even: bool
) -> None:
    """Exactly if both ways take the same time, otherwise within the bounds of the last exchange."""
    store, now = StoreView(200), 100.0
    for there, back in ways:
        asked, now = now, now + there + (there if even else back)
        store.update(said(now=asked + there + true), None, asked, now)
        assert abs(store.clock_offset - true) <= (0.0 if even else now - asked) + 1e-6
        now += 0.2


def test_the_clock_offset_is_estimated_anew_if_it_no_longer_fits_or_after_a_minute() -> None:
    store = StoreView(200)
    for asked, way, ahead in ((0.0, 0.01, 5.0), (1.0, 0.1, 5.0), (2.0, 0.1, 4.0), (62.4, 0.15, 4.1), (70.0, 0.8, 4.1)):
        store.update(said(now=asked + way + ahead), None, asked, asked + 2 * way)
        assert store.clock_offset == pytest.approx(ahead)


def test_a_higher_count_of_cuts_is_a_cut() -> None:
    """The first count may be of old cuts; after a loss of data the count starts at 0."""
    store = StoreView(200)
    assert [store.update(said(cuts=cuts), None, 1.0, 1.0) for cuts in (5, 5, 6, 8, 0, 1)] == [
        False, False, True, True, False, True
    ]  # fmt: skip


def test_the_expected_pace_is_that_of_recent_grants() -> None:
    """Counted from the first request; the whole rate after a second without requests."""
    store = StoreView(200)
    assert store.pace(0.0) == 200
    store.update(said(permits=((0.0, 1), (0.1, 1))), Lane.BULK, 100.0, 100.0)
    assert store.pace(100.0) == store.pace(101.0) == pytest.approx(1 / (0.7 / 200 + 0.3 * 0.1 / 2))
    assert store.pace(101.001) == 200
    store.update(said(rate=40), None, 102.0, 102.0)
    assert store.pace(102.0) == store.pace(200.0) == 40
    store = StoreView(200)
    store.update(said(permits=((0.0, 1),)), Lane.BULK, 100.0, 100.0)
    assert store.pace(100.0) == pytest.approx(200), "permits that are due at once were granted at the rate"
    store.update(said(again=0.5), Lane.BULK, 100.0, 100.0)
    assert store.pace(100.0) == pytest.approx(2)
    store.update(said(permits=((0.0, 1),)), Lane.BULK, 100.5, 100.5)
    assert store.pace(100.5) == pytest.approx(2)
