"""Recent contacts: the conversations of an account, and how they are paged.

A position in the list is the time of the last conversation that was handed out and its number within the account.  So
a conversation that moves to the front between two pages makes no other appear twice or not at all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

ContactKind = Literal["c2c", "group"]

_LATEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RecentContact:
    """One conversation of an account.

    Attributes:
        kind: ``"c2c"`` with another account, or ``"group"``.
        id: the other account, or the ``GroupId``.
        msg_time: when its last message was sent, unix seconds.
        pinned: whether the account pinned it to the top.
        number: its number among the account's conversations, from 1, in the order in which they began.
    """

    kind: ContactKind
    id: str
    msg_time: int
    pinned: bool = False
    number: int = field(default=0, compare=False)


class ContactBook:
    """All conversations of one account."""

    def __init__(self) -> None:
        self._contacts: dict[tuple[ContactKind, str], RecentContact] = {}

    def find(self, kind: ContactKind, contact_id: str) -> RecentContact | None:
        """The conversation with an account or in a group; None where there is none."""
        return self._contacts.get((kind, contact_id))

    def put(self, contact: RecentContact) -> None:
        """Add a conversation, or replace it; its number is the book's to give."""
        known = self.find(contact.kind, contact.id)
        number = len(self._contacts) + 1 if known is None else known.number
        self._contacts[contact.kind, contact.id] = replace(contact, number=number)

    def message(self, kind: ContactKind, contact_id: str, at: float) -> None:
        """Note a message of a conversation, which may be its first; one older than its last changes nothing."""
        msg_time = seconds_of(at)
        known = self.find(kind, contact_id)
        if known is None:
            self.put(RecentContact(kind, contact_id, msg_time))
        elif known.msg_time < msg_time:
            self.put(replace(known, msg_time=msg_time))

    def all(self) -> list[RecentContact]:
        """Pinned conversations first, then by time, newest first; within a second, in the order of their numbers."""
        return sorted(self._contacts.values(), key=lambda contact: (not contact.pinned, *_order(contact)))


@dataclass(frozen=True, slots=True)
class Position:
    """How far a list was handed out: ``TimeStamp`` and ``StartIndex``, both 0 before the first conversation.

    Attributes:
        time: the time of the last conversation that was handed out, unix seconds.
        index: its number.
    """

    time: int = 0
    index: int = 0

    def rest(self, contacts: Sequence[RecentContact]) -> Sequence[RecentContact]:
        """The conversations that follow, of a list that is sorted by time, newest first."""
        if self == Position():
            return contacts
        return contacts[bisect_right(contacts, (-self.time, self.index), key=_order) :]

    def after(self, page: Sequence[RecentContact]) -> Position:
        """The position after a page that started here."""
        return Position(page[-1].msg_time, page[-1].number) if page else self


@dataclass(frozen=True, slots=True)
class ContactPage:
    """One page of recent contacts.

    Attributes:
        contacts: the conversations.
        top: position after the page among the pinned conversations.
        general: position after the page among the others.
        finished: whether this is the last page.
    """

    contacts: list[RecentContact]
    top: Position
    general: Position
    finished: bool


def page_of(contacts: Sequence[RecentContact], top: Position, general: Position, size: int) -> ContactPage:
    """Cut one page.

    Args:
        contacts: all conversations, as `ContactBook.all` sorts them.
        top: position among the pinned conversations.
        general: position among the others.
        size: the most conversations of the page, at least 1.
    """
    pinned = top.rest([contact for contact in contacts if contact.pinned])
    others = general.rest([contact for contact in contacts if not contact.pinned])
    first = pinned[:size]
    then = others[: size - len(first)]
    return ContactPage(
        contacts=[*first, *then],
        top=top.after(first),
        general=general.after(then),
        finished=len(pinned) + len(others) <= size,
    )


def seconds_of(at: float) -> int:
    """Whole unix seconds in the range of the wire."""
    return int(min(max(0.0, at), _LATEST))


def _order(contact: RecentContact) -> tuple[int, int]:
    return -contact.msg_time, contact.number
