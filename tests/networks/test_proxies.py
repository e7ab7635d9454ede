"""Calls through a forward proxy: as an argument, from the environment, refusing, dead; its password is never shown."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Iterator

import aiohttp
import pytest

from tests.observers.walk import texts_as_printed, texts_of_failure, without_frames_of_tests
from tests.stand_in import METHODS, Fate, Method, StandIn, client_of, failure_of
from tim_async import BadResponse, ConnectFailed

from .support import PASSWORD, Authority, ForwardProxy, answering, http


@pytest.fixture(scope="module")
def proxy() -> Iterator[ForwardProxy]:
    with ForwardProxy() as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[ForwardProxy]:
    with ForwardProxy(password=True) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxy variables."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_each_method_goes_through_a_given_proxy(service: StandIn, proxy: ForwardProxy, method: Method) -> None:
    async with client_of(service, proxy=proxy.url) as tim:
        assert await method.run(tim) == method.result
    assert ["via" in seen.headers for seen in service.seen] == [True]


async def test_the_environments_proxy_is_not_used_by_default(service: StandIn, environment: pytest.MonkeyPatch) -> None:
    """trust_env is off by default."""
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with client_of(service) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
async def test_trust_env_uses_the_environments_proxy(
    service: StandIn, proxy: ForwardProxy, environment: pytest.MonkeyPatch, name: str
) -> None:
    environment.setenv(name, proxy.url)
    async with client_of(service, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert ["via" in seen.headers for seen in service.seen] == [True]


async def test_the_environments_proxy_may_lack_its_scheme(
    service: StandIn, proxy: ForwardProxy, environment: pytest.MonkeyPatch
) -> None:
    """``HTTP_PROXY=host:port`` is common, and other programs accept it."""
    environment.setenv("HTTP_PROXY", proxy.url.removeprefix("http://"))
    async with client_of(service, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert ["via" in seen.headers for seen in service.seen] == [True]


@pytest.mark.parametrize("variables", [{}, {"HTTP_PROXY": ""}, {"HTTPS_PROXY": "http://127.0.0.1:1"}], ids=str)
async def test_trust_env_without_a_proxy_for_the_scheme_connects_directly(
    service: StandIn, environment: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """None is set, or an empty one, or only one for https."""
    for name, value in variables.items():
        environment.setenv(name, value)
    async with client_of(service, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert ["via" in seen.headers for seen in service.seen] == [False]


@pytest.mark.parametrize("excepted", ["127.0.0.1", "*", "example.com,127.0.0.1"])
async def test_no_proxy_is_honoured(service: StandIn, environment: pytest.MonkeyPatch, excepted: str) -> None:
    """Nothing listens at the proxy's address."""
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    environment.setenv("NO_PROXY", excepted)
    async with client_of(service, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7


async def test_the_proxy_argument_takes_precedence_over_the_environment(
    service: StandIn, proxy: ForwardProxy, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with client_of(service, proxy=proxy.url, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert ["via" in seen.headers for seen in service.seen] == [True]


async def test_tls_goes_through_a_tunnel(proxy: ForwardProxy) -> None:
    """TLS with the service through CONNECT: the proxy sees neither path nor UserSig."""
    authority = Authority()
    async with (
        StandIn(tls=authority.server("127.0.0.1")) as service,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.client()), proxy=proxy.url) as session,
        client_of(service, session=session) as tim,
    ):
        for method in METHODS:
            assert await method.run(tim) == method.result
        assert service.violations == []
        assert len(service.usersigs) == 1
        assert not any("via" in seen.headers for seen in service.seen)
    log = await proxy.said(f"CONNECT 127.0.0.1:{service.port}")
    lines = [line for line in log.splitlines() if f":{service.port}" in line]
    assert not any(usersig in line for usersig in service.usersigs for line in lines)


async def test_tls_goes_through_a_tunnel_of_the_environments_proxy(
    proxy: ForwardProxy, environment: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY, with a caller's session that has trust_env."""
    authority = Authority()
    environment.setenv("HTTPS_PROXY", proxy.url)
    async with (
        StandIn(tls=authority.server("127.0.0.1")) as service,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.client()), trust_env=True) as session,
        client_of(service, session=session) as tim,
    ):
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    await proxy.said(f"CONNECT 127.0.0.1:{service.port}")


# The proxy's password


def assert_no_password(*texts: str) -> None:
    for text in texts:
        assert PASSWORD not in text
        assert "dGltOnN3b3JkZmlzaC03YzQx" not in text, "this is base64 of the user and the password"


async def test_a_password_in_the_proxys_url_is_used(
    service: StandIn, guarded: ForwardProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not shown to the service, in a repr or in a log."""
    caplog.set_level(logging.DEBUG)
    async with client_of(service, proxy=guarded.url_with_password) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
        assert_no_password(repr(tim), repr(vars(tim)), caplog.text, repr(service.seen))
    assert ["via" in seen.headers for seen in service.seen] == [True]


async def test_a_password_in_the_environments_proxy_is_used(
    service: StandIn, guarded: ForwardProxy, environment: pytest.MonkeyPatch
) -> None:
    """It is not shown to the service."""
    environment.setenv("HTTP_PROXY", guarded.url_with_password)
    async with client_of(service, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert_no_password(repr(service.seen))


async def test_a_missing_password_is_connect_failed_after_one_attempt(service: StandIn, guarded: ForwardProxy) -> None:
    """The 407 is the proxy's, and a retry would get it again."""
    async with client_of(service, proxy=guarded.url) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectFailed)
    assert failure.attempts == 1
    assert "proxy" in str(failure)
    assert "407" in str(failure)
    assert service.connections == 0


