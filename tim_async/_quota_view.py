"""Who takes part in the quota of a store, and how much each takes: read from the store, which is not changed.

The keys are those that ``_limiter/quota.lua`` keeps, which says what they hold.  All times there are microseconds of
the fleet's clock.  Several commands read them, so that a member may come or go meanwhile.

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

from redis.asyncio import RedisCluster

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
        id: the host, the process's id and a token of its own, by colons.
        place: how many members had come before it.
        calls_per_second: permits it took, a second: since the last look, or since it came where there was none.
        share: its part of what all take, 0 to 1.
        taken: permits it took since it came.
        out: its calls that are under way or permitted.
        waiting: "interactive" or "bulk" while it waits in the queue of the store; "" while it does not.
        limit: calls/s that it named.
        binding: whether that is what the service allows, and not only what it takes at most.
        age: seconds since it came.
        silence: seconds since it was heard.
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
class Endpoint:
    """The quota of one endpoint of one app.

    Attributes:
        sdk_app_id: the app.
        command: the endpoint's path.
        limit: calls/s that the fleet has agreed on: the smallest that an active member named.
        rate: calls/s that the server takes at present, as its refusals tell; the limit where it takes all.
        calls_per_second: permits that all took, as `Member.calls_per_second`.
        out: calls that are under way or permitted.
        cooling: calls that ended and still count, for a second.
        refused: refused calls of the last second.
        paused: seconds for which nothing is sent, as the server asked; 0.0 when it is not so.
        silence: seconds since any member was heard.
        members: those that count, who takes most first.
        unreadable: members whose records are damaged, and which are not among ``members``.
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
        """Members that named another limit than the agreed one, which all keep to."""
        return tuple(one for one in self.members if one.binding and one.limit != self.limit)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is not as usual, in words."""
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
        """The limit that a member named, in words."""
        named = f"{member.limit:,g}" if member.binding else f"{member.limit:,g} for itself"
        return f"{named}, not {self.limit:,g}" if member in self.differing else named

    def waiting(self, lane: str) -> int:
        """Members that wait in the queue of the store, in one lane."""
        return sum(one.waiting == lane for one in self.members)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        return {**asdict(self), "members": [asdict(one) for one in self.members]}


@dataclass(frozen=True, slots=True)
class QuotaView:
    """The quotas in a store.

    Attributes:
        store: its name, without password and options.
        namespace: what the keys begin with.
        time: when that was, Unix seconds.
        seconds: since the look that the rates are measured from; None where they are those since each member came.
        endpoints: by app and path; those that were used within a day.
    """

    store: str
    namespace: str
    time: float
    seconds: float | None
    endpoints: tuple[Endpoint, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        return {**asdict(self), "endpoints": [one.as_dict() for one in self.endpoints]}

    def since(self, before: QuotaView) -> QuotaView:
        """The same with rates measured from an earlier look."""
        seconds = self.time - before.time
        if seconds <= 0:
            return self
        known = {(one.sdk_app_id, one.command): one for one in before.endpoints}
        endpoints = tuple(
            _rates_since(one, known.get((one.sdk_app_id, one.command)), seconds) for one in self.endpoints
        )
        return replace(self, seconds=seconds, endpoints=endpoints)


async def look(connected: Connected, namespace: str) -> QuotaView:
    """Read what a store knows of its quotas.

    Args:
        connected: a client of the store.
        namespace: what the keys begin with, as in `RedisQuota`.

    Raises:
        FAILURES: the store cannot be read.
    """
    begin, end = f"{namespace}:{{", f"}}:{LAYOUT}:state"
    names = await _names(connected, f"{_escaped(begin)}*{_escaped(end)}")
    endpoints = []
    for name in sorted(names):
        app, colon, command = name.removeprefix(begin).removesuffix(end).partition(":")
        if colon and app.isdecimal() and (one := await _endpoint(connected, name.removesuffix("state"), app, command)):
            endpoints.append(one)
    endpoints.sort(key=lambda one: (int(one.sdk_app_id), one.command))
    return QuotaView(connected.shown, namespace, time.time(), None, tuple(endpoints))


# Reading


async def _names(connected: Connected, pattern: str) -> set[str]:
    """The keys of a pattern; in a cluster, of all primaries."""
    client = connected.client
    if not isinstance(client, RedisCluster):
        return await _scanned(client, pattern)
    await client.initialize()
    found: set[str] = set()
    for node in client.get_primaries():
        found |= await _scanned(node, pattern)
    return found


async def _scanned(client: Any, pattern: str) -> set[str]:
    found: set[str] = set()
    cursor = 0
    while True:
        cursor, names = await execute(client, "SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        found |= {name.decode(errors="replace") for name in names}
        if not cursor:
            return found


def _escaped(text: str) -> str:
    """A text as a part of a pattern that matches it alone."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)


