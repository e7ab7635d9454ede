"""``tim-async migrate unread`` and ``read``: their effects, their files and their exit codes."""

from __future__ import annotations

import gzip
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from filelock import FileLock

from tim_async.cli.app import cli
from tim_async.emulator import Emulator
from tim_async.errors import CODES
from tim_async.migrate import MigrateOptions
from tim_async.migrate._engine import drive

from .conftest import Run
from .migrating import GROUP, READ, UNREAD, arrived, crowd, env_of, events, names, one, status_of, table, write


def test_unread(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """All rows are sent, only the last one of a member, and a journal is the only file beside the rows."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", f"{GROUP},bob,5", f"{GROUP},alice,3")
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 0, result.stderr
    assert service.state.unread_in_group(GROUP, "alice") == 3
    assert service.state.unread_in_group(GROUP, "bob") == 5
    assert table(result.stdout) == {"total": 3, "accepted": 2, "failed": 0, "rejected": 0, "superseded": 1, "left": 0}
    assert "2 calls in 0:00:0" in result.stdout
    assert result.stderr == "started: 2 of 3 rows to send; 1 superseded\n"
    assert names(tmp_path) == ["counts.csv", "counts.csv.journal", "counts.csv.journal.lock"]
    assert status_of(file).counts.taken == 2


def test_read(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """It notes once, before the first row, that the service calls a webhook for each row."""
    file = write(tmp_path / "reads.csv", READ, "alice,bob,1700000000", "alice,carol,")
    result = run("migrate", "read", file, "--until-now", env=reach)
    assert result.exit_code == 0, result.stderr
    assert service.state.read_time("alice", "bob") == 1700000000
    assert (service.state.read_time("alice", "carol") or 0) > 1700000000
    assert "get_group_info" not in service.report().endpoints
    first, second = result.stderr.splitlines()
    assert "the app's webhook C2C.CallbackAfterMsgReport" in first
    assert second.startswith("started: ")
    assert "1 row has no time" in result.stdout


@pytest.mark.parametrize(
    ("header", "row", "says"),
    [
        ("Report_Account,Peer_Account,LastReadTime", "alice,bob,1700000000", "--map MsgReadTime=LastReadTime"),
        ("Report_Account,Peer_Account", "alice,bob", "--until-now"),
    ],
)
def test_a_time_is_never_guessed(
    run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path, header: str, row: str, says: str
) -> None:
    """Without the column nothing is sent; a row without its time is rejected; --until-now is the consent."""
    file = write(tmp_path / "reads.csv", header, row)
    for options in ((), ("--dry-run",)):
        result = run("migrate", "read", file, *options, env=reach)
        assert (result.exit_code, result.stdout) == (2, "")
        assert says in result.stderr
    assert service.report().total.calls == 0
    empty = write(tmp_path / "empty.csv", READ, "alice,bob,", "alice,carol,1700000000")
    assert table(run("migrate", "read", empty, env=reach).stdout)["rejected"] == 1
    assert service.state.read_time("alice", "bob") is None


def test_lowered_rows_are_explained(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """The service lowers counts silently, so the summary reports it; it is no failure."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,500", f"{GROUP},bob,121", f"{GROUP},carol,120")
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 0
    assert table(result.stdout)["lowered"] == 2
    assert "above the group's number of messages, to which the service lowers them" in result.stdout
    assert result.stderr.count("the count is above its group's 120 messages") == 1


# Failed and rejected rows


def command_in(stderr: str) -> list[str]:
    """Return the arguments of the command that is printed for failed and rejected rows."""
    (line,) = [line for line in stderr.splitlines() if "correct them there and run: " in line]
    words = shlex.split(line.split(" and run: ")[1])
    assert words[:2] == ["tim-async", "migrate"]
    return words[1:]


