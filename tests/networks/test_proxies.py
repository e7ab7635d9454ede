"""Calls through a forward proxy: given, from the environment, refusing, dead; and its password stays inside."""

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
    """An environment that names no proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_each_method_goes_through_a_given_proxy(service: StandIn, proxy: ForwardProxy, method: Method) -> None:
    """As it goes without one; the proxy leaves its mark."""
    async with client_of(service, proxy=proxy.url) as tim:
        assert await method.run(tim) == method.result
    assert ["via" in seen.headers for seen in service.seen] == [True]


async def test_a_client_without_a_proxy_does_not_use_that_of_the_environment(
    service: StandIn, environment: pytest.MonkeyPatch
) -> None:
    """trust_env is off unless it is asked for."""
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with client_of(service) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
async def test_trust_env_takes_the_proxy_of_the_environment(
    service: StandIn, proxy: ForwardProxy, environment: pytest.MonkeyPatch, name: str
) -> None:
    """In the usual variables, in upper and lower case."""
    environment.setenv(name, proxy.url)
    async with client_of(service, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert ["via" in seen.headers for seen in service.seen] == [True]


async def test_a_proxy_of_the_environment_may_lack_its_scheme(
    service: StandIn, proxy: ForwardProxy, environment: pytest.MonkeyPatch
) -> None:
    """``HTTP_PROXY=host:port`` is what many write, and what other programs take."""
    environment.setenv("HTTP_PROXY", proxy.url.removeprefix("http://"))
    async with client_of(service, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert ["via" in seen.headers for seen in service.seen] == [True]


@pytest.mark.parametrize("variables", [{}, {"HTTP_PROXY": ""}, {"HTTPS_PROXY": "http://127.0.0.1:1"}], ids=str)
async def test_trust_env_without_a_proxy_for_the_scheme_calls_directly(
    service: StandIn, environment: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """None is set, an empty one, or only one for https."""
    for name, value in variables.items():
        environment.setenv(name, value)
    async with client_of(service, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert ["via" in seen.headers for seen in service.seen] == [False]


@pytest.mark.parametrize("excepted", ["127.0.0.1", "*", "example.com,127.0.0.1"])
async def test_no_proxy_is_honoured(service: StandIn, environment: pytest.MonkeyPatch, excepted: str) -> None:
    """A host it names is reached directly; nothing listens at the proxy's address."""
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    environment.setenv("NO_PROXY", excepted)
    async with client_of(service, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7


async def test_a_given_proxy_goes_before_that_of_the_environment(
    service: StandIn, proxy: ForwardProxy, environment: pytest.MonkeyPatch
) -> None:
    """Even with trust_env."""
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with client_of(service, proxy=proxy.url, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert ["via" in seen.headers for seen in service.seen] == [True]


async def test_tls_goes_through_a_tunnel(proxy: ForwardProxy) -> None:
    """CONNECT, and TLS with the service within: the proxy sees neither path nor signature."""
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


async def test_tls_goes_through_a_tunnel_of_the_environment(
    proxy: ForwardProxy, environment: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY, with a caller's session that trusts its environment."""
    authority = Authority()
    environment.setenv("HTTPS_PROXY", proxy.url)
    async with (
        StandIn(tls=authority.server("127.0.0.1")) as service,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.client()), trust_env=True) as session,
        client_of(service, session=session) as tim,
    ):
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    await proxy.said(f"CONNECT 127.0.0.1:{service.port}")


# The proxy's password.


def assert_no_password(*texts: str) -> None:
    for text in texts:
        assert PASSWORD not in text
        assert "dGltOnN3b3JkZmlzaC03YzQx" not in text, "this is base64 of the user and the password"


async def test_a_password_in_the_proxys_url_lets_calls_through(
    service: StandIn, guarded: ForwardProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """And is not shown to anybody else: not to the service, not in a log."""
    caplog.set_level(logging.DEBUG)
    async with client_of(service, proxy=guarded.url_with_password) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
        assert_no_password(repr(tim), repr(vars(tim)), caplog.text, repr(service.seen))
    assert ["via" in seen.headers for seen in service.seen] == [True]


async def test_a_password_in_the_environments_proxy_lets_calls_through(
    service: StandIn, guarded: ForwardProxy, environment: pytest.MonkeyPatch
) -> None:
    """With trust_env, the same."""
    environment.setenv("HTTP_PROXY", guarded.url_with_password)
    async with client_of(service, trust_env=True) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert_no_password(repr(service.seen))


async def test_a_missing_password_is_said(service: StandIn, guarded: ForwardProxy) -> None:
    """407 is no answer of the service's, and asking once more does not help."""
    async with client_of(service, proxy=guarded.url) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectFailed)
    assert failure.attempts == 1
    assert "proxy" in str(failure)
    assert "407" in str(failure)
    assert service.connections == 0


def all_of(failure: BaseException) -> list[str]:
    failure = without_frames_of_tests(failure)
    return [*texts_of_failure(failure), *texts_as_printed(failure), pickle.dumps(failure, 0).decode("latin-1")]


@pytest.mark.parametrize("answer", ["403", "502", "dead", "held", "closed", "garbage", "cancelled"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_failure_shows_the_proxys_password(caplog: pytest.LogCaptureFixture, answer: str, scheme: str) -> None:
    """However the proxy fails a call, to a plain and to a TLS target."""
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
            except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - whatever it is, it is looked at
                assert_no_password(*all_of(raised))
            else:
                raise AssertionError(f"the call went through, and gave {result}")
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
async def test_a_proxy_that_is_none_is_refused_without_its_password(service: StandIn, proxy: str) -> None:
    """Before anything is sent."""

    async def make() -> None:
        client_of(service, proxy=proxy)

    failure = await failure_of(make())
    assert isinstance(failure, ValueError)
    assert_no_password(*all_of(failure))


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://x", "http://[::1"])
async def test_an_environment_whose_proxy_cannot_be_used_says_so(
    service: StandIn, environment: pytest.MonkeyPatch, proxy: str
) -> None:
    """A ValueError for the setting, as at start-up: with `async with`, not out of each call."""
    environment.setenv("HTTP_PROXY", proxy)

    async def enter() -> None:
        async with client_of(service, trust_env=True):
            pass

    failure = await failure_of(enter())
    assert isinstance(failure, ValueError)
    assert "proxy" in str(failure).lower()


# Proxies that do not let through.


@pytest.mark.parametrize(("status", "reason"), [(403, "Forbidden"), (407, "Proxy Authentication Required")])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxys_refusal_is_a_connect_failure_after_one_attempt(
    service: StandIn, status: int, reason: str, scheme: str
) -> None:
    """Nothing reached the service, and the proxy will not change its mind."""
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


async def test_the_services_own_403_without_a_proxy_is_no_refusal_of_one(service: StandIn) -> None:
    """Only where there is a proxy can it be the proxy's."""
    async with answering(http(403, "Forbidden")) as gateway, client_of(service, base_url=gateway.url) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, BadResponse)
    assert failure.status == 403


async def test_a_proxys_502_is_tried_again(service: StandIn) -> None:
    """Its own trouble may pass."""
    async with (
        answering(http(502, "Bad Gateway")) as proxy,
        client_of(service, base_url=f"https://127.0.0.1:{service.port}", proxy=proxy.url) as tim,
    ):
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectFailed)
    assert failure.attempts == proxy.connections == 8
    assert "502" in str(failure)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_dead_proxy_is_named(service: StandIn, scheme: str) -> None:
    """Host and port of the proxy, not of the service, which was never asked."""
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
    assert_no_password(*all_of(failure))


async def test_an_unresolvable_proxy_is_named(service: StandIn) -> None:
    """The name that does not resolve is the proxy's."""
    async with client_of(service, proxy="http://no-such-proxy.invalid:3128") as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, ConnectFailed)
    assert "no-such-proxy.invalid" in str(failure)


async def test_a_lost_connection_behind_the_proxy_is_survived(service: StandIn, proxy: ForwardProxy) -> None:
    """A failure that is transient without a proxy is transient with one."""
    service.script.append(Fate.DROP)
    async with client_of(service, proxy=proxy.url) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert len(service.seen) == 2


async def test_a_session_with_a_proxy_and_a_proxy_argument_are_one_too_many(service: StandIn) -> None:
    """The session's own settings count; the argument would be ignored, and is refused instead."""
    async with aiohttp.ClientSession() as session:
        for options in ({"proxy": "http://127.0.0.1:1"}, {"trust_env": True}):
            with pytest.raises(ValueError, match="session"):
                client_of(service, session=session, **options)
