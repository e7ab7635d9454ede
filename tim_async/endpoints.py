"""The endpoints: one value each, of which methods, batches, look-ups, rates and statistics are made.

Building a request and reading an answer are pure functions; `_call` does what lies between.
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
"""Calls a second that the service allows on each endpoint unless more was bought."""


Body = dict[str, Any]
Answer = Mapping[str, Any]

P = ParamSpec("P")
T = TypeVar("T")
Key = TypeVar("Key", str, int)


# Not slotted: on Python 3.11 and 3.12 a frozen, slotted, generic dataclass cannot be called as Endpoint[…](…).
@dataclass(frozen=True, eq=False, kw_only=True)
class Endpoint(Generic[P, T]):
    """One command of the service: how its request is built, and how its answer is read.

    Attributes:
        name: the method's name, by which rates are configured and errors speak.
        command: the path below the host, e.g. ``v4/openim/admin_set_msg_read``.
        build: checks the method's arguments and returns the request's fields; it raises ValueError or TypeError.
        read: returns the result of an answer, given the request's fields; it raises BadResponse.
        repeatable: whether repeating a call whose fate is unknown does no harm.
        pinned_time: a field that makes the call repeatable: absent on the first attempt (the server's now),
            it holds the first attempt's time, as a string of seconds, on every later one.
    """

    name: str
    command: str
    build: Callable[P, Body]
    read: Callable[[Answer, Body], T]
    repeatable: bool = False
    pinned_time: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ItemsEndpoint(Endpoint[[str, Iterable[Key]], T], Generic[Key, T]):
    """A command that answers for each of several items of one owner, so that calls can be split and merged.

    Attributes:
        items: the most items of one call, by the vendor's word or by ours.
        check: checks an owner and any number of items, and returns them with repeated items folded.
        values: the values of a result, by item.
        errors: the errors of a result, by item.
        result: makes a result of values and errors, by item.
    """

    items: int
    check: Callable[[str, Iterable[Key]], tuple[str, list[Key]]]
    values: Callable[[T], dict[Key, Any]]
    errors: Callable[[T], dict[Key, ItemError]]
    result: Callable[[dict[Key, Any], dict[Key, ItemError]], T]


def _nothing(_answer: Answer, _sent: Body) -> None:
    """Read an answer that says no more than that it was done."""


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
# Repeated 20 s later it would also mark what arrived in those 20 s; with the first attempt's time it does not.
ADMIN_SET_MSG_READ = Endpoint(
    name="admin_set_msg_read",
    command="v4/openim/admin_set_msg_read",
    build=_admin_set_msg_read,
    read=_nothing,
    repeatable=True,
    pinned_time="MsgReadTime",
)

_PEERS = 10


def _peers(to_account: str, peer_accounts: Iterable[str]) -> tuple[str, list[str]]:
    return _arguments.text("to_account", to_account), _arguments.texts("peer_accounts", peer_accounts)


def _get_c2c_unread_msg_num(to_account: str, peer_accounts: Iterable[str]) -> Body:
    to_account, peers = _peers(to_account, peer_accounts)
    if len(peers) > _PEERS:
        raise ValueError(
            f"{len(peers)} peers; one call takes {_PEERS}, tim.batch.get_c2c_unread_msg_num takes any number"
        )
    return {"To_Account": to_account, "Peer_Account": peers}


# https://www.tencentcloud.com/document/product/1047/41046
GET_C2C_UNREAD_MSG_NUM = ItemsEndpoint(
    name="get_c2c_unread_msg_num",
    command="v4/openim/get_c2c_unread_msg_num",
    build=_get_c2c_unread_msg_num,
    read=lambda answer, sent: C2CUnread.from_wire(answer, sent["Peer_Account"]),
    repeatable=True,
    items=_PEERS,
    check=_peers,
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


def _messages(group_id: str, msg_seqs: Iterable[int]) -> tuple[str, list[int]]:
    return _arguments.text("group_id", group_id), _arguments.numbers("msg_seqs", msg_seqs)


def _get_group_msg_receipt(group_id: str, msg_seqs: Iterable[int]) -> Body:
    group_id, seqs = _messages(group_id, msg_seqs)
    return {"GroupId": group_id, "MsgSeqList": [{"MsgSeq": seq} for seq in seqs]}


# https://www.tencentcloud.com/document/product/1047/49439
# No maximum is documented; 50 is where the sibling write call stops.
GET_GROUP_MSG_RECEIPT = ItemsEndpoint(
    name="get_group_msg_receipt",
    command="v4/group_open_http_svc/get_group_msg_receipt",
    build=_get_group_msg_receipt,
    read=lambda answer, sent: GroupMsgReceipts.from_wire(answer, [row["MsgSeq"] for row in sent["MsgSeqList"]]),
    repeatable=True,
    items=50,
    check=_messages,
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
"""All there is: pinned conversations, and those of every kind."""


def _get_recent_contact_list(from_account: str, page: RecentContactPage | None) -> Body:
    if page is None:
        page = RecentContactPage()
    _arguments.kind("page", page, RecentContactPage)
    return {
        "From_Account": _arguments.text("from_account", from_account),
        **page.to_wire(),
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
"""The endpoints that have a method of their own."""


def _any(body: Body) -> Body:
    return body


def _whole(answer: Answer, _sent: Body) -> dict[str, Any]:
    return dict(answer)


# https://www.tencentcloud.com/document/product/1047/34961
# What a migration asks before it sends; anybody else calls it by its command.
GET_GROUP_INFO = Endpoint(
    name="get_group_info",
    command="v4/group_open_http_svc/get_group_info",
    build=_any,
    read=_whole,
    repeatable=True,
)

GROUPS = 50
"""The most groups of one call of `GET_GROUP_INFO`."""

_COMMAND = re.compile(r"v[0-9]+(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")


def endpoint_of(command: str, repeatable: bool) -> Endpoint[[Body], dict[str, Any]]:
    """The endpoint of a command given as a path, whether or not it is in the table, for requests of any fields.

    Raises:
        TypeError, ValueError: not a path like ``v4/openim/…``.
    """
    if not isinstance(command, str):
        raise TypeError(f"command must be a str, not {type(command).__name__}")
    command = command.strip("/")
    if not _COMMAND.fullmatch(command):
        raise ValueError(f"command must be a path like 'v4/openim/sendmsg', not {command!r}")
    for known in ENDPOINTS:
        if known.command == command:
            return replace(known, build=_any, read=_whole)
    return Endpoint(name=command, command=command, build=_any, read=_whole, repeatable=repeatable)


def rates_by_command(rates: Mapping[str, float]) -> dict[str, float]:
    """Turn a client's ``rates``, by method name or command, into calls/s by command.

    Raises:
        TypeError, ValueError: an unknown name, or a rate that is no number of at least 1.
    """
    _arguments.kind("rates", rates, Mapping)
    commands = {endpoint.name: endpoint.command for endpoint in (*ENDPOINTS, GET_GROUP_INFO)}
    checked: dict[str, float] = {}
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise TypeError(f"the rate of {name} must be a number of calls/s, not {type(rate).__name__}")
        if not 1 <= rate < math.inf:
            raise ValueError(f"the rate of {name} must be at least 1 call/s and finite, not {rate}")
        if name not in commands and not _COMMAND.fullmatch(name):
            raise ValueError(f"no endpoint {name!r}; one of {', '.join(commands)}, or a command like 'v4/openim/…'")
        checked[commands.get(name, name)] = float(rate)
    return checked
