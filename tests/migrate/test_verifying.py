"""Reading back: what is compared with what, in how few calls, and what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stand_in import AT_ONCE, Action, Fate, Seen, StandIn, client_of, error, ok, page, sensible
from tim_async import Attempt, AuthError, C2CUnread, Lane, PermissionDenied, RetryPolicy, TIMClient
from tim_async.emulator import Emulator
from tim_async.errors import ClientClosed
from tim_async.migrate import (
    READ,
    UNREAD,
    Difference,
    FileSource,
    JournalError,
    JournalMismatch,
    Rejected,
    Row,
    SourceError,
    Verified,
    outage,
    verify,
    verifying,
)
from tim_async.migrate.journal import Changes, Journal
from tim_async.migrate.schema import About

from .storing import beside, contents

HEADER = "Report_Account,Peer_Account,MsgReadTime,C2CUnreadMsgNum\n"
NAME = "get_c2c_unread_msg_num"


def quick(service: Emulator, **options: Any) -> TIMClient:
    return TIMClient(**{**service.client_options(), "rates": {NAME: 5000}, "retry": AT_ONCE, **options})


def migrated(
    folder: Path,
    rows: Iterable[tuple[object, ...]],
    client: TIMClient,
    *,
    failed: Iterable[int] = (),
    left: Iterable[int] = (),
) -> tuple[FileSource, Path]:
    """Rows of accounts, peers, times and counts, and a journal by which they arrived, apart from some."""
    file, path = folder / "reads.csv", folder / "reads.journal"
    lines = [",".join(map(str, row)) + "," * (4 - len(row)) for row in rows]
    file.write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    source = FileSource(file, READ)
    about = About("read", source.name, source.fingerprint(), source.arguments, client.sdk_app_id, client.base_url)
    with Journal(path, about) as journal:
        for _ in journal.plan(source.read()):
            pass
        pending = [row.line for row in journal.unsettled(0, 10**6)]
        done = [line for line in pending if line not in {*failed, *left}]
        journal.save(Changes(done=done, failed=[(line, 90003, "no such account") for line in failed]))
    return source, path


async def all_of(*arguments: Any, **options: Any) -> tuple[list[Difference], Verified]:
    """The differences by line, and the summary."""
    async with asyncio.timeout(60), contextlib.aclosing(verify(*arguments, **options)) as found:
        items = [item async for item in found]
    last = items.pop()
    assert isinstance(last, Verified)
    differences = [item for item in items if isinstance(item, Difference)]
    assert len(differences) == len(items) == last.differences
    return sorted(differences, key=lambda difference: difference.line), last


@contextlib.contextmanager
def nothing_left(*paths: Path) -> Iterator[None]:
    """No task, no thread and no open file is left behind."""
    tasks = asyncio.all_tasks()
    yield
    # The servers run in the same loop.
    left = [repr(task) for task in asyncio.all_tasks() - tasks]
    assert [task for task in left if "StandIn" not in task and "RequestHandler" not in task] == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("tim-async-migrate")] == []
    if (fds := Path("/proc/self/fd")).exists():
        held = {str(fd.readlink()) for fd in fds.iterdir() if fd.is_symlink()}
        assert not held & {str(path) for path in paths}
    for path in paths:
        assert beside(path) == [path.name]


def fill(service: Emulator, accounts: int, peers: int) -> list[tuple[str, str]]:
    """Conversations that all have been read, those of an account apart from each other in the file."""
    pairs = [(f"user{account}", f"peer{peer}") for peer in range(peers) for account in range(accounts)]
    for account, peer in pairs:
        service.state.add_messages(account, peer, 3)
        service.state.mark_read(account, peer)
    return pairs


async def test_ten_peers_a_call(tmp_path: Path) -> None:
    """Those of an account together, wherever they are in the file; and nothing is changed by it."""
    async with Emulator(limit=None) as service, quick(service) as tim:
        source, journal = migrated(tmp_path, fill(service, 3, 25), tim)
        before = contents(journal)
        with nothing_left(journal, tmp_path / "reads.csv"):
            assert await all_of(tim, source, journal) == ([], Verified(75, 0, 0))
        report = service.report()
        assert report.endpoints[NAME].calls == 3 * 3
        assert report.total.calls == 9
        assert contents(journal) == before


async def test_differences(tmp_path: Path) -> None:
    """Against the row's own count where it has one, and else 0."""
    async with Emulator(limit=None) as service, quick(service) as tim:
        for peer in ("none", "two", "five"):
            service.state.add_messages("alice", peer, {"none": 0, "two": 2, "five": 5}[peer])
        rows = [
            ("alice", "none"),
            ("alice", "two"),
            ("alice", "five", "", 5),
            ("bob", "two"),
            ("alice", "unknown"),
            ("nobody", "two"),
        ]
        service.state.add_account("bob")
        source, journal = migrated(tmp_path, rows, tim)
        assert await all_of(tim, source, journal) == (
            [
                Difference(3, "alice", "two", expected=0, found=2, reason=""),
                Difference(6, "alice", "unknown", expected=0, found=None, reason="error 70107"),
                Difference(7, "nobody", "two", 0, None, "error 90003: To_Account: no such account: nobody"),
            ],
            Verified(6, 3, 0),
        )
        service.state.add_messages("alice", "none", 1)
        service.state.mark_read("alice", "five")
        service.state.mark_read("alice", "two")
        differences, _ = await all_of(tim, source, journal)
        assert [(each.line, each.expected, each.found) for each in differences if each.found is not None] == [
            (2, 0, 1),
            (4, 5, 0),
        ]


