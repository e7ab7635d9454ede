"""``quota.lua`` on a real store, with simulated processes, and a clock and a server id that the test sets."""

from __future__ import annotations

import heapq
import importlib.resources
import itertools
import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from redis import Redis

from tim_async._limiter.local import SECOND
from tim_async._limiter.permits import GRACE, Ledger
from tim_async._limiter.reply import Reply, read_reply
from tim_async._limiter.request import SETTLE, Request, micro
from tim_async._limiter.shared import REPLY_LIFETIME, REPORT
from tim_async.quota import KEYS

SOURCE = importlib.resources.files("tim_async._limiter").joinpath("quota.lua").read_text(encoding="utf-8")
START = 1_750_000_000_000_000
"""The store's clock when a test's time is 0, microseconds."""
HOLD = 2.0
"""Seconds of silence after which the calls of a process are taken to have ended."""


class Script:
    """One endpoint's quota in a store.

    Attributes:
        now: the test's time, seconds.
        ahead: seconds by which the store's clock has been set.
        server: the run id in INFO; None for a user without the right to it.
    """

    def __init__(self, redis: Redis, *, name: str = "quota", source: str = SOURCE) -> None:
        for asked, answer in (
            ("redis.call('TIME')", "{ ARGV[2], ARGV[3] }"),
            ("redis.pcall('INFO', 'server')", "(ARGV[4] ~= '' and ARGV[4] or { err = 'NOPERM' })"),
        ):
            assert source.count(asked) == 1
            source = source.replace(asked, answer)
        self._run = redis.register_script(source)
        self.redis: Any = redis  # its types are those of every possible option
        self.keys = {end: f"{name}:{end}" for end in KEYS}
        self.now = 0.0
        self.ahead = 0.0
        self.server: str | None = "a" * 40

    def run(self, request: Mapping[str, Any]) -> Reply:
        """Run the script with a request, at the test's time."""
        clock = divmod(START + micro(self.now + self.ahead), 1_000_000)
        info = "" if self.server is None else f"# Server\r\nrun_id:{self.server}\r\nhz:10\r\n"
        return read_reply(self._run([*self.keys.values()], [json.dumps(request), *clock, info]))

    def state(self) -> dict[str, float]:
        """Return the fields of the state; missing ones are 0."""
        fields = self.redis.hgetall(self.keys["state"])
        return defaultdict(float, {name.decode(): float(value) for name, value in fields.items()})

    def check(self) -> None:
        """Assert that the store's counts are the sums of their entries."""
        with self.redis.pipeline() as pipe:
            pipe.hmget(self.keys["state"], "out", "cooling", "latest")
            pipe.hgetall(self.keys["about"])
            pipe.zrange(self.keys["cooling"], 0, -1, withscores=True)
            pipe.zrange(self.keys["members"], 0, -1)
            pipe.zrange(self.keys["waiting"], 0, -1)
            counts, about, cooling, members, waiting = pipe.execute()
        out, cool, latest = (float(count or 0) for count in counts)
        assert out == sum(int(record.split()[1]) for record in about.values())
        assert cool == sum(int(entry.rpartition(b":")[2]) for entry, _ in cooling)
        assert latest >= max((free for _, free in cooling), default=0.0)
        assert {*members} == about.keys() >= {*waiting}


