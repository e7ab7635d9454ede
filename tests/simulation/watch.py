"""What must hold at every step, and what is excused.

Each violation names the invariant.  What a fault excuses is a window of time, stated by the fault itself.  After a
refusal that was excused, a fleet that learns is slower for some seconds.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tim_async import Attempt
from tim_async._lanes import LANE, Lane

from .service import Flight
from .state import inconsistency

if TYPE_CHECKING:
    from .process import Process
    from .store import Server
    from .world import World

LOOKUP = "lookup "
"""What the name of a look-up begins with: it shares its attempts with others."""
LOOKED_AT = 10
"""Each of so many runs of the script is followed by a look at all that the store keeps."""
REGAIN = 12.0
"""Seconds after a refusal within which the rate is found again."""
LATENCY = 1.05
"""Seconds that a limiter may need until it knows, at most: see `SharedLimiter.latency`."""
CALM = "calm"
"""Not demanded within such a window: goodput, fairness, lanes."""
PAUSED = "paused"
"""The same, since the service has asked for a pause."""
REFUSALS = "refusals"
"""Within such a window a fleet that learns may be refused."""
STRICT = "strict"
"""Within such a window a strict fleet may be over the limit."""


@dataclass(frozen=True)
class Bounds:
    """What is demanded of a fleet.

    Attributes:
        limit: what the service allows, calls/s.
        agreed: the smallest rate that a process names, calls/s.
        goodput: calls/s that it takes at least in calm seconds; 0 where too little is asked for.
        strict: whether no second may hold more than the limit.
        refused: refused calls in 10,000, of a fleet that learns.
        fair: the least part of the mean that each of the equal processes has in a calm window; 0 for no demand.
        wait: seconds that an interactive call waits for its permit at most in calm times; infinity for no demand.
        elements: what the store may keep.
    """

    limit: int
    agreed: float
    goodput: float
    strict: bool
    refused: float
    fair: float
    wait: float
    elements: int


@dataclass(frozen=True)
class Violation:
    """Something that must not be.

    Attributes:
        invariant: its name.
        step: where.
        at: when, seconds.
        text: what was seen.
    """

    invariant: str
    step: int
    at: float
    text: str


@dataclass
class Counts:
    """What happened, to be shown."""

    calls: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    refused: int = 0
    refused_excused: int = 0


class Windows:
    """Spans of time, by kind."""

    def __init__(self) -> None:
        self._spans: dict[str, list[tuple[float, float]]] = {CALM: [], PAUSED: [], REFUSALS: [], STRICT: []}

    def add(self, kind: str, start: float, end: float) -> None:
        """Add one."""
        spans = self._spans[kind]
        if spans and spans[-1][0] <= start <= spans[-1][1] <= end:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))

    def hold(self, kinds: tuple[str, ...], start: float, end: float) -> bool:
        """Whether one of some kinds overlaps a span."""
        return any(first < end and start < last for kind in kinds for first, last in self._spans[kind])


class Watch:
    """Sees all that happens.

    Args:
        world: where.
        bounds: what is demanded.
    """

    def __init__(self, world: World, bounds: Bounds) -> None:
        self.world = world
        self.bounds = bounds
        self.windows = Windows()
        self.counts = Counts()
        self.violations: list[Violation] = []
        self.open: dict[str, Process] = {}
        self._begun: dict[str, float] = {}
        self._queued: dict[tuple[Process, Lane], dict[str, None]] = {}
        self._lane_of: dict[str, Lane] = {}
        self._paused: deque[tuple[float, float]] = deque(maxlen=4)
        self._attempts: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._second: deque[float] = deque()
        self._waits: list[float] = []
        self._by: list[tuple[float, Process]] = []
        self._bulk_sent = -math.inf
        self._refusals: list[float] = []

    def violated(self, invariant: str, text: str) -> None:
        """Something is not as it must be; the first of each kind is kept."""
        if all(violation.invariant != invariant for violation in self.violations):
            self.world.note("VIOLATION", invariant, text)
            self.violations.append(Violation(invariant, self.world.step, self.world.now, text))

    # Calls.

    def begun(self, process: Process, account: str) -> None:
        """A call begins."""
        self.counts.calls += 1
        self.open[account] = process
        self._begun[account] = self.world.now
        if not account.startswith(LOOKUP):
            lane = self._lane_of[account] = LANE.get()
            self._queued.setdefault((process, lane), {})[account] = None

    def ended(self, process: Process, account: str, how: str, attempts: int | None, max_wait: float | None) -> None:
        """A call ends: once, by a value, an error of the product's, or a cancellation."""
        if process.loop.dead:
            return
        self.world.note("ended", account, how)
        if self.open.pop(account, None) is None:
            self.violated("once", f"{account} ended twice, at last by {how}")
        self.counts.ended[how] += 1
        begun = self._begun.pop(account)
        self._leave_queue(process, account)
        arrived, taken = self._attempts.pop(account, 0), self._taken.pop(account, 0)
        if not how.isidentifier():
            self.violated("foreign error", f"{account} ended by {how}")
        if how == "QuotaMisconfigured":
            self.violated("misconfigured", f"{account} ended by {how}; the configuration is right")
        if attempts is not None and attempts < arrived:
            self.violated("attempts", f"{account} says {attempts} attempts, the service saw {arrived}")
        if how == "QuotaExhausted" and max_wait is not None:
            took = self.world.now - begun
            if took > max_wait + LATENCY and process.held < begun:
                self.violated("max_wait", f"{account} waited {took:.3f} s, its max_wait is {max_wait:g}")
        if how == "value" and not taken and not account.startswith(LOOKUP):
            self.violated("value", f"{account} has a value, and the service took no attempt of it")

    def _leave_queue(self, process: Process, account: str) -> bool:
        """Whether it was the first in its lane, or none of those that wait for their first attempt."""
        lane = self._lane_of.pop(account, None)
        if lane is None:
            return True
        queued = self._queued[process, lane]
        first = next(iter(queued)) == account
        del queued[account]
        return first

    def sending(self, process: Process, account: str) -> None:
        """A process sends an attempt."""
        now, (told, until) = self.world.now, process.wire.pause
        if not self._leave_queue(process, account):
            self.violated("order", f"{account} is sent before one that waited longer in its lane")
        if told < now < until - 0.01 and process.held < told:
            self.violated("pause", f"{account} is sent, although {process.name} has paused until {until:.3f} s")
        for told, until in self._paused:
            # The others have heard of it by then, where nothing is in the way.
            late = told + 1.0 < now < until - 0.05 and process.held < told - 1.0
            if late and not self.windows.hold((CALM,), told - 1.0, now):
                self.violated("pause of all", f"{account} is sent, although all have paused until {until:.3f} s")

    def paused(self, told: float, until: float) -> None:
        """A process was told to pause."""
        self._paused.append((told, until))

    def attempted(self, process: Process, attempt: Attempt) -> None:
        """A process was told of an attempt of its own."""
        self.counts.attempts += 1
        sent = self.world.now - attempt.took
        queued = sent - attempt.waited
        if attempt.lane is Lane.BULK:
            self._bulk_sent = max(sent, self._bulk_sent)
        elif (
            attempt.number == 1
            and self.bounds.wait < math.inf
            and process.held < queued - 1.0
            and not self.windows.hold((CALM, PAUSED), queued, sent)
        ):
            self._waits.append(attempt.waited)
            # After an outage many may wait who are not bulk: then it waits for these.
            if attempt.waited > self.bounds.wait and self._bulk_sent > queued + 0.1:
                self.violated("lanes", f"{process.name}: an interactive call waited {attempt.waited:.3f} s")

    # The service.

    def arrived(self, flight: Flight, taken: bool) -> None:
        """An attempt is at the service."""
        now, second = self.world.now, self._second
        self.world.note("arrived", flight.account, "taken" if taken else "refused")
        self._attempts[flight.account] += 1
        while second and second[0] <= now - 1.0:
            second.popleft()
        second.append(now)
        if self.bounds.strict and len(second) > self.bounds.limit and not self.windows.hold((STRICT,), now - 1.0, now):
            self.violated("strict", f"{len(second)} arrivals in a second; the limit is {self.bounds.limit}")
        if taken:
            self._taken[flight.account] += 1
            self._by.append((now, flight.host))  # type: ignore[arg-type]
            return
        excused = self.windows.hold((REFUSALS,), now - 1.0, now)
        if excused:
            self.windows.add(PAUSED, now, now + REGAIN)
        self.counts.refused_excused += excused
        self.counts.refused += not excused
        if not excused:
            self._refusals.append(now)
            if self.bounds.strict:
                self.violated("strict, refused", f"{flight.account} was refused")

    # The store.

    def asked(self, server: Server, keys: list[str], argument: str, reply: str) -> None:
        """A script has run."""
        self.world.note("asked", server.name[-4:], argument, reply)
        if len(argument) > 1000 + 100 * self.bounds.limit:
            self.violated("memory", f"a request of {len(argument)} bytes")
        if server.ran % LOOKED_AT:
            return
        if (size := server.size()) > self.bounds.elements:
            self.violated("memory", f"the store keeps {size} elements")
        if wrong := inconsistency(server, keys):
            self.violated("state", wrong)

    # Processes.

    def killed(self, process: Process) -> None:
        """A process is gone; nobody sees the end of its calls."""
        for account in [account for account, owner in self.open.items() if owner is process]:
            del self.open[account]

    def closed(self, process: Process, seconds: float) -> None:
        """A process has closed its client."""
        self.world.note("closed", process.name)
        if seconds > 4.0:
            self.violated("closing", f"{process.name} took {seconds:.3f} s to close")

    def gone(self, process: Process) -> None:
        """A process has ended in order: it must leave nothing behind."""
        sent, told = process.wire.sent, process.told
        if not sent <= told <= sent + process.told_closed:
            self.violated("attempts", f"{process.name} sent {sent} attempts, and was told of {told}")
        if left := [account for account, owner in self.open.items() if owner is process]:
            self.violated("hung", f"{left[0]} and {len(left) - 1} more of {process.name} have not ended with it")
        if process.loop.timers:
            self.violated("left behind", f"{process.name} has {process.loop.timers} timers after its end")
        for failure in process.loop.failures:
            self.violated("failure", f"{process.name}: {failure}")

    # At the end.

    def judge_windows(self, processes: list[Process], until: float) -> None:
        """Look at the calm windows: goodput and fairness."""
        start, length = 3.0, 3.0
        while start + length <= until:
            end = start + length
            if not self.windows.hold((CALM, PAUSED), start, end):
                self._judge(processes, start, end)
                start = end
            else:
                start += 0.5

    def _judge(self, processes: list[Process], start: float, end: float) -> None:
        by = Counter(process.name for at, process in self._by if start <= at < end)
        per_second = sum(by.values()) / (end - start)
        # Those that are left may all want less for themselves.
        wanted = any(p.alive and p.profile.load.busy and not p.profile.own_rate for p in processes)
        if wanted and per_second < self.bounds.goodput:
            text = f"{per_second:.1f}/s from {start:g} s to {end:g} s; {self.bounds.goodput:.1f}/s are demanded"
            self.violated("goodput", text)
        self._judge_rates(by, processes, start, end)
        if self.bounds.fair:
            equal = [
                process
                for process in processes
                if process.profile.load.busy and process.began < start - 2.0 and process.alive and process.held < start
            ]
            shares = [by[process.name] for process in equal]
            if shares and sum(shares) >= 12 * len(shares):
                mean = sum(shares) / len(shares)
                if min(shares) < self.bounds.fair * mean:
                    text = f"parts from {min(shares)} to {max(shares)} calls, {mean:.1f} in the mean, from {start:g} s"
                    self.violated("fairness", text)

    def _judge_rates(self, by: Counter[str], processes: list[Process], start: float, end: float) -> None:
        """All keep to the smallest rate that binds; who wants less for itself keeps to that."""

        def there(process: Process) -> bool:
            return process.alive and process.began < start - 3.0 and process.held < start

        binding = [
            process.profile.rate
            for process in processes
            if there(process) and process.profile.load.busy and not process.profile.own_rate
        ]
        per_second = sum(by.values()) / (end - start)
        if binding and per_second > min(binding) * 1.01 + 1.0:
            self.violated("agreement", f"{per_second:.1f}/s from {start:g} s on; {min(binding):g}/s are agreed")
        for process in processes:
            per_second = by[process.name] / (end - start)
            if process.profile.own_rate and per_second > process.profile.rate * 1.05 + 1.0:
                text = f"{process.name} has {per_second:.1f}/s from {start:g} s on; it wants {process.profile.rate:g}/s"
                self.violated("own rate", text)

    def judge_refusals(self) -> None:
        """Count the refusals of a fleet that learns."""
        most = 3 + self.bounds.refused / 1e4 * self.counts.attempts
        if not self.bounds.strict and len(self._refusals) > most:
            times = ", ".join(f"{at:.1f}" for at in self._refusals[:8])
            text = (
                f"{len(self._refusals)} refused of {self.counts.attempts}, beyond the {most:.1f} allowed; at {times} s"
            )
            self.violated("refusals", text)

    def judge_open(self) -> None:
        """All calls of processes that run must have ended by now."""
        for account, process in self.open.items():
            if process.alive:
                since = self._begun[account]
                self.violated("hung", f"{account} has not ended; it began at {since:.3f} s")
                break
