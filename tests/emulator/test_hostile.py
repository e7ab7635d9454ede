"""Hostile requests: each is answered as the service would, and none by a traceback."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hypotheses import at_most
from tests.stand_in import FIELDS, METHODS
from tim_async.emulator import Emulator

from .support import (
    C2C_UNREAD,
    NOW,
    SET_UNREAD,
    BlockingCaller,
    Caller,
    emulator,
    query,
    request_in_flight,
)

BODY = b'{"To_Account":"administrator"}'

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -(10**30), 2**63, 2**63 - 1, 10**4000]),
    st.floats(),
    st.text(),
    st.sampled_from(["", "alice", "bob", "g", "\ud800", "\x1b[2J", "9" * 5000, str(NOW)]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.sampled_from(["MsgSeq", "Type", "x"]), inner),
    max_leaves=20,
)
NAMES = sorted({name for fields in FIELDS.values() for name in fields})
FIRST_PAGE = {"Cursor": "", "TimeStamp": 0, "StartIndex": 0, "TopTimeStamp": 0, "TopStartIndex": 0}
WELL_FORMED = {
    method.path.lstrip("/"): {name: FIRST_PAGE.get(name, value) for name, value in method.body.items()}
    for method in METHODS
}
"""A request of each command that the client has a method for."""


@pytest.fixture
def caller() -> Iterator[BlockingCaller]:
    with emulator() as caller:
        caller.state.add_messages("alice", "bob", 3)
        caller.state.add_group("@TGS#1", messages=7, members=["alice"])
        caller.state.add_receipt("@TGS#1", 7, readers=["alice"])
        yield caller


def test_a_body_of_any_values_is_answered_by_a_code(caller: BlockingCaller, caplog: pytest.LogCaptureFixture) -> None:
    """The answer is HTTP 200 and a JSON object with an ErrorCode."""

    @at_most(50)
    @given(
        st.sampled_from([*WELL_FORMED]),
        st.booleans(),
        st.dictionaries(st.sampled_from(NAMES), VALUES),
    )
    def check(path: str, mostly_well_formed: bool, values: dict[str, Any]) -> None:
        caller.code(path, {**WELL_FORMED[path], **values} if mostly_well_formed else values)

    for path, body in WELL_FORMED.items():
        assert caller.code(path, body) == 0
    caller.service.fault(code=10002, probability=0.1)  # so that bodies are compared with failed ones
    check()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    json.dumps(caller.service.report().as_dict())


def test_each_required_field_is_required_and_its_type_is_checked(caller: BlockingCaller) -> None:
    """Without it, or with a value of another type, no request succeeds."""
    for path, fields in FIELDS.items():
        body = WELL_FORMED[path.lstrip("/")]
        for name, (kind, required) in fields.items():
            rest = {other: value for other, value in body.items() if other != name}
            assert (caller.code(path.lstrip("/"), rest) != 0) == required, (path, name)
            wrong: tuple[Any, ...] = (None, True, 1.5, {}, 7 if kind is not int else "7")
            for value in wrong:
                assert caller.code(path.lstrip("/"), {**rest, name: value}) != 0, (path, name, value)


async def test_deep_nesting_is_read_or_refused(call: Caller) -> None:
    for depth in (900, 980, 990, 1000, 100_000):
        call.service.fault(code=10002, times=1)
        body = b'{"To_Account":"administrator","x":' + b"[" * depth + b"]" * depth + b"}"
        assert (await call.raw(C2C_UNREAD, body))[0] == 200
        status, answer = await call.raw(C2C_UNREAD, body)
        assert (status, json.loads(answer)["ErrorCode"] in {0, 60003}) == (200, True)


async def test_a_number_beyond_64_bits_is_refused(call: Caller) -> None:
    call.service.state.add_group("g", messages=5, members=["a"])
    body = {"GroupId": "g", "Member_Account": "a"}
    assert await call.code(SET_UNREAD, {**body, "UnreadMsgNum": 2**63 - 1}) == 0
    assert await call.code(SET_UNREAD, {**body, "UnreadMsgNum": 2**63}) == 10004
    assert await call.code(SET_UNREAD, {**body, "UnreadMsgNum": 10**30}) == 10004


async def test_a_body_of_megabytes_is_refused(call: Caller) -> None:
    for size in (2 << 20, 20_000_000):
        data = io.BytesIO(b"x" * size)
        async with call.session.post(f"{call.service.url}/{C2C_UNREAD}", data=data, params=query()) as response:
            assert (response.status, (await response.json())["ErrorCode"]) == (200, 93000)


async def test_a_compressed_body_is_no_json(call: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """It is not decompressed, so its size does not matter."""
    url = f"{call.service.url}/{C2C_UNREAD}"
    for data in (gzip.compress(BODY), b"no gzip"):
        async with call.session.post(url, data=data, params=query(), headers={"Content-Encoding": "gzip"}) as response:
            assert (response.status, (await response.json())["ErrorCode"]) == (200, 60003)
    assert caplog.records == []


async def test_a_caller_that_waits_for_100_continue_receives_it(call: Caller) -> None:
    """curl does so before a long body; aiohttp's client would wait forever."""
    async with asyncio.timeout(60):
        async with call.session.post(
            f"{call.service.url}/{C2C_UNREAD}", data=BODY, params=query(), expect100=True
        ) as response:
            assert (response.status, (await response.json())["ErrorCode"]) == (200, 0)


async def test_a_truncated_body_is_no_error_of_the_emulator(caplog: pytest.LogCaptureFixture) -> None:
    async with Emulator() as service:
        _, writer = await request_in_flight(service, 100)
        writer.write(b"{")
        writer.close()
        await writer.wait_closed()
        async with aiohttp.ClientSession() as session:
            await Caller(service, session).code(C2C_UNREAD, {})
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_headers_do_not_change_the_answer(call: Caller) -> None:
    """The client's own headers are among them; the answer is never compressed."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "tim_async/0.1", "X-Any": "x" * 4000}
    async with aiohttp.ClientSession(headers={"Accept-Encoding": "gzip"}) as session:
        for more in ({}, headers):
            url = f"{call.service.url}/{C2C_UNREAD}"
            async with session.post(url, data=BODY, params=query(), headers=more) as response:
                assert (response.status, (await response.json())["ErrorCode"]) == (200, 0)
                assert "Content-Encoding" not in response.headers


async def test_a_fault_answers_any_code(call: Caller) -> None:
    """So a test can check a client's reaction to a code that no service has."""
    codes = (10**30, -1, 2**31)
    for code in codes:
        call.service.fault(code=code, times=1)
        assert await call.code(C2C_UNREAD, {"To_Account": "administrator"}) == code
    assert call.service.report().total.codes == dict.fromkeys(codes, 1)