class Member:
    """A process with the client's ledger, which uses its permits when the test says so.

    Attributes:
        unused: due times of the unused permits.
        defaults: fields of every request that replace the usual ones.
    """

    _names = itertools.count()

    def __init__(self, script: Script, limit: float = 200, **defaults: Any) -> None:
        self.script = script
        self.id = f"host:1:{next(self._names)}"
        self.ledger = Ledger()
        self.unused: list[float] = []
        self.number = self.heard = 0
        self.heard_at = -math.inf
        self.epoch = "0"
        self.round_trip = 0.0
        self.defaults = {"limit": limit, **defaults}

    @property
    def out(self) -> int:
        """Unused permits and calls in flight."""
        return self.ledger.in_flight + len(self.unused)

    def request(self, wanted: int = 0, lane: str = "interactive", **fields: Any) -> Request:
        """Return the next request."""
        now = self.script.now
        self.number += 1
        request: Request = {
            "id": self.id,
            "number": self.number,
            "heard": self.heard,
            "heard_ago": micro(now - self.heard_at) if self.heard else 0,
            "round_trip": micro(self.round_trip),
            "epoch": self.epoch,
            "limit": 200,
            "binding": True,
            "strict": False,
            "bulk_share": 1.0,
            "lead": 0,
            "settle": micro(SETTLE),
            "horizon": micro(2.5 * self.round_trip + 0.008),
        }
        request.update(self.defaults)  # type: ignore[typeddict-item]
        if wanted:
            request["lane"], request["wanted"] = lane, wanted
        if self.ledger.counted(now):
            request["called_lately"] = True
        self.ledger.report(request, now, len(self.unused), self.heard)
        request.update(fields)  # type: ignore[typeddict-item]
        return request

    def hear(self, reply: Reply) -> list[float]:
        """Process a reply; return the due times of its permits."""
        now = self.script.now
        if reply.stale:
            self.number = max(self.number, reply.number)
            return []
        if reply.epoch != self.epoch:
            if self.epoch != "0":
                self.ledger.report_again(self.heard)
            self.epoch = reply.epoch
        self.heard, self.heard_at = reply.number, now
        due = [now + wait for wait, count in reply.permits for _ in range(count)]
        self.unused += due
        return due

    def ask(self, wanted: int = 0, lane: str = "interactive", **fields: Any) -> Reply:
        """Send a request and process the reply, without delay."""
        reply = self.script.run(self.request(wanted, lane, **fields))
        self.hear(reply)
        return reply

    def send(self) -> None:
        """Send a call with the first unused permit."""
        self.unused.remove(min(self.unused))
        self.ledger.in_flight += 1

    def end(self, ago: float = 0.0) -> None:
        """End an answered call."""
        self.ledger.in_flight -= 1
        self.ledger.cool(self.script.now - ago + SECOND)

    def call(self, calls: int = 1) -> None:
        """Get permits, which must be granted at once, and make calls; do not report them yet."""
        while self.out < calls:
            reply = self.ask(calls - self.out)
            assert reply.permits
            self.script.now += reply.permits[-1][0]
        for _ in range(calls):
            self.send()
            self.end()


class Call(NamedTuple):
    """A call in flight: the times of its sending and of its answer."""

    sent: float
    ends: float


class Process(Member):
    """A process of a `Simulation`, which calls, reports, sleeps and dies at random.

    Attributes:
        reached_at: when its last request arrived at the store.
    """

    def __init__(self, simulation: Simulation, limit: float, **defaults: Any) -> None:
        super().__init__(simulation.script, limit, **defaults)
        self.simulation = simulation
        self.rng = simulation.rng
        self.alive = True
        self.asleep_until = 0.0
        self.reached_at = simulation.script.now
        self.calls: list[Call] = []
        self.asked_at = -math.inf
        self.waits_for = self.turn = 0
        self.schedule(0.0)

    def schedule(self, delay: float) -> None:
        """Schedule the next step, in place of one scheduled before."""
        self.turn += 1
        self.simulation.after(delay, self.step, self.turn)

    def step(self, turn: int) -> None:
        """Request permits, or only report; a pending exchange is abandoned."""
        script, rng = self.script, self.rng
        if not self.alive or turn != self.turn:
            return
        if script.now < self.asleep_until:
            self.schedule(self.asleep_until - script.now)
            return
        for due in [due for due in self.unused if due < script.now - GRACE]:
            self.unused.remove(due)
            self.ledger.cool(due)
        fields: dict[str, Any] = {"budget": 0} if rng.random() < 0.1 else {}
        fields["settle"] = micro(SETTLE + 2 * self.round_trip)
        request = self.request(rng.choice([0, 1, 1, 3, 8]), rng.choice(["interactive", "bulk"]), **fields)
        self.asked_at, self.waits_for = script.now, self.number
        self.simulation.carry(self, request)
        self.schedule(self.simulation.overdue)

    def reached(self, request: Request) -> None:
        """Let a request arrive at the store, which replies."""
        script = self.script
        silent_until = self.reached_at + HOLD
        if script.now > silent_until:
            # The store has taken its calls to have ended: they may not arrive later.
            for call in self.calls:
                self.simulation.arrivals.append(min(call.ends, silent_until))
            self.calls = [call._replace(sent=math.nan) for call in self.calls]
        self.reached_at = script.now
        reply = script.run(request)
        script.check()
        self.simulation.reply(self, request, reply)

    def replied(self, number: int, reply: Reply) -> None:
        """Receive a reply."""
        script = self.script
        if not self.alive:
            return
        if script.now < self.asleep_until:
            self.simulation.after(self.asleep_until - script.now, self.replied, number, reply)
            return
        if number != self.waits_for:
            return  # abandoned
        self.waits_for = 0
        took = script.now - self.asked_at
        self.round_trip += 0.2 * (took - self.round_trip)
        for due in self.hear(reply):
            if took >= REPLY_LIFETIME:
                self.unused.remove(due)
                self.ledger.cool(due)
            elif self.rng.random() < 0.9:
                late = self.rng.choice([0.0, 0.0, 0.05, GRACE])
                self.simulation.after(due - script.now + late, self.use, due)
        soon = self.rng.choice([0.0, 0.001, 0.05, REPORT])
        self.schedule(min(REPORT, max(soon, reply.again, reply.settling)))

    def use(self, due: float) -> None:
        """Send a call."""
        now = self.script.now
        if not self.alive or now < self.asleep_until or due not in self.unused:
            return
        self.unused.remove(due)
        self.ledger.in_flight += 1
        call = Call(now, now + self.rng.choice([0.0, 0.02, 0.3, 1.0, 3.0]))
        self.calls.append(call)
        self.simulation.after(call.ends - now, self.answered)

    def answered(self) -> None:
        """End a call: it arrived at any time since its sending, but not after its process was taken to be dead."""
        if not self.alive:
            return
        now = self.script.now
        call = min(self.calls, key=lambda call: call.ends)
        self.calls.remove(call)
        if not math.isnan(call.sent):
            latest = max(call.sent, min(now, self.reached_at + HOLD))
            self.simulation.arrivals.append(self.rng.choice([call.sent, latest]))
        self.ledger.in_flight -= 1
        self.ledger.cool(now + SECOND)

    def report_at_once(self) -> None:
        """Report to the store without delay."""
        self.waits_for = 0
        self.ask(settle=micro(SETTLE + 2 * self.round_trip))
        self.reached_at = self.script.now
        self.schedule(0.0)

    def kill(self) -> None:
        """Die; the calls in flight arrive by now or never."""
        self.alive = False
        latest = min(self.script.now, self.reached_at + HOLD)
        self.simulation.arrivals += [max(call.sent, latest) for call in self.calls if not math.isnan(call.sent)]


