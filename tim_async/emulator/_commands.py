"""The commands the emulator knows: one handler each, which checks its fields as the documents have them.

A handler takes the parsed body and returns the fields of its answer, or raises `Refusal`.  Where the documents name
no code for a mistake, it is one that its page does list and that asks for no retry.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tim_async.emulator._answers import Refusal
from tim_async.emulator._contacts import (
    ContactPage,
    Position,
    RecentContact,
    page_of,
)
from tim_async.emulator._cursors import Cursors
from tim_async.emulator._groups import Group
from tim_async.emulator._state import State

Body = Mapping[str, Any]
Fields = dict[str, Any]

_MOST_PEERS = 10
_MOST_GROUPS = 50
_MOST_RECEIPT_ACCOUNTS = 200
_LONGEST_GROUP_ID = 48
_LONGEST_TIME = 10
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class World:
    """What handlers work on.

    Attributes:
        state: what the service remembers.
        dice: decide what the documents leave to chance.
        max_msg_seqs: the most items of one ``MsgSeqList``; None where there is no such limit.
        max_receipt_members: the most members of a group whose messages have receipts.
        contacts_per_page: the most conversations of one page of recent contacts.
        cursors: the cursors of pages.
    """

    state: State
    dice: random.Random
    max_msg_seqs: int | None = None
    max_receipt_members: int = 200
    contacts_per_page: int = 100
    cursors: Cursors = field(default_factory=Cursors)


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its method's name, its path below the host, and what it does."""

    name: str
    path: str
    handle: Callable[[World, Body], Fields]


# https://www.tencentcloud.com/document/product/1047/34909
def set_unread_msg_num(world: World, body: Body) -> Fields:
    """Set a member's unread count in a group, lowered to the number of messages; in some types do nothing."""
    group_id = _text(body, "GroupId", 10004)
    member = _text(body, "Member_Account", 10004)
    number = _whole(body.get("UnreadMsgNum"), "UnreadMsgNum", least=0)
    group = _group(world.state, group_id)
    if group.counts_unread:
        if not world.state.has_account(member):
            raise Refusal(10019, f"no such account: {member}")
        if member not in group.unread:
            raise Refusal(10007, f"not a member of the group: {member}")
    group.set_unread(member, number)
    return {}


# https://trtc.io/document/38996
def admin_set_msg_read(world: World, body: Body) -> Fields:
    """Mark what one account was sent by another as read, up to a time or up to now."""
    report = _account(world.state, body, "Report_Account", 90008)
    peer = _account(world.state, body, "Peer_Account", 90003)
    before = None
    if "MsgReadTime" in body:
        text = body["MsgReadTime"]
        # Ten digits hold seconds for 250 years; a longer number is milliseconds, sent by mistake.
        if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= _LONGEST_TIME):
            raise Refusal(90001, "MsgReadTime must be a String of seconds")
        before = int(text)
    world.state.mark_read(report, peer, before)
    return {}


# https://www.tencentcloud.com/document/product/1047/41046
def get_c2c_unread_msg_num(world: World, body: Body) -> Fields:
    """Count an account's unread one-to-one messages, in all or by peer."""
    account = _account(world.state, body, "To_Account", 90003)
    if "Peer_Account" not in body:
        return {"AllC2CUnreadMsgNum": world.state.unread(account)}
    peers = body["Peer_Account"]
    if not isinstance(peers, list) or not peers or not all(isinstance(peer, str) and peer for peer in peers):
        raise Refusal(90001, "Peer_Account must be a non-empty Array of String")
    if len(peers) > _MOST_PEERS:
        raise Refusal(90018, f"Peer_Account may hold {_MOST_PEERS} accounts at most, not {len(peers)}")
    counts: list[Fields] = []
    errors: list[Fields] = []
    for peer in dict.fromkeys(peers):
        if world.state.has_account(peer):
            counts.append({"Peer_Account": peer, "C2CUnreadMsgNum": world.state.unread(account, peer)})
        else:
            errors.append({"Peer_Account": peer, "ErrorCode": 70107})
    # No order is promised, so none is kept.
    world.dice.shuffle(counts)
    lists = {"C2CUnreadMsgNumList": counts, "ErrorList": errors}
    return {name: items for name, items in lists.items() if items}


