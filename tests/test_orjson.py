"""Results as JSON by orjson, which web frameworks use: directly, or with the option that the docstring names."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson

import tim_async
from tim_async import (
    Attempt,
    C2CUnread,
    Contact,
    Done,
    Failed,
    Finding,
    GroupMsgReceiptDetail,
    GroupMsgReceipts,
    ItemError,
    Lane,
    Receipt,
    RecentContactList,
    RecentContactPage,
    RetryPolicy,
    TIMClient,
    webhooks,
)
from tim_async.webhooks import MsgReceipt, MsgReport, ReadReceipt, RequestOverLimit

STATS = TIMClient(sdk_app_id=1400000000, secret_key="k" * 64, region="singapore").stats()["set_unread_msg_num"]
PLAIN: list[Any] = [
    C2CUnread({"bob": 3}, {"carol": ItemError(70107, "no such account")}),
    GroupMsgReceiptDetail(("alice", "bob"), "next", finished=False),
    RecentContactList((Contact("c2c", "bob", 1700000000, pinned=True),), RecentContactPage(start_index=2)),
    Receipt(2, 40),
    ItemError(None, "not in the answer"),
    Contact("group", "@TGS#1", 1700000000, pinned=False),
    RecentContactPage(),
    Attempt("set_unread_msg_num", 1, Lane.BULK, 0.1, 0.2, 0, None),
    Done(("alice", "bob"), None),
    STATS,
    Finding("clock", "ok", "agrees with the service's"),
    RetryPolicy(),
    webhooks.Event(callback_command="State.StateChange", body={"Info": {"Action": "Login"}}),
    MsgReport(report_account="alice", peer_account="bob", last_read_time=1700000000),
    ReadReceipt(
        group_id="@TGS#1", type="Public", receipts=(MsgReceipt(msg_seq=7, read_num=2, unread_num=40, members=("bob",)),)
    ),
    MsgReceipt(msg_seq=7, read_num=2, unread_num=40),
    RequestOverLimit(service_name="openim", command="admin_set_msg_read", request=170, limit=200),
]
RECEIPTS = GroupMsgReceipts({7: Receipt(2, 40)}, {8: ItemError(10062)})
FAILED = Failed(("alice", "bob"), ValueError("no such account"))


def test_orjson_serializes_results_by_their_fields() -> None:
    for result in PLAIN:
        assert [*orjson.loads(orjson.dumps(result))] == [field.name for field in dataclasses.fields(result)]


def test_two_results_need_the_option_that_their_docstrings_name() -> None:
    """One has integer keys, the other an exception."""
    assert "orjson.OPT_NON_STR_KEYS" in str(GroupMsgReceipts.__doc__)
    assert orjson.loads(orjson.dumps(RECEIPTS, option=orjson.OPT_NON_STR_KEYS)) == {
        "receipts": {"7": {"read_num": 2, "unread_num": 40}},
        "errors": {"8": {"code": 10062, "info": ""}},
    }
    assert "default=str" in str(Failed.__doc__)
    assert orjson.loads(orjson.dumps(FAILED, default=str)) == {"item": ["alice", "bob"], "error": "no such account"}


def test_every_public_dataclass_is_serialized() -> None:
    public = [getattr(package, name) for package in (tim_async, webhooks) for name in package.__all__]
    results = {kind for kind in public if isinstance(kind, type) and dataclasses.is_dataclass(kind)}
    assert results == {type(result) for result in [*PLAIN, RECEIPTS, FAILED]}
