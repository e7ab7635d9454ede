"""``quota.lua``: no second holds more calls than the limit, whatever is requested, when, and by which processes."""

from __future__ import annotations

import heapq
import itertools
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis, ResponseError

from tests.hypotheses import at_most
from tests.simulation.releases import later
from tests.store import SERVERS, Store
from tim_async._limiter.learning import Rate
from tim_async._limiter.local import SECOND
from tim_async._limiter.request import micro
from tim_async.quota import KEYS, LAYOUT

from .script import HOLD, SOURCE, START, Member, Script, Simulation
from .support import max_per_second


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    folder: Path = tmp_path_factory.mktemp("script")
    with Store(folder / "valkey") as store, Redis.from_url(store.url) as redis:
        yield redis


@pytest.fixture
def redis(running: Redis) -> Redis:
    running.flushall()
    return running


SEEDS = st.integers(0, 2**32)
"""All random events follow from a seed: hypothesis could not shrink such long sequences."""


# Many processes.


@at_most(60)
@given(limit=st.integers(2, 9), processes=st.integers(1, 5), seed=SEEDS)
def test_no_second_holds_more_than_the_limit(redis: Redis, limit: int, processes: int, seed: int) -> None:
    """Processes start, call, report, sleep and die; messages are lost, late, reordered or repeated.

    Calls arrive at the worst times.  After all reports no call is counted any more.
    """
    redis.flushall()
    rng, script = random.Random(seed), Script(redis)
    simulation = Simulation(script, rng, reliable=False)
    for _ in range(processes):
        simulation.join(limit)
    for _ in range(12):
        simulation.pass_time(rng.choice([0.05, 0.3, 1.0]))
        match rng.choice(["join", "kill", "sleep", "sleep", "nothing", "nothing"]):
            case "join":
                simulation.join(limit)
            case "kill" if len(simulation.living()) > 1:
                rng.choice(simulation.living()).kill()
            case "sleep":
                rng.choice(simulation.living()).asleep_until = script.now + rng.choice([0.1, 0.6, 1.5, 4.0])
    simulation.pass_time(1.0)
    assert max_per_second(simulation.arrivals) <= limit
    assert_all_free(simulation, limit)


def assert_all_free(simulation: Simulation, limit: int) -> None:
    """Assert that after the death of all processes the store counts no call, and grants the limit."""
    script = simulation.script
    for process in simulation.living():
        process.kill()
    script.now += 65.0
    last = Member(script, limit)
    last.ask()
    script.now += 1.1  # the calls of the dead count until a second after they are found to be dead
    reply = last.ask(limit, horizon=10_000_000)
    assert (sum(count for _, count in reply.permits), reply.slot_bound) == (limit, False)
    last.unused.clear()
    last.ask()
    script.check()
    state = script.state()
    assert (state["out"], state["cooling"]) == (0, 0)
    assert key_sizes(script) == {"state": 1, "members": 1, "about": 1, "limits": 1}


def key_sizes(script: Script) -> dict[str, int]:
    """Return the number of entries of each key that exists; 1 for the state."""
    count: dict[str, Any] = {"state": script.redis.exists, "about": script.redis.hlen}
    counts = {end: count.get(end, script.redis.zcard)(key) for end, key in script.keys.items()}
    return {end: entries for end, entries in counts.items() if entries}


LOSSES = ("state", "cooling", "members", "about", "waiting", "limits", "older", "back", "empty", "nothing", "clock")


