"""The state of the service: accounts, groups with unread counts and receipts, messages, recent contacts.

It is filled and read by plain synchronous calls from any thread, before, during and after a run.  Requests are checked
by `_commands`, before they reach it.
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

    Times are unix seconds, and now by default.  Methods that add something to accounts import those that do not exist.
    Unless they say otherwise, methods raise `KeyError` for a group, a member, a receipt or a recipient that does not
    exist, and `ValueError` for an empty id, an unknown type or kind, and a number out of its range; they then change
    nothing.

    Attributes:
        lock: held by each method and by each request while it is handled; hold it to do several things at once.

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
        name: str | None = None,
        owner: str = "",
    ) -> None:
        """Create a group.

        Args:
            group_id: its ``GroupId``.
            group_type: its ``Type``.
            messages: its number of messages, all of them read by everyone.
            members: its members.
            at: when the last of its messages was sent.
            name: its ``Name``; its id by default.
            owner: its ``Owner_Account``, the first of its members; "" for none.

        Raises:
            ValueError: the group exists, too.
        """
        if not group_id or messages < 0 or group_type not in get_args(GroupType):
            raise ValueError(
                f"a group needs an id, a type out of {', '.join(get_args(GroupType))}, and at least 0 messages, "
                f"not {group_id!r}, {group_type!r} and {messages}"
            )
        with self.lock:
            if group_id in self._groups:
                raise ValueError(f"the group {group_id!r} exists; choose another id")
            group = self._groups[group_id] = Group(group_id, group_type, name=group_id if name is None else name)
            group.owner, group.created_at = owner, self._clock()
            self._send_to_group(group, messages, at)
            self.add_members(group_id, *filter(None, (owner,)), *members)

    def add_members(self, group_id: str, *members: str) -> None:
        """Add members to a group, with nothing unread."""
        with self.lock:
            group = self._groups[group_id]
            for member in members:
                if member not in group.unread:
                    group.unread[member] = 0
                    if group.messages:
                        self._inboxes[member].note_message("group", group_id, group.last_message_at)
            self._accounts.update(members)

    def add_group_messages(self, group_id: str, count: int = 1, *, at: float | None = None) -> None:
        """Send ``count`` messages without receipts to a group; they are unread for each of its members."""
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
        """Give a message of a group a receipt; the group then holds at least ``msg_seq`` messages.

        Its recipients are the current members but for the sender.  Give the readers by name or, where only numbers
        matter, both numbers: the first members then are its readers and the next its other recipients, followed by
        accounts that have left the group, ``former1``, ``former2``, …, which are imported.

        Args:
            group_id: the group.
            msg_seq: the message's number, from 1.
            readers: the recipients that have read it.
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
        """Mark a message that was sent with a receipt as read by recipients; their unread counts stay as they are."""
        with self.lock:
            self._groups[group_id].receipts[msg_seq].mark_read(*members)

    def add_messages(self, to: str, from_: str, count: int = 1, *, at: float | None = None) -> None:
        """Send ``count`` one-to-one messages, unread by the receiver; each account gets the other as a contact."""
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
        """Set one conversation of an account, with or without messages.

        Messages and memberships give an account its conversations by themselves; a later message makes one newer.

        Args:
            account: the account.
            contact_id: the other account, or the ``GroupId`` of a group, which need not exist.
            kind: ``"c2c"`` with another account, or ``"group"``.
            at: when its last message was sent; by default the time it has or, if it is new, now.
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
        """Mark messages from ``peer`` to ``account`` as read: those sent before a time, or all that were sent by now.

        An earlier time makes none of them unread.
        """
        with self.lock:
            until = self._clock() if before is None else before
            self._inboxes[account].mark_read(peer, until, inclusive=before is None)

    def set_unread_in_group(self, group_id: str, member: str, number: int) -> None:
        """Set a member's unread count; the service lowers it to the number of messages, and keeps none in rooms."""
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
        """A member's unread count."""
        with self.lock:
            return self._groups[group_id].unread[member]

    def unread(self, account: str, peer: str | None = None) -> int:
        """The number of one-to-one messages ``account`` has not read, from ``peer`` or in all; 0 for any other."""
        with self.lock:
            return self._inboxes[account].total if peer is None else self._inboxes[account].unread(peer)

    def read_time(self, account: str, peer: str) -> float | None:
        """Until when ``account`` has read the messages of ``peer``, unix seconds; None if none was ever marked."""
        with self.lock:
            return self._inboxes[account].read_times.get(peer)

    def receipt(self, group_id: str, msg_seq: int) -> tuple[int, int] | None:
        """``(ReadNum, UnreadNum)`` of a message; None for one sent without a receipt."""
        with self.lock:
            receipt = self._groups[group_id].receipts.get(msg_seq)
            return None if receipt is None else receipt.numbers

    def readers(self, group_id: str, msg_seq: int, *, read: bool = True) -> tuple[str, ...]:
        """The recipients that have read a message, or with ``read=False`` those that have not, in order of joining."""
        with self.lock:
            return self._groups[group_id].receipts[msg_seq].members(read=read)

    def recent_contacts(self, account: str) -> list[RecentContact]:
        """The conversations of an account: pinned ones first, then by time, newest first."""
        with self.lock:
            return self._inboxes[account].contacts()

    def _send_to_group(self, group: Group, count: int, at: float | None) -> None:
        """Number messages and make the group a newer conversation of each member; unread counts stay."""
        if count:
            sent = self._clock() if at is None else at
            group.messages += count
            group.last_message_at = max(sent, group.last_message_at)
            for member in group.unread:
                self._inboxes[member].note_message("group", group.group_id, sent)


def _check_count(count: int) -> None:
    if count < 0:
        raise ValueError(f"a number of messages is at least 0, not {count}")


def fill_example(state: State) -> None:
    """Add three accounts, their conversations, and three groups.

    Accounts ``alice``, ``bob`` and ``carol``; ``alice`` has 3 unread messages from ``bob`` and 2 from ``carol``.
    ``@TGS#public`` holds 120 messages, of which ``carol`` sent 118 to 120 with receipts: ``alice`` and ``bob`` have
    read 118, ``alice`` has read 119, nobody has read 120.  ``@TGS#work`` holds 10; ``@TGS#avchatroom`` is of a type
    that keeps no unread counts.  All three are in each.  So ``alice`` has five recent contacts: ``bob``, ``carol``
    and the groups, of which she pinned ``@TGS#work``.

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
