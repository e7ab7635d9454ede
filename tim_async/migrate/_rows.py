"""What a migration carries over: its two kinds, and the rows of each as they are read and checked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from tim_async.config import unix_seconds
from tim_async.endpoints import ADMIN_SET_MSG_READ, SET_UNREAD_MSG_NUM, Endpoint

if TYPE_CHECKING:
    from tim_async.client import TIMClient

Value = str | int | None

UNTIL_NOW = "--until-now marks such conversations read up to now"
"""The remedy for rows without a time."""


class BadField(ValueError):
    """A row cannot be valid.

    Attributes:
        field: the field at fault, "" when it is the row as a whole.
        reason: what is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A row that can be sent.

    Attributes:
        line: where it begins in the file, counted from 1.
        values: one for each field of its kind, in that order.
    """

    line: int
    values: tuple[Value, ...]

    @property
    def identity(self) -> bytes:
        """What two rows for the same member have in common: 16 bytes, made of the two ids.

        A digest and not the ids themselves, so that a journal stays small whatever the ids look like.
        """
        first, second = self.values[:2]
        return blake2b(f"{len(str(first))}:{first}{second}".encode(), digest_size=16).digest()


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be valid; it is never sent.

    Attributes:
        line: where it begins in the file, counted from 1.
        field: the field at fault, "" when it is the row as a whole.
        reason: what is wrong with it.
        found: what was read of its fields, by name.
    """

    line: int
    field: str
    reason: str
    found: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One field of a kind of row.

    Attributes:
        name: the vendor's name for it.
        check: makes the value to be sent of what was read; raises ValueError with the reason when it cannot.
        required: whether it must be there.
        until_now: whether a row without it marks a conversation read up to now, which is done only on request.
        longest: of an id, the bytes that the service takes.
        words: parts of the names that its column often has.
    """

    name: str
    check: Callable[[Any], Value]
    required: bool = True
    until_now: bool = False
    longest: int = 0
    words: tuple[str, ...] = ()

    @property
    def is_id(self) -> bool:
        """Whether it is an id, to which a template may be applied."""
        return self.check is read_id


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One kind of migration.

    Attributes:
        name: what it is called on the command line.
        endpoint: the endpoint that takes its rows.
        columns: the fields of a row; the first two are ids, and name whom it is about.
        send: carries one row out; its last argument is the time a row without one is pinned to.
        groups: whether a row's first field is a group.
    """

    name: str
    endpoint: Endpoint[..., None]
    columns: tuple[Column, ...]
    send: Callable[[TIMClient, Row, int | None], Awaitable[None]]
    groups: bool

    def row(self, line: int, found: Mapping[str, Any], *, until_now: bool = True) -> Row:
        """Check what was read of a row's fields.

        Args:
            line: its line.
            found: its fields by name; "" and None count as absent.
            until_now: take a row without a time, which marks a conversation read up to now.

        Raises:
            BadField: it cannot be valid.
        """
        values: list[Value] = []
        for column in self.columns:
            value = found.get(column.name)
            if value is None or value == "":
                if column.required or (column.until_now and not until_now):
                    reason = "is empty" if column.name in found else "is missing"
                    raise BadField(column.name, reason if column.required else f"{reason}; {UNTIL_NOW}")
                values.append(None)
                continue
            try:
                values.append(column.check(value))
            except ValueError as error:
                raise BadField(column.name, str(error)) from None
        return Row(line, tuple(values))


