"""``migrate load``, ``work`` and ``status redis://…``, as users run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.programs import ROOT
from tests.store import Store
from tim_async.cli.migrate import options
from tim_async.cli.migrate.settings import pace
from tim_async.emulator import Emulator
from tim_async.migrate._redis import DEFAULT_NAME, key_of

from .conftest import Run
from .migrating import GROUP, READ, UNREAD, arrived, crowd, env_of, one, read_until, started, table, write

pytestmark = pytest.mark.processes


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Three good rows, one superseded, one rejected, and one that the service will refuse."""
    rows = (
        f"{GROUP},alice,1",
        f"{GROUP},bob,2",
        f"{GROUP},alice,3",
        f"{GROUP},carol,4",
        f"{GROUP},,5",
        "nowhere,dave,6",
    )
    return write(tmp_path / "counts.csv", UNREAD, *rows)


def unread(service: Emulator, *members: str) -> list[int]:
    return [service.state.unread_in_group(GROUP, member) for member in members]


def test_from_load_to_report(
    run: Run, reach: dict[str, str], service: Emulator, store: Store, file: str, tmp_path: Path
) -> None:
    """The whole migration, with the output and the exit code of each command."""
    result = run("migrate", "load", file, "--to", store.url, env=reach)
    assert result.exit_code == 3
    assert "loaded: 4 rows of kind unread, on the stream migration" in result.stdout
    assert table(result.stdout) == {"total": 6, "accepted": 0, "failed": 0, "rejected": 1, "superseded": 1, "left": 4}
    work = f"tim-async migrate work --from {store.url} --name migration --mended {file}.rejected.jsonl"
    assert f"{file}.rejected.jsonl lists them with their reasons; correct them there and run: {work}\n" in result.stderr
    assert result.stderr.count("Warning: the store keeps no append-only file") == 1

    result = run("migrate", "status", store.url)
    assert "no worker active" in result.stdout
    assert table(result.stdout)["left"] == 4

    result = run("migrate", "work", "--from", store.url, env=reach)
    assert result.exit_code == 3, result.output
    assert table(result.stdout) == {"total": 6, "accepted": 3, "failed": 1, "rejected": 1, "superseded": 1, "left": 0}
    assert "this worker: " in result.stdout
    assert "line 7 failed: 10010: no such group: nowhere" in result.stderr
    assert "tim-async migrate status --name migration --rejected PATH" in result.stderr
    assert unread(service, "alice", "bob", "carol") == [3, 2, 4]

    report, rejected = tmp_path / "r.html", tmp_path / "failed.jsonl"
    args = ("migrate", "status", store.url, "--report", str(report), "--rejected", str(rejected), "--json")
    result = run(*args)
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    assert (said["name"], said["complete"], said["running"], said["seconds_left"]) == ("migration", True, False, 0.0)
    assert (said["counts"]["taken"], said["loaded"]) == (3, 4)
    (worker,) = said["workers"]
    assert (worker["rows"], worker["how"]) == (4, "done")
    (ran,) = said["runs"]
    assert ran["done"] == 3
    assert "2 rows did not arrive" in report.read_text(encoding="utf-8")
    documents = [json.loads(line) for line in rejected.read_text(encoding="utf-8").splitlines()]
    assert [(document["Line"], document["Code"]) for document in documents] == [(6, None), (7, 10010)]

    # The edited rows take their places.
    edited = {**documents[1], "GroupId": GROUP, "Member_Account": "bob"}
    rejected.write_text(json.dumps(edited), encoding="utf-8")
    assert run("migrate", "work", "--from", store.url, "--mended", str(rejected), env=reach).exit_code == 3
    assert unread(service, "bob") == [6]

    result = run("migrate", "load", file, "--to", store.url, env=reach)
    assert "Nothing to do: all rows are already loaded." in result.stderr
    result = run("migrate", "work", "--from", store.url, env=reach)
    assert result.exit_code == 3
    assert "Nothing to do: all rows are already processed." in result.stderr


