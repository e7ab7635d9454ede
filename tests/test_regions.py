"""Hosts and their backups, which are used, and kept, when the first host cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
import pytest

from tim_async import APIError, Attempt, ConnectFailed, RetryPolicy, TIMClient, TIMError
from tim_async.regions import REGIONS, Hosts

from .networks.support import Authority, Resolver
from .stand_in import APP, KEY, Fate, Reply, StandIn, chain, client_of, error, failure_of, page

FIRST, BACKUP = "first.example", "backup.example"


def client_at(
    session: aiohttp.ClientSession, *urls: str, retry: RetryPolicy | None = None, timeout: float = 10.0, **options: Any
) -> TIMClient:
    """Make a client of a region with these two hosts, over plain HTTP."""
    tim = TIMClient(
        sdk_app_id=APP,
        secret_key=KEY,
        region="singapore",
        session=session,
        timeout=timeout,
        retry=retry or RetryPolicy(wait=(0, 0), wait_rate_limited=(0, 0)),
        **options,
    )
    tim._caller._transport._hosts = Hosts(*urls)  # a region's own are https
    return tim


def session_with(names: Resolver, **options: Any) -> aiohttp.ClientSession:
    # No cache: each attempt resolves the name, and the test sees it.
    connector = aiohttp.TCPConnector(resolver=names, use_dns_cache=False, **options)
    return aiohttp.ClientSession(connector=connector)


async def test_the_backup_of_a_host_that_cannot_be_resolved_is_used_and_kept(service: StandIn) -> None:
    """Within the first attempt; later calls use it at once."""
    names = Resolver({BACKUP: service.port})
    async with session_with(names) as session:
        tim = client_at(session, f"http://{FIRST}:{service.port}", f"http://{BACKUP}:{service.port}")
        for _ in range(3):
            assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert names.asked.count(FIRST) == 1
    assert {seen.headers["host"] for seen in service.seen} == {f"{BACKUP}:{service.port}"}
    assert len(service.seen) == 3


async def test_the_backup_of_a_host_that_refuses_connections_is_used(service: StandIn) -> None:
    """Also for a call that is not repeatable: nothing was sent."""
    async with StandIn() as gone:
        pass
    async with session_with(Resolver({FIRST: gone.port, BACKUP: service.port})) as session:
        tim = client_at(session, f"http://{FIRST}:{gone.port}", f"http://{BACKUP}:{service.port}")
        assert (await tim.call("v4/openim/sendmsg", {}))["ErrorCode"] == 0
    assert len(service.seen) == 1


async def test_two_unreachable_hosts_are_connect_failed_without_a_foreign_exception(service: StandIn) -> None:
    """After the retries, with the name of a host."""
    names = Resolver({})
    retry = RetryPolicy(attempts=3, wait=(0, 0))
    async with session_with(names) as session:
        tim = client_at(session, f"http://{FIRST}:1", f"http://{BACKUP}:1", retry=retry)
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectFailed)
    assert not failure.outcome_unknown
    assert failure.attempts == 3
    assert "example" in str(failure)
    assert names.asked.count(FIRST) == names.asked.count(BACKUP) == 3
    assert [type(link) for link in chain(failure) if not isinstance(link, TIMError)] == []


async def test_the_first_host_is_used_again_when_the_backup_fails(service: StandIn) -> None:
    """The record of an attempt has the URL of the host that was used."""
    names = Resolver({BACKUP: service.port})
    attempts: list[Attempt] = []
    async with session_with(names) as session:
        urls = f"http://{FIRST}:{service.port}", f"http://{BACKUP}:{service.port}"
        tim = client_at(session, *urls, on_attempt=attempts.append)
        await tim.get_all_c2c_unread_msg_num("alice")
        names.ports = {FIRST: service.port}
        await service.disconnect()
        for _ in range(2):
            await tim.get_all_c2c_unread_msg_num("alice")
    hosts = [seen.headers["host"] for seen in service.seen if seen.path]
    assert [host.partition(":")[0] for host in (hosts[0], hosts[-1])] == [BACKUP, FIRST]
    answered = [attempt.url for attempt in attempts if attempt.status == 200]
    assert answered == [f"http://{host}/v4/openim/get_c2c_unread_msg_num" for host in hosts]


async def test_the_record_of_an_attempt_names_its_own_host_although_others_have_moved(service: StandIn) -> None:
    names, attempts = Resolver({FIRST: service.port, BACKUP: service.port}), list[Attempt]()
    service.script.append(Fate.HOLD)
    async with session_with(names) as session:
        urls = f"http://{FIRST}:{service.port}", f"http://{BACKUP}:{service.port}"
        tim = client_at(session, *urls, on_attempt=attempts.append)
        held = asyncio.create_task(tim.get_all_c2c_unread_msg_num("alice"))
        await service.until(1)
        del names.ports[FIRST]
        await tim.get_all_c2c_unread_msg_num("bob")
        held.cancel()
        await asyncio.wait([held])
    assert [attempt.url for attempt in attempts] == [
        f"{url}/v4/openim/get_c2c_unread_msg_num" for url in reversed(urls)
    ]


async def test_concurrent_calls_move_to_the_backup_once(service: StandIn) -> None:
    """Their failures do not switch the host back and forth."""
    names = Resolver({BACKUP: service.port})
    async with session_with(names) as session:
        tim = client_at(session, f"http://{FIRST}:{service.port}", f"http://{BACKUP}:{service.port}")
        found = await asyncio.gather(*(tim.get_all_c2c_unread_msg_num("alice") for _ in range(50)))
        assert found == [7] * 50
        asked = names.asked.count(FIRST)
        await tim.get_all_c2c_unread_msg_num("alice")
        assert names.asked.count(FIRST) == asked
    assert {seen.headers["host"] for seen in service.seen} == {f"{BACKUP}:{service.port}"}


@pytest.mark.parametrize("fault", [page(502), Reply(b"", 503), Fate.DROP, error(10002), error(60026)], ids=str)
async def test_a_host_that_was_reached_is_kept(service: StandIn, fault: Any) -> None:
    """An error of the service would be the same at the backup."""
    async with (
        StandIn() as other,
        session_with(Resolver({FIRST: service.port, BACKUP: other.port})) as session,
    ):
        service.script.append(fault)
        tim = client_at(session, f"http://{FIRST}:{service.port}", f"http://{BACKUP}:{other.port}")
        with contextlib.suppress(APIError):  # 60026 is permanent; the others are retried here
            assert await tim.get_all_c2c_unread_msg_num("alice") == 7
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert other.connections == 0


async def test_a_time_out_in_a_callers_full_pool_keeps_the_host(service: StandIn) -> None:
    """It says nothing about the host."""
    async with (
        StandIn() as other,
        session_with(Resolver({FIRST: service.port, BACKUP: other.port}), limit=1) as session,
    ):
        retry = RetryPolicy(attempts=1)
        service.script.append(Fate.HOLD)
        url = f"http://{FIRST}:{service.port}/v4/openim/x?sdkappid=1&identifier=a&usersig=b&random=1&contenttype=json"
        holding = asyncio.create_task(session.post(url, json={}))  # the caller's own use of the session
        await service.until(1)
        tim = client_at(
            session, f"http://{FIRST}:{service.port}", f"http://{BACKUP}:{other.port}", retry=retry, timeout=0.1
        )
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
        assert isinstance(failure, TIMError)
        service.let_go.set()
        (await holding).close()
        assert await tim.with_options(timeout=10).get_all_c2c_unread_msg_num("alice") == 7
    assert other.connections == 0


def test_each_region_has_its_documented_hosts() -> None:
    """Copied from the documents independently of the client's table."""
    assert REGIONS == {
        "china": ("console.tim.qq.com", "adminapi.my-imcloud.com"),
        "singapore": ("adminapisgp.im.qcloud.com", "adminapisgp.my-imcloud.com"),
        "seoul": ("adminapikr.im.qcloud.com", "adminapikr.my-imcloud.com"),
        "tokyo": ("adminapijpn.im.qcloud.com", "adminapijpn.my-imcloud.com"),
        "frankfurt": ("adminapiger.im.qcloud.com", "adminapiger.my-imcloud.com"),
        "silicon_valley": ("adminapiusa.im.qcloud.com", "adminapiusa.my-imcloud.com"),
        "jakarta": ("adminapiidn.im.qcloud.com", "adminapiidn.my-imcloud.com"),
        "saudi_arabia": ("adminapiksa.im.qcloud.com", "adminapiksa.my-imcloud.com"),
    }


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("cn", "console.tim.qq.com"),
        ("sgp", "adminapisgp.im.qcloud.com"),
        ("kr", "adminapikr.im.qcloud.com"),
        ("jpn", "adminapijpn.im.qcloud.com"),
        ("ger", "adminapiger.im.qcloud.com"),
        ("usa", "adminapiusa.im.qcloud.com"),
        ("idn", "adminapiidn.im.qcloud.com"),
        ("ksa", "adminapiksa.im.qcloud.com"),
        (" SGP ", "adminapisgp.im.qcloud.com"),
        ("SINGAPORE", "adminapisgp.im.qcloud.com"),
        (" tokyo ", "adminapijpn.im.qcloud.com"),
        ("Silicon Valley", "adminapiusa.im.qcloud.com"),
        ("silicon-valley", "adminapiusa.im.qcloud.com"),
    ],
)
def test_a_region_has_a_short_name_and_any_common_spelling(region: str, host: str) -> None:
    """Case, blanks and hyphens do not matter; scripts in the vendor's style use the short names."""
    assert TIMClient(sdk_app_id=APP, secret_key=KEY, region=region).base_url == f"https://{host}"


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.7", "http://adminapisgp.im.qcloud.com", "http://127.0.0.1.example", "http://[2001:db8::1]:80"],
)
def test_http_to_another_machine_needs_allow_http(url: str) -> None:
    """The UserSig of an admin would cross the network unencrypted."""
    with pytest.raises(ValueError, match="allow_http=True"):
        TIMClient(sdk_app_id=APP, secret_key=KEY, base_url=url)
    assert TIMClient(sdk_app_id=APP, secret_key=KEY, base_url=url, allow_http=True).base_url == url


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8099", "http://127.9.9.9", "http://localhost:1", "http://LOCALHOST.", "http://[::1]:8099"]
)
def test_http_to_this_machine_is_allowed(url: str) -> None:
    assert TIMClient(sdk_app_id=APP, secret_key=KEY, base_url=url).base_url == url


