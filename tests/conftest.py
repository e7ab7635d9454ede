"""The stand-in service as a fixture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from .stand_in import StandIn


@pytest.fixture
async def service() -> AsyncIterator[StandIn]:
    """A stand-in; at the end every request must have been well-formed, and no task may be left."""
    async with StandIn() as running:
        yield running
    assert running.violations == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
