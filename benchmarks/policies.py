"""The policies under comparison: ways to keep to a limit, behind one interface.

A policy is opened on a base URL with a rate and yields one function, `call(endpoint, serial)`, which returns True if
the service accepted the call.  Each endpoint has its own limiter.  The baselines send the same URL and body by plain
aiohttp, and do not retry refused calls, which count as refused.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from aiolimiter import AsyncLimiter

from benchmarks import calls
from benchmarks.remote import SDK_APP_ID, SECRET_KEY

if TYPE_CHECKING:
    from tim_async.client import TIMClient

Call = Callable[[str, int], Awaitable[bool]]
Opener = Callable[[str, float], AbstractAsyncContextManager[Call]]

IDENTIFIER = "administrator"
USERSIG = "eJw*" + "x" * 196
"""As long as a real one; the stand-in server ignores it."""


def url(base_url: str, name: str) -> str:
    """Make the URL of an attempt, with its own ``random``."""
    return (
        f"{base_url}/{calls.COMMANDS[name]}?sdkappid={SDK_APP_ID}&identifier={IDENTIFIER}"
        f"&usersig={USERSIG}&random={random.getrandbits(32)}&contenttype=json"
    )


def wide_session() -> aiohttp.ClientSession:
    """Make a session without a limit on connections, so that the limiter under test is the only limit."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def post(session: aiohttp.ClientSession, base_url: str, name: str, body: dict[str, Any]) -> bool:
    """Make one attempt by plain aiohttp; return whether it succeeded."""
    try:
        async with session.post(url(base_url, name), json=body) as response:
            answer = json.loads(await response.read())
    except (aiohttp.ClientError, TimeoutError):
        return False
    return bool(answer["ErrorCode"] == 0)


def bucket(capacity: Callable[[float], float], share: float) -> Opener:
    """Make a policy of aiolimiter alone: `capacity` permits at once, refilled at `share` of the rate."""

    @asynccontextmanager
    async def opened(base_url: str, rate: float) -> AsyncIterator[Call]:
        k = capacity(rate)
        limiters = {name: AsyncLimiter(k, k / (share * rate)) for name in calls.NAMES}
        async with wide_session() as session:

            async def call(name: str, serial: int) -> bool:
                async with limiters[name]:
                    return await post(session, base_url, name, calls.body(name, serial))

            yield call

    return opened


@asynccontextmanager
async def slot_hold(base_url: str, rate: float) -> AsyncIterator[Call]:
    """Hold as many slots as calls a second, each until 1 s after its answer; the bucket only smooths.

    A call arrives between its sending and its answer, so two arrivals of one slot are always more than a second apart,
    and no second ever has more arrivals than there are slots, whatever the delays.
    """
    slots = {name: asyncio.Semaphore(int(rate)) for name in calls.NAMES}
    limiters = {name: AsyncLimiter(4, 4 / (1.05 * rate)) for name in calls.NAMES}
    loop = asyncio.get_running_loop()
    async with wide_session() as session:

        async def call(name: str, serial: int) -> bool:
            await slots[name].acquire()
            try:
                await limiters[name].acquire()
                return await post(session, base_url, name, calls.body(name, serial))
            finally:
                loop.call_later(1.0, slots[name].release)

        yield call


def client(base_url: str, rate: float, *, strict: bool = False, **options: Any) -> TIMClient:
    """Make the client under test, with the same rate for every endpoint."""
    from tim_async.client import TIMClient

    return TIMClient(
        sdk_app_id=SDK_APP_ID,
        secret_key=SECRET_KEY,
        identifier=IDENTIFIER,
        base_url=base_url,
        rates=dict.fromkeys(calls.NAMES, rate),
        strict=strict,
        **options,
    )


def tim_calls(tim: TIMClient) -> dict[str, Callable[[int], Awaitable[object]]]:
    """Return the four calls of `benchmarks.calls.body`, by the client's methods."""
    return {
        "set_unread_msg_num": lambda n: tim.set_unread_msg_num("group", f"member{n}", 1),
        "admin_set_msg_read": lambda n: tim.admin_set_msg_read(f"member{n}", "peer"),
        "get_c2c_unread_msg_num": lambda n: tim.get_c2c_unread_msg_num(f"member{n}", ["peer1", "peer2"]),
        "get_group_msg_receipt": lambda n: tim.get_group_msg_receipt("group", [n + 1]),
    }


def tim_async(*, strict: bool) -> Opener:
    """Make a policy of the client under test, with its default retries."""

    @asynccontextmanager
    async def opened(base_url: str, rate: float) -> AsyncIterator[Call]:
        from tim_async.errors import TIMError

        async with client(base_url, rate, strict=strict) as tim:
            methods = tim_calls(tim)

            async def call(name: str, serial: int) -> bool:
                try:
                    await methods[name](serial)
                except TIMError:
                    return False
                return True

            yield call

    return opened


POLICIES: dict[str, Opener] = {
    "naive": bucket(lambda rate: rate, 1.0),
    "fixed": bucket(lambda _: 4, 0.95),
    "slot-hold": slot_hold,
    "tim_async": tim_async(strict=False),
    "tim_async strict": tim_async(strict=True),
}

LEGEND = {
    "naive": "AsyncLimiter(200, 1)",
    "fixed": "AsyncLimiter(4, 4/190)",
    "slot-hold": "200 slots, each held until 1 s after the answer, and AsyncLimiter(4, 4/210)",
    "tim_async": "TIMClient(…)",
    "tim_async strict": "TIMClient(…, strict=True)",
}

BASELINES = ("fixed", "slot-hold")
"""The policies that the client must not fall behind."""
