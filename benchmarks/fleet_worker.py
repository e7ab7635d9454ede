"""One process of a fleet: its clients share the quota, call without a pause and report their progress.

`benchmarks.fleet_run` starts it, with its settings as the only argument.  Each line of its output is a JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import random
import sys
import time
from typing import Any

from benchmarks.fleet_run import started
from benchmarks.policies import client
from tim_async import Attempt, Failed, TIMClient, TIMError
from tim_async.quota import RedisQuota

INTERVAL = 0.25
"""Seconds between two reports."""
NAME = "set_unread_msg_num"


class Member:
    """One client of the fleet.

    Args:
        settings: the settings of its process; see `Worker`.
        number: its number among the clients of its process.
    """

    def __init__(self, settings: dict[str, Any], number: int) -> None:
        self._settings = settings
        self._number = number
        self.shared = True
        self.done = self.failed = self.flaps = 0
        self.first: float | None = None
        self.waits: list[float] = []

    async def run(self) -> None:
        """Call from begin to end; a newcomer makes one call, at its time."""
        settings = self._settings
        quota = RedisQuota(settings["store"], **settings.get("quota", {})) if settings["store"] else None
        hook = None if settings["tasks"] else self._attempt
        options = settings.get("options", {})
        newcomers = settings.get("newcomers")
        if newcomers:
            await _until(settings["begin"] + newcomers[self._number])
        async with client(settings["base_url"], settings["limit"], quota=quota, on_attempt=hook, **options) as self.tim:
            if newcomers:
                start = time.monotonic()
                await self._one()
                self.first = time.monotonic() - start
                return
            await _until(settings["begin"])
            tasks = [asyncio.create_task(work) for work in self._work()]
            await _until(settings["end"])
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def observe(self) -> bool:
        """Return whether the client has changed between sharing and its fallback, and count the change."""
        if not hasattr(self, "tim") or self._settings.get("newcomers"):
            return False
        before, self.shared = self.shared, self.tim.stats()[NAME].shared
        self.flaps += self.shared is not before
        return self.shared is not before

    def _work(self) -> list[Any]:
        settings = self._settings
        if "calls" in settings:
            return [self._few(settings["calls"])]
        if not settings["tasks"]:
            return [self._call_interactively()]
        if settings["lane"] == "bulk":
            return [self._map()]
        return [self._loop() for _ in range(settings["tasks"])]

    async def _loop(self) -> None:
        while True:
            await self._one()

    async def _few(self, calls: int) -> None:
        for _ in range(calls):
            await self._one()

    async def _map(self) -> None:
        rows = (("group", f"member{n}", 1) for n in itertools.count())
        tasks = self._settings["tasks"]
        async with self.tim.batch.map(self.tim.set_unread_msg_num, rows, concurrency=tasks) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Failed):
                    self._fail(outcome.error)
                else:
                    self.done += 1

    async def _call_interactively(self) -> None:
        gaps = random.Random(0)
        while True:
            await asyncio.sleep(gaps.uniform(0.08, 0.12))
            await self._one()

    async def _one(self) -> None:
        try:
            await self.tim.set_unread_msg_num("group", f"member{self._number}", 1)
            self.done += 1
        except TIMError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failed += 1
        print(repr(error), file=sys.stderr)

    def _attempt(self, attempt: Attempt) -> None:
        self.waits.append(attempt.waited)

    tim: TIMClient


class Worker:
    """The process.

    Args:
        settings: base_url, limit, store (URL), begin and end (monotonic seconds), lane ("interactive" or "bulk"),
            tasks (callers that saturate the endpoint; 0 for a call about every 100 ms), clients (1), calls (number of
            calls before the client is idle), newcomers (for each client, seconds from the begin to its only call),
            options of the client and of the quota.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._members = [Member(settings, number) for number in range(settings.get("clients", 1))]
        self._logged: list[str] = []

    async def run(self) -> None:
        """Run all clients from begin to end, and report."""
        logging.getLogger("tim_async").addHandler(_Collector(self._logged))
        reporting = asyncio.create_task(self._report_progress())
        await asyncio.gather(*(member.run() for member in self._members))
        reporting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reporting
        self._report(
            waits=[wait for member in self._members for wait in member.waits],
            each=[member.done for member in self._members],
            firsts=[member.first for member in self._members if member.first is not None],
            flaps=max(member.flaps for member in self._members),
            logged=self._logged,
            cpu=time.process_time(),
            ended=True,
        )

    async def _report_progress(self) -> None:
        await _until(self._settings["begin"])
        step = INTERVAL if len(self._members) > 1 else 0.01
        reported = time.monotonic()
        while True:
            await asyncio.sleep(step)
            changed = sum(member.observe() for member in self._members) > 0
            if changed or time.monotonic() >= reported + INTERVAL:
                reported = time.monotonic()
                self._report(**({"shared": all(member.shared for member in self._members)} if changed else {}))

    def _report(self, **more: Any) -> None:
        done, failed = (sum(getattr(member, name) for member in self._members) for name in ("done", "failed"))
        line = {"at": time.monotonic(), "done": done, "failed": failed, "cpu": time.process_time(), **more}
        print(json.dumps(line), flush=True)


class _Collector(logging.Handler):
    """A handler that collects messages of level WARNING or above."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def main() -> None:
    """Run with the settings given."""
    settings = started()
    skew = settings.get("skew", 0.0)
    if skew:
        unskewed = time.time
        time.time = lambda: unskewed() + skew
    asyncio.run(Worker(settings).run())


if __name__ == "__main__":
    main()
