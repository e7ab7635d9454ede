"""What calls return: frozen dataclasses with plain fields, each with a ``from_wire`` that reads the service's answer.

Plain ``dict`` fields on purpose: web frameworks and serialisers take these classes as they are.
Unknown fields of an answer are ignored.  An item of a list that cannot be read becomes an error of that item alone;
an answer that is broken as a whole raises `BadResponse` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from .errors import BadResponse, PartialFailure, Reaction, is_code, printable

Item_co = TypeVar("Item_co", covariant=True)
Value_co = TypeVar("Value_co", covariant=True)

_MAX_COUNT = 2**32
"""No count of the service reaches this."""


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one item of a call failed.

    Attributes:
        code: the service's code for it; None when the service said nothing readable of the item.
        info: what is known beside the code, printable and at most 300 characters; "" when nothing is.
    """

    code: int | None
    info: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", printable(self.info))


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
        """Read an answer of get_c2c_unread_msg_num; a peer that it leaves out or garbles becomes an error.

        Args:
            answer: the decoded body.
            asked: the peers that were asked for.

        Raises:
            BadResponse: a list is not a list.
        """
        found: dict[object, int | ItemError] = {}
        for row in _rows(answer, "C2CUnreadMsgNumList"):
            found[_key(row, "Peer_Account")] = _count(row, "C2CUnreadMsgNum")
        for row in _rows(answer, "ErrorList"):
            found[_key(row, "Peer_Account")] = _item_error(row, "ErrorCode")
        result = cls()
        for peer in asked:
            item = found.get(peer, _MISSING)
            if isinstance(item, ItemError):
                result.errors[peer] = item
            else:
                result.counts[peer] = item
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

    The keys are integers, for which orjson needs ``option=orjson.OPT_NON_STR_KEYS``.

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
        """Read an answer of get_group_msg_receipt; a message that it leaves out or garbles becomes an error.

        Args:
            answer: the decoded body.
            asked: the sequence numbers that were asked for.

        Raises:
            BadResponse: the list is not a list.
        """
        found = {_key(row, "MsgSeq"): _receipt(row) for row in _rows(answer, "GroupMsgReceiptList")}
        result = cls()
        for seq in asked:
            item = found.get(seq, _MISSING)
            if isinstance(item, Receipt):
                result.receipts[seq] = item
            else:
                result.errors[seq] = item
        return result


@dataclass(frozen=True, slots=True)
class GroupMsgReceiptDetail:
    """One page of the members who have read a group message, or of those who have not.

    Attributes:
        accounts: the members' user ids.
        cursor: where the next page begins.
        finished: whether this is the last page.
    """

    accounts: tuple[str, ...]
    cursor: str
    finished: bool

    @classmethod
    def from_wire(cls, answer: Mapping[str, Any], *, read: bool) -> GroupMsgReceiptDetail:
        """Read an answer of get_group_msg_receipt_detail.

        Args:
            answer: the decoded body.
            read: whether the members who have read the message were asked for.

        Raises:
            BadResponse: it is not as documented.  A member who cannot be read is not left out silently.
        """
        rows, account = ("ReadList", "Read_Account") if read else ("UnreadList", "Unread_Account")
        # The vendor's table says IsFinished, its example IsFinish.
        finished = _flag(answer, "IsFinish" if "IsFinish" in answer else "IsFinished")
        return cls(
            tuple(_text(row, account) for row in _objects(answer, rows)),
            "" if finished else _text(answer, "Cursor"),
            finished,
        )


@dataclass(frozen=True, slots=True)
class Contact:
    """One conversation of an account.

    Attributes:
        kind: "c2c" for one-to-one, or "group".
        id: the peer's user id, or the group's id.
        msg_time: when its last message was sent, unix seconds.
        pinned: whether the account has pinned it to the top.
    """

    kind: Literal["c2c", "group"]
    id: str
    msg_time: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class RecentContactPage:
    """Where a page of recent contacts begins: what the service answered with the page before, all 0 at first.

    Attributes:
        time_stamp: ``TimeStamp``.
        start_index: ``StartIndex``.
        top_time_stamp: ``TopTimeStamp``, of the pinned conversations.
        top_start_index: ``TopStartIndex``, of the pinned conversations.
    """

    time_stamp: int = 0
    start_index: int = 0
    top_time_stamp: int = 0
    top_start_index: int = 0

    def to_wire(self) -> dict[str, int]:
        """Return the request's fields."""
        return {name: getattr(self, attribute) for name, attribute in _PAGE.items()}


_PAGE = {
    "TimeStamp": "time_stamp",
    "StartIndex": "start_index",
    "TopTimeStamp": "top_time_stamp",
    "TopStartIndex": "top_start_index",
}
_KINDS: dict[int, tuple[Literal["c2c", "group"], str]] = {1: ("c2c", "To_Account"), 2: ("group", "GroupId")}


