"""The network to the service: names, connections, proxies, TLS, backup hosts and regions, on real sockets."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.networks.support import PASSWORD, Authority, Resolver, answering, http, self_signed
from tests.observers.places import Full
from tests.peer import Peer, Talk
from tests.stand_in import APP, KEY, Seen, StandIn, client_of, error, sensible
from tests.store import free_port
from tim_async import ConnectFailed, TIMClient
from tim_async.regions import REGIONS

from .support import examine, level, problems

QUICK = 0.4


async def examined(**options: Any) -> Any:
    async with TIMClient(**{"sdk_app_id": APP, "secret_key": KEY, **options}) as tim:
        return await examine(tim, timeout=QUICK)


async def test_a_refused_connection_is_tcp_refused() -> None:
    found = await examined(base_url=f"http://127.0.0.1:{free_port()}")
    assert problems(found) == {"tcp.refused"}
    assert level(found, "answer") == "skipped"


async def test_a_connection_timeout_is_tcp_late() -> None:
    """The examination ends after the timeout of one step."""
    async with Full() as black_hole:
        assert problems(await examined(base_url=black_hole.url)) == {"tcp.late"}


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70, "a..b"])
async def test_an_unresolvable_or_invalid_name_is_dns_failed(host: str) -> None:
    found = await examined(base_url=f"https://{host}")
    assert problems(found) == {"dns.failed"}
    assert level(found, "tcp") == level(found, "tls") == "skipped"


async def test_a_name_without_an_address_is_dns_failed() -> None:
    """The session's resolver is not asked for an IP address."""
    async with StandIn() as service, session_of(Authority(), {"chat.test": None}) as session:
        assert problems(await examined(base_url="https://chat.test", session=session)) == {"dns.failed"}
        assert problems(await examined(base_url=service.url, session=session)) == set()


async def test_a_silent_name_server_is_dns_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up is abandoned, without waiting for its thread."""
    waiting = threading.Event()

    def lookup(*_: Any, **__: Any) -> Any:
        waiting.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    try:
        assert problems(await examined(base_url="https://slow.invalid")) == {"dns.late"}
    finally:
        waiting.set()


# TLS


@asynccontextmanager
async def session_of(authority: Authority, ports: Mapping[str, int | None]) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=authority.client(), resolver=Resolver(ports))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.mark.parametrize("kind", ["unknown authority", "another name", "self-signed"])
async def test_an_untrusted_certificate_is_tls_untrusted(kind: str) -> None:
    authority = Authority()
    contexts = {
        "unknown authority": lambda: Authority().server("chat.test"),
        "another name": lambda: authority.server("other.test"),
        "self-signed": self_signed,
    }
    async with StandIn(tls=contexts[kind]()) as service, session_of(authority, {"chat.test": service.port}) as session:
        found = await examined(base_url="https://chat.test", session=session)
        assert service.seen == []
    assert problems(found) == {"tls.untrusted"}


@pytest.mark.parametrize("limit", ["not_before", "not_after"])
async def test_an_expired_or_future_certificate_is_tls_untrusted(limit: str) -> None:
    """The remedy mentions this machine's clock, which no Date header can show before TLS works."""
    authority, day = Authority(), dt.timedelta(days=1 if limit == "not_before" else -1)
    tls = authority.server("chat.test", **{limit: dt.datetime.now(dt.UTC) + day})
    async with StandIn(tls=tls) as service, session_of(authority, {"chat.test": service.port}) as session:
        found = await examined(base_url="https://chat.test", session=session)
    assert problems(found) == {"tls.untrusted"}
    assert "clock" in next(one.remedy for one in found if one.name == "tls.untrusted")


async def test_a_port_without_tls_is_tls_failed() -> None:
    async def refuse(talk: Talk) -> None:
        await talk.begun()
        await talk.send(http(400, "The plain HTTP request was sent to HTTPS port"))

    async with Peer(refuse) as peer:
        assert problems(await examined(base_url=f"https://127.0.0.1:{peer.port}")) == {"tls.failed"}


async def test_a_silent_port_is_tls_late_or_answer_late() -> None:
    async with Peer(Talk.hold) as peer:
        assert problems(await examined(base_url=f"https://127.0.0.1:{peer.port}")) == {"tls.late"}
        assert problems(await examined(base_url=f"http://127.0.0.1:{peer.port}")) == {"answer.late"}


