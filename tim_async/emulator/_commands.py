"""The commands that the emulator serves, each with its path, the fields of its body and its effect.

Where the documents name no code for a mistake, the code is one that the command's page lists and that calls for no
retry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from tim_async.emulator._answers import Refusal
from tim_async.emulator._cursors import Cursors
from tim_async.emulator._fields import (
    ACCOUNT,
    COUNT,
    FILTER,
    SECONDS,
    SEQ,
    SEQS,
    STRING,
    TEXT,
    Field,
    array,
    integer,
)
from tim_async.emulator._groups import Group, describe
from tim_async.emulator._inbox import RecentContact
from tim_async.emulator._state import State

Fields = dict[str, Any]

_MAX_PEERS = 10
_MAX_GROUPS = 50
_MAX_RECEIPT_ACCOUNTS = 200
_MAX_GROUP_ID = 48


class Command(NamedTuple):
    """One command: its method's name, path, handler, and fields in the order of the handler's parameters."""

    name: str
    path: str
    handler: Callable[..., Fields]
    fields: Mapping[str, Field]

    def execute(self, commands: Commands, body: Mapping[str, Any]) -> Fields:
        """Execute the command and return the fields of the answer; raises `Refusal`."""
        return self.handler(commands, *(rule.read(name, body, commands.state) for name, rule in self.fields.items()))

    @property
    def invalid(self) -> int:
        """The ``ErrorCode`` for an invalid request to its service."""
        return 10004 if "/group_open_http_svc/" in self.path else 90001


COMMANDS: dict[str, Command] = {}
"""Every command that the emulator serves, by path."""


def _command(path: str, **fields: Field) -> Callable[[Callable[..., Fields]], Callable[..., Fields]]:
    """Register a handler in `COMMANDS`, under its own name."""

    def register(handler: Callable[..., Fields]) -> Callable[..., Fields]:
        COMMANDS[path] = Command(handler.__name__, path, handler, fields)
        return handler

    return register


def check_names(names: Iterable[str]) -> None:
    """Check the names of endpoints.

    Raises:
        ValueError: an endpoint does not exist.
    """
    known = sorted(command.name for command in COMMANDS.values())
    for name in names:
        if name not in known:
            raise ValueError(f"no such endpoint: {name!r}; choose from {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Commands:
    """The handlers.  Each takes the values of its fields, and returns the fields of its answer or raises `Refusal`.

    Attributes:
        sdk_app_id: the app that they serve.
        state: the state that they read and change; the caller holds its lock.
        random: shuffles the lists that have no order.
        max_msg_seqs: the most items of one ``MsgSeqList``; None for no limit.
        max_receipt_members: the most members of a group whose messages have receipts.
        contacts_per_page: the most conversations of one page of recent contacts.
        integer_read_time: whether ``MsgReadTime`` may be an Integer.
        cursors: the cursors of pages.
    """

    sdk_app_id: int
    state: State
    random: Random
    max_msg_seqs: int | None
    max_receipt_members: int
    contacts_per_page: int
    integer_read_time: bool
    cursors: Cursors = field(default_factory=Cursors)

    def __post_init__(self) -> None:
        if self.max_receipt_members < 0 or self.contacts_per_page < 1:
            raise ValueError(
                "max_receipt_members must be at least 0 and contacts_per_page at least 1, "
                f"not {self.max_receipt_members} and {self.contacts_per_page}"
            )
        if self.max_msg_seqs is not None and self.max_msg_seqs < 1:
            raise ValueError(f"max_msg_seqs must be at least 1, not {self.max_msg_seqs}")

    # https://www.tencentcloud.com/document/product/1047/34909
    @_command("v4/group_open_http_svc/set_unread_msg_num", GroupId=TEXT, Member_Account=TEXT, UnreadMsgNum=COUNT)
    def set_unread_msg_num(self, group_id: str, member: str, number: int) -> Fields:
        """Set a member's unread count in a group, lowered to the number of messages; in rooms do nothing."""
        group = self._group(group_id)
        if group.counts_unread:
            if not self.state.has_account(member):
                raise Refusal(10019, f"no such account: {member}")
            if member not in group.unread:
                raise Refusal(10007, f"not a member of the group: {member}")
        group.set_unread(member, number)
        return {}

    # https://trtc.io/document/38996
    @_command(
        "v4/openim/admin_set_msg_read",
        Report_Account=ACCOUNT._replace(code=90008),
        Peer_Account=ACCOUNT._replace(code=90003),
        MsgReadTime=SECONDS._replace(code=90001, optional=True),
    )
    def admin_set_msg_read(self, report: str, peer: str, before: str | int | None) -> Fields:
        """Mark the messages from one account to another as read, up to a time or up to now."""
        if type(before) is int and not self.integer_read_time:
            raise Refusal(90001, f"MsgReadTime must be {SECONDS.form}")
        self.state.mark_read(report, peer, None if before is None else int(before))
        return {}

    # https://www.tencentcloud.com/document/product/1047/41046
    @_command(
        "v4/openim/get_c2c_unread_msg_num",
        To_Account=ACCOUNT._replace(code=90003),
        Peer_Account=array("String", TEXT.matches)._replace(code=90001, optional=True),
    )
    def get_c2c_unread_msg_num(self, account: str, peers: list[str] | None) -> Fields:
        """Count an account's unread one-to-one messages, in all or by peer."""
        if peers is None:
            return {"AllC2CUnreadMsgNum": self.state.unread(account)}
        _at_most(_MAX_PEERS, peers, "Peer_Account", 90018)
        counts: list[Fields] = []
        errors: list[Fields] = []
        for peer in dict.fromkeys(peers):
            if self.state.has_account(peer):
                counts.append({"Peer_Account": peer, "C2CUnreadMsgNum": self.state.unread(account, peer)})
            else:
                errors.append({"Peer_Account": peer, "ErrorCode": 70107})
        # The documents promise no order.
        self.random.shuffle(counts)
        lists = {"C2CUnreadMsgNumList": counts, "ErrorList": errors}
        return {name: items for name, items in lists.items() if items}

    # https://www.tencentcloud.com/document/product/1047/49439
    @_command("v4/group_open_http_svc/get_group_msg_receipt", GroupId=TEXT, MsgSeqList=SEQS)
    def get_group_msg_receipt(self, group_id: str, items: list[dict[str, int]]) -> Fields:
        """Count the readers of some messages of a group."""
        _at_most(self.max_msg_seqs, items, "MsgSeqList", 10004)
        group = self._group_with_receipts(group_id)
        return {"GroupMsgReceiptList": [_receipt(group, item["MsgSeq"]) for item in items]}

    # https://www.tencentcloud.com/document/product/269/77693
    @_command(
        "v4/group_open_http_svc/get_group_msg_receipt_detail",
        GroupId=TEXT,
        MsgSeq=SEQ,
        Filter=integer(0, 1),
        Count=integer(1, _MAX_RECEIPT_ACCOUNTS),
        Cursor=STRING,
    )
    def get_group_msg_receipt_detail(self, group_id: str, seq: int, unread: int, size: int, cursor: str) -> Fields:
        """List the members who have, or have not, read one message of a group, page by page."""
        after = self.cursors.position(cursor, group_id, seq, unread)
        if after is None:
            raise Refusal(10004, 'Cursor must be "" or the Cursor of the page before')
        receipt = self._group_with_receipts(group_id).receipts.get(seq)
        if receipt is None:
            raise Refusal(10062, f"message {seq} was sent without a receipt")
        rest = [(place, account) for place, account in receipt.places(read=not unread) if place > after]
        page = rest[:size]
        name, item = ("UnreadList", "Unread_Account") if unread else ("ReadList", "Read_Account")
        return {
            "Cursor": self.cursors.cursor(page[-1][0] if page else after, group_id, seq, unread),
            "IsFinish": int(len(rest) <= size),
            name: [{item: account} for _, account in page],
        }

    # https://www.tencentcloud.com/document/product/1047/43087
    @_command(
        "v4/recentcontact/get_list",
        From_Account=ACCOUNT._replace(code=90008),
        TimeStamp=COUNT._replace(code=90001),
        StartIndex=COUNT._replace(code=90001),
        TopTimeStamp=COUNT._replace(code=90001),
        TopStartIndex=COUNT._replace(code=90001),
        AssistFlags=COUNT._replace(code=90001),
    )
    def get_recent_contact_list(
        self, account: str, time: int, index: int, top_time: int, top_index: int, _flags: int
    ) -> Fields:
        """List an account's conversations, page by page: pinned ones first, then by time, newest first."""
        # A position is the order of the last conversation of a page, not an index: a conversation that moves to the
        # front between two pages displaces no other.
        after = {False: (-time, index), True: (-top_time, top_index)}
        contacts = self.state.recent_contacts(account)
        rest = [it for it in contacts if after[it.pinned] == (0, 0) or it.order > after[it.pinned]]
        page = rest[: self.contacts_per_page]
        after |= {contact.pinned: contact.order for contact in page}
        return {
            "SessionItem": [_session(contact) for contact in page],
            "CompleteFlag": int(len(page) == len(rest)),
            "TimeStamp": -after[False][0],
            "StartIndex": after[False][1],
            "TopTimeStamp": -after[True][0],
            "TopStartIndex": after[True][1],
        }

    # https://www.tencentcloud.com/document/product/1047/34961
    @_command(
        "v4/group_open_http_svc/get_group_info",
        GroupIdList=array("String", STRING.matches),
        ResponseFilter=FILTER._replace(optional=True),
    )
    def get_group_info(self, ids: list[str], response_filter: Mapping[str, list[str] | None] | None) -> Fields:
        """Describe some groups, or the fields of them that the filter names."""
        _at_most(_MAX_GROUPS, ids, "GroupIdList", 10004)
        return {"GroupInfo": [self._group_info(group_id, response_filter) for group_id in ids]}

    def _group_info(self, group_id: str, response_filter: Mapping[str, list[str] | None] | None) -> Fields:
        try:
            group = self._group(group_id)
        except Refusal as refusal:
            return {"GroupId": group_id, "ErrorCode": refusal.code, "ErrorInfo": refusal.info}
        described = describe(group, self.sdk_app_id, response_filter)
        return {"GroupId": group_id, "ErrorCode": 0, "ErrorInfo": "", **described}

    def _group(self, group_id: str) -> Group:
        if not group_id or len(group_id) > _MAX_GROUP_ID or not (group_id.isascii() and group_id.isprintable()):
            raise Refusal(10015, f"GroupId must be 1 to {_MAX_GROUP_ID} printable ASCII characters")
        group = self.state.find_group(group_id)
        if group is None:
            raise Refusal(10010, f"no such group: {group_id}")
        return group

    def _group_with_receipts(self, group_id: str) -> Group:
        group = self._group(group_id)
        if not group.keeps_receipts:
            raise Refusal(10061, f"groups of type {group.type} have no receipts")
        if len(group.unread) > self.max_receipt_members:
            raise Refusal(10060, f"no receipts in groups of more than {self.max_receipt_members} members")
        return group


def _at_most(most: int | None, items: list[Any], name: str, code: int) -> None:
    if most is not None and len(items) > most:
        raise Refusal(code, f"{name} must have at most {most} items, not {len(items)}")


def _receipt(group: Group, seq: int) -> Fields:
    receipt = group.receipts.get(seq)
    if receipt is None:
        return {"MsgSeq": seq, "Code": 10062}
    read_num, unread_num = receipt.numbers
    return {"MsgSeq": seq, "Code": 0, "ReadNum": read_num, "UnreadNum": unread_num}


def _session(contact: RecentContact) -> Fields:
    party = {"Type": 1, "To_Account": contact.id} if contact.kind == "c2c" else {"Type": 2, "GroupId": contact.id}
    return {**party, "MsgTime": contact.msg_time, "TopFlag": int(contact.pinned)}