@dataclass(frozen=True, slots=True)
class RecentContactList:
    """One page of an account's conversations.

    Attributes:
        contacts: the conversations, in the service's order.
        next_page: what asks for the next page; None when this is the last.
    """

    contacts: tuple[Contact, ...]
    next_page: RecentContactPage | None

    @classmethod
    def from_wire(cls, answer: Mapping[str, Any]) -> RecentContactList:
        """Read an answer of get_recent_contact_list; conversations of kinds that are not documented are left out.

        Raises:
            BadResponse: it is not as documented.  A conversation that cannot be read is not left out silently.
        """
        found = (_contact(row) for row in _objects(answer, "SessionItem"))
        contacts = tuple(contact for contact in found if contact is not None)
        if _flag(answer, "CompleteFlag"):
            return cls(contacts, None)
        return cls(contacts, RecentContactPage(**{_PAGE[name]: _whole(answer, name) for name in _PAGE}))


# Not slotted: on Python 3.11 and 3.12 a frozen, slotted, generic dataclass cannot be called as Done[int](…).
@dataclass(frozen=True)
class Done(Generic[Item_co, Value_co]):
    """An item that a batch completed.

    Attributes:
        item: the row as it was given.
        value: what the call returned.
    """

    item: Item_co
    value: Value_co


@dataclass(frozen=True)
class Failed(Generic[Item_co]):
    """An item that a batch could not complete.

    Its error is an exception, for which orjson needs ``default=str``.

    Attributes:
        item: the row as it was given.
        error: what the call raised: a `TIMError`, or `ValueError`/`TypeError` for a row that can never be sent.
    """

    item: Item_co
    error: Exception


def all_c2c_unread(answer: Mapping[str, Any]) -> int:
    """Read ``AllC2CUnreadMsgNum``: the account's unread messages over all one-to-one conversations.

    Raises:
        BadResponse: it is missing or not a count.
    """
    count = _count(answer, "AllC2CUnreadMsgNum")
    if isinstance(count, ItemError):
        raise _ill_typed("AllC2CUnreadMsgNum")
    return count


def _raise_for(result: object, errors: Mapping[Any, ItemError], what: str) -> None:
    if errors:
        some = ", ".join(
            f"{item} ({error.info if error.code is None else error.code})" for item, error in list(errors.items())[:3]
        )
        more = ", …" if len(errors) > 3 else ""
        raise PartialFailure(f"{len(errors)} {what} failed: {some}{more}", result)


_MISSING = ItemError(None, "not in the answer")


def _rows(answer: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    """The items of a list; one that is no object is left out, and what it was to say is missing."""
    rows = answer.get(key)
    if rows is None:  # either list may be absent
        return
    if not isinstance(rows, list):
        raise _ill_typed(key)
    yield from (row for row in rows if isinstance(row, dict))


def _key(row: Mapping[str, Any], key: str) -> object:
    """What an item is about, if that can be read."""
    value = row.get(key)
    # Not bool, which would stand for 0 and 1.
    return value if type(value) in (str, int) else None


def _count(row: Mapping[str, Any], key: str) -> int | ItemError:
    value = row.get(key)
    if type(value) is int and 0 <= value < _MAX_COUNT:
        return value
    return ItemError(None, f"{key} is missing from the answer or not as documented")


def _item_error(row: Mapping[str, Any], key: str) -> ItemError:
    code, info = row.get(key), row.get("ErrorInfo")
    if is_code(code):
        return ItemError(code, info if isinstance(info, str) else "")
    return ItemError(None, f"{key} is missing from the answer or not as documented")


def _receipt(row: Mapping[str, Any]) -> Receipt | ItemError:
    code = row.get("Code", 0)
    if type(code) is not int or code != 0:  # then the two numbers may be absent
        return _item_error(row, "Code")
    read, unread = _count(row, "ReadNum"), _count(row, "UnreadNum")
    if isinstance(read, ItemError):
        return read
    return unread if isinstance(unread, ItemError) else Receipt(read, unread)


def _objects(answer: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    """The items of a list of which none may be missing."""
    rows = answer.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _ill_typed(key)
    yield from rows


def _contact(row: Mapping[str, Any]) -> Contact | None:
    """A conversation; None for one of a kind that is not documented."""
    if _whole(row, "Type") not in _KINDS:
        return None
    kind, id_ = _KINDS[row["Type"]]
    return Contact(kind, _text(row, id_), _whole(row, "MsgTime"), "TopFlag" in row and _flag(row, "TopFlag"))


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if isinstance(value, str) and value:
        return value
    raise _ill_typed(key)


def _whole(row: Mapping[str, Any], key: str) -> int:
    value = row.get(key)
    if type(value) is int and 0 <= value < 2**63:
        return value
    raise _ill_typed(key)


def _flag(row: Mapping[str, Any], key: str) -> bool:
    value = row.get(key)
    if value in (0, 1) and isinstance(value, int):
        return bool(value)
    raise _ill_typed(key)


def _ill_typed(key: str) -> BadResponse:
    # The service carried the call out and said so; asking again would be answered the same way.
    return BadResponse(f"{key} is missing from the answer or not as documented", 200, Reaction.GIVE_UP, False)
