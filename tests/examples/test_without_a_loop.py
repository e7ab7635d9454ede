"""The guide's other places without an event loop of the program: RQ, gevent and notebooks."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from rq import Queue, SimpleWorker

from tests.documents import Document
from tests.store import Store
from tim_async import TIMClient
from tim_async.blocking import Portal
from tim_async.emulator import Emulator, fill_example
from tim_async.quota import RedisQuota

from .serving import environment

GUIDE = Document.read("tim_async/examples/README.md")


def run(program: str, env: dict[str, str], typed: str = "") -> str:
    """Run a program and return its output; it must succeed without warnings."""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        input=typed, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


# RQ imports these by name in the worker's process, which is this one.
portal = Portal(lambda: TIMClient.from_env(quota=RedisQuota(os.environ["TIM_QUOTA_URL"])))
cancelled: list[str] = []


def unread(user: str) -> int:
    return portal.run(TIMClient.get_all_c2c_unread_msg_num, user)


def wait() -> None:
    portal.run(_wait)


async def _wait(tim: TIMClient) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.append("the call")


@contextmanager
def signals() -> Iterator[None]:
    """Restore the handlers that a worker sets."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_rq_keeps_one_client_and_its_time_out_cancels_the_call(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the worker class that the guide names."""
    assert "--worker-class rq.SimpleWorker" in GUIDE.text
    with Emulator() as service, Redis.from_url(store.url) as connection, portal, signals():
        fill_example(service.state)
        for name, value in environment(service, store.url).items():
            monkeypatch.setenv(name, value)
        queue = Queue(connection=connection)
        jobs = [queue.enqueue(unread, user) for user in ("alice", "nobody", "alice")]
        late = queue.enqueue(wait, job_timeout=1)
        jobs.append(queue.enqueue(unread, "alice"))
        SimpleWorker([queue], connection=connection).work(burst=True, logging_level="CRITICAL")
        assert [job.return_value(refresh=True) for job in jobs] == [5, None, 5, 5]
        failures = [job.latest_result() for job in (jobs[1], late)]
        for failure, error in zip(failures, ("AccountNotFound", "JobTimeoutException"), strict=True):
            assert failure is not None
            assert error in str(failure.exc_string)
        assert cancelled == ["the call"]
        seen = {key.decode() for key in connection.scan_iter("tim_async:*:members")}
        assert [connection.zcard(key) for key in seen] == [1]


GEVENT = """
from gevent import monkey; monkey.patch_all()
import asyncio, gevent
from tim_async import TIMClient
from tim_async.blocking import Portal

def make():
    gevent.sleep(0.05)  # such as for a key that is somewhere else
    return TIMClient.from_env()

portal = Portal(make)

def ask():
    return portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice")

first = [gevent.spawn(ask) for _ in range(3)]
gevent.joinall(first, raise_error=True)

async def hold(tim):
    try:
        await asyncio.Event().wait()
    finally:
        print("cancelled")

async def again(tim):
    portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice")

print(ask(), ask())
asking = [gevent.spawn(ask) for _ in range(50)]
gevent.joinall(asking)
print(sum(one.value for one in asking))
try:
    with gevent.Timeout(0.05):
        portal.run(hold)
except gevent.Timeout:
    print("timed out")
for mistake in (lambda: portal.run(again), lambda: Portal(make).run(hold)):
    try:
        mistake()
    except RuntimeError as error:
        print(str(error)[:36], "…", str(error)[-49:])
"""


@pytest.mark.processes
def test_greenlets_of_gevent_are_threads_too() -> None:
    """They share an OS thread with the portal's loop, and wait for it without blocking it."""
    with Emulator() as service:
        fill_example(service.state)
        printed = run(GEVENT, environment(service, ""))
        seen = service.report().endpoints["get_c2c_unread_msg_num"]
    one = "an event loop runs in this thread, a … has one event loop, and so one portal or emulator"
    assert sorted(printed.splitlines()) == sorted(["5 5", "250", "cancelled", "timed out", one, one])
    assert (seen.calls, seen.refused) == (55, 0)


IPYTHON = """
import sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
ran = [shell.run_cell(cell) for cell in sys.stdin.read().split(chr(0))]
for cell in ran:
    cell.raise_error()
print([cell.result for cell in ran if cell.result is not None])
"""


@pytest.mark.processes
def test_the_cells_of_a_notebook_share_a_client() -> None:
    """The guide's cells, in IPython."""
    (block,) = [block for block in GUIDE.blocks("py") if "# In [1]" in block]
    cells = re.split(r"^# In .*\n", block, flags=re.MULTILINE)[1:]
    with Emulator() as service:
        fill_example(service.state)
        printed = run(IPYTHON, environment(service, ""), "\0".join([*cells, "[outcome.value for outcome in found]"]))
        assert printed.splitlines()[-1] == "[5, [5, 0]]"
        assert service.report().endpoints["get_c2c_unread_msg_num"].calls == 3
