"""The fixture, in tests with and without an event loop."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

import tim_async.emulator
from tim_async.emulator import Emulator

from .support import C2C_UNREAD, Caller, query, usersig

pytestmark = pytest.mark.processes


def params() -> dict[str, str]:
    return query(usersig=usersig(issued_at=int(time.time())))


def unread(service: Emulator, account: str) -> Any:
    url = f"{service.url}/{C2C_UNREAD}?{urlencode(params())}"
    request = urllib.request.Request(url, json.dumps({"To_Account": account}).encode())
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def test_serves_a_test_that_runs_no_loop(tim_emulator: Emulator) -> None:
    tim_emulator.state.add_messages("alice", "bob", 3)
    assert unread(tim_emulator, "alice")["AllC2CUnreadMsgNum"] == 3
    tim_emulator.fault(code=10002, times=1)
    assert unread(tim_emulator, "alice")["ErrorCode"] == 10002
    assert tim_emulator.report().total.calls == 2


async def test_serves_a_test_that_runs_a_loop(tim_emulator: Emulator) -> None:
    tim_emulator.state.add_account("alice")
    async with aiohttp.ClientSession() as session:
        assert await Caller(tim_emulator, session).code(C2C_UNREAD, {"To_Account": "alice"}, params()) == 0


def test_starts_empty_in_each_test(tim_emulator: Emulator) -> None:
    assert tim_emulator.report().total.calls == 0
    assert not tim_emulator.state.has_account("alice")


class TestWithOptions:
    @pytest.fixture
    def tim_emulator_options(self) -> dict[str, Any]:
        return {"limit": 1, "window": "calendar"}

    def test_takes_the_options_of_the_test(self, tim_emulator: Emulator) -> None:
        tim_emulator.state.add_account("alice")
        codes = {unread(tim_emulator, "alice")["ErrorCode"] for _ in range(20)}
        assert codes == {0, 60007}


def test_state_can_be_filled_from_many_threads_while_calls_are_served(tim_emulator: Emulator) -> None:
    def fill() -> None:
        for _ in range(200):
            tim_emulator.state.add_messages("alice", "bob")

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    tim_emulator.state.add_account("alice")
    assert unread(tim_emulator, "alice")["ErrorCode"] == 0
    for thread in threads:
        thread.join()
    assert unread(tim_emulator, "alice")["AllC2CUnreadMsgNum"] == 800


def test_every_public_name_is_there_and_no_other() -> None:
    for name in tim_async.emulator.__all__:
        assert getattr(tim_async.emulator, name) is not None
    assert set(tim_async.emulator.__all__) <= set(dir(tim_async.emulator))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vars(tim_async.emulator)["__getattr__"]("nothing")
