"""The judge: row by row, what there should be against what there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from .process import Final
from .results import COUNT, ENDPOINTS, MARK, RECEIPTS, SET, Results
from .sample import Row
from .world import World

Kind = Literal["lost", "wrong"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be.

    Attributes:
        endpoint: the call that should have seen to it.
        kind: ``lost`` when it was never done or never answered, ``wrong`` when it was, and wrongly.
        line: the row's line in the file; None for what was only asked for.
        item: what it is, for people.
        expected: what there should be.
        found: what there is; None for no answer.
        reported: the reason, if whoever did the job was told that it failed.
    """

    endpoint: str
    kind: Kind
    line: int | None
    item: str
    expected: int | str
    found: int | str | None
    reported: str | None


@dataclass(slots=True)
class Comparison:
    """All that was compared.

    Attributes:
        checked: how many things, by endpoint: rows, peers, messages.
        differences: those that are not as they should be.
        lowered: rows whose count the service lowered to the group's number of messages, as documented.
        ignored: rows that the service answered with success and ignored, as documented for their group's type.
        reported_failed: how many were reported as failed, by endpoint.
        done_yet_reported: rows that were carried out although they were reported as failed.
    """

    checked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDPOINTS, 0))
    differences: list[Difference] = field(default_factory=list)
    lowered: int = 0
    ignored: int = 0
    reported_failed: dict[str, int] = field(default_factory=dict)
    done_yet_reported: int = 0

    def count(self, kind: Kind, endpoint: str | None = None) -> int:
        """How many were lost, or wrong; of one endpoint or of all."""
        return sum(
            difference.kind == kind and endpoint in (None, difference.endpoint) for difference in self.differences
        )


def compare(world: World, results: Results, final: Final) -> Comparison:
    """Compare the final state and all that was answered with the input."""
    comparison = Comparison(
        lowered=sum(map(world.lowered, world.rows)),
        ignored=sum(map(world.ignored, world.rows)),
        reported_failed={endpoint: len(failed) for endpoint, failed in results.failed.items()},
    )
    for endpoint, differences in (
        (SET, _counts_set(world, results, final)),
        (MARK, _marked_read(world, results, final)),
        (COUNT, _counted(world, results)),
        (RECEIPTS, _receipts(world, results)),
    ):
        for difference in differences:
            comparison.checked[endpoint] += 1
            if difference is not None:
                comparison.differences.append(difference)
    rows = (difference for difference in comparison.differences if difference.line is not None)
    undone = sum(difference.reported is not None for difference in rows)
    comparison.done_yet_reported = comparison.reported_failed[SET] + comparison.reported_failed[MARK] - undone
    return comparison


# Each of these yields once for everything it checks: a difference, or None.


def _counts_set(world: World, results: Results, final: Final) -> Iterator[Difference | None]:
    for row in world.rows:
        before = world.groups[row.group_id].unread[row.member_account]
        expected, found = world.unread_expected(row), final.unread[row.group_id][row.member_account]
        reported = results.failed[SET].get((row.group_id, row.member_account))
        # Where the service ignores the call, only its answer tells whether it was made.
        lost = reported is not None if world.ignored(row) else found == before
        if found == expected and not (lost and world.ignored(row)):
            yield None
            continue
        item = f"{_who(row)} in {row.group_id}"
        yield Difference(SET, "lost" if lost else "wrong", row.line, item, expected, found, reported)


def _marked_read(world: World, results: Results, final: Final) -> Iterator[Difference | None]:
    for row in world.marks:
        key = (row.member_account, str(row.peer_account))
        expected = world.conversations[key].left
        found, until = final.conversations[key]
        if until is not None and found == expected and row.last_read_time in (None, until):
            yield None
            continue
        item = f"{_who(row)} from {row.peer_account}"
        kind: Kind = "lost" if until is None else "wrong"
        yield Difference(MARK, kind, row.line, item, expected, found, results.failed[MARK].get(key))


def _counted(world: World, results: Results) -> Iterator[Difference | None]:
    for account, inbox in world.inboxes.items():
        for peer, expected in inbox.items():
            found = results.counts.get(account, {}).get(peer)
            if found == expected:
                yield None
                continue
            reported = results.failed[COUNT].get((account, peer))
            kind: Kind = "lost" if found is None else "wrong"
            yield Difference(COUNT, kind, None, f"{account} from {peer}", expected, found, reported)


def _receipts(world: World, results: Results) -> Iterator[Difference | None]:
    for group, by_seq in world.receipts.items():
        answered = results.receipts.get(group, {})
        for seq, expected in by_seq.items():
            if seq in answered and answered[seq] == expected:
                yield None
                continue
            kind: Kind = "wrong" if seq in answered else "lost"
            found = _receipt(answered[seq]) if seq in answered else None
            reported = results.failed[RECEIPTS].get((group, seq))
            yield Difference(RECEIPTS, kind, None, f"message {seq} of {group}", _receipt(expected), found, reported)


def _receipt(numbers: tuple[int, int] | None) -> str:
    return "no receipt" if numbers is None else f"{numbers[0]} read, {numbers[1]} unread"


def _who(row: Row) -> str:
    return f"{row.display_name} ({row.member_account})" if row.display_name else row.member_account
