"""The members of the quotas in a store, and their shares of the calls: read from the store, without changes.

The keys are those of ``_limiter/quota.lua``, which documents them.  All times there are microseconds of the fleet's
clock.  Several commands read them, so that a member may join or leave meanwhile.

Importing this imports redis-py.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from redis.client import NEVER_DECODE

from ._limiter.learning import Rate
from ._redis_clients import Connected, execute
from .quota import LAYOUT

T = TypeVar("T")

_STATE = (
    "at",
    "real",
    "limit",
    "out",
    "cooling",
    "lowered",
    "low",
    "plateau",
    "changed_at",
    "refused",
    "refused_at",
    "opens",
)
_BULK = 1e12
"""Places in the store's queue from which on they are bulk's: ``BULK`` in ``quota.lua``."""
_ABSENT = 60.0
"""Seconds of silence after which an idle member no longer counts: ``ABSENT`` in ``quota.lua``."""


@dataclass(frozen=True, slots=True)
class Member:
    """One client of the quota, on one endpoint.

    Attributes:
        id: the host, the process id and a random token, separated by colons.
        place: number of members that joined before it.
        calls_per_second: permits it took a second, since the last look, or since it joined where there was none.
        share: its share of all permits taken, 0 to 1.
        taken: permits it took since it joined.
        out: its calls that are under way or permitted.
        waiting: "interactive" or "bulk" while it waits in the queue of the store; "" otherwise.
        limit: its rate for the endpoint, calls/s.
        binding: whether that rate binds all members, and not only itself.
        age: seconds since it joined.
        silence: seconds since its last request.
    """

    id: str
    place: int
    calls_per_second: float
    share: float
    taken: int
    out: int
    waiting: str
    limit: float
    binding: bool
    age: float
    silence: float

    @property
    def since(self) -> str:
        """Its age as hours, minutes and seconds."""
        hours, rest = divmod(int(self.age), 3600)
        return f"{hours}:{rest // 60:02}:{rest % 60:02}"


@dataclass(frozen=True, slots=True)
class EndpointUsage:
    """The quota of one endpoint of one app.

    Attributes:
        sdk_app_id: the app.
        command: the endpoint's path.
        limit: the agreed calls/s: the smallest rate of an active member.
        rate: the adaptive rate, calls/s: below the limit after refusals.
        calls_per_second: permits that all members took a second, as `Member.calls_per_second`.
        out: calls that are under way or permitted.
        cooling: calls that have ended and still count, for a second.
        refused: refused calls of the last second.
        paused: seconds until the end of a pause that the server asked for; 0.0 without one.
        silence: seconds since the last request of any member.
        members: the members, those with the most calls first.
        unreadable: number of members with damaged records, which are not among ``members``.
    """

    sdk_app_id: str
    command: str
    limit: float
    rate: float
    calls_per_second: float
    out: int
    cooling: int
    refused: float
    paused: float
    silence: float
    members: tuple[Member, ...]
    unreadable: int

    @property
    def name(self) -> str:
        """The last part of the endpoint's path."""
        return self.command.rpartition("/")[2]

    @property
    def differing(self) -> tuple[Member, ...]:
        """Members with another rate than the agreed limit, which applies to all."""
        return tuple(one for one in self.members if one.binding and one.limit != self.limit)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The deviations from normal, in words."""
        texts = []
        if self.rate < self.limit:
            texts.append(f"the server takes {self.rate:,.1f}/s")
        if self.refused >= 0.5:
            texts.append(f"{self.refused:,.0f} refused in the last second")
        if self.paused:
            texts.append(f"paused for {self.paused:,.1f} s")
        if self.differing:
            texts.append(f"{len(self.differing):,} named another limit")
        if self.unreadable:
            texts.append(f"{self.unreadable:,} unreadable")
        return tuple(texts)

    def named_by(self, member: Member) -> str:
        """Return a member's rate, in words."""
        named = f"{member.limit:,g}" if member.binding else f"{member.limit:,g} for itself"
        return f"{named}, not {self.limit:,g}" if member in self.differing else named

    def waiting(self, lane: str) -> int:
        """Return the number of members that wait in one lane of the store's queue."""
        return sum(one.waiting == lane for one in self.members)


