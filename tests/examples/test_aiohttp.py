"""The aiohttp.web example, started as its docstring shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from tests.store import Store, free_port
from tim_async import ClientClosed, QuotaExhausted, ServerBusy
from tim_async.emulator import Emulator
from tim_async.examples.aiohttp_app import TIM, client, failures

from .routes import READ, Routes, Visitor, fill, signed
from .serving import TOKEN, Program, environment


def program(folder: Path, service: Emulator, store: str, **more: str) -> Program:
    port = free_port()
    return Program(
        folder / "log",
        *("-W", "error", "-m", "tim_async.examples.aiohttp_app"),
        env=environment(service, store, PORT=str(port), **more),
        url=f"http://127.0.0.1:{port}",
    )


@pytest.fixture(scope="module")
def service() -> Iterator[Emulator]:
    with Emulator() as running:
        fill(running)
        yield running


@pytest.fixture(scope="module")
def app(service: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The app for most tests; at the end, its log must have no error."""
    folder = tmp_path_factory.mktemp("aiohttp")
    with Store(folder / "valkey") as store, program(folder, service, store.url, TIM_WEBHOOK_TOKEN=TOKEN) as running:
        yield running
        assert running.end() == []


@pytest.mark.processes
class TestAiohttp(Routes):
    """The tests of both apps."""


async def test_a_retry_without_a_permit() -> None:
    """A transient error whose retry gets no permit is a 429, with ``Retry-After`` in whole seconds."""

    async def handler(_: web.Request) -> web.StreamResponse:
        raise ServerBusy(10002, "secret") from QuotaExhausted("no permit within max_wait", 2.5)

    answer = await failures(make_mocked_request("GET", "/"), handler)
    assert isinstance(answer, web.Response)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
    assert answer.text == '{"error": "ServerBusy", "code": 10002}'


async def test_the_client_ends_with_the_app(service: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clean-up context closes the client."""
    for name, value in environment(service, "").items():
        monkeypatch.setenv(name, value)
    app = web.Application()
    async with asynccontextmanager(client)(app):
        tim = app[TIM]
        assert await tim.get_all_c2c_unread_msg_num("alice") == 5
    with pytest.raises(ClientClosed, match="closed"):
        await tim.get_all_c2c_unread_msg_num("alice")


async def test_without_a_token_every_webhook_is_refused(service: Emulator, tmp_path: Path) -> None:
    """Without a store everything else works: a single process may use the whole rate."""
    with program(tmp_path, service, "") as running:
        async with aiohttp.ClientSession(running.url) as session:
            visitor = Visitor(session)
            query = signed("C2C.CallbackAfterMsgReport")
            assert (await visitor.ask("/webhook", "POST", params=query, json=READ)).status == 403
            assert (await visitor.ask("/users/alice/unread")).body == 5
            assert (await visitor.ask("/stats")).body["get_c2c_unread_msg_num"]["shared"] is False
        assert running.end() == []


async def test_a_body_that_cannot_be_decoded(service: Emulator, tmp_path: Path) -> None:
    """It is the sender's mistake.  aiohttp logs it as an error of its parser, so the test ignores this app's log."""
    with program(tmp_path, service, "", TIM_WEBHOOK_TOKEN=TOKEN) as running:
        async with aiohttp.ClientSession(running.url) as session:
            answer = await Visitor(session).ask_once(
                "/webhook",
                "POST",
                params=signed("C2C.CallbackAfterMsgReport"),
                data=b"no gzip",
                headers={"Content-Encoding": "gzip"},
            )
            assert (answer.status, answer.body) == (400, {"error": "RequestPayloadError", "code": None})
