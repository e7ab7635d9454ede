"""``quota.lua`` by itself, on a real store whose clock a test sets: what is asked of it, and what it says."""

from __future__ import annotations

import importlib.resources
import itertools
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from redis import Redis

SOURCE = importlib.resources.files("tim_async._limiter").joinpath("quota.lua").read_text(encoding="utf-8")
# What it takes, in its order: each ``local a, b = …ARGV[1]…, …ARGV[2]…`` above the lists of permits.
_HEAD = re.findall(r"^local (.+?) = (.*ARGV.*)$", SOURCE.partition("local item")[0], re.MULTILINE)
ARGUMENTS = [name for names, _ in _HEAD for name in names.split(", ")]
assert [int(n) for _, given in _HEAD for n in re.findall(r"ARGV\[(\d+)\]", given)] == [*range(1, len(ARGUMENTS) + 1)]

START = 1_700_000_000.0
SECOND = 1.0005
HOLD = 0.5


class Granted(NamedTuple):
    """A permit."""

    number: int
    due: float


class Reply(NamedTuple):
    """What the script says; times are seconds."""

    settling: float
    rate: float
    opens: float
    cuts: int
    slot_bound: bool
    over: float | None
    permits: list[Granted]


class Script:
    """One endpoint's quota.

    Attributes:
        now: what time it is for the store, unix seconds.
        limit: calls a second.
    """

    def __init__(self, redis: Redis, limit: int = 200, *, key: str = "quota") -> None:
        assert SOURCE.count("redis.call('TIME')") == 1
        source = SOURCE.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)")
        self._run = redis.register_script(source)
        self.redis = redis
        self.slots, self.state = f"{key}:slots", f"{key}:state"
        self.now = START
        self.limit = limit
        self._strays = itertools.count(1)

    def ask(
        self,
        wanted: int = 0,
        lane: str = "interactive",
        *,
        budget: float | None = None,
        limit: int | None = None,
        ceiling: float | None = None,
        burst: float | None = None,
        floor: float = 1.0,
        lead: float = 0.0,
        settle: float = 0.0,
        pause: float = 0.0,
        refused: tuple[float, float] | None = None,
        refusals: int = 0,
        left_by_bulk: int = 0,
        alone: bool = False,
        lately: bool = False,
        answered: Iterable[tuple[int, float]] = (),
        unused: Iterable[int] = (),
        held: Iterable[int] = (),
        strays: Iterable[float] = (),
    ) -> Reply:
        """Run it once; ``answered`` and ``strays`` say how long ago, ``refused`` what share was taken and when;
        ``lately`` that the process has called within the last two seconds.

        Unless the rate is given, only the slots hold anything back.
        """
        limit = self.limit if limit is None else limit
        unused, held = list(unused), list(held)
        # Calls without a permit have numbers of their own, below 0.
        answered = [*answered, *((-next(self._strays), ago) for ago in strays)]
        values = {
            "limit": limit,
            "ceiling": ceiling or limit * 1000,
            "burst": burst or 1e6,
            "floor": floor,
            "lane": lane,
            "wanted": wanted,
            "budget": -1 if budget is None else micro(budget),
            "lead": micro(lead),
            "hold": micro(HOLD),
            "settle": micro(settle),
            "pause": micro(pause),
            "taken": -1 if refused is None else refused[0],
            "refusals": refusals,
            "refused_ago": 0 if refused is None else micro(refused[1]),
            "alone": int(alone),
            "called_lately": int(lately),
            "left_by_bulk": left_by_bulk,
            "answered": len(answered),
            "unused": len(unused),
            "in_flight": len(held),
        }
        assert values.keys() == set(ARGUMENTS)
        arguments: list[Any] = [values[name] for name in ARGUMENTS]
        for number, ago in answered:
            arguments += [number, micro(ago)]
        arguments += [*unused, *held]
        with self.redis.pipeline() as pipe:
            pipe.delete("clock")
            pipe.rpush("clock", int(self.now), round(self.now % 1 * 1e6) % 1_000_000)
            pipe.execute()
        numbers = [int(number) for number in self._run([self.slots, self.state], arguments)]
        settling, rate, opens, cuts, slot_bound, over, *permits = numbers
        granted = [Granted(n, self.now + w / 1e6) for n, w in zip(permits[::2], permits[1::2], strict=True)]
        late = None if over < 0 else over / 1e6
        return Reply(settling / 1e6, rate / 1e3, opens / 1e6, cuts, bool(slot_bound), late, granted)

    def kept(self) -> tuple[list[Any], dict[Any, Any]]:
        """All that the store has of it, but for the time it was last asked."""
        state = {**self.redis.hgetall(self.state)}
        state.pop(b"at", None)
        return [*self.redis.zrange(self.slots, 0, -1, withscores=True)], state


def micro(seconds: float) -> int:
    return round(seconds * 1e6)
