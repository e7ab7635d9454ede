"""The Flask and Django examples, which run no event loop: under gunicorn and under the frameworks' own servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from redis import Redis

from tests.store import Store, free_port
from tim_async.emulator import Emulator

from .routes import Visitor, fill, press
from .serving import Program, environment

pytestmark = pytest.mark.processes

FLASK, DJANGO = "tim_async.examples.flask_app", "tim_async.examples.django_app"
APPS = {"flask": f"{FLASK}:app", "django": f"{DJANGO}:application"}
OWN = {
    "flask": ("-m", "flask", "--app", FLASK, "run", "--port", "{port}"),
    "django": ("-m", DJANGO, "runserver", "--noreload", "{port}"),
}


def program(folder: Path, service: Emulator, store: str, *command: str) -> Program:
    port = str(free_port())
    return Program(
        folder / "log",
        *(part.replace("{port}", port) for part in command),
        env=environment(service, store),
        url=f"http://127.0.0.1:{port}",
    )


def gunicorn(app: str, *options: str) -> tuple[str, ...]:
    # The app is imported before the workers are forked, as with `--preload` in production.
    return ("-m", "gunicorn", APPS[app], "--bind", "127.0.0.1:{port}", "--preload", "--threads", "8", *options)


@pytest.mark.parametrize("app", APPS)
async def test_two_processes_of_threads_share_one_quota(app: str, store: Store, tmp_path: Path) -> None:
    """At the quota, and in a pause: results, and 429s with ``Retry-After``; the service refuses next to nothing."""
    with Emulator() as service:
        with program(tmp_path, service, store.url, *gunicorn(app, "--workers", "2")) as running:
            seen = await press(running.url, service, 24, results=250, refusals=1)
            assert running.end() == []
        figures = service.report().endpoints["get_c2c_unread_msg_num"]
    assert figures.calls >= 250
    assert {*seen} == {200, 429}
    # A busy machine's latency may cost one refusal; with a quota for each process there would be many.
    assert figures.refused <= 1
    with Redis.from_url(store.url) as keys:
        kept = {key.decode().rpartition(":")[2] for key in keys.scan_iter("tim_async:*")}
    assert "state" in kept
    assert "members" not in kept  # the processes have closed their clients


@pytest.mark.parametrize("app", OWN)
async def test_all_routes(app: str, tmp_path: Path) -> None:
    """Under the framework's own server; the second request works, and errors are answered without their text."""
    with Emulator() as service:
        fill(service)
        service.fault(code=70009, endpoint="admin_set_msg_read", times=1)
        with program(tmp_path, service, "", *OWN[app]) as running:
            async with aiohttp.ClientSession(running.url) as session:
                visitor = Visitor(session)
                for _ in range(3):
                    assert (await visitor.ask("/users/alice/unread")).body == 5
                peers = await visitor.ask("/users/alice/unread?peer=bob&peer=nobody")
                assert peers.body["counts"] == {"bob": 3}
                assert peers.body["errors"]["nobody"]["code"] == 70107
                asked = [visitor.ask("/users/alice/unread/bob") for _ in range(20)]
                assert [answer.body for answer in await asyncio.gather(*asked)] == [3] * 20
                answers = {
                    path: await visitor.ask(path, method)
                    for method, path in (
                        ("GET", "/users/nobody/unread"),
                        ("GET", "/users/alice/unread?" + "&".join(["peer=bob"] * 101)),
                        ("POST", "/users/alice/read/bob"),
                    )
                }
                assert [(answer.status, answer.body) for answer in answers.values()] == [
                    (404, {"error": "AccountNotFound", "code": 90003}),
                    (422, {"error": "ValueError", "code": None}),
                    (502, {"error": "AuthError", "code": 70009}),
                ]
                assert (await visitor.ask("/users/alice/read/bob", "POST")).status == 200
                assert (await visitor.ask("/users/alice/unread")).body == 2
            running.end()
            assert "Traceback" not in running.output
        assert service.report().endpoints["get_c2c_unread_msg_num"].calls < 20
