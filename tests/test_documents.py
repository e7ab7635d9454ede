"""The documents: programs and commands run, links have targets, tables and translations are up to date."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tim_async.emulator import Emulator, fill_example

from .documents import PATHS, ROOT, TRANSLATIONS, Document
from .generated import COMMAND, REPOSITORY, TABLES, rewritten
from .programs import DEVNULL, PIPE, ForkedProgram
from .store import Store

DOCUMENTS = [Document.read(path) for path in PATHS]
README, MIGRATE = Document.read("README.md"), Document.read("tim_async/migrate/README.md")
READMES = [README, *map(Document.read, TRANSLATIONS)]
RUN_HERE = [document for document in DOCUMENTS if document.name not in ("tim_async/migrate/RECIPES.md", *TRANSLATIONS)]
"""The documents whose code is run here; `tests.migrate.test_recipes` runs the recipes, and the translations have the
README's code.
"""
STORE = "redis://store:6379/0"


def names(documents: list[Document]) -> list[str]:
    """Return the names of documents, for test ids."""
    return [document.name for document in documents]


BLOCKS = [
    (f"{document.name} {number}", block)
    for document in RUN_HERE
    for number, block in enumerate(document.blocks("python"), 1)
]
TESTS = [block for _, block in BLOCKS if "def test_" in block]
PROGRAMS = [(name, block) for name, block in BLOCKS if block not in TESTS]
PRINTED = {
    "README.md 1": ["{'bob': 3, 'carol': 2}", "'nobody': ItemError(code=70107"],
    "README.md 2": ["read by", "done ('@TGS#public', 'alice', 5)", "failed ('@TGS#public', '', 5)", "[3, 2]"],
    "tim_async/REFERENCE.md 1": ["3"],
    "tim_async/FLEET.md 1": ["True"],
    "tim_async/telemetry/README.md 1": ["{'get_c2c_unread_msg_num.ok': 1}", "get_c2c_unread_msg_num 200"],
    "tim_async/examples/README.md 1": ["5", "{'bob': 3, 'carol': 2}", "['alice', 'bob']", "250"],
}
"""Output that the comments in the code promise, and a part of the last output, by program."""
LINES = [line for document in RUN_HERE for block in document.blocks("sh") for line in block.splitlines()]
COMMANDS = list(dict.fromkeys(line.split(" #")[0].rstrip() for line in LINES))
CLI = [line for line in COMMANDS if line.startswith("tim-async ") and "migrate" not in line and "emulator" not in line]
MIGRATIONS = [line for line in COMMANDS if line.startswith("tim-async migrate ")]
ELSEWHERE = [line for line in COMMANDS if line not in CLI and line not in MIGRATIONS]


@pytest.fixture
def environment(store: Store) -> Iterator[dict[str, str]]:
    """Variables for a running emulator with its example data, and for a store."""
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
    """A folder with the input files of the documents' migrations."""
    counts = "GroupId,Member_Account,UnreadMsgNum\n@TGS#public,alice,7\n@TGS#public,bob,2\n@TGS#public,carol,1000000\n"
    (tmp_path / "counts.csv").write_text(counts, encoding="utf-8")
    now = int(time.time()) + 1
    reads = f"Report_Account,Peer_Account,MsgReadTime\nalice,bob,{now}\nbob,alice,{now}\n"
    (tmp_path / "reads.csv").write_text(reads, encoding="utf-8")
    return tmp_path


