"""``tim-async migrate unread`` and ``read``: what they do, what they leave behind, and how they end."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tim_async.emulator import Emulator
from tim_async.migrate import run as run_of_all
from tim_async.migrate.locking import FileLock

from .conftest import Run
from .migrating import GROUP, READ, UNREAD, arrived, crowd, env_of, events, names, one, status_of, table, write


def test_unread(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Every row arrives, the last one of a member counts, and beside the file there is a journal and nothing else."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", f"{GROUP},bob,5", f"{GROUP},alice,3")
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 0, result.stderr
    assert service.state.unread_in_group(GROUP, "alice") == 3
    assert service.state.unread_in_group(GROUP, "bob") == 5
    assert table(result.stdout) == {"all": 3, "taken": 2, "failed": 0, "rejected": 0, "superseded": 1, "left": 0}
    assert "for 2 calls" in result.stdout
    assert result.stderr == "started: 2 of 3 rows are to be sent; 1 superseded\n"
    assert not (tmp_path / "counts.csv.rejected.jsonl").exists()
    assert status_of(file).counts.taken == 2


def test_read(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "reads.csv", READ, "alice,bob,1700000000", "alice,carol,")
    result = run("migrate", "read", file, env=reach)
    assert result.exit_code == 0, result.stderr
    assert service.state.read_time("alice", "bob") == 1700000000
    assert (service.state.unread("alice", "bob"), service.state.unread("alice", "carol")) == (3, 0)
    assert "get_group_info" not in service.report().endpoints


def test_what_is_lowered_is_explained(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """The service says nothing of it, so the summary does; it is no failure."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,500", f"{GROUP},bob,121", f"{GROUP},carol,120")
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 0
    assert table(result.stdout)["lowered"] == 2
    assert "above the group's number of messages, to which the service lowers them" in result.stdout
    assert result.stderr.count("asks for more than its group's 120 messages") == 1


