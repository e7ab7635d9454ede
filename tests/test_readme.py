"""The README says only what works: its Python runs, its commands run, its test command is CI's."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tim_async.emulator import Emulator, fill_example

from .store import Store

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


PROGRAMS = [block for block in blocks("python") if "asyncio.run(main())" in block]
TESTS = [block for block in blocks("python") if "def test_" in block]
COMMANDS = [line.split("#")[0] if " #" in line else line for block in blocks("sh") for line in block.splitlines()]
CLI = [line for line in COMMANDS if line.startswith("tim-async ") and "emulator" not in line]
MIGRATIONS = [line for line in CLI if "migrate" in line and "--help" not in line]
STORE = "redis://store:6379/0"


@pytest.fixture
def environment(store: Store) -> Iterator[dict[str, str]]:
    """The environment that reaches a running emulator with its example world, and a store for a quota."""
    with Emulator() as service:
        fill_example(service.state)
        options = service.client_options()
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith("TIM_")},
            **{f"TIM_{name.upper()}": str(value) for name, value in options.items()},
            "TIM_QUOTA_URL": store.url,
            "PYTHONPATH": str(ROOT),
        }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the README migrates."""
    counts = "GroupId,Member_Account,UnreadMsgNum\n@TGS#public,alice,7\n@TGS#public,bob,2\n@TGS#public,carol,1000000\n"
    (tmp_path / "counts.csv").write_text(counts, encoding="utf-8")
    (tmp_path / "reads.csv").write_text("Report_Account,Peer_Account\nalice,bob\nbob,alice\n", encoding="utf-8")
    return tmp_path


def run(environment: dict[str, str], folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this interpreter in a folder."""
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_python_block_is_run_here() -> None:
    """No block escapes by looking different."""
    assert len(PROGRAMS) == 5
    assert len(TESTS) == 1
    assert len(blocks("python")) == 6


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_run(program: str, environment: dict[str, str], folder: Path) -> None:
    """As printed, with the credentials in the environment."""
    ended = run(environment, folder, "-W", "error", "-c", program)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_counts_in_the_comments_are_the_example_s(environment: dict[str, str], folder: Path) -> None:
    """What a reader sees beside the code is what the code prints."""
    assert run(environment, folder, "-c", PROGRAMS[2]).stdout.startswith("[3, 2]\n")
    printed = run(environment, folder, "-c", PROGRAMS[0]).stdout  # it marks one of them read
    assert "{'bob': 3, 'carol': 2}" in printed
    assert "'nobody': ItemError(code=70107" in printed
    assert run(environment, folder, "-c", PROGRAMS[3]).stdout.endswith("True\n")


@pytest.mark.parametrize("text", TESTS)
def test_the_example_test_passes(text: str, environment: dict[str, str], tmp_path: Path) -> None:
    """In a project that has tim_async installed."""
    (tmp_path / "test_inbox.py").write_text(text, encoding="utf-8")
    installed = "" if plugin_is_installed() else "-p tim_async.emulator.pytest_plugin"
    ended = run(
        environment, tmp_path, "-m", "pytest", "-q", "--rootdir", str(tmp_path), *shlex.split(installed), str(tmp_path)
    )
    assert ended.returncode == 0, ended.stdout


def plugin_is_installed() -> bool:
    """Whether the entry point is known to this interpreter."""
    from importlib.metadata import entry_points

    return any(point.name == "tim_async" for point in entry_points(group="pytest11"))


@pytest.mark.parametrize("line", [line for line in CLI if line not in MIGRATIONS])
def test_the_commands_run(line: str, environment: dict[str, str], folder: Path) -> None:
    """With the credentials in the environment; 3 is for the messages of 1-500 that have no receipt."""
    _, *words = shlex.split(line)
    ended = run(environment, folder, "-m", "tim_async.cli", *words)
    assert ended.returncode == (3 if "1-500" in words else 0), ended.stderr
    assert ended.stdout or words[0] in ("mark-read", "set-unread")


def test_the_migrations_run(environment: dict[str, str], folder: Path, store: Store) -> None:
    """One after the other, in the folder that has the files, and with a store in the place of the one named."""
    assert len(MIGRATIONS) == 8
    for line in MIGRATIONS:
        _, *words = shlex.split(line.replace(STORE, store.url))
        ended = run(environment, folder, "-m", "tim_async.cli", *words)
        assert (ended.returncode, bool(ended.stdout)) == (0, True), ended.stderr
    assert {"counts.html", "fleet.html"} <= {path.name for path in folder.iterdir()}


def test_ci_runs_the_test_command_that_the_readme_gives() -> None:
    """In a fresh environment that is made the same way, so that what passes there passes here."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace('"', "").replace("$venv", ".venv")
    create, install, test = next(line for line in COMMANDS if "pytest" in line).split(" && ")
    assert create == "python3 -m venv .venv"
    assert install == ".venv/bin/pip install -q -e '.[dev]'"
    assert test.startswith(".venv/bin/python -m pytest")
    for command in (create, install, test):
        assert command in script
