"""What the tests of the shared quota have in common: a service that counts, a store, clients of both."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from redis import Redis

import tim_async.quota
from tests.stand_in import APP, Action, Seen, StandIn, client_of, error, sensible
from tests.store import Store
from tim_async import TIMClient
from tim_async._limiter.queue import RequestQueue
from tim_async._limiter.shared import SharedLimiter
from tim_async._limiter.sharing import Exchange, Shares
from tim_async.endpoints import GET_C2C_UNREAD_MSG_NUM
from tim_async.quota import RedisQuota

COMMAND = GET_C2C_UNREAD_MSG_NUM.command
NAME = "get_c2c_unread_msg_num"
_names = itertools.count()


class Counting:
    """Counts arrivals in a sliding second, for each app and endpoint, and refuses what is over the limit.

    Attributes:
        arrivals: when each came, all of them, by this machine's monotonic clock.
        by: how many of each caller were taken; the caller is the account that is asked about.
        refused: how many were not.
    """

    def __init__(self, limit: int, answer: Callable[[Seen], Action] = sensible) -> None:
        self.limit = limit
        self.answer = answer
        self.arrivals: list[float] = []
        self.by: Counter[str] = Counter()
        self.refused = 0
        self._windows: dict[tuple[str, str], deque[float]] = {}

    def __call__(self, seen: Seen) -> Action:
        now = time.monotonic()
        self.arrivals.append(now)
        window = self._windows.setdefault((seen.query["sdkappid"], seen.path), deque())
        while window and window[0] <= now - 1.0:
            window.popleft()
        if len(window) >= self.limit:
            self.refused += 1
            return error(60007, "too fast")
        window.append(now)
        self.by[seen.json.get("To_Account", "")] += 1
        return self.answer(seen)

    def fullest(self) -> int:
        """The most arrivals in any second."""
        most = first = 0
        for last, at in enumerate(self.arrivals):
            while self.arrivals[first] <= at - 1.0:
                first += 1
            most = max(most, last - first + 1)
        return most


PATIENT = 5.0
"""Seconds without an answer, where the store is there: a busy machine must not look like an outage."""


def quota_on(store: Store, **options: Any) -> RedisQuota:
    """A quota of this test alone, on a store that others may use, too."""
    return RedisQuota(**{"url": store.url, "namespace": f"test{next(_names)}", **options})


def keys_of(quota: RedisQuota, *, command: str = COMMAND, app: int = APP) -> dict[str, str]:
    """An endpoint's keys as an operator sees them, by their ends; the version of their layout is part of the names."""
    key = f"{quota._namespace}:{{{app}:{command}}}:{tim_async.quota.LAYOUT}"
    return {end: f"{key}:{end}" for end in tim_async.quota.KEYS}


EQUAL = Shares()
"""All processes take part alike."""


def limiter_of(
    exchange: Exchange, limit: float, *, strict: bool = False, shares: Shares = EQUAL, overdue: float = 2.5
) -> tuple[RequestQueue, SharedLimiter]:
    """A queue and its limiter, which tells and asks a store of the test's."""
    made: list[SharedLimiter] = []

    def limiter(queue: RequestQueue) -> SharedLimiter:
        made.append(
            SharedLimiter(
                exchange, queue, limit, name=NAME, member="one", strict=strict, shares=shares, overdue=overdue
            )
        )
        return made[0]

    return RequestQueue(limit, limiter=limiter), made[0]


def in_use(store: Store, quota: RedisQuota) -> tuple[float, float]:
    """The calls that are out, and the calls that cool, as the store counts them."""
    with Redis.from_url(store.url) as redis:
        out, cooling = redis.hmget(keys_of(quota)["state"], "out", "cooling")
        return float(out or 0), float(cooling or 0)


def client(service: StandIn, quota: RedisQuota | None, limit: float, **options: Any) -> TIMClient:
    """A client whose endpoints all have this limit.

    It is strict by default: what a busy machine adds to a call's way must not decide whether it is refused.
    """
    rates = dict.fromkeys((NAME, "set_unread_msg_num", "admin_set_msg_read", "get_group_msg_receipt"), limit)
    return client_of(service, **{"quota": quota, "rates": rates, "strict": True, **options})


async def saturate(tim: TIMClient, who: str, tasks: int = 5) -> None:
    """Call as fast as may be, until cancelled."""

    async def one() -> None:
        while True:
            await tim.get_all_c2c_unread_msg_num(who)

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(one())


@contextlib.asynccontextmanager
async def calling(*callers: tuple[TIMClient, str], tasks: int = 5) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Let clients saturate their endpoint meanwhile; none of their calls may fail."""
    busy = [asyncio.create_task(saturate(tim, who, tasks)) for tim, who in callers]
    try:
        yield busy
    finally:
        for task in busy:
            task.cancel()
        for task in busy:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], object], seconds: float = 8.0) -> None:
    """Look again and again; fail when it takes too long."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is watched sets no event
            await asyncio.sleep(0.005)


def answers(counting: Counting) -> int:
    """Calls that were taken."""
    return sum(counting.by.values())