async def test_only_rows_that_arrived(tmp_path: Path) -> None:
    """Neither those that failed, nor rejected ones, nor those before the last of a conversation, nor those to come."""
    async with Emulator(limit=None) as service, quick(service) as tim:
        rows = [("a", "b", 1), ("a", "c"), ("a", "d"), ("a", ""), ("a", "b", 2, 7), ("a", "e")]
        for account in "abcde":
            service.state.add_messages("a", account, 1)
        source, journal = migrated(tmp_path, rows, tim, failed=[3], left=[4])
        differences, verified = await all_of(tim, source, journal)
        assert [(each.line, each.peer, each.expected) for each in differences] == [(6, "b", 7), (7, "e", 0)]
        assert verified == Verified(2, 2, 0)


async def test_nothing_arrived(tmp_path: Path) -> None:
    async with Emulator() as service, quick(service) as tim:
        source, journal = migrated(tmp_path, [("a", "b")], tim, failed=[2])
        assert await all_of(tim, source, journal) == ([], Verified(0, 0, 0))
        assert service.report().total.calls == 0


async def test_counts_of_groups_cannot_be_read_back(tmp_path: Path) -> None:
    """It says how many, and asks nothing."""
    file, path = tmp_path / "counts.csv", tmp_path / "counts.journal"
    file.write_text("GroupId,Member_Account,UnreadMsgNum\ng,a,1\ng,b,2\ng,c,3\n")
    async with Emulator() as service, quick(service) as tim:
        source = FileSource(file, UNREAD)
        about = About("unread", source.name, source.fingerprint(), source.arguments, tim.sdk_app_id, tim.base_url)
        with Journal(path, about) as journal:
            list(journal.plan(source.read()))
            journal.save(Changes(done=[2], lowered=[(1, 3)], failed=[(4, 10007, "no")]))
        with nothing_left(path, file):
            assert await all_of(tim, source, path) == ([], Verified(0, 0, 2))
        assert service.report().total.calls == 0


