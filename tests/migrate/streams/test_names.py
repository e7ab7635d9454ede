"""The names of ``tim_async.migrate.streams``."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from tim_async.migrate import streams


@pytest.mark.parametrize("name", streams.__all__)
def test_every_name_is_there(name: str) -> None:
    """And listed, and said what it is."""
    assert getattr(streams, name).__doc__
    assert name in dir(streams)


def test_no_name_is_that_of_a_module() -> None:
    """Importing the module would put it in the name's place."""
    modules = {module.name for module in pkgutil.iter_modules(streams.__path__)}
    assert modules.isdisjoint(streams.__all__)


def test_importing_it_loads_nothing() -> None:
    program = "import sys, tim_async.migrate.streams; print({'aiohttp', 'redis'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
