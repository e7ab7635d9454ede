"""The stand-in service and a real Valkey, as fixtures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from .stand_in import StandIn
from .store import Store


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
