"""Helpers of the tests of streams: rows, stores, a service that records counts, and a plain client of the store."""

from __future__ import annotations

import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.migrate.storing import all_of
from tests.stand_in import Action, Fate, Seen, StandIn, client_of, error, ok, page
from tim_async._redis_clients import Client
from tim_async.migrate import UNREAD, Event, FileSource, Kind, Row
from tim_async.migrate._redis import RedisStore
from tim_async.migrate._redis_reader import DEFAULT_NAME, key_of
from tim_async.migrate._rows import Rejected
from tim_async.migrate._store import About, Claim
from tim_async.migrate.streams import Loaded, load, work

ABOUT = About("unread", "counts.csv", "", {"delimiter": ";"}, 1400000000, "https://example.com")
HEADERS = {"unread": "GroupId,Member_Account,UnreadMsgNum", "read": "Report_Account,Peer_Account,MsgReadTime"}
FAST = {"set_unread_msg_num": 2000, "admin_set_msg_read": 2000, "get_group_info": 2000}

Pair = tuple[str, str]


# Stores


def rejected(line: int, reason: str = "is empty", field: str = "GroupId") -> Rejected:
    return Rejected(line, field, reason, {"Text": f"line {line}"})


@contextlib.asynccontextmanager
async def opened(store: str | Client, about: About = ABOUT, **options: Any) -> AsyncIterator[RedisStore]:
    """Open a store of a planned migration."""
    one = RedisStore(store, **options)
    try:
        assert await one.open(about) is not None
        yield one
    finally:
        await one.close("done")


async def planned(url: str, rows: Sequence[Row | Rejected], about: About = ABOUT, name: str = DEFAULT_NAME) -> None:
    """Plan a migration of these rows."""
    store = RedisStore(url, name)
    assert await store.open(about) is None
    await store.plan(rows)
    await store.planned("f" * 64)
    await store.close()


def lines(claims: Sequence[Claim]) -> list[int]:
    return sorted(claim.row.line for claim in claims)


@contextlib.asynccontextmanager
async def looking(url: str) -> AsyncIterator[Any]:
    """Open a plain client of the store, typed as Any because redis-py's types cover every protocol at once."""
    redis = Redis.from_url(url, decode_responses=True)
    try:
        yield redis
    finally:
        await redis.aclose()


def key(part: str, name: str = DEFAULT_NAME) -> str:
    return key_of(name, part)


async def expire_leases(url: str) -> None:
    """Make all leases an hour old."""
    async with looking(url) as redis:
        for entry in await redis.xpending_range(key("rows"), "workers", "-", "+", 1000):
            await redis.execute_command(
                "XCLAIM", key("rows"), "workers", entry["consumer"], 0, entry["message_id"], "IDLE", 3_600_000
            )


# Files and runs


def write(path: Path, rows: Sequence[tuple[str, ...]], kind: str = "unread") -> Path:
    path.write_text("\n".join([HEADERS[kind], *(",".join(row) for row in rows), ""]), encoding="utf-8")
    return path


def simple_file(folder: Path, count: int) -> Path:
    """Write a file with rows for this number of members."""
    return write(folder / "counts.csv", [(f"g{number % 3}", f"m{number}", "1") for number in range(count)])


def rows_of(dice: random.Random, rows: int, pairs: int, values: int = 1000) -> list[tuple[str, str, str]]:
    """Return rows for this number of pairs in random order, each pair at least once."""
    found = [*range(pairs), *(dice.randrange(pairs) for _ in range(rows - pairs))]
    dice.shuffle(found)
    return [(f"g{pair % 40}", f"m{pair}", str(dice.randrange(values))) for pair in found]


def last_of(rows: Sequence[tuple[str, str, str]]) -> dict[Pair, int]:
    """Return the last value of each pair."""
    return {(first, second): int(value) for first, second, value in rows}


async def loaded(file: Path, store: str | Client, kind: Kind = UNREAD, **options: Any) -> Loaded:
    """Load a file completely."""
    with FileSource(file, kind) as source:
        async with contextlib.aclosing(load(source, store, **options)) as events:
            found = [event async for event in events]
    assert isinstance(found[-1], Loaded)
    return found[-1]


async def working(service: StandIn, store: str | Client, **options: Any) -> list[Event]:
    """Run a worker, and return its events."""
    options = {"group_check": False, "interval": 0.05, **options}
    async with client_of(service, rates=FAST) as tim:
        return await all_of(work(tim, store, **options))


class Service:
    """Accepts both kinds of rows, fails 5 % of the requests in three ways, and runs callbacks at chosen requests.

    Attributes:
        state: the last accepted value of each pair.
        values: all values that were sent for a pair.
        arrivals: the number of requests for a pair.
        faults: the number of failed requests.
        rows: the number of requests.
    """

    def __init__(self, dice: random.Random, faulty: float = 0.05) -> None:
        self.dice = dice
        self.faulty = faulty
        self.state: dict[Pair, Any] = {}
        self.values: dict[Pair, set[Any]] = defaultdict(set)
        self.arrivals: Counter[Pair] = Counter()
        self.faults = 0
        self.rows = 0
        self.at: dict[int, Callable[[], object]] = {}

    def answer(self, seen: Seen) -> Action:
        body = seen.json
        self.rows += 1
        if self.rows in self.at:
            self.at.pop(self.rows)()
        if "GroupId" in body:
            pair, value = (body["GroupId"], body["Member_Account"]), body["UnreadMsgNum"]
        else:
            pair, value = (body["Report_Account"], body["Peer_Account"]), body.get("MsgReadTime")
        self.arrivals[pair] += 1
        self.values[pair].add(value)
        fate = self.dice.random() / self.faulty if self.faulty else 1.0
        self.faults += fate < 1.0
        if fate < 0.5:
            return error(10002, "busy")
        if fate < 0.7:
            return page(502)
        self.state[pair] = value
        return Fate.DROP if fate < 1.0 else ok()


@contextlib.asynccontextmanager
async def served(service: Service) -> AsyncIterator[StandIn]:
    """Serve it on loopback, and check at the end that every request was well-formed."""
    async with StandIn(answer=service.answer) as running:
        yield running
    # Several processes may draw the same 32-bit number.
    assert [violation for violation in running.violations if "came twice" not in violation] == []
