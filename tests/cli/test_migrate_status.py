"""``tim-async migrate status`` and ``verify``."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest

from tim_async.emulator import Emulator
from tim_async.errors import CODES

from .conftest import Run
from .migrating import GROUP, READ, UNREAD, events, one, table, write


@pytest.fixture
def counts(run: Run, reach: dict[str, str], tmp_path: Path) -> str:
    """A file of unread counts that was migrated, but for one row."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", "nowhere,bob,1")
    assert run("migrate", "unread", file, env=reach).exit_code == 3
    return file


@pytest.fixture
def reads(run: Run, reach: dict[str, str], tmp_path: Path) -> str:
    """A file of conversations that was migrated."""
    soon = int(time.time()) + 60
    file = write(tmp_path / "reads.csv", READ, f"alice,bob,{soon}", f"alice,carol,{soon}", f"bob,alice,{soon}")
    assert run("migrate", "read", file, env=reach).exit_code == 0
    return file


def test_status(run: Run, counts: str) -> None:
    """Without credentials; by the journal or its file, which may be gone."""
    by_file = run("migrate", "status", counts)
    assert by_file.exit_code == 0, by_file.stderr
    assert table(by_file.stdout) == {"total": 2, "accepted": 1, "failed": 1, "rejected": 0, "superseded": 0, "left": 0}
    first = by_file.stdout.splitlines()[0]
    assert first.startswith("migrate unread ")
    assert first.endswith(": finished")
    assert "app 1400000000" in first
    assert "10010" in by_file.stdout
    assert " done " in by_file.stdout
    Path(counts).unlink()
    for name in (counts, f"{counts}.journal"):
        assert run("migrate", "status", name).stdout == by_file.stdout


def test_status_as_json(run: Run, counts: str) -> None:
    document = json.loads(run("migrate", "status", counts, "--json").stdout)
    assert (document["kind"], document["running"], document["planned"]) == ("unread", False, True)
    assert (document["counts"]["taken"], document["counts"]["failed"]) == (1, 1)
    assert document["failures"][0]["code"] == 10010
    (session,) = document["runs"]
    assert (session["how"], session["done"], session["limit"]) == ("done", 1, 200.0)
    assert session["ended"] >= session["started"]


def test_status_writes_files(run: Run, counts: str, tmp_path: Path) -> None:
    """A report, and the failed and rejected rows, each in its own file."""
    report, rejected = tmp_path / "run.html", tmp_path / "failed.jsonl"
    assert run("migrate", "status", counts, "--report", str(report), "--rejected", str(rejected)).exit_code == 0
    assert "<html" in report.read_text(encoding="utf-8").lower()
    assert json.loads(rejected.read_text())["Line"] == 3
    rejected.write_text("edited")
    again = run("migrate", "status", counts, "--rejected", str(rejected))
    assert again.stderr == f"{rejected} was edited, so the rows were written to {tmp_path / 'failed-2.jsonl'}.\n"
    for option in ("--report", "--rejected"):
        unwritable = run("migrate", "status", counts, option, str(tmp_path / "nowhere" / "run.html"))
        assert (unwritable.exit_code, unwritable.stdout) == (1, "")
        assert "cannot write" in unwritable.stderr
        for place in (counts, f"{counts}.journal"):
            before = Path(place).read_bytes()
            for journal in (counts, f"{counts}.journal"):  # the journal, too, knows the file of its rows
                refused = run("migrate", "status", journal, option, place)
                assert (refused.exit_code, refused.stdout) == (2, "")
                assert "are the same file" in refused.stderr
            assert Path(place).read_bytes() == before