async def test_by_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than are kept in memory: each once, whether or not they fill the last window."""
    monkeypatch.setattr(verifying, "_WINDOW", 20)
    for accounts in (6, 7):
        folder = tmp_path / str(accounts)
        folder.mkdir()
        async with Emulator(limit=None) as service, quick(service) as tim:
            pairs = fill(service, accounts, 10)
            for account, peer in pairs:
                service.state.add_messages(account, peer, 1)
            source, journal = migrated(folder, pairs, tim)
            differences, verified = await all_of(tim, source, journal, concurrency=3)
        assert [each.line for each in differences] == list(range(2, accounts * 10 + 2))
        assert verified == Verified(accounts * 10, accounts * 10, 0)


async def test_the_calls_are_bulk(service: StandIn, tmp_path: Path) -> None:
    """Those of users go first."""
    seen: list[Attempt] = []
    async with client_of(service, on_attempt=seen.append) as tim:
        source, journal = migrated(tmp_path, [("a", f"p{n}") for n in range(25)], tim)
        await all_of(tim, source, journal)
    assert [attempt.lane for attempt in seen] == [Lane.BULK] * 3


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_no_more_at_once_than_allowed(
    service: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    call = TIMClient.get_c2c_unread_msg_num
    under_way = [0]

    async def counted(tim: TIMClient, account: str, peers: Iterable[str]) -> C2CUnread:
        under_way.append(under_way[-1] + 1)
        try:
            return await call(tim, account, peers)
        finally:
            under_way.append(under_way[-1] - 1)

    monkeypatch.setattr(TIMClient, "get_c2c_unread_msg_num", counted)
    async with client_of(service) as tim:
        source, journal = migrated(tmp_path, [(f"a{n}", "p") for n in range(40)], tim)
        await all_of(tim, source, journal, concurrency=concurrency)
    assert max(under_way) == concurrency
    assert len(under_way) == 81


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, "2"])
async def test_a_concurrency_that_cannot_be(service: StandIn, tmp_path: Path, concurrency: Any) -> None:
    async with client_of(service) as tim:
        source, journal = migrated(tmp_path, [("a", "p")], tim)
        with pytest.raises((ValueError, TypeError), match="concurrency"):
            await all_of(tim, source, journal, concurrency=concurrency)
    assert service.seen == []


# What ends it


async def test_wrong_key(tmp_path: Path) -> None:
    """It is no difference of a thousand rows."""
    async with Emulator(limit=None) as service, quick(service, secret_key="f" * 64) as tim:
        source, journal = migrated(tmp_path, fill(service, 100, 10), tim)
        with nothing_left(journal, tmp_path / "reads.csv"), pytest.raises(AuthError):
            await all_of(tim, source, journal, concurrency=2)
        assert service.report().total.calls <= 4


async def test_no_permission(tmp_path: Path) -> None:
    async with Emulator(limit=None) as service, quick(service) as tim:
        source, journal = migrated(tmp_path, fill(service, 100, 1), tim)
        service.fault(code=10007, endpoint=NAME)
        with nothing_left(journal, tmp_path / "reads.csv"), pytest.raises(PermissionDenied):
            await all_of(tim, source, journal, concurrency=2)


async def test_a_client_that_is_closed(service: StandIn, tmp_path: Path) -> None:
    """It ends with the calls that wait, instead of listing the rows of all others; so does one that begins then."""
    service.answer = lambda _: ok(C2CUnreadMsgNumList=[{"Peer_Account": "p", "C2CUnreadMsgNum": 1}])
    async with client_of(service, rates={NAME: 1}) as tim:
        source, journal = migrated(tmp_path, [(f"a{n}", "p") for n in range(100)], tim)
        with nothing_left(journal, tmp_path / "reads.csv"):
            found = verify(tim, source, journal, concurrency=5)
            async with contextlib.aclosing(found):
                assert isinstance(await anext(found), Difference)
                await tim.aclose()
                with pytest.raises(ClientClosed):
                    await anext(found)
            with pytest.raises(ClientClosed, match="the client is closed"):
                await all_of(tim, source, journal)


async def test_left_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a task nor a thread nor an open file stays, whatever it was doing."""
    monkeypatch.setattr(verifying, "_WINDOW", 20)
    async with Emulator(limit=None) as service, quick(service) as tim:
        pairs = fill(service, 50, 4)
        for account, peer in pairs:
            service.state.add_messages(account, peer, 1)
        source, journal = migrated(tmp_path, pairs, tim)
        await tim.get_all_c2c_unread_msg_num("user0")  # so that the connection and its tasks are there
        for number in (0, 1, 7, 150):
            with nothing_left(journal, tmp_path / "reads.csv"):
                found = verify(tim, source, journal, concurrency=1)
                for _ in range(number):
                    await anext(found)
                await found.aclose()


