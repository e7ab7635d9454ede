"""The FastAPI example under uvicorn with two processes, started as its docstring shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import Request

from tests.store import Store, free_port
from tim_async import ClientClosed, QuotaExhausted, ServerBusy
from tim_async.emulator import Emulator
from tim_async.examples.fastapi_app import app as fastapi_app
from tim_async.examples.fastapi_app import failed, lifespan

from .routes import Routes, Visitor, fill, press
from .serving import TOKEN, Program, environment

pytestmark = pytest.mark.processes

UVICORN = ("-W", "error", "-m", "uvicorn", "tim_async.examples.fastapi_app:app")


def program(
    folder: Path, service: Emulator, workers: int, store: str, *, loop: str = "asyncio", **more: str
) -> Program:
    port = free_port()
    return Program(
        folder / "log",
        *UVICORN,
        *("--workers", str(workers), "--port", str(port), "--loop", loop),
        env=environment(service, store, **more),
        ready=("Application startup complete.", workers),
        url=f"http://127.0.0.1:{port}",
    )


@pytest.fixture(scope="module")
def service() -> Iterator[Emulator]:
    with Emulator() as running:
        fill(running)
        yield running


@pytest.fixture(scope="module")
def app(service: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The app for most tests; at the end, its log must have no error, and SIGTERM ends all processes and clients."""
    folder = tmp_path_factory.mktemp("fastapi")
    with (
        Store(folder / "valkey") as store,
        program(folder, service, 2, store.url, TIM_WEBHOOK_TOKEN=TOKEN) as running,
    ):
        yield running
        assert running.end() == []
        assert running.output.count("Application shutdown complete.") == 2


class TestFastAPI(Routes):
    """The tests of both apps."""

    async def test_the_schema_knows_the_results(self, visitor: Visitor) -> None:
        """The client's own classes are the response models."""
        answer = await visitor.ask("/openapi.json")
        assert answer.status == 200
        results = {
            path: answer.body["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            for path in ("/users/{user}/unread", "/groups/{group}/receipts", "/stats")
        }
        assert results["/users/{user}/unread"]["anyOf"] == [
            {"type": "integer"},
            {"$ref": "#/components/schemas/C2CUnread"},
        ]
        assert results["/groups/{group}/receipts"] == {"$ref": "#/components/schemas/GroupMsgReceipts"}
        assert results["/stats"]["additionalProperties"] == {"$ref": "#/components/schemas/EndpointStats"}
        assert {"Receipt", "ItemError", "Queue", "Waits"} <= answer.body["components"]["schemas"].keys()


async def test_a_retry_without_a_permit() -> None:
    """A transient error whose retry gets no permit is a 429, with ``Retry-After`` in whole seconds."""
    error = ServerBusy(10002, "secret")
    error.__cause__ = QuotaExhausted("no permit within max_wait", 2.5)
    answer = await failed(Request({"type": "http"}), error)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    assert answer.body == b'{"error":"ServerBusy","code":10002}'


async def test_the_client_ends_with_the_app(service: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lifespan closes the client."""
    for name, value in environment(service, "").items():
        monkeypatch.setenv(name, value)
    async with lifespan(fastapi_app) as state:
        tim = state["tim"]
        assert await tim.get_all_c2c_unread_msg_num("alice") == 5
    with pytest.raises(ClientClosed, match="closed"):
        await tim.get_all_c2c_unread_msg_num("alice")


async def test_above_the_quota_on_uvloop(service: Emulator, tmp_path: Path) -> None:
    """On the loop of ``uvicorn[standard]``: results, and 429s with ``Retry-After``."""
    with program(tmp_path, service, 1, "", loop="uvloop") as running:
        await press(running.url, service, 60, results=300, refusals=60)
        assert running.end() == ["exit code -15"]  # without --workers, uvicorn ends by the signal itself
