"""The stand-in service and a real Valkey, as fixtures; the option that chooses the event loop."""

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

# A busy machine, or fsync, may be slow at any time: that is no finding.  A fixture that all examples share is a folder,
# a server or a monkeypatch, and each example begins by itself.
settings.register_profile(
    "suite",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# For one more event loop or Python, where the whole suite has passed on another: --hypothesis-profile=few
settings.register_profile("few", settings.get_profile("suite"), max_examples=20)
settings.load_profile("suite")

# Programs that a test starts need none of the machine's certificate authorities, and reading them is a quarter of the
# time in which they start.
os.environ["SSL_CERT_FILE"] = os.devnull
# Nor does pydantic need its plugins: that of logfire doubles the time in which FastAPI is imported.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loop",
        choices=loops.KINDS,
        default="asyncio",
        help="event loop of the tests: asyncio (default), uvloop, eager (tasks start at once; Python 3.12+), debug",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Background jobs of a shell ignore the one, those of nohup the other, and so would all that tests start.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    try:
        loops.choose(config.getoption("--loop"))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_make_parametrize_id(config: pytest.Config, val: object) -> str | None:
    """Name long values by their length: a compressed one holds the time, and each worker would name it otherwise."""
    if isinstance(val, str | bytes) and len(val) > 60:
        return f"{len(val)} {'characters' if isinstance(val, str) else 'bytes'}"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exempt modules and tests from garbage collection, which would visit them again and again, and find nothing."""
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
    """A stand-in; at the end every request must have been well-formed, and no task may be left."""
    async with StandIn() as running:
        yield running
    assert running.violations == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A running Valkey of this test alone, without persistence."""
    with Store(tmp_path / "valkey") as running:
        yield running
