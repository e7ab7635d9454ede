"""Connections to a store: few, shared, replaced when they are dead; and redis-py clients of the user's."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis import asyncio as redis
from redis.asyncio.sentinel import Sentinel
from redis.credentials import CredentialProvider

from tests.peer import Peer, Talk
from tests.stand_in import APP, StandIn
from tests.store import Store
from tests.topologies import PRIMARY, Clustered, Switched, Watched, wait
from tim_async import TIMClient
from tim_async._round_trips import FIRST, LONGEST, SHORTEST, RoundTrips
from tim_async._store_link import CONNECTIONS
from tim_async.quota import RedisQuota

from .support import COMMAND, NAME, client, quota_on, until
from .test_outage import SECRET, call_some, logged_warnings, relay, replaced_store

LIMIT = 200
IDLE = 1.0
"""Seconds after which everything is reported, and connections are idle."""


class Proxy:
    """A proxy of a store that can drop connections silently, as a NAT does, and records the commands."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.accepted = 0
        self.commands: set[bytes] = set()
        self._alive: set[int] = set()

    def drop_silently(self) -> None:
        """Swallow all data of the present connections, but not of new ones."""
        self._alive.clear()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        async with Peer(self._serve) as peer:
            yield f"redis://127.0.0.1:{peer.port}/0"

    async def _serve(self, talk: Talk) -> None:
        self.accepted += 1
        number = self.accepted
        self._alive.add(number)
        upstream, onward = await asyncio.open_connection("127.0.0.1", self._store.port)

        async def back() -> None:
            while data := await upstream.read(65536):
                if number in self._alive:
                    talk.writer.write(data)

        pump = asyncio.create_task(back())
        try:
            while data := await talk.reader.read(65536):
                self.commands |= set(re.findall(rb"\r\n([A-Z]+)\r\n", data))
                if number in self._alive:
                    onward.write(data)
        finally:
            pump.cancel()
            onward.transport.abort()


