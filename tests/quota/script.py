"""``quota.lua`` by itself, on a real store whose clock a test sets: what is asked of it, and what it says."""

from __future__ import annotations

import importlib.resources
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from redis import Redis

from tim_async._limiter.reply import read_reply
from tim_async._limiter.request import Request, micro

SOURCE = importlib.resources.files("tim_async._limiter").joinpath("quota.lua").read_text(encoding="utf-8")
START = 1_750_000_000.0  # past for every real clock: else `prepare` would leave a store whose clock was set back
SECOND = 1.0005
HOLD = 0.5


class Granted(NamedTuple):
    """A permit, and the store's time from which it may be used."""

    number: int
    due: float


class Answer(NamedTuple):
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
        now: the store's time, unix seconds.
        limit: calls/s.
        extra: arguments of another release's script.
    """

    def __init__(
        self,
        redis: Redis,
        limit: int = 200,
        *,
        keys: tuple[str, str] = ("quota:slots", "quota:state"),
        source: str = SOURCE,
    ) -> None:
        assert source.count("redis.call('TIME')") == 1
        source = source.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)")
        self._run = redis.register_script(source)
        self.redis = redis
        self.keys = keys
        self.slots, self.state = keys
        self.now = START
        self.limit = limit
        self.extra: dict[str, Any] = {}
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
    ) -> Answer:
        """Run it once; ``answered`` and ``strays`` say how long ago, ``refused`` what share was taken and when;
        ``lately`` that the process has called within the last two seconds.

        Unless the rate is given, only the slots hold anything back.
        """
        limit = self.limit if limit is None else limit
        # Calls without a permit have numbers of their own, below 0.
        answered = [*answered, *((-next(self._strays), ago) for ago in strays)]
        request: Request = {
            "limit": limit,
            "ceiling": ceiling or limit * 1000.0,
            "burst": burst or 1e6,
            "floor": floor,
            "left_by_bulk": left_by_bulk,
            "lead": micro(lead),
            "hold": micro(HOLD),
            "settle": micro(settle),
            "lane": lane,
            "wanted": wanted,
            "alone": alone,
            "called_lately": lately,
            "answered": [(str(number), micro(ago)) for number, ago in answered],
            "unused": [str(number) for number in unused],
            "in_flight": [str(number) for number in held],
        }
        if budget is not None:
            request["budget"] = micro(budget)
        if pause:
            request["pause"] = micro(pause)
        if refused is not None:
            request["taken"] = refused[0]
        if refusals:
            request["refusals"] = refusals
        if refused is not None or refusals:
            request["refused_ago"] = 0 if refused is None else micro(refused[1])
        reply = read_reply(self.run({**request, **self.extra}))
        over = reply.over or None
        permits = [Granted(number, self.now + wait) for number, wait in reply.permits]
        return Answer(reply.settling, reply.rate, reply.opens, reply.cuts, reply.slot_bound, over, permits)

    def run(self, request: Mapping[str, Any]) -> Any:
        """Run it with a request, at this moment of the test's; returns what the store answers."""
        with self.redis.pipeline() as pipe:
            pipe.delete("clock")
            pipe.rpush("clock", *divmod(round(self.now * 1e6), 1_000_000))
            pipe.execute()
        return self._run([self.slots, self.state], [json.dumps(request)])

    def kept(self) -> tuple[list[Any], dict[Any, Any]]:
        """All that the store has of it, but for the time it was last asked."""
        state = {**self.redis.hgetall(self.state)}
        state.pop(b"at", None)
        return [*self.redis.zrange(self.slots, 0, -1, withscores=True)], state