async def test_cancelled(service: StandIn, tmp_path: Path) -> None:
    """In the middle of a call."""
    service.answer = lambda _: Fate.HOLD
    async with client_of(service) as tim:
        source, journal = migrated(tmp_path, [(f"a{n}", "p") for n in range(100)], tim)
        task = asyncio.create_task(all_of(tim, source, journal, concurrency=5))
        await service.until(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        service.let_go.set()
    assert beside(journal) == ["reads.journal"]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("tim-async-migrate")] == []


async def test_a_call_that_always_fails(service: StandIn, tmp_path: Path) -> None:
    """Its rows are listed with the reason once others have got through all the while."""

    def answer(seen: Seen) -> Action:
        return error(10002, "busy") if seen.json["To_Account"] == "bad" else sensible(seen)

    service.answer = answer
    rows = [(f"a{n}", "unknown") for n in range(50)]
    rows[10:10] = [("bad", "p"), ("bad", "q")]
    async with client_of(service, retry=RetryPolicy(attempts=40, wait=(0.0, 0.0))) as tim:
        source, journal = migrated(tmp_path, rows, tim)
        differences, verified = await all_of(tim, source, journal, concurrency=1)
    bad = [each for each in differences if each.account == "bad"]
    assert [(each.line, each.peer, each.found) for each in bad] == [(12, "p", None), (13, "q", None)]
    assert all(each.reason == "error 10002: busy" for each in bad)
    assert verified == Verified(52, 52, 0)


