"""The rehearsal: the same answer as a run's own reading, and nothing left of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tim_async.migrate import (
    READ,
    UNREAD,
    Counts,
    FailureCount,
    FileSource,
    JournalError,
    Kind,
    Rejected,
    Row,
    SourceError,
    survey,
)

from .storing import mixed, plan, rows

HEADER = "GroupId,Member_Account,UnreadMsgNum\n"


class Rows:
    """A source of one's own."""

    kind: Kind = UNREAD
    name = "rows"

    def __init__(self, make: Callable[[], Iterator[Row | Rejected]]) -> None:
        self.arguments: dict[str, object] = {}
        self.read = make

    def fingerprint(self) -> str:
        return "1"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; at the end nothing is left there, nor where the test itself is."""
    folder, here = tmp_path / "temporary", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.chdir(here)
    yield folder
    assert [*folder.iterdir(), *here.iterdir()] == []


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "rows.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_what_a_run_would_do(tmp_path: Path, temporary: Path) -> None:
    file = write(tmp_path, HEADER + "g,a,1\ng,b,2\ng,a,3\n,c,4\ng,d,-1\ng,e,many\n")
    with FileSource(file, UNREAD) as source:
        found = survey(source, 100.0)
        assert survey(source, 0.5).seconds == 4.0
    assert found.counts == Counts(pending=2, rejected=3, superseded=1)
    assert found.failures == [
        FailureCount(None, "UnreadMsgNum: is negative: -1", 2, 6, rejected=True),
        FailureCount(None, "GroupId: is empty", 1, 5, rejected=True),
    ]
    assert found.seconds == 0.02
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["rows.csv"]


def test_many_rows_as_a_run_counts_them(tmp_path: Path, temporary: Path) -> None:
    """Exactly what the journal of a run would say."""
    found = survey(Rows(lambda: mixed(25_000)))
    about = plan(tmp_path / "journal", mixed(25_000))
    from tim_async.migrate import read_status

    assert (found.counts, found.failures) == (read_status(about).counts, read_status(about).failures)
    assert found.seconds == found.counts.pending / 200


def test_the_other_kind(tmp_path: Path, temporary: Path) -> None:
    file = write(tmp_path, "Report_Account,Peer_Account,MsgReadTime\na,b,\na,c,1700000000\na,d,1700000000000\n")
    with FileSource(file, READ) as source:
        assert survey(source).counts == Counts(pending=2, rejected=1)


def test_rows_that_cannot_be_read(tmp_path: Path, temporary: Path) -> None:
    """Before the first of them, or at the last."""
    for text in ("", "A,B\n1,2\n"):
        with FileSource(write(tmp_path, text), UNREAD) as source, pytest.raises(SourceError):
            survey(source)

    def cut() -> Iterator[Row | Rejected]:
        yield from rows(15_000)
        raise SourceError("rows is a cut gzip file")

    with pytest.raises(SourceError, match="cut gzip"):
        survey(Rows(cut))


def test_interrupted(temporary: Path) -> None:
    def stop() -> Iterator[Row | Rejected]:
        yield from rows(15_000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        survey(Rows(stop))


@pytest.mark.parametrize("rate", [0, -1.0, float("inf"), float("nan")])
def test_a_rate_that_cannot_be(temporary: Path, rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        survey(Rows(lambda: rows(1)), rate)


def test_no_place_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(JournalError, match="no place for a temporary journal: No such file"):
        survey(Rows(lambda: rows(1)))