def test_in_one_command(
    run: Run, reach: dict[str, str], service: Emulator, store: Store, file: str, tmp_path: Path
) -> None:
    """A journal in the store: unread loads and works; all else is as with a file."""
    where = ("--journal", store.url, "--name", "one")
    result = run("migrate", "unread", file, *where, "--limit", "2", env=reach)
    assert (result.exit_code, table(result.stdout)["left"]) == (3, 2)
    result = run("migrate", "unread", file, *where, env=reach)
    assert (result.exit_code, table(result.stdout)["accepted"]) == (3, 3)
    rejected = tmp_path / "counts.csv.rejected.jsonl"
    documents = [json.loads(line) for line in rejected.read_text().splitlines()]
    rejected.write_text(
        "".join(json.dumps({**row, "GroupId": GROUP, "Member_Account": "bob"}) + "\n" for row in documents)
    )
    assert run("migrate", "unread", file, *where, "--mended", str(rejected), env=reach).exit_code == 0
    assert unread(service, "alice", "bob", "carol") == [3, 6, 4]
    assert not list(tmp_path.glob("*.journal*"))
    again = run("migrate", "unread", file, *where, "--restart", env=reach)
    assert again.stderr.startswith("--restart discards 6 rows, 4 of them accepted.\n")
    assert run("migrate", "set", store.url, "--name", "one", "--rate", "9").exit_code == 0


def test_drop(run: Run, reach: dict[str, str], store: Store, file: str) -> None:
    """If rows are left, it needs a confirmation; then the store has nothing of the migration."""
    assert run("migrate", "load", file, "--to", store.url, env=reach).exit_code == 3
    refused = run("migrate", "drop", store.url)
    assert refused.exit_code == 2
    assert "6 rows, 0 of them accepted, 4 still to be sent" in refused.stderr
    assert "--yes" in refused.stderr
    dropped = run("migrate", "drop", store.url, "--yes")
    assert (dropped.exit_code, dropped.stderr.splitlines()[-1]) == (0, f"Dropped migration from {store.url}.")
    with Redis.from_url(store.url) as redis:
        assert redis.dbsize() == 0
    assert run("migrate", "drop", store.url, "--yes").exit_code == 1
    assert run("migrate", "unread", file, "--journal", store.url, "--no-quota", env=reach).exit_code == 3
    assert run("migrate", "drop", store.url).exit_code == 0, "all rows are processed"


def test_the_command_and_the_library_have_the_same_default_name() -> None:
    """Help does not import the library's constant."""
    assert options.DEFAULT_NAME == DEFAULT_NAME


def test_json(run: Run, reach: dict[str, str], store: Store, file: str) -> None:
    loading = one(run("migrate", "load", file, "--to", store.url, "--json").stdout, "finished")
    assert (loading["exit_code"], loading["kind"], loading["loaded"], loading["ended"]) == (3, "unread", 4, "done")
    assert "append-only" in loading["warning"]
    result = run("migrate", "work", "--from", store.url, "--json", env=reach)
    assert one(result.stdout, "row_failed")["line"] == 7
    ended = one(result.stdout, "finished")
    assert (ended["exit_code"], ended["ended"], ended["counts"]["taken"]) == (3, "done", 3)
    assert sorted(failure["rows"] for failure in ended["failures"]) == [1, 1]


def test_reads_by_name(run: Run, reach: dict[str, str], service: Emulator, store: Store, tmp_path: Path) -> None:
    """The other kind is detected from its columns; one database, given by the environment, has several streams."""
    service.state.add_messages("alice", "dora", 3, at=time.time() - 5)
    reads = write(tmp_path / "reads.csv", READ, "alice,dora,")
    env = {**reach, "TIM_REDIS_URL": store.url}
    assert run("migrate", "load", reads, "--name", "reads", "--until-now", env=env).exit_code == 0
    assert run("migrate", "load", write(tmp_path / "c.csv", UNREAD, f"{GROUP},bob,1"), env=env).exit_code == 0
    worked = run("migrate", "work", "--name", "reads", env=env)
    assert worked.exit_code == 0
    assert "webhook C2C.CallbackAfterMsgReport" in worked.stderr
    assert service.state.unread("alice", "dora") == 0
    assert "migration at" in run("migrate", "status", store.url).stdout
    assert "finished" in run("migrate", "status", store.url, "--name", "reads").stdout
    verified = run("migrate", "verify", store.url, "--name", "reads", env=env)
    assert (verified.exit_code, verified.stdout) == (0, "1 row read back, 0 differences\n")


def shared(store: Store) -> set[str]:
    """Return the endpoints with a quota in the store."""
    with Redis.from_url(store.url, decode_responses=True) as redis:
        keys: Any = redis.keys("tim_async:*:state")
        return {key.split("/")[-1].partition("}")[0] for key in keys}


