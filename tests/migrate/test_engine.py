"""Runs against a real server: requests, stored states, and how each run ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.stand_in import AT_ONCE, Action, Fate, Seen, StandIn, client_of, error, ok, page
from tim_async import Attempt, AuthError, Lane, TIMClient
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
    Rejected,
    Row,
    RowFailed,
    RowLowered,
    SqliteStore,
    Started,
    Waiting,
    read_status,
    run,
)
from tim_async.migrate._store import Pace

from .storing import all_of, finished, of

Rows = Sequence[tuple[object, ...]]


HEADER = "GroupId,Member_Account,UnreadMsgNum"


def write(folder: Path, rows: Rows, header: str = HEADER) -> Path:
    file = folder / "rows.csv"
    lines = [",".join(map(str, row)) for row in rows]
    file.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return file


async def collect(tim: TIMClient, file: Path, kind: Kind = UNREAD, **options: Any) -> list[Event]:
    """Run a migration, and return its events."""
    options = {"group_check": False, "interval": 0.05, **options}
    source = FileSource(file, kind, until_now=kind is READ)
    return await all_of(run(tim, source, file.with_suffix(".journal"), **options))


def names(folder: Path) -> list[str]:
    """Return the names of the files in a folder, without locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def quick(service: Emulator, **options: Any) -> TIMClient:
    rates = {"set_unread_msg_num": 5000, "admin_set_msg_read": 5000, "get_group_info": 5000}
    return TIMClient(**{**service.client_options(), "rates": rates, "retry": AT_ONCE, **options})


def count(seen: Seen) -> tuple[str, str, int]:
    body = seen.json
    return body["GroupId"], body["Member_Account"], body["UnreadMsgNum"]


async def test_every_row_arrives(tmp_path: Path) -> None:
    """The events and their counts are complete."""
    rows = [(f"g{row % 7}", f"m{row}", row % 50) for row in range(700)]
    async with Emulator(limit=None) as service:
        for group in range(7):
            service.state.add_group(f"g{group}", messages=100, members=[f"m{row}" for row in range(700)])
        async with quick(service) as tim:
            events = await collect(tim, write(tmp_path, rows), group_check=True)
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
    """Interactive calls go before them and before their look-ups."""
    lanes: list[Attempt] = []
    service.answer = lambda seen: (
        ok(GroupInfo=[{"GroupId": "g", "Type": "Work", "ErrorCode": 0}]) if "info" in seen.path else ok()
    )
    async with client_of(service, on_attempt=lanes.append) as tim:
        await collect(tim, write(tmp_path, [("g", "m", 1)]), group_check=True)
        await tim.set_unread_msg_num("g", "m", 1)
    assert [attempt.lane for attempt in lanes] == [Lane.BULK, Lane.BULK, Lane.INTERACTIVE]


async def test_rows_of_groups_that_ignore_them_fail_unsent(tmp_path: Path) -> None:
    """With the reason; rows above the group's messages are reported as lowered."""
    rows = [("Work", "m", 3), ("Meeting", "m", 3), ("AVChatRoom", "m", 3), ("gone", "m", 3), ("Public", "m", 9)]
    async with Emulator(limit=None) as service:
        for name in ("Work", "Meeting", "AVChatRoom", "Public"):
            service.state.add_group(name, name, messages=5, members=["m"])
        async with quick(service) as tim:
            events = await collect(tim, write(tmp_path, rows), group_check=True)
        calls = service.report().endpoints["set_unread_msg_num"].calls
    assert calls == 2
    failed = {event.line: (event.code, event.reason) for event in of(RowFailed, events)}
    assert set(failed) == {3, 4, 5}
    assert failed[3] == (None, "the group is of type Meeting, where the service ignores unread counts")
    assert failed[5][0] == 10010
    assert of(RowLowered, events) == [RowLowered(6, ("Public", "m", 9), 5)]
    assert finished(events) == Finished(Counts(done=1, lowered=1, failed=3), Ended.DONE, {None: 2, 10010: 1})


