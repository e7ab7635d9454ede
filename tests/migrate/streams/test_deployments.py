"""Deployments of the store: the user's own clients, clusters, and failovers that lose the last writes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis as blocking
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ConstantBackoff
from redis.exceptions import NoPermissionError

import tim_async
from tests.migrate.storing import claim, row, settle_as
from tests.stand_in import APP, StandIn, client_of, failure_of
from tests.store import Store as Valkey
from tests.topologies import PRIMARY, Clustered, Switched, Watched, wait
from tim_async.migrate import UNREAD, Counts, FileSource, Resumed, Waiting, run
from tim_async.migrate._store import Mended, Pace, RowState
from tim_async.migrate.errors import StoreAway, StoreMisconfigured
from tim_async.migrate.streams import load, read_fleet, write_fleet_rejects

from .fleet import (
    ABOUT,
    Service,
    key,
    last_of,
    lines,
    loaded,
    looking,
    opened,
    planned,
    rejected,
    rows_of,
    served,
    simple_file,
    working,
    write,
)

Make = Callable[[str], Any]


# The user's own clients


CLIENTS: dict[str, Make] = {
    "RESP2, text": lambda url: Redis.from_url(url, protocol=2, decode_responses=True),
    "RESP3, another encoding": lambda url: Redis.from_url(
        url, protocol=3, decode_responses=True, encoding="latin-1", health_check_interval=1
    ),
    "one connection": lambda url: Redis.from_url(url, single_connection_client=True, socket_timeout=3),
    "retries": lambda url: Redis.from_url(url, retry=Retry(ConstantBackoff(0.01), 3), retry_on_error=[OSError]),
    "a pool that waits": lambda url: Redis.from_pool(BlockingConnectionPool.from_url(url, max_connections=1)),
    "a pool that refuses": lambda url: Redis.from_url(url, max_connections=1),
}


@pytest.mark.parametrize("make", CLIENTS.values(), ids=CLIENTS)
async def test_a_client_of_the_user(tmp_path: Path, store: Valkey, service: StandIn, make: Make) -> None:
    """It replaces the URL everywhere, whatever it decodes, and is not closed."""
    file = write(tmp_path / "counts.csv", [("gé", f"m{number}", "1") for number in range(20)] + [("", "x", "1")])
    async with make(store.url) as client:
        assert (await loaded(file, client)).counts == Counts(pending=20, rejected=1)
        await working(service, client, concurrency=3)
        with FileSource(file, UNREAD) as source:
            async with client_of(service) as tim, contextlib.aclosing(run(tim, source, client)) as events:
                assert [event async for event in events][-1].counts == Counts(done=20, rejected=1)  # type: ignore[union-attr]
        assert (await read_fleet(client)).counts == Counts(done=20, rejected=1)
        assert (await write_fleet_rejects(client, tmp_path / "rejected")).rows == 1
        assert await client.ping()
    assert {body["GroupId"] for body in service.bodies} == {"gé"}


@pytest.mark.parametrize("what", [blocking.Redis(), 7, None])
async def test_an_invalid_client(what: Any) -> None:
    with pytest.raises(TypeError, match=r"the store must be a URL or a client of redis\.asyncio"):
        await read_fleet(what)


async def test_a_cluster_client_without_a_time_out_is_refused() -> None:
    """It would not look for the new primary while the old one hangs."""
    with pytest.raises(ValueError, match="set its socket_timeout, such as 5"):
        await read_fleet(RedisCluster(host="127.0.0.1", port=1, socket_timeout=None))


async def test_an_exhausted_pool_is_waited_for(store: Valkey) -> None:
    """As in an outage, because the program's other users release their connections."""
    await planned(store.url, [row(2, "a")])
    told: asyncio.Queue[Waiting | Resumed] = asyncio.Queue()
    client: Any
    async with Redis.from_url(store.url, max_connections=1) as client, opened(client, tell=told.put_nowait) as one:
        taken = await client.connection_pool.get_connection()
        claiming = asyncio.create_task(claim(one))
        assert "onnection" in str(await told.get())
        await client.connection_pool.release(taken)
        assert lines(await claiming) == [2]
    assert isinstance([told.get_nowait() for _ in range(told.qsize())][-1], Resumed)


async def test_errors_that_waiting_does_not_cure(store: Valkey) -> None:
    """They are raised at once, with the remedy."""
    clients: dict[str, Any] = {
        "it does not have this database": Redis(port=store.port, db=999),
        "it is no cluster": RedisCluster(host="127.0.0.1", port=store.port, socket_timeout=5),
        "check the user and the password": Redis.from_url(store.url, username="nobody", password="s3cret"),
        "remove it": Redis.from_url(store.url, no_such_option=1),
    }
    for remedy, client in clients.items():
        raised = await failure_of(read_fleet(client))
        assert isinstance(raised, StoreMisconfigured), raised
        assert remedy in str(raised)
        assert "s3cret" not in str(raised)
        await client.aclose()


