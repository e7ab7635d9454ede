"""A user's program that uses every public name passes mypy in strict mode."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tim_async

pytestmark = pytest.mark.processes

SAMPLE = Path(__file__).with_name("typing_sample.py")
ROOT = Path(tim_async.__file__).parents[1]


def test_a_users_program_is_clean_in_strict_mode_and_mistakes_are_found(tmp_path: Path) -> None:
    """Without our configuration: a correct program has no errors, and each wrong line of another has one."""
    wrong = tmp_path / "wrong.py"
    lines = [
        "from tim_async import TIMClient, Done",
        "async def main(tim: TIMClient) -> None:",
        "    await tim.set_unread_msg_num('g', 'alice', '3')",
        "    await tim.get_c2c_unread_msg_num('alice', [1])",
        "    await tim.admin_set_msg_read('alice', 'bob', 1700000000)",
        "    text: str = await tim.get_all_c2c_unread_msg_num('alice')",
        "    TIMClient(sdk_app_id='1', secret_key='k')",
        "    (await tim.get_c2c_unread_msg_num('alice', ['b'])).totals",
        "    tim.nothing",
        "from tim_async import Nonsense",
    ]
    wrong.write_text("\n".join(lines) + "\n")
    # One run for both programs: most of its time goes into the types of aiohttp.
    found = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file="),
            *("--hide-error-context", f"--cache-dir={tmp_path / 'cache'}", str(SAMPLE), str(wrong)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        check=False,
    )
    errors = [line for line in found.stdout.splitlines() if ": error:" in line]
    assert [line for line in errors if not line.startswith(f"{wrong}:")] == []
    assert {int(line.split(":")[1]) for line in errors} == {3, 4, 5, 6, 7, 8, 9, 10}, found.stdout
    assert (found.returncode, found.stderr) == (1, "")


def test_the_sample_uses_every_public_name() -> None:
    """A new name must be used in it."""
    used = {
        alias.name
        for node in ast.walk(ast.parse(SAMPLE.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "tim_async"
        for alias in node.names
    }
    assert used == {*tim_async.__all__}


def test_the_package_says_that_it_is_typed() -> None:
    """Or no type checker would look."""
    assert (Path(tim_async.__file__).parent / "py.typed").exists()
