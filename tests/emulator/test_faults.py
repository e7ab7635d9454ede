"""Injected faults: the caller's view, the effect on the state, and the calls affected."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

import aiohttp
import pytest

from tim_async.emulator import Emulator, Fault

from .support import C2C_UNREAD, NOW, SET_UNREAD, Caller, arrived, emulator, query, request_in_flight

BODY = {"GroupId": "g", "Member_Account": "a", "UnreadMsgNum": 5}


@pytest.fixture(autouse=True)
def filled(service: Emulator) -> None:
    service.state.add_group("g", messages=50, members=["a"])


def kept(call: Caller) -> int:
    return call.service.state.unread_in_group("g", "a")


async def test_a_code_is_answered_and_nothing_is_changed(call: Caller) -> None:
    call.service.fault(code=10002, times=1)
    assert await call.code(SET_UNREAD, BODY) == 10002
    assert kept(call) == 0
    assert await call.code(SET_UNREAD, BODY) == 0
    assert kept(call) == 5


async def test_a_status_is_answered_with_a_gateways_page(call: Caller) -> None:
    call.service.fault(status=502, retry_after=3)
    async with call.session.post(f"{call.service.url}/{SET_UNREAD}", json=BODY, params=query()) as response:
        assert response.status == 502
        assert response.content_type == "text/html"
        assert response.headers["Retry-After"] == "3"
        assert "<html>" in await response.text()
    assert kept(call) == 0


async def test_any_bytes_can_be_the_answer_under_any_status(call: Caller) -> None:
    for body in (b"", b"null", b"\xff\x00", b'{"ErrorCode":'):
        call.service.fault(body=body, times=1)
        assert await call.raw(SET_UNREAD, b"{}") == (200, body)
    call.service.fault(status=429, body=b"slow down")
    assert await call.raw(SET_UNREAD, b"{}") == (429, b"slow down")
    faults = call.service.report().total.faults
    assert faults == {"empty body": 1, "body": 3, "status 429": 1}


@pytest.mark.parametrize(
    ("fault", "number"), [({"drop": "before"}, 0), ({"drop": "after"}, 5), ({"truncate": True}, 5)]
)
async def test_a_dropped_answer_leaves_the_change_made_or_not_made_as_chosen(
    call: Caller, fault: dict[str, Any], number: int
) -> None:
    call.service.fault(times=1, **fault)
    with pytest.raises(aiohttp.ClientError):
        await call.code(SET_UNREAD, BODY)
    assert kept(call) == number
    assert await call.code(SET_UNREAD, BODY) == 0


async def test_a_truncated_answer_begins_as_the_whole_would(call: Caller) -> None:
    call.service.fault(truncate=True)
    async with call.session.post(f"{call.service.url}/{SET_UNREAD}", json=BODY, params=query()) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_caller_that_has_disconnected_is_not_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async with Emulator(limit=None) as service:
        service.fault(drop="before")
        service.stall(3600.0)
        _, writer = await request_in_flight(service, 2)
        writer.write(b"{}")
        await arrived(service)
        writer.close()
        await writer.wait_closed()
        service.resume()
        async with aiohttp.ClientSession() as session:
            service.clear_faults()
            await Caller(service, session).code(C2C_UNREAD, {})
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_delayed_call_is_executed_before_the_delay(call: Caller) -> None:
    call.service.fault(delay=3600.0)
    waiting = asyncio.create_task(call.code(SET_UNREAD, BODY))
    while kept(call) != 5:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_fault_of_one_endpoint_leaves_the_others_alone(call: Caller) -> None:
    call.service.fault(code=91000, endpoint="set_unread_msg_num")
    assert await call.code(SET_UNREAD, BODY) == 91000
    assert await call.code(C2C_UNREAD, {"To_Account": "a"}) == 0


async def test_during_a_stall_calls_arrive_and_are_executed_but_not_answered(call: Caller) -> None:
    call.service.stall(3600.0)
    waiting = asyncio.create_task(call.code(SET_UNREAD, BODY))
    await arrived(call.service)
    assert not waiting.done()
    assert kept(call) == 5
    call.service.resume()
    assert await waiting == 0


async def test_latency_and_jitter_lose_no_call(call: Caller) -> None:
    async with Emulator(latency=0.001, jitter=0.3, limit=None, clock=lambda: float(NOW)) as service:
        caller = Caller(service, call.session)
        service.state.add_account("a")
        codes = await asyncio.gather(*(caller.code(C2C_UNREAD, {"To_Account": "a"}) for _ in range(50)))
    assert codes == [0] * 50
    assert service.report().total.succeeded == 50


def test_the_same_seed_chooses_the_same_calls() -> None:
    def chosen(seed: int) -> list[int]:
        with emulator(seed=seed) as caller:
            caller.service.fault(code=10002, probability=0.5)
            return [caller.code(C2C_UNREAD, {"To_Account": "administrator"}) for _ in range(100)]

    first = chosen(1)
    assert first == chosen(1)
    assert first != chosen(2)
    assert 20 < first.count(10002) < 80


async def test_faults_apply_in_the_order_they_were_added_until_each_is_used_up(call: Caller) -> None:
    for code, times in ((10002, 2), (91000, 1)):
        call.service.fault(code=code, times=times)
    assert [await call.code(SET_UNREAD, BODY) for _ in range(4)] == [10002, 10002, 91000, 0]


async def test_a_fault_that_contradicts_itself_is_refused(service: Emulator) -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {},
        {"code": 1, "status": 500},
        {"status": 500, "drop": "after"},
        {"body": b"", "truncate": True},
        {"drop": "before", "truncate": True},
        {"drop": "during"},
        {"code": 1, "probability": 0.0},
        {"code": 1, "probability": 1.5},
        {"code": 1, "times": 0},
        {"delay": -1.0},
        {"code": 1, "endpoint": "no_such_method"},
        {"delay": math.nan},
        {"delay": math.inf},
        {"status": 100},
    )
    for fault in wrong:
        with pytest.raises(ValueError):
            service.fault(**fault)


def test_the_faults_of_an_emulator_can_be_read_and_removed_one_by_one() -> None:
    """Clearing removes the first of equal faults; a fault with a number of times is gone after them."""
    service = Emulator()
    first, second = service.fault(code=10002, times=1), service.fault(status=502)
    service.fault(code=10002, times=1)
    assert [*service.faults] == [first, second, first]
    service.clear_faults(first)
    assert [*service.faults] == [second, first]
    service.clear_faults(Fault(code=60007))
    assert [*service.faults] == [second, first]
    service.clear_faults()
    assert [*service.faults] == []
