"""Fixtures for the stand-in service and a real Valkey; the option that chooses the event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from . import loops
from .stand_in import StandIn
from .store import Store

# A busy machine, or fsync, may be slow at any time; that is no failure.  The fixtures that examples share are folders,
# servers and monkeypatches, and each example sets up its own state.
settings.register_profile(
    "suite",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# For one more event loop or Python, after the whole suite has passed on another: --hypothesis-profile=few
settings.register_profile("few", settings.get_profile("suite"), max_examples=20)
settings.load_profile("suite")

# Programs that a test starts need no certificate authorities, and loading them takes a quarter of the start-up time.
os.environ["SSL_CERT_FILE"] = os.devnull
# Nor does pydantic need plugins: logfire's doubles the import time of FastAPI.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loop",
        choices=loops.KINDS,
        default="asyncio",
        help="event loop of the tests: asyncio (default), uvloop, eager (tasks start at once; Python 3.12+), debug",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background jobs ignore SIGINT and nohup ignores SIGHUP; processes that tests start would inherit this.
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)
    try:
        loops.choose(config.getoption("--loop"))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_make_parametrize_id(config: pytest.Config, val: object) -> str | None:
    """Name long values by their length: compressed ones depend on the time, and all workers must use the same names."""
    if isinstance(val, str | bytes) and len(val) > 60:
        return f"{len(val)} {'characters' if isinstance(val, str) else 'bytes'}"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exempt modules and tests from garbage collection, which would traverse them again and again in vain."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_report_header(config: pytest.Config) -> str:
    return f"event loop: {config.getoption('--loop')}"


@pytest.fixture
async def service() -> AsyncIterator[StandIn]:
    """A stand-in; at the end, every request must have been as documented and no task may be left."""
    async with StandIn() as running:
        yield running
    assert running.violations == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A running Valkey for this test alone, without persistence."""
    with Store(tmp_path / "valkey") as running:
        yield running
