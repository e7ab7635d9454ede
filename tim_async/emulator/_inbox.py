"""One account's conversations: unread messages and read times by peer, and the list of recent contacts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import Literal

ContactKind = Literal["c2c", "group"]

_MAX_TIME = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RecentContact:
    """One conversation of an account.

    Attributes:
        kind: ``"c2c"`` with another account, or ``"group"``.
        id: the other account, or the ``GroupId``.
        msg_time: the time of its last message, unix seconds.
        pinned: whether the account pinned it to the top.
        number: its number among the account's conversations, from 1, in the order in which they began.
    """

    kind: ContactKind
    id: str
    msg_time: int
    pinned: bool = False
    number: int = field(default=0, compare=False)

    @property
    def order(self) -> tuple[int, int]:
        """The sort key among the pinned conversations or among the others: newest first, then by number."""
        return -self.msg_time, self.number


class Inbox:
    """The conversations of one account, from its side.

    Attributes:
        read_times: for each peer, the time up to which its messages are read, unix seconds.
    """

    def __init__(self) -> None:
        self.read_times: dict[str, float] = {}
        self._unread: dict[str, list[float]] = {}
        self._contacts: dict[tuple[ContactKind, str], RecentContact] = {}

    def unread(self, peer: str | None) -> int:
        """Return the number of unread messages from one peer; None for all of them."""
        return sum(map(len, self._unread.values())) if peer is None else len(self._unread.get(peer, ()))

    def receive(self, peer: str, count: int, sent: float) -> None:
        """Add messages from a peer; they are unread unless they were sent before the read time."""
        if sent >= self.read_times.get(peer, sent):
            times = self._unread.setdefault(peer, [])
            place = bisect_right(times, sent)
            times[place:place] = [sent] * count

    def mark_read(self, peer: str, until: float, *, inclusive: bool) -> None:
        """Mark the messages of a peer as read that were sent before a time or, if inclusive, at it."""
        times = self._unread.get(peer, [])
        del times[: (bisect_right if inclusive else bisect_left)(times, until)]
        self.read_times[peer] = max(until, self.read_times.get(peer, until))

    def contact(self, kind: ContactKind, contact_id: str) -> RecentContact | None:
        """Return the conversation with an account or in a group; None if there is none."""
        return self._contacts.get((kind, contact_id))

    def note_message(self, kind: ContactKind, contact_id: str, sent: float) -> None:
        """Update a conversation's time by a message of it, which may be its first."""
        known = self.contact(kind, contact_id)
        if known is None or known.msg_time < _seconds(sent):
            self.set_contact(kind, contact_id, sent, pinned=known is not None and known.pinned)

    def set_contact(self, kind: ContactKind, contact_id: str, at: float, *, pinned: bool = False) -> None:
        """Add a conversation, or replace it and keep its number."""
        known = self.contact(kind, contact_id)
        number = len(self._contacts) + 1 if known is None else known.number
        self._contacts[kind, contact_id] = RecentContact(kind, contact_id, _seconds(at), pinned, number)

    def contacts(self) -> list[RecentContact]:
        """Return the conversations: pinned ones first, then by time, newest first; within a second, by number."""
        return sorted(self._contacts.values(), key=lambda contact: (not contact.pinned, *contact.order))


def _seconds(at: float) -> int:
    """Convert a time to whole unix seconds in the protocol's range."""
    return int(min(max(0.0, at), _MAX_TIME))
