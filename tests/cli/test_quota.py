"""``tim-async quota``: the members of a shared quota and their calls/s."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from redis.crc import key_slot
from rich.console import Console

from tests.hypotheses import at_most
from tests.stand_in import APP, StandIn, client_of
from tests.store import Store
from tests.topologies import Clustered
from tim_async._quota_view import EndpointUsage, Member, QuotaView, look
from tim_async._redis_clients import connect
from tim_async.cli.quota import _screen
from tim_async.quota import LAYOUT, RedisQuota

from .conftest import Run
from .migrating import GROUP, write

UNREAD = "v4/openim/get_c2c_unread_msg_num"
SET = "v4/group_open_http_svc/set_unread_msg_num"
S = 1_000_000


class Hand:
    """Keys like those of the quota's script, written by the test."""

    def __init__(self, redis: Any, command: str, app: str = "1400000000", namespace: str = "tim_async") -> None:
        self._redis = redis
        self._prefix = f"{namespace}:{{{app}:{command}}}:{LAYOUT}:"
        seconds, microseconds = redis.time()
        self.now = 1_600_000_000 * S  # not the store's clock
        self.state(at=self.now, real=seconds * S + microseconds, limit=200, out=0, cooling=0)

    def state(self, **fields: float) -> None:
        self._redis.hset(f"{self._prefix}state", mapping=fields)

    def member(
        self,
        id_: str,
        taken: int,
        *,
        age: int = 10_000,
        silence: int = 0,
        limit: float = 200,
        binding: int = 1,
        out: int = 0,
    ) -> None:
        heard, since = self.now - silence * S, self.now - age * S
        words = (7, out, heard, heard, taken, limit, binding, 0, since, 0)
        self._redis.hset(f"{self._prefix}about", id_, " ".join(f"{word:.17g}" for word in words))

    def damage(self, id_: str, text: bytes) -> None:
        self._redis.hset(f"{self._prefix}about", id_, text)

    def waiting(self, id_: str, score: float) -> None:
        self._redis.zadd(f"{self._prefix}waiting", {id_: score})


@pytest.fixture
def redis(store: Store) -> Iterator[Redis]:
    with store.client() as client:
        yield client


def documents(output: str) -> list[Any]:
    return [json.loads(line) for line in output.splitlines()]


def test_a_single_view(run: Run, store: Store, redis: Redis) -> None:
    """The totals of an endpoint, its members, and the remarks."""
    hand = Hand(redis, UNREAD)
    hand.member("web-1:7:aa", 1_200_000, out=3)
    hand.member("web-2:8:bb", 300_000, limit=300)
    hand.member("job:9:cc", 0, limit=50, binding=0)
    hand.member("gone:1:dd", 9_000, silence=61)
    hand.damage("odd:1:ee", b"1 2 nonsense")
    hand.waiting("web-1:7:aa", 17)
    hand.waiting("job:9:cc", 1e12 + 4)
    hand.state(out=3, cooling=150, refused=40, refused_at=hand.now + S, opens=hand.now + 30 * S)
    hand.state(lowered=1, low=80, plateau=100, changed_at=hand.now - 2 * S)
    Hand(redis, SET, app="1400000001").member("web-1:7:ff", 50, age=0)
    Hand(redis, UNREAD, namespace="other").member("x:1:aa", 1)
    redis.set("tim_async:{1400000000:v4/x}:2:state", "of another layout")
    result = run("quota", store.url)
    assert result.exit_code == 0, result.output
    first, second = [line.split() for line in result.stdout.splitlines()[2:4]]
    assert first[:4] == ["1400000000", "get_c2c_unread_msg_num", "200", "150.0"]
    assert first[4:9] == ["3", "150", "1", "1", "3"]
    assert second[:4] == ["1400000001", "set_unread_msg_num", "200", "50.0"]
    for remark in ("the server takes", "40 refused", "paused for", "1 named another limit", "1 unreadable"):
        assert remark in result.stdout
    members = [line.split() for line in result.stdout.splitlines() if ":" in line and line.startswith("get_c2c")]
    assert [line[1:4] for line in members] == [
        ["web-1:7:aa", "120.0", "80%"],
        ["web-2:8:bb", "30.0", "20%"],
        ["job:9:cc", "0.0", "0%"],
    ]
    assert "300, not 200" in result.stdout
    assert "50 for itself" in result.stdout
    (other,) = json.loads(run("quota", "--namespace", "other", "--json", env={"TIM_QUOTA_URL": store.url}).stdout)[
        "endpoints"
    ]
    assert (other["command"], other["limit"], other["members"][0]["id"]) == (UNREAD, 200, "x:1:aa")


