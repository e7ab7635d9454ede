"""Sessions, those of the client and those of callers; clients from the environment."""

from __future__ import annotations

import asyncio
import logging
import pickle
import random
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tim_async import ClientClosed, RetryPolicy, TIMClient, TIMError
from tim_async.config import VARIABLES

from .stand_in import (
    APP,
    JSON,
    KEY,
    METHODS,
    Fate,
    Method,
    Reply,
    StandIn,
    client_of,
    error,
    failure_of,
    page,
    sensible,
)
from .test_cancellation import run


async def test_a_given_session_is_used_and_never_closed(service: StandIn) -> None:
    """Neither by the end of the block, nor by aclose, nor by an error."""
    async with aiohttp.ClientSession() as session:
        async with client_of(service, session=session) as tim:
            await tim.set_unread_msg_num("g", "alice", 1)
        assert not session.closed
        service.script.append(error(10003))
        other = client_of(service, session=session)
        await failure_of(other.set_unread_msg_num("g", "alice", 1))
        await other.aclose()
        assert not session.closed
        assert service.connections == 1
        async with session.get(f"{service.url}/", data=b"{}") as response:
            assert response.status == 200
    service.violations.clear()  # the last request was not the client's


async def test_the_clients_session_is_closed_with_its_connections() -> None:
    async with StandIn() as service:
        async with client_of(service) as tim:
            await tim.set_unread_msg_num("g", "alice", 1)
            assert service.serving == 1
        async with asyncio.timeout(60):
            while service.serving:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.001)


def test_two_successive_event_loops_can_each_have_a_client() -> None:

    async def main() -> Any:
        async with StandIn() as service, client_of(service) as tim:
            async with tim.batch.map(tim.set_unread_msg_num, [("g", "alice", 1)] * 5) as outcomes:
                done = [outcome async for outcome in outcomes]
            return len(done), await tim.get_all_c2c_unread_msg_num("alice")

    assert [asyncio.run(main()) for _ in range(2)] == [(5, 7)] * 2


async def test_a_call_outside_a_task_is_a_runtime_error(service: StandIn) -> None:
    """Nothing could end it at its time-out; nothing is sent, and its permit is returned."""
    stepped: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def step() -> None:
        said = ""
        call = tim.get_all_c2c_unread_msg_num("alice")
        try:
            call.send(None)
        except Exception as error:  # noqa: BLE001 - any exception is compared
            said = repr(error)
        call.close()
        stepped.set_result(said)

    async with client_of(service) as tim:
        asyncio.get_running_loop().call_soon(step)
        error = RuntimeError("a call needs a task: await it in one, or pass it to asyncio.create_task()")
        assert await stepped == repr(error)
        assert service.seen == []
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7


@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_a_sessions_raise_for_status_has_no_effect(service: StandIn, method: Method) -> None:
    service.script.extend([page(502), page(503), Reply(error(10002).body, 500)])
    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        client_of(service, session=session) as tim,
    ):
        assert await method.run(tim) == method.result
    assert len(service.seen) == 4


async def test_a_sessions_base_url_has_no_effect(service: StandIn) -> None:
    async with (
        aiohttp.ClientSession("http://127.0.0.1:9/elsewhere/") as session,
        client_of(service, session=session) as tim,
    ):
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7


async def test_a_sessions_headers_and_cookies_do_not_change_the_content_type(service: StandIn) -> None:
    service.answer = lambda _: Reply(b'{"ErrorCode":0}', headers=(*JSON, ("Set-Cookie", "a=b")))
    async with (
        aiohttp.ClientSession(headers={"Content-Type": "text/plain", "X-Mine": "1"}, cookies={"c": "d"}) as session,
        client_of(service, session=session) as tim,
    ):
        for _ in range(2):
            await tim.set_unread_msg_num("g", "alice", 1)
    assert {seen.headers["content-type"] for seen in service.seen} == {"application/json"}