async def test_the_documented_rights_are_enough(tmp_path: Path, store: Valkey, service: StandIn) -> None:
    """They do not include the keys of others."""
    text = (Path(tim_async.__file__).parent / "migrate" / "README.md").read_text(encoding="utf-8")
    (rule,) = re.findall(r"ACL SETUSER tim on >PASSWORD .*?(?=```)", text, re.DOTALL)
    url = store.url.replace("//", "//tim:PASSWORD@")
    with store.client() as client:
        client.execute_command(*rule.split())
        client.config_set("appendonly", "yes")
        client.set("other", "x")
    file = write(tmp_path / "counts.csv", [("g", f"m{number % 15}", "1") for number in range(20)] + [("", "x", "1")])
    assert (await loaded(file, url)).warning == ""
    await working(service, url)
    async with opened(url, replace(ABOUT, source=str(file), arguments={}, sdk_app_id=APP, base_url=service.url)) as one:
        assert await one.mend([row(22, "x")]) == Mended(taken=1)
        assert lines(await claim(one)) == [22]
        await settle_as(one, {22: RowState.FAILED})
        assert [problem.line async for problem in one.problems()] == [22]
        assert len([each async for each in one.accepted(0, 100)]) == 15
        await one.set_pace(Pace(rate=5.0))
        await one.note("a", "b")
        await one.save_series("{}")
        assert (await one.status()).counts.failed == 1
        await one.drop(anyway=True)
    async with Redis.from_url(url) as other:
        assert isinstance(await failure_of(other.get("other")), NoPermissionError)


# A cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Clustered]:
    with Clustered(tmp_path / "cluster", key=key("about"), reshard=False) as running:
        yield running


async def test_a_slot_that_moves_to_another_node(cluster: Clustered) -> None:
    """No command is executed while the keys are on both nodes."""
    await planned(cluster.url, [row(line, f"m{line}") for line in range(2, 12)])
    target = next(store for store in cluster.stores[:3] if store is not cluster.owner)
    raised = await failure_of(read_fleet(target.url))
    assert isinstance(raised, StoreMisconfigured)
    assert "begins with redis+cluster://" in str(raised)
    events: list[Waiting | Resumed] = []
    source: Any
    sink: Any
    with cluster.owner.client() as source, target.client() as sink:
        slot = source.cluster("KEYSLOT", key("about"))
        from_id, to_id = source.cluster("MYID"), sink.cluster("MYID")
        async with opened(cluster.url, tell=events.append) as one:
            assert lines(await claim(one, 3)) == [2, 3, 4]
            sink.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", from_id)
            source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", to_id)
            settling = asyncio.create_task(settle_as(one, {2: RowState.DONE, 3: RowState.FAILED}))
            for name in source.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000):
                source.execute_command("MIGRATE", "127.0.0.1", target.port, name, 0, 1000)
                await asyncio.sleep(0.01)
            while not events and not settling.done():  # noqa: ASYNC110 - until all keys were missing
                await asyncio.sleep(0.01)
            assert not settling.done()
            for node in (sink, source):
                node.execute_command("CLUSTER SETSLOT", slot, "NODE", to_id)
            assert (await settling).counts == Counts(done=1, failed=1, sending=1, pending=7)
            assert isinstance(events[-1], Resumed)
            assert await one.mend([row(3, "m3", 9)]) == Mended(taken=1)
            assert lines(await claim(one)) == [3, *range(5, 12)]


HASTY: dict[str, Any] = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}
OPTIONS = "?socket_timeout=0.5&socket_connect_timeout=0.5"


async def worked_through(
    folder: Path, url: str, client: Any, disturb: Callable[[], object], decided: Callable[[], bool], settle: Any
) -> None:
    """Work with a URL and with a client of the user, while the store fails over."""
    service = Service(random.Random(3), faulty=0.0)
    down, up = asyncio.Event(), asyncio.Event()
    service.at |= {60: down.set, 130: up.set}
    async with served(service) as running:
        assert (await loaded(simple_file(folder, 200), client)).complete
        work = asyncio.gather(*(working(running, store, concurrency=5, lease=1) for store in (url, client)))
        await down.wait()
        disturb()
        await asyncio.to_thread(wait, decided)
        await up.wait()
        settle()
        await work
    assert (await read_fleet(client)).counts == Counts(done=200)
    assert len(service.state) == 200


async def test_a_failover_in_a_cluster(tmp_path: Path, cluster: Clustered) -> None:
    """The old primary hangs, and later continues as a replica."""
    async with RedisCluster(host="127.0.0.1", port=cluster.replica.port, decode_responses=True, **HASTY) as client:
        owner = cluster.owner
        await worked_through(tmp_path, cluster.url + OPTIONS, client, owner.freeze, cluster.decided, owner.thaw)


async def test_a_failover_by_sentinels(tmp_path: Path) -> None:
    """The same; Sentinels name the new primary."""
    make: Any = Sentinel
    with Watched(tmp_path / "watched", freeze=True) as watched:
        sentinel = make([("127.0.0.1", watched.sentinel.port)], decode_responses=True, **HASTY)
        url = watched.url + OPTIONS
        async with sentinel.master_for(PRIMARY) as client:
            await worked_through(tmp_path, url, client, watched.disturb, watched.decided, watched.settle)
        await sentinel.sentinels[0].aclose()


