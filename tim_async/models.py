"""The results of calls: frozen dataclasses, each with a ``from_wire`` that reads an answer.

Their fields are plain dicts and tuples, which web frameworks and serialisers accept.  Unknown fields of an answer are
ignored.  An item that cannot be read becomes an error of that item alone; an answer that is malformed as a whole
raises `BadResponse` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from . import _fields
from ._codes import code_of
from .errors import (
    APIError,
    AuthError,
    BadResponse,
    ClientClosed,
    PartialFailure,
    PermissionDenied,
    TIMError,
    printable,
)

Item_co = TypeVar("Item_co", covariant=True)
Value_co = TypeVar("Value_co", covariant=True)
One = TypeVar("One")


@dataclass(frozen=True, slots=True)
class ItemError:
    """The error of one item of a call.

    Attributes:
        code: the service's code; None if the answer has nothing readable about the item.
        info: details of the error, printable and at most 300 characters; may be empty.
    """

    code: int | None
    info: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", printable(self.info))

    @property
    def meaning(self) -> str:
        """The meaning of the code, in a sentence; "" if there is no code or this library does not know it."""
        return code_of(self.code).meaning

    @property
    def remedy(self) -> str:
        """The remedy for the error, in a sentence; "" likewise."""
        return code_of(self.code).remedy


@dataclass(frozen=True, slots=True)
class C2CUnread:
    """Unread one-to-one messages of one account, by peer.

    A peer that failed is in ``errors`` and not in ``counts``: looking it up there is a KeyError, never 0.

    Attributes:
        counts: peer → unread messages.
        errors: peer → its error.
    """

    counts: dict[str, int] = field(default_factory=dict)
    errors: dict[str, ItemError] = field(default_factory=dict)

    def raise_for_errors(self) -> None:
        """Raise an error if some peers failed.

        Raises:
            PartialFailure: ``errors`` is not empty; the ``result`` of the exception is this object.
        """
        _raise_for(self, self.errors, "peers")

    @classmethod
    def from_wire(cls, answer: Mapping[str, Any], asked: Iterable[str]) -> C2CUnread:
        """Read an answer of get_c2c_unread_msg_num; a missing or unreadable peer becomes an error.

        Args:
            answer: the decoded body.
            asked: the peers of the request.

        Raises:
            BadResponse: a field that must be a list is of another type.
        """
        found: dict[object, int | ItemError] = {}
        for row in _fields.rows(answer, "C2CUnreadMsgNumList"):
            found[_fields.key(row, "Peer_Account")] = _item(_unread, row)
        for row in _fields.rows(answer, "ErrorList"):
            found[_fields.key(row, "Peer_Account")] = _item(_error, row)
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
    """The read receipt of a group message.

    Attributes:
        read_num: the number of members who have read it.
        unread_num: the number of members who have not.
    """

    read_num: int
    unread_num: int


@dataclass(frozen=True, slots=True)
class GroupMsgReceipts:
    """Read receipts of messages of one group, by message sequence number.

    The keys are integers: orjson needs ``option=orjson.OPT_NON_STR_KEYS``.

    Attributes:
        receipts: MsgSeq → receipt.
        errors: MsgSeq → its error, e.g. code 10062 for a message that was sent without a receipt.
    """

    receipts: dict[int, Receipt] = field(default_factory=dict)
    errors: dict[int, ItemError] = field(default_factory=dict)

    def raise_for_errors(self) -> None:
        """Raise an error if some messages failed.

        Raises:
            PartialFailure: ``errors`` is not empty; the ``result`` of the exception is this object.
        """
        _raise_for(self, self.errors, "messages")

    @classmethod
    def from_wire(cls, answer: Mapping[str, Any], asked: Iterable[int]) -> GroupMsgReceipts:
        """Read an answer of get_group_msg_receipt; a missing or unreadable message becomes an error.

        Args:
            answer: the decoded body.
            asked: the sequence numbers of the request.

        Raises:
            BadResponse: a field that must be a list is of another type.
        """
        found = {
            _fields.key(row, "MsgSeq"): _item(_receipt, row) for row in _fields.rows(answer, "GroupMsgReceiptList")
        }
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
        cursor: the cursor of the next page; "" on the last.
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
            read: True if the request was for the members who have read the message.

        Raises:
            BadResponse: a field is not as documented, or a member cannot be read: no member is silently skipped.
        """
        rows, account = ("ReadList", "Read_Account") if read else ("UnreadList", "Unread_Account")
        # The vendor's table has IsFinished, its example IsFinish.
        finished = _fields.flag(answer, "IsFinish" if "IsFinish" in answer else "IsFinished")
        return cls(
            tuple(_fields.text(row, account) for row in _fields.objects(answer, rows)),
            "" if finished else _fields.text(answer, "Cursor"),
            finished,
        )


