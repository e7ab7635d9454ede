"""Goodput and refusals in virtual time: the client's own queue and limiter with simulated servers.

Only the clock, the path and the server are simulated.  Timers fire up to a millisecond late, as epoll's do; arrivals
and answers are exact.  There are always callers waiting.  Round trips are lognormal, with each way drawn independently;
one in 200 is 200 ms longer.
"""

from __future__ import annotations

import asyncio
import bisect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.server import Config, Delays, per_second
from benchmarks.tables import table
from tests.virtual_time import VirtualTimeLoop
from tim_async._lanes import Lane
from tim_async._limiter.queue import RequestQueue
from tim_async.emulator._windows import Window

LIMIT = 200


@dataclass(frozen=True)
class Path:
    """Delays between the client and the server.

    Attributes:
        rtt: mean round trip, seconds.
        variation: coefficient of variation of each way.
        spikes: share of round trips that take 200 ms more.
        stalls: mean number of stalls a second, each of which holds everything in flight for 20 to 250 ms.
    """

    rtt: float = 0.05
    variation: float = 0.3
    spikes: float = 0.005
    stalls: float = 0.0


@dataclass(frozen=True)
class Other:
    """Another consumer of the same rate.

    Attributes:
        rate: its calls a second, sent at even intervals over a path like the client's.
        start: the time of its first call, seconds.
        end: the time of its end, seconds.
        refusable: whether it is refused as the client is; if not, all its calls are accepted and counted.
        random: whether it sends at random times (Poisson) instead.
    """

    rate: float
    start: float = 20.0
    end: float = 220.0
    refusable: bool = False
    random: bool = False