@dataclass(frozen=True, slots=True)
class QuotaView:
    """The quotas in a store.

    Attributes:
        store: its name, without password and options.
        namespace: the prefix of the keys.
        time: the time of the look, Unix seconds.
        seconds: the period of the rates, back to an earlier look; None where each begins when its member joined.
        endpoints: the endpoints used within a day, by app and path.
    """

    store: str
    namespace: str
    time: float
    seconds: float | None
    endpoints: tuple[EndpointUsage, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the view as plain data, ready for JSON."""
        return asdict(self)

    def since(self, before: QuotaView) -> QuotaView:
        """Return the view with rates since an earlier look."""
        seconds = self.time - before.time
        if seconds <= 0:
            return self
        known = {(one.sdk_app_id, one.command): one for one in before.endpoints}
        endpoints = tuple(
            _rates_since(one, known.get((one.sdk_app_id, one.command)), seconds) for one in self.endpoints
        )
        return replace(self, seconds=seconds, endpoints=endpoints)


async def look(connected: Connected, namespace: str) -> QuotaView:
    """Read the quotas in a store.

    Args:
        connected: a client of the store.
        namespace: the prefix of the keys, as in `RedisQuota`.

    Raises:
        FAILURES: the store cannot be read.
    """
    begin, end = f"{namespace}:{{", f"}}:{LAYOUT}:state"
    pattern = f"{_escaped(begin)}*{_escaped(end)}"
    as_bytes: dict[str, Any] = {NEVER_DECODE: True}  # also from a client that decodes replies
    found = connected.client.scan_iter(match=pattern, count=1000, **as_bytes)
    names = {name.decode(errors="replace") async for name in found}
    endpoints = []
    for name in sorted(names):
        app, colon, command = name.removeprefix(begin).removesuffix(end).partition(":")
        if colon and app.isdecimal() and (one := await _endpoint(connected, name.removesuffix("state"), app, command)):
            endpoints.append(one)
    endpoints.sort(key=lambda one: (int(one.sdk_app_id), one.command))
    return QuotaView(connected.shown, namespace, time.time(), None, tuple(endpoints))


# Reading


def _escaped(text: str) -> str:
    """Escape a text for a pattern."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)


async def _endpoint(connected: Connected, prefix: str, app: str, command: str) -> EndpointUsage | None:
    """Read one endpoint's keys; return None when they are missing or unreadable."""

    async def read(part: str, *command: Any) -> Any:
        return await execute(connected.client, command[0], f"{prefix}{part}", *command[1:])

    values = await read("state", "HMGET", *_STATE)
    state = {name: _number(value) for name, value in zip(_STATE, values, strict=True)}
    if not all(map(math.isfinite, state.values())) or not state["at"] or not state["limit"]:
        return None
    about: Mapping[bytes, bytes] = await read("about", "HGETALL")
    queue: Iterable[Any] = await read("waiting", "ZRANGE", 0, -1, "WITHSCORES")
    waiting = {member: "bulk" if place >= _BULK else "interactive" for member, place in _pairs(queue)}
    seconds, microseconds = await connected.execute_at(f"{prefix}state", "TIME")
    real = 1e6 * int(seconds) + int(microseconds)
    now = state["at"] + max(0.0, real - state["real"])
    members, unreadable = [], 0
    for name, record in about.items():
        id_ = name.decode(errors="replace")
        one = _member(id_, record, waiting.get(id_, ""), now)
        if one is None:
            unreadable += 1
        elif one.silence <= _ABSENT:
            members.append(one)
    opens = max(0.0, state["opens"] - now) / 1e6
    decay = min(1.0, max(0.0, 1.0 - (now - state["refused_at"]) / 1e6))
    endpoint = EndpointUsage(
        sdk_app_id=app,
        command=command,
        limit=state["limit"],
        rate=_rate(state, now),
        calls_per_second=0.0,
        out=int(state["out"]),
        cooling=int(state["cooling"]),
        refused=round(state["refused"] * decay, 3),
        paused=round(opens, 3),
        silence=round((now - state["at"]) / 1e6, 3),
        members=tuple(members),
        unreadable=unreadable,
    )
    return _with_rates(endpoint, {one.id: one.taken / max(one.age, 1.0) for one in members})


def _member(id_: str, record: bytes, waiting: str, now: float) -> Member | None:
    """Read a member's record; return None when it is damaged."""
    words = [_number(word) for word in record.split()]
    if len(words) < 9 or not all(map(math.isfinite, words)):
        return None
    _, out, heard, _, taken, limit, binding, place, since = words[:9]
    age, silence = (round(max(0.0, now - moment) / 1e6, 3) for moment in (since, heard))
    return Member(id_, int(place), 0.0, 0.0, int(taken), int(out), waiting, limit, binding == 1, age, silence)


def _number(value: bytes | None) -> float:
    with contextlib.suppress(ValueError):
        return float(value or 0)
    return math.nan


def _pairs(found: Iterable[Any]) -> list[tuple[str, float]]:
    """Return the members of a sorted set with their scores, which are flat in RESP2."""
    items = list(found)
    if items and not isinstance(items[0], list | tuple):
        items = list(zip(items[::2], items[1::2], strict=True))
    return [(member.decode(errors="replace"), float(score)) for member, score in items]


def _rate(state: Mapping[str, float], now: float) -> float:
    """Return the adaptive rate, as ``quota.lua`` computes it."""
    limit = state["limit"]
    if not state["lowered"]:
        return limit
    since_fall = (now - state["changed_at"]) / 1e6
    return min(limit, Rate.recovered(since_fall, limit, state["low"], state["plateau"]))


# Rates


def _rates_since(endpoint: EndpointUsage, before: EndpointUsage | None, seconds: float) -> EndpointUsage:
    taken = {one.id: one.taken for one in before.members} if before else {}
    # A new member joined meanwhile.  A count goes back when a reply with permits was lost.
    return _with_rates(
        endpoint, {one.id: max(0, one.taken - taken.get(one.id, 0)) / seconds for one in endpoint.members}
    )


def _with_rates(endpoint: EndpointUsage, rates: Mapping[str, float]) -> EndpointUsage:
    """Return the endpoint with the given rates of its members."""
    total = sum(rates.values())
    members = [
        replace(one, calls_per_second=round(rates[one.id], 3), share=round(rates[one.id] / total, 4) if total else 0.0)
        for one in endpoint.members
    ]
    members.sort(key=lambda one: (-one.calls_per_second, one.place, one.id))
    return replace(endpoint, calls_per_second=round(total, 3), members=tuple(members))
