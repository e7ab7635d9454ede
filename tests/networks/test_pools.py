"""Connections: dead pooled ones, a caller's full pool, backup hosts, Retry-After, closed and unclosed clients."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import gc
import socket
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.peer import Peer, Talk
from tests.stand_in import (
    APP,
    AT_ONCE,
    KEY,
    METHODS,
    Action,
    Fate,
    Reply,
    Seen,
    StandIn,
    client_of,
    failure_of,
    sensible,
)
from tim_async import (
    Attempt,
    BadResponse,
    ClientClosed,
    ConnectFailed,
    RateLimited,
    RequestTimeout,
    RetryPolicy,
    TIMClient,
    TIMError,
    TransportError,
    regions,
)

from .support import answering

# Dead pooled connections


async def pooled(service: StandIn, tim: TIMClient, number: int) -> set[int]:
    """Open ``number`` pooled connections, and return their numbers at the service."""
    service.let_go.clear()
    service.answer = lambda _: Fate.HOLD
    first = len(service.seen)
    calls = [asyncio.ensure_future(tim.get_all_c2c_unread_msg_num("alice")) for _ in range(number)]
    await service.until(first + number)
    service.let_go.set()
    await asyncio.gather(*calls)
    return {seen.connection for seen in service.seen[first:]}


def silent_in(dead: set[int]) -> Callable[[Seen], Action]:
    """Never answer in these connections, as after a suspend or a change of network."""

    def answer(seen: Seen) -> Action:
        return Fate.HOLD if seen.connection in dead else sensible(seen)

    return answer


@pytest.mark.parametrize("own_session", [True, False])
async def test_a_retry_after_a_time_out_uses_a_new_connection(service: StandIn, own_session: bool) -> None:
    """Eight pooled connections are dead; the first call uses one of them, and no attempt uses another."""
    async with (
        aiohttp.ClientSession() as session,
        client_of(service, session=None if own_session else session) as tim,
    ):
        dead = await pooled(service, tim, 8)
        service.let_go.clear()
        service.answer = silent_in(dead)
        sent = len(service.seen)
        quick = tim.with_options(timeout=0.2)
        assert await quick.get_all_c2c_unread_msg_num("alice") == 7
        assert [seen.connection in dead for seen in service.seen[sent:]] == [True, False]
        # Later calls use no other dead one either.
        for _ in range(10):
            assert await quick.get_all_c2c_unread_msg_num("alice") == 7
        assert [seen.connection for seen in service.seen[sent + 1 :] if seen.connection in dead] == []
        service.let_go.set()


@pytest.mark.parametrize("own_session", [True, False])
async def test_an_unrequested_answer_is_not_taken_for_that_of_the_next_call(
    service: StandIn, own_session: bool
) -> None:
    """Its connection is closed instead of used; so is one with an HTTP 408 for idleness."""
    extra, sent = asyncio.Event(), asyncio.Event()

    async def behave(talk: Talk) -> None:
        await talk.request()
        await talk.answer(b'{"ErrorCode": 0, "AllC2CUnreadMsgNum": %d}' % talk.number)
        await extra.wait()
        await talk.answer(b'{"ErrorCode": 0, "AllC2CUnreadMsgNum": 999}')
        sent.set()
        await talk.hold()

    async with (
        Peer(behave) as peer,
        aiohttp.ClientSession() as session,
        client_of(service, base_url=peer.url, session=None if own_session else session) as tim,
    ):
        assert await tim.get_all_c2c_unread_msg_num("alice") == 1
        extra.set()
        await sent.wait()
        await everything_received()
        assert await tim.get_all_c2c_unread_msg_num("alice") == 2


async def everything_received() -> None:
    """Wait until the event loop has read what was sent to its sockets: it reads all readable ones in one iteration."""
    one, other = socket.socketpair()
    with other:
        reader, writer = await asyncio.open_connection(sock=one)
        other.send(b"x")
        await reader.readexactly(1)
        writer.close()
        await writer.wait_closed()


async def test_concurrent_calls_lose_at_most_one_attempt_each_to_dead_connections(service: StandIn) -> None:
    """Six calls use the six dead connections; each one's second attempt succeeds."""
    async with client_of(service, timeout=0.2) as tim:
        dead = await pooled(service, tim, 6)
        service.let_go.clear()
        service.answer = silent_in(dead)
        sent = len(service.seen)
        await asyncio.gather(*(tim.get_all_c2c_unread_msg_num("alice") for _ in range(6)))
        seen = service.seen[sent:]
        assert sum(one.connection in dead for one in seen) <= 6
        assert sum(one.connection not in dead for one in seen) == 6
        service.let_go.set()


