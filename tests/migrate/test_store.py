"""The protocol of stores, on every store."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async.migrate import (
    Counts,
    FailureCount,
    JournalError,
    JournalMismatch,
    MemoryStore,
    Rejected,
    Row,
    SqliteStore,
    Status,
    Store,
)
from tim_async.migrate._recorder import Series
from tim_async.migrate._store import About, Calls, Mended, Outcome, Pace, Problem, RowState, shortened

from . import storing
from .storing import ABOUT, FINGERPRINT, KNOWN, claim, lines, ram_folder, row, rows, settle_as

T = TypeVar("T")
Open = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Return a function that opens the store of one migration as a new process would."""
    if request.param == "memory":
        store = MemoryStore(lambda: time.time())  # noqa: PLW0108 - looked up at each call, because tests replace it
        return lambda: store
    return lambda: SqliteStore(tmp_path / "journal")


async def plan(store: Store, given: Sequence[Row | Rejected]) -> Store:
    return await storing.plan(store, given, batch=3)


async def resume(store: Store, about: About = KNOWN) -> Store:
    assert await store.open(about) == KNOWN
    return store


async def status_of(new_store: Open) -> Status:
    """Return the status as another process reads it."""
    store = new_store()
    status = await store.status()
    await store.close()
    return status


async def problems(store: Store) -> list[Problem]:
    return [problem async for problem in store.problems()]


async def accepted(store: Store, after: int = 0, most: int = 1000) -> list[int]:
    return [row.line async for row in store.accepted(after, most)]


async def test_the_states_of_rows_from_first_to_last(new_store: Open) -> None:
    store = await plan(
        new_store(),
        [
            row(2, "a"),
            Rejected(3, "UnreadMsgNum", "is negative: -1", {"GroupId": "g", "UnreadMsgNum": -1}),
            row(4, "a"),
            *(row(line, f"m{line}") for line in range(5, 9)),
        ],
    )
    assert await store.counts() == Counts(pending=5, rejected=1, superseded=1)
    first = await store.exchange([], 2, Calls())
    assert [(claim.row, claim.again) for claim in first.claims] == [(row(4, "a"), False), (row(5, "m5"), False)]
    assert (first.counts, first.exhausted) == (Counts(pending=3, sending=2, rejected=1, superseded=1), False)
    outcomes = [Outcome(4, RowState.DONE), Outcome(5, RowState.FAILED, 10007, "not a member")]
    second = await store.exchange(outcomes, 9, Calls(sent=2))
    assert lines(second.claims) == [6, 7, 8]
    assert second.exhausted
    last = await settle_as(store, {6: RowState.LOWERED, 8: RowState.DONE})
    assert last.counts == Counts(sending=1, done=2, lowered=1, failed=1, rejected=1, superseded=1)
    assert last.counts == await store.counts()
    assert await problems(store) == [
        Problem(3, None, "UnreadMsgNum: is negative: -1", {"GroupId": "g", "UnreadMsgNum": -1}),
        Problem(5, 10007, "not a member", {"GroupId": "g", "Member_Account": "m5", "UnreadMsgNum": 5}),
    ]
    assert [await accepted(store), await accepted(store, 4), await accepted(store, 0, 1)] == [[4, 8], [8], [4]]
    status = await store.status()
    assert (status.planned, status.running, status.counts) == (True, True, last.counts)
    assert status.failures == [
        FailureCount(None, "UnreadMsgNum: is negative: -1", 1, 3, rejected=True),
        FailureCount(10007, "not a member", 1, 5, rejected=False),
    ]
    await store.close("done")
    status = await status_of(new_store)
    assert About(status.kind, status.source, FINGERPRINT, status.arguments, status.sdk_app_id, status.base_url) == KNOWN
    assert (status.running, status.counts) == (False, last.counts)


members = st.lists(st.one_of(st.none(), st.tuples(st.sampled_from(["a", "a:1", "b"]), st.sampled_from("ab:1"))))


