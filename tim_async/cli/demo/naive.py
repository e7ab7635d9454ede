"""The naive way to send the same rows: an ``AsyncLimiter`` around each call, and no retries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from aiolimiter import AsyncLimiter

from tim_async.client import TIMClient
from tim_async.errors import TIMError
from tim_async.retrying import RetryPolicy

from .world import World

_UNLIMITED = 1e6


async def send(world: World, client_options: dict[str, Any], limit: int) -> int:
    """Send all rows.

    Args:
        world: the rows.
        client_options: the credentials, as keyword arguments of a ``TIMClient``.
        limit: calls/s on each endpoint.

    Returns:
        The number of failed calls.
    """
    rates = dict.fromkeys(("set_unread_msg_num", "admin_set_msg_read"), _UNLIMITED)
    limiters = AsyncLimiter(limit, 1), AsyncLimiter(limit, 1)

    async def call(limiter: AsyncLimiter, made: Awaitable[None]) -> bool:
        async with limiter:
            try:
                await made
            except TIMError:
                return False
            return True

    async with TIMClient(**client_options, rates=rates, retry=RetryPolicy(attempts=1)) as tim:
        counts = [tim.set_unread_msg_num(*key, after) for key, (_, _, after) in world.counts.items()]
        reads = [tim.admin_set_msg_read(*key, msg_read_time=time) for key, (_, time, _, _) in world.reads.items()]
        sent = [call(limiters[0], one) for one in counts] + [call(limiters[1], one) for one in reads]
        return (await asyncio.gather(*sent)).count(False)
