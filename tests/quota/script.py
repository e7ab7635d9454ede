"""``quota.lua`` by itself: on a real store whose clock and name a test sets, asked by processes that a test moves."""

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
"""Seconds without a word from a process after which its calls are taken to have ended."""


class Script:
    """One endpoint's quota in a store.

    Attributes:
        now: the time of the test, seconds, at which everything happens.
        ahead: seconds by which the store's clock has been set.
        server: what INFO says; None for a user who may not ask.
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
        """Run it with a request, at this moment of the test's."""
        told = divmod(START + micro(self.now + self.ahead), 1_000_000)
        info = "" if self.server is None else f"# Server\r\nrun_id:{self.server}\r\nhz:10\r\n"
        return read_reply(self._run([*self.keys.values()], [json.dumps(request), *told, info]))

    def state(self) -> dict[str, float]:
        """The fields of its state; what is not there is 0."""
        fields = self.redis.hgetall(self.keys["state"])
        return defaultdict(float, {name.decode(): float(value) for name, value in fields.items()})

    def check(self) -> None:
        """The store's counts are the sums of what they count."""
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
    """A process: it keeps a ledger as the product's does, and uses permits when a test says so.

    Attributes:
        hand: times at which permits in hand are due.
        usual: fields of every request, where they are not the usual ones.
    """

    _names = itertools.count()

    def __init__(self, script: Script, limit: float = 200, **usual: Any) -> None:
        self.script = script
        self.id = f"host:1:{next(self._names)}"
        self.ledger = Ledger()
        self.hand: list[float] = []
        self.number = self.heard = 0
        self.heard_at = -math.inf
        self.epoch = "0"
        self.round_trip = 0.0
        self.usual = {"limit": limit, **usual}

    @property
    def out(self) -> int:
        """Permits in hand and calls under way."""
        return self.ledger.in_flight + len(self.hand)

    def request(self, wanted: int = 0, lane: str = "interactive", **fields: Any) -> Request:
        """The next request."""
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
        request.update(self.usual)  # type: ignore[typeddict-item]
        if wanted:
            request["lane"], request["wanted"] = lane, wanted
        if self.ledger.counted(now):
            request["called_lately"] = True
        self.ledger.report(request, now, len(self.hand), self.heard)
        request.update(fields)  # type: ignore[typeddict-item]
        return request

    def hear(self, reply: Reply) -> list[float]:
        """Take in a reply; returns when the permits in it are due."""
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
        self.hand += due
        return due

    def ask(self, wanted: int = 0, lane: str = "interactive", **fields: Any) -> Reply:
        """Ask and hear, in no time."""
        reply = self.script.run(self.request(wanted, lane, **fields))
        self.hear(reply)
        return reply

    def send(self) -> None:
        """Send a call by the first permit in hand."""
        self.hand.remove(min(self.hand))
        self.ledger.in_flight += 1

    def end(self, ago: float = 0.0) -> None:
        """A call was answered."""
        self.ledger.in_flight -= 1
        self.ledger.cool(self.script.now - ago + SECOND)

    def call(self, calls: int = 1) -> None:
        """Have permits, which must be there now, send calls, and have them answered; tell nobody yet."""
        while self.out < calls:
            reply = self.ask(calls - self.out)
            assert reply.permits
            self.script.now += reply.permits[-1][0]
        for _ in range(calls):
            self.send()
            self.end()


class Call(NamedTuple):
    """A call under way: when it was sent, and when it will be answered."""

    sent: float
    ends: float


