"""The counts of the server, the callers and both exporters are equal, to the last call."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.stand_in import APP, AT_ONCE, METHODS, Action, Fate, StandIn, client_of, error, page
from tim_async import Failed, QuotaExhausted, RateLimited, RetryPolicy, TIMClient, TIMError
from tim_async.emulator import Emulator

from .exporting import Exporting

COUNT, SET = "get_c2c_unread_msg_num", "set_unread_msg_num"


async def settled(*calls: Any) -> Counter[str]:
    """Await all, and count the types of results and exceptions."""
    return Counter(type(each).__name__ for each in await asyncio.gather(*calls, return_exceptions=True))


async def test_the_exported_counts_equal_the_servers_under_load_and_faults() -> None:
    """With refusals, retries, gateways' pages and lost connections, of two clients at a time."""
    exporting = Exporting()
    retry = RetryPolicy(wait=(0.0, 0.01), wait_rate_limited=(0.0, 0.01))
    async with Emulator(limit={SET: 40, COUNT: None}) as service:
        for number in range(60):
            service.state.add_messages(f"user{number}", "bob", 1)
        service.fault(code=10002, endpoint=COUNT, times=7)
        service.fault(status=502, endpoint=COUNT, times=5)
        service.fault(drop="after", endpoint=COUNT, times=3)
        service.fault(truncate=True, endpoint=COUNT, times=2)
        options: dict[str, Any] = {**service.client_options(), "on_attempt": exporting.hooks, "retry": retry}
        async with TIMClient(**options) as one, TIMClient(**options) as two:
            rows = [("@TGS#1", f"member{number}", number) for number in range(70)]
            async with one.batch.map(one.set_unread_msg_num, rows) as outcomes:
                bulk = [outcome async for outcome in outcomes]
            ended = await settled(
                *(two.get_all_c2c_unread_msg_num(f"user{number}") for number in range(60)),
                *(two.set_unread_msg_num("@TGS#1", f"other{number}", 1) for number in range(20)),
                *(one.lookup.c2c_unread_msg_num("user1", f"user{number}") for number in range(45)),
            )
            statistics = [tim.stats() for tim in (one, two)]
            in_flight = exporting.total("tim.in_flight")
        report = service.report()
    assert len(bulk) == 70
    assert ended.total() == 125
    assert report.total.refused > 0
    for name, seen in report.endpoints.items():
        assert exporting.total("tim.attempt.duration", endpoint=name) == seen.calls
        assert exporting.total("tim.attempt.wait", endpoint=name) == seen.calls
        assert exporting.total("tim.refusals", endpoint=name) == seen.refused
        assert exporting.total("tim.retries", endpoint=name) == sum(each[name].retries for each in statistics) > 0
        for code, answers in seen.codes.items():
            assert exporting.total("tim.attempt.duration", endpoint=name, code=code) == answers
    assert exporting.total("tim.attempt.duration", error="BadResponse") == 7
    assert exporting.total("tim.attempt.duration", error="ConnectionLost") == 3
    assert exporting.total("tim.attempt.duration", lane="bulk") >= 70
    assert len(exporting.spans()) == len(exporting.attempts) == report.total.calls
    assert in_flight == 0
    seen_by_callers = ended + Counter(type(each.error).__name__ for each in bulk if isinstance(each, Failed))
    del seen_by_callers["int"], seen_by_callers["NoneType"]
    assert exporting.total("tim.failures") == seen_by_callers.total() > 0
    for failure, number in seen_by_callers.items():
        assert exporting.total("tim.failures", error=failure) == number


@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_every_request_of_every_method_is_counted_once(service: StandIn, method: Any) -> None:
    """Under the method's name or command, for each way in which an attempt ends."""
    exporting = Exporting()
    answers: list[Action] = [error(10002), error(60007), page(502), page(429), error(70001)]
    service.script.extend([*answers, Fate.DROP_UNREAD, Fate.DROP])
    async with client_of(service, on_attempt=exporting.hooks, retry=AT_ONCE) as tim:
        assert await method.run(tim) == method.result
        stats = tim.stats()[method.endpoint]
    about = {"app": tim.sdk_app_id, "endpoint": method.endpoint, "lane": "interactive"}
    assert exporting.total("tim.attempt.duration", **about) == len(service.seen) == 8
    for code in (0, 10002, 60007, 429, 70001):
        assert exporting.total("tim.attempt.duration", **about, code=code) == 1
    for failure, times in {"BadResponse": 1, "ConnectionLost": 2, "RateLimited": 2}.items():
        assert exporting.total("tim.attempt.duration", **about, error=failure) == times
    assert exporting.total("tim.retries", **about) == stats.retries == 7
    assert exporting.total("tim.refusals", **about) == stats.refusals == 2
    assert stats.in_flight == 0


async def test_cancelled_calls_in_flight_are_counted_as_attempts(service: StandIn) -> None:
    """Calls that wait for a permit are not counted."""
    exporting = Exporting()
    service.answer = lambda _: Fate.HOLD
    async with client_of(service, on_attempt=exporting.hooks, rates={SET: 5}) as tim:
        calls = [asyncio.ensure_future(tim.set_unread_msg_num("@TGS#1", f"m{n}", 1)) for n in range(9)]
        await service.until(5)
        assert exporting.total("tim.in_flight", endpoint=SET) == 5
        assert exporting.total("tim.queued", endpoint=SET, lane="interactive") == 4
        assert exporting.total("tim.queued", endpoint=SET, lane="bulk") == 0
        assert exporting.total("tim.rate") == exporting.total("tim.limit") == 5
        assert (exporting.total("tim.shared"), exporting.total("tim.processes")) == (0, 1)
        for call in calls:
            call.cancel()
        assert await settled(*calls) == {"CancelledError": 9}
        assert exporting.total("tim.in_flight") == exporting.total("tim.queued") == 0
    assert exporting.total("tim.attempt.duration", error="CancelledError") == len(service.seen) == 5
    assert exporting.total("tim.attempt.duration") == len(exporting.spans()) == 5


