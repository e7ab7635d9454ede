"""The dry run: the same result as that of a run, and no files left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tim_async.migrate import (
    UNREAD,
    Counts,
    FailureCount,
    FileSource,
    JournalError,
    Rejected,
    Row,
    SourceError,
    Status,
    survey,
)

from .storing import Rows, mixed, planned, rows

HEADER = "GroupId,Member_Account,UnreadMsgNum\n"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, which must be empty at the end, like the working directory."""
    folder, here = tmp_path / "temporary", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.chdir(here)
    yield folder
    assert [*folder.iterdir(), *here.iterdir()] == []


async def status_of(journal: Path, given: Iterator[Row | Rejected]) -> Status:
    async with planned(journal, given) as store:
        return await store.status()


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "rows.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_result_of_a_dry_run(tmp_path: Path, temporary: Path) -> None:
    """It includes the first rows to send, without superseded ones."""
    file = write(tmp_path, HEADER + "g,a,1\ng,NULL,2\ng,a,3\n,c,4\ng,d,-1\ng,e,many\ng,f,5\ng,h,6\n")
    source = FileSource(file, UNREAD)
    found = survey(source, 100.0)
    assert survey(source, 0.5).seconds == 8.0
    assert found.counts == Counts(pending=4, rejected=3, superseded=1)
    assert found.failures == [
        FailureCount(None, "UnreadMsgNum: is negative: -1", 2, 6, rejected=True),
        FailureCount(None, "GroupId: is empty", 1, 5, rejected=True),
    ]
    assert found.seconds == 0.04
    assert found.first == [Row(3, ("g", "NULL", 2)), Row(4, ("g", "a", 3)), Row(8, ("g", "f", 5))]
    assert [(problem.line, problem.reason) for problem in found.problems] == [
        (5, "GroupId: is empty"),
        (6, "UnreadMsgNum: is negative: -1"),
        (7, "UnreadMsgNum: is not a whole number: 'many'"),
    ]
    assert found.notes == source.notes
    assert "NULL" in str(found.notes.sentences())
    assert (found.status.kind, found.status.source, found.status.running) == ("unread", str(file), False)
    assert found.rejected is None
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["rows.csv"]


def test_the_rejected_rows_of_a_dry_run(tmp_path: Path, temporary: Path) -> None:
    """All of them, to be corrected before anything is sent."""
    file, to = write(tmp_path, HEADER + "g,a,1\ng,b\n"), tmp_path / "rejected.jsonl"
    found = survey(FileSource(file, UNREAD), rejected=to)
    assert found.rejected == to
    assert json.loads(to.read_text("utf-8")) == {
        **dict.fromkeys(("GroupId", "Member_Account", "UnreadMsgNum")),
        "Text": "g,b",
        "Line": 3,
        "Code": None,
        "Reason": "2 columns where the header has 3",
    }
    to.write_text(to.read_text("utf-8").replace("null", "7"), encoding="utf-8")
    assert survey(FileSource(file, UNREAD), rejected=to).rejected == to.with_name("rejected-2.jsonl")


def test_a_dry_run_counts_many_rows_as_a_run_does(tmp_path: Path, temporary: Path) -> None:
    """With the same counts as the journal of a run."""
    found = survey(Rows(lambda: mixed(25_000)))
    status = asyncio.run(status_of(tmp_path / "journal", mixed(25_000)))
    assert (found.counts, found.failures) == (status.counts, status.failures)
    assert found.seconds == found.counts.pending / 200
    assert len(found.problems) == 1000


async def test_a_dry_run_in_a_thread_of_an_async_program(temporary: Path) -> None:
    assert (await asyncio.to_thread(survey, Rows(lambda: rows(5)))).counts == Counts(pending=5)


def test_an_unreadable_source(tmp_path: Path, temporary: Path) -> None:
    """From its start, or after many rows."""
    for text in ("", "A,B\n1,2\n", HEADER):
        with pytest.raises(SourceError):
            survey(FileSource(write(tmp_path, text), UNREAD))

    def cut() -> Iterator[Row | Rejected]:
        yield from rows(15_000)
        raise SourceError("rows is a cut gzip file")

    with pytest.raises(SourceError, match="cut gzip"):
        survey(Rows(cut))
    with pytest.raises(SourceError, match="rows holds no rows"):
        survey(Rows(lambda: iter(())))


def test_a_dry_run_can_be_interrupted(tmp_path: Path, temporary: Path) -> None:
    """Also while it waits for a pipe that has become silent."""
    pipe = tmp_path / "fifo"
    rows = (HEADER + "g,a,1\n" * 40_000).encode()
    assert len(rows) > 3 * 65536, "more than a pipe holds, so that reading has begun when all is written"
    os.mkfifo(pipe)
    over = threading.Event()

    def write() -> None:
        with pipe.open("wb", 0) as stream:
            stream.write(rows)
            os.kill(os.getpid(), signal.SIGINT)
            over.wait()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            survey(FileSource(pipe, UNREAD))
    finally:
        over.set()
        writer.join()


@pytest.mark.parametrize("rate", [0, -1.0, float("inf"), float("nan")])
def test_an_invalid_rate(temporary: Path, rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        survey(Rows(lambda: rows(1)), rate)


def test_a_missing_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(JournalError, match=r"cannot create a temporary journal: No such file.*; set TMPDIR"):
        survey(Rows(lambda: rows(1)))
