"""Groups: members with unread counts, numbered messages, receipts, and the description by ``get_group_info``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice
from typing import Any, Literal

GroupType = Literal["Private", "Work", "Public", "Community", "ChatRoom", "Meeting", "AVChatRoom"]

_WITHOUT_UNREAD = frozenset({"ChatRoom", "Meeting", "AVChatRoom"})
_WITHOUT_RECEIPTS = frozenset({"Community", "AVChatRoom"})
_JOINING = {"Private": "DisableApply", "Work": "DisableApply", "Public": "NeedPermission"}
_MAX_MEMBERS = 6000


@dataclass(slots=True)
class MessageReceipt:
    """The receipt of one message.

    Attributes:
        recipients: the accounts to which the message was sent, each once, in the order in which they joined the group.
        read: the recipients who have read it.
    """

    recipients: tuple[str, ...]
    read: set[str]

    @property
    def numbers(self) -> tuple[int, int]:
        """``(ReadNum, UnreadNum)``."""
        return len(self.read), len(self.recipients) - len(self.read)

    def places(self, *, read: bool) -> list[tuple[int, str]]:
        """Return the recipients who have read the message, or those who have not, each with its position, from 1.

        A position counts all recipients, so a page does not shift when an account reads the message in between.
        """
        places = enumerate(self.recipients, 1)
        return [(place, account) for place, account in places if (account in self.read) is read]

    def members(self, *, read: bool) -> tuple[str, ...]:
        """Return the recipients who have read the message, or those who have not, in the order of joining."""
        return tuple(account for _, account in self.places(read=read))

    def mark_read(self, *accounts: str) -> None:
        """Mark the message as read by recipients; raises `KeyError`, without a change, for any other account."""
        for account in set(accounts).difference(self.recipients):
            raise KeyError(account)
        self.read.update(accounts)


@dataclass(slots=True)
class Group:
    """One group.

    Attributes:
        group_id: its ``GroupId``.
        type: its ``Type``.
        messages: its number of messages; they are numbered from 1.
        unread: each member's unread count, by ``Member_Account``.
        receipts: the receipt of each message that was sent with one, by ``MsgSeq``.
        last_message_at: the time of the last message, unix seconds.
        name: its ``Name``.
        owner: its ``Owner_Account``; "" for none.
        created_at: the time of its creation, unix seconds.
    """

    group_id: str
    type: GroupType
    messages: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    receipts: dict[int, MessageReceipt] = field(default_factory=dict)
    last_message_at: float = 0.0
    name: str = ""
    owner: str = ""
    created_at: float = 0.0

    @property
    def counts_unread(self) -> bool:
        """Whether the service keeps unread counts in this group; if not, setting one succeeds without effect."""
        return self.type not in _WITHOUT_UNREAD

    @property
    def keeps_receipts(self) -> bool:
        """Whether messages in this group can have receipts."""
        return self.type not in _WITHOUT_RECEIPTS

    def set_unread(self, member: str, number: int) -> None:
        """Set a member's unread count, lowered to the number of messages; do nothing in a group without counts."""
        if self.counts_unread:
            self.unread[member] = min(number, self.messages)


def receipt_by_numbers(members: Sequence[str], read_num: int, unread_num: int) -> MessageReceipt:
    """Make a receipt with these numbers: the first members have read the message, the next have not.

    If the group has too few members, the recipients include accounts that have left it: ``former1``, ``former2``, ….
    """
    known = set(members)
    former = (name for name in map("former{}".format, count(1)) if name not in known)
    recipients = tuple(islice(chain(members, former), read_num + unread_num))
    return MessageReceipt(recipients, set(recipients[:read_num]))


def describe(group: Group, sdk_app_id: int, response_filter: Mapping[str, list[str] | None] | None) -> dict[str, Any]:
    """Return the fields of a group that a ``ResponseFilter`` selects.

    Without ``GroupBaseInfoFilter`` these are all fields of the group itself; without ``MemberInfoFilter`` members are
    listed only if there is no filter at all.  An AVChatRoom lists no members.

    https://www.tencentcloud.com/document/product/1047/34961
    """
    filters = response_filter or {}
    base, of_members = filters.get("GroupBaseInfoFilter"), filters.get("MemberInfoFilter")
    fields = _only(_base(group, sdk_app_id), base)
    if group.type != "AVChatRoom" and (response_filter is None or of_members is not None):
        fields["MemberList"] = [
            {"Member_Account": account, **_only(_member(group, account), of_members)} for account in group.unread
        ]
    return fields


def _base(group: Group, sdk_app_id: int) -> dict[str, Any]:
    created, last = int(group.created_at), int(group.last_message_at)
    return {
        "Type": group.type,
        "Name": group.name,
        "Appid": sdk_app_id,
        "Introduction": "",
        "Notification": "",
        "FaceUrl": "",
        "Owner_Account": group.owner,
        "CreateTime": created,
        "LastInfoTime": created,
        "LastMsgTime": last,
        "NextMsgSeq": group.messages + 1,
        "MemberNum": len(group.unread),
        "MaxMemberNum": _MAX_MEMBERS,
        "ApplyJoinOption": _JOINING.get(group.type, "FreeAccess"),
        "ShutUpAllMember": "Off",
    }


def _member(group: Group, account: str) -> dict[str, Any]:
    return {
        "Role": "Owner" if account == group.owner else "Member",
        "MsgSeq": group.messages - group.unread[account],
        "MsgFlag": "AcceptAndNotify",
    }


def _only(fields: dict[str, Any], names: list[str] | None) -> dict[str, Any]:
    return fields if names is None else {name: fields[name] for name in names if name in fields}
