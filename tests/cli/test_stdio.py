"""Standard streams that are full, closed or without a reader: every command ends in the same way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

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
"""Each with something to say on standard output."""

TALKATIVE = {
    "wrong usage": ("unread",),
    "mark-read": ("mark-read", "alice", "bob"),
    "migration": ("migrate", "unread", "counts.csv"),
    "demo": ("demo", "--rows", "3", "--limit", "5000"),
    "emulator": ("emulator", "--port", "0"),
}
"""Each with something to say on standard error."""


@pytest.fixture(scope="module")
def reached() -> Iterator[dict[str, str]]:
    with Emulator() as service:
        fill_example(service.state)
        yield env_of(service)


@pytest.fixture(scope="module")
def prepared(reached: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, and with a migration that is done."""
    folder = tmp_path_factory.mktemp("prepared")
    write(folder / "counts.csv", UNREAD, f"{GROUP},alice,3", "nowhere,m,1")
    file = write(folder / "reads.csv", READ, "alice,bob,1756602000")
    done = CliRunner().invoke(cli, ["migrate", "read", file], env=reached)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def folder(tmp_path: Path, prepared: Path) -> Path:
    """The prepared folder, for one test alone."""
    return Path(shutil.copytree(prepared, tmp_path / "folder"))


def outcome(
    args: tuple[str, ...], redirection: str, folder: Path, env: dict[str, str], *, unbuffered: bool = False
) -> tuple[int, str]:
    """The exit code, and what the other streams hold."""
    if unbuffered:
        env = {**env, "PYTHONUNBUFFERED": "1"}
    command = f'exec "$0" -X dev -m tim_async.cli "$@" {redirection}'
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


@pytest.mark.parametrize("name", COMMANDS)
def test_standard_output(name: str, folder: Path, environment: dict[str, str], reached: dict[str, str]) -> None:
    """A full disk and a closed stream are told in one line, if anybody can be told."""
    env = {**environment, **reached}
    more = (">&-", ">/dev/full 2>/dev/full") if name in ("usersig", "migration as JSON") else ()
    for redirection in (">/dev/full", "<&- >&- 2>&-", *more):
        code, said = outcome(COMMANDS[name], redirection, folder, env, unbuffered="2>" in redirection)
        assert code == 1, said
        assert "Traceback" not in said
        assert "Exception ignored" not in said
        assert "Warning" not in said
        if "2>" in redirection:
            assert said == ""
        else:
            assert said.count("Error: cannot write to standard output: ") == 1


@pytest.mark.parametrize("name", TALKATIVE)
def test_standard_error(name: str, folder: Path, environment: dict[str, str], reached: dict[str, str]) -> None:
    for redirection in ("2>/dev/full", "2>&-"):
        code, said = outcome(TALKATIVE[name], redirection, folder, {**environment, **reached})
        assert code in (1, 2), said
        assert "Traceback" not in said


def test_a_descriptor_that_was_closed_is_nobodys(folder: Path, environment: dict[str, str]) -> None:
    """Neither a journal nor a connection becomes the standard output of what is started later."""
    code = (
        "import os, sys; from tim_async.cli import stdio; stdio.prepare()\n"
        "with open('file', 'w') as file: sys.exit(0 if file.fileno() > 2 else 9)"
    )
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, code], check=False, cwd=folder, env=environment, timeout=60
    )
    assert done.returncode == 0
