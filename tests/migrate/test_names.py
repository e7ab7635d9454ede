"""The public names of ``tim_async.migrate``."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from tim_async import migrate


@pytest.mark.parametrize("name", vars(migrate)["__all__"])
def test_every_public_name_exists(name: str) -> None:
    """And is listed by dir()."""
    assert getattr(migrate, name) is not None
    assert name in dir(migrate)


def test_no_public_name_is_that_of_a_module() -> None:
    """Importing the module would replace it."""
    modules = {module.name for module in pkgutil.iter_modules(migrate.__path__)}
    assert modules.isdisjoint(vars(migrate)["__all__"])


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = migrate.nothing  # type: ignore[attr-defined]


def test_importing_it_does_not_load_aiohttp_and_sqlite3() -> None:
    program = "import sys, tim_async.migrate; print([name for name in ('aiohttp', 'sqlite3') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
