"""What the policies are put through: how many calls, over what path, under which window."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.calls import NAMES
from benchmarks.server import Config


@dataclass(frozen=True)
class Scenario:
    """One load on one kind of server.

    Attributes:
        title: what it is, for the table.
        config: the server and the path to it.
        endpoints: how many of the four are called at once.
        calls: calls for each endpoint; 0 when it runs by time.
        seconds: for how long calls are started, when it runs by time.
        stall_at: when the server stalls for a second, after the first call; 0 is never.
        marks: times, in seconds after the first arrival, between which the goodput is reported apart.
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
        """Seconds after which a run has failed: nothing here may take as long as this."""
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
        "one endpoint for 70 s, RTT 50 ms lognormal 0.3, another consumer takes 80/s from 20 s to 60 s",
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
"""Those that take seconds and not minutes."""