async def test_refused_and_invalid_rows_are_accounted_for(service: StandIn, tmp_path: Path) -> None:
    """Each failure with its code; the other rows arrive."""
    codes = {"a": 10007, "b": 10015, "c": 70107, "d": 12345}
    service.answer = lambda seen: error(codes[count(seen)[1]], "no") if count(seen)[1] in codes else ok()
    rows = [("g", "a", 1), ("g", "b", 1), ("g", "", 1), ("g", "c", 1), ("g", "d", 1), ("g", "e", 1), ("g", "f", -1)]
    async with client_of(service) as tim:
        events = await collect(tim, write(tmp_path, rows))
    assert {event.values[1]: event.code for event in of(RowFailed, events)} == codes
    assert all("no" in event.reason for event in of(RowFailed, events))
    assert len(service.seen) == 5
    assert finished(events).counts == Counts(done=1, failed=4, rejected=2)
    assert finished(events).failures == {10007: 1, 10015: 1, 70107: 1, 12345: 1, None: 2}


@pytest.mark.parametrize("code", [70003, 60010, 70001])
async def test_refused_credentials_stop_the_run_and_fail_no_row(service: StandIn, tmp_path: Path, code: int) -> None:
    """With valid credentials the run resumes."""
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(100)])
    service.answer = lambda seen: error(code, "refused") if len(service.seen) > 40 else ok()
    async with client_of(service, rates={"set_unread_msg_num": 1000}) as tim:
        with pytest.raises(AuthError):
            await collect(tim, file, concurrency=10)
        counts = read_status(file.with_suffix(".journal")).counts
        assert (counts.done, counts.failed) == (40, 0)
        service.answer = lambda seen: ok()
        events = await collect(tim, file, concurrency=10)
    assert of(Started, events)[0].resumed
    assert finished(events) == Finished(Counts(done=100), Ended.DONE)
    assert read_status(file.with_suffix(".journal")).sessions[0].how == "failed"


async def test_an_outage_is_waited_out(service: StandIn, tmp_path: Path) -> None:
    """Rows whose fate is unknown are sent again; events report its start and end."""
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


@pytest.mark.parametrize(("most", "sent"), [(0, 1), (3, 4)])
async def test_max_errors_ends_the_run(service: StandIn, tmp_path: Path, most: int, sent: int) -> None:
    """Requests under way are finished, and no others are sent."""
    service.answer = lambda seen: error(10015, "no")
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(100)])
    async with client_of(service) as tim:
        end = finished(await collect(tim, file, max_errors=most, concurrency=1))
        assert end.ended is Ended.LIMIT
        assert end.counts == Counts(pending=100 - sent, failed=sent)
        assert end.reason == f"{sent} failed or rejected rows exceed --max-errors {most}"
        # The same limit ends the next run at once; without it the rest is sent.
        assert finished(await collect(tim, file, max_errors=most)).ended is Ended.LIMIT
        assert len(service.seen) == sent
        assert finished(await collect(tim, file)).counts == Counts(failed=100)


async def test_a_stop_finishes_the_requests_under_way(service: StandIn, tmp_path: Path) -> None:
    """And sends no others; a second run sends the rest, and a third has nothing to do."""
    stop = asyncio.Event()

    def answer(seen: Seen) -> Action:
        if len(service.seen) == 50:
            stop.set()
        return ok()

    service.answer = answer
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(500)])
    async with client_of(service, rates={"set_unread_msg_num": 5000}) as tim:
        end = finished(await collect(tim, file, concurrency=8, stop=stop))
        assert end.ended is Ended.INTERRUPTED
        assert end.counts.sending == 0
        assert 50 <= end.counts.done == len(service.seen) <= 66
        assert finished(await collect(tim, file, concurrency=8)) == Finished(Counts(done=500), Ended.DONE)
        assert finished(await collect(tim, file)) == Finished(Counts(done=500), Ended.NOTHING_TO_DO)
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


