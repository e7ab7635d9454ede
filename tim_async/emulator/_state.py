"""What the service remembers: accounts, groups with unread counts and receipts, messages, recent contacts.

Filled and read with plain synchronous calls, from any thread, before, during and after a run.  It trusts whoever
fills it; what a request may contain is judged in `commands`.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import get_args

from tim_async.emulator._contacts import (
    ContactBook,
    ContactKind,
    RecentContact,
    seconds_of,
)
from tim_async.emulator._groups import Group, GroupType
from tim_async.emulator._receipts import receipt_by_numbers, receipt_by_readers


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
        self.lock: threading.RLock = threading.RLock()
        self._clock = clock
        self._accounts: set[str] = set()
        self._groups: dict[str, Group] = {}
        self._inboxes: dict[str, _Inbox] = {}
        self._contacts: dict[str, ContactBook] = {}

    # Filling

    def add_account(self, *accounts: str) -> None:
        """Import accounts; those that exist stay as they are."""
        with self.lock:
            self._accounts.update(accounts)

    def add_group(
        self,
        group_id: str,
        group_type: GroupType = "Public",
        *,
        messages: int = 0,
        members: Iterable[str] = (),
        at: float | None = None,
    ) -> None:
        """Create a group.

        Args:
            group_id: its ``GroupId``.
            group_type: its ``Type``.
            messages: how many messages it holds already, all of them read by everyone.
            members: who is in it; accounts that do not exist are imported.
            at: when the last of its messages was sent, unix seconds; now by default.

        Raises:
            ValueError: it exists, the id is empty, the type is unknown or the number negative.
        """
        if not group_id or messages < 0 or group_type not in get_args(GroupType):
            raise ValueError(f"no such group can be: {group_id!r}, {group_type!r}, {messages} messages")
        with self.lock:
            if group_id in self._groups:
                raise ValueError(f"the group {group_id!r} exists")
            group = self._groups[group_id] = Group(group_id, group_type)
            self._send_to_group(group, messages, at)
            self.add_members(group_id, *members)

    def add_members(self, group_id: str, *members: str) -> None:
        """Have accounts join a group with nothing unread; those that do not exist are imported.

        Raises:
            KeyError: no such group.
        """
        with self.lock:
            group = self._groups[group_id]
            for member in dict.fromkeys(members):
                if member not in group.unread:
                    group.unread[member] = 0
                    if group.messages:
                        self._book(member).message("group", group_id, group.last_message_at)
            self._accounts.update(members)

    def add_group_messages(self, group_id: str, count: int = 1, *, at: float | None = None) -> None:
        """Send messages without receipts to a group: they are unread for each of its members.

        Args:
            group_id: the group.
            count: how many.
            at: when they were sent, unix seconds; now by default.

        Raises:
            KeyError: no such group.
            ValueError: a negative count.
        """
        if count < 0:
            raise ValueError("a number of messages is not negative")
        with self.lock:
            group = self._groups[group_id]
            self._send_to_group(group, count, at)
            for member, unread in group.unread.items():
                group.set_unread(member, unread + count)

    def add_receipt(
        self,
        group_id: str,
        msg_seq: int,
        *,
        readers: Iterable[str] = (),
        sender: str | None = None,
        read_num: int | None = None,
        unread_num: int | None = None,
    ) -> None:
        """Make a group's message one that was sent with a receipt; the group then holds at least so many messages.

        Its recipients are the members of now but for the sender.  Give the readers by name or, where only numbers
        matter, both numbers: the first members then are its readers and the next its other recipients, followed by
        accounts that have left the group, ``former1``, ``former2``, …, which are imported.

        Args:
            group_id: the group.
            msg_seq: the message's number, from 1.
            readers: the recipients that have read it.
            sender: the member who sent it; nobody of the group by default.
            read_num: how many have read it, in place of ``readers``.
            unread_num: how many have not, with ``read_num``.

        Raises:
            KeyError: no such group, or a reader who is not a recipient.
            ValueError: a message number below 1, a negative number of readers, one number without the other, or
                numbers beside ``readers``.
        """
        readers = tuple(readers)
        if msg_seq < 1 or (read_num is None) != (unread_num is None) or (readers and read_num is not None):
            raise ValueError(f"no such receipt: message {msg_seq}, {read_num} read, {unread_num} unread, by {readers}")
        with self.lock:
            group = self._groups[group_id]
            members = [member for member in group.unread if member != sender]
            if read_num is None or unread_num is None:
                receipt = receipt_by_readers(members, readers)
            elif read_num < 0 or unread_num < 0:
                raise ValueError(f"the numbers of a receipt are at least 0, not {read_num} and {unread_num}")
            else:
                receipt = receipt_by_numbers(members, read_num, unread_num)
            self._accounts.update(receipt.recipients)
            group.receipts[msg_seq] = receipt
            self._send_to_group(group, max(0, msg_seq - group.messages), None)

    def mark_read_in_group(self, group_id: str, msg_seq: int, *members: str) -> None:
        """Have members read a message that was sent with a receipt; their unread counts stay as they are.

        Raises:
            KeyError: no such group, no receipt, or an account that is not a recipient of the message.
        """
        with self.lock:
            receipt = self._groups[group_id].receipts[msg_seq]
            for member in set(members).difference(receipt.recipients):
                raise KeyError(member)
            receipt.read.update(members)

    def add_messages(self, to: str, from_: str, count: int = 1, *, at: float | None = None) -> None:
        """Send one-to-one messages; accounts that do not exist are imported, and each gets the other as a contact.

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
            if count:
                self._book(to).message("c2c", from_, sent)
                self._book(from_).message("c2c", to, sent)
            inbox = self._inboxes.setdefault(to, _Inbox())
            if sent < inbox.read_times.get(from_, float("-inf")):
                return
            times = inbox.unread.setdefault(from_, [])
            place = bisect_right(times, sent)
            times[place:place] = [sent] * count
            inbox.total += count

    def add_recent_contact(
        self,
        account: str,
        contact_id: str,
        *,
        kind: ContactKind = "c2c",
        at: float | None = None,
        pinned: bool = False,
    ) -> None:
        """Set one conversation of an account, with or without messages; accounts that do not exist are imported.

        Messages and memberships give an account its conversations by themselves; a later message makes one newer.

        Args:
            account: whose conversation it is.
            contact_id: the other account, or the ``GroupId`` of a group, which need not exist.
            kind: ``"c2c"`` with another account, or ``"group"``.
            at: when its last message was sent, unix seconds; by default the time it has or, if it is new, now.
            pinned: whether the account pinned it to the top.

        Raises:
            ValueError: an empty id or an unknown kind.
        """
        if not account or not contact_id or kind not in get_args(ContactKind):
            raise ValueError(f"no such contact: {contact_id!r} of kind {kind!r} for {account!r}")
        with self.lock:
            self._accounts.update((account, contact_id) if kind == "c2c" else (account,))
            book = self._book(account)
            known = book.find(kind, contact_id)
            if at is None and known is not None:
                msg_time = known.msg_time
            else:
                msg_time = seconds_of(self._clock() if at is None else at)
            book.put(RecentContact(kind, contact_id, msg_time, pinned))

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
            receipt = self._groups[group_id].receipts.get(msg_seq)
            return None if receipt is None else receipt.numbers

    def readers(self, group_id: str, msg_seq: int, *, read: bool = True) -> tuple[str, ...]:
        """The recipients that have read a message, or with ``read=False`` those that have not, in order of joining.

        Raises:
            KeyError: no such group, or a message sent without a receipt.
        """
        with self.lock:
            return self._groups[group_id].receipts[msg_seq].members(read=read)

    def recent_contacts(self, account: str) -> list[RecentContact]:
        """The conversations of an account: pinned ones first, then by time, newest first."""
        with self.lock:
            book = self._contacts.get(account)
            return [] if book is None else book.all()

    def _book(self, account: str) -> ContactBook:
        return self._contacts.setdefault(account, ContactBook())

    def _send_to_group(self, group: Group, count: int, at: float | None) -> None:
        """Number messages and make the group a newer conversation of each member; unread counts stay."""
        if count:
            sent = self._clock() if at is None else at
            group.messages += count
            group.last_message_at = max(sent, group.last_message_at)
            for member in group.unread:
                self._book(member).message("group", group.group_id, sent)
