"""The stand-in server, in a process of its own: it counts every arrival and refuses calls over the limit.

It is stricter than the emulator and has no accounts, groups or signatures: it only counts.  It also imitates the path
between client and server: each call is delayed before its arrival is counted and again after it, by independent delays
with a mean of half the RTT each, because it is the first delay that bunches arrivals.

`benchmarks.remote` starts it: it prints its port and runs until its standard input closes, so it cannot outlive the
benchmark.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from aiohttp import web

from benchmarks import calls
from tim_async.emulator._windows import Window

SPIKE = 0.2
"""The additional delay of a spike, seconds."""


@dataclass(frozen=True)
class Config:
    """The service, and the path to it.

    Attributes:
        window: "sliding", "calendar" or "none".
        limit: calls a second, for each endpoint.
        count_refused: whether refused calls count in the sliding second, too.
        rtt: mean round trip, seconds.
        cv: coefficient of variation of each one-way delay, lognormal; 0 for a fixed delay.
        spike_share: share of calls that are delayed by 200 ms more, on a random one of the two ways.
        foreign_rate, foreign_start, foreign_end: the rate, calls/s, of another consumer on every endpoint, and the
            seconds from the first arrival to its start and end.
        record: whether to keep each arrival for the report; off for millions of calls.
        seed: the seed of the delays, the same for all policies under comparison.
    """

    window: Literal["sliding", "calendar", "none"] = "sliding"
    limit: int = 200
    count_refused: bool = False
    rtt: float = 0.0
    cv: float = 0.0
    spike_share: float = 0.0
    foreign_rate: float = 0.0
    foreign_start: float = 0.0
    foreign_end: float = 0.0
    record: bool = True
    seed: int = 0


class Delays:
    """The random one-way delays."""

    def __init__(self, config: Config) -> None:
        self._random = random.Random(config.seed)
        self._mean = config.rtt / 2
        self._spikes = config.spike_share
        # A lognormal with this mean and this coefficient of variation.
        self._sigma = math.sqrt(math.log(1 + config.cv**2))
        self._mu = math.log(self._mean) - self._sigma**2 / 2 if self._mean else 0.0

    def draw(self) -> tuple[float, float]:
        """Draw the seconds before the arrival and those after it."""
        there, back = self._half(), self._half()
        if self._spikes and self._random.random() < self._spikes:
            if self._random.random() < 0.5:
                there += SPIKE
            else:
                back += SPIKE
        return there, back

    def _half(self) -> float:
        if not self._mean or not self._sigma:
            return self._mean
        return self._random.lognormvariate(self._mu, self._sigma)


@dataclass
class Foreign:
    """Another consumer, which makes `rate` calls a second between two times after the first arrival."""

    rate: float = 0.0
    start: float = 0.0
    end: float = 0.0
    taken: int = field(default=0, compare=False)

    def due(self, since_first: float) -> list[float]:
        """Return the times, since the first arrival, of its calls up to now that were not returned yet."""
        if not self.rate:
            return []
        until = min(since_first, self.end)
        count = max(0, int((until - self.start) * self.rate))
        times = [self.start + (n + 1) / self.rate for n in range(self.taken, count)]
        self.taken = max(self.taken, count)
        return times


def per_second(times: Sequence[float], start: float, end: float) -> float:
    """Return the mean number a second of the times from ``start`` until ``end``."""
    return sum(start <= at < end for at in times) / (end - start)


def fullest_second(arrivals: Sequence[float]) -> int:
    """Return the maximum number of arrivals in a sliding second; `arrivals` must be in order."""
    fullest = first = 0
    for last, at in enumerate(arrivals):
        while arrivals[first] <= at - 1.0:
            first += 1
        fullest = max(fullest, last - first + 1)
    return fullest


class Counter:
    """One endpoint: its window, and a record of the arrivals."""

    def __init__(self, config: Config) -> None:
        self._record = config.record
        self._window = None
        if config.window != "none":
            self._window = Window(config.window, config.limit, count_refused=config.count_refused)
        # A calendar second is a second of the wall clock.
        self._offset = time.time() - time.monotonic() if config.window == "calendar" else 0.0
        self._foreign = Foreign(config.foreign_rate, config.foreign_start, config.foreign_end)
        self.accepted = self.refused = 0
        self.first: float | None = None
        self.accepted_times: list[float] = []
        self.refused_times: list[float] = []

    def arrive(self, now: float) -> bool:
        if self.first is None:
            self.first = now
        # A window matters only at an arrival, so the other consumer's calls are counted then.
        for due in self._foreign.due(now - self.first):
            if self._window is not None:
                self._window.fill(self.first + due + self._offset)
        accepted = self._window is None or self._window.admit(now + self._offset)
        if accepted:
            self.accepted += 1
        else:
            self.refused += 1
        if self._record:
            (self.accepted_times if accepted else self.refused_times).append(now)
        return accepted

    def report(self) -> dict[str, Any]:
        return {
            "accepted": self.accepted,
            "refused": self.refused,
            "fullest": fullest_second(sorted(self.accepted_times + self.refused_times)),
            "first": self.first,
            "accepted_times": self.accepted_times,
            "refused_times": self.refused_times,
        }


class Server:
    """The handler of the calls, and of `/_control/…` for the benchmark."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._delays = Delays(config)
        self._counters: dict[str, Counter] = {}
        self._stalled_until = 0.0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith("/_control/"):
            return self._control(request)
        sent = json.loads(await request.read())
        there, back = self._delays.draw()
        if there:
            await asyncio.sleep(there)
        if (left := self._stalled_until - time.monotonic()) > 0:
            await asyncio.sleep(left)
        counter = self._counters.get(path)
        if counter is None:
            counter = self._counters[path] = Counter(self._config)
        accepted = counter.arrive(time.monotonic())
        answer = calls.answer(path, sent) if accepted else calls.TOO_FAST
        if back:
            await asyncio.sleep(back)
        # Even over the limit the service answers HTTP 200; only ErrorCode differs.
        return web.Response(body=json.dumps(answer).encode(), content_type="application/json")

    def _control(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/_control/stall":
            self._stalled_until = time.monotonic() + float(request.query["seconds"])
            return web.json_response({})
        commands = {path.lstrip("/"): counter.report() for path, counter in self._counters.items()}
        names = {command: name for name, command in calls.COMMANDS.items()}
        return web.json_response({names.get(command, command): report for command, report in commands.items()})


async def serve(config: Config) -> None:
    """Serve on a free port on loopback until standard input closes."""
    runner = web.ServerRunner(web.Server(Server(config).handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)

    # Exempt imported modules from garbage collection, which would only delay arrivals.
    gc.collect()
    gc.freeze()
    await until_stdin_closes()
    await runner.cleanup()


async def until_stdin_closes() -> None:
    """Wait for the end of standard input, i.e. for the end of the parent process."""
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch() -> None:
        sys.stdin.buffer.read()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=watch, daemon=True).start()
    await closed.wait()


def arguments(config: Config) -> str:
    """Encode a configuration as this module's command-line argument."""
    return json.dumps(asdict(config))


if __name__ == "__main__":
    asyncio.run(serve(Config(**json.loads(sys.argv[1]))))
