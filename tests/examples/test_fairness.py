"""One greedy user beside others: both apps, each in a single process, so that one queue has all calls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.emulator.support import arrived
from tim_async.emulator import Emulator

from . import test_aiohttp, test_fastapi
from .routes import Visitor, fill, signed
from .serving import PATIENCE, TOKEN, Program

pytestmark = pytest.mark.processes

GREEDY_GROUP = "greedy"
ALERT = "Alert.RequestOverLimit"


@pytest.fixture(scope="module")
def service() -> Iterator[Emulator]:
    with Emulator() as running:
        fill(running)
        running.state.add_account("greedy")
        running.state.add_group(GREEDY_GROUP, messages=1_000_000)
        yield running


@pytest.fixture(scope="module", params=["fastapi", "aiohttp"])
def app(
    request: pytest.FixtureRequest, service: Emulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """One app for all tests: each uses another endpoint or ends before the next begins."""
    folder = tmp_path_factory.mktemp("fairness")
    program = (
        test_fastapi.program(folder, service, 1, "", TIM_WEBHOOK_TOKEN=TOKEN)
        if request.param == "fastapi"
        else test_aiohttp.program(folder, service, "", TIM_WEBHOOK_TOKEN=TOKEN)
    )
    with program as running:
        yield running


@asynccontextmanager
async def greed(visitor: Visitor, method: str, urls: Iterator[str]) -> AsyncIterator[None]:
    """Keep twenty requests in flight until the end of the block."""

    async def ask() -> None:
        for url in urls:
            assert (await visitor.ask_once(url, method)).status in {200, 404, 429}  # its peers do not exist

    tasks = [asyncio.create_task(ask()) for _ in range(20)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)


def unread() -> Iterator[str]:
    """Yield lists of one call and of ten, look-ups and totals; peers are distinct, so no two look-ups are equal."""
    peers = itertools.count()

    def some(count: int) -> str:
        return "&".join(f"peer=p{n}" for n in itertools.islice(peers, count))

    for _ in itertools.count():
        yield f"/users/greedy/unread?{some(100)}"
        yield f"/users/greedy/unread?{some(10)}"
        yield f"/users/greedy/unread/p{next(peers)}"
        yield "/users/greedy/unread"


def receipts() -> Iterator[str]:
    """Yield lists of one call and of two."""
    seqs = itertools.count(1)
    for size in itertools.cycle((100, 50)):
        yield f"/groups/{GREEDY_GROUP}/receipts?" + "&".join(f"seq={n}" for n in itertools.islice(seqs, size))


def marks() -> Iterator[str]:
    """Yield requests of one call each."""
    return itertools.repeat("/users/greedy/read/bob")


async def test_lists_of_one_user_are_limited(app: Program, service: Emulator) -> None:
    """While the calls of one long list are in flight, its user's next list is a 429 at once; other users' are not."""

    def long(user: str) -> str:
        return f"/users/{user}/unread?" + "&".join(f"peer=p{n}" for n in range(100))

    async with aiohttp.ClientSession(app.url, connector=aiohttp.TCPConnector(limit=0)) as session:
        visitor = Visitor(session)
        service.stall(3600.0)
        before = service.report().total.calls
        async with asyncio.timeout(PATIENCE):
            first = asyncio.create_task(visitor.ask_once(long("greedy")))
            await arrived(service, before + 10)
            second = await visitor.ask_once(long("greedy"))
            other = asyncio.create_task(visitor.ask_once(long("alice")))
            await arrived(service, before + 20)
        service.resume()
        assert (second.status, second.body) == (429, {"error": "QuotaExhausted", "code": None})
        assert second.retry_after == "1"
        assert [(await task).status for task in (first, other)] == [200, 200]


@pytest.mark.parametrize(
    ("endpoint", "urls", "method", "modest"),
    [
        ("get_c2c_unread_msg_num", unread, "GET", "/users/alice/unread?peer=bob"),
        ("get_group_msg_receipt", receipts, "GET", "/groups/%40TGS%23public/receipts?seq=1"),
        ("admin_set_msg_read", marks, "POST", "/users/alice/read/bob"),
    ],
)
async def test_one_user_does_not_starve_others(
    app: Program, endpoint: str, urls: Callable[[], Iterator[str]], method: str, modest: str
) -> None:
    """At a saturated endpoint, at most one call of the greedy user is ahead of the others, which are answered.

    Alerts slow the endpoint down, so that a busy machine can saturate it.
    """
    alert = {"ServiceName": "any", "Command": endpoint, "Request": 800, "Limit": 200}
    async with aiohttp.ClientSession(app.url, connector=aiohttp.TCPConnector(limit=0)) as session:
        visitor = Visitor(session)
        async with greed(visitor, method, urls()):
            queues: list[dict[str, int]] = []
            async with asyncio.timeout(PATIENCE):
                while sum(queue["bulk"] > 0 for queue in queues) < 10:
                    figures = (await visitor.ask_once("/stats")).body[endpoint]
                    queues.append(figures["queue"])
                    if figures["rate"] > 100:
                        slower = await visitor.ask_once("/webhook", "POST", params=signed(ALERT), json=alert)
                        assert slower.status == 200
            answers = [await visitor.ask_once(modest, method) for _ in range(20)]
        assert max(queue["interactive"] for queue in queues) <= 1
        # Not all: a call also fails if the machine pauses for 0.1 s.
        assert sum(answer.status == 200 for answer in answers) >= 10
