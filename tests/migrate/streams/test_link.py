"""The connection to a store: outages are waited out, and everything else is one clear error."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.migrate.storing import claim, row
from tests.stand_in import failure_of
from tests.store import Store as Valkey
from tests.store import free_port
from tests.topologies import Address
from tim_async.migrate import JournalError, Resumed, Waiting
from tim_async.migrate._redis import RedisStore
from tim_async.migrate.errors import StoreAway, StoreMisconfigured
from tim_async.migrate.streams import read_fleet

from .fleet import ABOUT, key, looking, opened, planned

ROWS = [row(line, f"m{line}") for line in range(2, 12)]
LINK = "tim_async.migrate._redis_link"


async def broken(redis: Any, how: str) -> None:
    """Make the store refuse commands."""
    match how:
        case "WRONGTYPE":
            await redis.set(key("workers"), "x")
        case "NOPERM":
            await redis.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
        case "READONLY":
            await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        case "NOCOMMAND":
            await redis.execute_command("ACL", "SETUSER", "default", "-xautoclaim")
        case "no number":
            await redis.hset(key("counts"), "left", "many")
        case "gone":
            await redis.flushdb()
        case "NOKEYS":
            await redis.execute_command("ACL", "SETUSER", "default", "resetkeys", "~other:*")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("WRONGTYPE", "belongs to something else"),
        ("NOPERM", "refuses: "),
        ("READONLY", "it is a replica; give the primary's URL"),
        ("NOCOMMAND", "give its user the rights listed in migrate/README.md"),
        ("no number", "stream migration at"),
        ("gone", "is gone: "),
        ("NOKEYS", "refuses: "),
    ],
)
async def test_a_refusal_of_the_store_is_one_clear_error(store: Valkey, how: str, says: str) -> None:
    """It is not retried, because waiting does not help."""
    await planned(store.url, ROWS)
    async with opened(store.url) as one, looking(store.url) as redis:
        await broken(redis, how)
        async with asyncio.timeout(20):
            raised = await failure_of(claim(one))
        assert isinstance(raised, JournalError)
        assert says in str(raised)
        assert isinstance(raised, StoreMisconfigured) == (how.isupper() and how != "WRONGTYPE")


async def test_a_failover_is_waited_out(store: Valkey) -> None:
    """A read-only replica may become the primary."""
    await planned(store.url, ROWS)
    told: asyncio.Queue[Waiting | Resumed] = asyncio.Queue()
    async with opened(store.url, tell=told.put_nowait) as one, looking(store.url) as redis:
        await claim(one, 1)
        await broken(redis, "READONLY")
        claiming = asyncio.create_task(claim(one))
        assert "read only replica" in str(await told.get())
        await redis.execute_command("REPLICAOF", "NO", "ONE")
        assert len(await claiming) == len(ROWS) - 1
    assert isinstance([told.get_nowait() for _ in range(told.qsize())][-1], Resumed)


async def test_a_replica_that_was_the_primary_until_now(store: Valkey, tmp_path: Path) -> None:
    """After a failover during the connection, the name is resolved again and leads to the new primary."""
    await planned(store.url, ROWS)
    with Valkey(tmp_path / "old") as old, old.client() as redis:
        redis.replicaof("127.0.0.1", 1)
        with contextlib.closing(Address(store.port, first=old.port)) as address:
            async with opened(f"redis://127.0.0.1:{address.port}/0") as one:
                assert len(await claim(one)) == len(ROWS)


async def test_a_very_long_outage_is_waited_out(monkeypatch: pytest.MonkeyPatch, store: Valkey) -> None:
    """After any number of attempts; reading the status and starting a load fail at once."""
    monkeypatch.setattr(f"{LINK}._LONGEST_PAUSE", 0.0)
    reasons: list[str | None] = []
    stop = asyncio.Event()
    store.kill()
    assert isinstance(await failure_of(read_fleet(store.url)), StoreAway)
    assert isinstance(await failure_of(RedisStore(store.url).open(ABOUT)), StoreAway)

    def tell(event: Waiting | Resumed) -> None:
        reasons.append(event.reason if isinstance(event, Waiting) else None)
        if len(reasons) == 1500:
            store.start()
        if isinstance(event, Waiting) and event.until != "the store is back":
            stop.set()

    one = RedisStore(store.url, "s", stop=stop, tell=tell)
    assert await one.join(1, "x") is None
    await one.close()
    assert reasons[1500] is None
    assert set(reasons[:1500]) == {reasons[0]}
    assert str(reasons[0]).startswith(f"cannot reach the store at {store.url}: ")
    assert str(reasons[-1]).startswith("there is no stream s at ")


async def test_errors_hide_the_password(store: Valkey) -> None:
    """Each is one line."""
    async with looking(store.url) as redis:
        await redis.config_set("requirepass", "s3cret")
        await redis.execute_command("AUTH", "s3cret")
        await redis.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read")
        raised = [
            await failure_of(read_fleet(store.url.replace("//", f"//{user}")))
            for user in ("", ":wr0ng@", "reader:pw@", ":s3cret@")
        ]
    for one in raised:
        assert isinstance(one, JournalError)
        assert store.url in str(one)
        assert "\n" not in str(one)
        assert not any(secret in str(one) for secret in ("s3cret", "wr0ng", "pw@"))
    assert ["refuses" in str(one) for one in raised] == [True, True, True, False]


async def test_errors_hide_the_password_of_sentinels(tmp_path: Path) -> None:
    """Some versions of redis-py name it in their own error."""
    away = f"redis+sentinel://127.0.0.1:{free_port()}/m"
    raised = await failure_of(read_fleet(f"{away}?sentinel_password=s3cret"))
    assert isinstance(raised, StoreAway)
    assert str(raised) == f"cannot reach the store at {away}: No master found for 'm'"
    assert "s3cret" not in "".join(traceback.format_exception(raised))
    with Valkey(tmp_path, sentinel=True) as sentinel:
        raised = await failure_of(read_fleet(f"redis+sentinel://127.0.0.1:{sentinel.port}/m"))
    assert isinstance(raised, StoreMisconfigured)
    assert "check the primary's name in the URL" in str(raised)


NONSENSE = [
    b"+OK\r\n",
    b"$2\r\nOK\r\n",
    b":1\r\n",
    b":many\r\n",
    b"$many\r\n",
    b"$-7\r\n",
    b"*-7\r\n",
    b"*many\r\n",
    b"*1\r\n$4\r\nnone\r\n",
    b"$2\r\n{}\r\n",
    b"$15\r\n" + b'{"about":[5,{}]}'[:15] + b"\r\n",
    b'$17\r\n{"about":{"id":1}\r\n',
    b'$12\r\n{"counts":5}\r\n',
    b'$15\r\n{"error":[1,2]}\r\n',
    b"$3000\r\n" + b"[" * 3000 + b"\r\n",
    b"*1\r\n" * 3000,
    b"%1\r\n+a\r\n",
    b"%1\r\n*1\r\n+a\r\n+b\r\n",
    b"~1\r\n*0\r\n",
    b"(999999999999999999999\r\n",
    b"_\r\n",
    b"-\r\n",
    b"-ERR\r\n",
    b"\x00\xff\xfe\r\n",
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\r\n" * 100,
]


@contextlib.asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[str]:
    """Run a server that gives the same reply to each command."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                # One reply per command, so that each gets its own.
                writer.write(reply * max(1, data.count(b"*")))
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@pytest.mark.parametrize("reply", NONSENSE, ids=range(len(NONSENSE)))
async def test_a_server_that_is_not_a_store(monkeypatch: pytest.MonkeyPatch, reply: bytes) -> None:
    """Reading the status fails with one error; joining fails, or waits and can be stopped."""
    monkeypatch.setattr(f"{LINK}.TIMEOUT", 0.1)
    monkeypatch.setattr(f"{LINK}._GRACE", 0.1)
    async with asyncio.timeout(30), answering(reply) as url:
        raised = await failure_of(read_fleet(url))
        assert isinstance(raised, JournalError), raised
        assert "\n" not in str(raised)
        stop = asyncio.Event()
        store = RedisStore(url, stop=stop)
        asyncio.get_running_loop().call_later(0.1, stop.set)
        with contextlib.suppress(JournalError):
            assert await store.join(1, "x") is None
        await store.close("failed")


