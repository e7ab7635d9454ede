"""The commands of ``streams.lua`` compared with a real Valkey: same requests of workers, same replies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.simulation.store import Engine, Server
from tests.simulation.world import World
from tests.store import Store as RealStore
from tim_async.migrate import _redis_link
from tim_async.migrate._redis_reader import _keys_of

from .simulation import simulate

SEEDS = range(8)
_LEASE = 1_000_000_000
"""Milliseconds: entries' idle times are by the real server's clock, and must not matter."""
_UNLIKE = frozenset({"info"})
"""Operations whose replies are about the server."""


def asked_for(seed: int) -> list[tuple[int, str]]:
    """Record the requests of a simulated migration, each with the store's time, microseconds, in the store's order."""
    found: list[tuple[int, str]] = []
    run = Server.run

    def recorded(self: Server, source: str, keys: list[str], argument: str) -> str:
        request = json.loads(argument)
        if request["op"] not in _UNLIKE:
            if "lease" in request:
                request["lease"] = _LEASE
            found.append((self.clock(), json.dumps(request, separators=(",", ":"), ensure_ascii=False)))
        return run(self, source, keys, argument)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Server, "run", recorded)
        simulate(seed, stream=True, small=True)
    return found


class _Clock(Server):
    """A server whose clock the test sets."""

    microseconds = 0

    def clock(self) -> int:
        return self.microseconds


@pytest.mark.simulated
def test_the_simulated_store_replies_as_a_real_one(tmp_path: Path) -> None:
    source = _redis_link._script()._source
    faked = source.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)")
    assert faked != source
    sha = hashlib.sha1(faked.encode(), usedforsecurity=False).hexdigest()
    compared = 0
    with RealStore(tmp_path) as store, Redis.from_url(store.url) as redis:
        redis.script_load(faked)
        for seed in SEEDS:
            keys = _keys_of(f"seed{seed}")
            server = _Clock(Engine(), World(0), "0")
            for when, text in asked_for(seed):
                server.microseconds = when
                redis.delete("clock")
                redis.rpush("clock", *divmod(when, 1_000_000))
                real: Any = redis.evalsha(sha, len(keys), *keys, text)
                assert json.loads(server.run(source, keys, text)) == json.loads(real), text
                compared += 1
    assert compared > 300
