"""The bulk worker: real taskiq processes, a real Valkey."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis
from taskiq import TaskiqState

from tests.store import Store
from tim_async import ClientClosed, TIMClient
from tim_async.emulator import Emulator
from tim_async.examples.bulk_worker import shutdown, startup
from tim_async.quota import KEYS

from .serving import PATIENCE, Program, environment

pytestmark = pytest.mark.processes

CLIENT = """
import asyncio, time
from tim_async.examples.bulk_worker import broker, mark_read, set_unread

async def main():
    await broker.startup()
    now = int(time.time())
    tasks = [await mark_read.kiq([(f"user{n}", "bob", now) for n in range(first, first + 40)]) for first in (0, 40, 80)]
    tasks.append(await mark_read.kiq([("user0", "bob", now), ("nobody", "bob", now)]))
    tasks.append(await set_unread.kiq([("@TGS#public", f"user{n}", n) for n in range(50)]))
    for task in tasks:
        outcome = (await task.wait_result(timeout=60)).return_value
        print(outcome.done, outcome.failed)
    await broker.shutdown()

asyncio.run(main())
"""


async def test_the_client_ends_with_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shutdown closes the client that the start-up made."""
    async with Emulator() as service:
        for name, value in environment(service, "").items():
            monkeypatch.setenv(name, value)
        state = TaskiqState()
        starting = startup(state)
        assert starting is not None
        await starting
        tim: TIMClient = state.tim
        async with tim:
            ending = shutdown(state)
            assert ending is not None
            await ending
            with pytest.raises(ClientClosed, match="closed"):
                await tim.get_all_c2c_unread_msg_num("alice")


def test_tasks_are_executed(store: Store, tmp_path: Path) -> None:
    """Each row arrives, each failed row is reported, the store's quota is used, and SIGTERM ends all processes."""
    with Emulator() as service:
        users = [f"user{n}" for n in range(120)]
        for user in users:
            service.state.add_messages(user, "bob", 3, at=time.time() - 10)
        service.state.add_group("@TGS#public", messages=100, members=users)
        env = environment(service, store.url)
        worker = Program(
            tmp_path / "log",
            *("-m", "taskiq", "worker", "tim_async.examples.bulk_worker:broker", "--workers", "2"),
            env=env,
            ready=("Listening started.", 2),
        )
        with (
            subprocess.Popen([sys.executable, "-c", CLIENT], env=env, stdout=subprocess.PIPE, text=True) as client,
            worker,
        ):
            printed, _ = client.communicate(timeout=PATIENCE)
            assert worker.end() == []

        lines = printed.splitlines()
        assert lines[:3] == ["40 []"] * 3
        assert lines[3].startswith("1 [({'report_account': 'nobody'")
        assert lines[3].endswith("'AccountNotFound')]")
        assert lines[4] == "50 []"
        assert [service.state.unread(user) for user in users] == [0] * 120
        assert [service.state.unread_in_group("@TGS#public", user) for user in users[:50]] == list(range(50))
        with Redis.from_url(store.url) as keys:
            kept = {key.decode().rpartition(":")[2] for key in keys.scan_iter("tim_async:*admin_set_msg_read*")}
            assert {"state", "limits"} <= kept <= {*KEYS}