@pytest.mark.parametrize("number", range(0, 60, 3))
async def test_leaving_a_run_after_any_event_loses_nothing(service: StandIn, tmp_path: Path, number: int) -> None:
    """The same call again finishes the migration."""
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
        end = finished(await collect(tim, file, concurrency=8))
    assert end.counts == Counts(done=100, failed=100)
    assert set(counts) == {f"m{row}" for row in range(200)}
    assert sum(counts.values()) <= 200 + 8


@pytest.mark.parametrize("steps", range(0, 200, 8))
async def test_a_run_cancelled_at_any_moment_leaves_nothing_behind(
    service: StandIn, tmp_path: Path, steps: int
) -> None:
    """No task, no writing thread and no lock; the fixture checks the tasks."""
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(60)])
    async with client_of(service, rates={"set_unread_msg_num": 5000}) as tim:
        task = asyncio.create_task(collect(tim, file, concurrency=4))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert finished(await collect(tim, file)).counts == Counts(done=60)


async def test_the_file_is_read_once(service: StandIn, tmp_path: Path) -> None:
    """The journal has the values: the file may be removed, and a changed one is refused when the run resumes."""
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(60)])
    journal = tmp_path / "j"
    stop = asyncio.Event()
    async with client_of(service, rates={"set_unread_msg_num": 5000}) as tim:
        async for event in run(tim, FileSource(file, UNREAD), journal, group_check=False, limit=20, stop=stop):
            if isinstance(event, Started):
                file.write_text(f"{HEADER}\ng,m0,99\n")
        assert event == Finished(Counts(done=20, pending=40), Ended.ROW_LIMIT)
        with pytest.raises(JournalMismatch, match=r"of an earlier content of .*--restart.*--mended"):
            await all_of(run(tim, FileSource(file, UNREAD), journal))
        file.unlink()
        await all_of(run(tim, FileSource(file, UNREAD), journal, group_check=False))
    assert sorted(map(count, service.seen)) == sorted(("g", f"m{row}", row) for row in range(60))


async def test_a_row_without_a_time_is_read_up_to_its_first_claim(service: StandIn, tmp_path: Path) -> None:
    """In all rounds and runs, so that later messages stay unread; each time is sent as a string."""
    rows = [("a", "b", 1700000000), ("a", "c", ""), ("a", "d", "2025-08-31T09:00:00+08:00")]
    file = write(tmp_path, rows, "Report_Account,Peer_Account,MsgReadTime")
    service.answer = lambda seen: Fate.DROP
    before = int(time.time())
    async with client_of(service) as tim:
        end = finished(await collect(tim, file, READ, max_outage=0.01))
        assert end.counts.sending == 3
        between = int(time.time())
        service.answer = lambda seen: ok()
        await collect(tim, file, READ)
    times = defaultdict[str, set[str]](set)
    for body in service.bodies:
        times[body["Peer_Account"]].add(body["MsgReadTime"])
    assert times["b"] == {"1700000000"}
    assert times["d"] == {"1756602000"}
    (one,) = times["c"]
    assert before <= int(one) <= between


@pytest.mark.parametrize(
    ("pace", "rate", "expected"),
    [
        (Pace(rate=4000), 2000, PaceChanged(4000, 0.5)),
        (Pace(share=1.0), 200, PaceChanged(200, 1.0)),
        (Pace(300, 0.1), 30, PaceChanged(300, 0.1)),
    ],
)
async def test_the_pace_can_be_changed_during_a_run(
    service: StandIn, tmp_path: Path, pace: Pace, rate: float, expected: PaceChanged
) -> None:
    """By any process that can write the journal; the run receives it within seconds."""
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
                    assert event == expected
                    assert tim.stats()["set_unread_msg_num"].rate == rate
                    stop.set()
        assert finished([event]).ended is Ended.INTERRUPTED


