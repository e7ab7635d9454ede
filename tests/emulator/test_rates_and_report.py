"""The rate limit over HTTP, and the report of a run."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from tim_async.emulator import Emulator, WindowKind

from .support import C2C_UNREAD, MARK_READ, Caller, Clock

BODY = {"To_Account": "administrator"}
MARK = {"Report_Account": "administrator", "Peer_Account": "administrator"}


@pytest.mark.parametrize("window", ["sliding", "calendar", "bucket"])
async def test_calls_over_the_limit_are_refused_until_a_second_has_passed(
    call: Caller, clock: Clock, window: WindowKind
) -> None:
    async with Emulator(limit=3, window=window, clock=clock) as service:
        caller = Caller(service, call.session)
        assert [await caller.code(C2C_UNREAD, BODY) for _ in range(5)] == [0, 0, 0, 60007, 60007]
        clock.now += 1
        assert await caller.code(C2C_UNREAD, BODY) == 0


async def test_each_endpoint_has_its_own_limit_and_the_code_is_an_option(call: Caller, clock: Clock) -> None:
    limits = {"get_c2c_unread_msg_num": 1, "admin_set_msg_read": None}
    async with Emulator(limit=limits, rate_code=60011, clock=clock) as service:
        caller = Caller(service, call.session)
        assert [await caller.code(C2C_UNREAD, BODY) for _ in range(2)] == [0, 60011]
        assert {await caller.code(MARK_READ, MARK) for _ in range(250)} == {0}


async def test_a_refused_call_changes_nothing(call: Caller, clock: Clock) -> None:
    async with Emulator(limit=1, clock=clock) as service:
        caller = Caller(service, call.session)
        service.state.add_messages("administrator", "b", 2)
        await caller.code(MARK_READ, MARK)
        assert await caller.code(MARK_READ, MARK | {"Peer_Account": "b"}) == 60007
        assert service.state.unread("administrator") == 2


async def test_a_faulty_answer_counts_towards_the_rate(call: Caller, clock: Clock) -> None:
    async with Emulator(limit=2, clock=clock) as service:
        service.fault(code=10002, times=2)
        caller = Caller(service, call.session)
        assert [await caller.code(C2C_UNREAD, BODY) for _ in range(3)] == [10002, 10002, 60007]


async def test_the_report_adds_up(call: Caller, clock: Clock) -> None:
    async with Emulator(limit=3, clock=clock) as service:
        caller = Caller(service, call.session)
        service.fault(code=10002, times=1)
        service.fault(drop="after", times=1)
        assert await caller.code(C2C_UNREAD, BODY) == 10002
        with pytest.raises(aiohttp.ClientError):
            await caller.code(C2C_UNREAD, BODY)
        codes = [await caller.code(C2C_UNREAD, BODY) for _ in range(2)]
        assert codes == [0, 60007]
        clock.now += 2
        assert await caller.code(C2C_UNREAD, BODY) == 0
        assert await caller.code(MARK_READ, {}) == 90008
        assert await caller.code("v4/no/such", {}) == 60008
        report = service.report()
    seen = report.endpoints["get_c2c_unread_msg_num"]
    assert (seen.calls, seen.succeeded, seen.refused, seen.retried) == (5, 2, 1, 3)
    assert (seen.fullest_sliding_second, seen.fullest_calendar_second) == (4, 4)
    assert (seen.seconds, seen.calls_per_second) == (2.0, 2.0)
    assert seen.codes == {10002: 1, 60007: 1}
    assert seen.faults == {"code 10002": 1, "dropped after": 1}
    assert report.endpoints["v4/no/such"].codes == {60008: 1}
    assert (report.total.calls, report.total.refused) == (7, 1)
    json.dumps(report.as_dict())


@pytest.mark.parametrize(
    ("calls", "retried"),
    [
        ([({"a": 1}, 0), ({"a": 1}, 0)], 0),
        ([({"a": 1}, 10002), ({"a": 2}, 0)], 0),
        ([({"a": 1, "b": 2}, 10002), ({"b": 2, "a": 1}, 0), ({"a": 1, "b": 2}, 0)], 1),
        ([({"a": 1}, None), ({"a": 1}, 10002), ({"a": 1}, 0)], 2),
        ([({"a": 1}, 10002), ({"a": 1}, 0), ({"a": 1}, 0)], 1),
        # Two that failed, and each was repeated.
        ([({"a": 1}, 10002), ({"b": 1}, 10002), ({"a": 1}, 0), ({"b": 1}, 0), ({"b": 1}, 0)], 2),
        # A client pins the read time when it repeats a call.
        ([({"a": 1}, 10002), ({"a": 1, "MsgReadTime": "5"}, 10002), ({"a": 1, "MsgReadTime": "5"}, 0)], 2),
    ],
)
async def test_a_call_is_a_retry_only_if_the_same_call_failed_before_it(
    call: Caller, calls: list[tuple[dict[str, Any], int | None]], retried: int
) -> None:
    for fields, code in calls:
        body = {"To_Account": "administrator", **fields}
        if code is None:
            call.service.fault(drop="before", times=1)
            with pytest.raises(aiohttp.ClientError):
                await call.code(C2C_UNREAD, body)
        else:
            if code:
                call.service.fault(code=code, times=1)
            assert await call.code(C2C_UNREAD, body) == code
    assert call.service.report().total.retried == retried


def test_an_empty_report_is_all_zeros() -> None:
    report = Emulator().report()
    assert report.endpoints == {}
    assert (report.total.calls, report.total.calls_per_second) == (0, 0.0)
