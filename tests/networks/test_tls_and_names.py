"""Certificates and name resolution: errors that say the reason, and a DNS cache that is dropped after a failure."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.stand_in import METHODS, Reply, StandIn, client_of, failure_of
from tim_async import ConnectFailed, __version__

from .support import Authority, self_signed

CLOSING = Reply(b'{"ErrorCode": 0, "AllC2CUnreadMsgNum": 7}', close=True)
LONG_AGO = dt.datetime(2020, 1, 2, tzinfo=dt.UTC)

BAD_CERTIFICATES: dict[str, Callable[[Authority], ssl.SSLContext]] = {
    "certificate has expired": lambda authority: authority.server("127.0.0.1", not_after=LONG_AGO),
    "IP address mismatch": lambda authority: authority.server("10.0.0.1"),
    "self-signed certificate": lambda _: self_signed(),
    "unable to get local issuer certificate": lambda _: Authority().server("127.0.0.1"),
}
"""Bad certificates of a server, by OpenSSL's message."""


@pytest.mark.parametrize(("reason", "make"), BAD_CERTIFICATES.items(), ids=BAD_CERTIFICATES)
async def test_a_bad_certificate_is_connect_failed_with_openssls_reason(reason: str, make: Any) -> None:
    """After one attempt; nothing was sent."""
    authority = Authority()
    async with (
        StandIn(tls=make(authority)) as service,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.client())) as session,
        client_of(service, session=session) as tim,
    ):
        failure = await failure_of(tim.call("v4/openim/sendmsg", {"A": 1}))
        assert service.seen == []
    assert isinstance(failure, ConnectFailed)
    assert not failure.outcome_unknown
    assert failure.attempts == 1
    assert f"127.0.0.1:{service.port}" in str(failure)
    # OpenSSL 1.1 wrote "self signed".
    assert reason.replace("-", " ").lower() in str(failure).replace("-", " ").lower()


async def test_the_clients_session_trusts_no_unknown_authority() -> None:
    async with StandIn(tls=Authority().server("127.0.0.1")) as service, client_of(service) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
        assert service.seen == []
    assert isinstance(failure, ConnectFailed)
    assert "certificate" in str(failure)


async def test_each_method_works_over_tls() -> None:
    """With a certificate of the caller's own authority."""
    authority = Authority()
    async with (
        StandIn(tls=authority.server("127.0.0.1")) as service,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.client())) as session,
        client_of(service, session=session) as tim,
    ):
        for method in METHODS:
            assert await method.run(tim) == method.result
        assert service.violations == []
        assert len(service.usersigs) == 1


async def test_a_server_without_tls_is_connect_failed() -> None:
    """The URL is https, the port speaks plain HTTP."""

    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 The plain HTTP request was sent to HTTPS port\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server, StandIn() as unused:
        port = server.sockets[0].getsockname()[1]
        async with client_of(unused, base_url=f"https://127.0.0.1:{port}") as tim:
            failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectFailed)
    assert "SSL" in str(failure)


class Names:
    """A fake name service: `socket.getaddrinfo` for one host, which counts the look-ups."""

    HOST = "chat.test"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] = []
        self.asked = 0
        real = socket.getaddrinfo

        def lookup(host: Any, port: Any, *args: Any, **options: Any) -> Any:
            if host != self.HOST:
                return real(host, port, *args, **options)
            self.asked += 1
            if not self.addresses:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)


class Resolver(aiohttp.abc.AbstractResolver):
    """The same for event loops that do not use `socket`."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        self._names.asked += 1
        if not self._names.addresses:
            raise OSError(None, "no such name")
        return [
            {"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 6, "flags": 0}
            for address in self._names.addresses
        ]

    async def close(self) -> None:
        """Nothing was opened."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


def session_of(names: Names) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Resolver(names)))


async def test_an_address_is_cached_while_it_works(service: StandIn, names: Names) -> None:
    service.answer = lambda _: CLOSING
    names.addresses = ["127.0.0.1"]
    async with (
        session_of(names) as session,
        client_of(service, session=session, base_url=f"http://{names.HOST}:{service.port}", allow_http=True) as tim,
    ):
        for _ in range(3):
            await tim.get_all_c2c_unread_msg_num("alice")
    assert (service.connections, names.asked) == (3, 1)


async def test_a_name_is_resolved_again_after_a_failed_connection(service: StandIn, names: Names) -> None:
    """The name has moved: the old address refuses, and the next call resolves the name and succeeds."""
    # 127.0.0.2 is this machine, too, and the service does not listen there.
    names.addresses = ["127.0.0.2"]
    async with (
        session_of(names) as session,
        client_of(service, session=session, base_url=f"http://{names.HOST}:{service.port}", allow_http=True) as tim,
    ):
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
        assert isinstance(failure, ConnectFailed)
        assert failure.attempts == names.asked == 8, "each attempt resolved the name"
        names.addresses = ["127.0.0.1"]
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert names.asked == 9


async def test_a_retry_resolves_the_name_again(service: StandIn, names: Names) -> None:
    """It finds the new address, and the call succeeds."""

    class Moving(Resolver):
        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
            names.addresses = ["127.0.0.2"] if names.asked == 0 else ["127.0.0.1"]
            return await super().resolve(host, port, family)

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Moving(names))) as session,
        client_of(service, session=session, base_url=f"http://{names.HOST}:{service.port}", allow_http=True) as tim,
    ):
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert names.asked == 2


async def test_an_unknown_name_is_connect_failed_with_the_name(names: Names) -> None:
    """And with the system's reason; nothing was sent."""
    async with StandIn() as unused, client_of(unused, base_url=f"https://{names.HOST}") as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectFailed)
    assert names.HOST in str(failure)
    assert "name" in str(failure)
    assert not failure.outcome_unknown


@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_each_request_has_the_clients_user_agent(service: StandIn, method: Any) -> None:
    """``tim_async/<version>``, even if the session has another one."""
    async with client_of(service) as tim:
        await method.run(tim)
    async with aiohttp.ClientSession(headers={"User-Agent": "mine"}) as session:
        await method.run(client_of(service, session=session))
    assert {seen.headers["user-agent"] for seen in service.seen} == {f"tim_async/{__version__}"}