async def _endpoint(connected: Connected, prefix: str, app: str, command: str) -> Endpoint | None:
    """Read one endpoint's keys; None when they are gone, or something else."""

    async def read(part: str, *command: Any) -> Any:
        return await execute(connected.client, command[0], f"{prefix}{part}", *command[1:])

    values = await read("state", "HMGET", *_STATE)
    state = {name: _number(value) for name, value in zip(_STATE, values, strict=True)}
    if not all(map(math.isfinite, state.values())) or not state["at"] or not state["limit"]:
        return None
    about: Mapping[bytes, bytes] = await read("about", "HGETALL")
    queue: Iterable[Any] = await read("waiting", "ZRANGE", 0, -1, "WITHSCORES")
    waiting = {member: "bulk" if place >= _BULK else "interactive" for member, place in _pairs(queue)}
    real = await _time(connected, prefix)
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
    endpoint = Endpoint(
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


async def _time(connected: Connected, prefix: str) -> float:
    """The clock of the server with these keys, microseconds."""
    client = connected.client
    command: dict[str, Any] = {}
    if isinstance(client, RedisCluster):
        command["target_nodes"] = client.get_node_from_key(f"{prefix}state")
    seconds, microseconds = await client.execute_command("TIME", **command)
    return 1e6 * int(seconds) + int(microseconds)


def _member(id_: str, record: bytes, waiting: str, now: float) -> Member | None:
    """Read a member's record; None where it is damaged."""
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
    """Members of a sorted set with their scores, which RESP2 tells one after the other."""
    items = list(found)
    if items and not isinstance(items[0], list | tuple):
        items = list(zip(items[::2], items[1::2], strict=True))
    return [(member.decode(errors="replace"), float(score)) for member, score in items]


def _rate(state: Mapping[str, float], now: float) -> float:
    """The adaptive rate, as ``quota.lua`` and `learning.Rate` have it."""
    limit = state["limit"]
    if not state["lowered"]:
        return limit
    beyond = (now - state["changed_at"]) / 1e6 - 2.0
    if beyond < 0:
        return min(limit, state["plateau"] - (state["plateau"] - state["low"]) * (-beyond / 2.0) ** 3)
    gentle = min(beyond, 2.5)
    return min(limit, state["plateau"] + limit * (gentle**3 / 150 + (beyond - gentle) / 8))


# Rates


def _rates_since(endpoint: Endpoint, before: Endpoint | None, seconds: float) -> Endpoint:
    taken = {one.id: one.taken for one in before.members} if before else {}
    # One that was not there before came meanwhile.  What is taken back was lost on its way.
    return _with_rates(
        endpoint, {one.id: max(0, one.taken - taken.get(one.id, 0)) / seconds for one in endpoint.members}
    )


def _with_rates(endpoint: Endpoint, rates: Mapping[str, float]) -> Endpoint:
    """The endpoint with these rates of its members."""
    total = sum(rates.values())
    members = [
        replace(one, calls_per_second=round(rates[one.id], 3), share=round(rates[one.id] / total, 4) if total else 0.0)
        for one in endpoint.members
    ]
    members.sort(key=lambda one: (-one.calls_per_second, one.place, one.id))
    return replace(endpoint, calls_per_second=round(total, 3), members=tuple(members))
