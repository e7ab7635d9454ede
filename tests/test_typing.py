"""Type checking of a user's program that uses every public name; ``.ci`` runs pyright as well."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tim_async
from tim_async import TIMClient
from tim_async.config import ClientOptions

pytestmark = pytest.mark.processes

SAMPLE = Path(__file__).with_name("typing_sample.py")
MISTAKES = Path(__file__).with_name("typing_mistakes.py")
STAR = Path(__file__).with_name("typing_star.py")
ROOT = Path(tim_async.__file__).parents[1]


def test_mypy_accepts_a_users_program_and_finds_a_users_mistakes() -> None:
    """In strict mode, without this project's configuration.  A missed mistake is reported as an unused comment."""
    found = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file="),
            # One run for all programs: most of its time goes into the types of aiohttp.
            *("--cache-dir=/dev/null", str(SAMPLE), str(MISTAKES), str(STAR)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        check=False,
    )
    assert (found.stdout, found.stderr, found.returncode) == ("", "", 0)


def test_the_options_of_a_client_are_the_arguments_of_its_constructor() -> None:
    """`from_env` accepts each of them, with the same type."""
    arguments = {name: argument.annotation for name, argument in inspect.signature(TIMClient).parameters.items()}
    assert {name: option.__forward_arg__ for name, option in ClientOptions.__annotations__.items()} == arguments


def test_the_sample_uses_every_public_name() -> None:
    used = {
        alias.name
        for node in ast.walk(ast.parse(SAMPLE.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "tim_async"
        for alias in node.names
    }
    assert used == {*vars(tim_async)["__all__"]}


def test_the_package_has_a_py_typed_marker() -> None:
    """Type checkers ignore the annotations of packages without it."""
    assert (Path(tim_async.__file__).parent / "py.typed").exists()
