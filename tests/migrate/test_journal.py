"""The journal: kills and full disks lose nothing, and no other file is taken for one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async.migrate import Counts, JournalError, Rejected, Row, SqliteStore, read_status
from tim_async.migrate._journal_file import APPLICATION, VERSION, reading
from tim_async.migrate._store import Calls

from .storing import (
    ABOUT,
    KILLED,
    contents,
    journal,
    journal_files,
    messages,
    mixed,
    planned,
    process,
    ram_folder,
    result_of,
    rows,
    settle,
    states,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.journal"


async def refused(path: Path, says: str, *, restart: bool = False) -> None:
    """Check that neither a run nor `read_status` accepts the file as a journal."""
    store = SqliteStore(path)
    for use in (store.open(ABOUT, restart=restart), *([] if restart else [asyncio.to_thread(read_status, path)])):
        with pytest.raises(JournalError, match=says) as caught:
            await use
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    await store.close()


# Other files


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    "content",
    [b"\n", b"GroupId,Member_Account,UnreadMsgNum\ng,m,1\n" * 500, bytes(8192), b"SQLite format 3", b"\xff" * 99],
    ids=["a line", "rows", "zeros", "a few bytes", "garbage"],
)
async def test_a_file_that_is_not_a_database_is_refused(path: Path, content: bytes, restart: bool) -> None:
    """It is not written to, and no file is created next to it, not even a lock."""
    path.write_bytes(content)
    await refused(path, r"rows\.journal is not a migration's journal", restart=restart)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["rows.journal"]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("log", ["delete", "wal", "live"])
async def test_another_programs_database_is_refused(path: Path, log: str, restart: bool) -> None:
    """Neither it nor its log is changed, also while the program has it open."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {'wal' if log == 'live' else log}")
        db.execute("CREATE TABLE row (line)")
        db.execute("INSERT INTO row VALUES (1)")
        db.commit()
        if log != "live":
            db.close()
        before = contents(path)
        await refused(path, "is an SQLite database, but not a migration's journal", restart=restart)
        assert contents(path) == before
    assert not Path(f"{path}.lock").exists()


@pytest.mark.parametrize("version", [1, VERSION + 1])
async def test_a_journal_of_another_version_is_refused(path: Path, version: int) -> None:
    """The error has the remedies, and --restart works."""
    await journal(path, rows(3))
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"DROP TABLE row; DROP TABLE note; PRAGMA user_version = {version}")
    before = contents(path)
    await refused(path, rf"version {version}, and this release reads version {VERSION}; .* use --restart .* --journal")
    assert contents(path) == before
    store = SqliteStore(path)
    assert await store.open(ABOUT, restart=True) is None
    await store.close()


