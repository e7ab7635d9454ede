"""The invariants, checked at every step, and their excuses.

Each violation names its invariant.  A fault declares windows of time in which it excuses violations.  After an excused
refusal, a fleet that learns is slower for some seconds.
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
"""The prefix of a look-up's name; look-ups share attempts."""
CHECKED_EVERY = 10
"""The interval, in runs of the script, between checks of all the store's keys."""
REGAIN = 12.0
"""Seconds after a refusal within which the fleet finds its rate again."""
LATENCY = 1.05
"""The maximum time, seconds, until a limiter is notified: see `SharedLimiter.latency`."""
CALM = "calm"
"""Windows without checks of goodput, fairness and lanes."""
PAUSED = "paused"
"""The same, because the service has asked for a pause."""
REFUSALS = "refusals"
"""Windows in which a fleet that learns may be refused."""
STRICT = "strict"
"""Windows in which a strict fleet may exceed the limit."""


@dataclass(frozen=True)
class Bounds:
    """The bounds of a fleet's invariants.

    Attributes:
        limit: the service's limit, calls/s.
        agreed: the smallest rate that a process names, calls/s.
        goodput: the minimum goodput in calm seconds, calls/s; 0 if the load is too small.
        strict: whether no second may have more calls than the limit.
        refused: the maximum of refused calls in 10,000, for a fleet that learns.
        fair: the minimum share of each of the equal processes in a calm window, relative to the mean; 0 for no check.
        wait: the maximum wait of an interactive call for its permit in calm times, seconds; infinity for no check.
        elements: the maximum number of elements in the store.
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
    """A violation of an invariant.

    Attributes:
        invariant: the invariant's name.
        step: the step.
        at: the virtual time, seconds.
        text: the observation.
    """

    invariant: str
    step: int
    at: float
    text: str


@dataclass
class Counts:
    """Counts for the report."""

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
        """Whether a window of some kinds overlaps a span."""
        return any(first < end and start < last for kind in kinds for first, last in self._spans[kind])


class Watch:
    """The observer that checks the invariants.

    Args:
        world: the world.
        bounds: the bounds of the invariants.
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
        """Record a violation; only the first of each invariant is kept."""
        if all(violation.invariant != invariant for violation in self.violations):
            self.world.note("VIOLATION", invariant, text)
            self.violations.append(Violation(invariant, self.world.step, self.world.now, text))

    # Calls.

    def begun(self, process: Process, account: str) -> None:
        """Note that a call begins."""
        self.counts.calls += 1
        self.open[account] = process
        self._begun[account] = self.world.now
        if not account.startswith(LOOKUP):
            lane = self._lane_of[account] = LANE.get()
            self._queued.setdefault((process, lane), {})[account] = None

    def ended(self, process: Process, account: str, how: str, attempts: int | None, max_wait: float | None) -> None:
        """Note that a call ends; it must end once, by a value, an error of the product's, or a cancellation."""
        if process.loop.dead:
            return
        self.world.note("ended", account, how)
        if self.open.pop(account, None) is None:
            self.violated("once", f"{account} ended twice, finally by {how}")
        self.counts.ended[how] += 1
        begun = self._begun.pop(account)
        self._leave_queue(process, account)
        arrived, taken = self._attempts.pop(account, 0), self._taken.pop(account, 0)
        if not how.isidentifier():
            self.violated("foreign error", f"{account} ended by {how}")
        if how == "QuotaMisconfigured":
            self.violated("misconfigured", f"{account} ended by {how}, although the configuration is correct")
        if attempts is not None and attempts < arrived:
            self.violated("attempts", f"{account} reports {attempts} attempts; the service received {arrived}")
        if how == "QuotaExhausted" and max_wait is not None:
            took = self.world.now - begun
            if took > max_wait + LATENCY and process.held < begun:
                self.violated("max_wait", f"{account} waited {took:.3f} s; its max_wait is {max_wait:g}")
        if how == "value" and not taken and not account.startswith(LOOKUP):
            self.violated("value", f"{account} has a value, but the service accepted no attempt of it")

    def _leave_queue(self, process: Process, account: str) -> bool:
        """Remove a call from its lane; return whether it was first, or was not waiting for its first attempt."""
        lane = self._lane_of.pop(account, None)
        if lane is None:
            return True
        queued = self._queued[process, lane]
        first = next(iter(queued)) == account
        del queued[account]
        return first

    def sending(self, process: Process, account: str) -> None:
        """Note that a process sends an attempt."""
        now, (began, until) = self.world.now, process.wire.pause
        if not self._leave_queue(process, account):
            self.violated("order", f"{account} is sent before a call that has waited longer in its lane")
        if began < now < until - 0.01 and process.held < began:
            self.violated("pause", f"{account} is sent, although {process.name} is paused until {until:.3f} s")
        for began, until in self._paused:
            # By then the others are notified, unless a fault prevents it.
            late = began + 1.0 < now < until - 0.05 and process.held < began - 1.0
            if late and not self.windows.hold((CALM,), began - 1.0, now):
                self.violated("pause of all", f"{account} is sent, although all are paused until {until:.3f} s")

    def paused(self, began: float, until: float) -> None:
        """Note that the service has asked a process to pause."""
        self._paused.append((began, until))

    def attempted(self, process: Process, attempt: Attempt) -> None:
        """Note that a process's hook has received an attempt."""
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
            # After an outage, many interactive calls may wait; then it waits for these.
            if attempt.waited > self.bounds.wait and self._bulk_sent > queued + 0.1:
                self.violated("lanes", f"{process.name}: an interactive call waited {attempt.waited:.3f} s")

    # The service.

    def arrived(self, flight: Flight, taken: bool) -> None:
        """Note that an attempt has reached the service."""
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
        """Note that a script has run."""
        self.world.note("asked", server.name[-4:], argument, reply)
        if len(argument) > 1000 + 100 * self.bounds.limit:
            self.violated("memory", f"a request of {len(argument)} bytes")
        if server.ran % CHECKED_EVERY:
            return
        if (size := server.size()) > self.bounds.elements:
            self.violated("memory", f"the store has {size} elements")
        if wrong := inconsistency(server, keys):
            self.violated("state", wrong)

    # Processes.

    def killed(self, process: Process) -> None:
        """Note that a process was killed; its calls have no end."""
        for account in [account for account, owner in self.open.items() if owner is process]:
            del self.open[account]

    def closed(self, process: Process, seconds: float) -> None:
        """Note that a process has closed its client."""
        self.world.note("closed", process.name)
        if seconds > 4.0:
            self.violated("closing", f"{process.name} took {seconds:.3f} s to close")

    def exited(self, process: Process) -> None:
        """Note that a process has exited cleanly; it must leave nothing behind."""
        sent, reported = process.wire.sent, process.reported
        if not sent <= reported <= sent + process.reported_after_close:
            self.violated("attempts", f"{process.name} sent {sent} attempts; its hook received {reported}")
        if left := [account for account, owner in self.open.items() if owner is process]:
            self.violated("hung", f"{left[0]} and {len(left) - 1} more of {process.name} are still open after its end")
        if process.loop.timers:
            self.violated("left behind", f"{process.name} has {process.loop.timers} timers after its end")
        for failure in process.loop.failures:
            self.violated("failure", f"{process.name}: {failure}")

    # At the end.

    def judge_windows(self, processes: list[Process], until: float) -> None:
        """Check goodput and fairness in the calm windows."""
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
        # The remaining processes may all limit themselves.
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
        """Check that all keep the smallest named rate, and that each process keeps its own limit."""

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
        """Check the refusals of a fleet that learns."""
        most = 3 + self.bounds.refused / 1e4 * self.counts.attempts
        if not self.bounds.strict and len(self._refusals) > most:
            times = ", ".join(f"{at:.1f}" for at in self._refusals[:8])
            text = (
                f"{len(self._refusals)} refused of {self.counts.attempts}, beyond the {most:.1f} allowed; at {times} s"
            )
            self.violated("refusals", text)

    def judge_open(self) -> None:
        """Check that all calls of running processes have ended."""
        for account, process in self.open.items():
            if process.alive:
                since = self._begun[account]
                self.violated("hung", f"{account} has not ended; it began at {since:.3f} s")
                break
