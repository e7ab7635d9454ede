"""Runs against a real server: what is sent, what is kept, and how each run ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.stand_in import AT_ONCE, Action, Fate, Seen, StandIn, client_of, error, ok, page
from tim_async import Attempt, AuthError, Lane, PermissionDenied, TIMClient
from tim_async.emulator import Emulator
from tim_async.migrate import (
    READ,
    UNREAD,
    Counts,
    Ended,
    Event,
    FileSource,
    Finished,
    JournalInUse,
    JournalMismatch,
    Kind,
    MemoryStore,
    MendedSource,
    PaceChanged,
    Progress,
    Reading,
    Recorder,
    RowFailed,
    RowLowered,
    SourceError,
    SqliteStore,
    Started,
    Waiting,
    read_status,
    run,
)
from tim_async.migrate._store import Pace

E = TypeVar("E")
Rows = Sequence[tuple[object, ...]]


HEADER = "GroupId,Member_Account,UnreadMsgNum"


def write(folder: Path, rows: Rows, header: str = HEADER) -> Path:
    file = folder / "rows.csv"
    lines = [",".join(map(str, row)) for row in rows]
    file.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return file


async def carry(tim: TIMClient, file: Path, kind: Kind = UNREAD, **options: Any) -> list[Event]:
    """All events of a run."""
    options = {"group_check": False, "interval": 0.05, **options}
    source = FileSource(file, kind, until_now=kind is READ)
    async with contextlib.aclosing(run(tim, source, file.with_suffix(".journal"), **options)) as events:
        return [event async for event in events]


def of(kind: type[E], events: Sequence[Event]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def names(folder: Path) -> list[str]:
    """What is in a folder, besides locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


async def drain(events: AsyncGenerator[Event, None]) -> None:
    """Read all events, for what they raise."""
    async with contextlib.aclosing(events):
        async for _ in events:
            pass


