from __future__ import annotations

import datetime as dt
import hashlib
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tim_async import _arguments
from tim_async.migrate import KINDS, READ, UNREAD, Kind, Row
from tim_async.migrate._rows import LONGEST_ID, BadField, is_visible, read_count, read_id, read_time, shown

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),  # with lone surrogates
    st.binary(),
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
        max_leaves=5,
    ),
)
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
moments = st.builds(
    lambda seconds, micro, zone: dt.datetime.fromtimestamp(seconds, zone).replace(microsecond=micro),
    st.integers(1262304000, 1756602000),
    st.integers(0, 999_999),
    offsets,
)


@pytest.mark.parametrize(
    "value", ["a", "@TGS#1ABC", "an id", "a,b;c|d", '"', "管理员", "🦊", "👩‍👩‍👧", "é", "\ufeffa", "a\u00a0b"]
)
def test_ids_are_sent_unchanged(value: str) -> None:
    """The service decides what an id may contain."""
    assert read_id(value) == value


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (7, "7"), (-1, "-1"), (2**63, str(2**63)), (10**400, "1" + "0" * 400)]
)
def test_numbers_as_ids(value: int, text: str) -> None:
    assert read_id(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "must be text, not True"),
        (1.0, "must be text, not 1.0"),
        (None, "must be text"),
        (["a"], "must be text"),
        ({"$oid": "5f"}, "must be text"),
        ("a\nb", "control character"),
        ("a\x00", "control character"),
        ("\x7f", "control character"),
        ("a\n", "control character"),
        (" a", "white space"),
        ("a ", "white space"),
        ("a\u3000", "white space"),
        ("a\u2028", "white space"),
        (" ", "white space"),
        ("a\udcff", "not UTF-8"),
        ("\ud83e", "not UTF-8"),
        ("a" * (LONGEST_ID + 1), "longer than 1,000 characters"),
        (10**LONGEST_ID, "longer than 1,000 characters"),
    ],
)
def test_invalid_ids(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_id(value)


@given(st.text(st.characters(), min_size=1))
@example("a" * LONGEST_ID)
def test_an_id_is_sent_unchanged_or_refused(value: str) -> None:
    """The client accepts every id that is sent."""
    try:
        taken = read_id(value)
    except ValueError:
        return
    assert taken == value == value.strip()
    assert not any(ord(character) < 32 for character in value)
    assert _arguments.text("id", taken) == taken


@given(st.integers(0, 2**63 - 1))
@example(2**63 - 1)
def test_counts_as_numbers_and_text(number: int) -> None:
    assert read_count(number) == read_count(str(number)) == read_count(f" {number}\n") == number
    assert _arguments.number("count", read_count(number)) == number


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("007", 7),
        ("-0", 0),
        ("0" * 19 + "5", 5),
        (5.0, 5),
        ("5.0", 5),
        (" 5.00 ", 5),
        ("5.0000", 5),
        ("0.000", 0),
        ("1234.000", 1234),
    ],
)
def test_unusual_counts(value: str, number: int) -> None:
    assert read_count(value) == number


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, "is negative: -1"),
        ("-1", "is negative: -1"),
        (2**63, "is too large"),
        (str(2**63), "is too large"),
        (-(10**100), "is negative"),
        ("9" * 21, "not a whole number"),
        ("9" * 100_000, "not a whole number"),
        (5.5, r"not a whole number: 5\.5"),
        (float("nan"), "not a whole number: nan"),
        (float("inf"), "not a whole number: inf"),
        (1e300, "not a whole number"),
        ("5.5", "not a whole number"),
        ("5.", "not a whole number"),
        (".0", "not a whole number"),
        ("1e3", "not a whole number"),
        ("1_000", "not a whole number"),
        ("1,000", "not a whole number"),
        ("1.000", r"may be 1 or 1,000: '1\.000'; write it without a point"),
        (" 12.000\n", "may be 12 or 12,000"),
        ("-1.000", "may be -1 or -1,000"),
        ("1.000.000", "not a whole number"),
        ("0x10", "not a whole number"),
        ("+5", "not a whole number"),
        ("--5", "not a whole number"),
        ("-", "not a whole number"),
        ("5-", "not a whole number"),
        ("٣", "not a whole number"),
        ("\uff15", "not a whole number"),
        ("²", "not a whole number"),
        ("5 6", "not a whole number"),
        (" ", "not a whole number"),
        ("\udcff", "not a whole number"),
        (True, "not a whole number: True"),
        (None, "not a whole number"),
        ([5], "not a whole number"),
        (b"5", "not a whole number"),
    ],
)
def test_invalid_counts(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_count(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1262304000, 1262304000),
        (1756602000, 1756602000),
        (1756602000.0, 1756602000),
        ("1756602000.0", 1756602000),
        ("1756602000", 1756602000),
        (" 1756602000 ", 1756602000),
        ("2025-08-31T09:00:00+08:00", 1756602000),
        ("2025-08-31T01:00:00Z", 1756602000),
        ("2025-08-31 01:00Z", 1756602000),
        ("20250831T010000Z", 1756602000),
        (" 2025-08-31T01:00:00Z\n", 1756602000),
        ("2025-08-31T01:00:00.999999Z", 1756602000),
        ("2025-08-31T01:00:00.123456789Z", 1756602000),
        ("2025-08-31T01:00:00,5Z", 1756602000),
        ("2025-08-31 01:00:00+00", 1756602000),
        ("2025-08-31 09:00:00 +0800", 1756602000),
        ("2025-08-30T17:00-08:00", 1756602000),
    ],
)
def test_times_in_seconds_and_iso_8601(value: Any, seconds: int) -> None:
    assert read_time(value) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2025-08-31", "no time zone"),
        ("2025-08-31T09:00:00", "no time zone"),
        ("2025-08-31 09:00:00.5", "no time zone"),
        (1756602000000, "milliseconds"),
        ("1756602000000", "milliseconds"),
        (1756602000_000_000, "microseconds"),
        (1756602000_000_000_000, "nanoseconds"),
        ("20250831090000", "2025-08-31, written without separators"),
        (202508310900, "2025-08-31, written without separators"),
        (20250831, "2025-08-31, written without separators"),
        ("45900", "a spreadsheet's number for 2025-08-31"),
        (45900.0, "a spreadsheet's number for 2025-08-31"),
        ("9999-12-31T23:59:59-23:59", "more than a day ahead"),
        (99_999_999_999, "more than a day ahead"),
        (2**63, "more than a day ahead"),
        (10**400, "more than a day ahead"),
        (1262303999, "before 2010"),
        (1, "before 2010"),
        (0, "before 2010"),
        (-1, "before 2010"),
        ("0001-01-01T00:00:00Z", "before 2010"),
        ("0001-01-01T00:00:00+23:59", "before 2010"),
        ("2009-12-31T23:59:59Z", "before 2010"),
        ("yesterday", "neither"),
        ("1756602000.5", "neither"),
        ("1.756602e9", "neither"),
        ("+1756602000", "neither"),
        ("٣", "neither"),
        ("NULL", "neither"),
        (" ", "neither"),
        ("2025-13-01T00:00:00Z", "neither"),
        ("2025-08-31T09:00:00+25:00", "neither"),
        ("2025-08-31T09:00:00\udcff", "neither"),
        ("2025-08-31T09:00:00Z\x00", "neither"),
        ("1" * 100_000, "neither"),
        ("20250831010000Z", "neither"),
        ("2025083101000000Z", "neither"),
        ("2025-08-31x01:00Z", "neither"),
        ("2025-08-31T01:00:00.5junkZ", "neither"),
        ("2025-08-31T01:00:003Z", "neither"),
        ("2025-08-31T01:00:00+08,00", "neither"),
        ("2025-08-31T30:00Z", "neither"),
        ("2025-08-31T24:00:00Z", "neither"),
        ("2025-08-31T09:60:00Z", "neither"),
        ("2025-W35-7T01:00Z", "neither"),
        ("2025-08-31Z", "neither"),
        ("٢٠٢٥-08-31T01:00:00Z", "neither"),
        (1756602000.5, "not a whole number"),
        (True, "not a whole number"),
        ({"$date": "2025-08-31T01:00:00Z"}, "not a whole number"),
    ],
)
def test_invalid_times(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_time(value)


def test_the_latest_accepted_time() -> None:
    """A day ahead, for clocks that differ."""
    now = int(time.time())
    assert read_time(now + 86_000) == now + 86_000
    with pytest.raises(ValueError, match="more than a day ahead"):
        read_time(now + 87_000)


@given(moments)
def test_a_time_is_the_same_in_every_format(moment: dt.datetime) -> None:
    seconds = int(moment.timestamp())
    assert read_time(moment.isoformat()) == read_time(moment.isoformat(" ")) == seconds
    assert read_time(str(seconds)) == read_time(seconds) == seconds
    assert _arguments.seconds("time", read_time(seconds)) == str(seconds)


def outcome(kind: Kind, found: dict[str, Any]) -> tuple[Row | None, BadField | None]:
    try:
        return kind.row(3, found), None
    except BadField as error:
        return None, error


@given(st.dictionaries(st.sampled_from([column.name for kind in KINDS.values() for column in kind.columns]), anything))
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_any_row_is_valid_or_has_a_problem(kind: Kind, found: dict[str, Any]) -> None:
    """The problem's text is short, however long the value."""
    row, problem = outcome(kind, found)
    if problem is not None:
        assert problem.field in [column.name for column in kind.columns]
        assert 0 < len(problem.reason) < 600
        return
    assert row is not None
    assert row.line == 3
    assert len(row.values) == len(kind.columns)
    assert all(type(value) is str for value in row.values[:2])
    assert all(value is None or type(value) is int for value in row.values[2:])
    assert len(row.identity) == 16


@pytest.mark.parametrize("name", ["GroupId", "Member_Account", "UnreadMsgNum"])
@pytest.mark.parametrize(("value", "reason"), [(None, "is empty"), ("", "is empty"), (..., "is missing")])
def test_required_fields(name: str, value: Any, reason: str) -> None:
    found = {"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 0, name: value}
    if value is ...:
        del found[name]
    with pytest.raises(BadField) as caught:
        UNREAD.row(1, found)
    assert (caught.value.field, caught.value.reason, str(caught.value)) == (name, reason, f"{name}: {reason}")


@pytest.mark.parametrize("name", ["MsgReadTime", "C2CUnreadMsgNum"])
@pytest.mark.parametrize("value", [None, "", ...])
def test_optional_fields(name: str, value: Any) -> None:
    found = {"Report_Account": "a", "Peer_Account": "b", "MsgReadTime": 1756602000, "C2CUnreadMsgNum": 6, name: value}
    if value is ...:
        del found[name]
    expected = {"MsgReadTime": ("a", "b", None, 6), "C2CUnreadMsgNum": ("a", "b", 1756602000, None)}
    assert READ.row(1, found).values == expected[name]


@pytest.mark.parametrize(("value", "how"), [(None, "empty"), ("", "empty"), (..., "missing")])
def test_a_row_without_a_time_needs_until_now(value: Any, how: str) -> None:
    """It marks a conversation read up to now, which cannot be undone."""
    found = {"Report_Account": "a", "Peer_Account": "b", "MsgReadTime": value}
    if value is ...:
        del found["MsgReadTime"]
    with pytest.raises(BadField) as caught:
        READ.row(1, found, until_now=False)
    assert str(caught.value) == f"MsgReadTime: is {how}; --until-now marks such conversations read up to now"
    assert READ.row(1, found, until_now=True).values == ("a", "b", None, None)


def test_zero_is_a_valid_count_and_id() -> None:
    assert UNREAD.row(1, {"GroupId": 0, "Member_Account": 0, "UnreadMsgNum": 0}).values == ("0", "0", 0)


ids = st.text(min_size=1, max_size=5)


@given(ids, ids, ids, ids)
@example("1:2", "3", "1", "2:3")
@example("ab", "c", "a", "bc")
def test_an_identity_depends_on_both_ids_only(first: str, second: str, third: str, fourth: str) -> None:
    one, other = Row(1, (first, second, 5)), Row(2, (third, fourth, 6))
    assert (one.identity == other.identity) == ((first, second) == (third, fourth))


def test_an_identity_is_the_same_in_every_release() -> None:
    """Because journals store it."""
    digest = hashlib.blake2b(b"1:gm", digest_size=16).digest()
    assert Row(1, ("g", "m", 5)).identity == digest


@given(anything)
def test_a_long_value_is_shortened_in_messages(value: Any) -> None:
    text = shown(value)
    assert len(text) <= 41
    assert is_visible(text)
    assert text.encode()  # can be printed, whatever the value