def test_the_status_of_a_stopped_run(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,", f"{GROUP},bob,5")
    assert run("migrate", "unread", file, "--max-errors", "0", env=reach).exit_code == 4
    assert "stopped; the same command resumes" in run("migrate", "status", file).stdout


def test_the_status_without_a_journal(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2 without a journal, 1 with an unreadable one; one line each."""
    monkeypatch.chdir(tmp_path)
    rows = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    (tmp_path / "bad.journal").write_bytes(b"no journal at all" * 100)
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("CREATE TABLE other (x)")
    database.close()
    for name, code, said in (
        (rows, 2, "is not a journal, and there is no"),
        (str(tmp_path / "nowhere.csv"), 2, "there is no journal"),
        ("-", 2, "there is no journal stdin.journal"),
        (str(tmp_path), 2, "is not a journal, and there is no"),
        (str(tmp_path / "bad.journal"), 1, "is not a migration's journal"),
        (str(tmp_path / "other.db"), 1, "not a migration's journal"),
    ):
        for command in ("status", "verify"):
            result = run("migrate", command, name)
            assert (result.exit_code, result.stdout) == (code, ""), (name, result.stderr)
            assert said in result.stderr
            assert result.stderr.count("\n") == 1


# verify


def test_unread_counts_cannot_be_read_back(run: Run, counts: str) -> None:
    """It reports that, without credentials, file or call."""
    Path(counts).unlink()
    result = run("migrate", "verify", counts)
    assert (result.exit_code, result.stdout) == (0, "0 rows read back, 0 differences\n")
    assert "the service has no call that returns a group member's count; 1 failed" in result.stderr
    document = one(run("migrate", "verify", counts, "--json").stdout, "verified")
    assert (document["checked"], document["unreadable"], document["unchecked"]) == (0, 1, 2)


def test_verify(run: Run, service: Emulator, reach: dict[str, str], reads: str, tmp_path: Path) -> None:
    """0 without differences, 3 with some, each with its line."""
    for name in (reads, f"{reads}.journal"):
        result = run("migrate", "verify", name, env=reach)
        assert (result.exit_code, result.stdout) == (0, "3 rows read back, 0 differences\n"), result.stderr
    service.state.add_messages("bob", "carol", 4)
    early = write(tmp_path / "early.csv", READ, "alice,bob,1700000000", "bob,carol,1700000000")
    assert run("migrate", "read", early, env=reach).exit_code == 0
    result = run("migrate", "verify", early, env=reach)
    assert result.exit_code == 3
    assert result.stdout == "line 3: bob from carol: 4 instead of 0\n2 rows read back, 1 difference\n"
    found = run("migrate", "verify", early, "--json", env=reach)
    assert (found.exit_code, found.stderr) == (3, "")
    difference = one(found.stdout, "difference")
    assert (difference["line"], difference["peer"], difference["found"]) == (3, "carol", 4)
    assert events(found.stdout)[-1]["event"] == "verified"
    assert one(found.stdout, "verified")["differences"] == 1
    service.fault(code=90012)
    result = run("migrate", "verify", early, env=reach)
    assert [line.rpartition("; ")[2].split(":")[0] for line in result.stdout.splitlines()[:2]] == ["error 90012"] * 2
    assert result.stderr.splitlines() == [f"90012: {CODES[90012].meaning} {CODES[90012].remedy}"]


def test_verify_reports_unchecked_rows(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """It counts the rows that were not sent, without the file of the rows."""
    rows = ("alice,bob,1700000000", "alice,bob,1700000001", "nobody,bob,1700000000", "alice,,1700000000")
    file = write(tmp_path / "reads.csv", READ, *rows)
    assert run("migrate", "read", file, env=reach).exit_code == 3
    Path(file).unlink()
    result = run("migrate", "verify", file, env=reach)
    assert result.stdout == "line 3: alice from bob: 3 instead of 0\n1 row read back, 1 difference\n"
    assert result.stderr == "Not checked: 1 failed; 1 rejected; 1 superseded.\n"


def test_verify_needs_credentials(run: Run, reach: dict[str, str], reads: str) -> None:
    assert run("migrate", "verify", reads).exit_code == 2
    refused = run("migrate", "verify", reads, env={**reach, "TIM_SECRET_KEY": "f" * 64})
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: get_c2c_unread_msg_num: ")


def test_verify_keeps_to_its_share(run: Run, reach: dict[str, str], reads: str) -> None:
    assert run("migrate", "verify", reads, "--rate", "10", "--share", "0.05", env=reach).exit_code == 2
    assert run("migrate", "verify", reads, "--share", "0.5", env=reach).exit_code == 0


# set


def test_set(run: Run, reach: dict[str, str], counts: str) -> None:
    """Invalid paces are refused; a later run has its own pace."""
    result = run("migrate", "set", counts, "--rate", "300", "--share", "0.5")
    assert (result.exit_code, result.stderr) == (0, "Set --rate 300 and --share 0.5; no run is active.\n")
    for options, says in (
        ((), "give --rate, --share or both"),
        (("--rate", "nan"), "--rate"),
        (("--rate", "0"), "--rate"),
        (("--share", "2"), "--share"),
    ):
        refused = run("migrate", "set", counts, *options)
        assert refused.exit_code == 2
        assert says in refused.stderr
    assert run("migrate", "set", f"{counts}.other", "--rate", "5").exit_code == 2
    end = one(run("migrate", "unread", counts, "--restart", "--json", env=reach).stdout, "finished")
    assert end["limit"] == 200.0
    dropped = run("migrate", "drop", counts)
    assert dropped.exit_code == 2
    assert "must begin with redis://" in dropped.stderr
