"""Journals that somebody has tampered with, and links that somebody has planted."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.conftest import Run, run
from tests.cli.migrating import READ as READ_HEADER
from tests.cli.migrating import env_of, write
from tim_async._plaintext import is_unsafe
from tim_async.cli.app import cli
from tim_async.emulator import Emulator, fill_example
from tim_async.migrate import JournalError, files, read_status, render
from tim_async.migrate._recorder import Series, Slot
from tim_async.migrate._files import replacing
from tim_async.migrate.journal import Changes, Journal

from .storing import ABOUT, plan, rows

__all__ = ["run"]

NASTY = "<script>\x1b]0;x\x07\x9b2J\u202e\r\n"
LONG = {"a long number": "1" + "0" * 5000, "a deep list": "[" * 5000, "a long text": "x" * 100_000}
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from([NASTY, "[]", "{}", '{"columns": 7}', "true", '"x"', "NaN", *LONG]),
)
PLACES = [
    ("problem", "code"),
    ("problem", "field"),
    ("problem", "reason"),
    ("row", "state"),
    ("row", "detail"),
    ("row", "identity"),
    ("session", "started"),
    ("session", "ended"),
    ("session", "how"),
    ("session", "series"),
    *((f"about WHERE name = '{name}'", "value") for name in ("kind", "source", "arguments", "sdk_app_id", "base_url")),
]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """A file, a copy of its journal with everything in it, and the environment of its service."""
    folder = tmp_path_factory.mktemp("hostile")
    with Emulator() as service:
        fill_example(service.state)
        env = env_of(service)
        file = write(folder / "reads.csv", READ_HEADER, "alice,bob,1756602000", "alice,,1", "alice,nobody,1756602000")
        CliRunner().invoke(cli, ["migrate", "read", file], env=env)
        journal = Path(f"{file}.journal")
        with closing(sqlite3.connect(journal)) as db:
            db.execute("INSERT OR REPLACE INTO problem VALUES (4, 10007, NULL, 'no')")
            db.execute("UPDATE row SET state = 4 WHERE line = 4")
            db.commit()
        yield file, journal.rename(folder / "copy"), env


def tampered(journal: Path, content: bytes, where: str, column: str, value: object) -> bool:
    """A journal with a value in one place; False if the table does not take it."""
    for beside in ("-wal", "-shm"):
        Path(f"{journal}{beside}").unlink(missing_ok=True)
    journal.write_bytes(content)
    with closing(sqlite3.connect(journal)) as db:
        table, _, condition = where.partition(" WHERE ")
        statement = f"UPDATE {table} SET {column} = ?" + (f" WHERE {condition}" if condition else "")
        with contextlib.suppress(sqlite3.IntegrityError):
            db.execute(statement, (LONG.get(str(value), value),))
            db.commit()
            return True
    return False


@settings(max_examples=60)
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_anything_anywhere(
    run: Run, migrated: tuple[str, Path, dict[str, str]], tmp_path: Path, place: tuple[str, str], value: object
) -> None:
    """Shown safely, or refused in one line; never a traceback, never anything that steers a terminal or a page."""
    file, copy, env = migrated
    journal = Path(f"{file}.journal")
    if not tampered(journal, copy.read_bytes(), *place, value):
        return
    report = tmp_path / "report.html"
    commands = [
        ["migrate", "status", file, "--report", str(report)],
        ["migrate", "status", file, "--json"],
        ["migrate", "verify", file],
        ["migrate", "read", file],
    ]
    for command in commands:
        result = run(*command, env=env)
        assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
        assert "please report it" not in result.output, command
        assert not [sign for sign in result.output if is_unsafe(sign) and sign != "\n"], command
    if report.exists():
        page = report.read_text(encoding="utf-8")
        assert "<script>" not in page
        assert not [sign for sign in page if is_unsafe(sign) and sign != "\n"]


def test_what_a_page_is_told_by_an_older_version(tmp_path: Path) -> None:
    """Texts were kept as they came, and are shown as they must be."""
    path = plan(tmp_path / "rows.journal", rows(3))
    with Journal(path, ABOUT) as journal:
        journal.begin_session(1000.0)
        journal.save(Changes(failed=[(2, 10007, NASTY)]))
        journal.save_session(Series(1000.0, slots=[Slot(1)]).to_json(), 1001.0, NASTY)
    page = render(read_status(path))
    assert "<script>" not in page
    assert "\\x1b]0;x\\x07\\x9b2J\\u202e\\r\\n" in page


@pytest.mark.parametrize("value", ["<b>1</b>", b"1", 1.5])
def test_a_code_that_is_no_number(tmp_path: Path, value: object) -> None:
    path = plan(tmp_path / "rows.journal", rows(3))
    with Journal(path, ABOUT) as journal:
        journal.save(Changes(failed=[(2, 10007, "no")]))
    assert tampered(path, path.read_bytes(), "problem", "code", value)
    with pytest.raises(JournalError, match="is damaged: a code is no number"):
        read_status(path)


# Links and modes


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("planted", ["link", "link to nothing", "hard link", "file"])
def test_what_is_planted_beside_is_not_written_to(tmp_path: Path, planted: str) -> None:
    """The name is taken away from it; whatever it led to stays as it was."""
    victim = tmp_path / "victim"
    if planted != "link to nothing":
        victim.write_text("precious")
    part = tmp_path / "rejected.jsonl.part"
    if planted.startswith("link"):
        part.symlink_to(victim)
    elif planted == "hard link":
        part.hardlink_to(victim)
    else:
        part.write_text("left by a run that was killed")
    with replacing(tmp_path / "rejected.jsonl") as file:
        assert not part.is_symlink()
        assert part.stat().st_nlink == 1
        file.write("rows\n")
    assert (tmp_path / "rejected.jsonl").read_text() == "rows\n"
    assert not part.exists()
    assert not victim.exists() if planted == "link to nothing" else victim.read_text() == "precious"


def test_what_is_planted_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the making, too."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    (tmp_path / "rejected.jsonl.part").symlink_to(victim)
    with pytest.raises(FileExistsError), replacing(tmp_path / "rejected.jsonl"):
        pass
    assert victim.read_text() == "precious"


def test_new_files_are_their_owners_alone(tmp_path: Path) -> None:
    """One that is replaced keeps its mode, so that it can be shared once and for all."""
    before = os.umask(0)
    try:
        to = tmp_path / "rejected.jsonl"
        for mode in (0o600, 0o640):
            with replacing(to) as file:
                file.write("rows\n")
            assert mode_of(to) == mode
            to.chmod(0o640)
        plan(tmp_path / "rows.journal", rows(1))
        assert mode_of(tmp_path / "rows.journal") == 0o600
    finally:
        os.umask(before)


def test_a_link_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is followed neither to a file that is there nor to one that is not."""
    lstat = Path.lstat

    def of_another(path: Path) -> os.stat_result:
        found = [*lstat(path)]
        found[stat.ST_UID] = 12345
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", of_another)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name, target in (("one", victim), ("two", tmp_path / "nothing")):
        link = tmp_path / name
        link.symlink_to(target)
        with pytest.raises(PermissionError, match="link of another user"), replacing(link):
            pass
        with pytest.raises(JournalError, match="link of another user"):
            Journal(link, ABOUT)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()
    assert files.followed(victim) == victim


def test_a_link_of_ones_own(tmp_path: Path) -> None:
    """A journal on another disk: it is begun, and removed, where the link leads."""
    link = tmp_path / "rows.journal"
    link.symlink_to(tmp_path / "elsewhere")
    plan(link, rows(3))
    assert link.is_symlink()
    assert read_status(link).counts.pending == 3
