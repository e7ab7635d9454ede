from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from tests.programs import ROOT
from tim_async.cli.app import cli
from tim_async.emulator import Emulator, fill_example

VARIABLES = ("SDK_APP_ID", "SECRET_KEY", "SECRET_KEY_FILE", "IDENTIFIER", "REGION", "BASE_URL", "CREDENTIALS")

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the machine's credentials from the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(f"TIM_{name}", raising=False)


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as emulator:
        fill_example(emulator.state)
        yield emulator


@pytest.fixture
def reach(service: Emulator) -> dict[str, str]:
    """The environment with the URL and the credentials of the emulator."""
    options = service.client_options()
    return {f"TIM_{name.upper()}": str(value) for name, value in options.items()}


@pytest.fixture
def run() -> Run:
    """Run a command in this process, with the given environment only."""

    def invoke(*args: str, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(cli, args, env=dict(env or {}), prog_name="tim-async")

    return invoke


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a subprocess, which finds the package and buffers its output as in a shell."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
