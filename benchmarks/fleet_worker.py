"""One process of a fleet: calls at will with the shared quota, and says once and again how it fares.

Started by `benchmarks.fleet` with its settings as the one argument.  Each line it prints is a JSON object.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from typing import Any

from benchmarks.policies import client
from tim_async import Attempt, Failed, TIMClient, TIMError
from tim_async.quota import RedisQuota

EVERY = 0.25
"""Seconds between two lines."""


class Worker:
    """Calls one endpoint until it is time to end.

    Args:
        settings: base_url, limit, store (URL), begin and end (monotonic seconds), lane ("interactive" or "bulk"),
            tasks (so many saturate the endpoint; 0 asks about every 100 ms), more options of the client.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._done = self._failed = 0
        self._waits: list[float] = []

    async def run(self) -> None:
        """From begin to end."""
        settings = self._settings
        quota = RedisQuota(settings["store"], **settings.get("quota", {})) if settings["store"] else None
        options = settings.get("options", {})
        async with client(
            settings["base_url"], settings["limit"], quota=quota, on_attempt=self._attempt, **options
        ) as tim:
            await asyncio.sleep(max(0.0, settings["begin"] - time.monotonic()))
            tasks = [asyncio.create_task(self._tell())]
            if not settings["tasks"]:
                tasks.append(asyncio.create_task(self._ask(tim)))
            elif settings["lane"] == "bulk":
                tasks.append(asyncio.create_task(self._map(tim)))
            else:
                tasks.extend(asyncio.create_task(self._loop(tim, n)) for n in range(settings["tasks"]))
            await asyncio.sleep(max(0.0, settings["end"] - time.monotonic()))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._say(waits=self._waits, ended=True)

    async def _loop(self, tim: TIMClient, number: int) -> None:
        while True:
            try:
                await tim.set_unread_msg_num("group", f"member{number}", 1)
                self._done += 1
            except TIMError as error:
                self._failed += 1
                print(repr(error), file=sys.stderr)

    async def _map(self, tim: TIMClient) -> None:
        rows = (("group", f"member{n}", 1) for n in itertools.count())
        async with tim.batch.map(tim.set_unread_msg_num, rows, concurrency=self._settings["tasks"]) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Failed):
                    self._failed += 1
                    print(repr(outcome.error), file=sys.stderr)
                else:
                    self._done += 1

    async def _ask(self, tim: TIMClient) -> None:
        gaps = random.Random(0)
        while True:
            await asyncio.sleep(gaps.uniform(0.08, 0.12))
            await self._one(tim)

    async def _one(self, tim: TIMClient) -> None:
        try:
            await tim.set_unread_msg_num("group", "asked", 1)
            self._done += 1
        except TIMError as error:
            self._failed += 1
            print(repr(error), file=sys.stderr)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self._say()

    def _attempt(self, attempt: Attempt) -> None:
        if not self._settings["tasks"]:
            self._waits.append(attempt.waited)

    def _say(self, **more: Any) -> None:
        line = {"at": time.monotonic(), "done": self._done, "failed": self._failed, **more}
        print(json.dumps(line), flush=True)


def main() -> None:
    """Run with the settings given."""
    settings = json.loads(sys.argv[1])
    skew = settings.get("skew", 0.0)
    if skew:
        told = time.time
        time.time = lambda: told() + skew
    asyncio.run(Worker(settings).run())


if __name__ == "__main__":
    main()
