"""The state of the service: accounts, groups with unread counts and receipts, messages, recent contacts.

Tests fill and read it by plain synchronous calls from any thread, before, during and after a run.  `_commands` checks
requests before they reach it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import get_args

from tim_async.emulator._groups import Group, GroupType, MessageReceipt, receipt_by_numbers
from tim_async.emulator._inbox import ContactKind, Inbox, RecentContact


class State:
    """The state of the service.

    Times are unix seconds, by default the current time.  Methods that add to accounts import accounts that do not
    exist.  Unless documented otherwise, methods raise `KeyError` for a group, a member, a receipt or a recipient that
    does not exist, and `ValueError` for an empty id, an unknown type or kind, and a number out of its range; they then
    change nothing.

    Attributes:
        lock: held by each method and while each request is handled; hold it to make several calls atomic.

    Args:
        clock: the current time, unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.lock: threading.RLock = threading.RLock()
        self._clock = clock
        self._accounts: set[str] = set()
        self._groups: dict[str, Group] = {}
        self._inboxes: defaultdict[str, Inbox] = defaultdict(Inbox)

    # Filling

    def add_account(self, *accounts: str) -> None:
        """Import accounts; existing ones do not change."""
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
        name: str | None = None,
        owner: str = "",
    ) -> None:
        """Create a group.

        Args:
            group_id: its ``GroupId``.
            group_type: its ``Type``.
            messages: its number of messages, which everyone has read.
            members: its members.
            at: the time of its last message.
            name: its ``Name``; its id by default.
            owner: its ``Owner_Account``, who becomes the first member; "" for none.

        Raises:
            ValueError: the group exists, or an argument is invalid.
        """
        if not group_id or messages < 0 or group_type not in get_args(GroupType):
            raise ValueError(
                f"a group needs an id, a type ({', '.join(get_args(GroupType))}) and at least 0 messages, "
                f"not {group_id!r}, {group_type!r} and {messages}"
            )
        with self.lock:
            if group_id in self._groups:
                raise ValueError(f"the group {group_id!r} exists already; choose another id")
            group = self._groups[group_id] = Group(group_id, group_type, name=group_id if name is None else name)
            group.owner, group.created_at = owner, self._clock()
            self._send_to_group(group, messages, at)
            self.add_members(group_id, *filter(None, (owner,)), *members)

    def add_members(self, group_id: str, *members: str) -> None:
        """Add members to a group, without unread messages."""
        with self.lock:
            group = self._groups[group_id]
            for member in members:
                if member not in group.unread:
                    group.unread[member] = 0
                    if group.messages:
                        self._inboxes[member].note_message("group", group_id, group.last_message_at)
            self._accounts.update(members)

    def add_group_messages(self, group_id: str, count: int = 1, *, at: float | None = None) -> None:
        """Send ``count`` messages without receipts to a group; they are unread for all its members."""
        _check_count(count)
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
        """Add a receipt to a message of a group; the group then has at least ``msg_seq`` messages.

        Its recipients are the current members except the sender.  Give the readers by name or, if only numbers matter,
        both numbers: then the first members are the readers and the next ones the other recipients, followed by
        accounts that have left the group, ``former1``, ``former2``, …, which are imported.

        Args:
            group_id: the group.
            msg_seq: the message's number, from 1.
            readers: the recipients who have read it.
            sender: the member who sent it; by default, an account outside the group.
            read_num: the number of readers, in place of ``readers``.
            unread_num: the number of other recipients, with ``read_num``.
        """
        readers = tuple(readers)
        if msg_seq < 1 or (read_num is None) != (unread_num is None) or (readers and read_num is not None):
            raise ValueError(
                "a receipt needs a msg_seq of at least 1 and either readers or both read_num and unread_num, "
                f"not {msg_seq}, {readers}, {read_num} and {unread_num}"
            )
        with self.lock:
            group = self._groups[group_id]
            members = tuple(member for member in group.unread if member != sender)
            if read_num is None or unread_num is None:
                receipt = MessageReceipt(members, set())
            elif read_num < 0 or unread_num < 0:
                raise ValueError(f"read_num and unread_num must be at least 0, not {read_num} and {unread_num}")
            else:
                receipt = receipt_by_numbers(members, read_num, unread_num)
            receipt.mark_read(*readers)
            self._accounts.update(receipt.recipients)
            group.receipts[msg_seq] = receipt
            self._send_to_group(group, max(0, msg_seq - group.messages), None)

    def mark_read_in_group(self, group_id: str, msg_seq: int, *members: str) -> None:
        """Mark a message that was sent with a receipt as read by recipients; their unread counts do not change."""
        with self.lock:
            self._groups[group_id].receipts[msg_seq].mark_read(*members)

    def add_messages(self, to: str, from_: str, count: int = 1, *, at: float | None = None) -> None:
        """Send ``count`` one-to-one messages, unread by the receiver; each account becomes a contact of the other."""
        _check_count(count)
        with self.lock:
            self._accounts.update((to, from_))
            sent = self._clock() if at is None else at
            if count:
                self._inboxes[to].note_message("c2c", from_, sent)
                self._inboxes[from_].note_message("c2c", to, sent)
            self._inboxes[to].receive(from_, count, sent)

    def add_recent_contact(
        self,
        account: str,
        contact_id: str,
        *,
        kind: ContactKind = "c2c",
        at: float | None = None,
        pinned: bool = False,
    ) -> None:
        """Add or replace one conversation of an account, with or without messages.

        Messages and memberships create conversations by themselves, and a later message updates their time.

        Args:
            account: the account.
            contact_id: the other account, or the ``GroupId`` of a group, which need not exist.
            kind: ``"c2c"`` with another account, or ``"group"``.
            at: the time of its last message; by default unchanged or, for a new conversation, now.
            pinned: whether the account pinned it to the top.
        """
        if not account or not contact_id or kind not in get_args(ContactKind):
            raise ValueError(
                f"a contact needs an account, an id and a kind (c2c, group), not {account!r}, {contact_id!r}, {kind!r}"
            )
        with self.lock:
            self._accounts.update((account, contact_id) if kind == "c2c" else (account,))
            inbox = self._inboxes[account]
            if at is None:
                known = inbox.contact(kind, contact_id)
                at = self._clock() if known is None else known.msg_time
            inbox.set_contact(kind, contact_id, at, pinned=pinned)

    def mark_read(self, account: str, peer: str, before: float | None = None) -> None:
        """Mark messages from ``peer`` to ``account`` as read: those sent before a time, or all sent until now.

        An earlier time than before makes no message unread.
        """
        with self.lock:
            until = self._clock() if before is None else before
            self._inboxes[account].mark_read(peer, until, inclusive=before is None)

    def set_unread_in_group(self, group_id: str, member: str, number: int) -> None:
        """Set a member's unread count, lowered to the number of messages, as the service does; rooms keep none."""
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
        """Return the group itself, not a copy; None if it does not exist."""
        with self.lock:
            return self._groups.get(group_id)

    def unread_in_group(self, group_id: str, member: str) -> int:
        """Return a member's unread count."""
        with self.lock:
            return self._groups[group_id].unread[member]

    def unread(self, account: str, peer: str | None = None) -> int:
        """Return the number of unread one-to-one messages of ``account``, from ``peer`` or in total; 0 if unknown."""
        with self.lock:
            return self._inboxes[account].unread(peer)

    def read_time(self, account: str, peer: str) -> float | None:
        """Return the time up to which ``account`` has read the messages of ``peer``, unix seconds; None if never."""
        with self.lock:
            return self._inboxes[account].read_times.get(peer)

    def receipt(self, group_id: str, msg_seq: int) -> tuple[int, int] | None:
        """Return ``(ReadNum, UnreadNum)`` of a message; None if it was sent without a receipt."""
        with self.lock:
            receipt = self._groups[group_id].receipts.get(msg_seq)
            return None if receipt is None else receipt.numbers

    def readers(self, group_id: str, msg_seq: int, *, read: bool = True) -> tuple[str, ...]:
        """Return the recipients who have read a message or, with ``read=False``, have not, in the order of joining."""
        with self.lock:
            return self._groups[group_id].receipts[msg_seq].members(read=read)

    def recent_contacts(self, account: str) -> list[RecentContact]:
        """Return the conversations of an account: pinned ones first, then by time, newest first."""
        with self.lock:
            return self._inboxes[account].contacts()

    def _send_to_group(self, group: Group, count: int, at: float | None) -> None:
        """Add messages to a group and update each member's conversation; unread counts do not change."""
        if count:
            sent = self._clock() if at is None else at
            group.messages += count
            group.last_message_at = max(sent, group.last_message_at)
            for member in group.unread:
                self._inboxes[member].note_message("group", group.group_id, sent)