def test_errors_of_the_store(run: Run, store: Store, redis: Redis) -> None:
    """One line each, without the password; exit code 2 for a wrong configuration."""
    nobody = run("quota", store.url)
    assert (nobody.exit_code, nobody.stdout) == (0, "")
    assert "No quota in the namespace tim_async was used at" in nobody.stderr
    redis.set(f"tim_async:{{1:v4/x}}:{LAYOUT}:state", "x")
    damaged = run("quota", store.url)
    assert (damaged.exit_code, "something else has stored" in damaged.stderr) == (2, True)
    redis.config_set("requirepass", "s3cret")
    wrong = run("quota", store.url.replace("//", "//:wr0ng@"))
    assert wrong.exit_code == 2
    assert "check the user and the password" in wrong.stderr
    store.kill()
    away = run("quota", store.url.replace("//", "//:s3cret@"))
    assert away.exit_code == 1
    assert f"cannot reach the store at {store.url}" in away.stderr
    assert "s3cret" not in away.output + wrong.output
    for args in (["http://x"], ["redis://h", "--namespace", "a{b"], []):
        assert run("quota", *args).exit_code == 2


def test_watching(environment: dict[str, str], store: Store, redis: Redis) -> None:
    """Rates are those since the last refresh; an outage is reported, and watching continues after it."""
    hand = Hand(redis, UNREAD)
    hand.member("a:1:x", 1000)
    command = [sys.executable, "-m", "tim_async", "quota", store.url, "--watch"]
    options: dict[str, Any] = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--json"], **options) as machine, subprocess.Popen(command, **options) as person:
        assert machine.stdout is not None
        assert machine.stderr is not None
        assert person.stdout is not None
        first = json.loads(machine.stdout.readline())
        line = person.stdout.readline()
        assert re.search(r" 1400000000 get_c2c_unread_msg_num: 0\.1 of 200 calls/s, 1 member, 0 out, 0 waiting", line)
        person.send_signal(signal.SIGINT)
        assert person.wait() == 130
        hand.member("a:1:x", 1200)
        hand.member("b:1:y", 100, age=1)
        while len((second := json.loads(machine.stdout.readline()))["endpoints"][0]["members"]) < 2:
            pass
        taken = {one["id"]: one["calls_per_second"] * second["seconds"] for one in second["endpoints"][0]["members"]}
        assert first["seconds"] is None
        assert taken["b:1:y"] == pytest.approx(100, abs=1)
        assert min(abs(taken["a:1:x"] - since) for since in (0, 200)) < 1  # depends on the refresh that saw it
        store.kill()
        assert "cannot reach the store" in machine.stderr.readline()
        store.start()
        while json.loads(machine.stdout.readline())["endpoints"]:
            pass
        machine.send_signal(signal.SIGINT)
        assert machine.wait() == 130
        assert "Traceback" not in machine.stderr.read()