async def test_a_sessions_time_out_has_no_effect(service: StandIn) -> None:
    """The client's applies."""
    service.script.append(Fate.HOLD)
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.001, sock_read=0.001)) as session,
        client_of(service, session=session) as tim,
    ):
        call = asyncio.create_task(tim.get_all_c2c_unread_msg_num("alice"))
        await service.until(1)
        service.let_go.set()
        assert await call == 7
    assert len(service.seen) == 1


async def test_a_closed_session_is_client_closed_without_a_retry(caplog: pytest.LogCaptureFixture) -> None:
    """Nor is the backup host tried: the session is at fault, not the host."""
    caplog.set_level(logging.INFO)
    session = aiohttp.ClientSession()
    await session.close()
    async with TIMClient(sdk_app_id=APP, secret_key=KEY, region="singapore", session=session) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert type(failure) is ClientClosed
    assert "closed" in str(failure)
    assert failure.attempts == 1
    assert "backup" not in caplog.text


async def test_calls_in_flight_of_a_closed_session_end_with_a_tim_error(service: StandIn) -> None:
    service.answer = lambda _: Fate.HOLD
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2))
    async with client_of(service, session=session) as tim:
        tasks = [asyncio.create_task(failure_of(method.run(tim))) for method in METHODS]
        await service.until(2)
        await session.close()
        done, waiting = await asyncio.wait(tasks, timeout=10.0)
        for task in waiting:
            task.cancel()
    assert not waiting
    assert all(isinstance(task.result(), TIMError) for task in done)


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_a_sessions_connector_limits_the_calls_in_flight(service: StandIn, limit: int) -> None:
    """Those of all endpoints together, and every call succeeds."""
    service.answer = lambda _: Fate.HOLD
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit)) as session,
        client_of(service, session=session) as tim,
    ):
        tasks = [asyncio.ensure_future(method.run(tim)) for method in METHODS for _ in range(10)]
        await service.until(limit)
        service.let_go.set()
        assert await asyncio.wait_for(asyncio.gather(*tasks), 20) == [m.result for m in METHODS for _ in range(10)]
    assert service.most_in_flight <= limit
    assert service.connections == limit


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("limit", [1, 2])
def test_with_few_connections_random_calls_and_cancellations_never_hang(limit: int, seed: int) -> None:
    """Calls of all endpoints start, fail and are cancelled at random; all others succeed."""
    dice = random.Random(seed)

    def answer(seen: Any) -> Any:
        roll = dice.random()
        return error(10002) if roll < 0.1 else Fate.DROP if roll < 0.15 else sensible(seen)

    async def main() -> None:
        async with (
            StandIn(answer=answer) as service,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit)) as session,
            client_of(
                service, session=session, rates={method.endpoint: 1000 for method in METHODS}, timeout=1e6
            ) as tim,
        ):
            running: set[asyncio.Future[Any]] = set()
            stay: set[asyncio.Future[Any]] = set()
            for _ in range(150):
                task: asyncio.Future[Any] = asyncio.ensure_future(dice.choice(METHODS).run(tim))
                (running if dice.random() < 0.4 else stay).add(task)
                for _ in range(dice.randrange(6)):
                    await asyncio.sleep(0)
                for gone in [task for task in running if dice.random() < 0.3]:
                    running.discard(gone)
                    gone.cancel()
                    await asyncio.wait([gone])
            for gone in running:
                gone.cancel()
            done, waiting = await asyncio.wait(stay, timeout=30.0)
            for task in waiting:
                task.cancel()
            if waiting:
                await asyncio.wait(waiting)
            if running:
                await asyncio.wait(running)
            assert [repr(task) for task in waiting] == []
            assert [task.exception() for task in done if task.exception() is not None] == []
            assert service.violations == []

    run(main)