@dataclass(frozen=True, slots=True)
class Contact:
    """One conversation of an account.

    Attributes:
        kind: "c2c" for one-to-one, or "group".
        id: the peer's user id, or the group's id.
        msg_time: the time of its last message, unix seconds.
        pinned: whether the account has pinned it.
    """

    kind: Literal["c2c", "group"]
    id: str
    msg_time: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class RecentContactPage:
    """The cursor of a page of recent contacts, returned by the service with the previous page; all 0 for the first.

    Attributes:
        time_stamp: ``TimeStamp``.
        start_index: ``StartIndex``.
        top_time_stamp: ``TopTimeStamp``, for pinned conversations.
        top_start_index: ``TopStartIndex``, for pinned conversations.
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
        next_page: the cursor of the next page; None on the last.
    """

    contacts: tuple[Contact, ...]
    next_page: RecentContactPage | None

    @classmethod
    def from_wire(cls, answer: Mapping[str, Any]) -> RecentContactList:
        """Read an answer of get_recent_contact_list; conversations of undocumented kinds are skipped.

        Raises:
            BadResponse: a field of the answer or of a conversation is not as documented.
        """
        found = (_contact(row) for row in _fields.objects(answer, "SessionItem"))
        contacts = tuple(contact for contact in found if contact is not None)
        if _fields.flag(answer, "CompleteFlag"):
            return cls(contacts, None)
        return cls(contacts, RecentContactPage(**{_PAGE[name]: _fields.integer(answer, name) for name in _PAGE}))


# Not slotted: on Python 3.11 and 3.12 a frozen, slotted, generic dataclass cannot be called as Done[int](…).
@dataclass(frozen=True)
class Done(Generic[Item_co, Value_co]):
    """A row of ``batch.map`` whose call succeeded.

    Attributes:
        item: the row.
        value: the result of the call.
    """

    item: Item_co
    value: Value_co


@dataclass(frozen=True)
class Failed(Generic[Item_co]):
    """A row of ``batch.map`` whose call raised an exception.

    The error is an exception: orjson needs ``default=str``.

    Attributes:
        item: the row.
        error: the exception: a `TIMError`, or a `ValueError` or `TypeError` for invalid arguments.
    """

    item: Item_co
    error: Exception


def item_error(error: Exception) -> ItemError:
    """Convert the error of a whole call to that of one of its items.

    Raises:
        AuthError, PermissionDenied, ClientClosed: ``error``, with which all other calls would fail, too.
        Exception: ``error``, if it is no `TIMError`.
    """
    if not isinstance(error, TIMError) or isinstance(error, AuthError | PermissionDenied | ClientClosed):
        raise error
    return ItemError(error.code, error.info) if isinstance(error, APIError) else ItemError(None, str(error))


def all_c2c_unread(answer: Mapping[str, Any]) -> int:
    """Read ``AllC2CUnreadMsgNum``: the account's unread messages over all one-to-one conversations.

    Raises:
        BadResponse: the field is missing or not a count.
    """
    return _fields.count(answer, "AllC2CUnreadMsgNum")


def _raise_for(result: object, errors: Mapping[Any, ItemError], items: str) -> None:
    if errors:
        some = ", ".join(
            f"{item} ({error.info if error.code is None else error.code})" for item, error in list(errors.items())[:3]
        )
        more = ", …" if len(errors) > 3 else ""
        raise PartialFailure(f"{len(errors)} {items} failed: {some}{more}", result)


_MISSING = ItemError(None, "not in the answer")


def _item(read: Callable[[Mapping[str, Any]], One], row: Mapping[str, Any]) -> One | ItemError:
    """Read an item that may fail alone."""
    try:
        return read(row)
    except BadResponse as error:
        return ItemError(None, str(error))


def _unread(row: Mapping[str, Any]) -> int:
    return _fields.count(row, "C2CUnreadMsgNum")


def _error(row: Mapping[str, Any], key: str = "ErrorCode") -> ItemError:
    info = row.get("ErrorInfo")
    return ItemError(_fields.code(row, key), info if isinstance(info, str) else "")


def _receipt(row: Mapping[str, Any]) -> Receipt | ItemError:
    code = row.get("Code", 0)
    if type(code) is not int or code != 0:  # the counts may be absent then
        return _error(row, "Code")
    return Receipt(_fields.count(row, "ReadNum"), _fields.count(row, "UnreadNum"))


def _contact(row: Mapping[str, Any]) -> Contact | None:
    """Read a conversation; None for one of an undocumented kind."""
    if _fields.integer(row, "Type") not in _KINDS:
        return None
    kind, id_ = _KINDS[row["Type"]]
    pinned = "TopFlag" in row and _fields.flag(row, "TopFlag")
    return Contact(kind, _fields.text(row, id_), _fields.integer(row, "MsgTime"), pinned)