def everything_shown(failure: BaseException) -> list[str]:
    failure = without_frames_of_tests(failure)
    return [*texts_of_failure(failure), *texts_as_printed(failure), pickle.dumps(failure, 0).decode("latin-1")]


@pytest.mark.parametrize("answer", ["403", "502", "dead", "held", "closed", "garbage", "cancelled"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_failure_shows_the_proxys_password(caplog: pytest.LogCaptureFixture, answer: str, scheme: str) -> None:
    """For any failure of the proxy, with a plain and a TLS target."""
    caplog.set_level(logging.DEBUG)
    answers = {
        "403": http(403, "Forbidden"),
        "502": http(502, "Bad Gateway"),
        "closed": b"",
        "garbage": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    }
    async with answering(answers.get(answer)) as proxy, StandIn() as service:
        port = 1 if answer == "dead" else proxy.port
        target = f"{scheme}://127.0.0.1:{service.port}"
        given = f"http://tim:{PASSWORD}@127.0.0.1:{port}"
        async with client_of(service, base_url=target, proxy=given, timeout=0.3 if answer == "held" else 10) as tim:
            call = asyncio.ensure_future(tim.get_all_c2c_unread_msg_num("alice"))
            if answer == "cancelled":
                await proxy.arrived.wait()
                call.cancel()
            try:
                result = await call
            except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - any exception is searched
                assert_no_password(*everything_shown(raised))
            else:
                raise AssertionError(f"the call returned {result}")
            assert_no_password(repr(tim), caplog.text)
            if answer != "dead":
                assert any("proxy-authorization" in seen.headers for seen in proxy.heads), "the password was used"


@pytest.mark.parametrize(
    "proxy",
    [
        f"socks5://tim:{PASSWORD}@127.0.0.1:1",
        f"tim:{PASSWORD}@127.0.0.1:1",
        f"http://tim:{PASSWORD}@:1",
        f"http://tim:{PASSWORD}@127.0.0.1:port",
        f"http://tim:{PASSWORD}@[::1",
    ],
)
async def test_a_malformed_proxy_is_rejected_without_its_password(service: StandIn, proxy: str) -> None:

    async def make() -> None:
        client_of(service, proxy=proxy)

    failure = await failure_of(make())
    assert isinstance(failure, ValueError)
    assert_no_password(*everything_shown(failure))


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://x", "http://[::1"])
async def test_an_unusable_proxy_of_the_environment_is_a_value_error(
    service: StandIn, environment: pytest.MonkeyPatch, proxy: str
) -> None:
    """`async with` raises it, not each call."""
    environment.setenv("HTTP_PROXY", proxy)

    async def enter() -> None:
        async with client_of(service, trust_env=True):
            pass

    failure = await failure_of(enter())
    assert isinstance(failure, ValueError)
    assert "proxy" in str(failure).lower()


# Proxies that fail


@pytest.mark.parametrize(("status", "reason"), [(403, "Forbidden"), (407, "Proxy Authentication Required")])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxys_refusal_is_connect_failed_after_one_attempt(
    service: StandIn, status: int, reason: str, scheme: str
) -> None:
    """Nothing reached the service, and a retry would be refused alike."""
    async with (
        answering(http(status, reason, 'Proxy-Authenticate: Basic realm="x"')) as proxy,
        client_of(service, base_url=f"{scheme}://127.0.0.1:{service.port}", proxy=proxy.url) as tim,
    ):
        failure = await failure_of(tim.call("v4/openim/sendmsg", {"A": 1}))
    assert isinstance(failure, ConnectFailed)
    assert not failure.outcome_unknown
    assert (failure.attempts, proxy.connections, service.connections) == (1, 1, 0)
    assert "proxy" in str(failure)
    assert str(status) in str(failure)


async def test_a_403_without_a_proxy_is_a_bad_response(service: StandIn) -> None:
    async with answering(http(403, "Forbidden")) as gateway, client_of(service, base_url=gateway.url) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, BadResponse)
    assert failure.status == 403


async def test_a_proxys_502_is_retried(service: StandIn) -> None:
    async with (
        answering(http(502, "Bad Gateway")) as proxy,
        client_of(service, base_url=f"https://127.0.0.1:{service.port}", proxy=proxy.url) as tim,
    ):
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectFailed)
    assert failure.attempts == proxy.connections == 8
    assert "502" in str(failure)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_unreachable_proxy_is_named(service: StandIn, scheme: str) -> None:
    """The error has the host and the port of the proxy."""
    async with answering(b"") as gone:
        pass
    async with client_of(
        service, base_url=f"{scheme}://127.0.0.1:{service.port}", proxy=f"http://tim:{PASSWORD}@127.0.0.1:{gone.port}"
    ) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectFailed)
    assert not failure.outcome_unknown
    assert f"127.0.0.1:{gone.port}" in str(failure)
    assert "proxy" in str(failure)
    assert service.connections == 0
    assert_no_password(*everything_shown(failure))


async def test_an_unresolvable_proxy_is_named(service: StandIn) -> None:
    async with client_of(service, proxy="http://no-such-proxy.invalid:3128") as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectFailed)
    assert "no-such-proxy.invalid" in str(failure)


async def test_a_lost_connection_behind_the_proxy_is_retried(service: StandIn, proxy: ForwardProxy) -> None:
    service.script.append(Fate.DROP)
    async with client_of(service, proxy=proxy.url) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert len(service.seen) == 2


async def test_a_session_and_a_proxy_argument_exclude_each_other(service: StandIn) -> None:
    """The session's settings apply; the argument would be ignored."""
    async with aiohttp.ClientSession() as session:
        for options in ({"proxy": "http://127.0.0.1:1"}, {"trust_env": True}):
            with pytest.raises(ValueError, match="session"):
                client_of(service, session=session, **options)