def test_a_file_within_the_quota_of_a_fleet(
    run: Run, reach: dict[str, str], service: Emulator, store: Store, tmp_path: Path
) -> None:
    """Given by the option or the environment; also for looking up groups, and for reading back."""
    file = write(tmp_path / "counts.csv", UNREAD, *crowd(service, 30))
    assert run("migrate", "unread", file, "--quota", store.url, "--share", "0.5", env=reach).exit_code == 0
    assert arrived(service, 30) == 29
    assert shared(store) == {"set_unread_msg_num", "get_group_info"}
    reads = write(tmp_path / "reads.csv", READ, f"alice,bob,{int(time.time()) + 60}")
    env = {**reach, "TIM_QUOTA_URL": store.url}
    assert run("migrate", "read", reads, env=env).exit_code == 0
    assert run("migrate", "verify", reads, env=env).exit_code == 0
    assert shared(store) > {"admin_set_msg_read", "get_c2c_unread_msg_num"}


def test_the_rate_of_a_migration_does_not_lower_the_shared_quota() -> None:
    """``--rate`` bounds this process only, and ``--share`` its bulk calls: a quota has no public names for them."""
    shared = pace(["set_unread_msg_num"], 200.0, 0.8, "redis://store")
    assert shared["rates"] == {"set_unread_msg_num": 200.0}
    assert shared["quota"]._shares.bulk == 0.8
    assert shared["quota"]._shares.own_rates
    alone = pace(["set_unread_msg_num"], 200.0, 0.8, None)
    assert alone == {"rates": {"set_unread_msg_num": 160.0, "get_group_info": 160.0}}


def test_the_quota_is_shared(store: Store, tmp_path: Path) -> None:
    """Three workers together stay below the limit that each of them has."""
    with Emulator() as service:
        file = write(tmp_path / "counts.csv", UNREAD, *crowd(service, 350))
        with started(["load", file, "--to", store.url], env_of(service)) as process:
            process.communicate(timeout=60)
        commands = [["work", "--from", store.url]] * 3
        with (
            started(commands[0], env_of(service)) as a,
            started(commands[1], env_of(service)) as b,
            started(commands[2], env_of(service)) as c,
        ):
            for process in (a, b, c):
                _, err = process.communicate(timeout=60)
                assert process.returncode == 0, err
        assert arrived(service, 350) == 349
        seen = service.report().endpoints["set_unread_msg_num"]
    assert seen.fullest_sliding_second <= 200
    assert seen.refused <= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c(run: Run, store: Store, tmp_path: Path, number: signal.Signals) -> None:
    """Calls in progress finish, the other rows are given back; the same command resumes at once."""
    with Emulator() as service:
        file = write(tmp_path / "counts.csv", UNREAD, *crowd(service, 200))
        assert run("migrate", "load", file, "--to", store.url, env=env_of(service)).exit_code == 0
        with started(["work", "--from", store.url, "--rate", "20", "--lease", "600"], env_of(service)) as process:
            read_until(process, "started: ")
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert err.endswith("Interrupted; the other workers continue, and the same command resumes.\n")
        assert table(out)["left"] > 0
        result = run("migrate", "work", "--from", store.url, "--rate", "2000", "--no-quota", env=env_of(service))
        assert result.exit_code == 0
        assert arrived(service, 200) == 199


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["load", "FILE", "--to", "http://x"], 2, "must begin with redis://"),
        (["load", "FILE"], 2, "Missing option '--to'"),
        (["load", "FILE", "--to", "URL", "--name", "a b"], 2, "a stream's name is"),
        (["load", "FILE", "--to", "redis://127.0.0.1:1"], 1, "cannot reach the store at redis://127.0.0.1:1"),
        (["load", "FILE", "--to", "URL", "--rejected", "FILE"], 2, "--rejected and FILE are the same file"),
        (["load", "-", "--to", "URL"], 2, "use --kind unread or --kind read"),
        (["load", "nothing.csv", "--to", "URL"], 2, "nothing.csv"),
        (["load", "FILE", "--to", "URL", "--kind", "read"], 2, "Report_Account"),
        (["work", "--from", "http://x"], 2, "must begin with redis://"),
        (["work", "--from", "redis://h/notanumber"], 2, "a database that is not a number"),
        (["work", "--from", "URL", "--quota", "redis://h?nonsense=1"], 2, "an unknown option nonsense"),
        (["load", "FILE", "--to", "redis://:pa/ss@h"], 2, "write %2F for it in a password"),
        (["status", "redis://h:99999"], 2, "a port that is not a number"),
        (["work", "--from", "URL", "--quota", "redis://x", "--no-quota"], 2, "cannot be combined"),
        (["work", "--from", "URL", "--quota", "nonsense"], 2, "redis://"),
        (["status", "URL"], 1, "there is no stream migration at redis://127.0.0.1:"),
        (["status", "redis://127.0.0.1:1"], 1, "cannot reach the store"),
        (["status", "FILE", "--name", "x"], 2, "is not a journal, and there is no"),
        (["status", "URL", "--rejected", "x", "--report", "x"], 2, "are the same file"),
    ],
)
def test_invalid_arguments(
    run: Run, reach: dict[str, str], store: Store, file: str, args: list[str], code: int, says: str
) -> None:
    """One line, and its exit code."""
    named = {"FILE": file, "URL": store.url}
    result = run("migrate", *(named.get(arg, arg) for arg in args), env=reach)
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_work_needs_credentials_and_load_does_not(run: Run, store: Store, file: str) -> None:
    assert run("migrate", "load", file, "--to", store.url).exit_code == 3
    result = run("migrate", "work", "--from", store.url)
    assert result.exit_code == 2
    assert "TIM_SDK_APP_ID" in result.stderr