async def test_a_command_that_ignores_its_cancellation(monkeypatch: pytest.MonkeyPatch, store: Valkey) -> None:
    """As time-outs of redis-py can on Python 3.11: neither the caller nor the end of the run waits for it."""
    over, begun = asyncio.Event(), asyncio.Event()
    deaf: list[asyncio.Task[Any] | None] = []

    async def command(*_: Any, **__: Any) -> None:
        deaf.append(asyncio.current_task())
        begun.set()
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    monkeypatch.setattr(Redis, "execute_command", command)
    monkeypatch.setattr(f"{LINK}._CLOSING", 0.1)
    monkeypatch.setattr(f"{LINK}._GRACE", 0.1)
    async with asyncio.timeout(20):
        one, other = RedisStore(store.url), RedisStore(store.url)
        running = asyncio.create_task(one.status())
        await begun.wait()
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        await one.close()
        begun.clear()
        joining = asyncio.create_task(other.join(1, "x"))
        await begun.wait()
        other.hurry()
        for step in (joining, other.counts(), other.counts()):  # after the first time-out, commands are not sent
            assert isinstance(await failure_of(step), StoreAway)
        await other.close()
        over.set()
        await asyncio.wait([task for task in deaf if task is not None])
    assert len(deaf) == 2


async def test_a_command_that_was_cancelled_from_elsewhere_is_repeated(
    monkeypatch: pytest.MonkeyPatch, store: Valkey
) -> None:
    """The caller itself was not cancelled."""
    await planned(store.url, ROWS)
    cancelled: list[bool] = []
    real: Callable[..., Any] = Redis.execute_command

    async def once(*args: Any, **options: Any) -> Any:
        if not cancelled:
            cancelled.append(True)
            raise asyncio.CancelledError
        return await real(*args, **options)

    monkeypatch.setattr(Redis, "execute_command", once)
    assert (await read_fleet(store.url)).counts.pending == len(ROWS)
    assert cancelled