@pytest.mark.parametrize(
    ("shared", "asked"),
    [(False, (("set_unread_msg_num", 150.0), {})), (True, (("set_unread_msg_num", 300.0), {"bulk_share": 0.5}))],
)
async def test_with_a_shared_quota_the_share_is_that_of_bulk_calls(
    service: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool, asked: object
) -> None:
    """Without one, the rate itself is lowered."""
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


async def test_corrections_need_a_journal_with_rows(service: StandIn, tmp_path: Path) -> None:
    """A mistyped journal does not become a new migration, and neither does a restarted one."""
    file = write(tmp_path, [("g", "m", 1)])
    edited = tmp_path / "edited.jsonl"
    edited.write_text('{"GroupId": "g", "Member_Account": "m", "UnreadMsgNum": 2, "Line": 2}\n')
    with pytest.raises(JournalMismatch, match="without --mended first"):
        async with client_of(service) as tim:
            await collect(tim, file, mended=MendedSource(edited, UNREAD))
    with pytest.raises(ValueError, match="would forget"):
        async with client_of(service) as tim:
            await collect(tim, file, mended=MendedSource(edited, UNREAD), restart=True)
    assert names(tmp_path) == ["edited.jsonl", "rows.csv"]
    assert service.seen == []


async def test_a_store_in_use_refuses_a_second_run(service: StandIn, tmp_path: Path) -> None:
    file = write(tmp_path, [("g", f"m{row}", row) for row in range(40)])
    store = SqliteStore(tmp_path / "j")
    async with client_of(service) as tim:
        async for event in run(tim, FileSource(file, UNREAD), store, group_check=False):
            if isinstance(event, Started):
                with pytest.raises(JournalInUse):
                    await all_of(run(tim, FileSource(file, UNREAD), store, group_check=False))
    assert finished([event]).counts == Counts(done=40)


async def test_a_source_is_read_outside_the_event_loop(service: StandIn, tmp_path: Path) -> None:
    """Its rows and its fingerprint, each of which may block."""
    threads: set[threading.Thread] = set()

    class Watched(FileSource):
        def fingerprint(self) -> str:
            threads.add(threading.current_thread())
            return super().fingerprint()

        def read(self) -> Iterator[Row | Rejected]:
            for row in super().read():
                threads.add(threading.current_thread())
                yield row

    async with client_of(service) as tim:
        await all_of(run(tim, Watched(write(tmp_path, [("g", "m", 1)]), UNREAD), MemoryStore(), group_check=False))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"concurrency": 0}, ValueError),
        ({"concurrency": True}, TypeError),
        ({"max_errors": -1}, ValueError),
        ({"max_outage": 0}, ValueError),
        ({"interval": 0}, ValueError),
        ({"share": 2}, ValueError),
    ],
)
async def test_invalid_arguments(
    service: StandIn, tmp_path: Path, options: dict[str, Any], kind: type[Exception]
) -> None:
    file = write(tmp_path, [("g", "m", 1)])
    async with client_of(service) as tim:
        with pytest.raises(kind):
            await collect(tim, file, **options)
    assert names(tmp_path) == ["rows.csv"]


@pytest.mark.parametrize(
    "given",
    [
        {"client": None},
        {"source": "counts.csv"},
        {"mended": "counts.csv.rejected.jsonl"},
        {"restart": "false"},
        {"stop": threading.Event()},
        {"recorder": 5},
        {"group_check": "false"},
        {"shared_quota": 0},
    ],
)
async def test_arguments_of_wrong_types(service: StandIn, tmp_path: Path, given: dict[str, Any]) -> None:
    """Nothing is sent or discarded: "false" would be true."""
    file = write(tmp_path, [("g", "m", 1)])
    journal = file.with_suffix(".journal")
    async with client_of(service) as tim:
        await collect(tim, file)
        before = journal.read_bytes()
        arguments = {"client": tim, "source": FileSource(file, UNREAD), "journal": journal, **given}
        with pytest.raises(TypeError, match=next(iter(given))):
            await anext(run(**arguments))
    assert journal.read_bytes() == before
    assert len(service.seen) == 1
