from __future__ import annotations

import pytest

from tim_async.cli.faultspec import parse_fault
from tim_async.cli.ranges import MAX_MESSAGES, parse_seqs, parse_time


@pytest.mark.parametrize(
    ("texts", "seqs"),
    [
        (["7"], [7]),
        (["1-3"], [1, 2, 3]),
        (["5-5"], [5]),
        (["9", "1-3,7", "2"], [9, 1, 2, 3, 7]),
        (["1, 2 ,3"], [1, 2, 3]),
    ],
)
def test_seqs(texts: list[str], seqs: list[int]) -> None:
    assert parse_seqs(texts) == seqs


@pytest.mark.parametrize(
    "text", ["", ",", "1,,2", "-", "1-", "-1", "a", "1-2-3", "3-1", "1.5", "\uff11", f"1-{MAX_MESSAGES + 1}"]
)
def test_invalid_seqs(text: str) -> None:
    with pytest.raises(ValueError):
        parse_seqs([text])


def test_the_most_seqs() -> None:
    """A million in total, in any combination."""
    assert len(parse_seqs([f"1-{MAX_MESSAGES}"])) == MAX_MESSAGES
    with pytest.raises(ValueError, match="more than"):
        parse_seqs([f"1-{MAX_MESSAGES}", str(MAX_MESSAGES + 1)])


@pytest.mark.parametrize(
    ("text", "reason"), [("20250831", "it looks like 2025-08-31"), ("2025-08-31", "no time zone"), ("", "neither")]
)
def test_an_invalid_time_is_named_with_the_reason(text: str, reason: str) -> None:
    """The syntax is that of files: see ``tests/migrate/test_rows.py``."""
    with pytest.raises(ValueError, match=f"^{text!r} .*{reason}"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("10002", {"code": 10002}),
        ("10002=1%", {"code": 10002, "probability": 0.01}),
        ("http-502=0.5", {"status": 502, "probability": 0.5}),
        ("drop-after@set_unread_msg_num", {"drop": "after", "endpoint": "set_unread_msg_num"}),
        ("drop-before=2%@a", {"drop": "before", "probability": 0.02, "endpoint": "a"}),
        ("truncate", {"truncate": True}),
        ("delay-0.5", {"delay": 0.5}),
    ],
)
def test_faults(text: str, fault: dict[str, object]) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text", ["", "=1%", "1234567890", "502 error", "http-5", "drop", "10002=", "10002=1..2", "delay-.", "x@Y"]
)
def test_invalid_faults(text: str) -> None:
    with pytest.raises(ValueError):
        parse_fault(text)