def test_what_does_not_arrive_is_valid_input(
    run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path
) -> None:
    """Exit code 3; the file of those rows needs no --map and no --id-format, and once mended they arrive."""
    file = tmp_path / "rooms.jsonl"
    rows = [
        {"room": {"id": "public"}, "who": "alice", "n": 4},
        {"room": {"id": "later"}, "who": "alice", "n": 5},
        {"room": {"id": "public"}, "who": "bob", "n": -1},
        {"room": {"id": "avchatroom"}, "who": "bob", "n": 1},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    maps = ("--map", "GroupId=room.id", "--map", "Member_Account=who", "--map", "UnreadMsgNum=n")
    result = run("migrate", "unread", str(file), *maps, "--id-format", "GroupId=@TGS#{}", env=reach)
    assert result.exit_code == 3
    assert table(result.stdout) == {"all": 4, "taken": 1, "failed": 2, "rejected": 1, "superseded": 0, "left": 0}
    assert "10010" in result.stdout
    assert "of type AVChatRoom" in result.stdout
    assert "UnreadMsgNum: is negative: -1" in result.stdout
    assert "line 2 failed: 10010" in result.stderr
    rejected = tmp_path / "rooms.jsonl.rejected.jsonl"
    assert f"fix them there and run: tim-async migrate unread {rejected}\n" in result.stderr
    left = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [row["Line"] for row in left] == [2, 3, 4]
    service.state.add_group("@TGS#later", messages=10, members=["alice"])
    mended = [{**row, "GroupId": row["GroupId"].replace("avchatroom", "work"), "UnreadMsgNum": 2} for row in left]
    rejected.write_text("".join(json.dumps(row) + "\n" for row in mended))
    again = run("migrate", "unread", str(rejected), env=reach)
    assert again.exit_code == 0, again.stdout
    assert service.state.unread_in_group("@TGS#later", "alice") == 2
    assert service.state.unread_in_group("@TGS#public", "bob") == 2
    assert service.state.unread_in_group("@TGS#work", "bob") == 2


def test_nothing_to_do(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Told at once and without a call; 3 again if rows had failed, whose file is not written over."""
    good = write(tmp_path / "good.csv", UNREAD, f"{GROUP},alice,7")
    assert run("migrate", "unread", good, env=reach).exit_code == 0
    bad = write(tmp_path / "bad.csv", UNREAD, f"{GROUP},alice,8", "nowhere,alice,1")
    assert run("migrate", "unread", bad, env=reach).exit_code == 3
    before = service.report().total.calls
    again = run("migrate", "unread", good, env=reach)
    assert again.exit_code == 0
    assert again.stderr == "Nothing to do: every row has come to its end already.\n"
    assert table(again.stdout)["taken"] == 1
    rejected = tmp_path / "bad.csv.rejected.jsonl"
    rejected.write_text("half mended")
    again = run("migrate", "unread", bad, env=reach)
    assert again.exit_code == 3
    assert rejected.read_text() == "half mended"
    rejected.unlink()
    again = run("migrate", "unread", bad, env=reach)
    assert again.exit_code == 3
    assert json.loads(rejected.read_text())["GroupId"] == "nowhere"
    assert service.report().total.calls == before


def test_only_the_first_failures_are_told(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "counts.csv", UNREAD, *(f"{GROUP},nobody{number},1" for number in range(12)))
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 3
    assert result.stderr.count(" failed: ") == 5
    assert result.stderr.count("more failures are only counted") == 1
    assert len((tmp_path / "counts.csv.rejected.jsonl").read_text().splitlines()) == 12


def test_json_lines(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """One object for each event, and nothing on standard error."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,500", "nowhere,bob,1", f"{GROUP},,1")
    result = run("migrate", "unread", file, "--json", "--share", "0.8", env=reach)
    assert (result.exit_code, result.stderr) == (3, "")
    told = [document["event"] for document in events(result.stdout)]
    assert (told[0], told[-1], len(told)) == ("started", "finished", 4)
    begun = one(result.stdout, "started")
    assert (begun["resumed"], begun["counts"]["total"], begun["counts"]["left"]) == (False, 3, 2)
    failed = one(result.stdout, "row_failed")
    assert (failed["line"], failed["values"], failed["code"]) == (3, ["nowhere", "bob", 1], 10010)
    assert one(result.stdout, "row_lowered")["messages"] == 120
    end = one(result.stdout, "finished")
    assert (end["ended"], end["exit_code"], end["limit"], end["done"]) == ("done", 3, 160.0, 1)
    counts = end["counts"]
    assert (counts["taken"], counts["lowered"], counts["failed"], counts["rejected"], counts["left"]) == (1, 1, 1, 1, 0)
    assert {(failure["code"], failure["rows"], failure["first_line"]) for failure in end["failures"]} == {
        (10010, 1, 3),
        (None, 1, 4),
    }
    assert end["rejected"] == f"{file}.rejected.jsonl"
    again = run("migrate", "unread", file, "--json", env=reach)
    assert (again.exit_code, again.stderr) == (3, "")
    assert one(again.stdout, "finished")["ended"] == "nothing to do"


def test_files_elsewhere(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """Journal, rejected rows and report go where they were told to, and nothing beside the file."""
    there = tmp_path / "there"
    there.mkdir()
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,5", "nowhere,alice,1")
    places = [str(there / name) for name in ("journal", "rejected.jsonl", "report.html")]
    options = [word for pair in zip(("--journal", "--rejected", "--report"), places, strict=True) for word in pair]
    result = run("migrate", "unread", file, *options, env=reach)
    assert result.exit_code == 3
    assert all(Path(place).is_file() for place in places)
    assert "<html" in Path(places[2]).read_text().lower()
    assert names(tmp_path) == ["counts.csv", "there"]
    assert places[1] in result.stderr


def test_formats(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """By name, by content, or as it is told; gzipped, too."""
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(f"{UNREAD}\n{GROUP},alice,1\n".encode()))
    (tmp_path / "b").write_text(f"{UNREAD}\n{GROUP},alice,2\n".replace(",", "\t"))
    (tmp_path / "c.txt").write_text(json.dumps({"GroupId": GROUP, "Member_Account": "alice", "UnreadMsgNum": 3}))
    for number, name in enumerate(("a.csv.gz", "b", "c.txt"), 1):
        assert run("migrate", "unread", str(tmp_path / name), env=reach).exit_code == 0
        assert service.state.unread_in_group(GROUP, "alice") == number
    assert run("migrate", "unread", str(tmp_path / "b"), "--format", "jsonl", "--dry-run").exit_code == 3


def test_standard_input(
    service: Emulator, reach: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal is in this folder, and the same rows piped in again are known."""
    from click.testing import CliRunner

    from tim_async.cli.app import cli

    monkeypatch.chdir(tmp_path)
    rows = f"{UNREAD}\n{GROUP},alice,9\n{GROUP},nobody,9\n"
    first = CliRunner().invoke(cli, ["migrate", "unread", "-"], input=rows, env=reach)
    assert first.exit_code == 3, first.stderr
    assert first.stderr.startswith("reading standard input to its end\n")
    assert service.state.unread_in_group(GROUP, "alice") == 9
    assert (tmp_path / "stdin.journal").is_file()
    assert (tmp_path / "stdin.rejected.jsonl").is_file()
    again = CliRunner().invoke(cli, ["migrate", "unread", "-"], input=rows, env=reach)
    assert again.exit_code == 3
    assert "Nothing to do" in again.stderr
    other = CliRunner().invoke(cli, ["migrate", "unread", "-"], input=rows.replace("9", "8"), env=reach)
    assert other.exit_code == 2
    assert "another file" in other.stderr


def test_no_group_check(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Rows of groups that ignore them count as taken then."""
    file = write(tmp_path / "counts.csv", UNREAD, "@TGS#avchatroom,alice,7")
    assert run("migrate", "unread", file, "--no-group-check", env=reach).exit_code == 0
    assert "get_group_info" not in service.report().endpoints


def test_the_pace(run: Run, tmp_path: Path) -> None:
    """No second holds more than the share of the rate."""
    with Emulator() as service:
        file = write(tmp_path / "counts.csv", UNREAD, *crowd(service, 12))
        result = run("migrate", "unread", file, "--rate", "10", "--share", "0.5", env=env_of(service))
        assert result.exit_code == 0, result.stderr
        assert service.report().endpoints["set_unread_msg_num"].fullest_sliding_second <= 6
        assert arrived(service, 12) == 11
    assert "of 5/s" in result.stdout


def test_what_bounds_a_run_reaches_it(
    run: Run, reach: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    def spy(*args: object, **options: object) -> object:
        given.update(options)
        return run_of_all(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("tim_async.cli.migrate.job.run", spy)
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    options = ("--concurrency", "7", "--max-errors", "3", "--max-outage", "2.5")
    assert run("migrate", "unread", file, *options, env=reach).exit_code == 0
    wanted: dict[str, object] = {"concurrency": 7, "max_errors": 3, "max_outage": 2.5, "group_check": True}
    assert {name: given[name] for name in wanted} == wanted
    assert run("migrate", "unread", file, "--no-group-check", env=reach).exit_code == 0
    wanted = {"concurrency": 100, "max_errors": None, "max_outage": None, "group_check": False}
    assert {name: given[name] for name in wanted} == wanted


def test_credentials_from_a_file(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("".join(f"{name}={value}\n" for name, value in reach.items()))
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    assert run("migrate", "unread", file, "--credentials", str(credentials)).exit_code == 0


# --dry-run


def test_a_dry_run(run: Run, tmp_path: Path) -> None:
    """Without credentials: counts, reasons, how long it would take; and nothing is left behind."""
    file = write(tmp_path / "counts.csv", UNREAD, *(f"g,m{number},1" for number in range(400)), "g,m1,2")
    result = run("migrate", "unread", file, "--dry-run", "--share", "0.5")
    assert result.exit_code == 0, result.stderr
    assert table(result.stdout) == {"all": 401, "taken": 0, "failed": 0, "rejected": 0, "superseded": 1, "left": 400}
    assert "about 0:00:04 at 100/s" in result.stdout
    assert result.stderr == "A dry run: nothing was sent, and nothing written.\n"
    assert names(tmp_path) == ["counts.csv"]


def test_a_dry_run_of_bad_rows(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "reads.csv", READ, "alice,,", "alice,bob,yesterday", "alice,carol,1")
    result = run("migrate", "read", file, "--dry-run")
    assert result.exit_code == 3
    assert "Peer_Account: is empty" in result.stdout
    assert "yesterday" in result.stdout
    found = run("migrate", "read", file, "--dry-run", "--json")
    assert (found.exit_code, found.stderr) == (3, "")
    document = one(found.stdout, "surveyed")
    assert (document["counts"]["rejected"], document["counts"]["left"], document["exit_code"]) == (2, 1, 3)
    assert [failure["first_line"] for failure in document["failures"]] == [2, 3]


# Failures


def test_a_wrong_key(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """It stops at once, no row is marked failed, and the right key goes on."""
    for check in ((), ("--no-group-check",)):
        file = write(tmp_path / f"counts{len(check)}.csv", UNREAD, f"{GROUP},alice,7", f"{GROUP},bob,")
        wrong = {**reach, "TIM_SECRET_KEY": "f" * 64}
        result = run("migrate", "unread", file, *check, env=wrong)
        assert result.exit_code == 1
        assert "No row was marked failed for that; once the credentials are right" in result.stderr
        assert "Error: " in result.stderr
        assert table(result.stdout) == {"all": 2, "taken": 0, "failed": 0, "rejected": 1, "superseded": 0, "left": 1}
        assert (tmp_path / f"counts{len(check)}.csv.rejected.jsonl").is_file()
        failed = one(run("migrate", "unread", file, *check, "--json", env=wrong).stdout, "finished")
        assert (failed["ended"], failed["exit_code"], failed["counts"]["left"]) == ("failed", 1, 1)
        assert failed["reason"]
        assert run("migrate", "unread", file, *check, env=reach).exit_code == 3
        assert service.state.unread_in_group(GROUP, "alice") == 7
        service.state.set_unread_in_group(GROUP, "alice", 0)


@pytest.mark.parametrize("code", [10007, 60009])
def test_groups_that_cannot_be_looked_up(
    run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path, code: int
) -> None:
    """It stops at once with a way out, and no row is marked failed."""
    service.fault(code=code, endpoint="get_group_info")
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 1
    assert "with --no-group-check as well, the same command goes on" in result.stderr
    assert table(result.stdout)["failed"] == 0
    assert run("migrate", "unread", file, "--no-group-check", env=reach).exit_code == 0


def test_a_journal_that_cannot_be_written(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    result = run("migrate", "unread", file, "--journal", str(tmp_path / "nowhere" / "j"), env=reach)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cannot write the journal" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_journal_in_use(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Two runs never share one; the second changes nothing and writes nothing."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", "nowhere,bob,1")
    assert run("migrate", "unread", file, env=reach).exit_code == 3
    (tmp_path / "counts.csv.rejected.jsonl").unlink()
    lock = FileLock(tmp_path / "counts.csv.journal")
    try:
        result = run("migrate", "unread", file, env=reach)
    finally:
        lock.release()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds the journal" in result.stderr
    assert not (tmp_path / "counts.csv.rejected.jsonl").exists()


@pytest.mark.parametrize("what", ["--rejected", "--report"])
def test_a_file_that_cannot_be_written(run: Run, reach: dict[str, str], tmp_path: Path, what: str) -> None:
    """It is said, and costs the exit code, and hides nothing of the summary."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", "nowhere,bob,1")
    place = str(tmp_path / "nowhere" / "file")
    result = run("migrate", "unread", file, what, place, env=reach)
    assert result.exit_code == 1
    assert f"Error: cannot write {place}: No such file or directory\n" in result.stderr
    assert table(result.stdout)["taken"] == 1
    again = run("migrate", "unread", file, what, place, "--json", env=reach)
    assert again.exit_code == 1
    document = one(again.stdout, "finished")
    assert (document["exit_code"], len(document["problems"])) == (1, 1)
    # The run's own end is the worse news.
    file = write(tmp_path / "others.csv", UNREAD, "nowhere,alice,7", "nowhere,bob,1")
    stopped = run("migrate", "unread", file, what, place, "--max-errors", "0", env=reach)
    assert stopped.exit_code == 4
    assert "cannot write" in stopped.stderr


# Limits


def test_max_errors(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Rejected rows count as well; a higher limit lets the same command go on."""
    rows = [f"{GROUP},alice,", f"{GROUP},bob,5", "nowhere,carol,1"]
    file = write(tmp_path / "counts.csv", UNREAD, *rows)
    result = run("migrate", "unread", file, "--max-errors", "0", env=reach)
    assert result.exit_code == 4
    assert "Stopped: 1 rows failed or were rejected" in result.stderr
    assert "the same command goes on where this stopped" in result.stderr
    assert table(result.stdout)["left"] == 2
    assert service.report().total.calls == 0
    assert (tmp_path / "counts.csv.rejected.jsonl").is_file()
    stopped = one(run("migrate", "unread", file, "--max-errors", "0", "--json", env=reach).stdout, "finished")
    assert (stopped["ended"], stopped["exit_code"]) == ("limit", 4)
    assert stopped["reason"]
    assert run("migrate", "unread", file, "--max-errors", "2", env=reach).exit_code == 3
    assert service.state.unread_in_group(GROUP, "bob") == 5


def test_max_outage(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """What is not sent for it is left, and nothing is marked failed."""
    service.fault(status=502)
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    result = run("migrate", "unread", file, "--max-outage", "0.1", "--no-group-check", env=reach)
    assert result.exit_code == 4
    assert "\nwaiting: " in result.stderr
    assert "Stopped: the service took nothing" in result.stderr
    assert table(result.stdout)["left"] == 1
    service.clear_faults()
    assert run("migrate", "unread", file, env=reach).exit_code == 0
    assert service.state.unread_in_group(GROUP, "alice") == 7


# Usage


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rate", "0.5"), "--rate"),
        (("--rate", "nan"), "--rate times --share"),
        (("--rate", "inf"), "--rate times --share"),
        (("--share", "0"), "--share"),
        (("--share", "1.5"), "--share"),
        (("--share", "nan"), "--rate times --share"),
        (("--rate", "2", "--share", "0.25"), "at least 1 call/s"),
        (("--concurrency", "0"), "--concurrency"),
        (("--max-errors", "-1"), "--max-errors"),
        (("--max-outage", "0"), "--max-outage"),
        (("--format", "xlsx"), "--format"),
        (("--map", "GroupId"), "--map takes FIELD=COLUMN, not 'GroupId'"),
        (("--map", "GroupId="), "--map takes FIELD=COLUMN"),
        (("--map", "GroupId=a", "--map", "GroupId=b"), "--map is given twice for GroupId"),
        (("--map", "Group=a"), "no field 'Group'"),
        (("--map", "GroupId=room"), "room"),
        (("--id-format", "GroupId"), "--id-format takes FIELD=TEMPLATE"),
        (("--id-format", "UnreadMsgNum={}"), "UnreadMsgNum"),
        (("--id-format", "GroupId=room"), "GroupId"),
    ],
)
def test_what_cannot_be_asked_for(
    run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    """Exit code 2, nothing on standard output, nothing sent, no journal."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    result = run("migrate", "unread", file, *options, env=reach)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert service.report().total.calls == 0
    assert not (tmp_path / "counts.csv.journal").exists()


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--journal", "counts.csv"),
        ("--rejected", "counts.csv"),
        ("--report", "counts.csv"),
        ("--report", "counts.csv.journal"),
        ("--rejected", "x/../counts.csv.journal"),
        ("--report", "counts.csv.rejected.jsonl"),
    ],
)
def test_no_file_is_written_over_another(
    run: Run, reach: dict[str, str], tmp_path: Path, option: str, name: str
) -> None:
    """Least of all over the rows."""
    (tmp_path / "x").mkdir()
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    before = Path(file).read_bytes()
    result = run("migrate", "unread", file, option, str(tmp_path / name), env=reach)
    assert result.exit_code == 2
    assert "are the same file" in result.stderr
    assert Path(file).read_bytes() == before


def test_another_name_of_the_rows(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """A hard link is the file itself, too."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    (tmp_path / "link.csv").hardlink_to(file)
    result = run("migrate", "unread", file, "--rejected", str(tmp_path / "link.csv"), env=reach)
    assert result.exit_code == 2
    assert "are the same file" in result.stderr


def test_a_file_that_holds_no_rows(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Exit code 2, one line; the same with --dry-run."""
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "binary.csv").write_bytes(b"a\x00b" * 100)
    (tmp_path / "header.csv").write_text("GroupId,Member_Account\n")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(f"{UNREAD}\n".encode() * 5000)[:-20])
    for name, said in {
        "none.csv": "No such file",
        "empty.csv": "is empty",
        "binary.csv": "binary",
        "header.csv": "UnreadMsgNum",
        "cut.csv.gz": "cut or damaged",
        ".": "folder",
    }.items():
        for options in ((), ("--dry-run",)):
            result = run("migrate", "unread", str(tmp_path / name), *options, env=reach)
            assert (result.exit_code, result.stdout) == (2, ""), name
            assert said in result.stderr
            assert result.stderr.count("\n") == 1
    assert service.report().total.calls == 0


def test_a_journal_of_something_else(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Another file, other arguments or another app: refused with the reason, and nothing written."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", "nowhere,bob,1")
    assert run("migrate", "unread", file, env=reach).exit_code == 3
    rejected = tmp_path / "counts.csv.rejected.jsonl"
    rejected.unlink()
    before = service.report().total.calls
    for options, env in (
        (("--id-format", "GroupId=x{}"), reach),
        ((), {**reach, "TIM_SDK_APP_ID": "1400000001"}),
        ((), {**reach, "TIM_BASE_URL": "http://localhost:9"}),
    ):
        result = run("migrate", "unread", file, *options, env=env)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "is the journal of" in result.stderr
    write(Path(file), UNREAD, f"{GROUP},alice,8")
    assert run("migrate", "unread", file, env=reach).exit_code == 2
    assert not rejected.exists()
    assert service.report().total.calls == before


def test_without_credentials(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    result = run("migrate", "unread", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "TIM_SDK_APP_ID" in result.stderr
    short = {"TIM_SDK_APP_ID": "1", "TIM_SECRET_KEY": "short", "TIM_REGION": "tokyo"}
    result = run("migrate", "unread", file, env=short)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "too short" in result.stderr
    assert names(tmp_path) == ["counts.csv"]


# Text of others


def test_text_of_a_file_steers_nothing(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """Neither the terminal nor rich; not by an id, not by a name."""
    file = write(tmp_path / "evil\x1b[2J [red].csv", UNREAD, f"{GROUP},[bold]who[/bold],1", f"{GROUP},bob,\x1b[31m")
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 3
    assert "\x1b" not in result.output
    assert "[bold]who[/bold]" in result.stderr
    assert "\\x1b[2J [red].csv" in result.stderr
    shown = run("migrate", "status", file)
    assert shown.exit_code == 0
    assert "\x1b" not in shown.output