def finished(events: Sequence[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def quick(service: Emulator, **options: Any) -> TIMClient:
    rates = {"set_unread_msg_num": 5000, "admin_set_msg_read": 5000, "get_group_info": 5000}
    return TIMClient(**{**service.client_options(), "rates": rates, "retry": AT_ONCE, **options})


def count(seen: Seen) -> tuple[str, str, int]:
    body = seen.json
    return body["GroupId"], body["Member_Account"], body["UnreadMsgNum"]


async def test_every_row_arrives(tmp_path: Path) -> None:
    """And the events say so in their order."""
    rows = [(f"g{row % 7}", f"m{row}", row % 50) for row in range(700)]
    async with Emulator(limit=None) as service:
        for group in range(7):
            service.state.add_group(f"g{group}", messages=100, members=[f"m{row}" for row in range(700)])
        async with quick(service) as tim:
            events = await carry(tim, write(tmp_path, rows), group_check=True)
        state = {(group, member): service.state.unread_in_group(group, member) for group, member, _ in rows}
        looked_up = service.report().endpoints["get_group_info"].calls
    assert state == {(group, member): number for group, member, number in rows}
    assert looked_up == 1
    assert isinstance(events[0], Reading)
    assert of(Started, events) == [Started(Counts(pending=700), resumed=False)]
    assert finished(events) == Finished(Counts(done=700), Ended.DONE)
    assert [event.counts.total for event in of(Progress, events)] == [700] * len(of(Progress, events))
    assert names(tmp_path) == ["rows.csv", "rows.journal"]


async def test_the_calls_are_bulk(service: StandIn, tmp_path: Path) -> None:
    """Those of users go first, also before the look-ups."""
    lanes: list[Attempt] = []
    service.answer = lambda seen: (
        ok(GroupInfo=[{"GroupId": "g", "Type": "Work", "ErrorCode": 0}]) if "info" in seen.path else ok()
    )
    async with client_of(service, on_attempt=lanes.append) as tim:
        await carry(tim, write(tmp_path, [("g", "m", 1)]), group_check=True)
        await tim.set_unread_msg_num("g", "m", 1)
    assert [attempt.lane for attempt in lanes] == [Lane.BULK, Lane.BULK, Lane.INTERACTIVE]


async def test_the_last_row_of_a_member_wins(service: StandIn, tmp_path: Path) -> None:
    """Ten thousand rows for three hundred members, at random, with faults: whatever order they finish in."""
    dice = random.Random(3)
    rows = [(f"g{member % 9}", f"m{member}", dice.randrange(1000)) for member in dice.choices(range(300), k=10_000)]
    counts: dict[tuple[str, str], int] = {}

    def answer(seen: Seen) -> Action:
        group, member, number = count(seen)
        fate = dice.random()
        if fate < 0.02:
            return error(10002)
        if fate < 0.03:
            return page(502)
        counts[group, member] = number
        return Fate.DROP if fate < 0.05 else ok()

    service.answer = answer
    async with client_of(service, rates={"set_unread_msg_num": 5000}) as tim:
        end = finished(await carry(tim, write(tmp_path, rows), concurrency=64))
    last = {(group, member): number for group, member, number in rows}
    assert counts == last
    assert end.counts == Counts(done=len(last), superseded=len(rows) - len(last))


async def test_rows_of_groups_that_ignore_them_fail_unsent(tmp_path: Path) -> None:
    """With the reason; and rows above the group's messages are told apart."""
    rows = [("Work", "m", 3), ("Meeting", "m", 3), ("AVChatRoom", "m", 3), ("gone", "m", 3), ("Public", "m", 9)]
    async with Emulator(limit=None) as service:
        for name in ("Work", "Meeting", "AVChatRoom", "Public"):
            service.state.add_group(name, name, messages=5, members=["m"])
        async with quick(service) as tim:
            events = await carry(tim, write(tmp_path, rows), group_check=True)
        calls = service.report().endpoints["set_unread_msg_num"].calls
    assert calls == 2
    failed = {event.line: (event.code, event.reason) for event in of(RowFailed, events)}
    assert set(failed) == {3, 4, 5}
    assert failed[3] == (None, "the group is of type Meeting, where the service ignores unread counts")
    assert failed[5][0] == 10010
    assert of(RowLowered, events) == [RowLowered(6, ("Public", "m", 9), 5)]
    assert finished(events) == Finished(Counts(done=1, lowered=1, failed=3), Ended.DONE, {None: 2, 10010: 1})


async def test_refused_and_invalid_rows_are_accounted_for(service: StandIn, tmp_path: Path) -> None:
    """Each with its code; the others arrive."""
    codes = {"a": 10007, "b": 10015, "c": 70107, "d": 12345}
    service.answer = lambda seen: error(codes[count(seen)[1]], "no") if count(seen)[1] in codes else ok()
    rows = [("g", "a", 1), ("g", "b", 1), ("g", "", 1), ("g", "c", 1), ("g", "d", 1), ("g", "e", 1), ("g", "f", -1)]
    async with client_of(service) as tim:
        events = await carry(tim, write(tmp_path, rows))
    assert {event.values[1]: event.code for event in of(RowFailed, events)} == codes
    assert all("no" in event.reason for event in of(RowFailed, events))
    assert len(service.seen) == 5
    assert finished(events).counts == Counts(done=1, failed=4, rejected=2)
    assert finished(events).failures == {10007: 1, 10015: 1, 70107: 1, 12345: 1, None: 2}


@pytest.mark.parametrize("code", [70003, 60010, 70001])
async def test_refused_credentials_stop_the_run_and_fail_no_row(service: StandIn, tmp_path: Path, code: int) -> None:
    """With the right ones it goes on."""
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(100)])
    service.answer = lambda seen: error(code, "refused") if len(service.seen) > 40 else ok()
    async with client_of(service, rates={"set_unread_msg_num": 1000}) as tim:
        with pytest.raises(AuthError):
            await carry(tim, file, concurrency=10)
        counts = read_status(file.with_suffix(".journal")).counts
        assert (counts.done, counts.failed) == (40, 0)
        service.answer = lambda seen: ok()
        events = await carry(tim, file, concurrency=10)
    assert of(Started, events)[0].resumed
    assert finished(events) == Finished(Counts(done=100), Ended.DONE)
    assert read_status(file.with_suffix(".journal")).sessions[0].how == "failed"


