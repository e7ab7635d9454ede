"""The invariants of a migration, checked at each call, each exchange and each end of a process.

* A row is sent only by a process with a durable claim of it, and only with the value of its member's last row.
* All that a store has confirmed survives any crash: outcomes, and the claims of rows without an outcome.
* A row with a known outcome is never sent again: neither a settled row, nor a row whose answer has reached a process
  that exited cleanly.
* Two processes hold the same row only if the first was silent for longer than its lease.
* No process holds more rows than its concurrency; each ends in time.
* The status can be read at any moment.
* In the end each row has its expected state, the service has the last values, and the rejected file has each rejected
  row once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tests.simulation.service import Flight
from tests.simulation.watch import Violation
from tests.simulation.world import World
from tim_async._wire import Response
from tim_async.migrate import Status
from tim_async.migrate._store import Claim, Outcome

from .plan import Plan
from .service import LOOKUP

if TYPE_CHECKING:
    from .process import Process

SETTLED = frozenset({"done", "lowered", "failed", "rejected", "superseded"})
_TRANSIENT = frozenset({10002, 60007})


class Watch:
    """The observer that checks the invariants.

    Args:
        world: the world.
        plan: the plan of the migration.
        states: reads the state of each line from the store, "sending" for a claimed one; returns None if the store
            cannot be read at this moment.
    """

    def __init__(self, world: World, plan: Plan, states: Callable[[], Mapping[int, str] | None]) -> None:
        self.world = world
        self.plan = plan
        self.violations: list[Violation] = []
        self.sent: dict[int, list[Process]] = {}
        self.ended: Counter[str] = Counter()
        self.calls = self.again = self.looks = 0
        self._states = states
        self._expected = plan.expected()
        self._last = {line.account: line for line in plan.lines if line.group}
        self._holders: dict[int, list[Process]] = {}
        self._confirmed: dict[int, tuple[str, int]] = {}

    def violated(self, invariant: str, text: str) -> None:
        """Record a violation; only the first of each invariant is kept."""
        if all(violation.invariant != invariant for violation in self.violations):
            self.world.note("VIOLATION", invariant, text)
            self.violations.append(Violation(invariant, self.world.step, self.world.now, text))

    # Calls

    def sending(self, process: Process, account: str) -> None:
        """Note that a process sends an attempt."""
        self.world.note("sends", process.name, account)
        if account == LOOKUP:
            return
        self.calls += 1
        row = self._last.get(account)
        if row is None:
            self.violated("foreign row", f"{process.name} sends {account}, which is not in the file")
            return
        line = row.line
        if line not in process.claims:
            self.violated("claim", f"{process.name} sends line {line}, which it has not claimed")
        earlier = [one for one in self.sent.setdefault(line, []) if one is not process]
        if earlier and process not in self.sent[line]:
            self.again += 1
        if process not in self.sent[line]:
            self.sent[line].append(process)

    def arrived(self, flight: Flight, taken: bool) -> None:
        """Note that an attempt has reached the service."""
        row = self._last.get(flight.account)
        if row is not None and flight.request["UnreadMsgNum"] != row.number:
            self.violated("value", f"{flight.account} is sent {flight.request['UnreadMsgNum']}, not {row.number}")

    def delivered(self, process: Process, account: str, reply: Response) -> None:
        """Note that a process has received the answer to an attempt."""
        row = self._last.get(account)
        if row is not None and reply.status == 200 and json.loads(reply.body)["ErrorCode"] not in _TRANSIENT:
            process.answered(row.line)

    def paused(self, began: float, until: float) -> None:
        """Ignore a pause that the service asks for; the client's own tests cover it."""

    # Exchanges

    def claimed(self, process: Process, claims: Sequence[Claim], began: int) -> None:
        """Note that the store has confirmed claims that were requested at the step ``began``."""
        for claim in claims:
            line = claim.row.line
            for holder in self._holders.get(line, ()):
                if holder.alive and holder.claims.get(line) and not holder.silent:
                    self.violated("lease", f"{process.name} is given line {line}, which {holder.name} holds")
            self._holders.setdefault(line, []).append(process)
            process.claims[line] = True
            state, at = self._confirmed.get(line, ("", began))
            if at < began:
                self.violated("sent again", f"{process.name} is given line {line}, which is {state}")
            if not claim.again and line in self.sent and not process.silent:
                self.violated("again", f"{process.name} is given line {line} as new, although it was sent before")
        held = sum(process.claims.values())
        if held > max(2, self.plan.concurrency):
            self.violated("memory", f"{process.name} holds {held} rows; its concurrency is {self.plan.concurrency}")

    def settled(self, process: Process, outcomes: Iterable[Outcome]) -> None:
        """Note that the store has confirmed outcomes."""
        for outcome in outcomes:
            process.claims[outcome.line] = False
            self._confirmed.setdefault(outcome.line, (outcome.state.name.lower(), self.world.step))

    # Ends

    def over(self, process: Process, how: str) -> None:
        """Note that a process has ended, and check the state that it leaves."""
        self.world.note("over", process.name, how)
        if process.role != "look":
            self.ended[how] += 1
        if process.loop.failures:
            self.violated("exception", f"{process.name}: {process.loop.failures[0]}")
        states = self._states()
        if states is None:
            return
        self._judge_confirmed(process, states)
        if process.in_order:
            for line in process.answered_lines:
                if states.get(line) not in SETTLED:
                    self.violated(
                        "outcome dropped", f"{process.name} has the answer to line {line}, which is {states.get(line)}"
                    )
        sending = sum(state == "sending" for state in states.values())
        most = max(2, self.plan.concurrency)
        if not self.plan.stream and sending > most:
            self.violated("memory", f"{sending} rows are claimed after {process.name}, at concurrency {most}")

    def _judge_confirmed(self, process: Process, states: Mapping[int, str]) -> None:
        for line, (state, _) in self._confirmed.items():
            if states.get(line) != state:
                self.violated(
                    "outcome lost", f"line {line} was {state}, and is {states.get(line)} after {process.name}"
                )
        for line, held in process.claims.items():
            if held and states.get(line) == "pending" and (process.killed or process in self.sent.get(line, ())):
                self.violated("claim lost", f"line {line} was claimed by {process.name}, and is pending")

    def status_read(self, status: Status) -> None:
        """Check a status that a process has read."""
        self.looks += 1
        counts = status.counts
        if status.planned and counts.total != len(self.plan.lines):
            self.violated("status", f"{counts} are not {len(self.plan.lines)} rows")
        for name in ("pending", "sending", "done", "lowered", "failed", "rejected", "superseded"):
            if getattr(counts, name) < 0:
                self.violated("status", f"{counts}")

    def finished(self, values: Mapping[str, int], status: Status, rejected: Mapping[str, str]) -> None:
        """Check the end, when all processes have ended and no row is left.

        Args:
            values: the counts at the service.
            status: the status of the store.
            rejected: the content of each rejected file, by name.
        """
        expected, states = self._expected, self._states() or {}
        for line, state in expected.items():
            if states.get(line) != state:
                self.violated("state", f"line {line} is {states.get(line)} in the end, not {state}")
        if len(states) != len(expected):
            self.violated("state", f"there are {len(states)} rows in the end, not {len(expected)}")
        counts: Counter[str] = Counter(expected.values())
        for name, many in {"pending": 0, "sending": 0, **counts}.items():
            if getattr(status.counts, name) != many:
                self.violated("count", f"{getattr(status.counts, name)} rows are {name} by the status, not {many}")
        wanted = {row.account: row.number for row in self._last.values() if expected[row.line] in ("done", "lowered")}
        if {account: values.get(account) for account in wanted} != wanted:
            wrong = next(account for account in wanted if values.get(account) != wanted[account])
            self.violated("value", f"{wrong} is {values.get(wrong)} in the end, not {wanted[wrong]}")
        if len(values) > len(wanted):
            self.violated("value", f"{len(values)} members have a count in the end, not {len(wanted)}")
        problems = sorted(line for line, state in expected.items() if state in ("failed", "rejected"))
        if [*rejected] != (["rejected.jsonl"] if problems else []):
            self.violated("rejected file", f"there are {[*rejected]}")
        elif problems:
            self._judge_rejected(rejected["rejected.jsonl"], problems)

    def _judge_rejected(self, text: str, problems: list[int]) -> None:
        try:
            lines = [json.loads(line)["Line"] for line in text.splitlines()]
        except ValueError:
            self.violated("rejected file", "it is damaged")
            return
        if lines != problems:
            self.violated("rejected file", f"it has the lines {lines}, not {problems}")
