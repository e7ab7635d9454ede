"""A user's program that uses every public name; it is only type-checked, in `test_typing`."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

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
)
from tim_async.quota import RedisQuota
from tim_async.webhooks import RequestOverLimit, parse


def watch(attempt: Attempt) -> None:
    """A hook."""
    assert_type(attempt.endpoint, str)
    assert_type(attempt.number, int)
    assert_type(attempt.lane, Lane)
    assert_type(attempt.took + attempt.waited, float)
    assert_type(attempt.code, int | None)
    assert_type(attempt.error, str | None)


def make(session: aiohttp.ClientSession) -> TIMClient:
    """Every option."""
    assert_type(TIMClient.from_env(timeout=5.0), TIMClient)
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


def rows() -> Iterator[tuple[str, str, int]]:
    """Rows of a migration."""
    yield "@TGS#1", "alice", 3


async def later() -> AsyncIterator[dict[str, Any]]:
    """Rows that come by and by."""
    yield {"report_account": "alice", "peer_account": "bob"}


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
    async with tim.batch.map(tim.set_unread_msg_num, rows(), concurrency=10) as outcomes:
        async for outcome in outcomes:
            match outcome:
                case Done(item, value):
                    assert_type(item, tuple[str, str, int])
                    assert_type(value, None)
                case Failed(item, error):
                    assert_type(item, tuple[str, str, int])
                    assert_type(error, Exception)
    async with tim.batch.map(tim.get_all_c2c_unread_msg_num, [("alice",)]) as counts:
        async for count in counts:
            if isinstance(count, Done):
                assert_type(count.value, int)
            else:
                assert_type(count, Failed[tuple[str]])
    async with tim.batch.map(tim.admin_set_msg_read, later()) as marked:
        async for mark in marked:
            assert_type(mark, Done[dict[str, Any], None] | Failed[dict[str, Any]])
    assert_type(tim.lookup, Lookup)
    assert_type(await tim.lookup.c2c_unread_msg_num("alice", "bob"), int)
    assert_type(await tim.lookup.group_msg_receipt("@TGS#1", 7), Receipt)
    view = tim.with_options(max_wait=0.2, timeout=5, lane=Lane.BULK, retry=RetryPolicy(attempts=1))
    assert_type(view, TIMClient)
    assert_type(view.stats(), dict[str, EndpointStats])
    assert_type(view.stats()["set_unread_msg_num"].queue.bulk, int)
    event = parse({"CallbackCommand": "Alert.RequestOverLimit"}, b"{}")
    if isinstance(event, RequestOverLimit):
        tim.on_alert(event)
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
        return assert_type(error.info, str)
    except QuotaExhausted as error:
        return str(assert_type(error.retry_after, float))
    except PartialFailure as error:
        return str(assert_type(error.result, object))
    except TIMError as error:
        return f"{assert_type(error.endpoint, str)} {assert_type(error.attempts, int)}"
    return ""


async def main() -> None:
    """The usual way."""
    async with aiohttp.ClientSession() as session, make(session) as tim:
        assert_type(tim, TIMClient)
        print(await fail(tim))  # noqa: T201 - as a user would