async def test_an_address_that_moves_to_another_server(tmp_path: Path) -> None:
    """Connections to the old primary, which is now a replica, are closed."""
    with Switched(tmp_path / "switched") as switched:
        async with Redis.from_url(switched.url) as client:
            await worked_through(tmp_path, switched.url, client, switched.disturb, switched.decided, switched.settle)


async def test_a_cluster_that_is_down_is_an_outage() -> None:
    assert isinstance(await failure_of(read_fleet("redis+cluster://127.0.0.1:1,127.0.0.1:2")), StoreAway)


# A failover that loses the last writes


class Failing(Switched):
    """A primary and its replica, behind an address that leads to the writable one."""

    def detach(self) -> None:
        """Stop the replication: `fail_over` will lose later writes."""
        with self.two.client() as replica:
            replica.replicaof("NO", "ONE")

    def fail_over(self) -> None:
        """Kill the primary, and direct the address to the replica."""
        self.one.kill()
        self._address.target = self.two.port


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Failing]:
    with Failing(tmp_path / "pair") as running:
        yield running


async def test_a_failover_with_lost_writes_loses_no_row(tmp_path: Path, pair: Failing) -> None:
    """Only rows with lost outcomes are sent again, each with its last value."""
    dice = random.Random(9)
    service = Service(dice, faulty=0.0)
    rows = rows_of(dice, 500, 400)
    detached, failed = asyncio.Event(), asyncio.Event()
    service.at |= {150: detached.set, 230: failed.set}
    async with served(service) as running:
        assert (await loaded(write(tmp_path / "counts.csv", rows), pair.url)).complete
        work = asyncio.gather(*(working(running, pair.url, concurrency=5, lease=1) for _ in range(3)))
        await detached.wait()
        pair.detach()
        await failed.wait()
        pair.fail_over()
        workers = await work
    wanted = last_of(rows)
    assert {pair: {value} for pair, value in wanted.items()} == service.values
    status = await read_fleet(pair.url)
    assert status.counts == Counts(done=len(wanted), superseded=500 - len(wanted))
    twice = sum(service.arrivals.values()) - len(wanted)
    assert 60 <= twice <= 140, "about those between the last write that was kept and the failover"
    for events in workers:
        assert [type(event) for event in events if isinstance(event, Waiting | Resumed)][-1:] in ([], [Resumed])


async def test_entry_ids_are_not_reused_after_lost_writes(pair: Failing) -> None:
    """The outcome of a correction that was lost does not count for a later one with the same row."""
    await planned(pair.url, [rejected(2), rejected(3), row(4, "c")])
    async with opened(pair.url) as one:
        pair.detach()
        await one.mend([row(2, "a", 1), row(3, "b", 1)])
        assert lines(await claim(one)) == [2, 3, 4]
        pair.fail_over()
        async with opened(pair.url) as other:
            await other.mend([row(3, "b", 7)])  # at the position of the correction that was lost
            assert [claim.row for claim in await claim(other)] == [row(4, "c"), row(3, "b", 7)]
            reply = await settle_as(one, {2: RowState.DONE, 3: RowState.DONE})
            assert reply.counts == Counts(rejected=1, sending=2)
            # Its other claim is valid, since nobody else has taken it.
            assert (await settle_as(one, {4: RowState.DONE})).counts == Counts(rejected=1, done=1, sending=1)


async def test_a_load_waits_for_the_replicas(tmp_path: Path, pair: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row can be claimed before all replicas have all rows."""
    monkeypatch.setattr("tim_async.migrate._redis_reader._SILENT", 0.0)
    pair.two.freeze()
    found: list[Any] = []
    with FileSource(simple_file(tmp_path, 20), UNREAD) as source:
        async with contextlib.aclosing(load(source, pair.url)) as events, looking(pair.one.url) as redis:
            async for event in events:
                found.append(event)
                if isinstance(event, Waiting) and [type(one) for one in found].count(Waiting) == 1:
                    assert await redis.hget(key("about"), "complete") == "0"
                    pair.two.thaw()
    waiting = next(event for event in found if isinstance(event, Waiting))
    assert (waiting.reason, waiting.until) == (f"a replica of the store at {pair.url} lags", "it has all rows")
    assert (found[-1].complete, "replica" in found[-1].warning) == (True, False)
    pair.detach()
    pair.fail_over()
    assert (await read_fleet(pair.url)).planned


async def test_a_correction_waits_for_the_replicas(pair: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a limited time; then a warning is given."""
    monkeypatch.setattr("tim_async.migrate._redis_reader._SILENT", 0.0)
    await planned(pair.url, [row(2, "a"), rejected(3)])
    notified = asyncio.Event()
    pair.two.freeze()
    async with opened(pair.url, tell=lambda *_: notified.set()) as one:
        mending = asyncio.create_task(one.mend([row(3, "b")]))
        await notified.wait()
        assert not mending.done()
        monkeypatch.setattr("tim_async.migrate._redis_reader._REPLICAS", 0.0)
        assert await mending == Mended(taken=1)
        assert "has a replica that lags, so that a failover now loses rows" in await one.make_durable()
    pair.two.thaw()