async def test_a_call_that_is_not_repeatable_in_a_dead_connection_is_outcome_unknown(service: StandIn) -> None:
    """It may have arrived, so it is not retried; the next call gets a new connection."""
    async with client_of(service, timeout=0.2) as tim:
        dead = await pooled(service, tim, 4)
        service.let_go.clear()
        service.answer = silent_in(dead)
        failure = await failure_of(tim.call("v4/openim/sendmsg", {"A": 1}))
        assert isinstance(failure, RequestTimeout)
        assert failure.outcome_unknown
        assert failure.attempts == 1
        await tim.call("v4/openim/sendmsg", {"A": 1})
        service.let_go.set()


async def test_live_connections_of_the_pool_are_reused(service: StandIn) -> None:
    async with client_of(service) as tim:
        alive = await pooled(service, tim, 3)
        service.answer = sensible
        sent = len(service.seen)
        for _ in range(6):
            await tim.get_all_c2c_unread_msg_num("alice")
        assert {seen.connection for seen in service.seen[sent:]} <= alive


# `timeout` limits an attempt, including the backup host


async def test_the_time_out_covers_the_backup_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both hosts accept and send nothing, not even TLS: the attempt has one time-out, not one for each host."""
    async with answering(None) as first, answering(None) as backup:
        hosts = (f"127.0.0.1:{first.port}", f"127.0.0.1:{backup.port}")
        monkeypatch.setitem(regions.REGIONS, "singapore", hosts)
        records: list[Attempt] = []
        async with TIMClient(
            sdk_app_id=APP,
            secret_key=KEY,
            region="singapore",
            timeout=1.5,
            retry=RetryPolicy(attempts=1),
            on_attempt=records.append,
        ) as tim:
            failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
        assert isinstance(failure, ConnectFailed)
        assert not failure.outcome_unknown
        assert (first.connections, backup.connections) == (1, 1)
        (record,) = records
        assert record.took < 2 * 1.5, "two time-outs, one for each host"


# A caller's full pool


async def test_a_time_out_in_a_callers_full_pool_is_not_outcome_unknown(service: StandIn) -> None:
    """The caller's own request holds the only connection, so the call was never sent."""
    service.answer = lambda _: Fate.HOLD
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        other = asyncio.ensure_future(session.post(f"{service.url}/other", data=b"{}"))
        await service.until(1)
        service.violations.clear()  # the request is not the client's
        async with client_of(service, session=session, timeout=0.1, retry=RetryPolicy(attempts=1)) as tim:
            failure = await failure_of(tim.call("v4/openim/sendmsg", {"A": 1}))
        assert isinstance(failure, TransportError)
        assert not failure.outcome_unknown
        assert len(service.seen) == 1
        service.let_go.set()
        (await other).close()


async def test_a_time_out_in_a_callers_full_pool_is_retried(service: StandIn) -> None:
    """Also of a call that is not repeatable: it was never sent."""
    service.script.append(Fate.HOLD)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        other = asyncio.ensure_future(session.post(f"{service.url}/other", data=b"{}"))
        await service.until(1)
        service.violations.clear()

        def let_go(_: Attempt) -> None:
            service.let_go.set()

        async with client_of(service, session=session, timeout=0.3, on_attempt=let_go) as tim:
            assert (await tim.call("v4/openim/sendmsg", {"A": 1}))["ErrorCode"] == 0
        (await other).close()
    assert len(service.seen) == 2


# Retry-After


def retry_after(header: str, *more: tuple[str, str]) -> Reply:
    return Reply(b"", 503, (("Retry-After", header), *more))


@pytest.mark.parametrize("form", ["seconds", "date", "date by a clock that is an hour ahead"])
async def test_retry_after_pauses_the_endpoint(service: StandIn, form: str) -> None:
    """In seconds or as an HTTP date, which is compared with the header Date if there is one."""
    ahead = 3600 if "ahead" in form else 0
    now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=ahead)
    date = email.utils.format_datetime(now + dt.timedelta(seconds=40), usegmt=True)
    more = (("Date", email.utils.format_datetime(now, usegmt=True)),) if ahead else ()
    service.script.append(retry_after("40" if form == "seconds" else date, *more))
    async with client_of(service, retry=RetryPolicy(attempts=1)) as tim:
        await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
        refusal = await failure_of(tim.with_options(max_wait=0.01).get_all_c2c_unread_msg_num("alice"))
        assert isinstance(refusal, TIMError)
        assert 30 < getattr(refusal, "retry_after", 0) <= 40.5
        # Other endpoints are not paused.
        await tim.set_unread_msg_num("g", "alice", 1)
    assert len(service.seen) == 2


