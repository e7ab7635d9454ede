"""Single calls through a client: stats, lanes, pauses, and the texts of errors, remedies and log lines."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings

import pytest

from tim_async import APIError, Attempt, ClientClosed, Lane, QuotaExhausted, RetryPolicy, TIMClient
from tim_async._limiter.local import Permit
from tim_async._limiter.queue import RequestQueue
from tim_async.errors import CODES, brief

from .stand_in import APP, AT_ONCE, JSON, KEY, OTHER, Fate, Reply, StandIn, client_of, error, failure_of, page

NAME = "get_c2c_unread_msg_num"
SET = "set_unread_msg_num"


@pytest.mark.parametrize("code", [60026, 70016, 70020])
async def test_the_remedy_for_a_wrong_region(service: StandIn, code: int) -> None:
    service.script.append(error(code, "no"))
    async with client_of(service) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, APIError)
    remedy = f"The host was {service.url}: check the SDKAppID {APP}, and set the region that the console shows for it."
    assert failure.remedy == remedy
    assert str(failure) == f"{NAME}: error {code}: no. {failure.meaning} {remedy}"


async def test_the_remedy_for_a_command_that_may_not_exist(service: StandIn) -> None:
    """A known command, with or without a method, has the code's own remedy."""
    service.answer = lambda _: error(60008, "late")
    async with client_of(service, retry=RetryPolicy(attempts=1)) as tim:
        failures = [
            await failure_of(tim.call("v4/openim/sendmsgg", {})),
            await failure_of(tim.call(OTHER, {})),
            await failure_of(tim.get_all_c2c_unread_msg_num("alice")),
        ]
    said = (
        "Check the spelling of v4/openim/sendmsgg: the service gives the same code for a command that does not exist."
    )
    assert [getattr(failure, "remedy", None) for failure in failures] == [
        said,
        CODES[60008].remedy,
        CODES[60008].remedy,
    ]


async def test_the_error_of_a_closed_client(service: StandIn) -> None:
    async with client_of(service) as tim:
        pass
    with pytest.raises(ClientClosed) as raised:
        await tim.get_all_c2c_unread_msg_num("alice")
    assert str(raised.value) == f"{NAME}: the client is closed"
    assert (raised.value.endpoint, raised.value.attempts) == (NAME, 0)


async def test_the_warning_of_an_unclosed_client(service: StandIn) -> None:
    tim = TIMClient(sdk_app_id=APP, secret_key=KEY, base_url=service.url, identifier="boss")
    await tim.get_all_c2c_unread_msg_num("alice")
    transport = tim._caller._transport
    with warnings.catch_warnings(record=True, action="always") as warned:
        del tim
        gc.collect()
    text = f"unclosed client {APP} as 'boss' at {service.url}: use `async with`, or await its aclose()"
    (warning,) = [each for each in warned if str(each.message) == text]
    assert warning.category is ResourceWarning
    assert warning.source is not None, "`python -X tracemalloc` shows where the client was made"
    await transport.aclose()


