"""What the tests of streams share: rows, stores, a service that counts, and looks into the store."""

from __future__ import annotations

import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis

from tests.stand_in import Action, Fate, Seen, StandIn, client_of, error, ok, page
from tim_async._redis_clients import Client
from tim_async.migrate import READ, UNREAD, Event, FileSource, Kind, Row
from tim_async.migrate._redis import RedisStore
from tim_async.migrate._redis_reader import DEFAULT_NAME, key_of
from tim_async.migrate._rows import Rejected
from tim_async.migrate._store import About, Calls, Claim, Exchange, Outcome, State
from tim_async.migrate.streams import Loaded, load, work

ABOUT = About("unread", "counts.csv", "", {"delimiter": ";"}, 1400000000, "https://example.com")
HEADERS = {"unread": "GroupId,Member_Account,UnreadMsgNum", "read": "Report_Account,Peer_Account,MsgReadTime"}
FAST = {"set_unread_msg_num": 2000, "admin_set_msg_read": 2000, "get_group_info": 2000}

Pair = tuple[str, str]
E = TypeVar("E")


# Stores


def row(line: int, member: str, number: int = 0) -> Row:
    return Row(line, ("g", member, number or line))


def rejected(line: int, reason: str = "is empty", field: str = "GroupId") -> Rejected:
    return Rejected(line, field, reason, {"Text": f"line {line}"})


@contextlib.asynccontextmanager
async def opened(store: str | Client, about: About = ABOUT, **options: Any) -> AsyncIterator[RedisStore]:
    """A store that takes part in a migration that is planned."""
    one = RedisStore(store, **options)
    try:
        assert await one.open(about) is not None
        yield one
    finally:
        await one.close("done")


async def planned(url: str, rows: Sequence[Row | Rejected], about: About = ABOUT, name: str = DEFAULT_NAME) -> None:
    """Begin a migration of these rows."""
    store = RedisStore(url, name)
    assert await store.open(about) is None
    await store.plan(rows)
    await store.planned("f" * 64)
    await store.close()


async def claim(store: RedisStore, room: int = 100) -> list[Claim]:
    return (await store.exchange([], room, Calls())).claims


async def settle(store: RedisStore, states: Mapping[int, State], code: int | None = 10007) -> Exchange:
    outcomes = [
        Outcome(line, state, code, f"no {line}") if state is State.FAILED else Outcome(line, state)
        for line, state in states.items()
    ]
    return await store.exchange(outcomes, 0, Calls(sent=len(outcomes)))


def lines(claims: Sequence[Claim]) -> list[int]:
    return sorted(claim.row.line for claim in claims)


@contextlib.asynccontextmanager
async def looking(url: str) -> AsyncIterator[Any]:
    """A plain client of the store; whose types speak of every way to make one."""
    redis = Redis.from_url(url, decode_responses=True)
    try:
        yield redis
    finally:
        await redis.aclose()


def key(part: str, name: str = DEFAULT_NAME) -> str:
    return key_of(name, part)


async def let_leases_end(url: str) -> None:
    """Have it be an hour since any worker said a word."""
    async with looking(url) as redis:
        for entry in await redis.xpending_range(key("rows"), "workers", "-", "+", 1000):
            await redis.execute_command(
                "XCLAIM", key("rows"), "workers", entry["consumer"], 0, entry["message_id"], "IDLE", 3_600_000
            )


# Files and runs


def write(path: Path, rows: Sequence[tuple[str, ...]], kind: str = "unread") -> Path:
    path.write_text("\n".join([HEADERS[kind], *(",".join(row) for row in rows), ""]), encoding="utf-8")
    return path


def simple(folder: Path, count: int) -> Path:
    """A file with so many rows, for as many members."""
    return write(folder / "counts.csv", [(f"g{number % 3}", f"m{number}", "1") for number in range(count)])


def rows_of(dice: random.Random, rows: int, pairs: int, values: int = 1000) -> list[tuple[str, str, str]]:
    """Rows for so many pairs in no order, some of them many times, and each at least once."""
    found = [*range(pairs), *(dice.randrange(pairs) for _ in range(rows - pairs))]
    dice.shuffle(found)
    return [(f"g{pair % 40}", f"m{pair}", str(dice.randrange(values))) for pair in found]


def last_of(rows: Sequence[tuple[str, str, str]]) -> dict[Pair, int]:
    """What a file's end state is."""
    return {(first, second): int(value) for first, second, value in rows}


async def loaded(file: Path, store: str | Client, kind: Kind = UNREAD, **options: Any) -> Loaded:
    """Load a file, to its end."""
    with FileSource(file, kind) as source:
        async with contextlib.aclosing(load(source, store, **options)) as events:
            found = [event async for event in events]
    assert isinstance(found[-1], Loaded)
    return found[-1]


async def working(
    service: StandIn, store: str | Client, *, client: dict[str, Any] | None = None, **options: Any
) -> list[Event]:
    """All events of a worker."""
    options = {"group_check": False, "interval": 0.05, **options}
    async with (
        client_of(service, rates=FAST, **(client or {})) as tim,
        contextlib.aclosing(work(tim, store, **options)) as events,
    ):
        return [event async for event in events]


def of(kind: type[E], events: Sequence[object]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


class Service:
    """Answers both kinds of rows, 5 % of them wrongly in three ways, and calls somebody at the requests it was told.

    Attributes:
        state: the last value of each pair that the service took.
        values: all values that were sent for a pair.
        arrivals: how many requests there were for it.
        faults: requests that were answered wrongly.
        rows: requests for rows.
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
    """The service on loopback; at the end every request must have been well-formed."""
    async with StandIn(answer=service.answer) as running:
        yield running
    # Of so many 32-bit numbers, drawn by several processes, two may be the same.
    assert [violation for violation in running.violations if "came twice" not in violation] == []


def kind_named(name: str) -> Kind:
    return {"unread": UNREAD, "read": READ}[name]
