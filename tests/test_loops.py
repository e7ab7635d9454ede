"""Tests and the code under test run on the event loop that ``--loop`` chooses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from . import virtual_time


async def kind_of_loop() -> set[str]:
    """Return the differences of the running loop from the default one."""
    loop = asyncio.get_running_loop()
    started: list[bool] = []

    async def start() -> None:
        started.append(True)

    task = loop.create_task(start())
    found = {
        "uvloop": type(loop).__module__.startswith("uvloop"),
        "eager": bool(started),
        "debug": loop.get_debug(),
    }
    await task
    return {name for name, holds in found.items() if holds}


@pytest.fixture
def chosen(request: pytest.FixtureRequest) -> set[str]:
    return {request.config.getoption("--loop")} - {"asyncio"}


async def test_a_test_runs_on_the_chosen_loop(chosen: set[str]) -> None:
    assert await kind_of_loop() == chosen


def in_a_thread() -> set[str]:
    found: list[set[str]] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(kind_of_loop())))
    thread.start()
    thread.join()
    return found[0]


def by_a_runner() -> set[str]:
    with asyncio.Runner() as runner:
        return runner.run(kind_of_loop())


@pytest.mark.parametrize("run", [lambda: asyncio.run(kind_of_loop()), by_a_runner, in_a_thread])
def test_a_started_loop_is_the_chosen_one(chosen: set[str], run: Callable[[], set[str]]) -> None:
    assert run() == chosen


def test_virtual_time_has_the_chosen_task_factory_and_debug_mode(chosen: set[str]) -> None:
    assert virtual_time.run(kind_of_loop()) == chosen - {"uvloop"}
