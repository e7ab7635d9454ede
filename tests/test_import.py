"""What importing does: nothing that is not asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after a statement."""
    program = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("statement", ["import tim_async", "import tim_async.emulator.pytest_plugin"])
def test_no_http_library_before_there_is_a_client(statement: str) -> None:
    """The package and the pytest plugin cost those who use neither nothing."""
    assert not loaded_by(statement) & {"aiohttp", "tenacity", "jwt", "aiolimiter", "click", "rich"}


def test_the_client_comes_without_what_it_may_never_need() -> None:
    """Retrying and signing load their libraries when they are used."""
    loaded = loaded_by("from tim_async import TIMClient; from tim_async.blocking import Portal")
    assert not loaded & {"tenacity", "jwt", "click", "rich", "tim_async.emulator"}


def test_importing_configures_no_logging() -> None:
    """A library leaves that to the program."""
    program = (
        "import logging; from tim_async import TIMClient; "
        "assert not logging.root.handlers; assert not logging.getLogger('tim_async').handlers"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
