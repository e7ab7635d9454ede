"""``tim-async migrate`` as a process: signals, terminals, outages, pipes that close, and looks from outside."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import PIPE, ForkedProgram
from tests.store import Store, free_port
from tim_async.emulator import Emulator

from .conftest import Run
from .migrating import (
    UNREAD,
    arrived,
    crowd,
    env_of,
    events,
    names,
    one,
    read_until,
    started,
    status_of,
    table,
    write,
)

pytestmark = pytest.mark.processes

ROWS = 200


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[tuple[Emulator, str]]:
    """A service with a crowd, and a file with a row for each of them."""
    with Emulator() as service:
        yield service, write(tmp_path / "counts.csv", UNREAD, *crowd(service, ROWS))


def ended(process: ForkedProgram) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert "Warning" not in err
    return process.wait(), out, err


def resumed(run: Run, service: Emulator, file: str) -> None:
    """The same command resumes, to the end."""
    before = status_of(file).counts
    result = run("migrate", "unread", file, env=env_of(service))
    assert result.exit_code == 0, result.output
    resuming = f"resuming: {before.taken:,} of {ROWS:,} rows accepted" if before.taken else "started: "
    assert resuming in result.stderr
    assert table(result.stdout)["accepted"] == ROWS
    assert arrived(service, ROWS) == ROWS - 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c(run: Run, crowded: tuple[Emulator, str], number: signal.Signals) -> None:
    """Calls in progress finish and are saved, the summary has the progress, and the same command resumes."""
    service, file = crowded
    with started(["unread", file, "--rate", "20"], env_of(service)) as process:
        read_until(process, "started: ")
        process.send_signal(number)
        code, out, err = ended(process)
    assert code == 130
    assert "finishing the calls in progress; press Ctrl-C again to stop now\n" in err
    assert err.endswith("Interrupted; the same command resumes.\n")
    counts = status_of(file).counts
    assert counts.sending == 0
    assert counts.left > 0
    assert table(out)["left"] == counts.left
    assert status_of(file).sessions[0].how == "interrupted"
    resumed(run, service, file)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_twice(run: Run, crowded: tuple[Emulator, str], number: signal.Signals) -> None:
    """The second does not wait for a service that does not answer."""
    service, file = crowded
    service.fault(delay=600.0, endpoint="set_unread_msg_num")
    with started(["unread", file], env_of(service)) as process:
        read_until(process, "started: ")
        process.send_signal(number)
        read_until(process, "finishing")
        process.send_signal(number)
        code, out, err = ended(process)
    assert code == 130
    assert err.endswith("Interrupted; the same command resumes.\n")
    assert table(out)["left"] == ROWS
    service.clear_faults()
    resumed(run, service, file)


def test_ctrl_c_as_json(run: Run, crowded: tuple[Emulator, str]) -> None:
    """Every line is an event, including the last one; messages for people are on standard error."""
    service, file = crowded
    with started(["unread", file, "--json", "--rate", "20"], env_of(service)) as process:
        begun = read_until(process, '"started"', "stdout")
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    assert code == 130
    assert err == (
        "finishing the calls in progress; press Ctrl-C again to stop now\nInterrupted; the same command resumes.\n"
    )
    end = one(begun + out, "finished")
    assert (end["ended"], end["exit_code"], end["counts"]["sending"]) == ("interrupted", 130, 0)
    resumed(run, service, file)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_a_pipe_is_waited_for(
    crowded: tuple[Emulator, str], number: signal.Signals, tmp_path: Path
) -> None:
    """Nothing was sent, and the message says so."""
    service, _ = crowded
    with started(["unread", "-"], env_of(service), stdin=PIPE, cwd=tmp_path) as process:
        read_until(process, "reading standard input")
        process.send_signal(number)
        code, out, err = process.wait(60), process.stdout, process.stderr
        assert out is not None
        assert err is not None
        assert (code, out.read()) == (130, "")
        assert (
            err.read() == "Interrupted before the first row; nothing was sent.  Run the same command to start over.\n"
        )
    assert names(tmp_path) == ["counts.csv"]


def test_a_named_pipe(run: Run, crowded: tuple[Emulator, str], tmp_path: Path) -> None:
    """For example of a shell's <(…): it is read only once."""
    service, file = crowded
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with started(["unread", str(pipe)], env_of(service)) as process:
        read_until(process, "reading ")
        pipe.write_bytes(Path(file).read_bytes())
        code, out, _ = ended(process)
    assert code == 0
    assert table(out)["accepted"] == ROWS


