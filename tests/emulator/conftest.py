"""Fixtures: a manual clock, an emulator that uses it, and a caller."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tim_async.emulator import Emulator

# Imported rather than found by entry point, so that the fixtures come from these sources, installed or not.
from tim_async.emulator.pytest_plugin import tim_emulator, tim_emulator_options

from .support import Caller, Clock

__all__ = ["call", "clock", "service", "tim_emulator", "tim_emulator_options"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def service(clock: Clock) -> AsyncIterator[Emulator]:
    async with Emulator(limit=None, clock=clock) as running:
        yield running


@pytest.fixture
async def call(service: Emulator) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as session:
        yield Caller(service, session)
