"""What calls return: frozen dataclasses with plain fields, each with a ``from_wire`` that reads the service's answer.

Plain ``dict`` fields on purpose: web frameworks and serialisers take these classes as they are.
Unknown fields of an answer are ignored; missing or ill-typed ones raise `BadResponse` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from .errors import BadResponse, PartialFailure, Reaction

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one item of a call failed.

    Attributes:
        code: the service's code for it; None when the service said nothing of the item.
        info: what is known beside the code, "" when nothing is.
    """

    code: int | None
    info: str = ""


@dataclass(frozen=True, slots=True)
class C2CUnread:
    """Unread one-to-one messages of one account, by peer.

    A peer that failed is in ``errors`` and absent from ``counts``: asking for it is a KeyError and never 0.

    Attributes:
        counts: peer → unread messages.
        errors: peer → why there is no count.
    """

    counts: dict[str, int] = field(default_factory=dict)
    errors: dict[str, ItemError] = field(default_factory=dict)

    def raise_for_errors(self) -> None:
        """Do nothing when every peer was counted.

        Raises:
            PartialFailure: otherwise; its ``result`` is this object.
        """
        _raise_for(self, self.errors, "peers")

    @classmethod
    def from_wire(cls, answer: Mapping[str, Any], asked: Iterable[str]) -> C2CUnread:
        """Read an answer of get_c2c_unread_msg_num; a peer the answer leaves out becomes an error.

        Args:
            answer: the decoded body.
            asked: the peers that were asked for.

        Raises:
            BadResponse: a field is of the wrong type.
        """
        counts = {
            _str(row, "Peer_Account"): _count(row, "C2CUnreadMsgNum") for row in _rows(answer, "C2CUnreadMsgNumList")
        }
        errors = {
            _str(row, "Peer_Account"): ItemError(_int(row, "ErrorCode"), str(row.get("ErrorInfo") or ""))
            for row in _rows(answer, "ErrorList")
        }
        result = cls()
        for peer in asked:
            if peer in errors:
                result.errors[peer] = errors[peer]
            elif peer in counts:
                result.counts[peer] = counts[peer]
            else:
                result.errors[peer] = ItemError(None, "not in the answer")
        return result


@dataclass(frozen=True, slots=True)
class Receipt:
    """How many members have read a group message.

    Attributes:
        read_num: members who have read it.
        unread_num: members who have not.
    """

    read_num: int
    unread_num: int


@dataclass(frozen=True, slots=True)
class GroupMsgReceipts:
    """Read receipts of messages of one group, by message sequence number.

    Attributes:
        receipts: MsgSeq → receipt.
        errors: MsgSeq → why there is none, e.g. code 10062: sent without a receipt.
    """

    receipts: dict[int, Receipt] = field(default_factory=dict)
    errors: dict[int, ItemError] = field(default_factory=dict)

    def raise_for_errors(self) -> None:
        """Do nothing when every message had a receipt.

        Raises:
            PartialFailure: otherwise; its ``result`` is this object.
        """
        _raise_for(self, self.errors, "messages")

    @classmethod
    def from_wire(cls, answer: Mapping[str, Any], asked: Iterable[int]) -> GroupMsgReceipts:
        """Read an answer of get_group_msg_receipt; a message the answer leaves out becomes an error.

        Args:
            answer: the decoded body.
            asked: the sequence numbers that were asked for.

        Raises:
            BadResponse: a field is of the wrong type.
        """
        found: dict[int, Receipt | ItemError] = {}
        for row in _rows(answer, "GroupMsgReceiptList"):
            code = _int(row, "Code") if "Code" in row else 0
            # The two numbers may be absent beside a code other than 0.
            found[_int(row, "MsgSeq")] = (
                Receipt(_count(row, "ReadNum"), _count(row, "UnreadNum"))
                if code == 0
                else ItemError(code, str(row.get("ErrorInfo") or ""))
            )
        result = cls()
        for seq in asked:
            item = found.get(seq)
            if isinstance(item, Receipt):
                result.receipts[seq] = item
            else:
                result.errors[seq] = item or ItemError(None, "not in the answer")
        return result


# Not slotted: on Python 3.11 and 3.12 a frozen, slotted, generic dataclass cannot be called as Done[int](…).
@dataclass(frozen=True)
class Done(Generic[Item, Value]):
    """An item that a batch completed.

    Attributes:
        item: the row as it was given.
        value: what the call returned.
    """

    item: Item
    value: Value


@dataclass(frozen=True)
class Failed(Generic[Item]):
    """An item that a batch could not complete.

    Attributes:
        item: the row as it was given.
        error: what the call raised: a `TIMError`, or `ValueError`/`TypeError` for a row that can never be sent.
    """

    item: Item
    error: Exception


def all_c2c_unread(answer: Mapping[str, Any]) -> int:
    """Read ``AllC2CUnreadMsgNum``: the account's unread messages over all one-to-one conversations.

    Raises:
        BadResponse: it is missing or no number.
    """
    return _count(answer, "AllC2CUnreadMsgNum")


def _raise_for(result: object, errors: Mapping[Any, ItemError], what: str) -> None:
    if errors:
        some = ", ".join(
            f"{item} ({error.info if error.code is None else error.code})" for item, error in list(errors.items())[:3]
        )
        more = ", …" if len(errors) > 3 else ""
        raise PartialFailure(f"{len(errors)} {what} failed: {some}{more}", result)


def _rows(answer: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    rows = answer.get(key)
    if rows is None:  # either list may be absent
        return
    if not isinstance(rows, list):
        raise _ill_typed(key)
    for row in rows:
        if not isinstance(row, dict):
            raise _ill_typed(key)
        yield row


def _int(row: Mapping[str, Any], key: str) -> int:
    value = row.get(key)
    if type(value) is not int:  # a bool is an int to isinstance
        raise _ill_typed(key)
    return value


def _count(row: Mapping[str, Any], key: str) -> int:
    value = _int(row, key)
    if value < 0:
        raise _ill_typed(key)
    return value


def _str(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise _ill_typed(key)
    return value


def _ill_typed(key: str) -> BadResponse:
    # The service carried the call out and said so; asking again would be answered the same way.
    return BadResponse(f"{key} is missing from the answer or not as documented", 200, Reaction.GIVE_UP, False)