@given(members, st.lists(st.integers(1, 3_000_000), min_size=99))
def test_the_last_row_of_each_member_is_sent_and_no_other(ids: list[tuple[str, str] | None], gaps: list[int]) -> None:
    """Compared with a dict; rejected rows have no member, and ids that are equal only when joined are different."""
    planned: list[Row | Rejected] = []
    last: dict[tuple[str, str], int] = {}
    line = 64_000_000
    for member, gap in zip(ids, gaps, strict=False):
        line += gap
        if member is None:
            planned.append(Rejected(line, "UnreadMsgNum", "is negative: -1"))
        else:
            planned.append(Row(line, (*member, 1)))
            last[member] = line

    async def main(store: Store) -> None:
        await plan(store, planned)
        assert lines(await claim(store)) == sorted(last.values())
        counts = await store.counts()
        rejected = sum(isinstance(row, Rejected) for row in planned)
        assert counts == Counts(sending=len(last), rejected=rejected, superseded=len(planned) - len(last) - rejected)
        await store.close()

    asyncio.run(main(MemoryStore()))
    with ram_folder() as folder:
        asyncio.run(main(SqliteStore(folder / "journal")))


async def test_rows_claimed_by_a_run_that_was_killed(new_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come first, marked as sent before and with the time of their first claim, up to which they are read."""
    monkeypatch.setattr(time, "time", lambda: 1000.5)
    store = await plan(new_store(), [row(line, f"m{line}") for line in range(2, 8)])
    assert [(claim.row.line, claim.since, claim.again) for claim in await claim(store, 3)] == [
        (2, 1000, False),
        (3, 1000, False),
        (4, 1000, False),
    ]
    await settle_as(store, {2: RowState.DONE})
    await store.close()
    for at in (2000.5, 3000.5):
        monkeypatch.setattr(time, "time", lambda at=at: at)
        store = await resume(new_store())
        assert await store.counts() == Counts(pending=3, sending=2, done=1)
        taken = await claim(store, 3)
        assert [(claim.row.line, claim.since, claim.again) for claim in taken] == [
            (3, 1000, True),
            (4, 1000, True),
            (5, int(at), False),
        ]
        # Row 5 is released unsent, and so is row 3, which may have been sent before.
        await store.release([3, 5])
        assert await store.counts() == Counts(pending=3, sending=2, done=1)
        await store.close()
    assert [session.started for session in (await status_of(new_store)).sessions] == [1000.5, 2000.5, 3000.5]


async def test_claims_are_exhausted_when_no_row_is_pending(new_store: Open) -> None:
    """Not before, even if rows are still being sent."""
    store = await plan(new_store(), [row(line, f"m{line}") for line in range(2, 7)])
    assert not (await store.exchange([], 4, Calls())).exhausted
    reply = await store.exchange([Outcome(2, RowState.DONE)], 1, Calls())
    assert (lines(reply.claims), reply.exhausted or (await store.exchange([], 1, Calls())).exhausted) == ([6], True)
    assert (await claim(store), await store.counts()) == ([], Counts(sending=4, done=1))
    await store.close()


async def test_failures_are_grouped(new_store: Open) -> None:
    """By code, by field, or else by reason; the most frequent first."""
    rejected = [Rejected(20, "", "is not JSON"), Rejected(21, "", "is not JSON"), Rejected(22, "", "is long")]
    rejected += [Rejected(23, "GroupId", "is empty"), Rejected(24, "GroupId", "is long")]
    store = await plan(new_store(), [*(row(line, f"m{line}") for line in range(2, 10)), *rejected])
    await claim(store)
    failed: list[tuple[int, int | None, str]] = [
        (9, 10010, "no c"),
        (3, 10010, "no b"),
        (2, 10010, "no a"),
        (5, 0, "zero"),
        (4, 0, "nil"),
    ]
    failed += [(6, None, "timed out"), (7, None, "timed out"), (8, None, "lost")]
    outcomes = [Outcome(line, RowState.FAILED, code, reason) for line, code, reason in failed]
    await store.exchange(outcomes, 0, Calls())
    assert (await store.status()).failures == [
        FailureCount(10010, "no a", 3, 2, rejected=False),
        FailureCount(0, "nil", 2, 4, rejected=False),
        FailureCount(None, "timed out", 2, 6, rejected=False),
        FailureCount(None, "is not JSON", 2, 20, rejected=True),
        FailureCount(None, "GroupId: is empty", 2, 23, rejected=True),
        FailureCount(None, "lost", 1, 8, rejected=False),
        FailureCount(None, "is long", 1, 22, rejected=True),
    ]
    await store.close()


# Corrections


CASES: dict[str, tuple[str, dict[int, str], dict[int, str], Mended, str]] = {
    # Members by line from 2 ("-" is rejected), outcomes, corrected rows, the result, and the states afterwards:
    # pending, done, lowered, failed, rejected, superseded.
    "a failed row is sent again": ("ab", {2: "f", 3: "d"}, {2: "a"}, Mended(1), "pd"),
    "a rejected row is sent": ("-b", {}, {2: "a"}, Mended(1), "pp"),
    "a pending row takes new values": ("ab", {}, {2: "a"}, Mended(1), "pp"),
    "one that is still invalid": ("-b", {}, {2: "-"}, Mended(rejected=1), "rp"),
    "one that is spoiled": ("ab", {2: "f"}, {2: "-"}, Mended(rejected=1), "rp"),
    "accepted rows stay": ("abc", {2: "d", 3: "l"}, {2: "x", 3: "x"}, Mended(skipped=(2, 3)), "dlp"),
    "superseded rows stay": ("aa", {}, {2: "b"}, Mended(skipped=(2,)), "sp"),
    "lines that are not there": ("a", {}, {1: "x", 9: "x"}, Mended(skipped=(1, 9)), "p"),
    "a later row wins": ("-a", {}, {2: "a"}, Mended(superseded=1), "sp"),
    "a later row that was accepted wins": ("-a", {3: "d"}, {2: "a"}, Mended(superseded=1), "sd"),
    "a later row that failed wins": ("-a", {3: "f"}, {2: "a"}, Mended(superseded=1), "sf"),
    "it wins over an earlier row": ("a-", {}, {3: "a"}, Mended(1), "sp"),
    "it wins over an earlier row that failed": ("a-", {2: "f"}, {3: "a"}, Mended(1), "sp"),
    "it follows an earlier row that was accepted": ("a-", {2: "d"}, {3: "a"}, Mended(1), "dp"),
    "an earlier row is revived": ("aa", {3: "f"}, {3: "b"}, Mended(1), "pp"),
    "an earlier row is revived by a spoiled one": ("aa", {3: "f"}, {3: "-"}, Mended(rejected=1), "pr"),
    "only the last of those before is revived": ("aaa", {4: "f"}, {4: "b"}, Mended(1), "spp"),
    "nothing older is revived": ("-aa", {4: "f"}, {4: "b", 2: "a"}, Mended(1, 1), "spp"),
    "two rows become of one member": ("--", {}, {2: "a", 3: "a"}, Mended(1, 1), "sp"),
    "members are exchanged": ("ab", {2: "f", 3: "f"}, {2: "b", 3: "a"}, Mended(2), "pp"),
    "a chain": ("aab", {3: "f", 4: "f"}, {3: "b", 4: "c"}, Mended(2), "ppp"),
    "a chain that ends in an accepted row": ("aabb", {3: "f", 5: "d"}, {3: "b"}, Mended(superseded=1), "pssd"),
}
STATES = {"p": "pending", "d": "done", "l": "lowered", "f": "failed", "r": "rejected", "s": "superseded"}
OUTCOMES = {"d": RowState.DONE, "l": RowState.LOWERED, "f": RowState.FAILED}


def of_member(line: int, member: str, number: int = 0) -> Row | Rejected:
    if member == "-":
        return Rejected(line, "GroupId", "is empty", {"GroupId": ""})
    return row(line, member, number)


@pytest.mark.parametrize("case", CASES)
async def test_corrections(new_store: Open, case: str) -> None:
    """Of the rows of one member the last is sent; repeating a correction changes nothing."""
    planned, outcomes, mended, total, states = CASES[case]
    store = await plan(new_store(), [of_member(line, member) for line, member in enumerate(planned, 2)])
    claimed = await claim(store)
    await store.release([one.row.line for one in claimed if one.row.line not in outcomes])
    await settle_as(store, {line: OUTCOMES[state] for line, state in outcomes.items()})
    await store.close("limit")
    store = await resume(new_store())
    assert await store.mend([of_member(line, member, 77) for line, member in mended.items()]) == total
    expected = Counter(STATES[state] for state in states)
    assert await store.counts() == Counts(**expected)
    await store.mend([of_member(line, member, 77) for line, member in mended.items()])
    assert await store.counts() == Counts(**expected)
    assert lines(await claim(store)) == [line for line, state in enumerate(states, 2) if state == "p"]
    assert {problem.line for problem in await problems(store)} == {
        line for line, state in enumerate(states, 2) if state in "fr"
    }
    await store.close()


async def test_a_corrected_row_is_sent_with_its_new_values(new_store: Open) -> None:
    """The last correction of a line counts, and the row's earlier problem is removed."""
    store = await plan(new_store(), [row(2, "a", 1), Rejected(3, "", "is wrong")])
    await claim(store)
    await settle_as(store, {2: RowState.FAILED})
    await store.close("done")
    store = await resume(new_store())
    await store.mend([row(2, "x", 1), row(3, "c", 3), row(2, "b", 7)])
    assert [claim.row for claim in await claim(store)] == [row(2, "b", 7), row(3, "c", 3)]
    assert (await problems(store), (await store.status()).failures) == ([], [])
    await store.close()


# Random sequences, against each other and a model


class Model:
    """The rows by line, and which of them were accepted or failed."""

    def __init__(self, planned: Sequence[Row | Rejected]) -> None:
        self.rows = {row.line: row for row in planned}
        self.accepted: set[int] = set()
        self.failed: set[int] = set()

    def superseded(self, line: int) -> bool:
        one = self.rows[line]
        return isinstance(one, Row) and any(
            isinstance(other, Row) and other.identity == one.identity and other.line > line
            for other in self.rows.values()
        )

    def to_send(self) -> list[int]:
        return sorted(
            line
            for line, one in self.rows.items()
            if isinstance(one, Row) and line not in self.accepted | self.failed and not self.superseded(line)
        )

    def mend(self, given: Sequence[Row | Rejected]) -> None:
        last = {row.line: row for row in given}
        open_ = [line for line in last if line in self.rows and line not in self.accepted]
        for line in [line for line in open_ if not self.superseded(line)]:
            self.rows[line] = last[line]
            self.failed.discard(line)
        self.failed = {line for line in self.failed if not self.superseded(line)}

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            (self.failed if outcome.state is RowState.FAILED else self.accepted).add(outcome.line)


class Both:
    """Two stores that get the same calls, and must return the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stores: list[Store] = [MemoryStore(lambda: 1000.5), SqliteStore(path)]

    def again(self) -> None:
        self.stores[1] = SqliteStore(self.path)

    async def __call__(self, do: Callable[[Store], Awaitable[T]]) -> T:
        one, other = [await do(store) for store in self.stores]
        assert one == other
        return one


async def send_some(both: Both, model: Model, data: st.DataObject) -> None:
    """Exchange as one run does, with outcomes in any order, and perhaps release some rows."""
    to_send = model.to_send()
    claimed: list[int] = []
    outcomes: list[Outcome] = []
    for room in data.draw(st.lists(st.integers(1, 3), max_size=4)):
        given, calls = outcomes, Calls(sent=room)
        reply = await both(lambda store, given=given, room=room, calls=calls: store.exchange(given, room, calls))  # type: ignore[misc]
        model.settle(given)
        assert [claim.row for claim in reply.claims] == [model.rows[line] for line in to_send[len(claimed) :][:room]]
        claimed += lines(reply.claims)
        assert reply.exhausted == (len(claimed) == len(to_send))
        assert reply.counts.total == len(model.rows)
        outcomes = []
        for line in (line for line in claimed if line not in model.accepted | model.failed):
            state = data.draw(st.sampled_from([RowState.DONE, RowState.LOWERED, RowState.FAILED, None]))
            if state is not None:
                outcomes.append(Outcome(line, state, 10007, "no") if state is RowState.FAILED else Outcome(line, state))
    for store in both.stores:
        await store.exchange(outcomes, 0, Calls())
    model.settle(outcomes)
    if data.draw(st.booleans()):
        unsent = [line for line in claimed if line not in model.accepted | model.failed]
        await both(lambda store: store.release(unsent))


@given(planned=st.lists(st.sampled_from("abc-"), min_size=1, max_size=7), data=st.data())
def test_any_sequence_of_calls(planned: list[str], data: st.DataObject) -> None:
    """The stores agree after each step; no row is lost, and the rows to send are those of the model."""
    given = [of_member(line, member) for line, member in enumerate(planned, 2)]
    model = Model(given)
    corrections = st.lists(st.builds(of_member, st.integers(1, 9), st.sampled_from("abc-"), st.just(77)), max_size=4)

    async def main(both: Both) -> None:
        for store in both.stores:
            await plan(store, given)
        for _ in range(data.draw(st.integers(1, 4))):
            mended = data.draw(corrections)
            total = await both(lambda store, mended=mended: store.mend(mended))  # type: ignore[misc]
            model.mend(mended)
            assert total.taken + total.superseded + total.rejected + len(total.skipped) == len(
                {row.line for row in mended}
            )
            await send_some(both, model, data)
            counts = await both(lambda store: store.counts())
            assert (counts.taken, counts.failed, counts.left) == (
                len(model.accepted),
                len(model.failed),
                len(model.to_send()),
            )
            await both(problems)
            await both(accepted)
            await both(lambda store: store.close("limit"))
            both.again()
            assert await both(lambda store: store.open(KNOWN)) == KNOWN

    async def whole(path: Path) -> None:
        both = Both(path)
        try:
            await main(both)
        finally:  # hypothesis abandons some examples
            await both(lambda store: store.close())

    with pytest.MonkeyPatch.context() as patched, ram_folder() as folder:
        patched.setattr(time, "time", lambda: 1000.5)
        asyncio.run(whole(folder / "journal"))


# Mismatches


OTHERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "kind": ({"kind": "read"}, ["of a migration of 'unread'", "one of 'read'"]),
    "file": (
        {"source": "/data/other.csv", "fingerprint": "b2" * 32},
        ["of another file: /data/export.csv (a1a1a1a1a1a1…)", "/data/other.csv (b2b2b2b2b2b2…)"],
    ),
    "content": ({"fingerprint": "b2" * 32}, ["earlier content of /data/export.csv", "a1a1a1a1a1a1…", "b2b2b2b2b2b2…"]),
    "columns": (
        {"arguments": {"format": None, "columns": {"GroupId": "id"}}},
        ['{"columns": {"GroupId": "room"}} then', '{"columns": {"GroupId": "id"}} now'],
    ),
    "no columns": ({"arguments": {"format": None, "columns": {}}}, ['"room"}} then', "none now"]),
    "app": ({"sdk_app_id": 1400000001}, ["app 1400000000", "app 1400000001"]),
    "host": ({"base_url": "https://adminapikr.im.qcloud.com"}, ["127.0.0.1:8099", "adminapikr.im.qcloud.com"]),
    "port": ({"base_url": "http://127.0.0.1:8100"}, ["127.0.0.1:8099", "127.0.0.1:8100"]),
    "path": ({"base_url": "http://127.0.0.1:8099/other"}, ["127.0.0.1:8099,", "127.0.0.1:8099/other"]),
    "several": ({"kind": "read", "sdk_app_id": 7}, ["'unread'", "'read'; and of app 1400000000", "app 7"]),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_another_migration_is_refused(new_store: Open, name: str) -> None:
    """The error has both values and the remedies, and the store is unchanged."""
    store = await plan(new_store(), [row(2, "a"), row(3, "b")])
    await claim(store, 1)
    await store.close()
    changes, sides = OTHERS[name]
    store = new_store()
    with pytest.raises(JournalMismatch) as caught:
        await store.open(dataclasses.replace(KNOWN, **changes))
    for side in (store.name, *sides, "--restart", "another --journal", "--mended"):
        assert side in str(caught.value)
    await store.close()
    store = await resume(new_store())
    assert await store.counts() == Counts(pending=1, sending=1)
    await store.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "HTTP://127.0.0.1:8099/"},
        {"source": "/moved/export.csv"},
        {"fingerprint": ""},
        {"sdk_app_id": 0, "base_url": ""},
        {"arguments": {"columns": {"GroupId": "room"}, "format": None}},
    ],
)
async def test_differences_that_are_accepted(new_store: Open, changes: dict[str, Any]) -> None:
    """The spelling of a URL, another path of the same file, unknown values, and the order of arguments."""
    await (await plan(new_store(), [row(2, "a")])).close()
    store = await resume(new_store(), dataclasses.replace(KNOWN, **changes))
    await store.close()


async def test_a_store_that_was_never_planned_takes_any_migration(new_store: Open) -> None:
    """Nothing was sent; its rows are removed."""
    store = new_store()
    await store.open(dataclasses.replace(ABOUT, kind="read"))
    await store.plan([Row(2, ("a", "b", None, None)), Rejected(3, "", "is wrong")])
    await store.close()
    store = await plan(new_store(), [row(4, "a")])
    assert (await store.counts(), await problems(store)) == (Counts(pending=1), [])
    await store.close()


async def test_restart_removes_everything(new_store: Open) -> None:
    """Also if it is of another migration."""
    store = await plan(new_store(), [row(2, "a"), row(3, "b"), Rejected(4, "", "is wrong")])
    await claim(store, 1)
    await settle_as(store, {2: RowState.FAILED})
    await store.note("name", "value")
    await store.close("done")
    store = new_store()
    assert await store.open(dataclasses.replace(ABOUT, kind="read", sdk_app_id=7), restart=True) is None
    await store.plan([Row(9, ("a", "b", None, None))])
    await store.planned("c3" * 32)
    status = await store.status()
    assert (status.kind, status.counts, status.failures, status.sessions) == ("read", Counts(pending=1), [], [])
    assert (await problems(store), await store.note("name")) == ([], "")
    assert lines(await claim(store)) == [9]
    await store.close()


async def test_an_empty_store_has_no_status(new_store: Open) -> None:
    store = new_store()
    with pytest.raises(JournalError):
        await store.status()
    await store.close()


# Sessions, notes and the pace


async def test_sessions(new_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that sent something, with times, reason and calls; a killed one has no end."""
    series = Series(1000.0, limit=200.0)
    monkeypatch.setattr(time, "time", lambda: 1000.5)
    store = await plan(new_store(), list(rows(3)))
    await store.save_series(series.to_json())  # before the first session
    await claim(store, 1)
    await store.save_series(series.to_json())
    await store.exchange([Outcome(2, RowState.DONE)], 1, Calls(sent=3, done=1, refused=1, retried=2))
    await store.close()
    await (await resume(new_store())).close("done")
    store = await resume(new_store())
    await claim(store, 1)
    monkeypatch.setattr(time, "time", lambda: 2000.5)
    await store.close("interrupted")
    killed, second = (await status_of(new_store)).sessions
    assert (killed.started, killed.ended, killed.how, killed.series) == (1000.5, None, "", series)
    assert killed.calls == Calls(sent=3, done=1, refused=1, retried=2)
    assert (second.started, second.ended, second.how, second.series) == (1000.5, 2000.5, "interrupted", None)
    assert second.calls == Calls()


async def test_a_clock_that_is_set_back(new_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """No session ends before its start, which would last less than no time."""
    monkeypatch.setattr(time, "time", lambda: 2000.5)
    store = await plan(new_store(), list(rows(1)))
    await claim(store, 1)
    monkeypatch.setattr(time, "time", lambda: 1000.5)
    await store.close("done")
    [session] = (await status_of(new_store)).sessions
    assert (session.started, session.ended) == (2000.5, 2000.5)


async def test_notes_and_the_pace_are_kept(new_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """With or without a run; a run receives each pace that is set after its start."""
    store = await plan(new_store(), list(rows(3)))
    await store.note("notes", "first")
    await store.close()
    other = new_store()
    assert (await other.note("notes"), await other.note("other")) == ("first", "")
    assert await other.note("notes", "second 用户 \x00") == "second 用户 \x00"
    await other.set_pace(Pace(rate=7.0))
    await other.close()
    store = await resume(new_store())
    assert await store.note("notes") == "second 用户 \x00"
    clock = time.monotonic
    for elapsed, pace in enumerate([None, Pace(rate=50.0, share=0.5), None, Pace(share=0.1)]):
        monkeypatch.setattr(time, "monotonic", lambda elapsed=elapsed: clock() + 2 * elapsed)
        if pace is not None:
            await store.set_pace(pace)
        assert (await store.exchange([], 0, Calls())).pace == pace
    await store.close()


@given(st.text(max_size=400))
def test_any_reason_and_any_value_are_stored(text: str) -> None:
    """Whatever bytes of a file or texts of the service; long ones are cut."""
    reason = text + "\udce9\x00\U0001f600"
    found = {"GroupId": reason, "UnreadMsgNum": [None, 1.5, {"a": reason}]}

    async def main(path: Path) -> None:
        store = await plan(SqliteStore(path), [Row(2, ("g", "m", 2**63 - 1)), Rejected(3, "", reason, found)])
        assert [claim.row.values for claim in await claim(store)] == [("g", "m", 2**63 - 1)]
        await store.exchange([Outcome(2, RowState.FAILED, -(2**31), reason)], 0, Calls())
        failed, rejected = await problems(store)
        assert (failed.code, failed.reason) == (-(2**31), shortened(reason))
        assert (rejected.reason, rejected.fields) == (shortened(reason), found)
        await store.close()

    with ram_folder() as folder:
        asyncio.run(main(folder / "journal"))


async def test_keep_ends_only_by_cancellation(new_store: Open) -> None:
    store = await plan(new_store(), list(rows(1)))
    keeping = asyncio.create_task(store.keep())
    await claim(store)
    assert not keeping.done()
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping
    store.hurry()
    await store.close("done")
    await store.close()
