"""Importing loads no module before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded_by(statement: str) -> set[str]:
    """Return the modules of a fresh interpreter after a statement."""
    program = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("statement", ["import tim_async", "import tim_async.emulator.pytest_plugin"])
def test_the_package_and_the_plugin_load_no_http_library(statement: str) -> None:
    """So an installed but unused plugin costs little."""
    assert not loaded_by(statement) & {"aiohttp", "tenacity", "jwt", "aiolimiter", "click", "rich"}


def test_the_client_does_not_load_what_it_may_never_need() -> None:
    """Retrying and signing load their libraries at their first use."""
    loaded = loaded_by("from tim_async import TIMClient; from tim_async.blocking import Portal")
    assert not loaded & {"tenacity", "jwt", "click", "rich", "tim_async.emulator"}