def test_the_status_of_an_active_run(run: Run, crowded: tuple[Emulator, str]) -> None:
    """The status can be read at any time, and a second run is refused."""
    service, file = crowded
    service.stall(600)
    with started(["unread", file], env_of(service)) as process:
        read_until(process, "started: ")
        shown = run("migrate", "status", file)
        assert shown.exit_code == 0
        assert ": running\n" in shown.stdout
        document = json.loads(run("migrate", "status", file, "--json").stdout)
        assert (document["running"], document["counts"]["left"], document["counts"]["total"]) == (True, ROWS, ROWS)
        second = run("migrate", "unread", file, env=env_of(service))
        assert second.exit_code == 1
        assert "another run holds the journal" in second.stderr
        service.resume()
        code, out, _ = ended(process)
    assert (code, table(out)["accepted"]) == (0, ROWS)
    assert ": finished\n" in run("migrate", "status", file).stdout


@pytest.mark.parametrize("shared", [False, True])
def test_the_pace_is_changed(run: Run, crowded: tuple[Emulator, str], store: Store, shared: bool) -> None:
    """Another process changes the pace of a run, which reports it."""
    service, file = crowded
    options = ["--journal", store.url] if shared else []
    journal = store.url if shared else file
    with started(["unread", file, *options, "--rate", "5", "--json"], env_of(service)) as process:
        read_until(process, '"started"', "stdout")
        said = run("migrate", "set", journal, "--rate", "1000", "--share", "0.5")
        assert said.stderr == ("Set --rate 1000 and --share 0.5; active runs apply it to their next rows.\n")
        changed = json.loads(read_until(process, '"pace_changed"', "stdout").splitlines()[-1])
        code, out, _ = ended(process)
    assert (changed["rate"], changed["share"], changed["limit"]) == (1000.0, 0.5, 500.0)
    end = one(out, "finished")
    assert (code, end["limit"], end["share_of_limit"]) == (0, 500.0, None)
    assert arrived(service, ROWS) == ROWS - 1


def test_a_killed_run_is_shown_as_stopped(run: Run, crowded: tuple[Emulator, str]) -> None:
    """A killed run is shown as stopped."""
    service, file = crowded
    header, *rows = Path(file).read_text().splitlines()
    write(Path(file), header, "nowhere,m1,1", *rows)
    with started(["unread", file, "--rate", "20"], env_of(service)) as process:
        read_until(process, "line 2 failed: ")
        process.kill()
        process.wait()
    shown = run("migrate", "status", file)
    assert "stopped; the same command resumes" in shown.stdout
    assert " killed " in shown.stdout
    result = run("migrate", "unread", file, env=env_of(service))
    assert result.exit_code == 3
    assert arrived(service, ROWS) == ROWS - 1


def test_a_run_waits_for_the_service_to_start(crowded: tuple[Emulator, str], tmp_path: Path) -> None:
    """The run waits, reports it, and resumes by itself."""
    port = free_port()
    service = Emulator(port=port)
    file = write(tmp_path / "later.csv", UNREAD, *crowd(service, 20))
    env = env_of(crowded[0], base_url=f"http://127.0.0.1:{port}")
    with started(["unread", file], env) as process:
        said = read_until(process, "waiting: ")
        assert "resumes as soon as the service is back" in said
        with service:
            code, out, err = ended(process)
    assert code == 0
    assert "resumed after 0:00:" in err
    assert table(out)["accepted"] == 20
    assert arrived(service, 20) == 19


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_closed_pipe_ends_the_run(run: Run, crowded: tuple[Emulator, str], options: tuple[str, ...]) -> None:
    """A pipe that was closed, as by ``head``, ends a run without a traceback and without a loss."""
    service, file = crowded
    with Path(file).open("a") as rows:
        rows.write("crowd,m1,-1\n")
    reads, writes = os.pipe()
    os.close(reads)
    with started(["unread", file, *options], env_of(service), stdout=writes) as process:
        os.close(writes)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert Path(f"{file}.rejected.jsonl").is_file()
    result = run("migrate", "unread", file, env=env_of(service))
    assert result.exit_code == 3
    assert arrived(service, ROWS) == ROWS - 1


def test_plain_lines_where_there_is_no_terminal(crowded: tuple[Emulator, str]) -> None:
    """No escape sequence, whatever the environment asks of terminals."""
    service, file = crowded
    env = {**env_of(service), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    with started(["unread", file], env) as process:
        code, out, err = ended(process)
    assert code == 0
    assert "\x1b" not in out + err
    assert err == f"started: {ROWS} of {ROWS} rows to send\n"


# On a terminal


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo-terminal of 100 columns."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


class Screen:
    """The output of a process on a terminal."""

    def __init__(self, ours: int, process: ForkedProgram) -> None:
        self._ours = ours
        self._process = process
        self.text = ""

    def until(self, wanted: str) -> None:
        """Read until ``wanted`` was shown."""
        while wanted not in self.text:
            assert self._read(), self.text

    def rest(self) -> str:
        """Return the whole output once the process has ended."""
        while self._read():
            pass
        return self.text

    def _read(self) -> bool:
        """Read more output; return False at its end."""
        while not select.select([self._ours], [], [], 0.05)[0]:
            if self._process.poll() is not None and not select.select([self._ours], [], [], 0)[0]:
                return False
        self.text += os.read(self._ours, 65536).decode(errors="replace")
        return True


TTY = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}


