"""Look-ups of one conversation each: calls, time, latency and CPU.

Merging: 2,000 look-ups by 200 tasks on an idle client; every task awaits one look-up at a time, or the ten of its user
at once.  Sustained: tasks that look up without a pause, on one endpoint of 200 calls a second; the first second, which
is faster than later ones, does not count.  Single: one look-up on an idle client, in turn with the plain call for the
same peer.  CPU: process CPU of a look-up when nothing waits, compared with the equivalent calls for ten peers, by the
plain method and by bare aiohttp, each in a fresh interpreter.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from benchmarks.policies import client, post, wide_session
from benchmarks.remote import fresh, server
from benchmarks.server import Config
from benchmarks.tables import table

if TYPE_CHECKING:
    from tim_async.client import TIMClient

NAME = "get_c2c_unread_msg_num"
USERS = 200
PEERS = 10
TASKS = 200
SUSTAINED_TASKS = 400
CONFIG = Config(rtt=0.005)
WARM_UP = 500
"""Calls for ten peers before the CPU measurement."""

Pair = tuple[str, str]


def _pairs(numbers: Iterable[int]) -> Iterator[Pair]:
    return ((f"user{n // PEERS}", f"peer{n % PEERS}") for n in numbers)


async def _pull(tim: TIMClient, pairs: Iterator[Pair], tasks: int) -> None:
    """Look up conversations from one queue, in several tasks."""

    async def work() -> None:
        for pair in pairs:
            await tim.lookup.c2c_unread_msg_num(*pair)

    await asyncio.gather(*(work() for _ in range(tasks)))


async def _queue(tim: TIMClient) -> None:
    await _pull(tim, _pairs(range(USERS * PEERS)), TASKS)


async def _striped(tim: TIMClient) -> None:
    async def work(first: int) -> None:
        for pair in _pairs(range(first, USERS * PEERS, TASKS)):
            await tim.lookup.c2c_unread_msg_num(*pair)

    await asyncio.gather(*map(work, range(TASKS)))


async def _gathered(tim: TIMClient) -> None:
    async def work(user: int) -> None:
        own = _pairs(range(user * PEERS, (user + 1) * PEERS))
        await asyncio.gather(*itertools.starmap(tim.lookup.c2c_unread_msg_num, own))

    await asyncio.gather(*map(work, range(USERS)))


PATTERNS: dict[str, Callable[[TIMClient], Awaitable[None]]] = {
    "a shared queue": _queue,
    "every 200th each": _striped,
    "ten of a user at once": _gathered,
}


async def _merge(base_url: str, pattern: str) -> float:
    async with asyncio.timeout(60), client(base_url, CONFIG.limit) as tim:
        start = time.perf_counter()
        await PATTERNS[pattern](tim)
        return time.perf_counter() - start


def _merging() -> dict[str, Any]:
    found = {}
    for pattern in PATTERNS:
        with server(CONFIG) as remote:
            seconds = asyncio.run(_merge(remote.base_url, pattern))
            seen = remote.report()[NAME]
        found[pattern] = {"seconds": seconds, "calls": seen["accepted"] + seen["refused"], "refused": seen["refused"]}
    return found


async def _sustain(base_url: str, seconds: float) -> dict[str, Any]:
    answered = 0

    async def work(tim: TIMClient, pairs: Iterator[Pair]) -> None:
        nonlocal answered
        for pair in pairs:
            await tim.lookup.c2c_unread_msg_num(*pair)
            answered += 1

    async with asyncio.timeout(30 + seconds), client(base_url, CONFIG.limit) as tim:
        pairs = _pairs(itertools.count())
        tasks = [asyncio.ensure_future(work(tim, pairs)) for _ in range(SUSTAINED_TASKS)]
        await asyncio.sleep(1.0)
        before, start, cpu = answered, time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        took, spent = time.perf_counter() - start, time.process_time() - cpu
        conversations = answered - before
        failed = sum(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {"per_second": conversations / took, "of_a_core": spent / took, "failed": failed}


def _sustained(seconds: float) -> dict[str, Any]:
    with server(CONFIG) as remote:
        found = asyncio.run(_sustain(remote.base_url, seconds))
        seen = remote.report()[NAME]
    return {**found, "seconds": seconds, "refused": seen["refused"], "fullest": seen["fullest"]}


async def _one_by_one(base_url: str, singles: int) -> dict[str, Any]:
    async def timed(awaitable: Awaitable[object]) -> float:
        start = time.perf_counter()
        await awaitable
        took = time.perf_counter() - start
        await asyncio.sleep(0.01)  # idle again
        return took

    plain, alone = [], []
    async with asyncio.timeout(60 + singles), client(base_url, CONFIG.limit) as tim:
        await timed(tim.get_c2c_unread_msg_num("user", ["peer"]))
        for number in range(singles):
            peer = f"peer{number}"
            plain.append(await timed(tim.get_c2c_unread_msg_num("user", [peer])))
            alone.append(await timed(tim.lookup.c2c_unread_msg_num("user", peer)))
    more = [one - other for one, other in zip(alone, plain, strict=True)]
    return {
        "pairs": singles,
        "plain": median(plain),
        "lookup": median(alone),
        "more": median(more),
        "more_p95": quantiles(more, n=20, method="inclusive")[18],
    }


def _single(singles: int) -> dict[str, Any]:
    with server(CONFIG) as remote:
        return asyncio.run(_one_by_one(remote.base_url, singles))


# CPU, each kind in an interpreter of its own.


async def _by_lookups(base_url: str, calls: int) -> float:
    async with client(base_url, 1e6) as tim:
        await _pull(tim, _pairs(range(WARM_UP * PEERS)), TASKS)
        start = time.process_time()
        await _pull(tim, _pairs(range(calls * PEERS)), TASKS)
        return time.process_time() - start


async def _workers(once: Callable[[str, list[str]], Awaitable[object]], calls: int) -> float:
    peers = [f"peer{n}" for n in range(PEERS)]

    async def work(users: Iterator[int]) -> None:
        for user in users:
            await once(f"user{user}", peers)

    async def all_of(count: int) -> None:
        users = iter(range(count))
        await asyncio.gather(*(work(users) for _ in range(TASKS // PEERS)))

    await all_of(WARM_UP)
    start = time.process_time()
    await all_of(calls)
    return time.process_time() - start


async def _by_calls(base_url: str, calls: int) -> float:
    async with client(base_url, 1e6) as tim:
        return await _workers(tim.get_c2c_unread_msg_num, calls)


async def _by_posts(base_url: str, calls: int) -> float:
    async with wide_session() as session:
        return await _workers(
            lambda user, peers: post(session, base_url, NAME, {"To_Account": user, "Peer_Account": peers}), calls
        )


KINDS = {"look-ups": _by_lookups, "calls of ten": _by_calls, "bare posts of ten": _by_posts}


def _cpu(pairs: int, calls: int) -> dict[str, Any]:
    runs: list[dict[str, float]] = []
    counted = 0
    with server(Config(window="none", record=False)) as remote:
        for number in range(pairs):
            run = {}
            for kind in [*KINDS] if number % 2 == 0 else [*KINDS][::-1]:
                before = remote.report().get(NAME, {}).get("accepted", 0)
                run[kind] = fresh(KINDS[kind], base_url=remote.base_url, calls=calls)
                if kind == "look-ups":
                    counted = remote.report()[NAME]["accepted"] - before - WARM_UP
            runs.append(run)
    each = 1e6 / (calls * PEERS)
    return {
        "lookups": calls * PEERS,
        "calls": counted,
        "pairs": pairs,
        "kinds": {kind: median(run[kind] for run in runs) * each for kind in KINDS},
        "over_bare": median(run["look-ups"] - run["bare posts of ten"] for run in runs) * each,
        "runs": runs,
    }


def measure(
    *,
    seconds: float = 10.0,
    singles: int = 200,
    pairs: int = 3,
    calls: int = 2000,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Make all measurements in turn, each on a fresh server."""
    say("lookups: merging")
    merging = _merging()
    say("lookups: sustained")
    sustained = _sustained(seconds)
    say("lookups: single")
    single = _single(singles)
    say("lookups: cpu")
    return {"merging": merging, "sustained": sustained, "single": single, "cpu": _cpu(pairs, calls)}


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as one table for each measurement."""
    merging, sustained, single, cpu = (result[name] for name in ("merging", "sustained", "single", "cpu"))
    return [
        table(
            f"LOOKUPS: {USERS * PEERS:,} look-ups by {TASKS} tasks, {USERS} users with {PEERS} peers each, RTT 5 ms",
            ["pattern", "seconds", "calls", "refused"],
            [
                [pattern, f"{figures['seconds']:.2f}", f"{figures['calls']}", f"{figures['refused']}"]
                for pattern, figures in merging.items()
            ],
        ),
        table(
            f"LOOKUPS: {SUSTAINED_TASKS} tasks without a pause, one endpoint, RTT 5 ms, {sustained['seconds']:g} s",
            ["", "conversations/s", "refused", "fullest", "failed", "of a core"],
            [
                [
                    "sustained",
                    f"{sustained['per_second']:.0f}",
                    f"{sustained['refused']}",
                    f"{sustained['fullest']}",
                    f"{sustained['failed']}",
                    f"{sustained['of_a_core']:.2f}",
                ]
            ],
        ),
        table(
            f"LOOKUPS: one on an idle client, ms (medians of {single['pairs']} pairs)",
            ["", "plain call", "look-up", "more", "more, 95 %"],
            [["single", *(f"{single[name] * 1000:.1f}" for name in ("plain", "lookup", "more", "more_p95"))]],
        ),
        table(
            f"LOOKUPS: process CPU, {cpu['lookups']:,} conversations in {cpu['calls']:,} calls "
            f"(medians of {cpu['pairs']} runs)",
            ["what", "µs a conversation"],
            [
                *([kind, f"{microseconds:.1f}"] for kind, microseconds in cpu["kinds"].items()),
                ["look-ups less bare posts", f"{cpu['over_bare']:.1f}"],
            ],
        ),
    ]


NOTES = [
    "seconds: from the first look-up to the last answer; calls, refused: as counted by the server",
    "fullest: most arrivals in a sliding second; failed: tasks that ended; of a core: CPU of the client's process",
    "more: the look-up's time minus that of the plain call just before it",
]
