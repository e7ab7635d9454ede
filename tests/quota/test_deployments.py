"""Deployments of the store, each with its failure under load: no call fails, and no second exceeds the limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stand_in import APP, StandIn
from tests.topologies import Topology, deployments, wait
from tim_async.quota import RedisQuota

from .support import COMMAND, NAME, Counting, answers, calling, client, until

LIMIT = 50
TABLE = dict(deployments(Path("unused"), "")).keys()


@pytest.mark.parametrize("name", TABLE)
async def test_a_deployments_failure_under_load_fails_no_call_and_exceeds_no_limit(
    service: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """One client uses its fallback share, the other waits; both share again once there is a primary."""
    counting = service.answer = Counting(LIMIT)
    make = dict(deployments(tmp_path, f"tim_async:{{{APP}:{COMMAND}}}"))[name]
    topology = await asyncio.to_thread(start, make)
    try:
        async with (
            client(service, RedisQuota(topology.url, fallback_share=0.5), LIMIT) as one,
            client(service, RedisQuota(topology.url, fail_closed=True), LIMIT) as two,
        ):

            def shared() -> bool:
                return one.stats()[NAME].shared and two.stats()[NAME].shared

            async with calling((one, "one"), (two, "two")):
                await until(lambda: answers(counting) >= 60)
                await asyncio.to_thread(topology.disturb)
                await asyncio.to_thread(wait, topology.decided)
                await until(shared)
                before = answers(counting)
                await until(lambda: answers(counting) >= before + 20)
                await asyncio.to_thread(topology.settle)
                await until(lambda: answers(counting) >= before + 70)
                assert shared()
    finally:
        await asyncio.to_thread(topology.__exit__)
    assert counting.refused == 0
    assert counting.max_per_second() <= LIMIT


def start(make: Callable[[], Topology]) -> Topology:
    return make().__enter__()