@at_most(50)
@given(limit=st.integers(2, 9), processes=st.integers(1, 5), seed=SEEDS, loss=st.sampled_from(LOSSES))
def test_no_second_holds_more_than_the_limit_after_a_loss_of_data(
    redis: Redis, limit: int, processes: int, seed: int, loss: str
) -> None:
    """After an eviction, a failover to old, all or no data or for a while, or a clock that is set."""
    redis.flushall()
    rng, script = random.Random(seed), Script(redis)
    simulation = Simulation(script, rng, reliable=True)
    for _ in range(processes):
        simulation.join(limit)
    for _ in range(4):
        simulation.pass_time(rng.choice([0.3, 1.0]))
        copy = {key: redis.dump(key) for key in script.keys.values()}
        simulation.pass_time(rng.choice([0.0, 0.05, 0.7]))
        if loss in script.keys:
            redis.delete(script.keys[loss])
            if loss == "state":
                simulation.join(limit)
        elif loss == "clock":
            script.ahead += rng.choice([-0.5, 0.5, -3600.0, 3600.0])
            rng.choice(simulation.living()).report_at_once()
        elif loss == "back":
            server = script.server
            copy = {key: redis.dump(key) for key in script.keys.values()}  # complete, until the failover
            simulation.fail_over({})
            simulation.pass_time(rng.choice([0.05, 1.5]))
            simulation.fail_over(copy, server)
        else:
            simulation.fail_over(copy if loss == "older" else {} if loss == "empty" else None)
        if rng.random() < 0.3 and len(simulation.living()) > 1:
            rng.choice(simulation.living()).kill()
            # A new process might ask first, and no data would say that others have called since the copy.
            if loss not in ("empty", "back"):
                simulation.join(limit)
        simulation.pass_time(2.0)
    assert max_per_second(simulation.arrivals) <= limit
    assert len(simulation.arrivals) > 0
    assert_all_free(simulation, limit)


# Single messages.


