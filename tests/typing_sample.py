"""A user's program that uses every public name.  It is only type-checked: by mypy and, in ``.ci``, by pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
# ruff: noqa: T201 - as a user would

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, NamedTuple, TypedDict, Unpack, assert_type

import aiohttp

from tim_async import (
    AccountNotFound,
    APIError,
    Attempt,
    AuthError,
    BadResponse,
    Batch,
    C2CUnread,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    Contact,
    Done,
    EndpointStats,
    Failed,
    Finding,
    GroupMsgReceiptDetail,
    GroupMsgReceipts,
    GroupNotFound,
    InvalidRequest,
    ItemError,
    Lane,
    Lookup,
    PartialFailure,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    Receipt,
    ReceiptUnavailable,
    RecentContactList,
    RecentContactPage,
    RequestTimeout,
    RetryPolicy,
    ServerBusy,
    TIMClient,
    TIMError,
    TransportError,
    doctor,
    http_status,
    retry_after,
)
from tim_async.batch import Outcomes
from tim_async.blocking import Portal
from tim_async.config import ClientOptions
from tim_async.emulator import Emulator
from tim_async.migrate import READ, Difference, FileSource, Finished, Recorder, RowFailed, run, survey, verify
from tim_async.migrate.streams import load, work
from tim_async.quota import RedisQuota
from tim_async.telemetry import OpenTelemetry, Prometheus
from tim_async.usersig import Claims, sign
from tim_async.usersig import verify as verify_usersig
from tim_async.webhooks import Event, MsgReport, ReadReceipt, RequestOverLimit, parse
from tim_async.webhooks import verify as verify_webhook


def watch(attempt: Attempt) -> None:
    """A hook."""
    assert_type(attempt.endpoint, str)
    assert_type(attempt.number, int)
    assert_type(attempt.lane, Lane)
    assert_type(attempt.took + attempt.waited, float)
    assert_type(attempt.code, int | None)
    assert_type(attempt.error, str | None)
    assert_type(attempt.status, int | None)
    assert_type(attempt.started, float)
    assert_type(attempt.url, str)


def make(session: aiohttp.ClientSession) -> TIMClient:
    """Every option."""
    assert_type(TIMClient.from_env(on_attempt=watch, quota=None, session=session), TIMClient)
    assert_type(TIMClient.from_env(on_attempt=lambda attempt: print(attempt.took), timeout=5), TIMClient)
    assert_type(TIMClient.from_env(on_attempt=[OpenTelemetry(spans=False), Prometheus(), watch]), TIMClient)
    return TIMClient(
        sdk_app_id=1400000000,
        secret_key="not a real one",
        identifier="administrator",
        region="singapore",
        base_url=None,
        rates={"get_c2c_unread_msg_num": 300, "v4/openim/sendmsg": 100.5},
        timeout=10,
        retry=RetryPolicy(attempts=5, wait=(0.1, 2.0), wait_rate_limited=(1.0, 5.0), total=20.0, budget=100.0),
        session=session,
        quota=RedisQuota("redis://127.0.0.1", fallback_share=0.05, ssl_ca_certs="ca.pem"),
        strict=True,
        usersig_expire=86400,
        on_attempt=watch,
    )


def wrapped(**options: Unpack[ClientOptions]) -> TIMClient:
    """Options that are passed on."""
    return TIMClient.from_env(**options)


class Conversation(TypedDict):
    """A row with the names of keyword arguments."""

    report_account: str
    peer_account: str


class Member(NamedTuple):
    """A row with names of its own."""

    group: str
    account: str
    unread: int


def rows() -> Iterator[tuple[str, str, int]]:
    """Rows of a migration."""
    yield "@TGS#1", "alice", 3


async def later() -> AsyncIterator[dict[str, Any]]:
    """Rows that arrive one by one."""
    yield {"report_account": "alice", "peer_account": "bob"}


async def unread_of(account: str, peers: list[str] | None = None) -> int:
    """A function of the user's."""
    return len(account) + len(peers or ())


def started(tim: TIMClient) -> Outcomes[tuple[str, str, int], None]:
    """A batch that others enter."""
    return tim.batch.map(tim.set_unread_msg_num, rows())


