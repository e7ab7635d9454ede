"""One name, one meaning; and a docstring begins with a noun or a verb, not with a clause in place of a noun."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLAUSE = re.compile(r"(What|Who|Whoever|Whose|How|Where|Why|That)\b")


def docstrings(module: Path) -> Iterator[str]:
    """Yield the docstrings of a module, its classes, functions and attributes."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def test_no_docstring_begins_with_a_clause() -> None:
    modules = [module for folder in ("tim_async", "benchmarks") for module in (ROOT / folder).rglob("*.py")]
    found = [f"{module}: {text}" for module in modules for text in docstrings(module) if CLAUSE.match(text)]
    assert found == []


def test_no_class_name_stands_for_two_things() -> None:
    modules = (ROOT / "tim_async").rglob("*.py")
    classes = Counter(
        node.name
        for module in modules
        for node in ast.parse(module.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in classes.items() if count > 1] == []
