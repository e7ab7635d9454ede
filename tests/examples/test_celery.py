"""The Celery example: a real worker of four processes, on a real Valkey."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis

from tests.store import Store
from tim_async.emulator import Emulator

from .serving import PATIENCE, Program, environment

pytestmark = pytest.mark.processes

CLIENT = """
import json, time
from tim_async.examples.celery_app import mark_read, set_unread, unread

def failure_of(task):
    try:
        task.get(timeout=60)
    except Exception as error:
        return type(error).__name__

now = int(time.time())
slow = unread.apply_async(("slow",), soft_time_limit=1)
reads = [mark_read.delay(f"user{n}", "bob", now) for n in range(120)]
rows = [("@TGS#public", f"user{n}", n) for n in range(240)]
sets = [set_unread.delay(rows[first:first + 80]) for first in (0, 80, 160)]
sets.append(set_unread.delay([("@TGS#public", "user0", 0), ("@TGS#none", "user0", 1)]))
missing = unread.delay("nobody")
print(json.dumps([task.get(timeout=60) for task in [*reads, *sets]][-4:]))
print(failure_of(slow), failure_of(missing), unread.delay("user0").get(timeout=60))
"""


def test_four_processes_share_one_quota(store: Store, tmp_path: Path) -> None:
    """Every task is executed once, a task that exceeds its time limit is cancelled, and the service refuses nothing."""
    users = [f"user{n}" for n in range(240)]
    with Emulator() as service:
        for user in users[:120]:
            service.state.add_messages(user, "bob", 3, at=time.time() - 10)
        service.state.add_group("@TGS#public", messages=400, members=users)
        service.fault(delay=60.0, endpoint="get_c2c_unread_msg_num", times=1)
        env = environment(service, store.url)
        worker = Program(
            tmp_path / "log",
            *("-m", "celery", "-A", "tim_async.examples.celery_app", "worker"),
            *("--concurrency", "4", "--without-gossip", "--without-mingle", "--loglevel", "WARNING"),
            env=env,
        )
        with (
            subprocess.Popen([sys.executable, "-c", CLIENT], env=env, stdout=subprocess.PIPE, text=True) as client,
            worker,
        ):
            printed, _ = client.communicate(timeout=PATIENCE)
            complaints = worker.end()
        assert [re.sub(r".*: WARNING/MainProcess\] |\[[-0-9a-f]{36}\]", "", line) for line in complaints] == [
            "Soft time limit (1s) exceeded for tim_async.examples.celery_app.unread"
        ]
        report = service.report()
    sets, others = printed.splitlines()
    lost = [["@TGS#none", "user0", 1], "GroupNotFound"]
    assert json.loads(sets) == [*[{"done": 80, "failed": []}] * 3, {"done": 1, "failed": [lost]}]
    assert others == "SoftTimeLimitExceeded AccountNotFound 0"
    assert [service.state.unread(user) for user in users[:120]] == [0] * 120
    assert [service.state.unread_in_group("@TGS#public", user) for user in users] == [*range(240)]
    for endpoint, calls in (("admin_set_msg_read", 120), ("set_unread_msg_num", 242), ("get_c2c_unread_msg_num", 3)):
        seen = report.endpoints[endpoint]
        assert seen.calls - seen.refused == calls
        # A busy machine's jitter may cost a few refusals; with a quota for each process there would be many.
        assert seen.refused <= 4
    with Redis.from_url(store.url) as keys:
        kept = {key.decode().rpartition(":")[2] for key in keys.scan_iter("tim_async:*")}
    assert "state" in kept
    assert "members" not in kept  # the processes have closed their clients