@dataclass
class Run:
    """The server's record of a run; times are seconds since the start."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def goodput(self, start: float, end: float) -> float:
        """Return the accepted calls a second between two times."""
        return per_second(self.accepted, start, end)

    def refused_share(self, start: float, end: float) -> float:
        """Return the share, 0 to 1, of the calls between two times that were refused."""
        refused, accepted = per_second(self.refused, start, end), per_second(self.accepted, start, end)
        return refused / (refused + accepted) if refused else 0.0


class _Delays(Delays):
    """Random delays and stalls of a path."""

    def __init__(self, path: Path, seed: int, seconds: float) -> None:
        super().__init__(Config(rtt=path.rtt, cv=path.variation, spike_share=path.spikes, seed=seed))
        self._stalls: list[tuple[float, float]] = []
        at = 0.0
        while path.stalls and at < seconds:
            at += self._random.expovariate(path.stalls)
            self._stalls.append((at, at := at + self._random.uniform(0.02, 0.25)))

    def held(self, at: float) -> float:
        """Return the time of arrival of a message due at a time, which a stall may delay; seconds since the start."""
        index = bisect.bisect(self._stalls, (at, math.inf)) - 1
        return max(at, self._stalls[index][1]) if index >= 0 else at

    def times(self, other: Other) -> Iterator[float]:
        """Yield the arrival times of another consumer."""
        at = other.start
        while at < other.end:
            at += self._random.expovariate(other.rate) if other.random else 1 / other.rate
            yield at + self.draw()[0]


def simulate(
    window: Window,
    path: Path = Path(),
    *,
    seconds: float = 300.0,
    other: Other | None = None,
    seed: int = 1,
    strict: bool = False,
    limit: int = LIMIT,
) -> Run:
    """Simulate as many callers as the limit, each of which calls without a pause."""
    run = Run()
    delays = _Delays(path, seed, seconds)

    async def main(loop: VirtualTimeLoop) -> None:
        queue, start = RequestQueue(limit, strict=strict), loop.time()

        def arrive(back: float, answer: asyncio.Future[bool]) -> None:
            now = loop.time()
            taken = window.admit(now)
            (run.accepted if taken else run.refused).append(now - start)
            loop.deliver(delays.held(now - start + back) + start - now, answer.set_result, taken)

        async def caller() -> None:
            while (now := loop.time()) < start + seconds:
                permit = await queue.enter(Lane.BULK)
                now = loop.time()
                there, back = delays.draw()
                answer = loop.create_future()
                loop.deliver(delays.held(now - start + there) + start - now, arrive, back, answer)
                taken = await answer
                queue.leave(permit, answered=True)
                if not taken:
                    queue.refused(permit)
                    run.rates.append(queue.rate)

        if other is not None:
            count = window.admit if other.refusable else window.fill
            for at in delays.times(other):
                loop.deliver(at, count, start + at)
        await asyncio.gather(*(caller() for _ in range(limit)))

    loop = VirtualTimeLoop(resolution=1e-3)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main(loop))
    return run


def _sliding() -> Window:
    return Window("sliding", LIMIT)


def _counting() -> Window:
    return Window("sliding", LIMIT, count_refused=True)


ALONE: dict[str, tuple[Callable[[], Window], Path]] = {
    "5 ms, CV 0.3": (_sliding, Path(0.005)),
    "50 ms, CV 0.3": (_sliding, Path(0.05)),
    "50 ms, CV 1.0": (_sliding, Path(0.05, 1.0)),
    "200 ms, CV 0.3": (_sliding, Path(0.2)),
    "200 ms, CV 1.0": (_sliding, Path(0.2, 1.0)),
    "50 ms, counts refused calls": (_counting, Path(0.05)),
    "50 ms, stalls each 10 s": (_sliding, Path(0.05, stalls=0.1)),
    "50 ms, calendar second": (lambda: Window("calendar", LIMIT), Path(0.05)),
    "50 ms, bucket of 200": (lambda: Window("bucket", LIMIT, capacity=200), Path(0.05)),
    "50 ms, bucket of 20": (lambda: Window("bucket", LIMIT, capacity=20), Path(0.05)),
    "5 ms, bucket of 5": (lambda: Window("bucket", LIMIT, capacity=5), Path(0.005)),
    "5 ms, bucket of 1": (lambda: Window("bucket", LIMIT, capacity=1), Path(0.005)),
}

BESIDE: dict[str, tuple[Path, Other]] = {
    "50 ms, 80/s": (Path(), Other(80)),
    "50 ms, 80/s, refused too": (Path(), Other(80, refusable=True)),
    "50 ms, 80/s at random": (Path(), Other(80, random=True)),
    "50 ms, 20/s": (Path(), Other(20)),
    "50 ms, 40/s": (Path(), Other(40)),
    "50 ms, 120/s": (Path(), Other(120)),
    "50 ms, 160/s": (Path(), Other(160)),
    "5 ms, 80/s": (Path(0.005), Other(80)),
    "200 ms, 80/s": (Path(0.2), Other(80)),
    "50 ms, stalls, 80/s": (Path(stalls=0.1), Other(80)),
}


def measure(
    *, seconds: float = 300.0, seeds: int = 1, only: str = "", say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run every server and path alone, then beside another consumer that ends 80 s before the end of the run."""
    alone, beside = {}, {}
    for name, (window, path) in ALONE.items():
        if only not in name:
            continue
        say(f"pace: {name}")
        runs = [simulate(window(), path, seconds=seconds, seed=seed + 1) for seed in range(seeds)]
        alone[name] = {
            "second_half": _mean(run.goodput(seconds / 2, seconds) for run in runs),
            "refused_per_10000": 1e4 * _mean(run.refused_share(seconds / 2, seconds) for run in runs),
            "first_10": _mean(run.goodput(0, 10) for run in runs),
            "first_10_refused_per_10000": 1e4 * _mean(run.refused_share(0, 10) for run in runs),
        }
    gone = seconds - 80
    for name, (path, other) in BESIDE.items():
        if only not in name:
            continue
        for counts in (False, True):
            say(f"pace: beside another, {name}, refused calls {'counted' if counts else 'not counted'}")
            consumer = Other(other.rate, 20, gone, other.refusable, other.random)
            runs = [
                simulate(
                    Window("sliding", LIMIT, count_refused=counts), path, seconds=seconds, other=consumer, seed=seed + 1
                )
                for seed in range(seeds)
            ]
            beside[f"{name}, {'counted' if counts else 'not counted'}"] = {
                "left": LIMIT - other.rate,
                "goodput": _mean(run.goodput(30, gone) for run in runs),
                "refused_per_10000": 1e4 * _mean(run.refused_share(30, gone) for run in runs),
                "after": min(run.goodput(gone, gone + 10) for run in runs),
            }
    return {"seconds": seconds, "seeds": seeds, "alone": alone, "beside": beside}


def _mean(values: Iterator[float]) -> float:
    every = list(values)
    return sum(every) / len(every)


def tables(result: dict[str, Any]) -> list[str]:
    """Format the result as a table of the client alone and a table beside another consumer."""
    header = ["path and server", "per s, second half", "refused in 10,000", "first 10 s", "refused in 10,000"]
    rows = [[name, *(f"{figure:.1f}" for figure in figures.values())] for name, figures in result["alone"].items()]
    beside = [[name, *(f"{figure:.1f}" for figure in figures.values())] for name, figures in result["beside"].items()]
    return [
        table(f"PACE in virtual time, {result['seconds']:g} s, alone", header, rows),
        table(
            "PACE in virtual time, beside another consumer",
            ["path, the other, refused calls", "left", "per s", "refused in 10,000", "10 s after it"],
            beside,
        ),
    ]


NOTES = [
    "second half, first 10 s: accepted calls a second; refused: of 10,000 calls of that time",
    "beside another: from 10 s after it began until its end; after it: accepted a second in the 10 s after its end",
]
