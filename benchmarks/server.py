"""The stand-in server, a process of its own: counts every arrival, refuses what is over the limit.

It is stricter than the emulator and knows nothing of accounts, groups or signatures: it exists to count.
The path between client and server is imitated here too.  Each call is delayed twice, before its arrival is
counted and after, both drawn apart with a mean of half the RTT, since what bunches arrivals is the first.

Started by `benchmarks.remote`, never by hand: it prints its port and lives until its standard input closes,
so it cannot outlive the benchmark that started it.
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
from dataclasses import asdict, dataclass
from typing import Any, Literal

from aiohttp import web

from benchmarks import calls
from benchmarks.windows import Foreign, fullest_second
from tim_async.emulator._windows import Window

SPIKE = 0.2
"""Seconds that a spike adds."""


@dataclass(frozen=True)
class Config:
    """What kind of service, and what kind of path to it.

    Attributes:
        window: "sliding", "calendar" or "none".
        limit: calls a second, for each endpoint.
        count_refused: whether a refused arrival fills the sliding second as an accepted one does.
        rtt: mean of the round trip, seconds.
        cv: coefficient of variation of each half of it, lognormal; 0 is a fixed delay.
        spike_share: share of calls that are 200 ms late, on a half chosen by chance.
        foreign_rate, foreign_start, foreign_end: another consumer of the same quota, on every endpoint.
        record: keep each arrival for the report; off where millions are made.
        seed: the same delays for everyone who is compared.
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
    """Draws the two halves of each round trip."""

    def __init__(self, config: Config) -> None:
        self._random = random.Random(config.seed)
        self._mean = config.rtt / 2
        self._spikes = config.spike_share
        # A lognormal with this mean and this coefficient of variation.
        self._sigma = math.sqrt(math.log(1 + config.cv**2))
        self._mu = math.log(self._mean) - self._sigma**2 / 2 if self._mean else 0.0

    def draw(self) -> tuple[float, float]:
        """Seconds before the arrival and seconds after it."""
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


class Counter:
    """One endpoint: its window, and a record of what arrived."""

    def __init__(self, config: Config) -> None:
        self._record = config.record
        self._window = None
        if config.window != "none":
            self._window = Window(config.window, config.limit, count_refused=config.count_refused)
        # A calendar second is one of the wall clock.
        self._offset = time.time() - time.monotonic() if config.window == "calendar" else 0.0
        self._foreign = Foreign(config.foreign_rate, config.foreign_start, config.foreign_end)
        self.accepted = self.refused = 0
        self.first: float | None = None
        self.last = 0.0
        self.accepted_times: list[float] = []
        self.refused_times: list[float] = []

    def arrive(self, now: float) -> bool:
        if self.first is None:
            self.first = now
        # A window changes only when somebody arrives, so the other consumer's calls can wait until then.
        for due in self._foreign.due(now - self.first):
            if self._window is not None:
                self._window.fill(self.first + due + self._offset)
        accepted = self._window is None or self._window.admit(now + self._offset)
        self.last = now
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
            "last": self.last,
            "accepted_times": self.accepted_times,
            "refused_times": self.refused_times,
        }


class Server:
    """Answers the calls, and `/_control/…` for those who watch."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._delays = Delays(config)
        self._counters: dict[str, Counter] = {}
        self._stalled_until = {"arrivals": 0.0, "answers": 0.0}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith("/_control/"):
            return self._control(request)
        sent = json.loads(await request.read())
        there, back = self._delays.draw()
        if there:
            await asyncio.sleep(there)
        await self._stall("arrivals")
        counter = self._counters.get(path)
        if counter is None:
            counter = self._counters[path] = Counter(self._config)
        accepted = counter.arrive(time.monotonic())
        answer = calls.answer(path, sent) if accepted else calls.TOO_FAST
        if back:
            await asyncio.sleep(back)
        await self._stall("answers")
        # Over the limit the service still answers HTTP 200; only ErrorCode tells.
        return web.Response(body=json.dumps(answer).encode(), content_type="application/json")

    async def _stall(self, what: str) -> None:
        if (left := self._stalled_until[what] - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def _control(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/_control/stall":
            what = request.query.get("what", "arrivals")
            self._stalled_until[what] = time.monotonic() + float(request.query["seconds"])
            return web.json_response({})
        commands = {path.lstrip("/"): counter.report() for path, counter in self._counters.items()}
        names = {command: name for name, command in calls.COMMANDS.items()}
        return web.json_response({names.get(command, command): report for command, report in commands.items()})


async def serve(config: Config) -> None:
    """Serve on a free port of the loopback until standard input closes."""
    runner = web.ServerRunner(web.Server(Server(config).handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)

    # What is imported never becomes garbage; looking at it again would only make arrivals late.
    gc.collect()
    gc.freeze()
    await until_stdin_closes()
    await runner.cleanup()


async def until_stdin_closes() -> None:
    """Wait for the end of standard input, which is that of the process which holds the other end."""
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch() -> None:
        sys.stdin.buffer.read()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=watch, daemon=True).start()
    await closed.wait()


def arguments(config: Config) -> str:
    """A configuration as the one argument that this module's command takes."""
    return json.dumps(asdict(config))


if __name__ == "__main__":
    asyncio.run(serve(Config(**json.loads(sys.argv[1]))))