def test_a_terminal(environment: dict[str, str], store: Store, redis: Redis) -> None:
    """It is redrawn in place, and restored at the end."""
    Hand(redis, UNREAD).member("a:1:x", 1000)
    near, far = pty.openpty()
    command = [sys.executable, "-m", "tim_async", "quota", store.url, "--watch"]
    with subprocess.Popen(command, env={**environment, "TERM": "xterm"}, stdout=far, stderr=far) as process:
        os.close(far)
        seen = b""
        while seen.count(b"Ctrl-C stops") < 2:
            seen += os.read(near, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        with contextlib.suppress(OSError):  # its end
            while more := os.read(near, 65536):
                seen += more
        os.close(near)
    assert b"\x1b[?25l" in seen
    assert b"\x1b[?25h" in seen
    assert b"a:1:x" in seen


@given(endpoints=st.integers(0, 4), members=st.integers(0, 30), height=st.integers(20, 60))
@at_most(20)
def test_a_screen_fits(endpoints: int, members: int, height: int) -> None:
    """With any number of members, the heading is visible, and members that are not shown are summed up."""
    all_ = tuple(Member(f"h:{n}:x", n, 2.0, 0.1, 9, 0, "", 200, True, 9.0, 0.0) for n in range(members))
    one = EndpointUsage("1", UNREAD, 200, 200, 2.0 * members, 0, 0, 0, 0, 0, all_, 0)
    view = QuotaView("redis://h", "tim_async", time.time(), 1.0, (one,) * endpoints)
    console = Console(width=160, height=height)
    lines = console.render_lines(_screen(view, "", height))
    assert len(lines) <= max(height - 1, 6 + endpoints * 5 + 3)
    if endpoints == 1 and members > height:
        assert any("others" in "".join(segment.text for segment in line) for line in lines)


async def test_real_clients(store: Store) -> None:
    """The view agrees with the calls of real clients."""
    connected = connect(store.url)
    async with (
        StandIn() as service,
        client_of(service, quota=RedisQuota(store.url), rates={"get_c2c_unread_msg_num": 100}) as one,
        client_of(service, quota=RedisQuota(store.url, own_rates=True), rates={"get_c2c_unread_msg_num": 30}) as two,
    ):
        await asyncio.gather(*(one.get_c2c_unread_msg_num("a", ["b"]) for _ in range(30)))
        before = await look(connected, "tim_async")
        await asyncio.gather(*(two.get_c2c_unread_msg_num("a", ["b"]) for _ in range(12)))
        after = await look(connected, "tim_async")
    await connected.aclose()
    (endpoint,) = before.endpoints
    assert (endpoint.sdk_app_id, endpoint.name, endpoint.limit) == (str(APP), "get_c2c_unread_msg_num", 100)
    (first,) = endpoint.members
    assert first.taken == 30
    assert first.id.split(":")[1] == str(os.getpid())
    measured = after.since(before).endpoints[0]
    (second,) = [member for member in measured.members if member.id != first.id]
    seconds = after.time - before.time
    assert second.calls_per_second * seconds == pytest.approx(second.taken, abs=0.1)
    assert second.taken >= 12
    assert (measured.limit, second.limit, second.binding, measured.differing) == (100, 30, False, ())


def test_a_cluster(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """The endpoints of all primaries are found, and so are those of a migration in that cluster."""
    members = "".join(f"{GROUP},{member},1\n" for member in ("alice", "bob", "carol"))
    file = write(tmp_path / "counts.csv", "GroupId,Member_Account,UnreadMsgNum", members)
    with Clustered(tmp_path, key="x", reshard=False) as cluster:
        for number, store in enumerate(cluster.stores[:3]):
            with store.client() as redis:
                mine = range(5462 * number, 5462 * (number + 1))
                app = next(app for app in range(1000) if key_slot(f"{app}:{UNREAD}".encode()) in mine)
                Hand(redis, UNREAD, app=str(app)).member(f"n{number}:1:x", 10)
        assert run("migrate", "load", file, "--to", cluster.url, env=reach).exit_code == 0
        assert run("migrate", "work", "--from", cluster.url, env=reach).exit_code == 0
        result = run("quota", cluster.url, "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)["endpoints"]
    assert sorted(one["members"][0]["id"] for one in found if one["command"] == UNREAD) == [
        "n0:1:x",
        "n1:1:x",
        "n2:1:x",
    ]
    assert {one["command"] for one in found} == {UNREAD, SET, "v4/group_open_http_svc/get_group_info"}