async def test_an_idle_connection_that_was_dropped_fails_and_delays_no_call(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Silently, as by a NAT; even a call with max_wait of 0.25 s succeeds."""
    proxy = Proxy(lasting)
    async with proxy.open() as url, client(service, quota_on(lasting, url=url), LIMIT) as tim:
        hasty = tim.with_options(max_wait=0.25)
        await call_some(tim)
        for pause in (IDLE, IDLE, 0.0):
            await asyncio.sleep(pause)
            proxy.drop_silently()
            assert await (hasty if pause else tim).get_all_c2c_unread_msg_num("alice") == 7
        assert tim.stats()[NAME].shared
    assert proxy.accepted <= 5
    assert logged_warnings(caplog) == []
    assert b"HELLO" not in proxy.commands  # which older servers and proxies do not know


async def test_an_idle_connection_that_was_closed_fails_and_delays_no_call(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """As by Redis' ``timeout``; also between two calls in a row."""
    async with client(service, quota_on(lasting), LIMIT) as tim:
        hasty = tim.with_options(max_wait=0.25)
        await call_some(tim)
        with lasting.client() as other:
            for pause in (IDLE, 0.0):
                await asyncio.sleep(pause)
                other.client_kill_filter(_type="normal", skipme=True)
                assert await hasty.get_all_c2c_unread_msg_num("alice") == 7
        assert tim.stats()[NAME].shared
    assert logged_warnings(caplog) == []


@pytest.mark.parametrize("idle", [0.0, IDLE])
async def test_an_old_primary_that_is_still_reachable_is_left_at_once(
    service: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture, idle: float
) -> None:
    with Switched(tmp_path) as pair:
        async with client(service, RedisQuota(pair.url), LIMIT) as tim:
            hasty = tim.with_options(max_wait=0.25)
            await call_some(tim)
            pair.disturb()
            await asyncio.sleep(idle)
            # The new primary grants when all members have reported.
            await tim.get_all_c2c_unread_msg_num("alice")
            await hasty.get_all_c2c_unread_msg_num("alice")
            assert tim.stats()[NAME].shared
        with pair.two.client() as primary:
            assert primary.keys("tim_async:*:state")
    assert logged_warnings(caplog) == []


async def test_a_client_that_was_idle_during_a_failover_does_not_write_to_the_old_primary(
    service: StandIn, tmp_path: Path
) -> None:
    """The old primary was frozen, and still takes itself for the primary."""
    with Watched(tmp_path, freeze=True) as watched:
        async with client(service, RedisQuota(watched.url), LIMIT) as tim:
            await call_some(tim)
            await asyncio.sleep(IDLE)
            with watched.one.client() as old:
                before = old.hgetall(old.keys("tim_async:*:state")[0])
            watched.disturb()
            await asyncio.to_thread(wait, watched.decided)
            watched.settle()
            await call_some(tim)
            with watched.one.client() as old:
                assert old.hgetall(old.keys("tim_async:*:state")[0])["at"] == before["at"]


async def test_clients_with_one_url_share_a_few_connections(service: StandIn, tmp_path: Path) -> None:
    with Store(tmp_path / "v") as store, store.client() as other:

        def connections() -> int:
            return len(other.client_list(_type="normal")) - 1

        async with contextlib.AsyncExitStack() as stack:
            tims = [await stack.enter_async_context(client(service, RedisQuota(store.url), 200)) for _ in range(6)]
            for _ in range(5):
                await asyncio.gather(*(call for tim in tims for call in _each_endpoint(tim)))
            assert all(tim.stats()[NAME].shared for tim in tims)
            assert connections() <= CONNECTIONS
            await tims[0].aclose()
            assert connections() > 0
            await call_some(tims[1])
        await until(lambda: connections() == 0)


def _each_endpoint(tim: TIMClient) -> list[Any]:
    return [
        tim.get_all_c2c_unread_msg_num("a"),
        tim.set_unread_msg_num("g", "a", 1),
        tim.admin_set_msg_read("a", "b"),
        tim.get_group_msg_receipt("g", [1]),
    ]


class Credentials(CredentialProvider):
    """Provides fixed credentials."""

    def __init__(self, *credentials: str) -> None:
        self.credentials = credentials

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        return self.credentials  # type: ignore[return-value]

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


@pytest.mark.parametrize("kind", ["plain", "decoding", "RESP3", "provider", "blocking pool", "one connection"])
async def test_a_client_of_the_users_is_used_as_it_is_and_left_open(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    pool = redis.BlockingConnectionPool.from_url(lasting.url, max_connections=2, timeout=1)
    given: redis.Redis = {
        "plain": lambda: redis.Redis(port=lasting.port),
        "decoding": lambda: redis.Redis(port=lasting.port, decode_responses=True),
        "RESP3": lambda: redis.Redis(port=lasting.port, protocol=3),
        "provider": lambda: redis.Redis(port=lasting.port, credential_provider=Credentials("default", "")),
        "blocking pool": lambda: redis.Redis.from_pool(pool),
        "one connection": lambda: redis.Redis(port=lasting.port, max_connections=1),
    }[kind]()
    async with given:
        quota = quota_on(lasting, url=given)
        assert re.fullmatch(r"RedisQuota\('redis://(127\.0\.0\.1|localhost):\d+/0'\)", repr(quota))
        async with client(service, quota, LIMIT) as one, client(service, quota, LIMIT) as two:
            await asyncio.gather(*_each_endpoint(one), *_each_endpoint(two))
            assert one.stats()[NAME].shared
            assert two.stats()[NAME].shared
        assert await given.ping()
        assert (await quota.check()).role == "master"
    assert logged_warnings(caplog) == []


async def test_an_exhausted_pool_of_the_users_is_waited_for(service: StandIn, lasting: Store) -> None:
    async with (
        redis.Redis(port=lasting.port, max_connections=1) as given,
        client(service, quota_on(lasting, url=given), LIMIT) as tim,
    ):
        await call_some(tim)
        blocked = asyncio.ensure_future(given.blpop(["nothing"], timeout=0.3))
        await until(lambda: given.connection_pool._in_use_connections)
        await call_some(tim)
        assert tim.stats()[NAME].shared
        await blocked


async def test_a_sentinel_client_of_the_users_follows_a_failover(service: StandIn, tmp_path: Path) -> None:
    """Nothing of the user's is closed."""
    with Watched(tmp_path, freeze=False) as watched:
        sentinel = Sentinel([("127.0.0.1", watched.sentinel.port)], socket_timeout=0.5)  # type: ignore[no-untyped-call]
        given = sentinel.master_for(PRIMARY)
        async with client(service, RedisQuota(given), LIMIT) as tim:
            await call_some(tim)
            watched.disturb()
            await asyncio.to_thread(wait, watched.decided)
            await call_some(tim)
            await until(lambda: tim.stats()[NAME].shared)
        assert await given.ping()
        await given.aclose()
        for each in sentinel.sentinels:
            await each.aclose()


async def test_a_cluster_client_of_the_users_follows_a_failover(service: StandIn, tmp_path: Path) -> None:
    with Clustered(tmp_path, key=f"tim_async:{{{APP}:{COMMAND}}}", reshard=False) as cluster:
        given = redis.RedisCluster("127.0.0.1", cluster.stores[0].port)
        async with client(service, RedisQuota(given), LIMIT) as tim:
            await asyncio.gather(*_each_endpoint(tim))
            cluster.disturb()
            await asyncio.to_thread(wait, cluster.decided)
            await call_some(tim)
            await until(lambda: tim.stats()[NAME].shared)
        assert await given.ping(target_nodes=redis.RedisCluster.RANDOM)
        assert (await RedisQuota(given).check()).mode == "cluster"
        await given.aclose()


def test_a_blocking_client_and_options_of_a_url_are_rejected() -> None:
    import redis as blocking

    with pytest.raises(TypeError, match=r"redis\.client\.Redis"):
        RedisQuota(blocking.Redis())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="password is for a store's URL"):
        RedisQuota(redis.Redis(), password="x")


def test_timeouts_follow_the_round_trips() -> None:
    times = RoundTrips()
    assert times.limit == FIRST
    for _ in range(100):
        times.heard(0.001)
    assert times.limit == SHORTEST
    assert times.connecting < 0.5
    for _ in range(100):
        times.heard(0.2)
    assert 0.39 < times.limit < 0.5
    assert times.connecting > 6 * 0.2
    times.heard(5.0)
    assert times.limit == LONGEST
    times.start_over(0.01)
    assert times.limit == SHORTEST
    fixed = RoundTrips(0.1)
    fixed.heard(5.0)
    assert fixed.limit == 0.1


async def test_a_store_whose_round_trip_becomes_long_is_reached_again(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """From a millisecond to longer than all timeouts learned so far."""
    delay = 0.0
    async with replaced_store(relay(lasting, lambda: delay)) as url:
        quota = quota_on(lasting, url=url.replace(f":{SECRET}@", ""), fallback_share=1)
        async with client(service, quota, LIMIT) as tim:
            await call_some(tim)
            link = tim._caller.channels._sharing._link  # type: ignore[union-attr]
            delay = 0.4
            await call_some(tim)
            await until(lambda: link.times.limit > 0.7)
            await until(lambda: tim.stats()[NAME].shared)
    assert logged_warnings(caplog)[:1] == ["away"]


async def test_a_reply_that_arrived_while_the_loop_was_blocked_is_in_time(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(service, quota_on(lasting, timeout=0.1), LIMIT) as tim:
        await call_some(tim)
        for _ in range(3):
            calling = asyncio.create_task(call_some(tim, 1))
            await asyncio.sleep(0)
            time.sleep(0.25)  # noqa: ASYNC251 - as a callback of the application's does
            await calling
        assert tim.stats()[NAME].shared
    assert logged_warnings(caplog) == []
