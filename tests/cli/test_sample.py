from __future__ import annotations

import csv
import io
import unicodedata
from importlib import resources

import pytest

from tim_async.cli.demo.sample import COLUMNS, NAME, InvalidRow, Sample, read_sample, read_shipped
from tim_async.cli.demo.world import Conversation, World, build

HEADER = ",".join(COLUMNS)
GOOD = "g,name,Work,100,alice,Alice,3,bob,1756602000"


@pytest.fixture(scope="module")
def content() -> bytes:
    return (resources.files("tim_async.cli") / NAME).read_bytes()


@pytest.fixture(scope="module")
def sample() -> Sample:
    return read_shipped()


@pytest.fixture(scope="module")
def world(sample: Sample) -> World:
    return build(sample)


def read(*records: str) -> Sample:
    return read_sample("\r\n".join([HEADER, *records, ""]).encode(), "some.csv")


def test_the_shipped_file_is_as_real_exports_are(content: bytes) -> None:
    """A byte-order mark, CRLF, quoted commas, quotes and line ends, and names of many scripts."""
    assert content.startswith(b"\xef\xbb\xbf")
    assert content.endswith(b"\r\n")
    text = content.decode("utf-8-sig")
    records = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    fields = [field for record in records for field in record]
    assert set(COLUMNS) < set(records[0])
    for character in (",", '"', "\n"):
        assert any(character in field for field in fields)
    # Every line end outside of quotes is CRLF.
    assert content.count(b"\r\n") >= len(records)
    scripts = {unicodedata.name(character, "").split(" ")[0] for field in fields for character in field}
    assert {"CJK", "HANGUL", "HIRAGANA", "KATAKANA", "LATIN"} <= scripts
    assert any(unicodedata.category(character) == "So" for field in fields for character in field)
    assert "\u200d" in text


def test_the_shipped_file_holds_enough(sample: Sample) -> None:
    assert len(sample.rows) >= 2000
    assert 6 <= len(sample.invalid) <= 12
    assert sum(row.peer_account is not None for row in sample.rows) >= 1900
    assert any(row.peer_account is not None and row.last_read_time is None for row in sample.rows)


def test_the_invalid_rows_are_on_the_lines_said(content: bytes, sample: Sample) -> None:
    """Lines are those of an editor, rows of several lines notwithstanding."""
    lines = content.decode("utf-8-sig").split("\n")
    for row in sample.rows:
        assert lines[row.line - 1].lstrip('"').startswith(row.group_id)
    for invalid in sample.invalid:
        if "'" in invalid.reason:
            assert invalid.reason.split("'")[1] in lines[invalid.line - 1]
    assert len({invalid.reason.split(":")[0] for invalid in sample.invalid}) >= 8


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("g,name,Work,100,alice", "5 columns where the header has 9"),
        (GOOD + ",more", "10 columns where the header has 9"),
        (GOOD.replace("g,", ",", 1), "GroupId is empty"),
        (GOOD.replace("alice", " "), "Member_Account is empty"),
        (GOOD.replace(",3,", ",,"), "UnreadMsgNum is empty"),
        (GOOD.replace(",3,", ",-3,"), "UnreadMsgNum is negative: -3"),
        (GOOD.replace(",3,", ",three,"), "UnreadMsgNum is not a whole number: 'three'"),
        (GOOD.replace(",3,", ",3.5,"), "UnreadMsgNum is not a whole number: '3.5'"),
        (GOOD.replace(",3,", ",1_0,"), "UnreadMsgNum is not a whole number: '1_0'"),
        (GOOD.replace(",3,", ",\uff13,"), "UnreadMsgNum is not a whole number: '\uff13'"),
        (GOOD.replace(",3,", ',"1,204",'), "UnreadMsgNum is not a whole number: '1,204'"),
        (GOOD.replace("100", "--1"), "MsgNum is not a whole number: '--1'"),
        (GOOD + "000", "LastReadTime is not in seconds: 1756602000000"),
        (GOOD.replace("1756602000", "today"), "LastReadTime is not a whole number: 'today'"),
    ],
)
def test_what_makes_a_row_invalid(record: str, reason: str) -> None:
    """Each kind has its reason, and the rows around it are read."""
    sample = read(GOOD, record, GOOD.replace("alice", "carol"))
    assert sample.invalid == [InvalidRow(3, reason)]
    assert [row.member_account for row in sample.rows] == ["alice", "carol"]


