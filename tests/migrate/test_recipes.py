"""The printed recipes: each program and command on a small sample of the product's format."""

from __future__ import annotations

import ast
import datetime as dt
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.documents import ROOT, Document
from tim_async.emulator import Emulator, GroupType, State

pytestmark = pytest.mark.processes

EXPORTS = Path(__file__).parent / "exports"
RECIPES = Document.read("tim_async/migrate/RECIPES.md")
BEFORE = 7
"""Each member's count before a recipe runs, which no recipe sets."""


class Run(Protocol):
    """Runs a printed command, and returns its standard error."""

    def __call__(self, command: str, *, ends: int = 0) -> str: ...


PROGRAMS: dict[str, str] = dict(
    re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)^```", RECIPES.text, re.MULTILINE | re.DOTALL)
)
COMMANDS = [line for block in RECIPES.blocks("sh") for line in block.splitlines()]


def commands(product: str, kind: str) -> list[str]:
    """Return the commands of one kind of migration in a product's recipe."""
    (section,) = (text for text in RECIPES.text.split("\n## ") if text.startswith(product))
    (block,) = (
        block for block in Document(RECIPES.path, section).blocks("sh") if f"tim-async migrate {kind} " in block
    )
    return block.splitlines()


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def state(service: Emulator) -> State:
    return service.state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working directory, with the exports and the programs."""
    for export in EXPORTS.iterdir():
        shutil.copy(export, tmp_path)
    for name, program in PROGRAMS.items():
        (tmp_path / name).write_text(program, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(service: Emulator, folder: Path) -> Run:
    """Runs commands in the folder, with the credentials in the environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIM_", "PYTHON"))}
    reach = {f"TIM_{name.upper()}": str(value) for name, value in service.client_options().items()}
    environment = {**kept, **reach, "PYTHONPATH": str(ROOT)}

    def invoke(command: str, *, ends: int = 0) -> str:
        line, _, to = command.partition(" > ")
        first, *words = shlex.split(line)
        program = {"python3": [sys.executable], "tim-async": [sys.executable, "-m", "tim_async"]}[first]
        with (folder / (to or "printed")).open("wb") as stdout:
            ended = subprocess.run(
                [*program, *words],
                env=environment,
                cwd=folder,
                stdout=stdout,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                timeout=60,
                check=False,
            )
        assert ended.returncode == ends, f"{command}\n{ended.stderr}"
        return ended.stderr

    return invoke


def fill(state: State, groups: Mapping[str, Iterable[str]], types: Mapping[str, GroupType] | None = None) -> None:
    """Add groups with 50 messages each, as after an import of everything but the counts."""
    for group, members in groups.items():
        state.add_group(group, (types or {}).get(group, "Public"), messages=50, members=members)
        for member in members:
            state.set_unread_in_group(group, member, BEFORE)


def counts(state: State, *groups: str) -> dict[str, dict[str, int]]:
    """Return each member's count."""
    found = {group: state.find_group(group) for group in groups}
    return {name: dict(group.unread) for name, group in found.items() if group is not None}


def read_times(state: State, *accounts: str) -> dict[tuple[str, str], float]:
    """Return the read times of each pair of these accounts."""
    pairs = ((account, peer) for account in accounts for peer in accounts)
    times = {pair: state.read_time(*pair) for pair in pairs}
    return {pair: time for pair, time in times.items() if time is not None}


def test_every_program_is_tested_and_short() -> None:
    """The pattern finds all Python blocks; each program fits on a screen."""
    assert list(PROGRAMS.values()) == RECIPES.blocks("python")
    for name, program in PROGRAMS.items():
        lines = [line for line in program.splitlines() if line.strip()]
        assert len(lines) <= 18, name
        assert max(map(len, lines)) <= 120, name
        assert any(command.startswith(f"python3 {name} ") for command in COMMANDS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_run_on_python_3_9(name: str) -> None:
    """Which many servers have: the syntax, and no later additions to the library."""
    program = ast.parse(PROGRAMS[name], feature_version=(3, 9))
    used = {node.attr for node in ast.walk(program) if isinstance(node, ast.Attribute)}
    # A "Z" can be parsed since 3.11, and the others were added to the imported modules in 3.10 to 3.12.
    assert not used & {"fromisoformat", "UTC", "pairwise", "batched"}
    keywords = {node.arg for node in ast.walk(program) if isinstance(node, ast.keyword)}
    assert not keywords & {"strict", "key"}  # of zip and bisect


def test_every_command_is_tested() -> None:
    """Each product has one recipe for counts and one for one-to-one conversations, and no other commands."""
    products = [title.split()[0] for title in re.findall(r"^## (.*)", RECIPES.text, re.MULTILINE)]
    assert products == ["Rocket.Chat", "Mattermost", "Stream", "Sendbird"]
    run_here = [line for product in products for kind in ("unread", "read") for line in commands(product, kind)]
    assert run_here == COMMANDS


MIRA, JONAS, LI, ZOE, GONE = (
    "aB3kLm9PqR2sTuVwX",
    "cD4nOp8QrS3tUvWxY",
    "eF5pQr7StU4vWxYzA",
    "gH6rSt6UvW5xYzAbC",
    "iJ7tUv5WxY6zAbCdE",
)


def rewritten(path: Path, change: Callable[[Any], Any]) -> None:
    """Change each line of an export."""
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(json.dumps(change(json.loads(line))) + "\n" for line in lines), encoding="utf-8")


def canonical(value: Any) -> Any:
    """Convert relaxed Extended JSON to its canonical mode."""
    match value:
        case {"$date": str(text)}:
            milliseconds = round(1000 * dt.datetime.fromisoformat(text).timestamp())
            return {"$date": {"$numberLong": str(milliseconds)}}
        case bool() | None | str():
            return value
        case int():
            return {"$numberInt": str(value)}
        case list():
            return [canonical(one) for one in value]
    return {name: canonical(one) for name, one in value.items()}


@pytest.mark.parametrize("form", ["relaxed", "canonical"])
def test_rocket_chat_groups(state: State, run: Run, folder: Path, form: str) -> None:
    """Without conversion: a row without a count is rejected, one above the group's messages is lowered, and the rows
    of a Meeting group fail."""
    general, private, discussion, meeting = (
        "rc_GENERAL",
        "rc_Kd8sPz2QmT7vLx4Rw",
        "rc_Wn5cYb3HgJ6kMf9Za",
        "rc_Tb7yNq4XsC9eRj2Uh",
    )
    fill(
        state,
        {general: [MIRA, JONAS, LI, ZOE, GONE], discussion: [LI, ZOE], meeting: [MIRA, LI]},
        {meeting: "Meeting"},
    )
    state.add_group(private, "Work", messages=9, members=[MIRA, JONAS, ZOE])

    (command,) = commands("Rocket.Chat", "unread")
    if form == "canonical":
        (other,) = re.findall(r"`--map '(UnreadMsgNum=[^']*)'`", RECIPES.text)
        command = command.replace("UnreadMsgNum=unread", f"'{other}'")
        rewritten(folder / "rocketchat-groups.jsonl", canonical)
    run(command, ends=3)

    assert counts(state, general, private, discussion, meeting) == {
        general: {MIRA: 3, JONAS: 0, LI: 12, ZOE: 0, GONE: BEFORE},
        private: {MIRA: 2, JONAS: 9, ZOE: 0},
        discussion: {LI: 1, ZOE: 0},
        meeting: {MIRA: 0, LI: 0},
    }
    lines = (folder / "rocketchat-groups.jsonl.rejected.jsonl").read_text(encoding="utf-8").splitlines()
    rejected = [json.loads(line) for line in lines]
    assert [(row["GroupId"], row["Member_Account"]) for row in rejected] == [
        (general, GONE),
        (meeting, MIRA),
        (meeting, LI),
    ]