def test_a_bar_on_a_terminal(crowded: tuple[Emulator, str]) -> None:
    """It is shown, the summary follows it, and the terminal is restored."""
    import termios

    service, file = crowded
    with Path(file).open("a") as rows:
        rows.write("nowhere,m1,1\n")
    with terminal() as (ours, theirs):
        before = termios.tcgetattr(theirs)
        options = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        with started(["unread", file], {**env_of(service), **TTY}, **options) as process:
            screen = Screen(ours, process)
            screen.until("/s of 200")
            text = screen.rest()
            assert process.returncode == 3
        assert termios.tcgetattr(theirs) == before
    assert "━" in text
    assert f"of {ROWS + 1} rows" in text
    assert "line 202 failed: 10010: no such group: nowhere" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.index("by the service") > text.rindex("\x1b[?25h")


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_on_a_terminal(run: Run, crowded: tuple[Emulator, str], presses: int) -> None:
    """The cursor is visible again."""
    import termios

    service, file = crowded
    service.stall(600)
    with terminal() as (ours, theirs):
        before = termios.tcgetattr(theirs)
        options = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "process_group": 0}
        with started(["unread", file], {**env_of(service), **TTY}, **options) as process:
            screen = Screen(ours, process)
            screen.until("/s of 200")
            process.send_signal(signal.SIGINT)
            screen.until("finishing the calls in progress")
            if presses == 1:
                service.resume()
            else:
                process.send_signal(signal.SIGINT)
            text = screen.rest()
            assert process.returncode == 130
        assert termios.tcgetattr(theirs) == before
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "Interrupted; the same command resumes." in text
    service.resume()
    assert run("migrate", "unread", file, env=env_of(service)).exit_code == 0


def test_a_terminal_that_is_closed(run: Run, crowded: tuple[Emulator, str]) -> None:
    """For example after a lost connection: SIGHUP stops the run gracefully, without any output."""
    service, file = crowded
    with terminal() as (ours, theirs):
        options = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        command = ["unread", file, "--rate", "20", "--concurrency", "10"]
        with started(command, {**env_of(service), **TTY}, **options) as process:
            Screen(ours, process).until("/s of 20")
            with Path(os.devnull).open("rb") as nothing:
                os.dup2(nothing.fileno(), ours)
            process.send_signal(signal.SIGHUP)
            assert process.wait(60) in (1, 130)
    status = status_of(file)
    assert (status.sessions[0].how, status.counts.sending) == ("interrupted", 0)
    resumed(run, service, file)


def test_a_restart_needs_confirmation(crowded: tuple[Emulator, str]) -> None:
    """On a terminal; without a yes, nothing is discarded."""
    service, file = crowded
    with started(["unread", file], env_of(service)) as process:
        assert ended(process)[0] == 0
    for answer, code in (("n", 1), ("y", 0)):
        with terminal() as (ours, theirs):
            env = {**env_of(service), **TTY}
            options = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
            with started(["unread", file, "--restart", "--rate", "2000"], env, **options) as process:
                screen = Screen(ours, process)
                screen.until("--restart discards 200 rows, 200 of them accepted.  Continue? [y/N]")
                os.write(ours, f"{answer}\n".encode())
                text = screen.rest()
                assert process.wait(60) == code
        assert ("Nothing was changed." in text) == (answer == "n")
        assert len(status_of(file).sessions) == 1


def test_json_with_a_bar_on_the_terminal(crowded: tuple[Emulator, str]) -> None:
    """Events go to the file, and the terminal still has its bar."""
    service, file = crowded
    with terminal() as (ours, theirs):
        env = {**env_of(service), **TTY}
        with started(["unread", file, "--json"], env, stdin=theirs, stderr=theirs) as process:
            screen = Screen(ours, process)
            screen.until("/s of 200")
            assert process.stdout is not None
            out = process.stdout.read()
            text = screen.rest()
    assert [document["event"] for document in events(out)] == ["started", "finished"]
    assert "━" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_help_imports_no_library_of_a_migration(environment: dict[str, str]) -> None:
    """Neither an HTTP client nor a database."""
    heavy = "{'aiohttp', 'sqlite3', 'tim_async.migrate', 'rich.live'}"
    code = f"import sys; from tim_async.cli import main; main(); sys.stderr.write(str({heavy} & set(sys.modules)))"
    for args in (["--help"], ["migrate", "--help"], ["migrate", "unread", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *args], check=False, env=environment, capture_output=True, text=True
        )
        assert done.stderr == "set()"