async def test_a_trusted_certificate_is_no_problem() -> None:
    """By the session's own authority and resolver."""
    authority = Authority()
    async with (
        StandIn(tls=authority.server("chat.test")) as service,
        session_of(authority, {"chat.test": service.port}) as session,
    ):
        found = await examined(base_url="https://chat.test", session=session)
        assert not session.closed
    assert problems(found) == set()
    assert "TLSv1.3" in next(one.found for one in found if one.name == "tls")


async def test_an_unverified_certificate_is_tls_unverified() -> None:
    async with (
        StandIn(tls=self_signed()) as service,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session,
    ):
        found = await examined(base_url=service.url, session=session)
    assert problems(found) == {"tls.unverified"}


async def test_a_fingerprint_is_left_to_the_calls() -> None:
    async with StandIn(tls=self_signed()) as service:
        connector = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(b"x" * 32))
        async with aiohttp.ClientSession(connector=connector) as session:
            found = await examined(base_url=service.url, session=session)
    assert level(found, "tls") == "skipped"
    assert problems(found) == {"answer.not_connected"}


async def test_plain_http_to_another_host_is_tls_none() -> None:
    async with StandIn() as service, session_of(Authority(), {"chat.test": service.port}) as session:
        found = await examined(base_url="http://chat.test", allow_http=True, session=session)
    assert problems(found) == {"tls.none"}


async def test_a_session_with_its_own_proxy_is_examined_by_calls_only() -> None:
    """Checks that need its connector are skipped."""
    async with StandIn() as service:
        async with aiohttp.ClientSession(trust_env=True) as session:
            found = await examined(base_url=service.url, session=session)
        assert problems(found) == set()
        assert {level(found, name) for name in ("dns", "tcp", "proxy", "tls")} == {"skipped"}
        async with aiohttp.ClientSession(proxy="http://127.0.0.1:1") as session:
            assert problems(await examined(base_url=service.url, session=session)) == {"answer.not_connected"}


# Proxies