def test_another_file_or_app(run: Run, reach: dict[str, str], store: Store, file: str, tmp_path: Path) -> None:
    """Both are refused in one line with the remedy."""
    assert run("migrate", "load", file, "--to", store.url, env=reach).exit_code == 3
    other = write(tmp_path / "other.csv", UNREAD, f"{GROUP},bob,1")
    result = run("migrate", "load", other, "--to", store.url, env=reach)
    assert result.exit_code == 2
    assert "another file" in result.stderr
    assert "--restart" in result.stderr
    result = run("migrate", "work", "--from", store.url, env={**reach, "TIM_SDK_APP_ID": "1400000001"})
    assert result.exit_code == 2
    assert "of app" in result.stderr
    assert run("migrate", "load", other, "--to", store.url, "--replace", env=reach).exit_code == 0


def test_refused_credentials(run: Run, reach: dict[str, str], store: Store, file: str) -> None:
    """Exit code 1, at once, and every row stays for others."""
    run("migrate", "load", file, "--to", store.url, env=reach)
    result = run("migrate", "work", "--from", store.url, env={**reach, "TIM_SECRET_KEY": "5" * 64})
    assert result.exit_code == 1
    assert "No row was marked failed" in result.stderr
    assert table(run("migrate", "status", store.url).stdout)["left"] == 4
    assert run("migrate", "work", "--from", store.url, env=reach).exit_code == 3


def test_a_store_that_refuses(run: Run, reach: dict[str, str], store: Store, file: str) -> None:
    """A wrong password, and keys of something else: one line each, without the password."""
    with Redis.from_url(store.url) as redis:
        redis.set(key_of("x", "about"), "y")
        redis.config_set("requirepass", "s3cret")
    wrong = store.url.replace("//", "//:wr0ng@")
    right = store.url.replace("//", "//:s3cret@")
    for args in (["load", file, "--to", wrong], ["work", "--from", wrong], ["status", wrong]):
        result = run("migrate", *args, env=reach)
        assert result.exit_code == 2
        assert f"Error: the store at {store.url} refuses" in result.stderr
        assert "wr0ng" not in result.output
    for args in (["load", file, "--to", right], ["work", "--from", right], ["status", right]):
        result = run("migrate", *args, "--name", "x", env=reach)
        assert result.exit_code == 1, args
        assert "belongs to something else" in result.stderr
        assert "s3cret" not in result.output
    for where in (["--journal", right], [f"--journal={right}"]):
        result = run("migrate", "unread", file, *where, env=reach)
        assert "correct them there and run: tim-async migrate unread" in result.stderr
        assert "s3cret" not in result.output


@pytest.mark.parametrize("args", [["load", "FILE", "--to", "URL"], ["work", "--from", "URL"], ["status", "URL"]])
def test_without_redis(reach: dict[str, str], file: str, args: list[str]) -> None:
    """The error names the missing package and its installation."""
    named = {"FILE": file, "URL": "redis://127.0.0.1:1"}
    words = ["migrate", *(named.get(arg, arg) for arg in args)]
    program = (
        "import sys; sys.modules['redis'] = None; sys.argv[0] = 'tim-async'\n"
        "from tim_async.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, **reach, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "Error: Redis and Valkey need the package redis: pip install 'tim-async[redis]'\n"
