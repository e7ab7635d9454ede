"""A store with a wrong configuration: calls fail at once, the error names the remedy, and no restart is needed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import pickle
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis import Redis, exceptions
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.sentinel import Sentinel

from tests.documents import ROOT
from tests.stand_in import APP, StandIn, failure_of, outcome_of
from tests.store import SERVERS, Store
from tests.topologies import PRIMARY, Address, Clustered, Pair, Watched, wait
from tim_async import TIMError
from tim_async.quota import QuotaMisconfigured, RedisQuota

from .support import COMMAND, NAME, Counting, calling, client, quota_on, until
from .test_outage import SECRET, always, call_some, logged_warnings, replaced_store, scripted

LIMIT = 50
FAULTS = {
    "http": (always(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "protocol of Redis"),
    "garbage": (always(b"\x00\xff\xfe garbage \r\n"), "protocol of Redis"),
    "readonly": (scripted(b"-READONLY You can't write against a read only replica.\r\n"), "a replica"),
    "noperm": (scripted(b"-NOPERM this user has no permissions to run the 'evalsha' command\r\n"), "the rights listed"),
    "moved": (scripted(b"-MOVED 3999 127.0.0.1:6381\r\n"), "redis\\+cluster://"),
    "proxy": (
        scripted(f"-ERR unknown command `EVALSHA`, with args beginning with: `{SECRET}`\r\n".encode()),
        "a proxy without scripts",
    ),
    "wrongpass": (always(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"), "the password"),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("fail_closed", [False, True])
async def test_a_misconfiguration_fails_the_first_call_with_the_remedy(
    service: StandIn, caplog: pytest.LogCaptureFixture, kind: str, fail_closed: bool
) -> None:
    serve, message = FAULTS[kind]
    async with replaced_store(serve) as url, client(service, RedisQuota(url, fail_closed=fail_closed), LIMIT) as tim:
        for _ in range(2):
            error = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
            assert type(error) is QuotaMisconfigured
            assert re.search(message, str(error))
            assert re.search(rf"^{NAME}: the shared quota at RedisQuota\('redis://127.0.0.1:\d+/0'\)", str(error))
            assert str(pickle.loads(pickle.dumps(error))) == str(error)
            assert SECRET not in f"{error!r}{error}"
    assert service.seen == []
    assert logged_warnings(caplog) == []


@pytest.mark.parametrize("kind", FAULTS)
async def test_a_misconfiguration_counts_as_an_outage_without_fail_fast(
    service: StandIn, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    serve, message = FAULTS[kind]
    async with (
        replaced_store(serve) as url,
        client(service, RedisQuota(url, fail_fast=False, fallback_share=1), LIMIT) as tim,
    ):
        await call_some(tim, 10)
        assert not tim.stats()[NAME].shared
    assert logged_warnings(caplog) == ["away"]
    assert re.search(message, caplog.text)


async def test_a_corrected_configuration_needs_no_restart(service: StandIn, store: Store) -> None:
    """The store is tried again every second."""
    with store.client() as redis:
        redis.config_set("requirepass", SECRET)
    async with client(service, RedisQuota(store.url), LIMIT) as tim:
        assert "check the user and the password" in str(await failure_of(tim.get_all_c2c_unread_msg_num("alice")))
        with Redis(port=store.port, password=SECRET) as redis:
            redis.config_set("requirepass", "")

        await until(lambda: tim.stats()[NAME].shared)
        await call_some(tim)


async def test_a_connection_to_a_former_primary_is_no_misconfiguration(
    service: StandIn, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a client connects just before a failover: the same name leads to another primary now."""
    with Store(tmp_path / "old") as old, old.client() as redis:
        redis.replicaof("127.0.0.1", 1)
        with contextlib.closing(Address(store.port, first=old.port)) as address:
            async with client(service, RedisQuota(f"redis://127.0.0.1:{address.port}/0"), LIMIT) as tim:
                await call_some(tim)
                assert tim.stats()[NAME].shared
    assert logged_warnings(caplog) == []


async def test_a_store_that_revokes_a_right_counts_as_an_outage(
    service: StandIn, caplog: pytest.LogCaptureFixture, store: Store
) -> None:
    """It stops no running process."""
    async with client(service, RedisQuota(store.url, fallback_share=1), LIMIT) as tim, calling((tim, "alice")):
        await until(lambda: tim.stats()[NAME].shared and service.seen)
        with store.client() as redis:
            redis.acl_setuser("default", commands=["-evalsha", "-eval"], enabled=True)
            await until(lambda: not tim.stats()[NAME].shared)
            redis.acl_setuser("default", commands=["+@all"], enabled=True)
            await until(lambda: tim.stats()[NAME].shared)
    assert logged_warnings(caplog) == ["away", "back"]
    assert "rights listed in FLEET.md" in caplog.text


