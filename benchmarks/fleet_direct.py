"""One process of a fleet without a service: it takes permits of the shared quota and returns each at once.

It is for limits too high for one machine's sockets; queue, limiter and store are the client's own.
`benchmarks.fleet_run` starts it, with its settings as the only argument.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from typing import Any

from benchmarks import calls
from benchmarks.fleet_run import NAME, started
from tim_async._limiter.queue import RequestQueue
from tim_async.quota import RedisQuota


async def work(settings: dict[str, Any]) -> None:
    """Take permits from begin to end, and print their times."""
    sharing = RedisQuota(settings["store"]).share(1400000000)
    limiter = functools.partial(sharing.limiter, calls.COMMANDS[NAME], settings["limit"], True)
    queue = RequestQueue(settings["limit"], strict=True, limiter=limiter)
    times: list[float] = []

    async def loop() -> None:
        while True:
            permit = await queue.enter()
            times.append(time.monotonic())
            await asyncio.sleep(0)
            queue.leave(permit, answered=True)

    await asyncio.sleep(max(0.0, settings["begin"] - time.monotonic()))
    tasks = [asyncio.create_task(loop()) for _ in range(settings["tasks"])]
    await asyncio.sleep(max(0.0, settings["end"] - time.monotonic()))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    queue.close()
    await sharing.aclose()
    line = {"at": time.monotonic(), "done": len(times), "failed": 0, "each": [len(times)], "times": times}
    print(json.dumps(line))


if __name__ == "__main__":
    asyncio.run(work(started()))