@pytest.mark.parametrize("form", ["relaxed", "canonical"])
def test_rocket_chat_direct_rooms(state: State, run: Run, folder: Path, form: str) -> None:
    """Any form of room id; not rooms of one or three members, and no row for members who never read.

    Verifying finds the counts of the export, one of them for messages in the same second as the last reading.
    """
    state.add_messages(MIRA, JONAS, 3, at=1756630800)
    state.add_messages(JONAS, MIRA, 2, at=1756629050)
    state.add_messages(MIRA, LI, 4, at=1756555000)
    state.add_messages(LI, MIRA, 5, at=1756555001)
    state.add_messages(ZOE, JONAS, 1, at=1756080000)

    if form == "canonical":
        rewritten(folder / "rocketchat-direct.jsonl", canonical)
    for command in commands("Rocket.Chat", "read"):
        run(command)

    assert read_times(state, MIRA, JONAS, LI, ZOE, GONE) == {
        (MIRA, JONAS): 1756630801,
        (JONAS, MIRA): 1756629001,
        (MIRA, LI): 1756555201,
        (JONAS, ZOE): 1756102029,
        (ZOE, JONAS): 1756080000,
    }
    assert state.unread(LI, MIRA) == 5


def sparse(value: Any) -> Any:
    """Remove fields that are null, empty or 0, as in other versions of the product and in its test data."""
    if isinstance(value, dict):
        return {name: sparse(one) for name, one in value.items() if one or isinstance(one, bool)}
    return [sparse(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("change", [None, sparse])
def test_mattermost_channels(state: State, run: Run, folder: Path, change: Callable[[Any], Any] | None) -> None:
    """Posts and replies after the last view; equal channel names in two teams; no row for deactivated members."""
    if change is not None:
        rewritten(folder / "mattermost.jsonl", change)
    town, northern, club, off_topic = (
        "mm_werk_town-square",
        "mm_werk_nordlicht",
        "mm_verein_town-square",
        "mm_werk_off-topic",
    )
    fill(
        state,
        {
            town: ["mira.lund", "jonas", "li.xiaomei", "old-account"],
            northern: ["mira.lund", "jonas"],
            club: ["mira.lund"],
            off_topic: ["mira.lund"],
        },
    )

    for command in commands("Mattermost", "unread"):
        run(command)

    assert counts(state, town, northern, club, off_topic) == {
        town: {"mira.lund": 0, "jonas": 2, "li.xiaomei": 3, "old-account": BEFORE},
        northern: {"mira.lund": 1, "jonas": 2},
        club: {"mira.lund": 0},
        off_topic: {"mira.lund": 0},
    }


def test_mattermost_direct_channels(state: State, run: Run) -> None:
    """The message that was viewed last is read, although its time is that of the view; the next one is not."""
    state.add_account("mira.lund", "jonas", "li.xiaomei")
    state.add_messages("mira.lund", "jonas", at=1756629000)
    state.add_messages("mira.lund", "jonas", at=1756629600)

    for command in commands("Mattermost", "read"):
        run(command)

    assert read_times(state, "mira.lund", "jonas", "li.xiaomei") == {
        ("jonas", "mira.lund"): 1756629601,
        ("mira.lund", "jonas"): 1756629001,
        ("mira.lund", "li.xiaomei"): 1756569601,
    }
    assert state.unread("mira.lund", "jonas") == 1


STREAM_THREE = "st_a9D4fK7hP2qS6tV8xZ1bC3eG5iL0mN-oR_uWyYzXwVt"


def test_stream_channels(state: State, run: Run) -> None:
    """All except one-to-one channels and deleted users; channels with missing read states are listed."""
    fill(
        state,
        {
            "st_general": ["mira", "jonas", "li", "left"],
            "st_project-42": ["mira", "zoe-7"],
            STREAM_THREE: ["mira", "jonas", "li"],
            "st_everybody": ["mira", "li", "jonas"],
        },
    )
    flatten, migrate = commands("Stream", "unread")

    assert run(flatten).splitlines() == [
        "team:everybody has 130 members and 2 read states",
        "livestream:keynote has 3 members and 0 read states",
    ]
    run(migrate)

    assert counts(state, "st_general", "st_project-42", STREAM_THREE, "st_everybody") == {
        "st_general": {"mira": 4, "jonas": 0, "li": 11, "left": BEFORE},
        "st_project-42": {"mira": 0, "zoe-7": 2},
        STREAM_THREE: {"mira": 3, "jonas": 1, "li": 0},
        "st_everybody": {"mira": 6, "li": 5, "jonas": BEFORE},
    }
    assert len(STREAM_THREE) <= 48


def test_stream_direct_channels(state: State, run: Run) -> None:
    """No row for members who never read; verifying finds the counts of the export."""
    state.add_messages("jonas", "mira", 2, at=1756629500)
    state.add_messages("mira", "jonas", 1, at=1756629600)
    state.add_messages("li", "zoe-7", 2, at=1755270000)

    for command in commands("Stream", "read"):
        run(command)

    assert read_times(state, "mira", "jonas", "li", "zoe-7") == {
        ("jonas", "mira"): 1756629601,
        ("mira", "jonas"): 1756629001,
        ("zoe-7", "li"): 1755270001,
    }


@pytest.mark.parametrize("program", ["stream_unread.py", "stream_direct.py"])
def test_a_channel_export_of_stream_is_refused(program: str, run: Run, folder: Path) -> None:
    """It has no read state, so that all counts would be 0."""
    run(f"python3 {program} stream-export.json > rows.jsonl", ends=1)
    assert (folder / "rows.jsonl").read_bytes() == b""


SENDBIRD = "sb_21c0d617e45a7db4e12a7f5efdb4df4743b11c16"


def test_sendbird_members(state: State, run: Run) -> None:
    """Members on several pages, channels with generated and chosen URLs; no row for invited or deactivated members."""
    fill(state, {SENDBIRD: ["mira", "jonas", "li-88", "new", "gone"], "sb_lobby_of_2025": ["mira", "zoe"]})

    for command in commands("Sendbird", "unread"):
        run(command)

    assert counts(state, SENDBIRD, "sb_lobby_of_2025") == {
        SENDBIRD: {"mira": 3, "jonas": 0, "li-88": 12, "new": BEFORE, "gone": BEFORE},
        "sb_lobby_of_2025": {"mira": 0, "zoe": 6},
    }
    assert len(SENDBIRD) <= 48


def test_sendbird_direct_chats(state: State, run: Run) -> None:
    """Milliseconds become seconds; no row for members who never read."""
    state.add_account("mira", "jonas", "li-88", "zoe")

    for command in commands("Sendbird", "read"):
        run(command)

    assert read_times(state, "mira", "jonas", "li-88", "zoe") == {
        ("jonas", "mira"): 1756629601,
        ("mira", "jonas"): 1756629001,
        ("zoe", "li-88"): 1755270001,
    }