async def test_who_may_not_look_groups_up_is_told_so(service: StandIn, tmp_path: Path) -> None:
    """No row is failed for it."""
    service.answer = lambda seen: error(10007, "not you")
    file = write(tmp_path, [("g", "m", 1)])
    async with client_of(service) as tim:
        with pytest.raises(PermissionDenied):
            await carry(tim, file, group_check=True)
    assert read_status(file.with_suffix(".journal")).counts.failed == 0


async def test_an_outage_is_waited_out(service: StandIn, tmp_path: Path) -> None:
    """Rows of unknown fate included; it is told when it begins and ends."""
    down = asyncio.Event()

    def answer(seen: Seen) -> Action:
        if len(service.seen) == 30:
            down.set()
        return Fate.DROP if down.is_set() else ok()

    service.answer = answer
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(100)])
    async with client_of(service, rates={"set_unread_msg_num": 1000}) as tim:
        events: list[Event] = []
        with FileSource(file, UNREAD) as source:
            async with contextlib.aclosing(
                run(tim, source, tmp_path / "j", concurrency=10, group_check=False)
            ) as running:
                async for event in running:
                    events.append(event)
                    if isinstance(event, Waiting):
                        service.answer = lambda seen: ok()
    names = [type(event).__name__ for event in events]
    assert names.index("Waiting") < names.index("Resumed")
    assert finished(events) == Finished(Counts(done=100), Ended.DONE)


async def test_an_outage_may_be_limited(service: StandIn, tmp_path: Path) -> None:
    """What was not taken is still there to be sent."""
    service.answer = lambda seen: page(503)
    file = write(tmp_path, [("g", "m", 1)])
    async with client_of(service) as tim:
        end = finished(await carry(tim, file, max_outage=0.01))
        assert end.ended is Ended.LIMIT
        assert "has accepted nothing" in end.reason
        assert end.counts.left == 1
        service.answer = lambda seen: ok()
        assert finished(await carry(tim, file)).ended is Ended.DONE


@pytest.mark.parametrize(("most", "sent"), [(0, 1), (3, 4)])
async def test_errors_may_be_limited(service: StandIn, tmp_path: Path, most: int, sent: int) -> None:
    """What is under way is finished, and nothing more is begun."""
    service.answer = lambda seen: error(10015, "no")
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(100)])
    async with client_of(service) as tim:
        end = finished(await carry(tim, file, max_errors=most, concurrency=1))
        assert end.ended is Ended.LIMIT
        assert end.counts == Counts(pending=100 - sent, failed=sent)
        assert end.reason == f"{sent} failed or rejected rows exceed --max-errors {most}"
        # The same again finds the limit reached, a higher one goes on.
        assert finished(await carry(tim, file, max_errors=most)).ended is Ended.LIMIT
        assert len(service.seen) == sent
        assert finished(await carry(tim, file)).counts == Counts(failed=100)


async def test_rejected_rows_count_before_anything_is_sent(service: StandIn, tmp_path: Path) -> None:
    """With ``max_errors=0`` a file is taken as a whole or not at all."""
    file = write(tmp_path, [("g", "m", 1), ("g", "", 1)])
    async with client_of(service) as tim:
        end = finished(await carry(tim, file, max_errors=0))
    assert (end.ended, end.counts) == (Ended.LIMIT, Counts(pending=1, rejected=1))
    assert service.seen == []


async def test_a_stop_finishes_what_is_under_way(service: StandIn, tmp_path: Path) -> None:
    """And nothing else; a second run does the rest, and a third finds nothing to do."""
    stop = asyncio.Event()

    def answer(seen: Seen) -> Action:
        if len(service.seen) == 50:
            stop.set()
        return ok()

    service.answer = answer
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(500)])
    async with client_of(service, rates={"set_unread_msg_num": 5000}) as tim:
        end = finished(await carry(tim, file, concurrency=8, stop=stop))
        assert end.ended is Ended.INTERRUPTED
        assert end.counts.sending == 0
        assert 50 <= end.counts.done == len(service.seen) <= 66
        assert finished(await carry(tim, file, concurrency=8)) == Finished(Counts(done=500), Ended.DONE)
        assert finished(await carry(tim, file)) == Finished(Counts(done=500), Ended.NOTHING_TO_DO)
    assert len(service.seen) == 500
    assert [session.how for session in read_status(file.with_suffix(".journal")).sessions] == ["interrupted", "done"]


