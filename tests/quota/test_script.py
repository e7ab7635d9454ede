"""The script by itself: never more calls in a second than the limit, whatever it is told, when, and by whom."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from tests.hypotheses import at_most
from tests.store import Store

from .script import Member, Script, World, fullest


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
"""What happens follows from a number, since a long story cannot be made shorter anyway."""


# Many processes.


@at_most(60)
@given(limit=st.integers(2, 9), processes=st.integers(1, 5), seed=SEEDS)
def test_no_second_holds_more_than_the_limit(redis: Redis, limit: int, processes: int, seed: int) -> None:
    """Processes ask, call, tell, sleep, die and come; requests and replies are lost, late, overtaken or repeated.

    Calls arrive when it hurts most.  When all have told, nothing is left.
    """
    redis.flushall()
    dice, script = random.Random(seed), Script(redis)
    world = World(script, dice, lively=False)
    for _ in range(processes):
        world.join(limit)
    for _ in range(12):
        world.pass_time(dice.choice([0.05, 0.3, 1.0]))
        match dice.choice(["join", "kill", "sleep", "sleep", "nothing", "nothing"]):
            case "join":
                world.join(limit)
            case "kill" if len(world.living()) > 1:
                dice.choice(world.living()).kill()
            case "sleep":
                dice.choice(world.living()).asleep_until = script.now + dice.choice([0.1, 0.6, 1.5, 4.0])
    world.pass_time(1.0)
    assert fullest(world.arrivals) <= limit
    everything_is_free(world, limit)


def everything_is_free(world: World, limit: int) -> None:
    """All processes have gone: then the store has nothing of them, and grants the limit."""
    script = world.script
    for process in world.living():
        process.kill()
    script.now += 65.0
    last = Member(script, limit)
    last.ask()
    script.now += 1.1  # what the dead had out counts until a second after they are found to be dead
    reply = last.ask(limit, horizon=10_000_000)
    assert (sum(count for _, count in reply.permits), reply.slot_bound) == (limit, False)
    last.hand.clear()
    last.ask()
    script.check()
    state = script.state()
    assert (state["out"], state["cooling"]) == (0, 0)
    assert redis_counts(script) == {"state": 1, "members": 1, "about": 1, "limits": 1}


def redis_counts(script: Script) -> dict[str, int]:
    """The keys, and how many entries each has; 1 for the state."""
    kinds = {
        "state": None,
        "cooling": "zcard",
        "members": "zcard",
        "about": "hlen",
        "waiting": "zcard",
        "limits": "zcard",
    }
    counts = {
        end: script.redis.exists(key) if kinds[end] is None else getattr(script.redis, kinds[end])(key)
        for end, key in script.keys.items()
    }
    return {end: count for end, count in counts.items() if count}


FORGETS = ("state", "cooling", "members", "about", "waiting", "limits", "older", "empty", "nothing", "clock")


@at_most(60)
@given(limit=st.integers(2, 9), processes=st.integers(1, 5), seed=SEEDS, forgets=st.sampled_from(FORGETS))
def test_a_store_that_forgets_lets_nobody_exceed_the_limit(
    redis: Redis, limit: int, processes: int, seed: int, forgets: str
) -> None:
    """A key is evicted; a server that has an older copy, or nothing, or all, takes over; or its clock is set."""
    redis.flushall()
    dice, script = random.Random(seed), Script(redis)
    world = World(script, dice, lively=True)
    for _ in range(processes):
        world.join(limit)
    for _ in range(4):
        world.pass_time(dice.choice([0.3, 1.0]))
        copy = {key: redis.dump(key) for key in script.keys.values()}
        world.pass_time(dice.choice([0.0, 0.05, 0.7]))
        if forgets in script.keys:
            redis.delete(script.keys[forgets])
            if forgets == "state":
                world.join(limit)
        elif forgets == "clock":
            script.ahead += dice.choice([-0.5, 0.5, -3600.0, 3600.0])
            dice.choice(world.living()).tell_at_once()
        else:
            world.fail_over()
            if forgets != "nothing":
                redis.flushall()
            for key, value in copy.items():
                if value is not None and forgets == "older":
                    redis.restore(key, 0, value)
        if dice.random() < 0.3 and len(world.living()) > 1:
            dice.choice(world.living()).kill()
            if forgets != "empty":  # a newcomer would be the first to ask, and nothing says that there were others
                world.join(limit)
        world.pass_time(2.5)
    assert fullest(world.arrivals) <= limit
    assert len(world.arrivals) > 0
    everything_is_free(world, limit)