# https://www.tencentcloud.com/document/product/1047/49439
def get_group_msg_receipt(world: World, body: Body) -> Fields:
    """Tell how many have read each of some messages of a group."""
    group_id = _text(body, "GroupId", 10004)
    items = body.get("MsgSeqList")
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise Refusal(10004, "MsgSeqList must be a non-empty Array of Object")
    seqs = [_whole(item.get("MsgSeq"), "MsgSeq", least=1) for item in items]
    if world.max_msg_seqs is not None and len(seqs) > world.max_msg_seqs:
        raise Refusal(10004, f"MsgSeqList may hold {world.max_msg_seqs} items at most, not {len(seqs)}")
    group = _group_with_receipts(world, group_id)
    return {"GroupMsgReceiptList": [_receipt(group, seq) for seq in seqs]}


# https://www.tencentcloud.com/document/product/269/77693
def get_group_msg_receipt_detail(world: World, body: Body) -> Fields:
    """List the members who have, or have not, read one message of a group, page by page."""
    group_id = _text(body, "GroupId", 10004)
    seq = _whole(body.get("MsgSeq"), "MsgSeq", least=1)
    unread = _whole(body.get("Filter"), "Filter", least=0, most=1)
    size = _whole(body.get("Count"), "Count", least=1, most=_MOST_RECEIPT_ACCOUNTS)
    cursor = body.get("Cursor")
    start = world.cursors.take(cursor, group_id, seq, unread) if isinstance(cursor, str) else None
    if start is None:
        raise Refusal(10004, 'Cursor must be "" or the Cursor of the page before')
    receipt = _group_with_receipts(world, group_id).receipts.get(seq)
    if receipt is None:
        raise Refusal(10062, f"message {seq} was sent without a receipt")
    page = receipt.page(read=not unread, start=start, size=size)
    name, item = ("UnreadList", "Unread_Account") if unread else ("ReadList", "Read_Account")
    return {
        "Cursor": world.cursors.give(page.end, group_id, seq, unread),
        "IsFinish": int(page.finished),
        name: [{item: account} for account in page.accounts],
    }


# https://www.tencentcloud.com/document/product/1047/43087
def get_recent_contact_list(world: World, body: Body) -> Fields:
    """List an account's conversations, page by page: pinned ones first, then by time, newest first."""
    account = _account(world.state, body, "From_Account", 90008)
    time, index, top_time, top_index, _ = (
        _whole(body.get(name), name, least=0, code=90001)
        for name in ("TimeStamp", "StartIndex", "TopTimeStamp", "TopStartIndex", "AssistFlags")
    )
    contacts = world.state.recent_contacts(account)
    return _contact_page(
        page_of(contacts, Position(top_time, top_index), Position(time, index), world.contacts_per_page)
    )


# https://www.tencentcloud.com/document/product/1047/34961
def get_group_info(world: World, body: Body) -> Fields:
    """Describe some groups, or those of their fields that were asked for."""
    ids = body.get("GroupIdList")
    if not isinstance(ids, list) or not ids or not all(isinstance(group_id, str) for group_id in ids):
        raise Refusal(10004, "GroupIdList must be a non-empty Array of String")
    if len(ids) > _MOST_GROUPS:
        raise Refusal(10004, f"GroupIdList may hold {_MOST_GROUPS} groups at most, not {len(ids)}")
    response_filter = body.get("ResponseFilter", {})
    names = response_filter.get("GroupBaseInfoFilter") if isinstance(response_filter, dict) else ()
    if not (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))):
        raise Refusal(10004, "ResponseFilter.GroupBaseInfoFilter must be an Array of String")
    return {"GroupInfo": [_group_info(world.state, group_id, names) for group_id in ids]}


