"""Groups: members with unread counts, numbered messages, and receipts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count, islice
from typing import Literal

GroupType = Literal["Private", "Work", "Public", "Community", "ChatRoom", "Meeting", "AVChatRoom"]

_WITHOUT_UNREAD = frozenset({"ChatRoom", "Meeting", "AVChatRoom"})
_WITHOUT_RECEIPTS = frozenset({"Community", "AVChatRoom"})


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
