"""Starting and stopping: nothing is left behind, whatever was in progress."""

from __future__ import annotations

import asyncio
import gc
import math
import re
import socket
import threading
import traceback
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tim_async.emulator import Emulator

from .support import C2C_UNREAD, Caller, Clock, arrived, request_in_flight

BODY = {"To_Account": "administrator"}


def accepts_connections(url: str) -> bool:
    parts = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((parts.hostname, parts.port)) == 0


async def test_leaves_no_task_and_no_socket_with_keep_alive_connections_open(clock: Clock) -> None:
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as session:
        async with Emulator(clock=clock) as service:
            url = service.url
            await asyncio.gather(*(Caller(service, session).code(C2C_UNREAD, BODY) for _ in range(10)))
        assert not accepts_connections(url)
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("hold", ["stall", "delay"])
async def test_does_not_wait_for_calls_that_are_being_held(clock: Clock, hold: str) -> None:
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as session:
        async with Emulator(clock=clock) as service:
            if hold == "stall":
                service.stall(3600.0)
            else:
                service.fault(delay=3600.0)
            waiting = asyncio.create_task(Caller(service, session).code(C2C_UNREAD, BODY))
            await arrived(service)
        with pytest.raises(aiohttp.ClientError):
            await waiting
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("body", [b"{", b"{}        "], ids=["half a body", "a body, and latency"])
async def test_does_not_wait_for_requests_that_have_not_arrived(body: bytes) -> None:
    before = asyncio.all_tasks()
    async with Emulator(latency=3600.0) as service:
        reader, writer = await request_in_flight(service, 10)
        writer.write(body)
        other_reader, other_writer = await request_in_flight(service, 10)  # so the body was received
    assert service.report().total.calls == 0
    for ended, connection in ((reader, writer), (other_reader, other_writer)):
        assert await ended.read() == b""
        connection.close()
        await connection.wait_closed()
    assert asyncio.all_tasks() == before


async def test_does_not_leak_a_connection_made_at_the_last_moment() -> None:
    for turns in range(6):
        async with Emulator() as service:
            assert accepts_connections(service.url)
            for _ in range(turns):
                await asyncio.sleep(0)
    # Anything left open warns when collected, and warnings are errors.
    gc.collect()


async def test_a_start_that_is_cancelled_leaves_nothing_open() -> None:
    before = asyncio.all_tasks()
    for turns in range(4):
        service = Emulator()
        starting = asyncio.create_task(service.__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        cancelled = starting.cancel()
        await asyncio.wait([starting])
        if not cancelled:
            await service.__aexit__()
        assert repr(service) == "<Emulator not running>"
    assert asyncio.all_tasks() == before
    gc.collect()


async def test_keeps_its_state_and_report_and_can_be_run_again(clock: Clock) -> None:
    service = Emulator(clock=clock)
    for run in (1, 2):
        async with service, aiohttp.ClientSession() as session:
            assert await Caller(service, session).code(C2C_UNREAD, BODY) == 0
        assert service.report().total.calls == run


def test_can_be_made_in_one_loop_after_another() -> None:
    async def once() -> int:
        async with Emulator(clock=Clock()) as service, aiohttp.ClientSession() as session:
            return await Caller(service, session).code(C2C_UNREAD, BODY)

    assert [asyncio.run(once()) for _ in range(2)] == [0, 0]


async def test_is_not_entered_twice() -> None:
    async with Emulator() as service:
        with pytest.raises(RuntimeError, match="already"):
            await service.__aenter__()
        with pytest.raises(RuntimeError, match="already"):
            service.__enter__()
        assert accepts_connections(service.url)


async def test_a_port_that_is_taken_is_an_os_error_that_names_it_and_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    async with Emulator() as service:
        taken = urlsplit(service.url).port
        assert taken is not None
        other = Emulator(port=taken)
        named = re.escape(f"('127.0.0.1', {taken})")
        with pytest.raises(OSError, match=named):
            await other.__aenter__()
        with pytest.raises(OSError, match=named):
            other.__enter__()
    assert asyncio.all_tasks() == before
    async with other:
        assert other.url == f"http://127.0.0.1:{taken}"


def test_in_a_thread_it_leaves_no_thread() -> None:
    before = threading.enumerate()
    with Emulator() as service:
        assert accepts_connections(service.url)
        url = service.url
    assert not accepts_connections(url)
    assert threading.enumerate() == before


def test_reports_that_it_is_not_running_and_never_shows_its_key() -> None:
    service = Emulator(secret_key="a-secret")
    with pytest.raises(RuntimeError, match="not running"):
        service.client_options()
    assert "a-secret" not in repr(service)


def test_repr_works_after_refused_options() -> None:
    """Crash reporters show the locals of every frame of a traceback."""
    with pytest.raises(ValueError, match="no such endpoint") as caught:
        Emulator(secret_key="a-secret", limit={"nothing": 1})
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    shown = [repr(value) for frame in frames for value in frame.f_locals.values() if isinstance(value, Emulator)]
    assert shown == ["<Emulator not running>"]


@pytest.mark.parametrize(
    "option",
    [
        {"port": 65536},
        {"port": -1},
        {"sdk_app_id": "1400000000"},
        {"sdk_app_id": True},
        {"sdk_app_id": 0},
        {"secret_key": ""},
        {"secret_key": b"a-secret"},
        {"admins": ()},
        {"admins": ""},
        {"admins": ["root", ""]},
        {"limit": math.nan},
        {"bucket_capacity": math.nan},
        {"max_msg_seqs": 0},
        {"max_receipt_members": -1},
        {"contacts_per_page": 0},
        *({name: value} for name in ("latency", "jitter") for value in (-1.0, math.nan, math.inf)),
        {"clock": 1_700_000_000.0},
    ],
    ids=str,
)
def test_options_that_no_call_could_pass_are_refused_at_once(option: dict[str, Any]) -> None:
    """The error names the option; otherwise calls would fail or wait without a hint at it."""
    with pytest.raises(ValueError, match=" must ") as caught:
        Emulator(**option)
    assert "a-secret" not in str(caught.value)


def test_provides_the_options_of_a_client() -> None:
    with Emulator() as service:
        assert service.client_options() == {
            "base_url": service.url,
            "sdk_app_id": service.sdk_app_id,
            "secret_key": service.secret_key,
            "identifier": "administrator",
        }
