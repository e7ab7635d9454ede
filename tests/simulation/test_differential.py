"""The simulation's Lua compared with a real Valkey: same requests, same replies, same keys."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.store import Store as RealStore
from tim_async.quota import KEYS

from .simulation import simulate
from .store import Engine, Server
from .watch import Watch
from .world import World

REQUESTS = 10_000
BATCH = 10
Request = tuple[int, str, str]
"""The store's clock, microseconds; its run_id; and the request."""


class _Clock(Server):
    """A server whose clock and run_id the test sets."""

    microseconds = 0

    def clock(self) -> int:
        return self.microseconds


def requests(count: int) -> list[Request]:
    """Record requests of simulated processes under faults; omit, repeat or change some at random."""
    dice = random.Random(12)
    found: list[Request] = []
    seed = 0
    while len(found) < count:
        for then, name, text in _of_seed(seed):
            when = then + seed * 3_600_000_000  # the fleet of the next seed comes an hour later
            if dice.random() < 0.03:
                continue
            found.append((when, name, text))
            if dice.random() < 0.03:
                found.append((when + dice.randrange(2_000_000), name, text))
            if dice.random() < 0.05:
                found.append((when, name, json.dumps(_changed(json.loads(text), dice), separators=(",", ":"))))
        seed += 1
    return found[:count]


def _of_seed(seed: int) -> list[Request]:
    found: list[Request] = []

    def asked(_: Watch, server: Server, keys: list[str], argument: str, reply: str) -> None:
        found.append((server.clock(), server.name, argument))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Watch, "asked", asked)
        simulate(seed, 12.0, small=True)
    return found


def _changed(request: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """Return the request with one or two fields changed."""
    request["number"] += 1
    for field in dice.sample([*request], 2):
        value = request[field]
        if isinstance(value, bool):
            request[field] = not value
        elif isinstance(value, int | float) and field not in ("number", "limit"):
            request[field] = max(0, round(value * dice.choice((0, 0.5, 1.5))))
    request["refusals"], request["refused_ago"] = 1, dice.randrange(1_000_000)
    if dice.random() < 0.5:
        request["pause"] = dice.randrange(1_000_000)
    return request


def _kept(redis: Any) -> None:
    """Read all keys, in order."""
    for key, name in enumerate(KEYS):
        if name in ("state", "about"):
            redis.hgetall(f"q:{KEYS[key]}")
        else:
            redis.zrange(f"q:{KEYS[key]}", 0, -1, withscores=True)


def _simulated(server: Server, name: str) -> Any:
    kind_and_items = json.loads(server.dump(f"q:{name}"))
    hashed = name in ("state", "about")
    if kind_and_items is None:
        return {} if hashed else []
    items = kind_and_items[1] or []
    if hashed:
        return {field.encode(): value.encode() for field, value in items}
    return [(member.encode(), float(score)) for member, score in items]


@pytest.mark.simulated
def test_it_replies_and_keeps_what_a_real_store_does(tmp_path: Path, source: str) -> None:
    server = _Clock(Engine(), World(0), "0")
    keys = [f"q:{name}" for name in KEYS]
    faked = source.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)").replace(
        "redis.pcall('INFO', 'server')", "redis.call('GET', 'server')"
    )
    assert "'INFO'" not in faked
    assert "'TIME'" not in faked
    asked = requests(REQUESTS)
    with RealStore(tmp_path) as store, Redis.from_url(store.url) as redis:
        sha = hashlib.sha1(faked.encode(), usedforsecurity=False).hexdigest()
        redis.script_load(faked)
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            with redis.pipeline(transaction=False) as pipe:
                for when, name, text in batch:
                    pipe.delete("clock")
                    pipe.rpush("clock", *divmod(when, 1_000_000))
                    pipe.set("server", f"run_id:{name}\r\n")
                    pipe.evalsha(sha, len(keys), *keys, text)
                _kept(pipe)
                answers = pipe.execute()
            for number, (when, name, text) in enumerate(batch):
                server.microseconds, server.name = when, name
                reply = answers[number * 4 + 3]
                assert json.loads(server.run(source, keys, text)) == json.loads(reply), text
            assert [_simulated(server, each) for each in KEYS] == answers[-len(KEYS) :]
