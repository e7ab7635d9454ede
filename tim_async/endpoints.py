"""The endpoints, one value each: the methods, batches, look-ups, rates and statistics are built on them.

Building a request and reading an answer are pure functions; `tim_async._call` does the rest.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, ParamSpec, TypeVar

from . import _arguments
from .models import (
    C2CUnread,
    GroupMsgReceiptDetail,
    GroupMsgReceipts,
    ItemError,
    RecentContactList,
    RecentContactPage,
    all_c2c_unread,
)

DEFAULT_RATE = 200.0
"""Calls/s that the service allows on each endpoint unless a higher limit was bought."""


Body = dict[str, Any]
Answer = Mapping[str, Any]

P = ParamSpec("P")
T = TypeVar("T")
Key = TypeVar("Key", str, int)
One = TypeVar("One")


# Not slotted: on Python 3.11 and 3.12 a frozen, slotted, generic dataclass cannot be called as Endpoint[…](…).
@dataclass(frozen=True, eq=False, kw_only=True)
class Endpoint(Generic[P, T]):
    """One command of the service, with functions that build its requests and read its answers.

    Attributes:
        name: the method's name, as used in rates, statistics and errors.
        command: the path below the host, e.g. ``v4/openim/admin_set_msg_read``.
        build: checks the method's arguments and returns the request's fields; raises ValueError or TypeError.
        read: returns the result of an answer, given the request's fields; raises BadResponse.
        repeatable: whether a call with an unknown outcome may be repeated.
        pinned_time: a field that makes the call repeatable: absent from the first attempt (the server uses its current
            time), it holds the first attempt's time, as a string of unix seconds, in every retry.
    """

    name: str
    command: str
    build: Callable[P, Body]
    read: Callable[[Answer, Body], T]
    repeatable: bool = False
    pinned_time: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ItemsEndpoint(Endpoint[[str, Iterable[Key]], T], Generic[Key, One, T]):
    """A command that answers for each of several items of one owner, so that calls can be split and merged.

    Attributes:
        items: the maximum number of items of one call, documented or chosen.
        owner_name: the name of the argument for the owner, an account or a group.
        item_name: the name of an argument for one item, a peer or a message.
        check_item: checks one item, given its name.
        values: the values of a result, by item.
        errors: the errors of a result, by item.
        result: makes a result from values and errors, by item.
    """

    items: int
    owner_name: str
    item_name: str
    check_item: Callable[[str, object], Key]
    values: Callable[[T], dict[Key, One]]
    errors: Callable[[T], dict[Key, ItemError]]
    result: Callable[[dict[Key, One], dict[Key, ItemError]], T]

    def check(self, owner: str, items: Iterable[Key]) -> tuple[str, list[Key]]:
        """Check an owner and any number of items; return them without duplicate items.

        Raises:
            ValueError, TypeError: one of them is invalid, or there are no items.
        """
        owner = _arguments.text(self.owner_name, owner)
        return owner, _arguments.several(f"{self.item_name}s", items, self.check_item)

    def check_one(self, owner: str, item: Key) -> tuple[str, Key]:
        """Check an owner and one item, and return them.

        Raises:
            ValueError, TypeError: one of them is invalid.
        """
        return _arguments.text(self.owner_name, owner), self.check_item(self.item_name, item)


def _nothing(_answer: Answer, _sent: Body) -> None:
    """Read an answer that has no fields of its own."""


def _set_unread_msg_num(group_id: str, member_account: str, unread_msg_num: int) -> Body:
    return {
        "GroupId": _arguments.text("group_id", group_id),
        "Member_Account": _arguments.text("member_account", member_account),
        "UnreadMsgNum": _arguments.number("unread_msg_num", unread_msg_num),
    }


# https://www.tencentcloud.com/document/product/1047/34909
SET_UNREAD_MSG_NUM = Endpoint(
    name="set_unread_msg_num",
    command="v4/group_open_http_svc/set_unread_msg_num",
    build=_set_unread_msg_num,
    read=_nothing,
    repeatable=True,
)


def _admin_set_msg_read(report_account: str, peer_account: str, msg_read_time: int | dt.datetime | None) -> Body:
    body = {
        "Report_Account": _arguments.text("report_account", report_account),
        "Peer_Account": _arguments.text("peer_account", peer_account),
    }
    if msg_read_time is not None:
        body["MsgReadTime"] = _arguments.seconds("msg_read_time", msg_read_time)
    return body


# https://trtc.io/document/38996
# Without the pinned time, a retry 20 s later would also mark the messages of those 20 s as read.
ADMIN_SET_MSG_READ = Endpoint(
    name="admin_set_msg_read",
    command="v4/openim/admin_set_msg_read",
    build=_admin_set_msg_read,
    read=_nothing,
    repeatable=True,
    pinned_time="MsgReadTime",
)


def _get_c2c_unread_msg_num(to_account: str, peer_accounts: Iterable[str]) -> Body:
    to_account, peers = GET_C2C_UNREAD_MSG_NUM.check(to_account, peer_accounts)
    most = GET_C2C_UNREAD_MSG_NUM.items
    if len(peers) > most:
        raise ValueError(f"{len(peers)} peers; one call takes {most}, use tim.batch.get_c2c_unread_msg_num for more")
    return {"To_Account": to_account, "Peer_Account": peers}


# https://www.tencentcloud.com/document/product/1047/41046
GET_C2C_UNREAD_MSG_NUM = ItemsEndpoint(
    name="get_c2c_unread_msg_num",
    command="v4/openim/get_c2c_unread_msg_num",
    build=_get_c2c_unread_msg_num,
    read=lambda answer, sent: C2CUnread.from_wire(answer, sent["Peer_Account"]),
    repeatable=True,
    items=10,
    owner_name="to_account",
    item_name="peer_account",
    check_item=_arguments.text,
    values=lambda unread: unread.counts,
    errors=lambda unread: unread.errors,
    result=C2CUnread,
)


def _get_all_c2c_unread_msg_num(to_account: str) -> Body:
    return {"To_Account": _arguments.text("to_account", to_account)}


# The same command, without peers.
GET_ALL_C2C_UNREAD_MSG_NUM = Endpoint(
    name=GET_C2C_UNREAD_MSG_NUM.name,
    command=GET_C2C_UNREAD_MSG_NUM.command,
    build=_get_all_c2c_unread_msg_num,
    read=lambda answer, _sent: all_c2c_unread(answer),
    repeatable=True,
)


def _get_group_msg_receipt(group_id: str, msg_seqs: Iterable[int]) -> Body:
    group_id, seqs = GET_GROUP_MSG_RECEIPT.check(group_id, msg_seqs)
    return {"GroupId": group_id, "MsgSeqList": [{"MsgSeq": seq} for seq in seqs]}


# https://www.tencentcloud.com/document/product/1047/49439
# No maximum is documented; 50 is that of the related command that marks messages as read.
GET_GROUP_MSG_RECEIPT = ItemsEndpoint(
    name="get_group_msg_receipt",
    command="v4/group_open_http_svc/get_group_msg_receipt",
    build=_get_group_msg_receipt,
    read=lambda answer, sent: GroupMsgReceipts.from_wire(answer, [row["MsgSeq"] for row in sent["MsgSeqList"]]),
    repeatable=True,
    items=50,
    owner_name="group_id",
    item_name="msg_seq",
    check_item=_arguments.number,
    values=lambda receipts: receipts.receipts,
    errors=lambda receipts: receipts.errors,
    result=GroupMsgReceipts,
)

_ACCOUNTS = 200


def _get_group_msg_receipt_detail(group_id: str, msg_seq: int, read: bool, cursor: str, count: int) -> Body:
    _arguments.kind("read", read, bool)
    _arguments.kind("cursor", cursor, str)
    if not 1 <= _arguments.number("count", count) <= _ACCOUNTS:
        raise ValueError(f"count must be from 1 to {_ACCOUNTS}, not {count}")
    return {
        "GroupId": _arguments.text("group_id", group_id),
        "MsgSeq": _arguments.number("msg_seq", msg_seq),
        "Filter": 0 if read else 1,
        "Cursor": cursor,
        "Count": count,
    }


# https://www.tencentcloud.com/document/product/269/77693
GET_GROUP_MSG_RECEIPT_DETAIL = Endpoint(
    name="get_group_msg_receipt_detail",
    command="v4/group_open_http_svc/get_group_msg_receipt_detail",
    build=_get_group_msg_receipt_detail,
    read=lambda answer, sent: GroupMsgReceiptDetail.from_wire(answer, read=sent["Filter"] == 0),
    repeatable=True,
)

_ASSIST_FLAGS = 63
"""All flags: pinned conversations, and conversations of every kind."""


def _get_recent_contact_list(from_account: str, page: RecentContactPage | None) -> Body:
    if page is None:
        page = RecentContactPage()
    _arguments.kind("page", page, RecentContactPage)
    return {
        "From_Account": _arguments.text("from_account", from_account),
        **{name: _arguments.number(f"{name} of the page", value) for name, value in page.to_wire().items()},
        "AssistFlags": _ASSIST_FLAGS,
    }


# https://www.tencentcloud.com/document/product/1047/43087
GET_RECENT_CONTACT_LIST = Endpoint(
    name="get_recent_contact_list",
    command="v4/recentcontact/get_list",
    build=_get_recent_contact_list,
    read=lambda answer, _sent: RecentContactList.from_wire(answer),
    repeatable=True,
)

ENDPOINTS: tuple[Endpoint[..., Any], ...] = (
    SET_UNREAD_MSG_NUM,
    ADMIN_SET_MSG_READ,
    GET_C2C_UNREAD_MSG_NUM,
    GET_GROUP_MSG_RECEIPT,
    GET_GROUP_MSG_RECEIPT_DETAIL,
    GET_RECENT_CONTACT_LIST,
)
"""The endpoints that have a method."""


def _any(body: Body) -> Body:
    return body


def _whole(answer: Answer, _sent: Body) -> dict[str, Any]:
    return dict(answer)


# https://www.tencentcloud.com/document/product/1047/34961
# Used by migrations before they send; it has no method.
GET_GROUP_INFO = Endpoint(
    name="get_group_info",
    command="v4/group_open_http_svc/get_group_info",
    build=_any,
    read=_whole,
    repeatable=True,
)

GROUPS = 50
"""The maximum number of groups of one `GET_GROUP_INFO` call."""

_COMMAND = re.compile(r"v[0-9]+(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")


def endpoint_of(command: str, repeatable: bool) -> Endpoint[[Body], dict[str, Any]]:
    """Return the endpoint of any command, with raw fields as requests and answers.

    Args:
        command: the command's path.
        repeatable: whether a call with an unknown outcome may be repeated; ignored for a command in `ENDPOINTS`.

    Raises:
        TypeError, ValueError: ``command`` is not a path like ``v4/openim/…``, or ``repeatable`` not a bool.
    """
    if not isinstance(command, str):
        raise TypeError(f"command must be a str, not {type(command).__name__}")
    command = command.strip("/")
    if not _COMMAND.fullmatch(command):
        raise ValueError(f"command must be a path like 'v4/openim/sendmsg', not {command!r}")
    _arguments.kind("repeatable", repeatable, bool)
    for known in ENDPOINTS:
        if known.command == command:
            return replace(known, build=_any, read=_whole)
    return Endpoint(name=command, command=command, build=_any, read=_whole, repeatable=repeatable)


def rates_by_command(rates: Mapping[str, float]) -> dict[str, float]:
    """Convert a client's ``rates``, by method name or command, to calls/s by command.

    Raises:
        TypeError, ValueError: an unknown name, or a rate that is not a finite number of at least 1.
    """
    _arguments.kind("rates", rates, Mapping)
    commands = {endpoint.name: endpoint.command for endpoint in (*ENDPOINTS, GET_GROUP_INFO)}
    checked: dict[str, float] = {}
    for name, rate in rates.items():
        _arguments.kind("the name of an endpoint", name, str)
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise TypeError(f"the rate of {name} must be a number of calls/s, not {type(rate).__name__}")
        if not 1 <= rate < math.inf:
            raise ValueError(f"the rate of {name} must be at least 1 call/s and finite, not {rate}")
        if name not in commands and not _COMMAND.fullmatch(name):
            raise ValueError(f"no endpoint {name!r}; one of {', '.join(commands)}, or a command like 'v4/openim/…'")
        checked[commands.get(name, name)] = float(rate)
    return checked
