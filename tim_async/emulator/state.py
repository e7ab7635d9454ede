"""What the service remembers: accounts, groups with unread counts and receipts, one-to-one conversations.

Filled and read with plain synchronous calls, from any thread, before, during and after a run.  It trusts whoever
fills it; what a request may contain is judged in `commands`.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

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
        receipts: ``(ReadNum, UnreadNum)`` of each message that was sent with a receipt, by ``MsgSeq``.
    """

    group_id: str
    type: GroupType
    messages: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    receipts: dict[int, tuple[int, int]] = field(default_factory=dict)

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


@dataclass(slots=True)
class _Inbox:
    """One account's side of its conversations; the total is kept because it is asked for far more than it changes."""

    unread: dict[str, list[float]] = field(default_factory=dict)
    read_times: dict[str, float] = field(default_factory=dict)
    total: int = 0


class State:
    """All that the service remembers.

    Attributes:
        lock: held by each method and by each request while it is handled; hold it to do several things at once.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Remember nothing yet.

        Args:
        clock: what "now" is, unix seconds.
        """
        self.lock = threading.RLock()
        self._clock = clock
        self._accounts: set[str] = set()
        self._groups: dict[str, Group] = {}
        self._inboxes: dict[str, _Inbox] = {}

    # Filling

    def add_account(self, *accounts: str) -> None:
        """Import accounts; those that exist stay as they are."""
        with self.lock:
            self._accounts.update(accounts)

    def add_group(
        self, group_id: str, group_type: GroupType = "Public", *, messages: int = 0, members: Iterable[str] = ()
    ) -> None:
        """Create a group.

        Args:
            group_id: its ``GroupId``.
            group_type: its ``Type``.
            messages: how many messages it holds already, all of them read by everyone.
            members: who is in it; accounts that do not exist are imported.

        Raises:
            ValueError: it exists, the id is empty, the type is unknown or the number negative.
        """
        if not group_id or messages < 0 or group_type not in get_args(GroupType):
            raise ValueError(f"no such group can be: {group_id!r}, {group_type!r}, {messages} messages")
        with self.lock:
            if group_id in self._groups:
                raise ValueError(f"the group {group_id!r} exists")
            self._groups[group_id] = Group(group_id, group_type, messages)
            self.add_members(group_id, *members)

    def add_members(self, group_id: str, *members: str) -> None:
        """Have accounts join a group with nothing unread; those that do not exist are imported.

        Raises:
            KeyError: no such group.
        """
        with self.lock:
            unread = self._groups[group_id].unread
            for member in members:
                unread.setdefault(member, 0)
            self._accounts.update(members)

    def add_group_messages(self, group_id: str, count: int = 1) -> None:
        """Send messages without receipts to a group: they are unread for each of its members.

        Raises:
            KeyError: no such group.
            ValueError: a negative count.
        """
        if count < 0:
            raise ValueError("a number of messages is not negative")
        with self.lock:
            group = self._groups[group_id]
            group.messages += count
            for member, unread in group.unread.items():
                group.set_unread(member, unread + count)

    def add_receipt(self, group_id: str, msg_seq: int, *, read_num: int, unread_num: int) -> None:
        """Make a group's message one that was sent with a receipt; the group then holds at least so many messages.

        Args:
            group_id: the group.
            msg_seq: the message's number, from 1.
            read_num: how many have read it.
            unread_num: how many have not.

        Raises:
            KeyError: no such group.
            ValueError: a number below 1, or a negative one of readers.
        """
        if msg_seq < 1 or read_num < 0 or unread_num < 0:
            raise ValueError(f"no such receipt can be: {msg_seq}, {read_num} read, {unread_num} unread")
        with self.lock:
            group = self._groups[group_id]
            group.receipts[msg_seq] = (read_num, unread_num)
            group.messages = max(group.messages, msg_seq)

    def add_messages(self, to: str, from_: str, count: int = 1, *, at: float | None = None) -> None:
        """Send one-to-one messages; accounts that do not exist are imported.

        Args:
            to: who receives them, and has not read them.
            from_: who sends them.
            count: how many.
            at: when they were sent, unix seconds; now by default.

        Raises:
            ValueError: a negative count.
        """
        if count < 0:
            raise ValueError("a number of messages is not negative")
        with self.lock:
            self._accounts.update((to, from_))
            sent = self._clock() if at is None else at
            inbox = self._inboxes.setdefault(to, _Inbox())
            if sent < inbox.read_times.get(from_, float("-inf")):
                return
            times = inbox.unread.setdefault(from_, [])
            place = bisect_right(times, sent)
            times[place:place] = [sent] * count
            inbox.total += count

    def mark_read(self, account: str, peer: str, before: float | None = None) -> None:
        """Have ``account`` read what ``peer`` sent it.  What was read stays read, whatever time comes next.

        Args:
            account: whose messages become read.
            peer: who sent them.
            before: everything sent before this becomes read, unix seconds; by default all there is by now.
        """
        with self.lock:
            inbox = self._inboxes.setdefault(account, _Inbox())
            times = inbox.unread.get(peer, [])
            read_until = self._clock() if before is None else before
            done = bisect_right(times, read_until) if before is None else bisect_left(times, read_until)
            del times[:done]
            inbox.total -= done
            inbox.read_times[peer] = max(read_until, inbox.read_times.get(peer, read_until))

    def set_unread_in_group(self, group_id: str, member: str, number: int) -> None:
        """Set a member's unread count, with the service's own clamp and exceptions.

        Raises:
            KeyError: no such group or member.
        """
        with self.lock:
            group = self._groups[group_id]
            if member not in group.unread:
                raise KeyError(member)
            group.set_unread(member, number)

    # Reading

    def has_account(self, account: str) -> bool:
        """Whether the account exists."""
        with self.lock:
            return account in self._accounts

    def find_group(self, group_id: str) -> Group | None:
        """The group itself, not a copy; None where there is none."""
        with self.lock:
            return self._groups.get(group_id)

    def unread_in_group(self, group_id: str, member: str) -> int:
        """A member's unread count.

        Raises:
            KeyError: no such group or member.
        """
        with self.lock:
            return self._groups[group_id].unread[member]

    def unread(self, account: str, peer: str | None = None) -> int:
        """How many one-to-one messages ``account`` has not read, from ``peer`` or in all; 0 where there are none."""
        with self.lock:
            inbox = self._inboxes.get(account)
            if inbox is None:
                return 0
            return inbox.total if peer is None else len(inbox.unread.get(peer, ()))

    def read_time(self, account: str, peer: str) -> float | None:
        """Until when ``account`` has read what ``peer`` sent it, unix seconds; None if it was never marked."""
        with self.lock:
            inbox = self._inboxes.get(account)
            return None if inbox is None else inbox.read_times.get(peer)

    def receipt(self, group_id: str, msg_seq: int) -> tuple[int, int] | None:
        """``(ReadNum, UnreadNum)`` of a message; None for one sent without a receipt.

        Raises:
            KeyError: no such group.
        """
        with self.lock:
            return self._groups[group_id].receipts.get(msg_seq)
