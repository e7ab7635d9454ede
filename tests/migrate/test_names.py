"""The names of ``tim_async.migrate``."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from tim_async import migrate


@pytest.mark.parametrize("name", migrate.__all__)
def test_every_name_is_there(name: str) -> None:
    """And listed."""
    assert getattr(migrate, name) is not None
    assert name in dir(migrate)


def test_no_name_is_that_of_a_module() -> None:
    """Importing the module would put it in the name's place."""
    modules = {module.name for module in pkgutil.iter_modules(migrate.__path__)}
    assert modules.isdisjoint(migrate.__all__)


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = migrate.nothing  # type: ignore[attr-defined]


def test_importing_it_opens_and_loads_nothing() -> None:
    """Neither the HTTP client nor SQLite."""
    program = "import sys, tim_async.migrate; print([name for name in ('aiohttp', 'sqlite3') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