async def test_a_stop_in_an_outage_does_not_wait_for_its_end(service: StandIn, tmp_path: Path) -> None:
    stop = asyncio.Event()
    service.answer = lambda seen: page(502)
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(50)])
    async with client_of(service) as tim:
        with FileSource(file, UNREAD) as source:
            events = run(tim, source, tmp_path / "j", group_check=False, stop=stop, interval=0.05)
            async with contextlib.aclosing(events):
                seen = []
                async for event in events:
                    seen.append(event)
                    if isinstance(event, Waiting):
                        stop.set()
    assert finished(seen).ended is Ended.INTERRUPTED
    assert finished(seen).counts.left == 50


async def test_a_stop_while_the_file_is_read_leaves_nothing(service: StandIn, tmp_path: Path) -> None:
    """No journal that knows half of the rows."""
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(40_000)])
    stop = asyncio.Event()
    stop.set()
    async with client_of(service) as tim:
        assert finished(await carry(tim, file, stop=stop)).ended is Ended.INTERRUPTED
    assert names(tmp_path) == ["rows.csv"]


@pytest.mark.parametrize("number", range(0, 60, 3))
async def test_leaving_at_any_moment_loses_nothing(service: StandIn, tmp_path: Path, number: int) -> None:
    """After so many events the loop is left; then the same call again, to the end."""
    counts: Counter[str] = Counter()

    def answer(seen: Seen) -> Action:
        counts[count(seen)[1]] += 1
        return error(10015, "no") if count(seen)[2] % 2 else ok()

    service.answer = answer
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(200)])
    async with client_of(service, rates={"set_unread_msg_num": 5000}) as tim:
        with FileSource(file, UNREAD) as source:
            journal = file.with_suffix(".journal")
            events = run(tim, source, journal, concurrency=8, group_check=False, interval=0.001)
            async with contextlib.aclosing(events):
                left = number
                async for _ in events:
                    left -= 1
                    if left <= 0:
                        break
        end = finished(await carry(tim, file, concurrency=8))
    assert end.counts == Counts(done=100, failed=100)
    assert set(counts) == {f"m{row}" for row in range(200)}
    assert sum(counts.values()) <= 200 + 8


@pytest.mark.parametrize("steps", range(0, 200, 8))
async def test_cancelled_at_any_moment_it_leaves_nothing_behind(service: StandIn, tmp_path: Path, steps: int) -> None:
    """No task, no thread that still writes, no lock; the fixture looks for tasks."""
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(60)])
    async with client_of(service, rates={"set_unread_msg_num": 5000}) as tim:
        task = asyncio.create_task(carry(tim, file, concurrency=4))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert finished(await carry(tim, file)).counts == Counts(done=60)


async def test_two_runs_on_one_journal(service: StandIn, tmp_path: Path) -> None:
    """The second is told, and the first is not disturbed."""
    service.answer = lambda seen: Fate.HOLD
    file = write(tmp_path, [("g", "m", 1)])
    async with client_of(service) as tim:
        first = asyncio.create_task(carry(tim, file))
        await service.until(1)
        with pytest.raises(JournalInUse):
            await carry(tim, file)
        assert read_status(file.with_suffix(".journal")).running
        service.answer = lambda seen: ok()
        service.let_go.set()
        assert finished(await first).ended is Ended.DONE


async def test_the_file_is_read_once(service: StandIn, tmp_path: Path) -> None:
    """The journal holds the values: the file may change or go, and only a changed one at a resumption is refused."""
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(60)])
    journal = tmp_path / "j"
    stop = asyncio.Event()
    async with client_of(service, rates={"set_unread_msg_num": 5000}) as tim:
        async for event in run(tim, FileSource(file, UNREAD), journal, group_check=False, limit=20, stop=stop):
            if isinstance(event, Started):
                file.write_text(f"{HEADER}\ng,m0,99\n")
        assert event == Finished(Counts(done=20, pending=40), Ended.ROW_LIMIT)
        with pytest.raises(JournalMismatch, match=r"of an earlier content of .*--restart.*--mended"):
            await drain(run(tim, FileSource(file, UNREAD), journal))
        file.unlink()
        await drain(run(tim, FileSource(file, UNREAD), journal, group_check=False))
    assert sorted(map(count, service.seen)) == sorted(("g", f"m{row}", row) for row in range(60))