async def batches(tim: TIMClient, accounts: list[tuple[str]], chats: list[Conversation], members: list[Member]) -> None:
    """What `batch.map` knows of rows and values."""
    async with tim.batch.map(tim.set_unread_msg_num, rows(), concurrency=10) as outcomes:
        async for outcome in outcomes:
            match outcome:
                case Done(item, value):
                    assert_type(item, tuple[str, str, int])
                    assert_type(value, None)
                case Failed(item, error):
                    assert_type(item, tuple[str, str, int])
                    assert_type(error, Exception)
    async with tim.batch.map(tim.get_all_c2c_unread_msg_num, accounts) as counts:
        async for count in counts:
            if isinstance(count, Done):
                assert_type(count.value, int)
            else:
                assert_type(count, Failed[tuple[str]])
    async with tim.batch.map(lambda account: tim.get_c2c_unread_msg_num(account, ["bob"]), accounts) as from_bob:
        assert_type([outcome async for outcome in from_bob], list[Done[tuple[str], C2CUnread] | Failed[tuple[str]]])
    async with tim.batch.map(lambda group, seq: tim.get_group_msg_receipt(group, [seq]), [("@TGS#1", 7)]) as receipts:
        found: list[Done[tuple[str, int], GroupMsgReceipts] | Failed[tuple[str, int]]] = [
            receipt async for receipt in receipts
        ]
        print(found)
    async with tim.batch.map(unread_of, accounts) as lengths:
        assert_type(await anext(lengths), Done[tuple[str], int] | Failed[tuple[str]])
    async with tim.batch.map(tim.admin_set_msg_read, later()) as marked:
        assert_type(await anext(marked), Done[dict[str, Any], None] | Failed[dict[str, Any]])
    async with tim.batch.map(tim.admin_set_msg_read, chats) as read:
        assert_type((await anext(read)).item["peer_account"], str)
    async with tim.batch.map(tim.set_unread_msg_num, members) as named:
        assert_type((await anext(named)).item.account, str)


async def use(tim: TIMClient) -> None:
    """Every method and what it returns."""
    await tim.set_unread_msg_num("@TGS#1", "alice", 3)
    await tim.admin_set_msg_read("alice", "bob", msg_read_time=dt.datetime.now(dt.UTC))
    await tim.admin_set_msg_read("alice", "bob", msg_read_time=1700000000)
    assert_type(await tim.get_all_c2c_unread_msg_num("alice"), int)
    unread = await tim.get_c2c_unread_msg_num("alice", ["bob"])
    assert_type(unread, C2CUnread)
    assert_type(unread.counts, dict[str, int])
    assert_type(unread.errors, dict[str, ItemError])
    receipts = await tim.get_group_msg_receipt("@TGS#1", (1, 2, 3))
    assert_type(receipts, GroupMsgReceipts)
    assert_type(receipts.receipts[1], Receipt)
    assert_type(receipts.receipts[1].read_num + receipts.receipts[1].unread_num, int)
    assert_type(receipts.errors[2].code, int | None)
    assert_type(receipts.errors[2].info, str)
    receipts.raise_for_errors()
    detail = await tim.get_group_msg_receipt_detail("@TGS#1", 7, read=False, cursor="", count=100)
    assert_type(detail, GroupMsgReceiptDetail)
    assert_type(detail.accounts, tuple[str, ...])
    recent = await tim.get_recent_contact_list("alice", page=RecentContactPage())
    assert_type(recent, RecentContactList)
    assert_type(recent.contacts, tuple[Contact, ...])
    assert_type(recent.next_page, RecentContactPage | None)
    assert_type([account async for account in tim.batch.get_group_msg_receipt_detail("@TGS#1", 7)], list[str])
    assert_type([contact async for contact in tim.batch.get_recent_contact_list("alice")], list[Contact])
    assert_type(await tim.batch.get_recent_c2c_unread_msg_num("alice"), C2CUnread)
    assert_type(await tim.call("v4/openim/anything", {"A": 1}, repeatable=True), dict[str, Any])
    assert_type(tim.batch, Batch)
    assert_type(await tim.batch.get_c2c_unread_msg_num("alice", (f"user{n}" for n in range(99))), C2CUnread)
    assert_type(await tim.batch.get_group_msg_receipt("@TGS#1", range(1000), chunk=20), GroupMsgReceipts)
    assert_type(tim.lookup, Lookup)
    assert_type(await tim.lookup.c2c_unread_msg_num("alice", "bob"), int)
    assert_type(await tim.lookup.group_msg_receipt("@TGS#1", 7), Receipt)
    view = tim.with_options(max_wait=0.2, timeout=5, lane=Lane.BULK, retry=RetryPolicy(attempts=1))
    assert_type(view, TIMClient)
    assert_type(view.stats(), dict[str, EndpointStats])
    assert_type(view.stats()["set_unread_msg_num"].queue.bulk, int)
    assert_type(view.set_rate("set_unread_msg_num", 300, bulk_share=0.8), None)
    verify_webhook("token", {"Sign": "…", "RequestTime": "1700000000"})
    match parse({"CallbackCommand": "Alert.RequestOverLimit"}, b"{}"):
        case RequestOverLimit() as alert:
            tim.on_alert(alert)
        case MsgReport(report_account=who, last_read_time=until):
            print(assert_type(who, str), assert_type(until, int))
        case ReadReceipt(receipts=(first, *_)):
            print(first.msg_seq, first.members)
        case Event(body=body):
            assert_type(body, dict[str, Any])
    await tim.aclose()