@pytest.mark.parametrize("signal", ["on_request_start", "on_request_end"])
@pytest.mark.parametrize("kind", [aiohttp.InvalidURL, aiohttp.ClientError, ValueError, OSError])
async def test_a_client_value_or_os_error_of_a_sessions_trace_is_a_tim_error(
    service: StandIn, signal: str, kind: type[Exception]
) -> None:
    """It does not show the URL, and it says whether the outcome is unknown."""

    async def hook(*_: Any) -> None:
        raise kind(URL(service.url + "?usersig=secret"))

    trace = aiohttp.TraceConfig()
    getattr(trace, signal).append(hook)
    async with (
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        client_of(service, session=session, retry=RetryPolicy(attempts=1)) as tim,
    ):
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, TIMError)
    assert failure.outcome_unknown is (signal != "on_request_start")
    assert "secret" not in str(failure)


@pytest.mark.parametrize("kind", [RuntimeError, LookupError])
async def test_another_exception_of_a_sessions_trace_is_raised_unchanged(
    service: StandIn, kind: type[Exception]
) -> None:
    defect = kind("a defect of the caller's")

    async def hook(*_: Any) -> None:
        raise defect

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(hook)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session, client_of(service, session=session) as tim:
        assert await failure_of(tim.get_all_c2c_unread_msg_num("alice")) is defect


# From the environment


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


COMPLETE = {"TIM_SDK_APP_ID": "1400000000", "TIM_SECRET_KEY": KEY, "TIM_REGION": "singapore"}


def set_all(environment: pytest.MonkeyPatch, **changes: str | None) -> None:
    for name, value in {**COMPLETE, **changes}.items():
        if value is not None:
            environment.setenv(name, value)


def test_from_env_reads_the_documented_variables(environment: pytest.MonkeyPatch) -> None:
    """The default identifier is administrator; no event loop is needed."""
    set_all(environment)
    assert repr(TIMClient.from_env()) == (
        "<TIMClient 1400000000 as 'administrator' at https://adminapisgp.im.qcloud.com>"
    )


async def test_a_client_from_the_environment_works(service: StandIn, environment: pytest.MonkeyPatch) -> None:
    """Identifier and base URL come from the environment."""
    set_all(environment, TIM_REGION=None, TIM_BASE_URL=service.url + "/", TIM_IDENTIFIER="管理员")
    async with TIMClient.from_env(timeout=5.0) as tim:
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert service.seen[0].query["identifier"] == "管理员"
    assert service.seen[0].path == "/v4/openim/get_c2c_unread_msg_num"


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_the_key_may_be_in_a_file_with_line_ends(environment: pytest.MonkeyPatch, tmp_path: Any, end: str) -> None:
    """Editors and secret stores add them."""
    file = tmp_path / "key"
    file.write_bytes(f"{KEY}{end}".encode())
    set_all(environment, TIM_SECRET_KEY=None, TIM_SECRET_KEY_FILE=str(file))
    assert "1400000000" in repr(TIMClient.from_env())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"TIM_SDK_APP_ID": None}, "TIM_SDK_APP_ID"),
        ({"TIM_SDK_APP_ID": ""}, "TIM_SDK_APP_ID"),
        ({"TIM_SDK_APP_ID": "one"}, "TIM_SDK_APP_ID"),
        ({"TIM_SDK_APP_ID": "14e8"}, "TIM_SDK_APP_ID"),
        ({"TIM_SECRET_KEY": None}, "TIM_SECRET_KEY"),
        ({"TIM_SECRET_KEY": ""}, "TIM_SECRET_KEY"),
        ({"TIM_REGION": None}, "TIM_REGION"),
        ({"TIM_REGION": "atlantis"}, "atlantis"),
        ({"TIM_BASE_URL": "http://127.0.0.1:8099"}, "both are set"),
        ({"TIM_ALLOW_HTTP": "yes"}, "TIM_ALLOW_HTTP"),
        ({"TIM_REGION": None, "TIM_BASE_URL": "http://tim.internal"}, "TIM_ALLOW_HTTP=1"),
        ({"TIM_REGION": None, "TIM_BASE_URL": "http://tim.internal", "TIM_ALLOW_HTTP": "0"}, "TIM_ALLOW_HTTP=1"),
        ({"TIM_SECRET_KEY": "short"}, "short"),
    ],
    ids=str,
)
def test_a_missing_or_bad_variable_is_named(
    environment: pytest.MonkeyPatch, changes: dict[str, str | None], named: str
) -> None:
    """In a ValueError that does not show the key."""
    set_all(environment, **changes)
    with pytest.raises(ValueError, match=named) as caught:
        TIMClient.from_env()
    assert KEY not in str(caught.value)