@pytest.mark.parametrize(
    "header", ["", "soon", "-5", "1e9", "٣", "Wed, 99 Foo 2026 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "\x80"]
)
async def test_a_malformed_or_past_retry_after_is_ignored(service: StandIn, header: str) -> None:
    service.script.append(Reply(b"", 503, (("Retry-After", header),)))
    async with client_of(service) as tim:
        assert await tim.with_options(max_wait=5).get_all_c2c_unread_msg_num("alice") == 7


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (503, BadResponse)])
async def test_a_retry_after_beyond_the_calls_total_is_an_error_at_once(
    service: StandIn, status: int, kind: type[TIMError]
) -> None:
    service.answer = lambda _: Reply(b"", status, (("Retry-After", "3600"),))
    async with client_of(service, retry=AT_ONCE) as tim:
        failure = await failure_of(tim.get_all_c2c_unread_msg_num("alice"))
    assert isinstance(failure, kind)
    assert failure.attempts == 1


# Closed and unclosed clients

CALLS: dict[str, Callable[[TIMClient], Awaitable[Any]]] = {
    **{method.name: method.run for method in METHODS},
    "with_options": lambda tim: tim.with_options(timeout=3).get_all_c2c_unread_msg_num("alice"),
    "lookup": lambda tim: tim.lookup.c2c_unread_msg_num("alice", "bob"),
    "lookup of a message": lambda tim: tim.lookup.group_msg_receipt("g", 1),
    "lookup of a view": lambda tim: tim.with_options(max_wait=1).lookup.c2c_unread_msg_num("alice", "bob"),
    "batch": lambda tim: tim.batch.get_group_msg_receipt("g", [1]),
    "batch of a view": lambda tim: tim.with_options(max_wait=1).batch.get_c2c_unread_msg_num("alice", ["bob"]),
}


@pytest.mark.parametrize("use", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("own_session", [True, False])
@pytest.mark.parametrize("used", [True, False])
async def test_a_call_after_aclose_raises_client_closed(
    service: StandIn, use: Callable[[TIMClient], Awaitable[Any]], own_session: bool, used: bool
) -> None:
    """Of the client, its views, its look-ups and its batches, whether or not it was ever used."""
    async with aiohttp.ClientSession() as session:
        tim = client_of(service, session=None if own_session else session)
        if used:
            await tim.get_all_c2c_unread_msg_num("alice")
        await tim.aclose()
        sent = len(service.seen)
        failure = await failure_of(use(tim))
        assert isinstance(failure, ClientClosed)
        assert "closed" in str(failure)
        assert not failure.outcome_unknown
        assert len(service.seen) == sent
        assert service.connections == int(used)
        await tim.aclose()


async def test_a_batch_map_after_aclose_fails_with_client_closed(service: StandIn) -> None:
    """For each item, or as a whole."""
    tim = client_of(service)
    await tim.aclose()
    failures: list[BaseException] = []
    try:
        async with asyncio.timeout(20), tim.batch.map(tim.set_unread_msg_num, [("g", "alice", 1)] * 3) as outcomes:
            failures += [outcome.error async for outcome in outcomes]  # type: ignore[union-attr]
    except ClientClosed as raised:
        failures.append(raised)
    assert failures
    assert all(isinstance(failure, ClientClosed) for failure in failures)


async def test_a_closed_client_cannot_be_entered(service: StandIn) -> None:
    tim = client_of(service)
    await tim.aclose()
    with pytest.raises(ClientClosed):
        async with tim:
            pass


async def test_a_closed_or_unused_client_does_not_warn(service: StandIn) -> None:
    """Nor does a client with a given session."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with client_of(service) as tim:
            await tim.get_all_c2c_unread_msg_num("alice")
        client_of(service)
        async with aiohttp.ClientSession() as session:
            await client_of(service, session=session).get_all_c2c_unread_msg_num("alice")
        del tim
        gc.collect()
    assert [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)] == []