def test_several_reports_of_a_failed_host_switch_once() -> None:
    """The backup is current at the second report."""
    hosts = Hosts("https://a", "https://b")
    assert hosts.current == "https://a"
    assert [hosts.after("https://a") for _ in range(5)] == ["https://b"] * 5
    assert hosts.after("https://b") == "https://a"


async def test_a_base_url_has_no_backup(service: StandIn) -> None:
    """With or without a slash at its end, it is the only host."""
    for base_url in (service.url, service.url + "/"):
        async with client_of(service, base_url=base_url) as tim:
            await tim.get_all_c2c_unread_msg_num("alice")
    assert {seen.path for seen in service.seen} == {"/v4/openim/get_c2c_unread_msg_num"}


async def test_a_host_with_a_certificate_of_another_name_is_replaced_by_its_backup() -> None:
    """Over TLS; nothing is sent to the first host, whose name may be hijacked."""
    authority = Authority()
    async with (
        StandIn(tls=authority.server(REGIONS["singapore"][1])) as service,
        session_with(Resolver(dict.fromkeys(REGIONS["singapore"], service.port)), ssl=authority.client()) as session,
        TIMClient(sdk_app_id=APP, secret_key=KEY, region="singapore", session=session) as tim,
    ):
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert {seen.headers["host"] for seen in service.seen} == {REGIONS["singapore"][1]}
    assert service.violations == []
