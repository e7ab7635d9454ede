"""Who is compared: ways of keeping to a limit, each behind the same small door.

A policy is opened on a base URL with a rate and gives one function, `call(endpoint, serial)`, which returns
True when the service took the call.  Each endpoint has a limiter of its own.  The baselines send the same
URL and body through plain aiohttp, and do not repeat what was refused: it counts as refused.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from aiolimiter import AsyncLimiter

from benchmarks import calls

if TYPE_CHECKING:
    from tim_async.client import TIMClient

Call = Callable[[str, int], Awaitable[bool]]
Opener = Callable[[str, float], AbstractAsyncContextManager[Call]]

SDK_APP_ID = 1400000000
SECRET_KEY = "0123456789abcdef" * 4
IDENTIFIER = "administrator"
USERSIG = "eJw*" + "x" * 196
"""As long as a real one; the stand-in server does not look at it."""

TIM_ASYNC = ("tim_async", "tim_async strict")


def url(base_url: str, name: str) -> str:
    """A whole URL with a random of its own, as every attempt needs one."""
    return (
        f"{base_url}/{calls.COMMANDS[name]}?sdkappid={SDK_APP_ID}&identifier={IDENTIFIER}"
        f"&usersig={USERSIG}&random={random.getrandbits(32)}&contenttype=json"
    )


def wide_session() -> aiohttp.ClientSession:
    """A session whose connector never makes a caller wait: the limiter under test is the only limit."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def post(session: aiohttp.ClientSession, base_url: str, name: str, body: dict[str, Any]) -> bool:
    """One attempt by plain aiohttp."""
    try:
        async with session.post(url(base_url, name), json=body) as response:
            answer = json.loads(await response.read())
    except (aiohttp.ClientError, TimeoutError):
        return False
    return bool(answer["ErrorCode"] == 0)


def bucket(capacity: Callable[[float], float], share: float) -> Opener:
    """aiolimiter alone: `capacity` permits at once, refilled at `share` of the rate."""

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
    """As many slots as calls a second, each free again 1 s after its answer; the bucket only smooths.

    An arrival lies between its sending and its answer, so two arrivals of one slot are always more than a
    second apart, and no second ever holds more arrivals than there are slots, whatever the delays.
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
    """The client under test, every endpoint at the same rate."""
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
    """The same four calls as `benchmarks.calls.body`, by the client's methods."""
    return {
        "set_unread_msg_num": lambda n: tim.set_unread_msg_num("group", f"member{n}", 1),
        "admin_set_msg_read": lambda n: tim.admin_set_msg_read(f"member{n}", "peer"),
        "get_c2c_unread_msg_num": lambda n: tim.get_c2c_unread_msg_num(f"member{n}", ["peer1", "peer2"]),
        "get_group_msg_receipt": lambda n: tim.get_group_msg_receipt("group", [n + 1]),
    }


def tim_async(*, strict: bool) -> Opener:
    """The client under test, with its default retries."""

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
    "slot-hold": "200 slots, free again 1 s after the answer, and AsyncLimiter(4, 4/210)",
    "tim_async": "TIMClient(…)",
    "tim_async strict": "TIMClient(…, strict=True)",
}

BASELINES = ("fixed", "slot-hold")
"""What the client must not fall behind."""


def available() -> list[str]:
    """The policies that can run here, in the order in which they are shown."""
    try:
        importlib.import_module("tim_async.client")
    except ImportError as error:
        print(f"tim_async is left out: {error}", file=sys.stderr)
        return [name for name in POLICIES if name not in TIM_ASYNC]
    return list(POLICIES)
