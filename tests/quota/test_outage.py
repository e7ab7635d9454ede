"""Outages of the store: no call fails, one warning is logged, and the quota is shared again when the store is back."""

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
async def replaced_store(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Let something else listen in place of the store; yield its URL."""
    async with Peer(lambda talk: serve(talk.reader, talk.writer), tls) as peer:
        yield f"redis://:{SECRET}@127.0.0.1:{peer.port}/0"


def always(data: bytes) -> Serve:
    """Send the same data after every read."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(data)

    return serve


def scripted(reply: bytes) -> Serve:
    """Speak the protocol, with the same reply to every script."""

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
    """Close at once."""


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read, and send nothing."""
    while await reader.read(65536):
        pass


def relay(store: Store, delay: Callable[[], float] = lambda: 0.0) -> Serve:
    """Relay data to a store, and its replies with a delay."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, onward = await asyncio.open_connection("127.0.0.1", store.port)

        async def pump() -> None:
            while data := await upstream.read(65536):
                await asyncio.sleep(delay())
                writer.write(data)

        pumping = asyncio.create_task(pump())
        try:
            while data := await reader.read(65536):
                onward.write(data)
        finally:
            pumping.cancel()
            onward.transport.abort()

    return serve


FAULTY_STORES = {
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


def logged_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings, those of outages shortened; assert that no other logger and no secret is in the log."""
    assert {record.name for record in caplog.records} <= {"tim_async"}, caplog.text
    assert SECRET not in caplog.text
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return ["away" if " is unreachable (" in message else "back" if message.endswith(" is reachable again") else message
            for message in messages]  # fmt: skip


async def call_some(tim: TIMClient, count: int = 3) -> None:
    for _ in range(count):
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7


@pytest.mark.parametrize("kind", FAULTY_STORES)
async def test_a_faulty_store_counts_as_an_outage(
    service: StandIn, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    async with replaced_store(FAULTY_STORES[kind]) as url:
        async with client(service, RedisQuota(url, fallback_share=1, timeout=0.1), LIMIT) as tim:
            await call_some(tim)
            await until(lambda: not tim.stats()[NAME].shared)
            await call_some(tim, 20)
            assert NAME in tim.stats()
            assert SECRET not in f"{tim!r}{tim.stats()}"
        gc.collect()
    assert logged_warnings(caplog) == ["away"]


async def test_a_store_that_starts_after_the_client_is_used(
    service: StandIn, caplog: pytest.LogCaptureFixture, store: Store
) -> None:
    store.kill()
    counting = service.answer = Counting(LIMIT)
    async with client(service, RedisQuota(store.url, fallback_share=0.5), LIMIT) as tim:
        await call_some(tim)
        assert not tim.stats()[NAME].shared
        assert tim.stats()[NAME].rate == 25
        assert logged_warnings(caplog) == ["away"]
        store.start()
        await until(lambda: tim.stats()[NAME].shared)
        await until(lambda: tim.stats()[NAME].rate == LIMIT)
    assert counting.refused == 0
    assert logged_warnings(caplog) == ["away", "back"]


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_an_outage_fails_no_call_and_exceeds_no_limit(
    service: StandIn, caplog: pytest.LogCaptureFixture, store: Store, how: str
) -> None:
    """Three clients, each with a third of the rate during the outage."""
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
    assert logged_warnings(caplog) == ["away"] * 3 + ["back"] * 3


async def test_a_store_that_is_emptied_disconnected_or_restarted_exceeds_no_limit(
    service: StandIn, caplog: pytest.LogCaptureFixture, store: Store
) -> None:
    """Calls made just before it still count, even if no client noticed the loss."""
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
    assert logged_warnings(caplog).count("away") == logged_warnings(caplog).count("back") <= 4


async def test_a_script_that_the_store_has_lost_is_sent_again(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture
) -> None:
    quota = quota_on(lasting)
    async with client(service, quota, LIMIT) as tim:
        for _ in range(3):
            await call_some(tim)
            with Redis.from_url(lasting.url) as redis:
                redis.script_flush()
        assert tim.stats()[NAME].shared
    assert logged_warnings(caplog) == []


@pytest.mark.parametrize(("delay", "timeout", "shared"), [(0.03, 0.15, True), (0.2, 0.15, False), (0.15, None, True)])
async def test_a_store_slower_than_its_timeout_counts_as_an_outage(
    service: StandIn,
    lasting: Store,
    caplog: pytest.LogCaptureFixture,
    delay: float,
    timeout: float | None,
    shared: bool,
) -> None:
    """A timeout that is not given is learned from the round trips."""
    counting = service.answer = Counting(LIMIT)
    quota = quota_on(lasting)
    async with replaced_store(relay(lasting, lambda: delay)) as url:
        slow = RedisQuota(url.replace(f":{SECRET}@", ""), namespace=quota._namespace, timeout=timeout, fallback_share=1)
        async with client(service, slow, LIMIT) as tim:
            await call_some(tim)
            await until(lambda: tim.stats()[NAME].shared is shared)
            async with calling((tim, "alice")):
                await until(lambda: answers(counting) >= 55)
    assert counting.refused == 0
    assert logged_warnings(caplog) == ([] if shared else ["away"])


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_fail_closed_waits_for_the_store(
    service: StandIn, caplog: pytest.LogCaptureFixture, store: Store, how: str
) -> None:
    """A call with max_wait is refused in time."""
    counting = service.answer = Counting(LIMIT)
    loop = asyncio.get_running_loop()
    async with client(service, RedisQuota(store.url, fail_closed=True), LIMIT) as tim:
        await call_some(tim)
        store.kill() if how == "killed" else store.freeze()
        waiting = asyncio.create_task(call_some(tim))
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
    assert logged_warnings(caplog) == ["away", "back"]


@pytest.mark.parametrize("queue_busy", [False, True])
async def test_max_wait_is_kept_without_a_reply_of_the_store(service: StandIn, store: Store, queue_busy: bool) -> None:
    loop = asyncio.get_running_loop()
    async with client(service, RedisQuota(store.url, timeout=5, fail_closed=True), LIMIT) as tim:
        await call_some(tim)
        store.freeze()
        waiting = [asyncio.create_task(tim.get_all_c2c_unread_msg_num("a")) for _ in range(3 * queue_busy)]
        await asyncio.sleep(0)
        begin = loop.time()
        failure = await failure_of(tim.with_options(max_wait=0.1).get_all_c2c_unread_msg_num("alice"))
        assert type(failure) is QuotaExhausted
        assert 0.09 < loop.time() - begin < 1.0
        store.thaw()
        assert await asyncio.gather(*waiting) == [7] * len(waiting)


@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.parametrize("fail_closed", [False, True])
async def test_close_ends_promptly_without_the_store(
    service: StandIn, store: Store, how: str, fail_closed: bool
) -> None:
    """With waiting calls and calls in flight; no task, connection or timer is left."""
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


async def test_tls_works_with_the_authority_and_the_error_without_it_names_the_option(
    service: StandIn,
    lasting: Store,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # In debug mode the event loop logs that a client has refused the server's certificate.
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", True)
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with replaced_store(relay(lasting), server) as plain:
        url = plain.replace("redis://", "rediss://").replace(f":{SECRET}@", "")
        known = quota_on(lasting, url=url, ssl_ca_certs=str(tmp_path / "ca.pem"), timeout=2.0)
        async with client(service, known, LIMIT) as tim:
            await call_some(tim)
            assert tim.stats()[NAME].shared
        assert logged_warnings(caplog) == []
        async with client(service, RedisQuota(url, timeout=2.0), LIMIT) as tim:
            assert "give ssl_ca_certs" in str(await failure_of(tim.get_all_c2c_unread_msg_num("alice")))
    gc.collect()
    assert logged_warnings(caplog) == []


async def test_the_keys_of_an_endpoint_are_in_one_slot_of_a_cluster(
    service: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counting = service.answer = Counting(20)
    bus = Store(tmp_path / "bus").port  # by default it would be the other port + 10000, which may be invalid
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
    assert logged_warnings(caplog) == []


async def test_a_pause_and_a_refusal_during_an_outage_are_not_reported_after_it(service: StandIn, store: Store) -> None:
    """Both have ended by then."""
    quota = quota_on(store, fallback_share=1)
    async with client(service, quota, LIMIT) as tim:
        await tim.get_all_c2c_unread_msg_num("alice")
        store.kill()
        await tim.get_all_c2c_unread_msg_num("alice")  # which notices the outage
        await until(lambda: not tim.stats()[NAME].shared)
        service.script.append(Reply(b"{}", 429, (*JSON, ("Retry-After", "2"))))
        await tim.get_all_c2c_unread_msg_num("alice")  # it waits for two seconds
        store.start()
        await until(lambda: tim.stats()[NAME].shared)
        with Redis.from_url(store.url) as redis:
            (key,) = redis.keys("*:state")
            state = redis.hgetall(key)
        assert float(state.get(b"opens", 0)) <= float(state[b"at"])
        assert b"cuts" not in state