async def fail(tim: TIMClient) -> str:
    """Every exception."""
    try:
        await use(tim)
    except ClientClosed:
        return "closed"
    except (ConnectFailed, ConnectionLost) as error:
        return str(error)
    except BadResponse as error:
        return str(assert_type(error.status, int))
    except (RequestTimeout, TransportError) as error:
        return str(assert_type(error.outcome_unknown, bool))
    except (AuthError, PermissionDenied, GroupNotFound, AccountNotFound, InvalidRequest, ReceiptUnavailable) as error:
        return str(assert_type(error.code, int))
    except (RateLimited, ServerBusy, APIError) as error:
        assert_type(error.remedy, str)
        return assert_type(error.info, str)
    except QuotaExhausted as error:
        return str(assert_type(error.retry_after, float))
    except PartialFailure as error:
        return str(assert_type(error.result, object))
    except TIMError as error:
        assert_type(http_status(error), int)
        assert_type(retry_after(error), float | None)
        assert_type(error.meaning, str)
        return f"{assert_type(error.endpoint, str)} {assert_type(error.attempts, int)}"
    return ""


async def migrate(tim: TIMClient) -> None:
    """A migration of a file, its verification, and the same on streams."""
    with FileSource("export.csv", READ) as source:
        print(survey(source, rate=200.0).counts.pending)
        recorder = Recorder("admin_set_msg_read", 200.0)
        async with aclosing(run(tim, source, "export.journal", max_errors=3, recorder=recorder)) as events:
            async for event in events:
                if isinstance(event, RowFailed):
                    print(event)
                elif isinstance(event, Finished):
                    assert_type(event.counts.done, int)
        async with aclosing(verify(tim, "export.journal")) as differences:
            assert_type([found.reason async for found in differences if isinstance(found, Difference)], list[str])
        async with (
            aclosing(load(source, "redis://127.0.0.1")) as loading,
            aclosing(work(tim, "redis://127.0.0.1")) as working,
        ):
            print([step async for step in loading], [event async for event in working])


async def look(tim: TIMClient) -> None:
    """The doctor's findings."""
    findings = await doctor(tim, group="@TGS#1", try_regions=True, timeout=5.0)
    assert_type(findings, tuple[Finding, ...])
    print([f"{one.name}: {one.found} {one.remedy}" for one in findings if one.level == "failure"])


async def counts(tim: TIMClient, account: str, *, most: int = 10) -> list[int]:
    """A function of the program's own."""
    return [*(await tim.batch.get_recent_c2c_unread_msg_num(account)).counts.values()][:most]


def without_a_loop() -> None:
    """In a thread that runs no event loop."""
    with Portal(lambda: TIMClient.from_env().with_options(max_wait=0.1), timeout=5) as portal:
        assert_type(portal.run(TIMClient.get_all_c2c_unread_msg_num, "alice"), int)
        assert_type(portal.run(TIMClient.get_c2c_unread_msg_num, "alice", peer_accounts=["bob"]), C2CUnread)
        assert_type(portal.run(lambda tim: tim.lookup.group_msg_receipt("@TGS#public", 118)), Receipt)
        assert_type(portal.run(counts, "alice", most=3), list[int])
        portal.run(TIMClient.set_unread_msg_num, "@TGS#public", "alice", 7)


async def emulate() -> None:
    """A program against the emulator, in its own loop and in a thread."""
    with Emulator(limit={"get_c2c_unread_msg_num": 100}) as threaded:
        threaded.state.add_messages("alice", "bob", 3)
    async with Emulator(latency=0.05) as service, TIMClient(**service.client_options()) as tim:
        service.fault(code=10002, times=1)
        await use(tim)
        await look(tim)
        print(service.report())
    signed = sign(1400000000, "not a real one", "alice", issued_at=1700000000, expire=3600)
    assert_type(verify_usersig(signed, 1400000000, "not a real one", now=1700000000), Claims)


async def main() -> None:
    """The usual way."""
    async with aiohttp.ClientSession() as session, make(session) as tim:
        assert_type(tim, TIMClient)
        print(await fail(tim))