def run(environment: dict[str, str], folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this interpreter in a folder."""
    with ForkedProgram(*command, env=environment, cwd=folder, stdin=DEVNULL, stdout=PIPE, stderr=PIPE) as program:
        output, errors = program.communicate(timeout=60)
        return subprocess.CompletedProcess(command, program.wait(), output, errors)


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_generated_tables_are_up_to_date(document: Document) -> None:
    assert rewritten(document) == document.text, f"{document.name} differs from the code: run {COMMAND}"


def test_every_generated_table_is_in_a_document() -> None:
    used = {
        name
        for document in DOCUMENTS
        for name in re.findall("^<!-- generated: (.+?) -->$", document.text, re.MULTILINE)
    }
    assert used == TABLES.keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_links_have_files_and_headings(document: Document) -> None:
    """Links within the repository, with their anchors; those to other hosts are not checked."""
    for link in document.links():
        inside = re.sub(rf"^{re.escape(REPOSITORY)}/(?:blob|tree)/main/", "/", link)
        if re.match(r"[a-z]+:", inside):
            continue
        path, _, anchor = inside.partition("#")
        target = ROOT / path[1:] if path.startswith("/") else document.path.parent / path if path else document.path
        assert target.exists(), f"{document.name}: no file for {link}"
        if anchor:
            assert anchor in Document.read(target).anchors(), f"{document.name}: no heading for {link}"


@pytest.mark.parametrize("document", READMES, ids=names(READMES))
def test_links_of_the_readme_are_absolute(document: Document) -> None:
    """PyPI shows it without the files beside it; the translations link in the same way."""
    assert [link for link in document.links() if not re.match("https://|#", link)] == []


@pytest.mark.parametrize("translation", READMES[1:], ids=names(READMES[1:]))
def test_translations_have_the_parts_of_the_readme(translation: Document) -> None:
    """The same headings, paragraphs, tables and code in the same order, and the same inline code and links."""
    assert translation.parts() == README.parts()
    assert translation.code_names() == README.code_names()
    assert links_and_itself(translation) == links_and_itself(README)


def links_and_itself(document: Document) -> list[str]:
    """Return the sorted targets of a README and its own, which only the other languages link to."""
    return sorted([*document.links(), f"{REPOSITORY}/blob/main/{document.name}"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_code_block_is_checked(document: Document) -> None:
    """By its language; Python that is not run is compiled."""
    assert document.languages() <= {"python", "py", "sh", "bash", "text"}
    for block in document.blocks("py"):
        # The fragments may await.
        compile(block, document.name, "exec", flags=0x2000)  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    for block in document.blocks("bash"):
        parsed = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=10, check=False)
        assert (parsed.returncode, parsed.stderr) == (0, "")


@pytest.mark.processes
@pytest.mark.parametrize(("name", "program"), PROGRAMS, ids=[name for name, _ in PROGRAMS])
def test_programs_run(name: str, program: str, environment: dict[str, str], folder: Path) -> None:
    """With the credentials in the environment; the output is as in the comments."""
    ended = run(environment, folder, "-c", program)
    assert (ended.returncode, ended.stderr) == (0, "")
    for line in PRINTED.get(name, []):
        assert line in ended.stdout


def test_every_expected_output_belongs_to_a_program() -> None:
    assert PRINTED.keys() <= dict(PROGRAMS).keys()


@pytest.mark.processes
def test_the_example_test_passes(environment: dict[str, str], tmp_path: Path) -> None:
    """In a project that has tim_async installed."""
    (text,) = TESTS
    (tmp_path / "test_inbox.py").write_text(text, encoding="utf-8")
    installed = "" if plugin_is_installed() else "-p tim_async.emulator.pytest_plugin"
    # Without the plugins that only this suite has installed.
    others = "-p no:ddtrace -p no:logfire -p no:pytest_logfire -p no:hypothesispytest -p no:xdist"
    options = shlex.split(f"-q --rootdir {tmp_path} {installed} {others}")
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout


def plugin_is_installed() -> bool:
    """Return whether the entry point is installed."""
    from importlib.metadata import entry_points

    return any(point.name == "tim_async" for point in entry_points(group="pytest11"))


def test_every_command_is_run() -> None:
    """Except commands that install, and the emulator, which runs until Ctrl-C."""
    assert [
        line for line in ELSEWHERE if not line.startswith((".venv/", "python3 -m venv", "tim-async emulator"))
    ] == []


@pytest.mark.processes
@pytest.mark.parametrize("line", CLI)
def test_commands_run(line: str, environment: dict[str, str], folder: Path) -> None:
    """With the credentials in the environment; exit code 3 is for the messages of 1-500 without a receipt."""
    _, *words = shlex.split(line)
    ended = run(environment, folder, "-m", "tim_async", *words)
    assert ended.returncode == (3 if "1-500" in words else 0), ended.stderr
    assert ended.stdout or words[0] in ("mark-read", "set-unread")


@pytest.mark.processes
def test_migrations_run(environment: dict[str, str], folder: Path, store: Store) -> None:
    """In their order, in the folder with the files, and with a store of the test."""
    assert len(MIGRATIONS) == 8
    for line in MIGRATIONS:
        _, *words = shlex.split(line.replace(STORE, store.url))
        ended = run(environment, folder, "-m", "tim_async", *words)
        assert (ended.returncode, bool(ended.stdout)) == (0, True), ended.stderr
    assert {"counts.html", "fleet.html"} <= {path.name for path in folder.iterdir()}


def test_ci_runs_the_test_command_that_the_readme_gives() -> None:
    """In a fresh environment with the same requirements."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace('"', "").replace("$venv", ".venv")
    create, install, test = next(line for line in COMMANDS if "pytest" in line).split(" && ")
    assert create == "python3 -m venv .venv"
    assert install == ".venv/bin/pip install -q -e '.[dev]'"
    assert test.startswith(".venv/bin/python -m pytest")
    assert create in script
    assert ".venv/bin/uv pip install -q --python .venv/bin/python -e '.[dev]'" in script  # as pip's, but in seconds
    assert test in script