def test_the_environment_can_allow_http(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, TIM_REGION=None, TIM_BASE_URL="http://tim.internal", TIM_ALLOW_HTTP="1")
    assert TIMClient.from_env().base_url == "http://tim.internal"


def test_a_key_file_that_is_not_utf_8_is_named_without_its_content(
    environment: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The UnicodeDecodeError, which holds the bytes, is not in the chain."""
    file = tmp_path / "key"
    file.write_bytes(KEY.encode() + b"\xff")
    set_all(environment, TIM_SECRET_KEY=None, TIM_SECRET_KEY_FILE=str(file))
    with pytest.raises(ValueError, match=f"^cannot read {file}: it is not UTF-8 text$") as caught:
        TIMClient.from_env()
    assert caught.value.__context__ is None


def test_arguments_take_precedence_over_the_environment(environment: pytest.MonkeyPatch) -> None:
    """`base_url` also replaces a region of the environment, and `region` a base URL."""
    set_all(environment)
    assert "1400000001 as 'bob'" in repr(TIMClient.from_env(sdk_app_id=1400000001, identifier="bob"))
    assert "adminapikr" in repr(TIMClient.from_env(region="seoul"))
    assert "http://127.0.0.1:8099" in repr(TIMClient.from_env(base_url="http://127.0.0.1:8099"))
    set_all(environment, TIM_REGION=None, TIM_BASE_URL="http://127.0.0.1:8099")
    environment.delenv("TIM_REGION")
    assert "adminapikr" in repr(TIMClient.from_env(region="seoul"))


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"TIM_SDK_APP_ID": "one"}, {"sdk_app_id": 1400000000}),
        ({"TIM_SECRET_KEY": None, "TIM_SECRET_KEY_FILE": "/nowhere"}, {"secret_key": KEY}),
        ({"TIM_IDENTIFIER": "\udcff"}, {"identifier": "bob"}),
        ({"TIM_REGION": "\udcff"}, {"base_url": "http://127.0.0.1:8099"}),
        ({"TIM_BASE_URL": "\udcff"}, {"region": "seoul"}),
        ({"TIM_ALLOW_HTTP": "true"}, {"allow_http": True}),
    ],
    ids=["app", "key", "identifier", "region", "base URL", "http"],
)
def test_a_variable_that_an_argument_replaces_is_not_read(
    environment: pytest.MonkeyPatch, changes: dict[str, str | None], options: dict[str, Any]
) -> None:
    """So an invalid one does no harm."""
    set_all(environment, **changes)
    assert "1400000000" in repr(TIMClient.from_env(**options))


def test_from_env_of_a_subclass_returns_an_instance_of_it(environment: pytest.MonkeyPatch) -> None:

    class Mine(TIMClient):
        """A user's subclass."""

    set_all(environment)
    assert type(Mine.from_env()) is Mine


def test_a_client_cannot_be_pickled() -> None:
    """The pickle would contain the secret key."""
    tim = TIMClient(sdk_app_id=APP, secret_key=KEY, region="singapore")
    with pytest.raises(TypeError, match="secret key"):
        pickle.dumps(tim)


async def test_a_client_whose_quota_cannot_be_joined_sends_nothing(service: StandIn) -> None:
    """Neither the first call nor a later one."""

    class Broken:
        def share(self, sdk_app_id: int) -> Any:
            raise ValueError(f"no quota for {sdk_app_id}")

    tim = client_of(service, quota=Broken())
    for _ in range(2):
        with pytest.raises(ValueError, match="no quota for"):
            await tim.get_all_c2c_unread_msg_num("alice")
    await tim.aclose()
    assert service.seen == []