@pytest.mark.parametrize("name", ["nowhere/rows.journal", "pipe", "folder", "file/rows.journal", "x" * 300, "lock"])
async def test_paths_that_cannot_be_a_journal(tmp_path: Path, name: str) -> None:
    """The error is one line with the path and the reason; nothing blocks, and no file is created."""
    os.mkfifo(tmp_path / "pipe")
    for folder in ("folder", "lock.lock"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").touch()
    before = sorted(file.name for file in tmp_path.iterdir())
    path = tmp_path / name
    await refused(path, "journal")
    assert sorted(file.name for file in tmp_path.iterdir()) == before


async def test_an_empty_file_is_a_new_journal(path: Path) -> None:
    """`mktemp` and a run that was killed at once leave one."""
    path.touch()
    with pytest.raises(JournalError, match="is empty"):
        read_status(path)
    await journal(path, rows(3))
    assert read_status(path).counts == Counts(pending=3)


async def test_the_file_header_and_settings(path: Path) -> None:
    """Its header has the application id from the start, and its description is JSON.

    SQLite tells whether a connection syncs each exchange only by that connection, which is private.
    """
    async with planned(path, rows(1)) as store:
        assert path.read_bytes()[68:72] == APPLICATION.to_bytes(4, "big") == b"TIMJ"
        db = store._writer._db
        assert db is not None
        # Every exchange is synced to the disk, into a log, so that readers and the writer do not block each other.
        asked = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
        assert asked == [2, "wal"]
        about = {name: json.loads(value) for name, value in db.execute("SELECT name, value FROM about")}
    assert (about["kind"], about["planned"], about["arguments"]) == ("unread", True, dict(ABOUT.arguments))


@pytest.mark.parametrize("name", [":memory:", "file::memory:?cache=shared", "50% #1?.journal", "-", b"caf\xe9.journal"])
async def test_unusual_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | bytes) -> None:
    """Some have a special meaning for SQLite."""
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name))
    source = os.fsdecode(b"/data/caf\xe9.csv")
    async with planned(path, rows(5), dataclasses.replace(ABOUT, source=source)) as store:
        assert read_status(path).counts == await store.counts() == Counts(pending=5)
    status = read_status(path)
    assert (status.counts, status.source) == (Counts(pending=5), source)
    assert [os.fsencode(file.name) for file in tmp_path.iterdir() if file.suffix != ".lock"] == [os.fsencode(name)]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal with rows in each of its tables."""
    path = tmp_path_factory.mktemp("good") / "journal"

    async def main() -> None:
        async with planned(path, mixed(300)) as store:
            claims = (await store.exchange([], 50, Calls(sent=1))).claims
            lines = [claim.row.line for claim in claims]
            await settle(store, done=lines[:35], failed=lines[35:45])
            await store.note("note", "kept")

    asyncio.run(main())
    return path.read_bytes()


def damaged(good: bytes, dice: random.Random, how: str) -> bytes:
    data = bytearray(good)
    page = dice.randrange(len(data) // 4096) * 4096
    match how:
        case "bytes":
            for _ in range(dice.randint(1, 20)):
                data[dice.randrange(len(data))] = dice.randrange(256)
        case "words":  # in its description
            word = dice.choice([b"CREATE TABLE", b"arguments", b"base_url", b"planned", b"kind"])
            for _ in range(dice.randint(1, 5)):
                data[good.index(word) + dice.randrange(60)] = dice.randrange(256)
        case "page":
            data[page : page + 4096] = dice.randbytes(4096)
        case "zeros":
            data[page : page + 4096] = bytes(4096)
        case "cut":
            del data[dice.randrange(1, len(data)) :]
    return bytes(data)


async def use_all(path: Path) -> None:
    store = SqliteStore(path)
    try:
        await store.status()
        [problem async for problem in store.problems()]
        [row async for row in store.accepted(0, 1000)]
        await store.open(ABOUT)
        await store.mend([Row(2, ("g", "m", 1)), Row(90, ("g", "m", 1))])
        await store.exchange([], 5, Calls(sent=1))
    finally:
        await store.close("done")


@given(st.randoms(use_true_random=False), st.sampled_from(["bytes", "words", "page", "zeros", "cut"]))
def test_damage_is_a_journal_error(good: bytes, dice: random.Random, how: str) -> None:
    """Or is not detected; it never raises another exception, and the file is still there."""
    data = damaged(good, dice, how)
    with ram_folder() as folder:
        path = folder / "journal"
        path.write_bytes(data)
        message = str(path)
        try:
            asyncio.run(use_all(path))
        except JournalError as error:
            message = str(error)
        assert str(path) in message
        assert path.stat().st_size


@pytest.mark.parametrize("application", [b"TIMJ", bytes(4)])
async def test_a_damaged_table_that_is_no_text(path: Path, good: bytes, application: bytes) -> None:
    """SQLite's message quotes its bytes, which Python cannot decode; the application's number may be damaged, too."""
    damaged = good.replace(b"CREATE TABLE", b"CREATE \x80ABLE")
    path.write_bytes(damaged[:68] + application + damaged[72:])
    await refused(path, "is damaged")


@pytest.mark.parametrize("page", [0, 1, 2, 5])
async def test_a_damaged_journal_can_be_restarted(path: Path, good: bytes, page: int) -> None:
    """If its header is intact."""
    start = 4096 * page + (100 if page == 0 else 0)
    path.write_bytes(good[:start] + b"\xa5" * (4096 * (page + 1) - start) + good[4096 * (page + 1) :])
    store = SqliteStore(path)
    assert await store.open(ABOUT, restart=True) is None
    await store.close()
    assert journal_files(path) == []


# Removal


async def test_a_journal_that_was_never_planned_is_removed(tmp_path: Path) -> None:
    """With its lock; a link to it stays."""
    link = tmp_path / "link.journal"
    link.symlink_to(tmp_path / "elsewhere.journal")
    for path, left in ((tmp_path / "rows.journal", []), (link, ["link.journal"])):
        store = SqliteStore(path)
        await store.open(ABOUT)
        await store.plan(list(rows(30_000)))
        assert len(journal_files(path.resolve())) == 3
        await store.close()
        assert [file.name for file in tmp_path.iterdir() if file != link or left] == left


async def test_a_journal_that_cannot_be_removed_is_emptied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not locked, and the next run uses it as a new one."""
    store = SqliteStore(path)
    await store.open(ABOUT)
    await store.plan(list(rows(30_000)))

    def unlink(*_: object, **__: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink)
        await store.close()
    assert path.read_bytes() == b""
    await journal(path, rows(3))
    assert read_status(path).counts == Counts(pending=3)