class Simulation:
    """Processes that share a quota, in simulated time.

    Args:
        script: the quota.
        rng: decides everything that is random.
        reliable: whether every message arrives once, and soon.

    Attributes:
        arrivals: when each call arrived.
        overdue: seconds after which a process abandons an exchange.
    """

    overdue = 0.5

    def __init__(self, script: Script, rng: random.Random, *, reliable: bool) -> None:
        self.script = script
        self.rng = rng
        self.reliable = reliable
        self.processes: list[Process] = []
        self.arrivals: list[float] = []
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = itertools.count()

    def after(self, delay: float, do: Callable[..., None], *args: Any) -> None:
        """Schedule a call of a function."""
        heapq.heappush(self._events, (self.script.now + delay, next(self._serial), do, args))

    def pass_time(self, seconds: float) -> None:
        """Run the events of the next seconds."""
        until = self.script.now + seconds
        while self._events and self._events[0][0] <= until:
            self.script.now, _, do, args = heapq.heappop(self._events)
            do(*args)
        self.script.now = until

    def join(self, limit: float, **defaults: Any) -> Process:
        """Start a process."""
        process = Process(self, limit, **defaults)
        self.processes.append(process)
        return process

    def living(self) -> list[Process]:
        return [process for process in self.processes if process.alive]

    def fail_over(self, copy: Mapping[str, bytes | None] | None, server: str | None = None) -> None:
        """Let another server take over, by default a new one, with this copy of the data, or with all of it if None.

        Messages under way are lost, and connections are made again.
        """
        if copy is not None:
            self.script.redis.flushall()
            for key, value in copy.items():
                if value is not None:
                    self.script.redis.restore(key, 0, value)
        self.script.server = server or f"{self.rng.getrandbits(160):040x}"
        kept = [event for event in self._events if event[2].__name__ not in ("reached", "replied")]
        self._events = kept
        heapq.heapify(self._events)
        self.pass_time(0.05)

    def carry(self, process: Process, request: Request) -> None:
        """Carry a request to the store: once, twice, late or never."""
        for _ in range(1 if self.reliable else self.rng.choice([0, 1, 1, 1, 1, 1, 1, 2])):
            self.after(self._delay(), process.reached, request)

    def reply(self, process: Process, request: Request, reply: Reply) -> None:
        if self.reliable or self.rng.random() < 0.9:
            self.after(self._delay(), process.replied, request["number"], reply)

    def _delay(self) -> float:
        return self.rng.choice([0.0, 0.001, 0.01] if self.reliable else [0.0, 0.0, 0.001, 0.01, 0.2, 0.8])
