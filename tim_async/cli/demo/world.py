"""The demo's rows, and the state of the service before and after them.

All of it is generated from a fixed seed.  Each row changes the state, so that a row that was not sent always shows.
"""

from __future__ import annotations

import csv
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tim_async.emulator import GroupType, State

COUNTS, READS = "counts.csv", "reads.csv"

_SEED = 20250831
_SUMMER = 1_756_602_000  # 2025-08-31, unix seconds
_HOUR = 3_600
_KINDS: tuple[GroupType, ...] = ("Public", "Public", "Work", "Community")
_MEMBERS = 50
"""Rows per group; an account has a fifth as many conversations."""


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A row with a wrong result.

    Attributes:
        kind: "lost" if the state is unchanged, "wrong" if it has another value.
        file: the file of the row.
        line: the line in the file.
        expected: the unread count that was expected.
        found: the unread count that was found.
    """

    kind: str
    file: str
    line: int
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class World:
    """The rows of the files, and the state of the service.

    Attributes:
        files: the lines of each file as tuples of fields, the header first.
        groups: the type and the number of messages of each group.
        counts: by group and member: the line, and the unread count before and after.
        reads: by account and peer: the line, the time, and how many messages were sent before and after that.
    """

    files: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    groups: dict[str, tuple[GroupType, int]] = field(default_factory=dict)
    counts: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    reads: dict[tuple[str, str], tuple[int, int, int, int]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the files into a folder."""
        for name, lines in self.files.items():
            with (folder / name).open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows(lines)

    def fill(self, state: State) -> None:
        """Set the state of a service before the demo."""
        with state.lock:
            for group, (kind, messages) in self.groups.items():
                members = [member for other, member in self.counts if other == group]
                state.add_group(group, kind, messages=messages, members=members)
            for (group, member), (_, before, _) in self.counts.items():
                state.set_unread_in_group(group, member, before)
            for (account, peer), (_, time, before, after) in self.reads.items():
                state.add_messages(account, peer, before, at=time - _HOUR)
                state.add_messages(account, peer, after, at=time + _HOUR)

    def differences(self, state: State) -> Iterator[Discrepancy]:
        """Yield the rows with a wrong result."""
        with state.lock:
            for (group, member), (line, before, after) in self.counts.items():
                found = state.unread_in_group(group, member)
                if found != after:
                    yield Discrepancy("lost" if found == before else "wrong", COUNTS, line, after, found)
            for (account, peer), (line, time, _, after) in self.reads.items():
                until, found = state.read_time(account, peer), state.unread(account, peer)
                if until != time or found != after:
                    yield Discrepancy("lost" if until is None else "wrong", READS, line, after, found)


def make_world(rows: int) -> World:
    """Generate a world of ``rows`` unread counts and half as many conversations, always the same."""
    dice = random.Random(_SEED)
    world = World()
    _add_counts(world, rows, dice)
    _add_reads(world, -(-rows // 2), dice)
    return world


def _add_counts(world: World, rows: int, dice: random.Random) -> None:
    lines = world.files[COUNTS] = [("GroupId", "Member_Account", "UnreadMsgNum")]
    while len(world.counts) < rows:
        group = "@TGS#2" + "".join(dice.choices(string.ascii_uppercase + string.digits, k=9))
        messages = dice.randint(20, 2_000)
        world.groups[group] = dice.choice(_KINDS), messages
        for _ in range(min(_MEMBERS, rows - len(world.counts))):
            member = f"user_{dice.randint(10**5, 10**9)}"
            number = dice.choice((0, 1, 2, 3, 5, 8, 13, messages)) if dice.random() > 0.02 else messages + 7  # lowered
            if dice.random() < 0.01:
                lines.append((group, member, "99"))  # superseded by the next
            lines.append((group, member, str(number)))
            after = min(number, messages)
            world.counts[group, member] = len(lines), 0 if after else 1, after
    # Typical errors of exports.
    meeting, group = "@TGS#2MEETING01", next(iter(world.groups))
    world.groups[meeting] = "Meeting", 100
    lines += [(meeting, f"guest_{number}", "1") for number in range(3)]
    lines += [("@TGS#2DELETED01", "user_1", "5"), (group, "", "5"), (group, "user_2", "-1"), (group, "user_3", "1,204")]
    lines += [(group, "user_4", ""), (group, "user_5", "five"), (group, "user_6")]


def _add_reads(world: World, rows: int, dice: random.Random) -> None:
    lines = world.files[READS] = [("Report_Account", "Peer_Account", "MsgReadTime", "C2CUnreadMsgNum")]
    while len(world.reads) < rows:
        account = f"user_{dice.randint(10**5, 10**9)}"
        for number in range(min(_MEMBERS // 5, rows - len(world.reads))):
            time, before, after = _SUMMER - dice.randint(0, 10**7), dice.randint(1, 5), dice.randint(0, 4)
            peer = f"{account}_{number}"
            lines.append((account, peer, str(time), str(after)))
            world.reads[account, peer] = len(lines), time, before, after
    lines += [(account, f"{account}_x", "", "0"), (account, f"{account}_y", "1756602000000000", "0")]