def _check_count(count: int) -> None:
    if count < 0:
        raise ValueError(f"count must be at least 0 messages, not {count}")


def fill_example(state: State) -> None:
    """Add three accounts, their conversations, and three groups.

    The accounts are ``alice``, ``bob`` and ``carol``; ``alice`` has 3 unread messages from ``bob`` and 2 from
    ``carol``.  All three are members of each group.  ``@TGS#public`` has 120 messages, of which ``carol`` sent 118 to
    120 with receipts: ``alice`` and ``bob`` have read 118, ``alice`` has read 119, nobody has read 120.  ``@TGS#work``
    has 10; ``@TGS#avchatroom`` is of a type without unread counts.  So ``alice`` has five recent contacts: ``bob``,
    ``carol`` and the groups, of which she pinned ``@TGS#work``.

    Raises:
        ValueError: a group of the example exists.
    """
    people = ("alice", "bob", "carol")
    with state.lock:
        state.add_account(*people)
        state.add_messages("alice", "bob", 3)
        state.add_messages("alice", "carol", 2)
        state.add_group("@TGS#public", "Public", messages=120, members=people, name="Everyone", owner="alice")
        state.add_group("@TGS#work", "Work", messages=10, members=people, name="Work", owner="bob")
        state.add_group("@TGS#avchatroom", "AVChatRoom", messages=5000, members=people)
        for msg_seq, readers in ((118, ("alice", "bob")), (119, ("alice",)), (120, ())):
            state.add_receipt("@TGS#public", msg_seq, readers=readers, sender="carol")
        state.add_recent_contact("alice", "@TGS#work", kind="group", pinned=True)