async def test_the_429s_of_a_web_app_are_counted(service: StandIn) -> None:
    """Also for look-ups, where one call serves many requests, and among other errors."""
    exporting = Exporting()
    routes = web.RouteTableDef()

    async def answer(call: Any) -> web.Response:
        try:
            return web.json_response(await call)
        except (QuotaExhausted, RateLimited):
            return web.Response(status=429)
        except TIMError:
            return web.Response(status=500)

    @routes.get("/one")
    async def one(request: web.Request) -> web.Response:
        return await answer(users.get_all_c2c_unread_msg_num("alice"))

    @routes.get("/lookup/{peer}")
    async def lookup(request: web.Request) -> web.Response:
        return await answer(users.lookup.c2c_unread_msg_num("alice", request.match_info["peer"]))

    @routes.get("/list")
    async def several(request: web.Request) -> web.Response:
        return await answer(counts(users.batch.get_c2c_unread_msg_num("alice", ["bob", "carol"])))

    async def counts(call: Any) -> dict[str, int]:
        return dict((await call).counts)

    app = web.Application()
    app.add_routes(routes)
    paths = [*(f"/lookup/p{number % 40}" for number in range(150)), *["/one"] * 40, *["/list"] * 40]
    async with client_of(service, on_attempt=exporting.hooks, rates={COUNT: 20}) as tim:
        users = tim.with_options(max_wait=0.1, retry=RetryPolicy(attempts=1))
        async with TestServer(app) as server, aiohttp.ClientSession(server.make_url("/")) as browser:

            async def status(path: str) -> int:
                async with browser.get(path) as response:
                    return response.status

            answers = Counter([await status("/one")])
            service.script.extend([error(60007), error(10007), error(60007)])
            answers.update(await asyncio.gather(*map(status, paths)))
        exhausted = tim.stats()[COUNT].exhausted
    assert answers.total() == 1 + len(paths)
    assert answers.keys() == {200, 429, 500}
    failures = functools.partial(_failures, exporting)
    assert failures("QuotaExhausted") == exhausted > 0
    assert failures("QuotaExhausted") + failures("RateLimited") == answers[429]
    assert failures() - answers[429] == answers[500]
    assert exporting.total("tim.attempt.duration") == len(service.seen)


def _failures(exporting: Exporting, failure: str = "") -> float:
    labels = {"error": failure} if failure else {}
    return exporting.total("tim.failures", app=APP, endpoint=COUNT, lane="interactive", **labels)


async def test_a_cancelled_caller_is_not_counted_as_exhausted(service: StandIn) -> None:
    """Only callers that get a `QuotaExhausted` are, of calls and look-ups."""
    exporting = Exporting()
    async with client_of(service, on_attempt=exporting.hooks, rates={COUNT: 2}) as tim:
        impatient = tim.with_options(max_wait=0.01)
        calls = [
            asyncio.ensure_future(call)
            for number in range(60)
            for call in (
                impatient.get_all_c2c_unread_msg_num("alice"),
                impatient.lookup.c2c_unread_msg_num("alice", f"p{number}"),
            )
        ]
        # Some when their error is about to be raised, others in each step of the event loop.
        await asyncio.sleep(0)
        for call in calls[20::4]:
            call.cancel()
        for call in calls[1::6]:
            await asyncio.sleep(0)
            call.cancel()
        ended = await settled(*calls)
        assert tim.stats()[COUNT].exhausted == ended["QuotaExhausted"]
    assert exporting.total("tim.failures") == ended["QuotaExhausted"] > 40
    assert ended["CancelledError"] > 0


async def test_a_merged_batch_counts_each_of_its_calls(service: StandIn) -> None:
    """Four calls without a permit raise one exception."""
    exporting = Exporting()
    async with client_of(service, on_attempt=exporting.hooks, rates={COUNT: 1}) as tim:
        await tim.get_all_c2c_unread_msg_num("alice")
        failed = tim.with_options(max_wait=0.0).batch.get_c2c_unread_msg_num("alice", [f"p{n}" for n in range(40)])
        assert await settled(failed) == {"QuotaExhausted": 1}
    assert exporting.total("tim.failures") == exporting.total("tim.failures", error="QuotaExhausted") == 4


async def test_a_retry_without_a_permit_is_counted_as_the_services_error(service: StandIn) -> None:
    """The caller gets the service's error."""
    exporting = Exporting()
    service.answer = lambda _: error(60007)
    async with client_of(service, on_attempt=exporting.hooks, rates={COUNT: 1}) as tim:
        with pytest.raises(TIMError, match="60007"):
            await tim.with_options(max_wait=0.0).get_all_c2c_unread_msg_num("alice")
    assert exporting.total("tim.failures") == exporting.total("tim.failures", error="RateLimited") == 1
    assert exporting.total("tim.refusals") == len(service.seen) == 1
