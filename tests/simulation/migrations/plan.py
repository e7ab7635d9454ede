"""The plan of a seed: a file, the options of its migration, and the end of each process."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, replace

from tests.simulation.network import Path, drawn_path

REFUSED = "absent"
"""The prefix of members that the service refuses."""


class Group(enum.Enum):
    """The kinds of groups."""

    PLAIN = enum.auto()
    SMALL = enum.auto()
    """A group with ten messages."""
    DEAF = enum.auto()
    """A group without unread counts."""
    ABSENT = enum.auto()


GROUPS = {"group": Group.PLAIN, "small": Group.SMALL, "hall": Group.DEAF, "nothing": Group.ABSENT}
"""The groups, by the prefix of their names."""
MESSAGES = 10
"""The number of messages of a small group."""


@dataclass(frozen=True)
class Line:
    """A line of the file.

    Attributes:
        line: its number.
        group, member: the group and the member of the count; "" for a line that is no row.
        number: the count.
    """

    line: int
    group: str
    member: str
    number: int

    @property
    def account(self) -> str:
        """The member, as named by the service."""
        return f"{self.group}/{self.member}"

    @property
    def text(self) -> str:
        """The text of the line."""
        return f"{self.group},{self.member},{self.number}" if self.group else f"group0,nobody,number {self.number}"


@dataclass(frozen=True)
class End:
    """The end of a process.

    Attributes:
        how: "await" for a kill between two callbacks of its loop, "write" for a kill at a point of the disk, "power"
            for a power loss there; "stop", "cancel" or "leave" between two callbacks; "full" or "broken" for a disk
            that refuses all changes from a point on; "" for none.
        at: the number of callbacks or points before the end.
        answers: the number of the service's answers after which these are counted.
    """

    how: str = ""
    at: int = 0
    answers: int = 0


@dataclass(frozen=True)
class Plan:
    """A migration.

    Attributes:
        seed: its seed.
        stream: whether its store is a shared one instead of a file.
        lines: the lines of the file.
        concurrency, group_check: the options of `MigrateOptions`.
        rate: the rate, calls/s.
        to_service, to_store: the one-way paths.
        disk: the mean time of a disk operation, seconds.
        ends: the ends of the processes in turn or, for a shared store, to deal to the loader and the workers.
        workers: the number of concurrent workers.
        lease: the lease of a shared store, seconds.
        faults: the number of faults of the service and the store.
        seconds: the time within which the faults begin, seconds.
    """

    seed: int
    stream: bool
    lines: tuple[Line, ...]
    concurrency: int
    group_check: bool
    rate: float
    to_service: Path
    to_store: Path
    disk: float
    ends: tuple[End, ...]
    workers: int
    lease: float
    faults: int
    seconds: float

    @property
    def text(self) -> str:
        """Return the text of the file."""
        return "".join(f"{line}\n" for line in ("GroupId,Member_Account,UnreadMsgNum", *(x.text for x in self.lines)))

    def expected(self) -> dict[int, str]:
        """Return the expected final state of each line."""
        last = {line.account: line.line for line in self.lines if line.group}
        return {line.line: self._state(line, last) for line in self.lines}

    def _state(self, line: Line, last: dict[str, int]) -> str:
        if not line.group:
            return "rejected"
        if last[line.account] != line.line:
            return "superseded"
        kind = GROUPS[line.group.rstrip("0123456789")] if self.group_check else Group.PLAIN
        if kind in (Group.DEAF, Group.ABSENT) or line.member.startswith(REFUSED):
            return "failed"
        return "lowered" if kind is Group.SMALL and line.number > MESSAGES else "done"

    def dealt(self) -> list[tuple[str, list[End]]]:
        """Deal the ends to a shared store's processes: to the loader of the file, and to the workers in turn."""
        slots: list[tuple[str, list[End]]] = [("load", []), *(("work", []) for _ in range(self.workers))]
        for number, end in enumerate(self.ends):
            # Loading needs no answer of the service.
            at = number % len(slots)
            slots[at][1].append(replace(end, answers=0) if at == 0 else end)
        return slots

    def __str__(self) -> str:
        ends = ", ".join(f"{end.how} {end.answers}+{end.at}" for end in self.ends)
        store = f"stream, {self.workers} workers, lease {self.lease:g}" if self.stream else "file"
        return (
            f"{len(self.lines)} lines, {store}, concurrency {self.concurrency}, {self.rate:g}/s; ends: {ends or 'none'}"
        )


def drawn(seed: int, *, stream: bool | None = None, small: bool = False) -> Plan:
    """Draw a migration.

    Args:
        seed: the seed.
        stream: True for a shared store, False for a file; None for a random choice.
        small: few rows and processes.
    """
    dice = random.Random(f"{seed} migration")
    shared = dice.random() < 0.5
    shared = shared if stream is None else stream
    count = dice.choice((1, 3, 8, 20, 40) if small else (1, 5, 20, 60, 150, 400))
    rate = dice.choice((20.0, 50.0, 200.0))
    concurrency = dice.choice((1, 2, 5, 20))
    lives = dice.randint(1, 3 if small else 7)
    lines = tuple(_line(dice, number, count) for number in range(2, count + 2))
    hows = ("await", "await", "stop", "cancel", "cancel", "leave") + (
        () if shared else ("write", "write", "power", "full", "broken")
    )
    ends = []
    for _ in range(lives):
        how = dice.choice(hows)
        if dice.random() < 0.5:
            ends.append(End(how, dice.randint(1, 15), answers=dice.randint(1, max(1, count // 2))))
        else:  # about as many as there are
            ends.append(End(how, 1 + int((150 + 8 * count) * dice.random())))
    return Plan(
        seed,
        shared,
        lines,
        concurrency,
        group_check=dice.random() < 0.7,
        rate=rate,
        to_service=drawn_path(dice, (0.003, 0.03, 0.1)),
        to_store=drawn_path(dice, (0.0005, 0.005, 0.03)),
        disk=dice.choice((0.0005, 0.01, 0.1)),
        ends=tuple(ends),
        workers=dice.choice((1, 2, 3, 3)) if shared else 1,
        lease=dice.choice((2.0, 10.0)),
        faults=dice.randint(0, 3 if small else 6),
        seconds=max(2.0, 2 * count / rate),
    )


def _line(dice: random.Random, number: int, count: int) -> Line:
    if dice.random() < 0.05:
        return Line(number, "", "", number)
    kind = dice.choice(["group"] * 12 + ["small", "small", "hall", "nothing"])
    name = REFUSED if dice.random() < 0.04 else "member"
    return Line(
        number, f"{kind}{dice.randrange(4)}", f"{name}{dice.randrange(max(1, count * 2 // 3))}", dice.randrange(20)
    )