async def test_attempts_are_logged_at_debug(service: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """With the times that hooks get."""
    caplog.set_level(logging.DEBUG, "tim_async")
    service.script.extend([error(10002, "busy"), error(10003, "no")])
    seen: list[Attempt] = []
    async with client_of(service, on_attempt=seen.append) as tim:
        await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
        await tim.get_all_c2c_unread_msg_num("alice")
    lines = [record.getMessage() for record in caplog.records if record.name == "tim_async"]
    ended = ("attempt 1: error 10002: busy", "attempt 2: error 10003: no", "attempt 1: done")
    for line, end, attempt in zip(lines, ended, seen, strict=True):
        times = f"waited {1000 * attempt.waited:.1f} ms, took {1000 * attempt.took:.1f} ms"
        assert line == f"{NAME}: {end} ({times})"


async def test_only_an_answer_tells_when_a_call_arrived(service: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it says.  The limiter is told; on a socket, all that comes of it is a few calls more or less."""
    told: list[bool] = []
    leave = RequestQueue.leave

    def recorded(queue: RequestQueue, permit: Permit, *, answered: bool) -> float:
        told.append(answered)
        return leave(queue, permit, answered=answered)

    monkeypatch.setattr(RequestQueue, "leave", recorded)
    service.script.extend([Fate.DROP, error(10002), page(502)])
    async with client_of(service, retry=RetryPolicy(attempts=4, wait=(0, 0))) as tim:
        await tim.get_all_c2c_unread_msg_num("alice")
    assert told == [False, True, True, True]


async def test_stats_sum_up_the_waits_of_attempts(service: StandIn) -> None:
    """They have the longest one, too."""
    seen: list[Attempt] = []
    async with client_of(service, rates={SET: 5}, on_attempt=seen.append) as tim:
        service.script.extend([error(10002)] * 2)
        await asyncio.gather(*(tim.set_unread_msg_num("g", "alice", n) for n in range(7)))
        waits = tim.stats()[SET].waits
    assert waits.count == len(seen) == 9
    assert waits.total == pytest.approx(sum(attempt.waited for attempt in seen))
    assert waits.longest == max(attempt.waited for attempt in seen) > 0.5
    assert {attempt.lane for attempt in seen} == {Lane.INTERACTIVE}
    assert sorted(attempt.number for attempt in seen) in ([1] * 7 + [2, 2], [1] * 7 + [2, 3])
    assert all(attempt.took < 5.0 for attempt in seen)


async def test_a_call_without_a_permit_counts_as_exhausted_unless_the_service_failed_it(service: StandIn) -> None:
    service.script.extend([error(10002, "busy"), Fate.HOLD])
    async with client_of(service, rates={SET: 1}, retry=AT_ONCE) as tim:
        hurried = tim.with_options(max_wait=0)
        failed = await failure_of(hurried.set_unread_msg_num("g", "alice", 1))
        assert (brief(failed), type(failed.__cause__)) == (f"{SET}: error 10002: busy", QuotaExhausted)
        assert tim.stats()[SET].exhausted == 0
        held = asyncio.create_task(tim.set_unread_msg_num("g", "alice", 1))
        await service.until(2)
        refused = await failure_of(hurried.set_unread_msg_num("g", "alice", 1))
        assert isinstance(refused, QuotaExhausted)
        assert refused.attempts == 0
        assert str(refused) == f"{SET}: no permit within max_wait; try again in 1 s"
        assert tim.stats()[SET].exhausted == 1
        held.cancel()
        await asyncio.wait([held])


async def test_retry_after_of_a_transient_error_pauses_the_endpoint(service: StandIn) -> None:
    """That of a success does not; the rate is not lowered."""
    loop = asyncio.get_running_loop()
    service.script.extend(
        [
            Reply(b'{"ErrorCode":0,"AllC2CUnreadMsgNum":7}', 200, (*JSON, ("Retry-After", "60"))),
            Reply(b'{"ErrorCode":10002,"ErrorInfo":""}', 503, (*JSON, ("Retry-After", "1"))),
        ]
    )
    async with client_of(service) as tim:
        await tim.get_all_c2c_unread_msg_num("alice")
        begin = loop.time()
        await tim.get_all_c2c_unread_msg_num("alice")
        assert 1.0 <= loop.time() - begin < 30.0
        assert tim.stats()[NAME].refusals == 0
        assert tim.stats()[NAME].rate == 200


async def test_a_retry_precedes_waiting_first_attempts(service: StandIn) -> None:
    service.script.append(error(10002))
    async with client_of(service, rates={SET: 1}) as tim:
        calls = [asyncio.create_task(tim.set_unread_msg_num("g", "alice", number)) for number in range(3)]
        await service.until(2)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    assert [body["UnreadMsgNum"] for body in service.bodies] == [0, 0]