def test_failed_and_rejected_rows_are_mended(
    run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path
) -> None:
    """Exit code 3; after the file with them was edited, the printed command sends them in their places."""
    file = tmp_path / "rooms.jsonl"
    rows = [
        {"room": {"id": "later"}, "who": "alice", "n": 5},
        {"room": {"id": "public"}, "who": "bob", "n": -1},
        {"room": {"id": "avchatroom"}, "who": "bob", "n": 1},
        {"room": {"id": "public"}, "who": "alice", "n": "1,204"},
        {"room": {"id": "public"}, "who": "alice", "n": 3},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    maps = ("--map", "GroupId=room.id", "--map", "Member_Account=who", "--map=UnreadMsgNum=n")
    result = run("migrate", "unread", str(file), *maps, "--id-format", "GroupId=@TGS#{}", "--limit", "9", env=reach)
    assert result.exit_code == 3
    assert table(result.stdout) == {"total": 5, "accepted": 1, "failed": 2, "rejected": 2, "superseded": 0, "left": 0}
    assert "of type AVChatRoom" in result.stdout
    assert "UnreadMsgNum: is negative: -1" in result.stdout
    assert "line 1 failed: 10010" in result.stderr
    rejected = tmp_path / "rooms.jsonl.rejected.jsonl"
    left = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [row["Line"] for row in left] == [1, 2, 3, 4]
    service.state.add_group("@TGS#later", messages=10, members=["alice"])
    mended = [{**row, "GroupId": row["GroupId"].replace("avchatroom", "work"), "UnreadMsgNum": 2} for row in left]
    rejected.write_text("".join(json.dumps(row) + "\n" for row in mended))
    again = command_in(result.stderr)
    assert (again[-2:], "--limit" in again) == (["--mended", str(rejected)], False)
    result = run(*again, env=reach)
    assert result.exit_code == 0, result.stderr
    assert "mended: 3 rows to send; 1 superseded by later rows" in result.stderr
    assert service.state.unread_in_group("@TGS#later", "alice") == 2
    assert service.state.unread_in_group("@TGS#public", "bob") == 2
    assert service.state.unread_in_group("@TGS#work", "bob") == 2
    assert service.state.unread_in_group("@TGS#public", "alice") == 3, "her last row, and not the mended one before it"


def test_an_edited_file_of_rows_is_never_overwritten(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """The rows go to another file, which is printed; a file that was not edited is replaced."""
    file = write(tmp_path / "bad.csv", UNREAD, f"{GROUP},alice,8", "nowhere,alice,1")
    assert run("migrate", "unread", file, env=reach).exit_code == 3
    rejected = tmp_path / "bad.csv.rejected.jsonl"
    rejected.write_text("half mended")
    again = run("migrate", "unread", file, env=reach)
    assert again.exit_code == 3
    assert rejected.read_text() == "half mended"
    other = tmp_path / "bad.csv.rejected-2.jsonl"
    assert json.loads(other.read_text())["GroupId"] == "nowhere"
    assert command_in(again.stderr)[-1] == str(other)
    other.unlink()
    rejected.unlink()
    assert run("migrate", "unread", file, env=reach).exit_code == 3
    assert json.loads(rejected.read_text())["GroupId"] == "nowhere"


def test_names_that_look_like_options(run: Run, reach: dict[str, str], tmp_path: Path, monkeypatch: Any) -> None:
    """The printed command is the same one, with "--", quoted for a shell."""
    monkeypatch.chdir(tmp_path)
    write(Path("-my rows.csv"), UNREAD, "nowhere,alice,1")
    result = run("migrate", "unread", "--rejected=-no good.jsonl", "--", "-my rows.csv", env=reach)
    assert result.exit_code == 3, result.stderr
    again = command_in(result.stderr)
    assert again[2:] == ["--rejected=-no good.jsonl", "--mended=-no good.jsonl", "--", "-my rows.csv"]
    assert run(*again, env=reach).exit_code == 3


def test_only_the_first_failures_are_printed(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "counts.csv", UNREAD, *(f"{GROUP},nobody{number},1" for number in range(12)))
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 3
    assert result.stderr.count(" failed: ") == 5
    assert result.stderr.count("further failures are only counted") == 1
    assert len((tmp_path / "counts.csv.rejected.jsonl").read_text().splitlines()) == 12


# Rerun, restart and canary


def test_nothing_to_do(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Reported at once and without a call."""
    good = write(tmp_path / "good.csv", UNREAD, f"{GROUP},alice,7")
    assert run("migrate", "unread", good, env=reach).exit_code == 0
    before = service.report().total.calls
    again = run("migrate", "unread", good, env=reach)
    assert again.exit_code == 0
    assert again.stderr == "Nothing to do: all rows are already processed.\n"
    assert table(again.stdout)["accepted"] == 1
    assert service.report().total.calls == before


def test_restart(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """It prints the discarded rows, and sends all again; if the file is not readable, it discards nothing."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", f"{GROUP},bob,5", f"{GROUP},carol,x")
    assert "discards" not in run("migrate", "unread", file, "--restart", env=reach).stderr
    service.state.set_unread_in_group(GROUP, "alice", 0)
    write(Path(file), UNREAD, f"{GROUP},alice,8")
    refused = run("migrate", "unread", file, env=reach)
    assert refused.exit_code == 2
    assert "--restart" in refused.stderr
    result = run("migrate", "unread", file, "--restart", env=reach)
    assert (result.exit_code, table(result.stdout)["accepted"]) == (0, 1)
    assert result.stderr.startswith("--restart discards 3 rows, 2 of them accepted.\n")
    assert service.state.unread_in_group(GROUP, "alice") == 8
    Path(file).unlink()
    assert run("migrate", "unread", file, "--restart", env=reach).exit_code == 2
    assert status_of(file).counts.taken == 1


def test_limit_sends_the_first_rows(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """--limit sends the first rows, which is no failure, and prints the command for the rest."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", f"{GROUP},bob,5", f"{GROUP},carol,3")
    result = run("migrate", "unread", file, "--limit", "2", "--share", "0.9", env=reach)
    assert (result.exit_code, table(result.stdout)["left"]) == (0, 1)
    rest = f"tim-async migrate unread {file} --share 0.9"
    assert result.stderr.endswith(f"Stopped by --limit after 2 rows; to send the rest, run: {rest}\n")
    assert service.state.unread_in_group(GROUP, "carol") != 3
    end = one(run("migrate", "unread", file, "--limit", "1", "--json", env=reach).stdout, "finished")
    assert (end["ended"], end["counts"]["left"]) == ("done", 0)
    assert service.state.unread_in_group(GROUP, "carol") == 3


def test_json_lines(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """One object for each event, and nothing on standard error."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,500", "nowhere,bob,1", f"{GROUP},,1", "g,NULL,1")
    result = run("migrate", "unread", file, "--json", "--share", "0.8", env=reach)
    assert (result.exit_code, result.stderr) == (3, "")
    told = [document["event"] for document in events(result.stdout)]
    assert (told[0], told[-1], len(told)) == ("started", "finished", 5)
    begun = one(result.stdout, "started")
    assert (begun["resumed"], begun["counts"]["total"], begun["counts"]["left"]) == (False, 4, 3)
    failed = next(document for document in events(result.stdout) if document["event"] == "row_failed")
    assert (failed["line"], failed["values"], failed["code"]) == (3, ["nowhere", "bob", 1], 10010)
    assert one(result.stdout, "row_lowered")["messages"] == 120
    end = one(result.stdout, "finished")
    assert (end["ended"], end["exit_code"], end["limit"], end["done"]) == ("done", 3, 160.0, 1)
    counts = end["counts"]
    assert (counts["taken"], counts["lowered"], counts["failed"], counts["rejected"], counts["left"]) == (1, 1, 2, 1, 0)
    assert {(failure["code"], failure["rows"], failure["first_line"]) for failure in end["failures"]} == {
        (10010, 2, 3),
        (None, 1, 4),
    }
    gone = CODES[10010]
    explained = {(failure["code"], failure["meaning"], failure["remedy"]) for failure in end["failures"]}
    assert explained == {(10010, gone.meaning, gone.remedy), (None, "", "")}
    assert end["rejected"] == f"{file}.rejected.jsonl"
    assert gone.meaning not in Path(end["rejected"]).read_text()
    assert [suspicion["value"] for suspicion in end["notes"]["suspicions"]] == ["'NULL'"]
    again = run("migrate", "unread", file, "--mended", end["rejected"], "--json", env=reach)
    assert (again.exit_code, again.stderr) == (3, "")
    mended = one(again.stdout, "mended")
    assert (mended["taken"], mended["rejected"]) == (2, 1)


def test_the_summary_explains_each_code_once(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """Whatever the number of failed rows, also in the report; the lines of the rows stay short."""
    file = write(tmp_path / "counts.csv", UNREAD, *(f"@TGS#none{number},alice,1" for number in range(3)), f"{GROUP},,1")
    report = tmp_path / "report.html"
    result = run("migrate", "unread", file, "--no-group-check", "--report", str(report), env=reach)
    words = f"10010: {CODES[10010].meaning} {CODES[10010].remedy}"
    assert result.exit_code == 3
    assert result.stdout.splitlines().count(words) == 1
    assert result.stderr.count("failed: ") == 3
    assert CODES[10010].meaning not in result.stderr
    assert report.read_text().count(f"<li>{words}</li>") == 1
    assert run("migrate", "status", file).stdout.splitlines().count(words) == 1


# Input and output files


def test_files_elsewhere(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """Journal, rejected rows and report are written to the given paths, and nothing beside the file."""
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
    """The format is detected by name or content, or given; compressed, too."""
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(f"{UNREAD}\n{GROUP},alice,1\n".encode()))
    (tmp_path / "b").write_text(f"{UNREAD}\n{GROUP},alice,2\n".replace(",", "\t"))
    (tmp_path / "c.txt").write_text(json.dumps({"GroupId": GROUP, "Member_Account": "alice", "UnreadMsgNum": 3}))
    (tmp_path / "d.csv").write_bytes(f"'{GROUP}'~alice~'4'\n'Zürich'~-~1\n".encode("latin-1"))
    options = ["--delimiter", "~", "--quote", "'", "--encoding", "latin-1", "--null", "-"]
    options += ["--no-header", "--columns", UNREAD]
    for number, (name, how) in enumerate((("a.csv.gz", []), ("b", []), ("c.txt", []), ("d.csv", options)), 1):
        result = run("migrate", "unread", str(tmp_path / name), *how, env=reach)
        assert result.exit_code == (3 if how else 0), result.stderr
        assert service.state.unread_in_group(GROUP, "alice") == number
    assert "Member_Account: is empty" in result.stdout
    assert run("migrate", "unread", str(tmp_path / "b"), "--format", "jsonl", "--dry-run").exit_code == 3


def test_standard_input(
    service: Emulator, reach: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal is in the current folder; the same rows are recognized, and mended rows need no input."""
    monkeypatch.chdir(tmp_path)
    rows = f"{UNREAD}\n{GROUP},alice,9\n{GROUP},nobody,9\n"
    first = CliRunner().invoke(cli, ["migrate", "unread", "-"], input=rows, env=reach)
    assert first.exit_code == 3, first.stderr
    assert first.stderr.startswith("reading standard input\n")
    assert service.state.unread_in_group(GROUP, "alice") == 9
    assert names(tmp_path) == ["stdin.journal", "stdin.journal.lock", "stdin.rejected.jsonl"]
    again = CliRunner().invoke(cli, ["migrate", "unread", "-"], input=rows, env=reach)
    assert again.exit_code == 3
    assert "Nothing to do" in again.stderr
    other = CliRunner().invoke(cli, ["migrate", "unread", "-"], input=rows.replace("9", "8"), env=reach)
    assert other.exit_code == 2
    assert "--restart" in other.stderr
    mended_row = {"GroupId": GROUP, "Member_Account": "carol", "UnreadMsgNum": 9, "Line": 3}
    Path("stdin.rejected.jsonl").write_text(json.dumps(mended_row))
    assert command_in(first.stderr)[-2:] == ["<", "/dev/null"]
    assert table(CliRunner().invoke(cli, ["migrate", "status", "-"]).stdout)["accepted"] == 1
    mended = CliRunner().invoke(cli, command_in(first.stderr)[:-2], input="", env=reach)
    assert mended.exit_code == 0, mended.stderr
    assert service.state.unread_in_group(GROUP, "carol") == 9


def test_another_descriptor(
    run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell's ``<(…)`` has its journal where standard input has it: its own folder can hold none."""
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    os.write(writing, f"{UNREAD}\n{GROUP},alice,9\n{GROUP},nobody,9\n".encode())
    os.close(writing)
    file = f"/dev/fd/{reading}"
    first = run("migrate", "unread", file, env=reach)
    os.close(reading)
    assert first.exit_code == 3, first.stderr
    assert service.state.unread_in_group(GROUP, "alice") == 9
    assert names(tmp_path) == ["stdin.journal", "stdin.journal.lock", "stdin.rejected.jsonl"]
    assert table(run("migrate", "status", file).stdout)["accepted"] == 1


def test_no_group_check(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Rows of groups that ignore them then count as accepted."""
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
    assert "100 % of 5/s" in result.stdout


def test_options_reach_the_engine(
    run: Run, reach: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[MigrateOptions] = []

    def spy(*args: Any, **others: Any) -> Any:
        given.append(others["options"])
        return drive(*args, **others)

    monkeypatch.setattr("tim_async.cli.migrate.job.drive", spy)
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    options = ("--concurrency", "7", "--max-errors", "3", "--max-outage", "2.5", "--limit", "2", "--rate", "300")
    assert run("migrate", "unread", file, *options, "--no-group-check", env=reach).exit_code == 0
    assert run("migrate", "unread", file, env=reach).exit_code == 0
    assert given == [
        MigrateOptions(concurrency=7, max_errors=3, max_outage=2.5, limit=2, rate=300.0, group_check=False),
        MigrateOptions(),
    ]


def test_credentials_from_a_file(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("".join(f"{name}={value}\n" for name, value in reach.items()))
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    assert run("migrate", "unread", file, "--credentials", str(credentials)).exit_code == 0


# --dry-run


def test_a_dry_run(run: Run, tmp_path: Path) -> None:
    """Without credentials: counts, suspicious rows, the first requests and the estimated time; no file is written."""
    rows = [*(f"g,m{number},1," for number in range(400)), "g,m1,2,", "g,NULL,3,", 'g,zoe,4,"a\nb"', "g,,5,"]
    file = write(tmp_path / "counts.csv", f"{UNREAD},Comment", *rows)
    result = run("migrate", "unread", file, "--dry-run", "--share", "0.5")
    assert result.exit_code == 3, result.stderr
    assert table(result.stdout) == {
        "total": 404,
        "accepted": 0,
        "failed": 0,
        "rejected": 1,
        "superseded": 1,
        "left": 402,
    }
    assert "estimated time: 0:00:04 at 100/s" in result.stdout
    assert (
        "note: 1 suspicious id, the first on line 403: Member_Account 'NULL' stands for an empty value" in result.stdout
    )
    assert "note: 1 record extends over several lines, from line 404" in result.stdout
    assert '{"GroupId": "g", "Member_Account": "m0", "UnreadMsgNum": 1}\n' in result.stdout
    assert result.stderr == "Dry run: nothing was sent.\n"
    assert names(tmp_path) == ["counts.csv"]
    strict = run("migrate", "unread", file, "--dry-run", "--strict-ids", "--json")
    assert one(strict.stdout, "surveyed")["counts"]["rejected"] == 2


def test_a_dry_run_of_bad_rows(run: Run, tmp_path: Path) -> None:
    """Each one is in the rejected file and the report; all reasons are counted."""
    rows = ("alice,,", "alice,bob,yesterday", "alice,carol,1", "alice,carol,1700000000", "alice,dora,NULL")
    file = write(tmp_path / "reads.csv", READ, *rows)
    rejected, report = tmp_path / "bad.jsonl", tmp_path / "dry.html"
    files = ("--rejected", str(rejected), "--report", str(report), "--null", "NULL")
    result = run("migrate", "read", file, "--dry-run", *files)
    assert result.exit_code == 3
    assert "Peer_Account: is empty" in result.stdout
    assert "the app's webhook C2C.CallbackAfterMsgReport" in result.stderr
    assert names(tmp_path) == ["bad.jsonl", "dry.html", "reads.csv"]
    bad = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [(row["Line"], row["Reason"].partition(":")[0]) for row in bad] == [
        (2, "Peer_Account"),
        (3, "MsgReadTime"),
        (4, "MsgReadTime"),
        (6, "MsgReadTime"),
    ]
    assert "yesterday" in report.read_text()
    found = run("migrate", "read", file, "--dry-run", "--until-now", "--null", "NULL", "--json")
    assert (found.exit_code, found.stderr) == (3, "")
    document = one(found.stdout, "surveyed")
    assert (document["counts"]["rejected"], document["counts"]["left"], document["exit_code"]) == (3, 2, 3)
    assert document["notes"]["without_time"] == 1
    assert document["first"][1] == {"Report_Account": "alice", "Peer_Account": "dora"}


def test_a_dry_run_of_mended_rows(run: Run, tmp_path: Path) -> None:
    """The edits are checked, and not the whole file again."""
    file = write(tmp_path / "counts.csv", UNREAD, "g,a,x", "g,b,1", "g,c,")
    mended = tmp_path / "mended.jsonl"
    mended.write_text(json.dumps({"GroupId": "g", "Member_Account": "a", "UnreadMsgNum": "7", "Line": 2}))
    result = run("migrate", "unread", file, "--mended", str(mended), "--dry-run")
    assert (result.exit_code, table(result.stdout)["total"]) == (0, 1)
    assert '"UnreadMsgNum": 7}' in result.stdout


def test_a_dry_run_that_looks_up_groups(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Groups that would ignore their rows are listed by reason; nothing else is called."""
    rows = [f"nowhere{number},alice,1" for number in range(60)]
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", "@TGS#avchatroom,bob,1", *rows)
    result = run("migrate", "unread", file, "--dry-run", "--check-groups", env=reach)
    assert result.exit_code == 3, result.stderr
    assert [line.split()[:3] for line in result.stdout.splitlines() if line.startswith(("10010", "none"))] == [
        ["none", "1", "1"],
        ["10010", "60", "60"],
    ]
    assert set(service.report().endpoints) == {"get_group_info"}
    groups = one(run("migrate", "unread", file, "--dry-run", "--check-groups", "--json", env=reach).stdout, "surveyed")
    assert len(groups["groups"]) == 61
    assert run("migrate", "unread", file, "--dry-run", "--check-groups").exit_code == 2
    assert run("migrate", "unread", file, "--check-groups", env=reach).exit_code == 2


# Failures


def test_a_wrong_key(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """It stops at once, no row is marked failed, and with the right key it resumes."""
    for check in ((), ("--no-group-check",)):
        file = write(tmp_path / f"counts{len(check)}.csv", UNREAD, f"{GROUP},alice,7", f"{GROUP},bob,")
        wrong = {**reach, "TIM_SECRET_KEY": "f" * 64}
        result = run("migrate", "unread", file, *check, env=wrong)
        assert result.exit_code == 1
        assert "No row was marked failed; with the right credentials, the same command" in result.stderr
        assert "Error: " in result.stderr
        assert table(result.stdout) == {
            "total": 2,
            "accepted": 0,
            "failed": 0,
            "rejected": 1,
            "superseded": 0,
            "left": 1,
        }
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
    """It stops at once with a remedy, and no row is marked failed."""
    service.fault(code=code, endpoint="get_group_info")
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 1
    assert "with --no-group-check, the same command resumes" in result.stderr
    assert table(result.stdout)["failed"] == 0
    assert run("migrate", "unread", file, "--no-group-check", env=reach).exit_code == 0


def test_a_journal_in_use(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Two runs never share one; the second changes nothing and writes nothing."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", "nowhere,bob,1")
    assert run("migrate", "unread", file, env=reach).exit_code == 3
    (tmp_path / "counts.csv.rejected.jsonl").unlink()
    with FileLock(f"{file}.journal.lock"):
        for options in ((), ("--restart",)):
            result = run("migrate", "unread", file, *options, env=reach)
            assert (result.exit_code, result.stdout) == (1, "")
            assert "another run" in result.stderr
    assert not (tmp_path / "counts.csv.rejected.jsonl").exists()
    assert status_of(file).counts.taken == 1


@pytest.mark.parametrize("what", ["--journal", "--rejected", "--report"])
def test_a_file_that_cannot_be_written(
    run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path, what: str
) -> None:
    """It is reported before the first call, with a remedy; also in a dry run, for the files that it writes."""
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", "nowhere,bob,1")
    place = str(tmp_path / "nowhere" / "file")
    for options in ((), ("--dry-run",)) if what != "--journal" else ((),):
        result = run("migrate", "unread", file, what, place, *options, env=reach)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"Error: cannot write {place}: No such file or directory; use another {what}\n"
    assert service.report().total.calls == 0
    assert names(tmp_path) == ["counts.csv"]


def test_files_that_become_unwritable(
    run: Run, reach: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is 1, and the summary is complete."""

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tim_async.cli.migrate.ending.write_rejects", full)
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7", "nowhere,bob,1")
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 1
    assert f"Error: cannot write {file}.rejected.jsonl: No space left on device\n" in result.stderr
    assert table(result.stdout)["accepted"] == 1
    document = one(run("migrate", "unread", file, "--json", env=reach).stdout, "finished")
    assert (document["exit_code"], len(document["problems"])) == (1, 1)
    # The exit code of the run has precedence.
    stopped = run("migrate", "unread", file, "--restart", "--max-errors", "0", env=reach)
    assert stopped.exit_code == 4
    assert "cannot write" in stopped.stderr


# Limits


def test_max_errors(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Rejected rows count, too; with a higher limit, the same command resumes."""
    rows = [f"{GROUP},alice,", f"{GROUP},bob,5", "nowhere,carol,1"]
    file = write(tmp_path / "counts.csv", UNREAD, *rows)
    result = run("migrate", "unread", file, "--max-errors", "0", env=reach)
    assert result.exit_code == 4
    assert "Stopped: 1 failed or rejected" in result.stderr
    assert result.stderr.endswith("; the same command resumes.\n")
    assert table(result.stdout)["left"] == 2
    assert service.report().total.calls == 0
    assert (tmp_path / "counts.csv.rejected.jsonl").is_file()
    stopped = one(run("migrate", "unread", file, "--max-errors", "0", "--json", env=reach).stdout, "finished")
    assert (stopped["ended"], stopped["exit_code"]) == ("limit", 4)
    assert stopped["reason"]
    assert run("migrate", "unread", file, "--max-errors", "2", env=reach).exit_code == 3
    assert service.state.unread_in_group(GROUP, "bob") == 5


def test_max_outage(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Rows that were not sent are left, and none is marked failed."""
    service.fault(status=502)
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    result = run("migrate", "unread", file, "--max-outage", "0.1", "--no-group-check", env=reach)
    assert result.exit_code == 4
    assert "\nwaiting: " in result.stderr
    assert "Stopped: the service" in result.stderr
    assert table(result.stdout)["left"] == 1
    service.clear_faults()
    assert run("migrate", "unread", file, env=reach).exit_code == 0
    assert service.state.unread_in_group(GROUP, "alice") == 7


# Usage


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rate", "0.5"), "--rate"),
        (("--rate", "nan"), "'nan' is not finite"),
        (("--rate", "inf"), "'inf' is not finite"),
        (("--share", "0"), "--share"),
        (("--share", "1.5"), "--share"),
        (("--share", "nan"), "'nan' is not finite"),
        (("--rate", "2", "--share", "0.25"), "at least 1 call/s"),
        (("--concurrency", "0"), "--concurrency"),
        (("--max-errors", "-1"), "--max-errors"),
        (("--max-outage", "0"), "--max-outage"),
        (("--limit", "0"), "--limit"),
        (("--format", "xlsx"), "--format"),
        (("--map", "GroupId"), "--map takes FIELD=COLUMN, not 'GroupId'"),
        (("--map", "GroupId="), "--map takes FIELD=COLUMN"),
        (("--map", "GroupId=a", "--map", "GroupId=b"), "--map is given twice for GroupId"),
        (("--map", "Group=a"), "unknown field 'Group'"),
        (("--map", "GroupId=room"), "room"),
        (("--id-format", "GroupId"), "--id-format takes FIELD=TEMPLATE"),
        (("--id-format", "UnreadMsgNum={}"), "UnreadMsgNum"),
        (("--id-format", "GroupId=room"), "GroupId"),
        (("--no-header",), "--no-header and --columns A,B,… must be used together"),
        (("--columns", "a,b"), "--no-header and --columns A,B,… must be used together"),
        (("--no-header", "--columns", "a,,b"), "has no column GroupId"),
        (("--delimiter", "::"), "the delimiter must be one character"),
        (("--quote", "''"), "the quote must be none, or one character"),
        (("--encoding", "latin-99"), "latin-99"),
        (("--mended", "nothing.jsonl"), "nothing.jsonl"),
        (("--name", "other"), "--name is for a journal in Redis or Valkey"),
        (("--quota", "http://store"), "--quota"),
        (("--quota", "redis://store", "--no-quota"), "cannot be combined"),
        (("--quota", "redis://store:port"), "--quota"),
    ],
)
def test_invalid_options(
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
        ("--rejected", "link.csv"),
        ("--mended", "counts.csv"),
        ("--report", "counts.csv"),
        ("--report", "counts.csv.journal"),
        ("--rejected", "x/../counts.csv.journal"),
        ("--report", "counts.csv.rejected.jsonl"),
        ("--report", "counts.csv.journal-wal"),
        ("--rejected", "counts.csv.journal.lock"),
        ("--report", "counts"),  # first written as counts.part, which is a link to the rows here
        ("--rejected", "counts"),
        ("--journal", "journal"),  # whose lock is another link to them
    ],
)
def test_no_file_is_written_over_another(
    run: Run, reach: dict[str, str], tmp_path: Path, option: str, name: str
) -> None:
    """Especially not over the rows; a hard link is the same file."""
    (tmp_path / "x").mkdir()
    file = write(tmp_path / "counts.csv", UNREAD, f"{GROUP},alice,7")
    for link in ("link.csv", "counts.part", "journal.lock"):
        (tmp_path / link).hardlink_to(file)
    before = Path(file).read_bytes()
    result = run("migrate", "unread", file, option, str(tmp_path / name), env=reach)
    assert result.exit_code == 2
    assert "are the same file" in result.stderr
    assert Path(file).read_bytes() == before


def test_a_file_without_rows(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Exit code 2, one line, and no journal; the same with --dry-run."""
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "binary.csv").write_bytes(b"a\x00b" * 100)
    (tmp_path / "header.csv").write_text("GroupId,Member_Account\n")
    (tmp_path / "rowless.csv").write_text(UNREAD + "\n")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(f"{UNREAD}\n".encode() * 5000)[:-20])
    for name, said in {
        "none.csv": "No such file",
        "nowhere/none.csv": "cannot read",
        "empty.csv": "is empty",
        "binary.csv": "binary",
        "header.csv": "UnreadMsgNum",
        "rowless.csv": "no rows",
        "cut.csv.gz": "truncated or damaged",
        ".": "folder",
    }.items():
        for options in ((), ("--dry-run",)):
            result = run("migrate", "unread", str(tmp_path / name), *options, env=reach)
            assert (result.exit_code, result.stdout) == (2, ""), name
            assert said in result.stderr
            assert result.stderr.count("\n") == 1
    assert service.report().total.calls == 0
    assert names(tmp_path) == ["binary.csv", "cut.csv.gz", "empty.csv", "header.csv", "rowless.csv"]


def test_a_journal_of_something_else(run: Run, service: Emulator, reach: dict[str, str], tmp_path: Path) -> None:
    """Another file, other arguments or another app: refused with reason and remedy, and nothing is written."""
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
        assert "--restart" in result.stderr
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


def test_text_of_a_file_does_not_control_the_terminal(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """Neither by escapes nor by rich's markup, in ids and in file names."""
    file = write(tmp_path / "evil\x1b[2J [red].csv", UNREAD, f"{GROUP},[bold]who[/bold],1", f"{GROUP},bob,\x1b[31m")
    result = run("migrate", "unread", file, env=reach)
    assert result.exit_code == 3
    assert "\x1b" not in result.output
    assert "[bold]who[/bold]" in result.stderr
    assert "\\x1b[2J [red].csv" in result.stderr
    shown = run("migrate", "status", file)
    assert shown.exit_code == 0
    assert "\x1b" not in shown.output