async def test_the_last_call_always_fails(service: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no other left to compare it with, it is given up after a while, and not waited for forever."""
    monkeypatch.setattr(outage, "_LAST_WORD", 0.0)
    service.answer = lambda _: error(10002, "busy")
    async with client_of(service, retry=RetryPolicy(attempts=40, wait=(0.0, 0.0))) as tim:
        source, journal = migrated(tmp_path, [("bad", "p")], tim)
        differences, verified = await all_of(tim, source, journal)
    assert [each.reason for each in differences] == ["error 10002: busy"]
    assert verified == Verified(1, 1, 0)


async def test_an_outage(service: StandIn, tmp_path: Path) -> None:
    """It is waited out, and is nobody's difference."""
    service.script.extend([page(502), Fate.DROP, Fate.DROP_UNREAD, error(10002)])
    service.answer = lambda seen: ok(
        C2CUnreadMsgNumList=[{"Peer_Account": peer, "C2CUnreadMsgNum": 0} for peer in seen.json["Peer_Account"]]
    )
    async with client_of(service, retry=RetryPolicy(attempts=1)) as tim:
        source, journal = migrated(tmp_path, [(f"a{n}", "p") for n in range(10)], tim)
        assert await all_of(tim, source, journal, concurrency=2) == ([], Verified(10, 0, 0))
    assert not service.script


async def test_answers_that_leave_a_peer_out(service: StandIn, tmp_path: Path) -> None:
    """Is unknown, and not 0."""
    service.answer = lambda _: ok(C2CUnreadMsgNumList=[{"Peer_Account": "p", "C2CUnreadMsgNum": 0}])
    async with client_of(service) as tim:
        source, journal = migrated(tmp_path, [("a", "p"), ("a", "q")], tim)
        differences, _ = await all_of(tim, source, journal)
    assert differences == [Difference(3, "a", "q", 0, None, "not in the answer")]


# What it is given


async def test_rows_that_have_changed(service: StandIn, tmp_path: Path) -> None:
    """Refused with both sides before anything is asked."""
    async with client_of(service) as tim:
        source, journal = migrated(tmp_path, [("a", "p"), ("a", "q")], tim)
        file = tmp_path / "reads.csv"
        file.write_text(file.read_text().replace("q", "r"))
        with nothing_left(journal, file), pytest.raises(JournalMismatch, match="has changed since"):
            await all_of(tim, source, journal)
        with pytest.raises(JournalMismatch, match="migration of 'read', and this is one of 'unread'"):
            await all_of(tim, FileSource(file, UNREAD), journal)
        file.unlink()
        with pytest.raises(SourceError, match="No such file"):
            await all_of(tim, source, journal)
    assert service.seen == []


@pytest.mark.parametrize("changed", [Row(45, ("a", "x", None, None)), Rejected(45, "", "is wrong"), None])
async def test_rows_that_change_meanwhile(
    service: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Row | Rejected | None
) -> None:
    """What was read before the change is told; after it, no other row is taken for one of the file."""
    monkeypatch.setattr(verifying, "_WINDOW", 10)

    class Changing(FileSource):
        def read(self) -> Iterator[Row | Rejected]:
            for row in super().read():
                if row.line < 45:
                    yield row
                elif changed is not None:
                    yield changed

    async with client_of(service) as tim:
        pairs = [("a", f"unknown{n}") for n in range(100)]
        source, journal = migrated(tmp_path, pairs, tim)
        told = []

        async def read_all() -> None:
            async with contextlib.aclosing(verify(tim, Changing(source.name, READ), journal)) as found:
                async for item in found:
                    assert isinstance(item, Difference)
                    told.append(item.line)

        # The error is kept to the end: so are the frames it came through, and nothing must depend on them.
        with (
            nothing_left(journal, Path(source.name)),
            pytest.raises(SourceError, match="is not the file that was migrated: its row at line 45"),
        ):
            await read_all()
    assert sorted(told) == list(range(2, 42))


async def test_other_arguments(service: StandIn, tmp_path: Path) -> None:
    """Other conversations would be asked about than those that were marked."""
    async with client_of(service) as tim:
        source, journal = migrated(tmp_path, [("a", "p")], tim)
        other = FileSource(source.name, READ, id_formats={"Peer_Account": "user_{}"})
        with pytest.raises(JournalMismatch, match=r"other arguments: none then, .*user_"):
            await all_of(tim, other, journal)
    assert service.seen == []


async def test_another_app(tmp_path: Path) -> None:
    """Its counts say nothing of this migration; another port may be another service."""
    async with Emulator(limit=None) as service, Emulator(limit=None) as other:
        async with quick(service) as tim:
            source, journal = migrated(tmp_path, fill(service, 1, 1), tim)
        async with quick(service, sdk_app_id=1400000001) as tim:
            with pytest.raises(JournalMismatch, match="of app 1400000000, and this is app 1400000001"):
                await all_of(tim, source, journal)
        async with TIMClient(sdk_app_id=service.sdk_app_id, secret_key="x" * 64, region="seoul") as tim:
            with pytest.raises(JournalMismatch, match=r"127\.0\.0\.1.*adminapikr\.im\.qcloud\.com"):
                await all_of(tim, source, journal)
        async with quick(other) as tim:
            with pytest.raises(JournalMismatch, match=r"127\.0\.0\.1:\d+, and this is the one at .*127\.0\.0\.1:\d+"):
                await all_of(tim, source, journal)
        assert service.report().total.calls == other.report().total.calls == 0


async def test_no_journal(service: StandIn, tmp_path: Path) -> None:
    async with client_of(service) as tim:
        source, journal = migrated(tmp_path, [("a", "p")], tim)
        with pytest.raises(JournalError, match="there is no journal"):
            await all_of(tim, source, tmp_path / "nowhere")
        journal.write_bytes(b"no journal at all")
        with pytest.raises(JournalError, match="is no journal"):
            await all_of(tim, source, journal)
    assert service.seen == []


async def test_a_run_goes_on_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is in the other's way, and what the run has saved is in the one file when it ends."""
    monkeypatch.setattr(verifying, "_WINDOW", 5)
    async with Emulator(limit=None) as service, quick(service) as tim:
        pairs = fill(service, 10, 3)
        service.state.add_messages("user0", "peer0", 1)
        source, path = migrated(tmp_path, pairs, tim, left=[30, 31])
        found = verify(tim, source, path, concurrency=1)
        async with contextlib.aclosing(found):
            assert isinstance(await anext(found), Difference)
            about = About("read", source.name, source.fingerprint(), source.arguments, tim.sdk_app_id, tim.base_url)
            with Journal(path, about) as journal:
                journal.save(Changes(sending=[30, 31], at=1000))
                journal.save(Changes(done=[30, 31]))
            assert beside(path) == ["reads.journal"]
            assert [item async for item in found] == [Verified(30, 1, 0)]