async def test_a_log_without_its_journal_is_ignored(path: Path) -> None:
    """An interrupted removal leaves one; it does not become that of the next journal."""
    async with planned(path, rows(50)):
        left = contents(path)
    path.write_bytes(b"")
    for name in ("rows.journal-wal", "rows.journal-shm"):
        (path.parent / name).write_bytes(left[name])
    store = SqliteStore(path)
    assert (await store.open(ABOUT), await store.counts()) == (None, Counts())
    await store.close()


# Kills and power failures


@pytest.mark.processes
@pytest.mark.parametrize("count", [40, 400])
async def test_a_kill_during_planning(tmp_path: Path, count: int) -> None:
    """At any point of it: either all rows are planned, or they are planned again."""
    whole = tmp_path / "whole.journal"
    most = 10_000_000
    steps = most - result_of("die_while_planning", whole, count, most)
    expected = states(whole)
    assert steps > 1000
    known = []
    for number in range(1, 15):
        path = tmp_path / f"{number}.journal"
        with process("die_while_planning", path, count, steps * number // 14) as running:
            assert running.wait() == KILLED
        known.append(journal_files(path) != [] and path.stat().st_size > 0 and read_status(path).planned)
        await journal(path, mixed(count))
        assert states(path) == expected
        assert journal_files(path) == [path.name]
    assert not known[0]
    assert known == sorted(known)


@pytest.mark.processes
async def test_a_kill_during_exchanges(path: Path) -> None:
    """Each claim is there as claimed or as settled; no exchange is saved in part."""
    await journal(path, rows(4000))
    settled: list[int] = []
    for number in (1, 2, 30, 3, 40):
        claimed = []
        with process("exchange_repeatedly", path, 7) as running:
            for lines in messages(running, number):
                claimed += lines
            running.kill()
            for lines in messages(running):  # those printed before the kill
                claimed += lines
            assert running.wait() == KILLED
        found = states(path)
        settled = [line for line, state in found.items() if state in ("done", "failed")]
        sending = [line for line, state in found.items() if state == "sending"]
        assert set(claimed) <= {*settled, *sending}
        assert set(claimed[:-7]) <= {*settled}
        assert settled == list(range(2, len(settled) + 2))
        assert sending == list(range(len(settled) + 2, len(settled) + 9))
        failed = [line for line, state in found.items() if state == "failed"]
        assert failed == settled[6::7]
        with reading(path) as db:
            assert [line for (line,) in db.execute("SELECT line FROM problem")] == failed
    assert len(found) == 4000
    async with planned(path, ()) as store:
        claims = (await store.exchange([], 9, Calls())).claims
        assert [(claim.row.line, claim.again) for claim in claims] == [
            *((line, True) for line in sending),
            *((line, False) for line in range(sending[-1] + 1, sending[-1] + 3)),
        ]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A journal and its log after six exchanges of ten outcomes."""
    path = tmp_path_factory.mktemp("log") / "journal"

    async def main() -> tuple[bytes, bytes]:
        await journal(path, rows(1000))
        async with planned(path, ()) as store:
            for start in range(2, 62, 10):
                await store.exchange([], 10, Calls())
                await settle(store, done=range(start, start + 9), failed=[start + 9])
            found = contents(path)
        return found["journal"], found["journal-wal"]

    return asyncio.run(main())


@given(st.data())
def test_a_log_truncated_by_a_power_failure(log: tuple[bytes, bytes], data: st.DataObject) -> None:
    """At any byte, with any garbage after it: all earlier exchanges are there, each completely."""
    database, whole = log
    cut = data.draw(st.integers(0, len(whole)))
    torn = whole[:cut] + data.draw(st.sampled_from([b"", bytes(5000), b"\xa5" * 5000]))
    with ram_folder() as folder:
        path = folder / "journal"
        path.write_bytes(database)
        Path(f"{path}-wal").write_bytes(torn)
        found = states(path)
        settled = [line for line, state in found.items() if state in ("done", "failed")]
        assert settled == list(range(2, len(settled) + 2))
        assert len(settled) % 10 == 0
        assert len(settled) == 60 or cut < len(whole)
        assert [line for line in settled if found[line] == "failed"] == settled[9::10]
        asyncio.run(finish(path))
        assert read_status(path).counts == Counts(done=1000 - len(settled) // 10, failed=len(settled) // 10)


async def finish(path: Path) -> None:
    async with planned(path, ()) as store:
        claims = (await store.exchange([], 1000, Calls())).claims
        await settle(store, done=[claim.row.line for claim in claims])


def test_a_new_journal_truncated_by_a_power_failure(tmp_path: Path) -> None:
    """SQLite's rollback journal is there, and the file does not match it."""
    begun = tmp_path / "begun.journal"
    with closing(sqlite3.connect(begun, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE row (line INTEGER PRIMARY KEY, identity BLOB)")
        db.executemany("INSERT INTO row VALUES (?, randomblob(100))", [(line,) for line in range(1000)])
        left = contents(begun)
    database, notes = left["begun.journal"], left["begun.journal-journal"]
    for number, torn in enumerate((database, bytes(len(database)), b"", database[:5000])):
        path = tmp_path / f"{number}.journal"
        path.write_bytes(torn)
        Path(f"{path}-journal").write_bytes(notes)
        asyncio.run(journal(path, rows(3)))
        assert read_status(path).counts == Counts(pending=3)
        assert journal_files(path) == [path.name]


# Disk space and memory


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    """At any moment; saved outcomes stay, and with more room the run resumes."""
    count = 1500
    sizes = [0, 1, 1000, 4096, 20_000, 30_000, 50_000, *range(60_000, 420_000, 12_000), 10_000_000]
    found = result_of("fill_the_disk", tmp_path, count, *sizes)
    assert {each["stage"] for each in found} == {"begin", "plan", "planned", "exchange", "done"}
    for size, each in zip(sizes, found, strict=True):
        name = f"{size}.journal"
        assert each["files"] == [name]
        assert (each["total"], each["left"]) == (count, 0)
        if each["stage"] != "done":
            assert name in each["error"]
            assert "room" in each["error"] or "full" in each["error"]


def test_no_room_for_sorting(path: Path) -> None:
    """The folder for temporary files may be on another disk; with more room the sorting is repeated."""
    error, counts = result_of("sort_without_room", path)
    assert "rows.journal, or for sorting its rows" in error
    assert "SQLITE_TMPDIR names" in error
    assert counts == [1, 59_999]


@pytest.mark.processes
@pytest.mark.parametrize("members", [0, 1])
def test_planning_takes_bounded_memory(tmp_path: Path, members: int) -> None:
    """Four times as many rows need no more."""
    small, large = (result_of("memory", tmp_path / str(count), count, members) for count in (50_000, 200_000))
    assert large < small + 10_000


@pytest.mark.parametrize("reason", ["", "x" * 600, "用户不在群组中" * 60, "\udce9" * 600])
async def test_the_size_of_a_journal(path: Path, reason: str) -> None:
    """Less than 60 bytes per row, or 150 with a tenth rejected and a tenth failed for long reasons in any script."""
    count = 20_000
    given: list[Row | Rejected] = [
        Rejected(row, "UnreadMsgNum", reason)
        if reason and row % 10 == 3
        else Row(row, (f"@TGS#group{row // 100:05}", f"member{row:07}", row % 90))
        for row in range(2, count + 2)
    ]
    async with planned(path, given) as store:
        lines: list[int] = []
        first = True
        while lines or first:
            failed = [line for line in lines if reason and line % 10 == 4]
            await settle(store, done={*lines} - {*failed}, failed=failed, reason=reason)
            lines = [claim.row.line for claim in (await store.exchange([], 500, Calls())).claims]
            first = False
        assert len(contents(path)["rows.journal-wal"]) < 5_000_000  # for any number of rows
    assert path.stat().st_size < (150 if reason else 60) * count
    assert journal_files(path) == [path.name]


async def test_repeated_planning_needs_no_more_room(path: Path) -> None:
    """After any number of kills."""
    sizes = []
    for _ in range(5):
        with process("die_while_planning", path, 3000, 200_000) as running:
            assert running.wait() == KILLED
        sizes.append(path.stat().st_size)
    assert max(sizes) <= sizes[0] + 8192
