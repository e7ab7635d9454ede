"""The two kinds of migration, and their rows as they are read and checked."""

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
    """A row is invalid.

    Attributes:
        field: the invalid field, "" for the row as a whole.
        reason: why it is invalid.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A valid row.

    Attributes:
        line: the line where it begins in the file, counted from 1.
        values: a value for each field of its kind, in that order.
    """

    line: int
    values: tuple[Value, ...]

    @property
    def identity(self) -> bytes:
        """The digest of its two ids, 16 bytes: equal for rows for the same member.

        A digest keeps a journal small, however long the ids are.
        """
        first, second = self.values[:2]
        return blake2b(f"{len(str(first))}:{first}{second}".encode(), digest_size=16).digest()


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
    """An invalid row; it is never sent.

    Attributes:
        line: the line where it begins in the file, counted from 1.
        field: the invalid field, "" for the row as a whole.
        reason: why it is invalid.
        found: its fields as read, by name.
    """

    line: int
    field: str
    reason: str
    found: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A field of a kind of row.

    Attributes:
        name: the vendor's name for it.
        check: converts a value as read to the value to be sent; raises ValueError with the reason when it is invalid.
        required: whether it must be there.
        until_now: whether a row without it marks a conversation read up to now, which is done only on request.
        longest: of an id, the maximum length that the service accepts, bytes.
        words: parts of common names of its column.
    """

    name: str
    check: Callable[[Any], Value]
    required: bool = True
    until_now: bool = False
    longest: int = 0
    words: tuple[str, ...] = ()

    @property
    def is_id(self) -> bool:
        """Whether it is an id, which may have a template."""
        return self.check is read_id


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A kind of migration.

    Attributes:
        name: its name on the command line.
        endpoint: the endpoint that receives its rows.
        columns: the fields of a row; the first two are ids, and identify the member or the conversation.
        send: sends a row; its last argument is the pinned time, for a row without a time.
        groups: whether a row's first field is a group.
    """

    name: str
    endpoint: Endpoint[..., None]
    columns: tuple[Column, ...]
    send: Callable[[TIMClient, Row, int | None], Awaitable[None]]
    groups: bool

    def row(self, line: int, found: Mapping[str, Any], *, until_now: bool = True) -> Row:
        """Check the fields of a row, and return the row.

        Args:
            line: its line.
            found: its fields as read, by name; "" and None count as absent.
            until_now: accept a row without a time, which marks a conversation read up to now.

        Raises:
            BadField: the row is invalid.
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
"""The maximum length of an id that is sent, characters; the service's own limits are far lower."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_SHOWN = 40
_TOO_LARGE = 2**63
_INEXACT = 2**53


def read_id(value: Any) -> str:
    """Return a group id or a user id; a JSON number counts as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {shown(value)}")  # noqa: TRY004 - a bad value, not a caller's mistake
    if len(value) > LONGEST_ID:
        raise ValueError(f"is longer than {LONGEST_ID:,} characters: {shown(value)}")
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
    """Return a number of messages: a whole number, not negative."""
    number = _whole(value)
    if number < 0:
        raise ValueError(f"is negative: {number}")
    if number >= _TOO_LARGE:
        raise ValueError("is too large for a count: 2**63 or more")
    return number


def read_line(value: Any) -> int:
    """Return a line number.

    Raises:
        BadField: it is missing, or not a whole number from 1.
    """
    try:
        if (number := _whole(value)) >= 1:
            return number
        reason = f"is below 1: {number}"
    except ValueError as error:
        reason = "is missing" if value is None else str(error)
    raise BadField("Line", reason)


def read_time(value: Any) -> int:
    """Return the unix seconds of a time: unix seconds, or ISO 8601 with a time zone."""
    moment = value if isinstance(value, str) else _whole(value)
    try:
        return unix_seconds(moment)
    except ValueError as error:
        raise ValueError(f"{error}: {shown(value)}") from None


_WHOLE = re.compile(r"(-?[0-9]{1,20})(?:\.0+)?")
"""Stricter than int(): "1_000" and the digits of other scripts are signs of another mistake."""
_THOUSANDS = re.compile(r"-?[1-9][0-9]{0,2}\.000")
"""A decimal fraction of zeros, or thousands as half of Europe writes them."""


def _whole(value: Any) -> int:
    if isinstance(value, str) and (match := _WHOLE.fullmatch(value.strip())):
        if _THOUSANDS.fullmatch(match[0]):
            raise ValueError(f"may be {match[1]} or {match[1]},000: {shown(value)}; write it without a point")
        return int(match[1])
    # A spreadsheet, or a data frame with a gap in the column, turns 5 into 5.0.
    if isinstance(value, float) and value.is_integer() and abs(value) < _INEXACT:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"is not a whole number: {shown(value)}")


# Printable to Python, but invisible: fillers, a blank, variation selectors.
_HIDDEN = {code: f"\\u{code:04x}" for code in (0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10))}


def is_visible(text: str) -> bool:
    """Whether each character of a text can be seen; the space counts."""
    return text.isascii() or (text.isprintable() and text.translate(_HIDDEN) == text)


def shown(value: object) -> str:
    """Return a value for a message: its repr, shortened, with invisible characters escaped."""
    text = repr(value).translate(_HIDDEN)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"


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
        # Not sent: the expected count, for `verify`.
        Column("C2CUnreadMsgNum", read_count, required=False),
    ),
    _mark_read,
    groups=False,
)
"""One-to-one conversations marked read, by ``admin_set_msg_read``."""

KINDS = {kind.name: kind for kind in (UNREAD, READ)}
"""The kinds, by name."""