class Process(Member):
    """One that lives by itself in a `World`: calls, tells, sleeps, dies.

    Attributes:
        reached_at: when the store last heard of it.
    """

    def __init__(self, world: World, limit: float, **usual: Any) -> None:
        super().__init__(world.script, limit, **usual)
        self.world = world
        self.dice = world.dice
        self.alive = True
        self.asleep_until = 0.0
        self.reached_at = world.script.now
        self.calls: list[Call] = []
        self.asked_at = -math.inf
        self.waits_for = self.turn = 0
        self.again(0.0)

    def again(self, delay: float) -> None:
        """Take the next step after a delay, and not before."""
        self.turn += 1
        self.world.after(delay, self.step, self.turn)

    def step(self, turn: int) -> None:
        """Ask for permits, or tell only; an exchange that is under way is given up."""
        script, dice = self.script, self.dice
        if not self.alive or turn != self.turn:
            return
        if script.now < self.asleep_until:
            self.again(self.asleep_until - script.now)
            return
        for due in [due for due in self.hand if due < script.now - GRACE]:
            self.hand.remove(due)
            self.ledger.cool(due)
        fields: dict[str, Any] = {"budget": 0} if dice.random() < 0.1 else {}
        fields["settle"] = micro(SETTLE + 2 * self.round_trip)
        request = self.request(dice.choice([0, 1, 1, 3, 8]), dice.choice(["interactive", "bulk"]), **fields)
        self.asked_at, self.waits_for = script.now, self.number
        self.world.carry(self, request)
        self.again(self.world.overdue)

    def reached(self, request: Request) -> None:
        """A request of it comes to the store, and the reply goes back."""
        script = self.script
        silent_until = self.reached_at + HOLD
        if script.now > silent_until:
            # The store has taken its calls to have ended: they may not arrive later.
            for call in self.calls:
                self.world.arrivals.append(min(call.ends, silent_until))
            self.calls = [call._replace(sent=math.nan) for call in self.calls]
        self.reached_at = script.now
        reply = script.run(request)
        script.check()
        self.world.reply(self, request, reply)

    def replied(self, number: int, reply: Reply) -> None:
        """A reply comes back."""
        script = self.script
        if not self.alive:
            return
        if script.now < self.asleep_until:
            self.world.after(self.asleep_until - script.now, self.replied, number, reply)
            return
        if number != self.waits_for:
            return  # it was given up
        self.waits_for = 0
        took = script.now - self.asked_at
        self.round_trip += 0.2 * (took - self.round_trip)
        for due in self.hear(reply):
            if took >= REPLY_LIFETIME:
                self.hand.remove(due)
                self.ledger.cool(due)
            elif self.dice.random() < 0.9:
                late = self.dice.choice([0.0, 0.0, 0.05, GRACE])
                self.world.after(due - script.now + late, self.use, due)
        soon = self.dice.choice([0.0, 0.001, 0.05, REPORT])
        self.again(min(REPORT, max(soon, reply.again, reply.settling)))

    def use(self, due: float) -> None:
        """Send a call."""
        now = self.script.now
        if not self.alive or now < self.asleep_until or due not in self.hand:
            return
        self.hand.remove(due)
        self.ledger.in_flight += 1
        call = Call(now, now + self.dice.choice([0.0, 0.02, 0.3, 1.0, 3.0]))
        self.calls.append(call)
        self.world.after(call.ends - now, self.answered)

    def answered(self) -> None:
        """A call ends: it arrived at any time since it was sent, but not when its process was long taken for dead."""
        if not self.alive:
            return
        now = self.script.now
        call = min(self.calls, key=lambda call: call.ends)
        self.calls.remove(call)
        if not math.isnan(call.sent):
            latest = max(call.sent, min(now, self.reached_at + HOLD))
            self.world.arrivals.append(self.dice.choice([call.sent, latest]))
        self.ledger.in_flight -= 1
        self.ledger.cool(now + SECOND)

    def tell_at_once(self) -> None:
        """Talk to the store in no time, about nothing in particular."""
        self.waits_for = 0
        self.ask(settle=micro(SETTLE + 2 * self.round_trip))
        self.reached_at = self.script.now
        self.again(0.0)

    def kill(self) -> None:
        """Its calls that are under way have arrived, or never will."""
        self.alive = False
        latest = min(self.script.now, self.reached_at + HOLD)
        self.world.arrivals += [max(call.sent, latest) for call in self.calls if not math.isnan(call.sent)]


class World:
    """Processes that share a quota, in a time of their own.

    Args:
        script: the quota.
        dice: by which everything happens.
        lively: requests and replies arrive, and processes neither sleep nor vanish.

    Attributes:
        arrivals: when each call arrived.
        overdue: seconds after which a process gives an exchange up.
    """

    overdue = 0.5

    def __init__(self, script: Script, dice: random.Random, *, lively: bool) -> None:
        self.script = script
        self.dice = dice
        self.lively = lively
        self.processes: list[Process] = []
        self.arrivals: list[float] = []
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = itertools.count()

    def after(self, delay: float, do: Callable[..., None], *args: Any) -> None:
        """Do something later."""
        heapq.heappush(self._events, (self.script.now + delay, next(self._serial), do, args))

    def pass_time(self, seconds: float) -> None:
        """Let happen what happens."""
        until = self.script.now + seconds
        while self._events and self._events[0][0] <= until:
            self.script.now, _, do, args = heapq.heappop(self._events)
            do(*args)
        self.script.now = until

    def join(self, limit: float, **usual: Any) -> Process:
        """A process begins."""
        process = Process(self, limit, **usual)
        self.processes.append(process)
        return process

    def living(self) -> list[Process]:
        return [process for process in self.processes if process.alive]

    def fail_over(self, copy: Mapping[str, bytes | None] | None, server: str | None = None) -> None:
        """Another server takes over, a new one unless it is given, with other data unless None.

        What is under way is lost, and connections are made anew.
        """
        if copy is not None:
            self.script.redis.flushall()
            for key, value in copy.items():
                if value is not None:
                    self.script.redis.restore(key, 0, value)
        self.script.server = server or f"{self.dice.getrandbits(160):040x}"
        kept = [event for event in self._events if event[2].__name__ not in ("reached", "replied")]
        self._events = kept
        heapq.heapify(self._events)
        self.pass_time(0.05)

    def carry(self, process: Process, request: Request) -> None:
        """A request goes to the store: once, twice, late or never."""
        for _ in range(1 if self.lively else self.dice.choice([0, 1, 1, 1, 1, 1, 1, 2])):
            self.after(self._delay(), process.reached, request)

    def reply(self, process: Process, request: Request, reply: Reply) -> None:
        if self.lively or self.dice.random() < 0.9:
            self.after(self._delay(), process.replied, request["number"], reply)

    def _delay(self) -> float:
        return self.dice.choice([0.0, 0.001, 0.01] if self.lively else [0.0, 0.0, 0.001, 0.01, 0.2, 0.8])


def fullest(times: list[float]) -> int:
    """The most in any second."""
    times = sorted(times)
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most