async def test_a_foreign_key_fails_its_endpoint_alone(
    service: StandIn, lasting: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is left as it is."""
    quota = quota_on(lasting)
    async with client(service, quota, LIMIT) as tim:
        await call_some(tim)
        with lasting.client() as redis:
            (name,) = redis.keys(f"{quota._namespace}:*:state")
            other = str(name).replace("get_c2c_unread_msg_num", "admin_set_msg_read")
            redis.set(other, "mine")
            error = await failure_of(tim.admin_set_msg_read("alice", "bob"))
            assert redis.get(other) == "mine"
        assert type(error) is QuotaMisconfigured
        assert "give another namespace" in str(error)
        await call_some(tim)
        assert tim.stats()[NAME].shared
    assert logged_warnings(caplog) == []


def misconfigurations(store: Store, pair: Pair) -> Iterator[tuple[Any, str]]:
    yield f"redis://127.0.0.1:{pair.two.port}", "it is a replica"
    yield f"redis+cluster://127.0.0.1:{store.port}", "it is no cluster"
    yield f"redis://127.0.0.1:{store.port}/99", "does not have this database"
    yield f"redis://joe:{SECRET}@127.0.0.1:{store.port}", "check the user and the password"
    yield "redis://127.0.0.1:9", "unreachable"


async def test_check_names_misconfigurations(lasting: Store, tmp_path: Path) -> None:
    with Pair(tmp_path) as pair:
        for url, message in misconfigurations(lasting, pair):
            error = await failure_of(RedisQuota(url).check())
            assert type(error) is QuotaMisconfigured
            assert issubclass(QuotaMisconfigured, TIMError)
            assert re.search(message, str(error)), str(error)
            assert SECRET not in str(error)


async def test_check_names_misconfigurations_of_sentinels(service: StandIn, tmp_path: Path) -> None:
    """redis-py has one error for all of them; a primary that is down is an outage nevertheless."""
    with Watched(tmp_path, freeze=False) as watched, watched.sentinel.client() as redis:
        sentinel = f"127.0.0.1:{watched.sentinel.port}"
        another = watched.url.replace(f"/{PRIMARY}", "/another")
        mine = Sentinel([("127.0.0.1", watched.sentinel.port)])  # type: ignore[no-untyped-call]
        for store, message in (
            (another, "check the primary's name"),
            (mine.master_for("another"), "check the primary's name"),
            (mine.slave_for(PRIMARY), "it is a replica"),
            (f"redis+sentinel://127.0.0.1:{watched.one.port}/{PRIMARY}", "it is no Sentinel"),
            (f"redis://{sentinel}", "redis\\+sentinel:// for a Sentinel"),
            (f"{watched.url}?sentinel_password={SECRET}", "check sentinel_username and sentinel_password"),
        ):
            error = await failure_of(RedisQuota(store).check())
            assert type(error) is QuotaMisconfigured
            assert re.search(message, str(error)), str(error)
            assert SECRET not in str(error)
            if isinstance(store, AsyncRedis):
                await store.aclose()
        for asked in mine.sentinels:
            await asked.aclose()
        async with client(service, RedisQuota(another), LIMIT) as tim:
            assert type(await failure_of(tim.get_all_c2c_unread_msg_num("alice"))) is QuotaMisconfigured
        redis.execute_command("ACL", "SETUSER", "default", f">{SECRET}")
        with Redis(port=watched.sentinel.port, password=SECRET, decode_responses=True) as known:
            assert "check sentinel_username" in str(await failure_of(RedisQuota(watched.url).check()))
            known.execute_command("ACL", "SETUSER", "default", "nopass")
        for store in (watched.one, watched.two):
            store.kill()
        await asyncio.to_thread(wait, lambda: redis.sentinel_master(PRIMARY)["is_sdown"])
        assert "; it is unreachable" in str(await failure_of(RedisQuota(watched.url).check()))


@pytest.mark.parametrize("kind", ["redis", "redis+cluster", "redis+sentinel"])
async def test_check_names_tls_and_other_protocols(store: Store, kind: str) -> None:
    """A TLS server closes plain connections, a plain server waits for more, and some HTTP servers close, too."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes = b"") -> None:
        with contextlib.suppress(OSError, asyncio.LimitOverrunError):
            await reader.read(1)
            writer.write(answer)
        writer.close()

    certificate = trustme.CA().issue_cert("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    page = functools.partial(serve, answer=b"<!DOCTYPE HTML>\n<html>")
    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as secure,
        await asyncio.start_server(page, "127.0.0.1", 0) as http,
        await asyncio.start_server(serve, "127.0.0.1", 0) as silent,
    ):
        end = "/m" if kind.endswith("sentinel") else ""
        ports = [server.sockets[0].getsockname()[1] for server in (secure, http, silent)]
        for url, message in (
            (f"{kind}://127.0.0.1:{ports[0]}{end}", "it speaks TLS; give a URL that begins with rediss://"),
            (f"{kind.replace('redis', 'rediss')}://127.0.0.1:{store.port}{end}", "it does not speak TLS"),
            (f"{kind}://127.0.0.1:{ports[1]}{end}", "it does not speak the protocol of Redis"),
            (f"{kind}://127.0.0.1:{ports[2]}{end}", "; it is unreachable"),
        ):
            error = await failure_of(RedisQuota(url).check())
            assert type(error) is QuotaMisconfigured
            assert message in str(error), str(error)


@pytest.mark.parametrize("option", ["nonsense", "decode_response"])
@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "redis+sentinel://h/m", "redis+cluster://h"])
def test_an_unknown_option_is_a_type_error_in_the_constructor(url: str, option: str) -> None:
    with pytest.raises(TypeError, match=option):
        RedisQuota(url, **{option: 1})  # type: ignore[arg-type]