def test_a_second_row_for_a_member() -> None:
    sample = read(GOOD, GOOD.replace(",3,", ",4,"))
    assert sample.invalid == [InvalidRow(3, "a second row for this member of this group; the first is line 2")]


def test_line_numbers_after_rows_of_several_lines() -> None:
    sample = read(GOOD.replace("Alice", '"Al\nice\r\n"'), "", "x", GOOD.replace("alice", "bob"))
    assert [row.line for row in sample.rows] == [2, 7]
    assert sample.rows[0].display_name == "Al\nice\r\n"
    assert [row.line for row in sample.invalid] == [6]


def test_a_row_without_a_conversation() -> None:
    """Without a peer there is none, whatever else the row says; without a time all of it was read."""
    (alone, whole) = read(GOOD.replace(",bob,", ",,"), GOOD.replace("alice", "carol").replace("1756602000", "")).rows
    assert (alone.peer_account, alone.last_read_time) == (None, None)
    assert (whole.peer_account, whole.last_read_time) == ("bob", None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no column GroupId"),
        (HEADER.replace("UnreadMsgNum", "Unread").encode(), "no column UnreadMsgNum"),
        (f'{HEADER}\r\n"g'.encode(), "some.csv, line 2"),
        (HEADER.encode() + b"\r\n\xff", "utf-8"),
    ],
)
def test_files_that_are_none(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_sample(content, "some.csv")


def test_reading_some() -> None:
    assert len(read_shipped(50).rows) == 50


def test_the_world_is_the_same_each_time(sample: Sample, world: World) -> None:
    assert build(sample).as_plain() == world.as_plain()


def test_every_row_changes_something(world: World) -> None:
    """So that a row which was not carried out always shows, but where the service ignores it."""
    for row in world.rows:
        before = world.groups[row.group_id].unread[row.member_account]
        assert (world.unread_expected(row) == before) == world.ignored(row)
    for known in world.conversations.values():
        assert sum(count for _, count in known.sent) > known.left


def test_no_row_stands_in_anothers_way(world: World) -> None:
    """Conversations are marked once each, and those that are counted are others."""
    assert len(world.conversations) == len(world.marks)
    for account, inbox in world.inboxes.items():
        assert account not in inbox
        assert not any((account, peer) in world.conversations for peer in inbox)


def test_all_four_endpoints_have_as_much_to_do(world: World) -> None:
    rows = len(world.rows)
    counts = sum(-(-len(inbox) // 10) for inbox in world.inboxes.values())
    receipts = sum(-(-len(by_seq) // 50) for by_seq in world.receipts.values())
    assert len(world.inboxes) >= 300
    assert all(0.9 * rows <= calls <= 1.1 * rows for calls in (len(world.marks), counts, receipts))


def test_what_the_service_documents_occurs(world: World) -> None:
    """Counts above a group's messages, and a group that keeps none."""
    assert any(map(world.lowered, world.rows))
    assert {world.groups[row.group_id].type for row in world.rows if world.ignored(row)} == {"ChatRoom"}


def test_a_conversation_read_until_a_time() -> None:
    """What was sent after it stays unread; without a time nothing does."""
    world = build(read(GOOD, GOOD.replace("alice", "carol").replace("1756602000", "")))
    alice, carol = world.conversations["alice", "bob"], world.conversations["carol", "bob"]
    assert [at < 1756602000 for at, _ in alice.sent] == [True, False]
    assert alice.left == alice.sent[1][1]
    assert isinstance(carol, Conversation)
    assert carol.left == 0
