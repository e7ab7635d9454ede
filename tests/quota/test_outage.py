"""Without the store, or with one that is not right: no call fails, one warning, and back as soon as it is there."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from redis import Redis
from redis.cluster import RedisCluster

from tests.peer import Peer
from tests.stand_in import JSON, Fate, Reply, StandIn, failure_of
from tests.store import Store
from tim_async import QuotaExhausted, TIMClient
from tim_async.quota import RedisQuota

from .support import NAME, PATIENT, Counting, answers, calling, client, quota_on, until

SECRET = "pass-phrase"
LIMIT = 50
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def stranger(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Something else that listens where the store should be; gives the URL."""
    async with Peer(lambda talk: serve(talk.reader, talk.writer), tls) as peer:
        yield f"redis://:{SECRET}@127.0.0.1:{peer.port}/0"


def always(data: bytes) -> Serve:
    """Sends the same whatever it hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(data)

    return serve


def scripted(reply: bytes) -> Serve:
    """Speaks the protocol, but has one reply to every script."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            parts = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                parts.append((await reader.readexactly(size + 2))[:-2])
            match parts[0].upper():
                case b"EVALSHA" | b"EVAL":
                    writer.write(reply)
                case b"HELLO":
                    writer.write(b"%1\r\n$5\r\nproto\r\n:3\r\n")
                case _:
                    writer.write(b"+OK\r\n")

    return serve


async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes at once."""


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads, and says nothing."""
    while await reader.read(65536):
        pass


def relay(store: Store, delay: float = 0.0) -> Serve:
    """Passes on to a store, and its answers back, later."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, onward = await asyncio.open_connection("127.0.0.1", store.port)

        async def pump() -> None:
            while data := await upstream.read(65536):
                await asyncio.sleep(delay)
                writer.write(data)

        pumping = asyncio.create_task(pump())
        try:
            while data := await reader.read(65536):
                onward.write(data)
        finally:
            pumping.cancel()
            onward.transport.abort()

    return serve


STRANGERS = {
    "half": always(b"*5\r\n:1\r\n"),
    "slam": slam,
    "mute": mute,
    "loading": scripted(b"-LOADING Valkey is loading the dataset in memory\r\n"),
    "noscript": scripted(b"-NOSCRIPT No matching script.\r\n"),
    "oom": scripted(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"),
    "clusterdown": scripted(b"-CLUSTERDOWN The cluster is down\r\n"),
    "noreplicas": scripted(b"-NOREPLICAS Not enough good replicas to write.\r\n"),
    "words": scripted(b"$5\r\nhello\r\n"),
    "list": scripted(b"*2\r\n:1\r\n:2\r\n"),
}


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log has, without what changes; only of the quota, and never a secret."""
    assert {record.name for record in caplog.records} <= {"tim_async"}, caplog.text
    assert SECRET not in caplog.text
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return ["away" if " is unreachable (" in message else "back" if message.endswith(" is reachable again") else message
            for message in messages]  # fmt: skip


async def some(tim: TIMClient, count: int = 3) -> None:
    for _ in range(count):
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7