@asynccontextmanager
async def proxy_to(port: int, *, password: bool = False) -> AsyncIterator[Peer]:
    """A proxy that connects every tunnel to one port."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def behave(talk: Talk) -> None:
        seen = await talk.reader.readuntil(b"\r\n\r\n")
        if password and b"Proxy-Authorization: Basic " not in seen:
            await talk.send(http(407, "Proxy Authentication Required"))
            await talk.linger()
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await talk.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ways = (pipe(talk.reader, writer), pipe(reader, talk.writer))
            await asyncio.wait([asyncio.ensure_future(way) for way in ways], return_when="FIRST_COMPLETED")
        finally:
            writer.transport.abort()

    async with Peer(behave) as proxy:
        yield proxy


async def test_a_missing_proxy_password_is_proxy_password() -> None:
    """With the password, the connection through the tunnel is examined."""
    async with Peer(Talk.hold) as silent, proxy_to(silent.port, password=True) as proxy:
        host = "https://adminapi.test"
        assert problems(await examined(base_url=host, proxy=proxy.url)) == {"proxy.password"}
        with_password = proxy.url.replace("//", f"//tim:{PASSWORD}@")
        found = await examined(base_url=host, proxy=with_password)
    assert problems(found) == {"tls.late"}
    assert level(found, "proxy") == "ok"
    assert PASSWORD not in str(found)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (http(403, "Forbidden"), "proxy.refused"),
        (http(502, "Bad Gateway"), "proxy.refused"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "proxy.failed"),
        (b"", "proxy.failed"),
        (b"x" * 100_000, "proxy.failed"),
        (None, "proxy.late"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel_is_proxy_refused_failed_or_late(answer: bytes | None, name: str) -> None:
    async with answering(answer) as proxy:
        assert problems(await examined(base_url="https://adminapi.test", proxy=proxy.url)) == {name}


@pytest.mark.parametrize(
    ("host", "user"),
    [
        ("[::1]:8443", ""),
        ("adminapi.test", ""),
        ("adminapi.test", "tim:"),
        ("adminapi.test", ":sesame"),
        ("adminapi.test", "tim:schl\u00fcssel"),
        ("adminapi.test", "\u8c01:\u5bc6\u7801"),
    ],
)
async def test_a_proxy_gets_the_same_request_as_from_calls(host: str, user: str) -> None:
    """The same host, and the same user in UTF-8."""
    heads: list[Seen] = []

    async def refuse(talk: Talk) -> None:
        heads.append(Seen.of(await talk.reader.readuntil(b"\r\n\r\n")))
        await talk.send(http(403, "Forbidden"))
        await talk.linger()

    async with Peer(refuse) as proxy:
        url = proxy.url.replace("//", f"//{user}@") if user else proxy.url
        options: dict[str, Any] = {"sdk_app_id": APP, "secret_key": KEY, "base_url": f"https://{host}", "proxy": url}
        async with TIMClient(**options) as tim:
            with pytest.raises(ConnectFailed, match="HTTP 403"):
                await tim.get_all_c2c_unread_msg_num("alice")
        found = await examined(base_url=f"https://{host}", proxy=url)
    assert problems(found) == {"proxy.refused"}
    sent, asked = ((head.method, head.path, head.headers.get("proxy-authorization")) for head in heads)
    assert asked == sent
    assert asked[1] == (host if host.endswith("8443") else f"{host}:443")
    assert asked[2] == (f"Basic {base64.b64encode(user.encode()).decode()}" if user else None)


async def test_an_unreachable_proxy_is_named() -> None:
    found = await examined(base_url="https://adminapi.test", proxy=f"http://tim:{PASSWORD}@127.0.0.1:{free_port()}")
    assert problems(found) == {"tcp.refused"}
    assert "the proxy" in next(one.found for one in found if one.name == "tcp.refused")
    assert PASSWORD not in str(found)
    assert problems(await examined(base_url="https://a.test", proxy="http://no-proxy.invalid:1")) == {"dns.failed"}


async def test_a_proxy_with_an_untrusted_certificate_is_proxy_failed() -> None:
    async with Peer(Talk.hold, self_signed()) as proxy:
        found = await examined(base_url="https://adminapi.test", proxy=proxy.url)
    assert problems(found) == {"proxy.failed"}
    assert "CERTIFICATE_VERIFY_FAILED" in next(one.found for one in found if one.name == "proxy.failed")


async def test_an_invalid_proxy_of_the_environment_is_proxy_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"ftp://tim:{PASSWORD}@127.0.0.1")
    tim = TIMClient(sdk_app_id=APP, secret_key=KEY, base_url="https://adminapi.test", trust_env=True)
    found = await examine(tim)
    await tim.aclose()
    assert problems(found) == {"proxy.invalid"}
    assert PASSWORD not in str(found)


async def test_a_proxy_that_forwards_plain_http_is_no_problem(service: StandIn) -> None:
    """The proxy receives absolute URLs."""

    async def forward(talk: Talk) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        try:
            while head := await talk.reader.readuntil(b"\r\n\r\n"):
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                relative = head.replace(f"http://127.0.0.1:{service.port}".encode(), b"", 1)
                writer.write(relative + await talk.reader.readexactly(size))
                answer = await reader.readuntil(b"\r\n\r\n")
                size = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await talk.send(answer + await reader.readexactly(size))
        finally:
            writer.transport.abort()

    async with Peer(forward) as proxy:
        found = await examined(base_url=service.url, proxy=proxy.url)
    assert problems(found) == set()
    assert "forwards plain HTTP" in next(one.found for one in found if one.name == "proxy")


# Regions


def wrong_region(_: Seen) -> Any:
    return error(60026, "wrong region")


@asynccontextmanager
async def regions(**answers: Callable[[Seen], Any]) -> AsyncIterator[tuple[aiohttp.ClientSession, dict[str, StandIn]]]:
    """Serve the hosts of some regions, with certificates of one authority; yield a session that reaches them."""
    authority = Authority()
    async with AsyncExitStack() as stack:
        services = {}
        ports = {}
        for name, answer in answers.items():
            region, _, backup = name.partition("__")
            host = REGIONS[region][bool(backup)]
            services[name] = await stack.enter_async_context(StandIn(answer=answer, tls=authority.server(host)))
            ports[host] = services[name].port
        yield await stack.enter_async_context(session_of(authority, ports)), services
    assert all(service.violations == [] for service in services.values())


async def in_region(session: aiohttp.ClientSession, region: str = "singapore", **options: Any) -> Any:
    async with TIMClient(sdk_app_id=APP, secret_key=KEY, region=region, session=session) as tim:
        return await examine(tim, timeout=2.0, **options)


async def test_the_right_region_is_no_problem() -> None:
    async with regions(singapore=sensible, singapore__backup=sensible) as (session, services):
        found = await in_region(session)
        assert services["singapore__backup"].seen == []
    assert problems(found) == set()
    assert [level(found, name) for name in ("region", "backup")] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("answer", "name"),
    [(sensible, "region.wrong"), (lambda _: error(60010), "region.wrong"), (lambda _: error(60006), "region.unknown")],
)
async def test_other_regions_are_tried_on_request(answer: Callable[[Seen], Any], name: str) -> None:
    """Each other region once; the finding lists those that are not reached."""
    async with regions(singapore=wrong_region, singapore__backup=wrong_region, seoul=answer, tokyo=wrong_region) as (
        session,
        services,
    ):
        found = await in_region(session)
        assert problems(found) == {"region.wrong"}
        assert "--try-regions" in next(one.remedy for one in found if one.name == "region.wrong")
        assert services["seoul"].seen == services["tokyo"].seen == []
        found = await in_region(session, try_regions=True)
        assert problems(found) == {name}
        problem = next(one for one in found if one.name == name)
        if name == "region.wrong":
            assert problem.remedy == "Set TIM_REGION, or region=…, to seoul."
        else:
            assert "not reached: china," in problem.found
        assert len(services["seoul"].seen) == len(services["tokyo"].seen) == 1


async def test_regions_that_time_out_do_not_hide_the_right_one() -> None:
    """Each of them takes its whole timeout, twice."""
    async with Full() as black_hole, regions(singapore=wrong_region, seoul=sensible) as (session, _):
        resolver = session.connector._resolver  # type: ignore[union-attr]
        assert isinstance(resolver, Resolver)
        resolver.ports |= {
            host: URL(black_hole.url).port for hosts in REGIONS.values() for host in hosts if host not in resolver.ports
        }
        async with TIMClient(sdk_app_id=APP, secret_key=KEY, region="singapore", session=session) as tim:
            found = await examine(tim, timeout=1.5, try_regions=True)
    assert problems(found) == {"backup.unreachable", "region.wrong"}
    assert next(one.remedy for one in found if one.name == "region.wrong").endswith("to seoul.")


async def test_no_region_is_tried_for_a_base_url() -> None:
    async with StandIn(answer=wrong_region) as service, client_of(service) as tim:
        found = await examine(tim, try_regions=True)
        assert len(service.seen) == 1
    assert problems(found) == {"region.wrong"}


async def test_an_unreachable_primary_host_is_a_warning_if_the_backup_works() -> None:
    """The rest is examined at the backup."""
    async with regions(singapore__backup=sensible) as (session, services):
        found = await in_region(session)
        assert len(services["singapore__backup"].seen) == 5
    assert problems(found) == {"dns.failed"}
    assert level(found, "dns.failed") == "warning"
    assert level(found, "backup") == "ok"


async def test_an_unreachable_backup_host_is_a_warning() -> None:
    async with regions(singapore=sensible) as (session, _):
        found = await in_region(session)
    assert problems(found) == {"backup.unreachable"}
    assert level(found, "backup.unreachable") == "warning"


async def test_both_hosts_unreachable_for_different_reasons_are_failures() -> None:
    async with session_of(Authority(), {REGIONS["singapore"][1]: None}) as session:
        found = await in_region(session)
    assert problems(found) == {"dns.failed", "backup.unreachable"}
    assert {level(found, name) for name in problems(found)} == {"failure"}


async def test_both_hosts_unreachable_for_one_reason_are_one_failure() -> None:
    async with session_of(Authority(), {}) as session:
        found = await in_region(session)
    assert problems(found) == {"dns.failed"}
    assert level(found, "dns.failed") == "failure"
    assert next(one.found for one in found if one.name == "backup").endswith("for the same reason: dns.failed")
    assert problems(await examined(region="singapore", proxy=f"http://127.0.0.1:{free_port()}")) == {"tcp.refused"}
