"""The scenarios for the policies: number of calls, path and window."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.calls import NAMES
from benchmarks.server import Config


@dataclass(frozen=True)
class Scenario:
    """One load on one kind of server.

    Attributes:
        title: its title in the table.
        config: the server and the path to it.
        endpoints: the number of endpoints called concurrently, up to four.
        calls: calls for each endpoint; 0 for a run by time.
        seconds: the time within which calls are started, in a run by time.
        stall_at: seconds after the first call at which the server stalls for a second; 0 for never.
        marks: times, seconds after the first arrival, between which the goodput is reported separately.
    """

    title: str
    config: Config
    endpoints: int = 1
    calls: int = 1200
    seconds: float = 0.0
    stall_at: float = 0.0
    marks: tuple[float, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES[: self.endpoints]

    @property
    def time_limit(self) -> float:
        """Seconds after which a run has failed."""
        return 30 + 4 * max(self.seconds, self.calls / self.config.limit)


SCENARIOS: dict[str, Scenario] = {
    "four": Scenario(
        "four endpoints at once, 1,200 calls each, RTT 5 ms, sliding second",
        Config(rtt=0.005),
        endpoints=4,
    ),
    "sliding": Scenario(
        "one endpoint, 1,200 calls, RTT 50 ms lognormal 0.3, sliding second",
        Config(rtt=0.05, cv=0.3),
    ),
    "calendar": Scenario(
        "one endpoint, 1,200 calls, RTT 50 ms lognormal 0.3, calendar second",
        Config(rtt=0.05, cv=0.3, window="calendar"),
    ),
    "minute": Scenario(
        "four endpoints at once for 60 s, RTT 5 ms, sliding second",
        Config(rtt=0.005),
        endpoints=4,
        calls=0,
        seconds=60,
        marks=(0, 5, 20, 40, 59),
    ),
    "foreign": Scenario(
        "one endpoint for 70 s, RTT 50 ms lognormal 0.3, another consumer uses 80/s from 20 s to 60 s",
        Config(rtt=0.05, cv=0.3, foreign_rate=80, foreign_start=20, foreign_end=60),
        calls=0,
        seconds=70,
        marks=(0, 20, 60, 70),
    ),
    "stall": Scenario(
        "one endpoint, 1,200 calls, RTT 5 ms, sliding second, nothing arrives from 2 s to 3 s",
        Config(rtt=0.005),
        stall_at=2,
    ),
}

USUAL = ("four", "sliding", "calendar")
"""The default scenarios, which take seconds, not minutes."""
