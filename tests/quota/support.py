"""Helpers for tests of the shared quota: a service that counts calls, and clients that share a store."""

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
from benchmarks.server import fullest_second
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
    """Counts the calls of a sliding second, for each app and endpoint, and refuses those over the limit.

    Attributes:
        arrivals: time of each arrival, by the monotonic clock.
        accepted: accepted calls of each caller, which is the account in the request.
        refused: number of refused calls.
    """

    def __init__(self, limit: int, answer: Callable[[Seen], Action] = sensible) -> None:
        self.limit = limit
        self.answer = answer
        self.arrivals: list[float] = []
        self.accepted: Counter[str] = Counter()
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
        self.accepted[seen.json.get("To_Account", "")] += 1
        return self.answer(seen)

    def max_per_second(self) -> int:
        """Return the most arrivals in any second."""
        return max_per_second(self.arrivals)


def max_per_second(times: list[float]) -> int:
    """Return the most times, in any order, in any second."""
    return fullest_second(sorted(times))


PATIENT = 5.0
"""Seconds; a timeout for the store that a busy machine does not exceed."""


def quota_on(store: Store, **options: Any) -> RedisQuota:
    """Make a quota with a namespace of its own, on a store that other tests may use."""
    return RedisQuota(**{"url": store.url, "namespace": f"test{next(_names)}", **options})


def keys_of(quota: RedisQuota, *, command: str = COMMAND, app: int = APP) -> dict[str, str]:
    """Return the full names of an endpoint's keys, by their last parts."""
    key = f"{quota._namespace}:{{{app}:{command}}}:{tim_async.quota.LAYOUT}"
    return {end: f"{key}:{end}" for end in tim_async.quota.KEYS}


EQUAL = Shares()
"""The default shares."""


def limiter_of(
    exchange: Exchange, limit: float, *, strict: bool = False, shares: Shares = EQUAL, overdue: float = 2.5
) -> tuple[RequestQueue, SharedLimiter]:
    """Make a queue and its shared limiter, with the test's store."""
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
    """Return the store's counts: calls that are out, and cooling calls."""
    with Redis.from_url(store.url) as redis:
        out, cooling = redis.hmget(keys_of(quota)["state"], "out", "cooling")
        return float(out or 0), float(cooling or 0)


def client(service: StandIn, quota: RedisQuota | None, limit: float, **options: Any) -> TIMClient:
    """Make a client whose endpoints all have this limit.

    It is strict, so that delays of a busy machine do not cause refusals.
    """
    rates = dict.fromkeys((NAME, "set_unread_msg_num", "admin_set_msg_read", "get_group_msg_receipt"), limit)
    return client_of(service, **{"quota": quota, "rates": rates, "strict": True, **options})


async def saturate(tim: TIMClient, caller: str, tasks: int = 5) -> None:
    """Make calls as fast as permitted, until cancelled."""

    async def one() -> None:
        while True:
            await tim.get_all_c2c_unread_msg_num(caller)

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(one())


@contextlib.asynccontextmanager
async def calling(*callers: tuple[TIMClient, str], tasks: int = 5) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Let clients saturate their endpoint during the block; none of their calls may fail."""
    busy = [asyncio.create_task(saturate(tim, caller, tasks)) for tim, caller in callers]
    try:
        yield busy
    finally:
        for task in busy:
            task.cancel()
        for task in busy:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], object], seconds: float = 8.0) -> None:
    """Wait until a condition holds; fail after some seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - no event is set
            await asyncio.sleep(0.005)


def answers(counting: Counting) -> int:
    """Return the number of accepted calls."""
    return sum(counting.accepted.values())
