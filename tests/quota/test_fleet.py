"""Real processes on one store: with crashes, stops and wrong clocks each has its part, and no call is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import PIPE, ForkedProgram, in_thread
from tests.stand_in import StandIn
from tests.store import Store
from tim_async.quota import RedisQuota

from .support import Counting, answers, quota_on, until

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60


@contextlib.asynccontextmanager
async def fleet(
    service: StandIn, quota: RedisQuota, *workers: dict[str, Any]
) -> AsyncIterator[dict[str, ForkedProgram]]:
    """Start processes, all calling, by name; at the end each must have exited with 0, unless it was killed."""
    defaults = {"url": service.url, "store": quota._store, "limit": LIMIT, "tasks": 5}
    counting = service.answer
    assert isinstance(counting, Counting)
    with contextlib.ExitStack() as started:
        running: dict[str, ForkedProgram] = {}
        for number, worker in enumerate(workers):
            name = f"worker{number}"
            settings = {**defaults, "name": name, "quota": {"namespace": quota._namespace}, **worker}
            command = ("-m", "tests.quota.worker", json.dumps(settings))
            running[name] = started.enter_context(ForkedProgram(*command, cwd=ROOT, stdin=PIPE, stderr=PIPE))
        await until(lambda: len(counting.accepted) == len(workers), 60)
        yield running
        # Each ends with its standard input.
        ends = await asyncio.gather(*(in_thread(process.communicate) for process in running.values()))
        for process, (_, errors) in zip(running.values(), ends, strict=True):
            assert all(line.startswith("the shared quota at ") for line in errors.splitlines()), errors
            assert process.returncode in (0, -signal.SIGKILL)


async def test_each_process_has_its_part_whatever_its_clock(service: StandIn, lasting: Store) -> None:
    counting = service.answer = Counting(LIMIT)
    quota = quota_on(lasting)
    async with fleet(service, quota, *({"skew": skew} for skew in (-5.0, 5.0, 0.0, 3600.0))):
        counting.accepted.clear()
        await until(lambda: answers(counting) >= 120)
        parts = dict(counting.accepted)
    assert counting.refused == 0
    assert counting.max_per_second() <= LIMIT
    assert min(parts.values()) >= 15, parts


@pytest.mark.parametrize("lane", ["INTERACTIVE", "BULK"])
async def test_the_others_take_the_part_of_stopped_and_killed_processes(
    service: StandIn, lasting: Store, lane: str
) -> None:
    counting = service.answer = Counting(LIMIT)
    quota = quota_on(lasting)
    async with fleet(service, quota, *({"lane": lane} for _ in range(4))) as running:
        for name in ("worker0", "worker1"):
            running[name].send_signal(signal.SIGSTOP)
            before = answers(counting)
            await until(lambda: answers(counting) >= before + LIMIT)  # noqa: B023 - called at once
            running[name].send_signal(signal.SIGCONT)
        done = counting.accepted["worker0"]
        await until(lambda: counting.accepted["worker0"] > done)
        running["worker2"].kill()
        await in_thread(running["worker2"].wait)
        before = answers(counting)
        await until(lambda: answers(counting) >= before + LIMIT)
    # A process that is stopped between its permit and the sending sends the call when it continues.
    stops = 2
    assert counting.refused <= stops
    assert counting.max_per_second() <= LIMIT + stops
