"""Groups: members with unread counts, numbered messages, receipts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tim_async.emulator._receipts import MessageReceipt

GroupType = Literal["Private", "Work", "Public", "Community", "ChatRoom", "Meeting", "AVChatRoom"]

_WITHOUT_UNREAD = frozenset({"ChatRoom", "Meeting", "AVChatRoom"})
_WITHOUT_RECEIPTS = frozenset({"Community", "AVChatRoom"})


@dataclass(slots=True)
class Group:
    """One group.

    Attributes:
        group_id: its ``GroupId``.
        type: its ``Type``.
        messages: how many messages it holds; they are numbered from 1.
        unread: each member's unread count, by ``Member_Account``.
        receipts: the receipt of each message that was sent with one, by ``MsgSeq``.
        last_message_at: when the last message was sent, unix seconds.
    """

    group_id: str
    type: GroupType
    messages: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    receipts: dict[int, MessageReceipt] = field(default_factory=dict)
    last_message_at: float = 0.0

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