COMMANDS: tuple[Command, ...] = (
    Command("set_unread_msg_num", "v4/group_open_http_svc/set_unread_msg_num", set_unread_msg_num),
    Command("admin_set_msg_read", "v4/openim/admin_set_msg_read", admin_set_msg_read),
    Command("get_c2c_unread_msg_num", "v4/openim/get_c2c_unread_msg_num", get_c2c_unread_msg_num),
    Command("get_group_msg_receipt", "v4/group_open_http_svc/get_group_msg_receipt", get_group_msg_receipt),
    Command(
        "get_group_msg_receipt_detail",
        "v4/group_open_http_svc/get_group_msg_receipt_detail",
        get_group_msg_receipt_detail,
    ),
    Command("get_recent_contact_list", "v4/recentcontact/get_list", get_recent_contact_list),
    Command("get_group_info", "v4/group_open_http_svc/get_group_info", get_group_info),
)
"""Every command the emulator answers; any other is 60009."""


def _text(body: Body, name: str, code: int) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise Refusal(code, f"{name} must be a non-empty String")
    return value


def _whole(value: Any, name: str, *, least: int, most: int = _LARGEST, code: int = 10004) -> int:
    # JSON's true is a bool, which Python would take for 1.
    if type(value) is not int or not least <= value <= most:
        raise Refusal(code, f"{name} must be an Integer from {least} to {most}")
    return value


def _account(state: State, body: Body, name: str, code: int) -> str:
    account = _text(body, name, code)
    if not state.has_account(account):
        raise Refusal(code, f"{name}: no such account: {account}")
    return account


def _group(state: State, group_id: str) -> Group:
    group = state.find_group(group_id)
    if group is None:
        raise Refusal(*_no_group(group_id))
    return group


def _group_with_receipts(world: World, group_id: str) -> Group:
    group = _group(world.state, group_id)
    if not group.keeps_receipts:
        raise Refusal(10061, f"groups of type {group.type} have no receipts")
    if len(group.unread) > world.max_receipt_members:
        raise Refusal(10060, f"no receipts in groups of more than {world.max_receipt_members} members")
    return group


def _no_group(group_id: str) -> tuple[int, str]:
    if not group_id or len(group_id) > _LONGEST_GROUP_ID or not (group_id.isascii() and group_id.isprintable()):
        return 10015, "GroupId is not one that a group can have"
    return 10010, f"no such group: {group_id}"


def _receipt(group: Group, seq: int) -> Fields:
    receipt = group.receipts.get(seq)
    if receipt is None:
        return {"MsgSeq": seq, "Code": 10062}
    read_num, unread_num = receipt.numbers
    return {"MsgSeq": seq, "Code": 0, "ReadNum": read_num, "UnreadNum": unread_num}


def _contact_page(page: ContactPage) -> Fields:
    return {
        "SessionItem": [_contact(contact) for contact in page.contacts],
        "CompleteFlag": int(page.finished),
        "TimeStamp": page.general.time,
        "StartIndex": page.general.index,
        "TopTimeStamp": page.top.time,
        "TopStartIndex": page.top.index,
    }


def _contact(contact: RecentContact) -> Fields:
    party = {"Type": 1, "To_Account": contact.id} if contact.kind == "c2c" else {"Type": 2, "GroupId": contact.id}
    return {**party, "MsgTime": contact.msg_time, "TopFlag": int(contact.pinned)}


def _group_info(state: State, group_id: str, names: list[str] | None) -> Fields:
    group = state.find_group(group_id)
    if group is None:
        code, info = _no_group(group_id)
        return {"GroupId": group_id, "ErrorCode": code, "ErrorInfo": info}
    fields: Fields = {
        "Type": group.type,
        "NextMsgSeq": group.messages + 1,
        "MemberNum": len(group.unread),
    }
    wanted = fields if names is None else {name: fields[name] for name in names if name in fields}
    return {"GroupId": group_id, "ErrorCode": 0, "ErrorInfo": "", **wanted}
