"""What the demo's service is to hold before the job, and what must have come of it afterwards.

All of it follows from the sample: groups and members are the file's; conversations, inboxes and receipts are made up
from a fixed seed.  What every row finds there differs from what it leaves behind, so that a row which was never
carried out always shows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from .sample import Row, Sample

ROWS_ASKED_FOR_PEERS = 5
PEERS_ASKED = 50
RECEIPTS_A_CALL = 50

# https://www.tencentcloud.com/document/product/1047/34909
WITHOUT_UNREAD = frozenset({"ChatRoom", "Meeting", "AVChatRoom"})
# https://www.tencentcloud.com/document/product/1047/49439
WITHOUT_RECEIPTS = frozenset({"Community", "AVChatRoom"})

_HOUR = 3_600
_LONG_AGO = 1_735_689_600


@dataclass(frozen=True, slots=True)
class Group:
    """A group before the job: its type, its number of messages, and each member's unread count."""

    type: str
    messages: int
    unread: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a member has received from a peer before the job, all of it unread.

    Attributes:
        sent: ``[unix seconds, how many]`` for each batch of messages.
        left: how many must be unread afterwards.
    """

    sent: list[list[int]]
    left: int


@dataclass(frozen=True, slots=True)
class World:
    """What there is, by the ids of the service.

    Attributes:
        rows: the sample's valid rows; each sets one unread count.
        marks: those that also mark a conversation read.
        groups: by GroupId.
        conversations: those that will be marked read, by member and peer.
        inboxes: unread messages by account and peer; these stay as they are, to be counted.
        receipts: (read, unread) by GroupId and MsgSeq; None for a message sent without a receipt.
    """

    rows: list[Row]
    marks: list[Row]
    groups: dict[str, Group]
    conversations: dict[tuple[str, str], Conversation]
    inboxes: dict[str, dict[str, int]]
    receipts: dict[str, dict[int, tuple[int, int] | None]]

    def unread_expected(self, row: Row) -> int:
        """What a row must leave behind: its count, with the service's documented exceptions."""
        if self.ignored(row):
            return self.groups[row.group_id].unread[row.member_account]
        return min(row.unread_msg_num, self.groups[row.group_id].messages)

    def ignored(self, row: Row) -> bool:
        """Whether the service answers success and does nothing, because of the group's type."""
        return self.groups[row.group_id].type in WITHOUT_UNREAD

    def lowered(self, row: Row) -> bool:
        """Whether the service lowers the count to the group's number of messages."""
        return not self.ignored(row) and row.unread_msg_num > self.groups[row.group_id].messages

    def as_plain(self) -> dict[str, Any]:
        """What the service is to be filled with, ready for JSON."""
        return {
            "groups": [[name, group.type, group.messages, group.unread] for name, group in self.groups.items()],
            "conversations": [[*names, known.sent] for names, known in self.conversations.items()],
            "inboxes": self.inboxes,
            "receipts": {name: list(by_seq.items()) for name, by_seq in self.receipts.items()},
        }


def build(sample: Sample) -> World:
    """Make the world of a sample: the same one each time."""
    dice = random.Random(20250831)
    marks = [row for row in sample.rows if row.peer_account is not None]
    groups = _groups(sample.rows)
    conversations = {(row.member_account, str(row.peer_account)): _conversation(row, dice) for row in marks}
    # As many calls as there are rows, so that all four endpoints are busy from the beginning to the end.
    return World(
        rows=sample.rows,
        marks=marks,
        groups=groups,
        conversations=conversations,
        inboxes=_inboxes(sample.rows, conversations, dice),
        receipts=_receipts(groups, len(sample.rows), dice),
    )


def _groups(rows: list[Row]) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for row in rows:
        group = groups.setdefault(row.group_id, Group(row.group_type, row.msg_num))
        expected = min(row.unread_msg_num, group.messages)
        other = 1 if expected == 0 and group.messages else 0
        group.unread[row.member_account] = 0 if group.type in WITHOUT_UNREAD else other
    return groups


def _conversation(row: Row, dice: random.Random) -> Conversation:
    before, after = dice.randint(1, 5), dice.randint(0, 4)
    if row.last_read_time is None:
        return Conversation([[_LONG_AGO, before]], 0)
    read = row.last_read_time
    return Conversation([[read - _HOUR, before], [read + _HOUR, after]], after)


def _inboxes(
    rows: list[Row], conversations: dict[tuple[str, str], Conversation], dice: random.Random
) -> dict[str, dict[str, int]]:
    members = list(dict.fromkeys(row.member_account for row in rows))
    everybody = list(dict.fromkeys([*members, *(row.peer_account for row in rows if row.peer_account is not None)]))
    inboxes: dict[str, dict[str, int]] = {}
    for account in members[: -(-len(rows) // ROWS_ASKED_FOR_PEERS)]:
        # A conversation that is being marked read has no one right count meanwhile.
        others = [peer for peer in everybody if peer != account and (account, peer) not in conversations]
        peers = dice.sample(others, min(PEERS_ASKED, len(others)))
        inboxes[account] = {peer: dice.choice((0, 0, 1, 1, 2, 3, 5, 12)) for peer in peers}
    return inboxes


def _receipts(
    groups: dict[str, Group], calls: int, dice: random.Random
) -> dict[str, dict[int, tuple[int, int] | None]]:
    receipts: dict[str, dict[int, tuple[int, int] | None]] = {}
    for name, group in groups.items():
        if group.type in WITHOUT_RECEIPTS or not group.messages:
            continue
        seqs = range(1, min(group.messages, calls * RECEIPTS_A_CALL) + 1)
        receipts[name] = {seq: _receipt(len(group.unread), dice) for seq in seqs}
        calls -= -(-len(seqs) // RECEIPTS_A_CALL)
        if not calls:
            break
    return receipts


def _receipt(members: int, dice: random.Random) -> tuple[int, int] | None:
    if dice.random() < 0.08:
        return None
    others = max(0, members - 1)  # whoever sent it is not counted
    read = dice.randint(0, others)
    return read, others - read