@pytest.mark.parametrize("kind", STRANGERS)
async def test_a_store_that_is_none_is_like_no_store(
    service: StandIn, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    async with stranger(STRANGERS[kind]) as url:
        async with client(service, RedisQuota(url, fallback_share=1, timeout=0.1), LIMIT) as tim:
            await some(tim)
            await until(lambda: not tim.stats()[NAME].shared)
            await some(tim, 20)
            assert NAME in tim.stats()
            assert SECRET not in f"{tim!r}{tim.stats()}"
        gc.collect()
    assert warned(caplog) == ["away"]


async def test_a_store_that_was_never_there(service: StandIn, caplog: pytest.LogCaptureFixture, store: Store) -> None:
    store.kill()
    counting = service.answer = Counting(LIMIT)
    async with client(service, RedisQuota(store.url, fallback_share=0.5), LIMIT) as tim:
        await some(tim)
        assert not tim.stats()[NAME].shared
        assert tim.stats()[NAME].rate == 25
        assert warned(caplog) == ["away"]
        store.start()
        await until(lambda: tim.stats()[NAME].shared)
        await until(lambda: tim.stats()[NAME].rate == LIMIT)
    assert counting.refused == 0
    assert warned(caplog) == ["away", "back"]


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_an_outage_fails_no_call_and_exceeds_nothing(
    service: StandIn, caplog: pytest.LogCaptureFixture, store: Store, how: str
) -> None:
    """Killed or frozen, and back: three clients, each with a third of the rate meanwhile."""
    counting = service.answer = Counting(LIMIT)
    quota = RedisQuota(store.url, fallback_share=1 / 3)
    async with (
        client(service, quota, LIMIT) as one,
        client(service, quota, LIMIT) as two,
        client(service, quota, LIMIT) as three,
    ):
        clients = (one, two, three)
        async with calling((one, "one"), (two, "two"), (three, "three")):
            await until(lambda: answers(counting) >= 60)
            store.kill() if how == "killed" else store.freeze()
            await until(lambda: not any(tim.stats()[NAME].shared for tim in clients))
            before = answers(counting)
            await until(lambda: answers(counting) >= before + 15)
            store.start() if how == "killed" else store.thaw()
            await until(lambda: all(tim.stats()[NAME].shared for tim in clients))
            before = answers(counting)
            await until(lambda: answers(counting) >= before + 60)
    assert counting.refused == 0
    assert counting.max_per_second() <= LIMIT
    assert warned(caplog) == ["away"] * 3 + ["back"] * 3


async def test_a_store_restarted_or_emptied_at_once(
    service: StandIn, caplog: pytest.LogCaptureFixture, store: Store
) -> None:
    """Whether or not anybody has noticed, what was called just before is not forgotten."""
    counting = service.answer = Counting(LIMIT)
    quota = RedisQuota(store.url, fallback_share=0.5)
    async with client(service, quota, LIMIT) as one, client(service, quota, LIMIT) as two:
        async with calling((one, "one"), (two, "two")):
            await until(lambda: answers(counting) >= 60)
            with Redis.from_url(store.url) as redis:
                redis.script_flush()
                redis.flushall()
            before = answers(counting)
            await until(lambda: answers(counting) >= before + 45)
            with Redis.from_url(store.url) as redis:
                redis.client_kill_filter(_type="normal", skipme=True)
            before = answers(counting)
            await until(lambda: answers(counting) >= before + 20)
            store.kill()
            store.start()
            before = answers(counting)
            await until(lambda: answers(counting) >= before + 60)
        await until(lambda: one.stats()[NAME].shared and two.stats()[NAME].shared)
    assert counting.refused == 0
    assert counting.max_per_second() <= LIMIT
    assert warned(caplog).count("away") == warned(caplog).count("back") <= 4


async def test_a_script_that_the_store_has_forgotten_is_sent_again(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture
) -> None:
    quota = quota_on(lasting)
    async with client(service, quota, LIMIT) as tim:
        for _ in range(3):
            await some(tim)
            with Redis.from_url(lasting.url) as redis:
                redis.script_flush()
        assert tim.stats()[NAME].shared
    assert warned(caplog) == []


@pytest.mark.parametrize(("delay", "timeout", "shared"), [(0.03, 0.15, True), (0.2, 0.15, False), (0.15, None, True)])
async def test_a_store_that_is_slow(
    service: StandIn,
    lasting: Store,
    caplog: pytest.LogCaptureFixture,
    delay: float,
    timeout: float | None,
    shared: bool,
) -> None:
    """Slower than its time-out it counts as away; otherwise it only takes longer.  One that is not given is learned."""

    counting = service.answer = Counting(LIMIT)
    quota = quota_on(lasting)
    async with stranger(relay(lasting, delay)) as url:
        slow = RedisQuota(url.replace(f":{SECRET}@", ""), namespace=quota._namespace, timeout=timeout, fallback_share=1)
        async with client(service, slow, LIMIT) as tim:
            await some(tim)
            await until(lambda: tim.stats()[NAME].shared is shared)
            async with calling((tim, "alice")):
                await until(lambda: answers(counting) >= 55)
    assert counting.refused == 0
    assert warned(caplog) == ([] if shared else ["away"])


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_fail_closed_waits_for_the_store(
    service: StandIn, caplog: pytest.LogCaptureFixture, store: Store, how: str
) -> None:
    """And keeps what a call would wait for at most."""
    counting = service.answer = Counting(LIMIT)
    loop = asyncio.get_running_loop()
    async with client(service, RedisQuota(store.url, fail_closed=True), LIMIT) as tim:
        await some(tim)
        store.kill() if how == "killed" else store.freeze()
        waiting = asyncio.create_task(some(tim))
        await until(lambda: not tim.stats()[NAME].shared)
        before = len(counting.arrivals)
        begin = loop.time()
        failure = await failure_of(tim.with_options(max_wait=0.2).get_all_c2c_unread_msg_num("alice"))
        assert type(failure) is QuotaExhausted
        assert failure.retry_after > 0
        assert loop.time() - begin < 1.0
        assert len(counting.arrivals) == before
        store.start() if how == "killed" else store.thaw()
        async with asyncio.timeout(5):
            await waiting
    assert warned(caplog) == ["away", "back"]


@pytest.mark.parametrize("lane_busy", [False, True])
async def test_a_deadline_is_kept_without_an_answer_of_the_store(
    service: StandIn, store: Store, lane_busy: bool
) -> None:
    loop = asyncio.get_running_loop()
    async with client(service, RedisQuota(store.url, timeout=5, fail_closed=True), LIMIT) as tim:
        await some(tim)
        store.freeze()
        waiting = [asyncio.create_task(tim.get_all_c2c_unread_msg_num("a")) for _ in range(3 * lane_busy)]
        await asyncio.sleep(0)
        begin = loop.time()
        failure = await failure_of(tim.with_options(max_wait=0.1).get_all_c2c_unread_msg_num("alice"))
        assert type(failure) is QuotaExhausted
        assert 0.09 < loop.time() - begin < 1.0
        store.thaw()
        assert await asyncio.gather(*waiting) == [7] * len(waiting)


@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.parametrize("fail_closed", [False, True])
async def test_closing_without_the_store_ends_promptly(
    service: StandIn, store: Store, how: str, fail_closed: bool
) -> None:
    """With some who wait and some in flight; no task, no connection and no timer stays."""
    service.answer = lambda _: Fate.HOLD
    tim = client(service, RedisQuota(store.url, fail_closed=fail_closed), 10)
    calls = [asyncio.create_task(failure_of(tim.get_all_c2c_unread_msg_num("a"))) for _ in range(20)]
    await service.until(1)
    store.kill() if how == "killed" else store.freeze()
    async with asyncio.timeout(2):
        await tim.aclose()
        await asyncio.gather(*calls)
    names = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
    assert not {name for name in names if "Shared" in name}
    if how == "frozen":
        store.thaw()
    gc.collect()


async def test_tls(
    service: StandIn,
    lasting: Store,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the authority known; without it, the error says what is missing."""
    # In debug mode the event loop logs that a client has refused the server's certificate.
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", True)
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with stranger(relay(lasting), server) as plain:
        url = plain.replace("redis://", "rediss://").replace(f":{SECRET}@", "")
        known = quota_on(lasting, url=url, ssl_ca_certs=str(tmp_path / "ca.pem"), timeout=2.0)
        async with client(service, known, LIMIT) as tim:
            await some(tim)
            assert tim.stats()[NAME].shared
        assert warned(caplog) == []
        async with client(service, RedisQuota(url, timeout=2.0), LIMIT) as tim:
            assert "give ssl_ca_certs" in str(await failure_of(tim.get_all_c2c_unread_msg_num("alice")))
    gc.collect()
    assert warned(caplog) == []


async def test_a_cluster(service: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every endpoint's keys lie together, so a script may use them."""
    counting = service.answer = Counting(20)
    bus = Store(tmp_path / "bus").port  # by itself it would be 10000 above the other one, where there may be none
    with Store(tmp_path / "v", cluster_enabled="yes", cluster_port=bus) as store:
        with Redis.from_url(store.url) as redis:
            redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await until(lambda: redis.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        quota = RedisQuota(store.url, cluster=True, timeout=PATIENT)
        async with client(service, quota, 20) as one, client(service, quota, 20) as two:
            async with calling((one, "one"), (two, "two")):
                await until(lambda: answers(counting) >= 25)
            await one.set_unread_msg_num("g", "alice", 1)
            assert one.stats()[NAME].shared
        with RedisCluster.from_url(store.url) as cluster:
            assert len({key.rpartition(b":")[0] for key in cluster.keys("tim_async:*")}) == 2
    assert counting.refused == 0
    assert warned(caplog) == []


async def test_a_pause_and_a_refusal_of_during_an_outage_are_over_after_it(service: StandIn, store: Store) -> None:
    """What concerned this process alone, and then ended, is not told to the fleet as if it were news."""
    quota = quota_on(store, fallback_share=1)
    async with client(service, quota, LIMIT) as tim:
        await tim.get_all_c2c_unread_msg_num("alice")
        store.kill()
        await tim.get_all_c2c_unread_msg_num("alice")  # notices
        await until(lambda: not tim.stats()[NAME].shared)
        service.script.append(Reply(b"{}", 429, (*JSON, ("Retry-After", "2"))))
        await tim.get_all_c2c_unread_msg_num("alice")  # it has waited for two seconds
        store.start()
        await until(lambda: tim.stats()[NAME].shared)
        with Redis.from_url(store.url) as redis:
            (key,) = redis.keys("*:state")
            state = redis.hgetall(key)
        assert float(state.get(b"opens", 0)) <= float(state[b"at"])
        assert b"cuts" not in state
