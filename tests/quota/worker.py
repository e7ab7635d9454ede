"""A process of a fleet, which saturates one endpoint until its standard input ends or a call fails.

Its argument is a JSON object: url of the service, store, name, limit, tasks, lane, quota (options), skew (seconds by
which its clock is wrong).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from tests.stand_in import APP, KEY
from tim_async import Lane, TIMClient
from tim_async.quota import RedisQuota


async def work(settings: dict[str, Any]) -> None:
    """Call until standard input ends."""
    tim = TIMClient(
        sdk_app_id=APP,
        secret_key=KEY,
        base_url=settings["url"],
        rates={"get_c2c_unread_msg_num": settings["limit"]},
        strict=True,  # delays of a busy machine must not cause refusals
        quota=RedisQuota(settings["store"], **settings.get("quota", {})),
    )
    async with tim:
        asking = tim.with_options(lane=Lane[settings.get("lane", "INTERACTIVE")])

        async def loop() -> None:
            while True:
                await asking.get_all_c2c_unread_msg_num(settings["name"])

        tasks: list[asyncio.Future[Any]] = [asyncio.create_task(loop()) for _ in range(settings["tasks"])]
        end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        done, _ = await asyncio.wait([*tasks, end], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()


def main() -> None:
    """Run with the settings of the argument."""
    settings = json.loads(sys.argv[1])
    real = time.time
    time.time = lambda: real() + settings.get("skew", 0.0)
    asyncio.run(work(settings))


if __name__ == "__main__":
    main()