@pytest.mark.parametrize("server", SERVERS)
def test_a_store_with_full_memory_grants_as_before(tmp_path: Path, server: str) -> None:
    """It refuses only writes that need memory, and those not after one that needs none."""
    with Store(tmp_path / "v", server=server) as store, store.client() as redis:
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", "1")
        with pytest.raises(ResponseError, match="maxmemory"):
            redis.set("a", "b")
        script = Script(redis)
        granted: list[tuple[float, int]] = []
        for pause in (0.05, 65.0):  # after the second, the silent members are removed
            members = [Member(script, limit) for limit in (9, 7)]
            for step in range(60):
                member = members[step % 2]
                granted += member.ask(1, ("interactive", "bulk")[step // 2 % 2]).permits
                while member.unused:
                    member.send()
                    member.end()
                script.now += 0.05
            script.now += pause
        assert len(granted) >= 2 * 3 * 7


def test_a_repeated_report_counts_once(redis: Redis) -> None:
    script = Script(redis)
    member = Member(script, 5)
    member.call(2)
    for attempt in (1, 2, 3):
        script.run(member.request())
        assert script.state()["cooling"] == 2, attempt
    member.ask()
    script.now += 0.5
    member.ask()
    script.check()
    assert (script.state()["out"], script.state()["cooling"]) == (0, 2)


def test_the_permits_of_a_lost_reply_are_free_when_they_were_due(redis: Redis) -> None:
    """Not before, since the previous call in the slot still counts."""
    script = Script(redis)
    one, two, three = (Member(script, 1) for _ in range(3))
    one.call()
    for member in (one, two, three):
        member.ask()
    script.now += 0.998
    ((due, permits),) = script.run(two.request(1)).permits
    assert due == pytest.approx(0.0025)
    assert permits == 1
    script.now += 0.001
    assert script.run(two.request()).permits == ()
    ((due, permits),) = three.ask(1).permits
    assert due == pytest.approx(0.0015)
    assert permits == 1


def test_the_calls_of_a_silent_process_count_until_they_must_have_ended(redis: Redis) -> None:
    """For two seconds of silence, and one more after it is found to be dead."""
    script = Script(redis)
    dead, other = Member(script, 1), Member(script, 1)
    other.ask()
    dead.ask(1)
    while not other.unused:
        script.now += 0.1
        other.ask(1)
        script.check()
    assert HOLD + SECOND - 1e-5 <= other.unused[0] <= HOLD + SECOND + 0.2
    assert dead.ask().number == 2, "if it lives, its requests are processed as before"
    script.check()


def test_a_delayed_request_frees_nothing_early(redis: Redis) -> None:
    """The simulation found that: the delay looks to the store like a jump of its clock."""
    script = Script(redis)
    first, second = (Member(script, 1, strict=True, settle=0, round_trip=1000, horizon=10_000) for _ in range(2))
    for script.now in (0.0, 10.0):
        first.ask()
        second.ask()
    script.now = 10.2
    first.ask(heard_ago=50_000, freed=[(3, 1_000_500, 1)])  # sent at 10.05
    for script.now in (10.21, 11.19):  # the other member's request shows that it was none
        assert second.ask(1).permits == ()
    script.now = 11.6
    assert second.ask(1).permits


# The queue.


class Crowd:
    """Members that request one permit after the other, each when the store says.

    Attributes:
        granted: due time and member of each permit, in order.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.granted: list[tuple[float, Member]] = []
        self.gone: set[Member] = set()
        self._asks: list[tuple[float, int, Member, str]] = []

    def join(self, limit: float, lane: str = "interactive") -> Member:
        member = Member(self.script, limit)
        heapq.heappush(self._asks, (self.script.now, len(self._asks), member, lane))
        return member

    def run(self, seconds: float) -> None:
        until = self.script.now + seconds
        while self._asks[0][0] <= until:
            self.script.now, place, member, lane = heapq.heappop(self._asks)
            if member in self.gone:
                continue
            while member.unused:
                member.send()
                member.end()
            reply = member.ask(1, lane)
            self.granted += [(due, member) for due in member.unused]
            soon = member.unused[-1] if member.unused else self.script.now + reply.again
            heapq.heappush(self._asks, (max(soon, self.script.now + 1e-5), place, member, lane))
        self.script.now = until


def assert_fair(granted: list[tuple[float, Member]], members: list[Member]) -> None:
    """Assert that no member is ever more than two permits ahead of another."""
    counts = dict.fromkeys(members, 0)
    for _, member in granted:
        counts[member] += 1
        assert max(counts.values()) - min(counts.values()) <= 2


def test_the_queue_is_first_come_first_served_and_uses_the_whole_limit(redis: Redis) -> None:
    """With more members than calls a second; a new one gets its part, and one that vanishes delays no other."""
    limit = 20
    script = Script(redis)
    crowd = Crowd(script)
    members = [crowd.join(limit) for _ in range(30)]
    crowd.run(8.0)
    # Permits that are due at the same time may be granted in any order.
    assert sorted((round(due, 6), members.index(member)) for due, member in crowd.granted[:30]) == [
        (round(due, 6), place) for place, due in enumerate(sorted(due for due, _ in crowd.granted[:30]))
    ]
    assert_fair(crowd.granted, members)
    in_time = [due for due, _ in crowd.granted if 2.0 <= due < 8.0]
    assert len(in_time) >= 0.95 * 6 * limit
    assert max_per_second([due for due, _ in crowd.granted]) <= limit
    begin, newcomer = script.now, crowd.join(limit)
    crowd.gone.update(members[::3])
    crowd.run(4.0)
    first = next(due for due, member in crowd.granted if member is newcomer)
    assert first - begin <= 1.5 * 30 / limit
    after = [due for due, _ in crowd.granted if begin <= due]
    assert max(later - sooner for sooner, later in itertools.pairwise(after)) < 0.3
    script.check()
    assert redis.zcard(script.keys["waiting"]) <= 21


def test_a_member_behind_others_does_not_take_their_permits(redis: Redis) -> None:
    """The simulation found that: it asks when a permit is due for another, before that one asks again."""
    script = Script(redis)
    busy, first, second = (Member(script, 20, strict=True, settle=0, round_trip=1000, horizon=10_000) for _ in range(3))
    for member in (busy, first, second):
        member.ask()
    script.now = 10.0
    while busy.ask(1).permits:
        pass
    assert busy.out < 10, "there are free slots; only the pace delays"
    script.now += 0.001
    wait = first.ask(1).again
    script.now += 0.001
    second.ask(1)
    script.now += wait
    script.now += first.ask(1).again - 0.0005
    assert second.ask(1).permits == ()
    script.now += 0.001
    assert first.ask(1).permits


def test_interactive_members_go_before_bulk(redis: Redis) -> None:
    """Members that wait for bulk keep their places."""
    script = Script(redis)
    crowd = Crowd(script)
    bulk = [crowd.join(20, "bulk") for _ in range(30)]
    crowd.run(3.0)
    for _ in range(5):
        begin, caller = script.now, Member(script, 20)
        while not (reply := caller.ask(1)).permits:
            crowd.run(reply.again)
        assert script.now - begin < 0.12
        caller.send()
        crowd.run(0.05)
        caller.end()
        caller.ask(leaving=True)
    crowd.run(3.0)
    assert_fair(crowd.granted, bulk)


def test_a_wait_beyond_the_budget_takes_no_place(redis: Redis) -> None:
    script = Script(redis)
    one, two, three = (Member(script, 4) for _ in range(3))
    one.call(4)
    for member in (one, two, three):
        member.ask()
    before = script.state()
    for lane in ("bulk", "interactive"):
        reply = two.ask(3, lane, budget=900_000)
        assert (reply.permits, reply.over) == ((), True)
        assert 0.9 < reply.again <= SECOND
    after = script.state()
    assert {name for name in after if after[name] != before[name]} <= {"heat", "seen", "limit", "places"}
    assert redis.zcard(script.keys["waiting"]) == 0
    assert not two.ask(3, budget=2_000_000).over
    assert redis.zcard(script.keys["waiting"]) == 1
    assert two.ask(1, budget=0).over, "its earlier place is given up"
    assert redis.zcard(script.keys["waiting"]) == 0
    script.now += 1.2
    assert three.ask(2, budget=0).permits == ((0.0, 2),)


@pytest.mark.parametrize(
    ("limit", "bulk_share", "urgent", "left"),
    [(200, 1.0, False, 1), (400, 1.0, False, 2), (20, 1.0, False, 0), (200, 0.8, False, 40), (25, 0.5, False, 13),
     (10, 0.9, False, 1), (1, 0.5, False, 0), (200, 1.0, True, 3)],
)  # fmt: skip
def test_bulk_leaves_slots_to_interactive_calls(
    redis: Redis, limit: int, bulk_share: float, urgent: bool, left: int
) -> None:
    """A part of the limit, and more after interactive calls; 0.8 of 200 are 160 and not 161."""
    script = Script(redis)
    member, other = (Member(script, limit, bulk_share=bulk_share) for _ in range(2))
    if urgent:
        member.call()
        script.now += 1.1
    for _ in range(25):
        member.ask(limit, "bulk")
        script.now += 0.05
    assert member.out == limit - left
    for _ in range(25):
        other.ask(limit)
        script.now += 0.05
    assert other.out == left


def test_the_credit_makes_up_for_the_round_trip(redis: Redis) -> None:
    """Half by the lead, half by the reported times; the round trip to the store costs nothing, either."""
    limit, way = 20, 0.05
    script = Script(redis)
    member = Member(script, limit, lead=micro(way))
    member.round_trip = 2 * way
    arrivals, under_way = list[float](), list[float]()
    while script.now < 6.0:
        request = member.request(20, at=str(START + micro(script.now)))
        script.now += way
        reply = script.run(request)
        store_time = script.now
        script.now += way
        member.heard, member.heard_at, member.epoch = reply.number, script.now, reply.epoch
        due = sorted(store_time + wait for wait, count in reply.permits for _ in range(count))
        member.ledger.in_flight += len(due)
        under_way += due
        arrivals += [sent + way for sent in due]
        for sent in [sent for sent in under_way if sent + 2 * way <= script.now]:
            under_way.remove(sent)
            member.ledger.in_flight -= 1
            member.ledger.cool(sent + 2 * way + SECOND - way)
    assert max_per_second(arrivals) <= limit
    assert sum(1.0 <= at < 6.0 for at in arrivals) >= 0.95 * 5 * limit


# Pauses, the rate and the limit of all.


def test_a_pause_holds_all_processes_and_the_longest_counts(redis: Redis) -> None:
    script = Script(redis)
    one, two = Member(script, 4), Member(script, 4)
    two.ask()
    assert one.ask(1, pause=2_000_000).opens == 2.0
    script.now += 0.5
    reply = two.ask(2, pause=1_000_000)
    assert reply.opens == pytest.approx(1.5)
    assert reply.permits == ()
    assert 0.5 < reply.again <= 1.5
    script.now += 1.5
    reply = two.ask(1)
    assert (reply.opens, reply.permits) == (0.0, ((0.0, 1),))


@given(
    limit=st.sampled_from([1, 5, 20, 200, 1000]),
    steps=st.lists(
        st.tuples(
            st.sampled_from([0.013, 0.21, 0.57, 1.07, 2.53, 7.1]),
            st.sampled_from(["refused", "refused", "alert", "nothing"]),
            st.integers(0, 12),
            st.sampled_from([0.0, 0.1007, 0.9003, 1.5009]),
            st.sampled_from([0.0, 0.3, 0.9, 1.0]),
        ),
        max_size=25,
    ),
)
@at_most(60)
def test_the_fleets_rate_is_learned_like_that_of_one_client(
    redis: Redis, limit: int, steps: list[tuple[float, str, int, float, float]]
) -> None:
    """After each step, it is that of `Rate` after the same events."""
    redis.flushall()
    script = Script(redis)
    member = Member(script, limit)
    model = Rate(limit, min(limit, max(1, limit / 20)))
    refused, refused_at, cuts = 0.0, -math.inf, 0
    for passing, what, calls, ago, share in steps:
        script.now += passing
        member.ledger.in_flight += calls
        for _ in range(calls):
            member.end()
        now, fields = script.now, dict[str, Any]()
        if what == "alert":
            fields = {"accepted": share, "refused_ago": 0}
            model.lower(now, share)
        reply = None
        if what == "refused":
            member.ask()
            answered = script.state()["cooling"]
            fields = {"refusals": 1, "refused_ago": micro(ago)}
            refused = refused * max(0.0, 1 - (now - refused_at)) + 1
            refused_at = now
            model.value(now)
            at_limit = model.full
            begins = model.refused(now, now - ago, answered, refused)
            cuts += begins and at_limit
        reply = member.ask(**fields)
        assert reply.rate == pytest.approx(model.value(now), rel=1e-5)
        assert reply.cuts == cuts
        assert member.ask().rate == pytest.approx(reply.rate)


def test_a_lower_rate_uses_fewer_slots_and_spreads_the_calls(redis: Redis) -> None:
    limit = 20
    script = Script(redis)
    crowd = Crowd(script)
    for _ in range(5):
        crowd.join(limit)
    crowd.run(3.0)
    Member(script, limit).ask(accepted=0.5, refused_ago=0)
    crowd.run(1.5)
    due = [due for due, _ in crowd.granted if due > 3.3]
    assert 5 <= len(due) <= 12
    assert max_per_second(due) <= 11


def test_the_limit_is_the_smallest_of_the_calling_members(redis: Redis) -> None:
    """Of those named in the last ten seconds; own rates do not bind other members."""
    script = Script(redis)
    high, low, own = (Member(script, limit) for limit in (300, 200, 50))
    own.defaults["binding"] = False
    assert own.ask(1).limit == 50, "no other member has called"
    assert high.ask(1).limit == 300
    assert own.ask(1).limit == 300
    assert low.ask().limit == 300, "the member has not called"
    assert [low.ask(1).limit, high.ask(1).limit] == [200, 200]
    for _ in range(30):
        script.now += 0.3
        high.send()
        high.end()
        assert high.ask(1).limit == 200
    for _ in range(5):
        script.now += 0.3
        high.send()
        high.end()
        reply = high.ask(1)
    assert reply.limit == 300, "the other member named its limit ten seconds ago"
    assert redis.zcard(script.keys["limits"]) == 1


def test_a_lowered_limit_applies_at_once_and_a_raised_one_within_a_second(redis: Redis) -> None:
    """Unless another member still names the old one."""
    script = Script(redis)
    one, two = Member(script, 10), Member(script, 10)
    one.ask(1)
    two.ask(1)
    one.defaults["limit"] = 6
    assert one.ask(4, horizon=10_000_000).limit == 6
    assert (one.out, two.out) == (5, 1)
    assert two.ask(1).permits == ()
    one.defaults["limit"] = 12
    assert one.ask(1).limit == 6
    script.now += 1.01
    assert one.ask(1).limit == 10, "the other member's"
    two.defaults["limit"] = 12
    two.ask(1)
    script.now += 1.01
    assert two.ask(1).limit == 12


# Epochs.


@pytest.mark.parametrize(
    ("report", "settling"), [({}, 0.0), ({"alone": True}, 0.45), ({"called_lately": True}, 1.0005)]
)
def test_an_empty_store_begins_to_grant(redis: Redis, report: dict[str, Any], settling: float) -> None:
    """At once for a new member; after an outage when all have reported; otherwise when all earlier calls are over."""
    script = Script(redis)
    first, late = Member(script, 10), Member(script, 10)
    assert first.ask(2, **report).settling == pytest.approx(settling)
    assert first.out == (0 if settling else 2)
    late.ledger.in_flight = 3
    script.now += 0.05
    left = settling - 0.05 if settling else 0.45
    for _ in range(2):
        assert late.ask(alone=True).settling == pytest.approx(left, abs=2e-6)
    script.now += left + 0.001
    first.ask(20, horizon=10_000_000)
    assert first.out + late.out == 10


def test_a_returning_member_makes_all_wait_only_if_nothing_was_granted_meanwhile(redis: Redis) -> None:
    script = Script(redis)
    one, two = Member(script, 10), Member(script, 10)
    for _ in range(10):
        one.call()
        script.now += 0.3
    one.ask()
    assert two.ask(alone=True).settling == 0.0
    script.now += 3.0
    assert two.ask(alone=True).settling == 0.45
    assert one.ask(3).permits == ()


def test_a_loss_of_data_begins_a_new_epoch(redis: Redis) -> None:
    """A leaving member begins none."""
    script = Script(redis)
    one, two = Member(script, 10), Member(script, 10)
    one.call()
    two.call(2)
    epoch = one.ask().epoch
    assert two.ask().epoch == epoch
    redis.hdel(script.keys["about"], two.id)
    redis.zrem(script.keys["members"], two.id)
    assert two.ask(leaving=True).epoch == epoch
    script.now += 0.03
    script.server = None
    assert one.ask().epoch == epoch, "without the right to INFO"
    script.now += 0.03
    script.server = "b" * 40
    reply = one.ask(1)
    assert (reply.permits, reply.settling) == ((), SECOND)
    assert reply.epoch != epoch
    assert one.ask().epoch == two.ask().epoch == reply.epoch


def test_a_copy_from_an_earlier_epoch_is_detected(redis: Redis) -> None:
    """As when a failover is undone, and the first server lacks the second one's writes."""
    script = Script(redis)
    one, two = Member(script, 10), Member(script, 10)
    first, server = one.ask().epoch, script.server
    assert two.ask().epoch == first
    copy = {key: redis.dump(key) for key in script.keys.values()}
    script.now += 0.05
    script.server = "b" * 40
    second = one.ask().epoch
    assert two.ask().epoch == second != first
    script.now += 1.5
    for key, value in copy.items():
        redis.delete(key)
        if value is not None:
            redis.restore(key, 0, value)
    script.server = server
    reply = two.ask(1)
    assert int(reply.epoch) > int(second)
    assert reply.permits == ()
    assert 0 < reply.settling <= SECOND
    again = one.ask(1)
    assert (again.epoch, again.permits) == (reply.epoch, ())


@pytest.mark.parametrize("step", [-3600.0, -0.5, 0.5, 3600.0])
def test_the_fleets_clock_is_steady_when_the_stores_clock_is_set(redis: Redis, step: float) -> None:
    script = Script(redis)
    one, two = Member(script), Member(script)
    times = []
    for number in range(20):
        script.now += 0.1
        if number == 10:
            script.ahead += step
        times.append((one, two)[number % 2].ask().now)
    passed = [later - sooner for sooner, later in itertools.pairwise(times[2:])]
    assert passed.pop(7) <= 0.1 + 1e-6
    assert passed == [pytest.approx(0.1, abs=2e-6)] * len(passed)


# What is stored.


def test_numbers_keep_all_their_digits(redis: Redis) -> None:
    """By default Lua would write 1.7e+15."""
    script = Script(redis)
    script.now += 0.123457
    member = Member(script, 5)
    member.call(2)
    reply = member.ask(5, "bulk", pause=1_000_000, accepted=0.5, refused_ago=0)
    now = START + 123_457
    assert reply.epoch == str(now)
    assert micro(reply.now) == now
    state = script.redis.hgetall(script.keys["state"])
    for field in (b"at", b"real", b"settled", b"bulk", b"urgent", b"event_at", b"opens", b"seen", b"latest"):
        assert re.fullmatch(rb"[0-9]{16}(\.[0-9]+)?", state[field])
        assert abs(float(state[field]) - now) < 10_000_000
    assert scores(script, "cooling") == [now + 1_000_500]
    assert scores(script, "members") == [now + micro(reply.again) + 500_000]


def scores(script: Script, end: str) -> list[float]:
    return [score for _, score in script.redis.zrange(script.keys[end], 0, -1, withscores=True)]


def test_the_stored_data_are_those_of_this_layout(redis: Redis) -> None:
    """If this fails, releases that read the data differently share keys: raise LAYOUT, and say so in CHANGELOG."""
    script = Script(redis)
    script.now += 0.1
    member = Member(script, 5)
    member.call(2)
    member.ask(5, "bulk", pause=1_000_000, refusals=1, accepted=0.5, refused_ago=0)
    assert LAYOUT == 3
    assert script.state().keys() <= {
        *("at", "real", "server", "epoch", "settled", "unsure_until", "seq", "places", "limit", "out", "cooling"),
        *("latest", "urgent", "bulk", "resumed", "seen", "heat", "lowered", "low", "plateau", "measured"),
        *("changed_at", "event_at", "cuts", "refused_at", "refused", "opens"),
    }
    now = START + 100_000
    (record,) = redis.hvals(script.keys["about"])
    number, out, heard, due, taken, limit, binding, place, since, granted = map(float, record.split())
    assert (number, out, heard, due, taken) == (2, 0, now, now, 2)
    assert (limit, binding, place, since, granted) == (5, 1, 0, now, 0)
    cooling = script.redis.zrange(script.keys["cooling"], 0, -1)
    assert [entry.partition(b":")[2] for entry in cooling] == [b"2"]
    assert redis.zrange(script.keys["limits"], 0, -1, withscores=True) == [(b"f:5", now + 10_000_000)]
    assert redis.zrange(script.keys["waiting"], 0, -1) == [member.id.encode()]


def test_two_releases_with_one_layout_share_one_quota(redis: Redis) -> None:
    """Each with its own script; neither loses the other's fields, and each removes the other's silent members."""
    script = Script(redis)
    newer = Script(redis, source=later(SOURCE))
    this, next_ = Member(script, 4), Member(newer, 4, later=1)

    def passes(seconds: float) -> None:
        script.now += seconds
        newer.now += seconds

    passes(10.0)
    for _ in range(2):  # each reads the other's writes, and its own earlier ones
        this.ask()
        next_.ask()
    assert this.ask(2).permits == ((0.0, 2),)
    assert next_.ask(2).permits == ((0.0, 2),)
    assert newer.state()["later"] == 3
    for member in (this, next_):
        assert member.ask(2).permits == ()
    newer.check()
    # First the permits of a silent member are removed, then the member.
    for member in (this, next_, this):
        passes(70.0)
        member.unused.clear()
        member.ask()
        assert member.ask().members == 1


def test_every_key_expires_after_a_day(redis: Redis) -> None:
    """A key that is created again, too."""
    script = Script(redis)
    for _ in range(2):
        member = Member(script, 1)
        member.call()
        member.ask(1)
        ttls = {end: redis.ttl(key) for end, key in script.keys.items()}
        assert all(86_390 < ttl <= 86_400 for ttl in ttls.values()), ttls
        script.now += 11.0
        member.ask(leaving=True)
    assert key_sizes(script) == {"state": 1}
    script.now += 4000.0
    redis.expire(script.keys["state"], 100)
    Member(script).ask(1)
    assert redis.ttl(script.keys["state"]) > 86_390


@pytest.mark.parametrize("end", KEYS)
def test_a_key_of_another_type_is_an_error_and_is_kept(redis: Redis, end: str) -> None:
    script = Script(redis)
    member = Member(script, 1)
    member.call()
    member.ask(1)
    redis.delete(script.keys[end])
    redis.set(script.keys[end], "mine")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        member.ask(1)
    assert redis.get(script.keys[end]) == b"mine"
