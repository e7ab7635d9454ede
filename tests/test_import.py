"""Importing loads no module before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HTTP = {"aiohttp", "tenacity", "jwt", "aiolimiter"}
COMMANDS = {"click", "rich"}
CLIENT = {"tim_async.client", "tim_async.usersig", "tim_async.models"}


def loaded_by(statement: str) -> set[str]:
    """Return the modules of a fresh interpreter after a statement."""
    program = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize(
    ("statement", "needless"),
    [
        ("import tim_async", HTTP | COMMANDS),
        ("import tim_async.emulator.pytest_plugin", HTTP | COMMANDS),
        ("from tim_async.emulator import *", CLIENT),
        ("import tim_async.webhooks", HTTP | COMMANDS | {"multidict", "redis"}),
        (
            "from tim_async import TIMClient; from tim_async.blocking import Portal",
            {"tenacity", "jwt", "tim_async.emulator"} | COMMANDS,
        ),
    ],
    ids=["the package", "the pytest plugin", "the emulator", "webhooks", "the client"],
)
def test_importing_loads_only_what_is_needed(statement: str, needless: set[str]) -> None:
    """An installed but unused plugin costs little, an app can receive webhooks without a client's libraries, the
    emulator shares no code with the client, and the client loads the libraries of retries and signing at first use.
    """
    assert not loaded_by(statement) & needless


def test_webhooks_need_of_this_package_only_the_errors() -> None:
    ours = {name for name in loaded_by("import tim_async.webhooks") if name.startswith("tim_async")}
    needed = {"tim_async", "tim_async.errors", "tim_async._codes", "tim_async._lazy"}
    assert {name for name in ours if not name.startswith("tim_async.webhooks")} == needed