async def test_a_journal_starts_over_when_told_to(service: StandIn, tmp_path: Path) -> None:
    """Once the new file has been read: one that cannot be read costs nothing."""
    file = write(tmp_path, [("g", "old", 1)])
    journal = file.with_suffix(".journal")
    async with client_of(service) as tim:
        await carry(tim, file)
        file.write_text("nothing of the kind\n")
        with pytest.raises(SourceError):
            await carry(tim, file, restart=True)
        assert read_status(journal).counts == Counts(done=1)
        write(tmp_path, [("g", "new", 2), ("g", "newer", 3)])
        assert finished(await carry(tim, file, restart=True)).counts == Counts(done=2)
    assert [count(seen)[1] for seen in service.seen] == ["old", "new", "newer"]


async def test_a_row_without_a_time_is_read_up_to_its_first_claim(service: StandIn, tmp_path: Path) -> None:
    """Across rounds and runs: messages that came since then are not marked read; and each time is sent as a string."""
    rows = [("a", "b", 1700000000), ("a", "c", ""), ("a", "d", "2025-08-31T09:00:00+08:00")]
    file = write(tmp_path, rows, "Report_Account,Peer_Account,MsgReadTime")
    service.answer = lambda seen: Fate.DROP
    before = int(time.time())
    async with client_of(service) as tim:
        end = finished(await carry(tim, file, READ, max_outage=0.01))
        assert end.counts.sending == 3
        between = int(time.time())
        service.answer = lambda seen: ok()
        await carry(tim, file, READ)
    times = defaultdict[str, set[str]](set)
    for body in service.bodies:
        times[body["Peer_Account"]].add(body["MsgReadTime"])
    assert times["b"] == {"1700000000"}
    assert times["d"] == {"1756602000"}
    (one,) = times["c"]
    assert before <= int(one) <= between


@pytest.mark.parametrize(
    ("pace", "rate", "told"),
    [
        (Pace(rate=4000), 2000, PaceChanged(4000, 0.5)),
        (Pace(share=1.0), 200, PaceChanged(200, 1.0)),
        (Pace(300, 0.1), 30, PaceChanged(300, 0.1)),
    ],
)
async def test_the_pace_can_be_changed_while_it_sends(
    service: StandIn, tmp_path: Path, pace: Pace, rate: float, told: PaceChanged
) -> None:
    """By anybody who can write the journal; the run hears of it within a second or two."""
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(5000)])
    journal = file.with_suffix(".journal")
    stop = asyncio.Event()
    async with client_of(service, rates={"set_unread_msg_num": 100}) as tim:
        options: dict[str, Any] = {"rate": 200.0, "share": 0.5, "group_check": False, "stop": stop, "concurrency": 4}
        async for event in run(tim, FileSource(file, UNREAD), journal, **options):
            match event:
                case Started():
                    other = SqliteStore(journal)
                    await other.set_pace(pace)
                    await other.close()
                case PaceChanged():
                    assert event == told
                    assert tim.stats()["set_unread_msg_num"].rate == rate
                    stop.set()
        assert finished([event]).ended is Ended.INTERRUPTED


@pytest.mark.parametrize(
    ("shared", "asked"),
    [(False, (("set_unread_msg_num", 150.0), {})), (True, (("set_unread_msg_num", 300.0), {"bulk_share": 0.5}))],
)
async def test_in_a_fleet_the_share_is_that_of_bulk_calls(
    service: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool, asked: object
) -> None:
    """All processes mean the same rate; a run of its own has less of it."""
    calls: list[object] = []
    monkeypatch.setattr(TIMClient, "set_rate", lambda _, *args, **options: calls.append((args, options)))
    store = MemoryStore()
    stop = asyncio.Event()
    async with client_of(service, rates={"set_unread_msg_num": 100}) as tim:
        file = write(tmp_path, [("g", f"m{row}", row) for row in range(500)])
        async for event in run(tim, FileSource(file, UNREAD), store, shared_quota=shared, stop=stop, group_check=False):
            if isinstance(event, Started):
                await store.set_pace(Pace(300.0, 0.5))
            elif isinstance(event, PaceChanged):
                stop.set()
    assert calls == [asked]