LONGEST_ID = 1000
"""Characters of the longest id that is sent; the service draws its own line far below."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_SHOWN = 40
_TOO_LARGE = 2**63
_INEXACT = 2**53
_LONG = 20


def read_id(value: Any) -> str:
    """A group id or a user id; a JSON number counts as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {shown(value)}")  # noqa: TRY004 - a bad value, not a caller's mistake
    if len(value) > LONGEST_ID:
        raise ValueError(f"is longer than {LONGEST_ID:,} characters: {shown(value)}")
    if value.isprintable() and value == value.strip():
        return value  # nearly all are, and what is looked for below is not
    if _CONTROL.search(value):
        raise ValueError(f"holds a control character: {shown(value)}")
    if value != value.strip():
        raise ValueError(f"begins or ends with white space: {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"is not UTF-8: {shown(value)}") from None
    return value


def read_count(value: Any) -> int:
    """A number of messages: a whole number, not negative."""
    number = _whole(value)
    if number < 0:
        raise ValueError(f"is negative: {number}")
    if number >= _TOO_LARGE:
        raise ValueError("is too large: no service counts that far")
    return number


def read_line(value: Any) -> int:
    """The number of a line."""
    try:
        if (number := _whole(value)) >= 1:
            return number
        reason = f"is below 1: {number}"
    except ValueError as error:
        reason = "is missing" if value is None else str(error)
    raise BadField("Line", reason)


def read_time(value: Any) -> int:
    """A time: unix seconds, or ISO 8601 with a time zone."""
    moment = value if isinstance(value, str) else _whole(value)
    try:
        return unix_seconds(moment)
    except ValueError as error:
        raise ValueError(f"{error}: {shown(value)}") from None


_WHOLE = re.compile(r"(-?[0-9]{1,20})(?:\.0+)?")
"""Not what int() takes: "1_000" and the digits of other scripts say that something else went wrong."""


def _whole(value: Any) -> int:
    if isinstance(value, str):
        if value.isascii() and value.isdigit() and len(value) < _LONG:  # nearly all are
            return int(value)
        if match := _WHOLE.fullmatch(value.strip()):
            return int(match[1])
    # A spreadsheet, or a data frame with a gap in the column, makes 5.0 of 5.
    if isinstance(value, float) and value.is_integer() and abs(value) < _INEXACT:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"is not a whole number: {shown(value)}")


# Printable to Python, and nothing to the eye: fillers, a blank, variation selectors.
_HIDDEN = {code: f"\\u{code:04x}" for code in (0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10))}


def is_visible(text: str) -> bool:
    """Whether each character of a text can be seen; the space counts."""
    return text.isascii() or (text.isprintable() and text.translate(_HIDDEN) == text)


def shown(value: object) -> str:
    """A value as a message can hold it: not long, and with what is invisible escaped."""
    text = repr(value).translate(_HIDDEN)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


async def _set_unread(client: TIMClient, row: Row, _: int | None) -> None:
    group, member, number = row.values
    await client.set_unread_msg_num(str(group), str(member), int(number or 0))


async def _mark_read(client: TIMClient, row: Row, pinned: int | None) -> None:
    report, peer, time = row.values[:3]
    await client.admin_set_msg_read(str(report), str(peer), msg_read_time=pinned if time is None else int(time))


UNREAD = Kind(
    "unread",
    SET_UNREAD_MSG_NUM,
    (
        Column("GroupId", read_id, longest=48, words=("group", "room", "channel", "rid", "conversation")),
        Column("Member_Account", read_id, longest=32, words=("member", "user", "account", "uid")),
        Column("UnreadMsgNum", read_count, words=("unread", "count", "num", "badge")),
    ),
    _set_unread,
    groups=True,
)
"""Unread counts of group members, by ``set_unread_msg_num``."""

READ = Kind(
    "read",
    ADMIN_SET_MSG_READ,
    (
        Column("Report_Account", read_id, longest=32, words=("report", "reader", "owner", "from", "user")),
        Column("Peer_Account", read_id, longest=32, words=("peer", "other", "contact", "friend", "to")),
        Column(
            "MsgReadTime",
            read_time,
            required=False,
            until_now=True,
            words=("read", "seen", "viewed", "time", "date", "last", "_at", "ts"),
        ),
        # Not sent: what verifying compares with.
        Column("C2CUnreadMsgNum", read_count, required=False),
    ),
    _mark_read,
    groups=False,
)
"""One-to-one conversations marked read, by ``admin_set_msg_read``."""

KINDS = {kind.name: kind for kind in (UNREAD, READ)}
"""Each kind, by its name."""