def rule(heading: str) -> str:
    """Return an ACL rule of FLEET.md."""
    text = (ROOT / "tim_async" / "FLEET.md").read_text(encoding="utf-8")
    found = re.search(rf"^ACL SETUSER {re.escape(heading)} .*(?:\n  .*)*", text, re.MULTILINE)
    assert found is not None
    return " ".join(found.group().split())


def test_the_acl_rule_permits_exactly_the_commands_of_the_script() -> None:
    source = (ROOT / "tim_async" / "_limiter" / "quota.lua").read_text(encoding="utf-8")
    used = set(re.findall(r"redis\.p?call\('([A-Z]+)'", source))
    permitted = {word[1:].upper() for word in rule("tim on").split() if word.startswith("+")}
    others = {"EVALSHA", "EVAL", "PING", "SELECT", "CLIENT|SETINFO", "CLIENT|SETNAME"}
    assert permitted == used | others


@pytest.mark.parametrize("server", SERVERS)
async def test_the_rights_of_the_acl_rule_suffice(
    service: StandIn, caplog: pytest.LogCaptureFixture, tmp_path: Path, server: str
) -> None:
    """Calls work, no command is denied, and `check` needs no more."""
    counting = service.answer = Counting(LIMIT)
    with Store(tmp_path / "v", server=server) as store, store.client() as redis:
        redis.execute_command(*rule("tim on").replace("PASSWORD", SECRET).split())
        url = f"redis://tim:{SECRET}@127.0.0.1:{store.port}/0"
        async with client(service, RedisQuota(url), LIMIT) as tim:
            await call_some(tim)
            assert tim.stats()[NAME].shared
        report = await RedisQuota(url).check()
        denied = {entry["object"] for entry in redis.acl_log()}
        assert denied <= {"client|setinfo"} if server == "redis 6.2" else denied == set()
        assert report.role == "master"
        assert report.run_id
        assert report.risks == ()
        assert (report.server == "valkey") is (server == "valkey")
        # Calls do not need the right to INFO.
        redis.acl_setuser("tim", commands=["-info"], enabled=True)
        report = await RedisQuota(url).check()
        assert not report.run_id
        assert report.eviction == report.role == "not permitted to see"
        assert any("+info" in risk for risk in report.risks)
        redis.acl_setuser("tim", commands=["-zadd"], enabled=True)
        assert "rights listed in FLEET.md" in str(await failure_of(RedisQuota(url).check()))
    assert counting.refused == 0
    assert logged_warnings(caplog) == []


@pytest.mark.parametrize("deployment", ["Sentinel", "cluster"])
async def test_the_rights_of_the_acl_rules_suffice_during_a_failover(
    service: StandIn, caplog: pytest.LogCaptureFixture, tmp_path: Path, deployment: str
) -> None:
    """No command is denied while the primary is found, dies or moves, and is found again."""
    quota_rules, options = [rule("tim on")], dict[str, Any]()
    topology: Watched | Clustered
    if deployment == "cluster":
        topology = Clustered(tmp_path, key=f"tim_async:{{{APP}:{COMMAND}}}", reshard=True)
        quota_rules.append(rule("tim +cluster|slots"))
    else:
        topology = Watched(tmp_path, freeze=False)
        options = {"sentinel_username": "watcher", "sentinel_password": SECRET}
    with topology, contextlib.ExitStack() as stack:
        every = {store: stack.enter_context(store.client()) for store in topology.stores}
        for store, redis in every.items():
            watches = isinstance(topology, Watched) and store is topology.sentinel
            for words in [rule("watcher on")] if watches else quota_rules:
                redis.execute_command(*words.replace("PASSWORD", SECRET).split())
        url = topology.url.replace("://", f"://tim:{SECRET}@")
        async with client(service, RedisQuota(url, **options), LIMIT) as tim, calling((tim, "alice")):
            await until(lambda: tim.stats()[NAME].shared and service.seen)
            await asyncio.to_thread(topology.disturb)
            await asyncio.to_thread(wait, topology.decided)
            seen = len(service.seen)
            await until(lambda: tim.stats()[NAME].shared and len(service.seen) >= seen + LIMIT)
        found = await outcome_of(RedisQuota(url, **options).check())
        while "No master found" in str(found):  # on a busy machine, Sentinels may reply too late
            found = await outcome_of(RedisQuota(url, **options).check())
        assert found.role == "master"
        for redis in every.values():
            with contextlib.suppress(exceptions.ConnectionError):  # the one that was killed
                assert redis.acl_log() == []
    assert set(logged_warnings(caplog)) <= {"away", "back"}