async def test_corrections_need_rows(service: StandIn, tmp_path: Path) -> None:
    """A mistyped journal does not become a migration of its own; and what restarts has none either."""
    file = write(tmp_path, [("g", "m", 1)])
    edited = tmp_path / "edited.jsonl"
    edited.write_text('{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 2, "Line": 2}\n')
    with pytest.raises(JournalMismatch, match="without --mended first"):
        async with client_of(service) as tim:
            await carry(tim, file, mended=MendedSource(edited, UNREAD))
    with pytest.raises(ValueError, match="would forget"):
        async with client_of(service) as tim:
            await carry(tim, file, mended=MendedSource(edited, UNREAD), restart=True)
    assert names(tmp_path) == ["edited.jsonl", "rows.csv"]
    assert service.seen == []


async def test_a_store_in_use_is_left_to_its_run(service: StandIn, tmp_path: Path) -> None:
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(40)])
    store = SqliteStore(tmp_path / "j")
    async with client_of(service) as tim:
        async for event in run(tim, FileSource(file, UNREAD), store, group_check=False):
            if isinstance(event, Started):
                with pytest.raises(JournalInUse):
                    await drain(run(tim, FileSource(file, UNREAD), store, group_check=False))
    assert finished([event]).counts == Counts(done=40)


async def test_who_has_left_a_run_may_begin_another_at_once(service: StandIn, tmp_path: Path) -> None:
    """The block ends when the run has ended, and its store is free."""
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(40)])
    store = MemoryStore()
    async with client_of(service) as tim:
        async with contextlib.aclosing(run(tim, FileSource(file, UNREAD), store, group_check=False)) as events:
            async for event in events:
                if isinstance(event, Started):
                    break
        async with contextlib.aclosing(run(tim, FileSource(file, UNREAD), store, group_check=False)) as events:
            last = [event async for event in events][-1]
    assert finished([last]).counts == Counts(done=40)


async def test_what_the_recorder_saw_is_kept(service: StandIn, tmp_path: Path) -> None:
    """For the report."""
    recorder = Recorder("set_unread_msg_num", 200)
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(20)])
    async with client_of(service, on_attempt=recorder.attempt) as tim:
        await carry(tim, file, recorder=recorder)
    (session,) = read_status(file.with_suffix(".journal")).sessions
    assert session.series is not None
    assert sum(slot.done for slot in session.series.slots) == 20
    assert session.ended is not None


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"concurrency": 0}, ValueError),
        ({"concurrency": True}, TypeError),
        ({"max_errors": -1}, ValueError),
        ({"max_outage": 0}, ValueError),
        ({"interval": 0}, ValueError),
    ],
)
async def test_arguments_that_cannot_be_right(
    service: StandIn, tmp_path: Path, options: dict[str, Any], kind: type[Exception]
) -> None:
    file = write(tmp_path, [("g", "m", 1)])
    async with client_of(service) as tim:
        with pytest.raises(kind):
            await carry(tim, file, **options)
    assert names(tmp_path) == ["rows.csv"]


def test_an_unreadable_file_leaves_no_journal(tmp_path: Path) -> None:
    """Nor does one without the columns."""

    async def main(make: Callable[[], Path]) -> None:
        async with TIMClient(sdk_app_id=1, secret_key="0" * 64, base_url="http://127.0.0.1:9") as tim:
            with pytest.raises(SourceError):
                await carry(tim, make())

    asyncio.run(main(lambda: write(tmp_path, [("g", "m", 1)], "a,b,c")))
    assert names(tmp_path) == ["rows.csv"]
    (tmp_path / "rows.csv").unlink()
    asyncio.run(main(lambda: tmp_path / "rows.csv"))
    assert names(tmp_path) == []
