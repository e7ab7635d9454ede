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
        read: the recipients that have read it.
    """

    recipients: tuple[str, ...]
    read: set[str]

    @property
    def numbers(self) -> tuple[int, int]:
        """``(ReadNum, UnreadNum)``."""
        return len(self.read), len(self.recipients) - len(self.read)

    def places(self, *, read: bool) -> list[tuple[int, str]]:
        """The recipients that have read the message, or those that have not, each with its place, from 1.

        A place counts all recipients: an account that reads the message between two pages displaces no other.
        """
        places = enumerate(self.recipients, 1)
        return [(place, account) for place, account in places if (account in self.read) is read]

    def members(self, *, read: bool) -> tuple[str, ...]:
        """The recipients that have read the message, or those that have not, in the order of the recipients."""
        return tuple(account for _, account in self.places(read=read))

    def mark_read(self, *accounts: str) -> None:
        """Have recipients read the message; raises `KeyError` for an account that is not one, and changes nothing."""
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
        last_message_at: when the last message was sent, unix seconds.
        name: its ``Name``.
        owner: its ``Owner_Account``; "" for none.
        created_at: when it was created, unix seconds.
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
        """Whether the service keeps unread counts here; where not, setting one succeeds and does nothing."""
        return self.type not in _WITHOUT_UNREAD

    @property
    def keeps_receipts(self) -> bool:
        """Whether messages here can have receipts at all."""
        return self.type not in _WITHOUT_RECEIPTS

    def set_unread(self, member: str, number: int) -> None:
        """Set a member's unread count: lowered to the number of messages, and nothing where none are kept."""
        if self.counts_unread:
            self.unread[member] = min(number, self.messages)


def receipt_by_numbers(members: Sequence[str], read_num: int, unread_num: int) -> MessageReceipt:
    """Make a receipt with these numbers: the first members have read the message, the next have not.

    Where the group has too few members, the recipients include accounts that have left it: ``former1``, ``former2``, ….
    """
    known = set(members)
    former = (name for name in map("former{}".format, count(1)) if name not in known)
    recipients = tuple(islice(chain(members, former), read_num + unread_num))
    return MessageReceipt(recipients, set(recipients[:read_num]))
