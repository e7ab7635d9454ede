"""The script by itself: never more permits than slots in a second, whatever it is told and in whatever order."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis, ResponseError

from tests.store import Store
from tim_async.quota import LAYOUT

from .script import HOLD, SECOND, SOURCE, Granted, Script


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    folder: Path = tmp_path_factory.mktemp("script")
    with Store(folder / "valkey") as store, Redis.from_url(store.url) as redis:
        yield redis


@pytest.fixture
def redis(running: Redis) -> Redis:
    running.flushall()
    return running


def fullest(times: list[float]) -> int:
    """The most in any second."""
    times = sorted(times)
    return max((sum(1 for t in times[i:] if t < start + 1.0) for i, start in enumerate(times)), default=0)


class World:
    """Processes that ask, call, tell, are slow to tell, or never do; every call arrives where it hurts most."""

    def __init__(self, script: Script, dice: random.Random) -> None:
        self.script = script
        self.dice = dice
        self.open: dict[int, Granted] = {}
        self.arrivals: dict[int, float] = {}

    def ask(self, wanted: int, lane: str, *, limit: int | None = None, budget: float | None = None) -> None:
        script = self.script
        answered, unused, held = [], [], []
        for number, due in list(self.open.items()):
            match self.dice.choice(["answered", "unused", "held", "twice", "nothing", "nothing", "lost"]):
                case ("answered" | "twice") as what if due.due <= script.now:
                    # It arrived as late as it may have: not after its answer, nor after a permit's time is over.
                    answer = self.dice.uniform(due.due, script.now)
                    self.arrivals[number] = min(answer, due.due + 0.1)
                    answered.append((number, script.now - answer))
                    if what == "twice":
                        answered.append((number, script.now - answer))
                    del self.open[number]
                case "unused":
                    unused.append(number)
                    del self.arrivals[number]
                    del self.open[number]
                case "held" if due.due <= script.now:
                    held.append(number)
                case "lost":
                    del self.open[number]
        reply = script.ask(wanted, lane, limit=limit, budget=budget, answered=answered, unused=unused, held=held)
        for permit in reply.permits:
            assert permit.number not in self.arrivals
            self.open[permit.number] = permit
            self.arrivals[permit.number] = permit.due + self.dice.choice([0.0, 0.1])


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.001, 0.1, 0.4, 0.9, 1.0, 1.2, 3.0]),
        st.integers(0, 7),
        st.sampled_from(["bulk", "interactive"]),
        st.sampled_from([None, 0.0, 0.3, 2.0]),
    ),
    max_size=40,
)


@given(limit=st.integers(1, 6), steps=STEPS, dice=st.randoms(use_true_random=False))
def test_no_second_holds_more_than_the_limit(
    redis: Redis, limit: int, steps: list[tuple[float, int, str, float | None]], dice: random.Random
) -> None:
    redis.flushall()
    world = World(Script(redis, limit), dice)
    for passing, wanted, lane, budget in steps:
        world.script.now += passing
        world.ask(wanted, lane, budget=budget)
    assert fullest(list(world.arrivals.values())) <= limit
    assert redis.zcard(world.script.slots) == limit or not steps


@given(limits=st.lists(st.integers(1, 5), min_size=2, max_size=2), steps=STEPS, dice=st.randoms(use_true_random=False))
def test_processes_that_disagree_never_exceed_the_higher_limit(
    redis: Redis, limits: list[int], steps: list[tuple[float, int, str, float | None]], dice: random.Random
) -> None:
    redis.flushall()
    world = World(Script(redis), dice)
    for passing, wanted, lane, budget in steps:
        world.script.now += passing
        world.ask(wanted, lane, limit=dice.choice(limits), budget=budget)
    assert fullest(list(world.arrivals.values())) <= max(limits)


@given(
    limit=st.integers(2, 10),
    agos=st.lists(st.floats(0.0, 0.999), max_size=10),
    wanted=st.lists(st.integers(1, 10), min_size=1, max_size=10),
)
def test_calls_made_alone_occupy_slots_too(redis: Redis, limit: int, agos: list[float], wanted: list[int]) -> None:
    """As many as the limit at most; what is beyond it cannot be taken back."""
    redis.flushall()
    script = Script(redis, limit)
    agos = agos[:limit]
    script.ask(strays=agos, alone=True)
    granted = [permit.due for count in wanted for permit in script.ask(count).permits]
    assert fullest(granted + [script.now - ago for ago in agos]) <= limit


def test_a_slot_is_free_a_second_after_its_answer_or_after_the_hold(redis: Redis) -> None:
    script = Script(redis, 2)
    first, second = script.ask(2).permits
    start = script.now
    script.now += 0.2
    script.ask(answered=[(first.number, 0.05)])
    due = [permit.due - start for permit in script.ask(2).permits]
    assert due == pytest.approx([0.15 + SECOND, SECOND + HOLD], abs=2e-6)
    assert second.due == start


def test_the_lead_brings_the_next_call_forward_by_as_much(redis: Redis) -> None:
    script = Script(redis, 1)
    first = script.ask(1).permits[0]
    script.ask(answered=[(first.number, 0.0)])
    assert script.ask(1, lead=0.3).permits[0].due - script.now == pytest.approx(SECOND - 0.3, abs=2e-6)


def test_a_call_in_flight_keeps_its_slot_as_long_as_it_is_told_of(redis: Redis) -> None:
    script = Script(redis, 1)
    number = script.ask(1).permits[0].number
    for _ in range(50):
        script.now += 0.3
        assert script.ask(1, held=[number], budget=1.0).permits == []
    assert script.ask(1).permits[0].due - script.now == pytest.approx(SECOND + HOLD, abs=2e-6)


def test_what_is_not_used_frees_its_slot_no_sooner_than_the_call_before_it_allows(redis: Redis) -> None:
    script = Script(redis, 1)
    first = script.ask(1).permits[0]
    script.now += 0.01
    script.ask(answered=[(first.number, 0.0)])
    second = script.ask(1).permits[0]
    assert second.due - script.now == pytest.approx(SECOND, abs=2e-6)
    third = script.ask(1, unused=[second.number]).permits[0]
    assert third.due == pytest.approx(second.due, abs=2e-6)


def test_a_call_without_a_permit_frees_no_slot_sooner(redis: Redis) -> None:
    """Nor does an answer whose slot has been reserved again."""
    script = Script(redis, 1)
    script.ask(1)
    assert script.ask(1, strays=[0.9]).permits[0].due - script.now == pytest.approx(SECOND + HOLD, abs=2e-6)
    redis.flushall()
    first, second = script.ask(2).permits
    third = script.ask(1, answered=[(first.number, 0.0)]).permits[0]
    assert third.due - second.due >= SECOND


def test_what_was_not_used_is_there_at_once(redis: Redis) -> None:
    script = Script(redis, 3)
    permits = script.ask(3).permits
    again = script.ask(3, unused=[permit.number for permit in permits]).permits
    assert [permit.due for permit in again] == [script.now] * 3
    assert not {permit.number for permit in permits} & {permit.number for permit in again}


@pytest.mark.parametrize(("limit", "spare"), [(200, 1), (400, 2), (20, 0)])
def test_bulk_leaves_slots_that_interactive_takes(redis: Redis, limit: int, spare: int) -> None:
    script = Script(redis, limit)
    free = [permit for permit in script.ask(limit + 1, "bulk").permits if permit.due == script.now]
    assert len(free) == limit - spare
    assert [permit.due - script.now for permit in script.ask(spare).permits] == [0.0] * spare


def test_bulk_leaves_more_while_somebody_interactive_calls(redis: Redis) -> None:
    script = Script(redis, 200)
    script.ask(1)
    free = sum(permit.due == script.now for permit in script.ask(200, "bulk").permits)
    assert 180 <= free <= 200 - 1 - 2
    assert [permit.due for permit in script.ask(2).permits] == [script.now] * 2


@pytest.mark.parametrize("lane", ["bulk", "interactive"])
def test_a_turn_beyond_the_budget_is_named_and_takes_nothing(redis: Redis, lane: str) -> None:
    script = Script(redis, 4)
    granted = script.ask(4, "interactive").permits
    assert len(granted) == 4
    slots, before = script.kept()
    reply = script.ask(3, lane, budget=1.4)
    assert reply.permits == []
    assert reply.over == pytest.approx(SECOND + HOLD, abs=2e-6)
    after = script.kept()
    assert after[0] == slots
    # That somebody asked is remembered, no more.
    assert {name for name, value in before.items() if after[1][name] != value} <= {b"heat", b"seen"}
    assert script.ask(3, lane, budget=1.6).permits


def test_a_budget_grants_what_it_covers(redis: Redis) -> None:
    script = Script(redis, 4)
    script.ask(2)
    reply = script.ask(4, budget=0.0)
    assert [permit.due for permit in reply.permits] == [script.now] * 2
    assert reply.over is not None
    assert reply.over > 0


def test_a_pause_holds_everybody_and_the_longest_counts(redis: Redis) -> None:
    script = Script(redis, 4)
    assert script.ask(1, pause=2.0).opens == 2.0
    script.now += 0.5
    reply = script.ask(2, pause=1.0)
    assert reply.opens == pytest.approx(1.5)
    assert all(permit.due - script.now >= 1.5 - 1e-6 for permit in reply.permits)
    script.now += 2.0
    assert script.ask().opens == 0.0


def test_a_cut_falls_to_what_was_taken_and_grows_back_ever_faster(redis: Redis) -> None:
    script = Script(redis, 200)
    usual = {"ceiling": 220.0, "burst": 10.0, "floor": 22.0}
    assert script.ask(**usual).rate == 220.0  # type: ignore[arg-type]
    reply = script.ask(refused=(0.5, 0.0), **usual)  # type: ignore[arg-type]
    assert (reply.rate, reply.cuts) == (97.0, 1)
    rates = []
    for _ in range(12):
        script.now += 1.0
        rates.append(script.ask(**usual).rate)  # type: ignore[arg-type]
    assert rates == [pytest.approx(min(220.0, 97.0 + 2 * t + t * t), abs=0.01) for t in range(1, 13)]


def test_one_event_cuts_once_and_a_second_holds_one_cut(redis: Redis) -> None:
    script = Script(redis, 200)
    assert script.ask(refused=(0.8, 0.0)).cuts == 1
    assert script.ask(refused=(0.8, 0.0)).cuts == 1
    script.now += 0.9
    assert script.ask(refused=(0.8, 0.0)).cuts == 1
    script.now += 0.2
    assert script.ask(refused=(0.8, 1.2)).cuts == 1, "it was on its way when the rate was cut"
    assert script.ask(refused=(0.8, 0.1)).cuts == 2


def test_refusals_are_counted_over_the_fleet_for_about_a_second(redis: Redis) -> None:
    """What one slow process sees is no measure: a first refusal cuts by 5 %, a second full of them by their share."""
    script = Script(redis, 200)
    assert script.ask(refusals=1).rate == pytest.approx(190.0)
    for _ in range(10):
        script.now += 0.11
        reply = script.ask(refusals=8)
    assert reply.cuts == 2
    assert 0.6 * 190 < reply.rate < 0.8 * 190


def test_a_clock_that_was_set_back_has_the_store_listen_and_begin_anew(redis: Redis) -> None:
    """Slots that are free in an hour would stop the fleet for an hour."""
    script = Script(redis, 5)
    script.ask(5)
    script.now -= 3600
    assert script.ask(1, settle=0.45).settling == pytest.approx(0.45)
    script.now += 0.46
    assert [permit.due for permit in script.ask(5, settle=0.45).permits] == [pytest.approx(script.now, abs=0.01)] * 5


@pytest.mark.parametrize(("taken", "rate"), [(0.0, 80.0), (1.0, 190.0), (0.9, 174.6)])
def test_a_cut_has_bounds(redis: Redis, taken: float, rate: float) -> None:
    assert Script(redis, 200).ask(refused=(taken, 0.0)).rate == pytest.approx(rate)


def test_cuts_end_at_the_floor(redis: Redis) -> None:
    script = Script(redis, 200)
    for _ in range(20):
        script.now += 1.1
        reply = script.ask(refused=(0.0, 0.0), floor=22.0)
    assert reply.rate == 22.0


def test_a_slower_rate_spreads_the_calls(redis: Redis) -> None:
    script = Script(redis, 20)
    script.ask(refused=(0.5, 0.0), ceiling=22.0, burst=4.0)
    due = [permit.due for permit in script.ask(10, ceiling=22.0, burst=4.0).permits]
    gaps = [later - sooner for sooner, later in itertools.pairwise(due)]
    assert gaps[:3] == [0.0] * 3
    assert gaps[4:] == [pytest.approx(1 / 9.7, abs=1e-4)] * 5


@given(numbers=st.lists(st.integers(1000, 2**53), max_size=20, unique=True), ago=st.floats(1.1, 100.0))
def test_reports_of_what_is_over_change_nothing(redis: Redis, numbers: list[int], ago: float) -> None:
    """Permits that the store does not know, given back or answered more than a second ago."""
    redis.flushall()
    script = Script(redis, 5)
    script.ask(3)
    before = script.kept()
    known = {int(member) for member, _ in before[0]}
    numbers = [number for number in numbers if number not in known]
    script.ask(answered=[(number, ago) for number in numbers], unused=numbers)
    assert script.kept() == before


def test_a_call_whose_permit_is_forgotten_takes_a_slot_all_the_same(redis: Redis) -> None:
    """Once, however often it is told."""
    script = Script(redis, 5)
    script.ask(1)
    for _ in range(3):
        script.ask(answered=[(1001, 0.2)], held=[1002])
    assert sum(permit.due == script.now for permit in script.ask(5).permits) == 2


def test_reports_repeated_or_out_of_date_change_nothing(redis: Redis) -> None:
    script = Script(redis, 1)
    first = script.ask(1).permits[0].number
    script.now += 0.1
    script.ask(answered=[(first, 0.0)])
    before = script.kept()
    script.now += 0.2
    script.ask(answered=[(first, 0.2)])
    assert script.kept() == before
    script.now += 1.0
    second = script.ask(1).permits[0]
    taken = script.kept()
    script.ask(answered=[(first, 1.3)], unused=[first])
    assert script.kept() == taken
    assert second.due == script.now


def test_a_lower_limit_counts_all_calls_in_use_and_a_higher_one_adds_no_slot_that_is_free(redis: Redis) -> None:
    script = Script(redis, 10)
    script.ask(7)
    assert script.ask(1, limit=7, budget=0.9).permits == []
    assert len(script.ask(1, limit=8, budget=0.9).permits) == 1
    assert len(script.ask(9, limit=11, budget=0.9).permits) == 2, "the one added may have been used this very second"
    script.now += 2.0
    assert len(script.ask(9, limit=4, budget=0.0).permits) == 4
    assert len(script.ask(9, "bulk", limit=6, left_by_bulk=1, budget=0.0).permits) == 1
    assert len(script.ask(20, limit=11, budget=0.0).permits) == 6


def test_processes_that_disagree_go_on(redis: Redis) -> None:
    """Neither takes the other's slots away, however often they ask."""
    script, granted = Script(redis, 20), {10: 0, 20: 0}
    for _ in range(2 * 1000 // 5):
        for limit in granted:
            for permit in script.ask(1, limit=limit, budget=0.3).permits:
                granted[limit] += 1
                script.ask(limit=limit, answered=[(permit.number, script.now - permit.due)])
        script.now += 0.005
    assert sum(granted.values()) > 1.5 * 20, granted


@pytest.mark.parametrize("told", [{"alone": True}, {"lately": True}])
def test_a_store_that_has_forgotten_only_listens_at_first(redis: Redis, told: dict[str, Any]) -> None:
    script = Script(redis, 10)
    reply = script.ask(5, settle=0.45, **told)
    assert (reply.permits, reply.settling) == ([], 0.45)
    script.now += 0.4
    assert script.ask(5, settle=0.45, strays=[0.1] * 3).permits == []
    script.now += 0.06
    assert sum(permit.due == script.now for permit in script.ask(10, settle=0.45).permits) == 7


def test_a_fleet_that_starts_does_not_wait(redis: Redis) -> None:
    """Nobody has called before, and nobody knows better."""
    script = Script(redis, 10)
    assert len(script.ask(5, settle=0.45).permits) == 5
    assert len(script.ask(3, settle=0.45, lately=True).permits) == 3


@pytest.mark.parametrize("told", [{"alone": True}, {"answered": [(17, 0.2)]}, {"held": [17]}])
def test_one_who_knows_better_soon_after_makes_all_listen_once(redis: Redis, told: dict[str, Any]) -> None:
    """A newcomer was the first to find the store empty; it is no fleet that starts."""
    script = Script(redis, 10)
    assert len(script.ask(2, settle=0.45).permits) == 2
    script.now += 0.3
    assert script.ask(settle=0.45, **told).settling == 0.45
    script.now += 0.46
    assert script.ask(settle=0.45, **told).settling == 0.0


def test_who_comes_back_after_silence_makes_all_listen_again(redis: Redis) -> None:
    script = Script(redis, 10)
    script.ask(1)
    script.now += 3.0
    assert script.ask(settle=0.45, alone=True).settling == 0.45
    assert script.ask(3, settle=0.45).permits == []


def test_who_comes_back_while_others_call_disturbs_nobody(redis: Redis) -> None:
    script = Script(redis, 10)
    for _ in range(15):
        script.ask(1)
        script.now += 0.2
    assert script.ask(settle=0.45, alone=True).settling == 0.0


def test_bulk_leaves_the_part_it_is_told_to_and_others_do_not(redis: Redis) -> None:
    """Bulk has its part of the slots, and no more before a second has passed; whoever somebody waits for has all."""
    script = Script(redis, 10)
    bulk = script.ask(20, "bulk", left_by_bulk=4).permits
    assert sum(permit.due == script.now for permit in bulk) == 6
    assert all(permit.due >= script.now + 1.0 for permit in bulk[6:])
    urgent = Script(redis, 10, keys=("another:slots", "another:state"))
    assert sum(permit.due == urgent.now for permit in urgent.ask(20, left_by_bulk=4).permits) == 10


def test_numbers_keep_all_their_digits(redis: Redis) -> None:
    """Lua would write 1.7e+15."""
    script = Script(redis, 5)
    script.now += 0.123457
    permits = script.ask(5, refused=(0.5, 0.0), pause=1.0).permits
    slots, state = script.kept()
    assert {int(member) for member, _ in slots} == {permit.number for permit in permits}
    now = 1_750_000_000_123_457
    assert [int(score) for _, score in slots[:1]] == [now + 1_000_000 + 1_500_500]
    for field in (b"settled", b"seq", b"bulk", b"urgent", b"cut_at", b"opens", b"seen"):
        assert re.fullmatch(rb"[0-9]{16}(\.[0-9]+)?", state[field])
        assert abs(float(state[field]) - now) < 10_000_000


def test_what_is_stored_is_what_the_version_in_the_keys_stands_for(redis: Redis) -> None:
    """Where this fails, releases that read them otherwise would share keys: raise LAYOUT, and say so in CHANGELOG."""
    script = Script(redis, 5)
    script.ask(2, "bulk")
    script.ask(1, refusals=1, refused=(0.5, 0.0), pause=1.0)
    slots, state = script.kept()
    now = round(script.now * 1e6)
    assert LAYOUT == 2
    assert {field.decode() for field in state} == {
        *("settled", "unsure_until", "seq", "urgent", "bulk", "resumed", "seen", "heat"),
        *("cut_at", "after_cut", "cuts", "refused_at", "refused", "opens"),
    }
    assert int(redis.hget(script.state, "at") or 0) == now
    assert (float(state[b"settled"]), int(state[b"seq"])) == (now, now + 5 + 3)
    assert all(now < int(permit) <= now + 8 for permit, _ in slots)
    assert {free for _, free in slots} == {0, now + 1_500_500, now + 2_500_500}


NEXT_RELEASE = SOURCE.replace("    'opens',", "    'opens', 'calls',").replace(
    "local surplus = fit_slots()", "state.calls = state.calls + request.calls\nlocal surplus = fit_slots()"
)
"""A script that takes one argument more, and keeps one field more; the layout is the same."""


@given(steps=st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.3, 1.0]), st.integers(1, 4)), max_size=20))
def test_two_releases_with_one_layout_share_one_quota(redis: Redis, steps: list[tuple[bool, float, int]]) -> None:
    """Each with its own script, in any order; neither loses what only the other knows."""
    redis.flushall()
    old, new = Script(redis, 3), Script(redis, 3, source=NEXT_RELEASE)
    new.extra["calls"] = 1
    due, numbers = list[float](), list[int]()
    for updated, passing, wanted in steps:
        old.now = new.now = old.now + passing
        permits = (new if updated else old).ask(wanted).permits
        due += [permit.due for permit in permits]
        numbers += [permit.number for permit in permits]
    assert fullest(due) <= 3
    assert len(set(numbers)) == len(numbers) == sum(wanted for _, _, wanted in steps)
    assert int(redis.hget(old.state, "calls") or 0) == sum(updated for updated, _, _ in steps)


def test_keys_expire_after_a_day(redis: Redis) -> None:
    script = Script(redis, 5)
    script.ask(1)
    for key in (script.slots, script.state):
        assert 86_390 < redis.ttl(key) <= 86_400


@pytest.mark.parametrize("key", ["slots", "state"])
def test_a_key_of_another_type_is_an_error_and_stays(redis: Redis, key: str) -> None:
    script = Script(redis, 5)
    redis.set(getattr(script, key), "mine")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        script.ask(1)
    assert redis.get(getattr(script, key)) == b"mine"
