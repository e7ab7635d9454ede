"""Several apps and administrators, the environment for clients, and HTTPS."""

from __future__ import annotations

import http.client
import ssl
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.networks.support import Authority
from tim_async import AuthError, TIMClient
from tim_async.emulator import App, Emulator

from .support import C2C_UNREAD, Caller, Clock, query, usersig


async def test_each_app_has_its_own_accounts_rates_and_report(call: Caller, clock: Clock) -> None:
    async with Emulator(limit=2, clock=clock) as service:
        other = service.add_app(1400000001, "another key", admins=["root"])
        service.state.add_messages("alice", "bob", 3)
        other.state.add_messages("alice", "bob", 1)
        caller = Caller(service, call.session)
        params = query(
            sdkappid="1400000001",
            identifier="root",
            usersig=usersig("root", sdk_app_id=1400000001, secret_key="another key"),
        )
        body = {"To_Account": "alice"}
        assert [await caller.code(C2C_UNREAD, body) for _ in range(3)] == [0, 0, 60007]
        assert (await caller.answer(C2C_UNREAD, body, params))["AllC2CUnreadMsgNum"] == 1
        assert not other.state.has_account("administrator")
        # Each app refuses the other's credentials.
        clock.now += 2
        assert await caller.code(C2C_UNREAD, body, params | {"sdkappid": "1400000000"}) == 70014
        assert await caller.code(C2C_UNREAD, body, query(sdkappid="1400000001")) == 70014
        assert await caller.code(C2C_UNREAD, body, query(sdkappid="1400000002")) == 60006
        assert (other.report().total.calls, service.report().total.calls) == (2, 7)
        assert "another key" not in repr(other)


async def test_apps_are_added_while_it_runs_and_each_client_reaches_its_own() -> None:
    async with Emulator() as service:
        apps: list[Emulator | App] = [service, *(service.add_app(number, f"{number:032}") for number in (1, 2))]
        for count, app in enumerate(apps, 1):
            app.state.add_messages("alice", "bob", count)
        for count, app in enumerate(apps, 1):
            async with TIMClient(**app.client_options()) as tim:
                assert await tim.get_all_c2c_unread_msg_num("alice") == count


async def test_group_info_has_the_app(call: Caller, clock: Clock) -> None:
    async with Emulator(clock=clock) as service:
        app = service.add_app(7, "key", "root")
        app.state.add_group("g")
        params = query(sdkappid="7", identifier="root", usersig=usersig("root", sdk_app_id=7, secret_key="key"))
        body = {"GroupIdList": ["g"]}
        answer = await Caller(service, call.session).answer("v4/group_open_http_svc/get_group_info", body, params)
        assert answer["GroupInfo"][0]["Appid"] == 7


def test_an_app_is_added_once_and_has_an_administrator() -> None:
    service = Emulator()
    service.add_app(1, "key")
    with pytest.raises(ValueError, match="the app 1 exists"):
        service.add_app(1, "another")
    with pytest.raises(ValueError, match="the app 1400000000 exists"):
        service.add_app(1400000000)
    with pytest.raises(ValueError, match="at least one administrator"):
        service.add_app(2, "key", admins=())


async def test_the_environment_connects_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each administrator of each app, by `TIMClient.from_env`."""
    monkeypatch.delenv("TIM_REGION", raising=False)
    async with Emulator(admins=("first", "second")) as service:
        app = service.add_app(1400000001, "k" * 64, admins=("root",))
        for where, identifier, expected in (
            (service, None, "first"),
            (service, "second", "second"),
            (app, None, "root"),
        ):
            environment = where.environment(identifier)
            assert set(environment) == {"TIM_BASE_URL", "TIM_SDK_APP_ID", "TIM_SECRET_KEY", "TIM_IDENTIFIER"}
            assert environment["TIM_IDENTIFIER"] == expected
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            async with TIMClient.from_env() as tim:
                assert await tim.get_all_c2c_unread_msg_num(expected) == 0


def test_an_unknown_administrator_has_no_credentials() -> None:
    with Emulator(admins=("first", "second")) as service:
        for credentials in (service.client_options, service.environment):
            with pytest.raises(ValueError, match="no such administrator: 'third'; choose from first, second"):
                credentials("third")
    with pytest.raises(RuntimeError, match="not running"):
        service.environment()


async def test_a_key_of_another_app_is_refused_to_a_client() -> None:
    async with Emulator() as service:
        app = service.add_app(1, "k" * 64)
        async with TIMClient(**{**service.client_options(), "secret_key": app.secret_key}) as tim:
            with pytest.raises(AuthError) as refused:
                await tim.get_all_c2c_unread_msg_num("alice")
            assert refused.value.code == 70009


class TestTLS:
    @pytest.fixture
    def contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """The contexts of a server on loopback and of a client that trusts its certificate."""
        authority = Authority()
        return authority.server("127.0.0.1"), authority.client()

    async def test_serves_https_to_a_client_that_trusts_its_certificate(
        self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
    ) -> None:
        server, client = contexts
        async with Emulator(ssl_context=server) as service:
            assert service.url.startswith("https://127.0.0.1:")
            service.state.add_messages("alice", "bob", 3)
            service.fault(truncate=True, times=1)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client)) as session:
                options: dict[str, Any] = {**service.client_options(), "session": session}
                async with TIMClient(**options) as tim:
                    assert await tim.get_all_c2c_unread_msg_num("alice") == 3

    def test_is_entered_again_in_a_thread(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        """A caller that sends plain HTTP does no harm."""
        server, client = contexts
        service = Emulator(ssl_context=server)
        for _ in range(2):
            with service:
                netloc = urlsplit(service.url).netloc
                plain = http.client.HTTPConnection(netloc, timeout=60)
                plain.request("POST", f"/{C2C_UNREAD}", b"{}")
                with pytest.raises((OSError, http.client.HTTPException)):
                    plain.getresponse()
                plain.close()
                secure = http.client.HTTPSConnection(netloc, context=client, timeout=60)
                secure.request("POST", f"/{C2C_UNREAD}", b"{}")
                assert b"60012" in secure.getresponse().read()
                secure.close()
