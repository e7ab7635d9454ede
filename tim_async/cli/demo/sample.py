"""Reading an export of memberships: rows that can be sent, and rows that cannot, with the line and the reason.

Exports are written by spreadsheets and database tools: a byte-order mark, CRLF, quoted commas and line ends, columns
that nobody asked for.  One row is one membership: a group, a member, the member's unread count, and perhaps the
one-to-one conversation that the member read last.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

NAME = "sample.csv"
COLUMNS = (
    "GroupId",
    "GroupName",
    "GroupType",
    "MsgNum",
    "Member_Account",
    "DisplayName",
    "UnreadMsgNum",
    "Peer_Account",
    "LastReadTime",
)
"""The columns that are read; others may stand beside them."""

_LONGEST_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Row:
    """A row that can be sent.

    Attributes:
        line: where it begins in the file, counted from 1.
        group_id: the group.
        group_type: its type.
        msg_num: how many messages it holds.
        member_account: the member.
        display_name: the member's name, for people.
        unread_msg_num: the member's unread count in the group.
        peer_account: the one-to-one conversation last read, if there is one.
        last_read_time: until when it was read, unix seconds; None for all there is.
    """

    line: int
    group_id: str
    group_type: str
    msg_num: int
    member_account: str
    display_name: str
    unread_msg_num: int
    peer_account: str | None
    last_read_time: int | None


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row that cannot be sent: where it begins, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A file, read.

    Attributes:
        name: the file's name.
        rows: those that can be sent.
        invalid: those that cannot.
    """

    name: str
    rows: list[Row] = field(default_factory=list)
    invalid: list[InvalidRow] = field(default_factory=list)


def read_shipped(most: int | None = None) -> Sample:
    """Read the sample that ships with the package; ``most`` is where to stop, in valid rows."""
    return read_sample((resources.files("tim_async.cli") / NAME).read_bytes(), NAME, most)


def read_sample(content: bytes, name: str, most: int | None = None) -> Sample:
    """Read an export.

    Args:
        content: the file's bytes: UTF-8, with or without a byte-order mark.
        name: what to call it.
        most: stop after so many valid rows.

    Raises:
        ValueError: it is not UTF-8 or not CSV, or a column is missing.
    """
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    try:
        return _read(lines, Sample(name), most)
    except csv.Error as error:
        raise ValueError(f"{name}, line {lines.line_num}: {error}") from None


def _read(lines: Any, sample: Sample, most: int | None) -> Sample:
    header: list[str] = next(lines, [])
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise ValueError(f"{sample.name} has no column {', '.join(missing)}")
    seen: dict[tuple[str, str], int] = {}
    begins = lines.line_num + 1
    for fields in lines:
        # A record with a quoted line end in it takes several lines; people look for the first.
        line, begins = begins, lines.line_num + 1
        if len(sample.rows) == most:
            break
        if not fields:
            continue
        try:
            row = _row(line, header, fields)
            first = seen.setdefault((row.group_id, row.member_account), line)
            if first != line:
                # Sent side by side, either could be the last.
                raise ValueError(f"a second row for this member of this group; the first is line {first}")
        except ValueError as error:
            sample.invalid.append(InvalidRow(line, str(error)))
        else:
            sample.rows.append(row)
    return sample


def _row(line: int, header: list[str], fields: list[str]) -> Row:
    if len(fields) != len(header):
        raise ValueError(f"{len(fields)} columns where the header has {len(header)}")
    values = dict(zip(header, fields, strict=True))
    peer, time = values["Peer_Account"], values["LastReadTime"]
    return Row(
        line,
        group_id=_id(values, "GroupId"),
        group_type=_id(values, "GroupType"),
        msg_num=_whole(values, "MsgNum"),
        member_account=_id(values, "Member_Account"),
        display_name=values["DisplayName"],
        unread_msg_num=_whole(values, "UnreadMsgNum"),
        peer_account=peer or None,
        last_read_time=_seconds(values, "LastReadTime") if peer and time else None,
    )


def _id(values: dict[str, str], column: str) -> str:
    if not values[column].strip():
        raise ValueError(f"{column} is empty")
    return values[column]


def _whole(values: dict[str, str], column: str) -> int:
    text = values[column].strip()
    if not text:
        raise ValueError(f"{column} is empty")
    # int() would also take "1_000" and the digits of other scripts, which say that something else went wrong.
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{column} is not a whole number: {text!r}")
    if text.startswith("-"):
        raise ValueError(f"{column} is negative: {text}")
    return int(text)


def _seconds(values: dict[str, str], column: str) -> int:
    number = _whole(values, column)
    if len(str(number)) > _LONGEST_SECONDS:
        raise ValueError(f"{column} is not in seconds: {number}")
    return number
