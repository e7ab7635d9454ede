"""Standard streams that are full, closed or without a reader: all commands end in the same way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.programs import PIPE, ForkedProgram
from tim_async.cli.app import cli
from tim_async.emulator import Emulator, fill_example

from .migrating import GROUP, READ, UNREAD, env_of, write

pytestmark = pytest.mark.processes

COMMANDS: dict[str, tuple[str, ...]] = {
    "help": ("--help",),
    "version": ("--version",),
    "help of a command": ("migrate", "unread", "--help"),
    "usersig": ("usersig",),
    "usersig as JSON": ("usersig", "--json"),
    "unread": ("unread", "alice"),
    "unread of many": ("unread", "alice", "bob", "carol", "--json"),
    "inbox": ("inbox", "alice"),
    "receipts": ("receipts", GROUP, "116-120"),
    "mark-read": ("mark-read", "alice", "bob", "--json"),
    "set-unread": ("set-unread", GROUP, "alice", "1", "--json"),
    "dry run": ("migrate", "unread", "counts.csv", "--dry-run"),
    "migration": ("migrate", "unread", "counts.csv"),
    "migration as JSON": ("migrate", "unread", "counts.csv", "--json"),
    "status": ("migrate", "status", "reads.csv"),
    "status as JSON": ("migrate", "status", "reads.csv", "--json"),
    "verify": ("migrate", "verify", "reads.csv"),
    "demo": ("demo", "--rows", "3", "--limit", "5000"),
}
"""Commands with output on standard output."""

TALKATIVE = {
    "wrong usage": ("unread",),
    "mark-read": ("mark-read", "alice", "bob"),
    "migration": ("migrate", "unread", "counts.csv"),
    "demo": ("demo", "--rows", "3", "--limit", "5000"),
    "emulator": ("emulator", "--port", "0"),
}
"""Commands with output on standard error."""


@pytest.fixture(scope="module")
def reached() -> Iterator[dict[str, str]]:
    with Emulator() as service:
        fill_example(service.state)
        yield env_of(service)


@pytest.fixture(scope="module")
def prepared(reached: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows and a finished migration."""
    folder = tmp_path_factory.mktemp("prepared")
    write(folder / "counts.csv", UNREAD, f"{GROUP},alice,3", "nowhere,m,1")
    file = write(folder / "reads.csv", READ, "alice,bob,1756602000")
    done = CliRunner().invoke(cli, ["migrate", "read", file], env=reached)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def folder(tmp_path: Path, prepared: Path) -> Path:
    """A copy of the prepared folder for one test."""
    return Path(shutil.copytree(prepared, tmp_path / "folder"))


def on_a_full_disk(stream: str, args: tuple[str, ...], folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """Run a command with one stream on a full disk; return the exit code and the other stream."""
    with Path("/dev/full").open("w") as full:
        streams = {"stdout": PIPE, "stderr": PIPE, stream: full.fileno()}
        with ForkedProgram("-m", "tim_async", *args, cwd=folder, env=env, **streams) as process:
            said = "".join(process.communicate(timeout=60))
            return process.wait(), said


def redirected(args: tuple[str, ...], redirection: str, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """Run a command with a shell's redirection; return the exit code and the other streams."""
    command = f'exec "$0" -X dev -m tim_async "$@" {redirection}'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, *args],
        check=False,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


CLOSED = ("help", "usersig", "inbox", "migration as JSON", "status", "demo")
"""The ones of these that are also run without streams, and with a closed pipe, which all commands handle alike."""


@pytest.mark.parametrize("name", COMMANDS)
def test_standard_output(name: str, folder: Path, environment: dict[str, str], reached: dict[str, str]) -> None:
    """A full disk and a closed stream are reported in one line, if standard error is open."""
    env = {**environment, **reached}
    told = [on_a_full_disk("stdout", COMMANDS[name], folder, env)]
    silent = []
    if name in CLOSED:
        silent += [redirected(COMMANDS[name], "<&- >&- 2>&-", folder, {**env, "PYTHONUNBUFFERED": "1"})]
    if name in ("usersig", "migration as JSON"):
        told += [redirected(COMMANDS[name], each, folder, env) for each in (">/dev/full", ">&-")]
        unbuffered = {**env, "PYTHONUNBUFFERED": "1"}
        silent.append(redirected(COMMANDS[name], ">/dev/full 2>/dev/full", folder, unbuffered))
    assert [code for code, _ in told + silent] == [1] * len(told + silent)
    for _, said in told:
        assert "Traceback" not in said
        assert "Exception ignored" not in said
        assert "Warning" not in said
        assert said.count("Error: cannot write to standard output: ") == 1
    assert {said for _, said in silent} <= {""}


@pytest.mark.parametrize("name", CLOSED)
def test_a_pipe_that_nobody_reads(
    name: str, folder: Path, environment: dict[str, str], reached: dict[str, str]
) -> None:
    """As by ``head``: no error is reported."""
    reads, writes = os.pipe()
    os.close(reads)
    arguments = ("-m", "tim_async", *COMMANDS[name])
    with ForkedProgram(*arguments, cwd=folder, env={**environment, **reached}, stdout=writes, stderr=PIPE) as process:
        os.close(writes)
        _, said = process.communicate(timeout=60)
        assert process.wait() == 1
    for report in ("Traceback", "Exception ignored", "Error: "):
        assert report not in said


@pytest.mark.parametrize("name", TALKATIVE)
def test_standard_error(name: str, folder: Path, environment: dict[str, str], reached: dict[str, str]) -> None:
    env = {**environment, **reached}
    for code, said in (
        on_a_full_disk("stderr", TALKATIVE[name], folder, env),
        redirected(TALKATIVE[name], "2>&-", folder, env),
    ):
        assert code in (1, 2), said
        assert "Traceback" not in said


def test_a_closed_descriptor_is_not_reused(folder: Path, environment: dict[str, str]) -> None:
    """A file that is opened later does not get the number of a standard stream."""
    code = (
        "import os, sys; from tim_async.cli import stdio; stdio.prepare()\n"
        "with open('file', 'w') as file: sys.exit(0 if file.fileno() > 2 else 9)"
    )
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, code], check=False, cwd=folder, env=environment, timeout=60
    )
    assert done.returncode == 0
