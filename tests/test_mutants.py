"""The tests that ``[tool.mutmut]`` in pyproject.toml names: one that is not there ends the session before its first."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_each_selected_test_exists() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for selected in pyproject["tool"]["mutmut"]["pytest_add_cli_args_test_selection"]:
        file, _, name = selected.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert not name or name in {getattr(node, "name", "") for node in tree.body}, selected
