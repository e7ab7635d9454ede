"""Files that are replaced atomically, and planted links."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tim_async.migrate import JournalError, SqliteStore, read_status
from tim_async.migrate._files import followed, replacing

from .storing import ABOUT, journal, rows


@pytest.mark.parametrize("planted", ["link", "link to nothing", "hard link", "file"])
def test_a_planted_temporary_file_is_removed(tmp_path: Path, planted: str) -> None:
    """The target of a planted link is unchanged."""
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


def test_a_link_that_is_planted_in_between_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the removal of the old temporary file, and before the creation of the new one."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    (tmp_path / "rejected.jsonl.part").symlink_to(victim)
    with pytest.raises(FileExistsError), replacing(tmp_path / "rejected.jsonl"):
        pass
    assert victim.read_text() == "precious"


def test_a_pipe_is_written_to_directly() -> None:
    """Such as ``/dev/stdout``, whose target has no path."""
    reader, writer = os.pipe()
    with os.fdopen(reader, encoding="utf-8") as read:
        with os.fdopen(writer, "w", encoding="utf-8"), replacing(Path(f"/dev/fd/{writer}")) as file:
            file.write("rows\n")
        assert read.read() == "rows\n"


async def test_new_files_are_private(tmp_path: Path) -> None:
    """A replaced one keeps its mode, so that it can stay shared."""
    before = os.umask(0)
    try:
        to = tmp_path / "rejected.jsonl"
        for mode in (0o600, 0o640):
            with replacing(to) as file:
                file.write("rows\n")
            assert stat.S_IMODE(to.stat().st_mode) == mode
            to.chmod(0o640)
        await journal(tmp_path / "rows.journal", rows(1))
        for name in ("rows.journal", "rows.journal.lock"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    finally:
        os.umask(before)


async def test_own_links_are_followed_and_those_of_others_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "rows.journal"
    own.symlink_to(tmp_path / "elsewhere")
    await journal(own, rows(3))
    assert own.is_symlink()
    assert read_status(own).counts.pending == 3
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
        store = SqliteStore(link)
        with pytest.raises(JournalError, match="link of another user"):
            await store.open(ABOUT, restart=True)
        await store.close()
    assert victim.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "elsewhere",
        "elsewhere.lock",
        "one",
        "rows.journal",
        "two",
        "victim",
    ]
    assert followed(victim) == victim
