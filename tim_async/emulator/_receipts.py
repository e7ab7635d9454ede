"""Receipts of group messages: who was sent a message, and which of them have read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice


@dataclass(slots=True)
class MessageReceipt:
    """The receipt of one message.

    Attributes:
        recipients: the accounts that were sent the message, each once, in the order in which they joined the group.
        read: those of the recipients that have read it.
    """

    recipients: tuple[str, ...]
    read: set[str]

    @property
    def numbers(self) -> tuple[int, int]:
        """``(ReadNum, UnreadNum)``."""
        return len(self.read), len(self.recipients) - len(self.read)

    def members(self, *, read: bool) -> tuple[str, ...]:
        """The recipients that have read the message, or those that have not, in the order of the recipients."""
        return tuple(account for account in self.recipients if (account in self.read) is read)

    def page(self, *, read: bool, start: int, size: int) -> ReceiptPage:
        """One page of `members`.

        A position counts recipients, not accounts of one list: an account that reads the message between two pages
        makes no other account appear twice or not at all.

        Args:
            read: whether to list the recipients that have read the message.
            start: position of the page: 0, or the ``end`` of the page before.
            size: the most accounts of the page, at least 1.
        """
        listed = [
            (position, account)
            for position, account in enumerate(self.recipients[start:], start)
            if (account in self.read) is read
        ]
        page = listed[:size]
        return ReceiptPage(
            accounts=[account for _, account in page],
            end=page[-1][0] + 1 if page else start,
            finished=len(listed) <= size,
        )


@dataclass(frozen=True, slots=True)
class ReceiptPage:
    """Some of the accounts that have, or have not, read a message.

    Attributes:
        accounts: their ids.
        end: position at which the next page starts.
        finished: whether this is the last page.
    """

    accounts: list[str]
    end: int
    finished: bool


def receipt_by_numbers(members: Sequence[str], read_num: int, unread_num: int) -> MessageReceipt:
    """Make a receipt with these numbers: the first members have read the message, the next have not.

    Where the group has too few members, the recipients include accounts that have left it: ``former1``, ``former2``, ….
    """
    known = set(members)
    former = (name for name in _former_names() if name not in known)
    number = read_num + unread_num
    recipients = (*members[:number], *islice(former, max(0, number - len(members))))
    return MessageReceipt(recipients, set(recipients[:read_num]))


def receipt_by_readers(members: Sequence[str], readers: Iterable[str]) -> MessageReceipt:
    """Make a receipt for these members, of whom the readers have read the message.

    Raises:
        KeyError: a reader is not among the members.
    """
    read = set(readers)
    for reader in read.difference(members):
        raise KeyError(reader)
    return MessageReceipt(tuple(members), read)


def _former_names() -> Iterator[str]:
    return (f"former{number}" for number in count(1))
