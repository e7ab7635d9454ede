"""Verification: the compared counts, the number of calls, and errors that end it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stand_in import AT_ONCE, Action, Fate, Seen, StandIn, client_of, error, ok, page, sensible
from tim_async import Attempt, AuthError, C2CUnread, Lane, PermissionDenied, RetryPolicy, TIMClient
from tim_async.emulator import Emulator
from tim_async.errors import ClientClosed
from tim_async.migrate import (
    Difference,
    JournalError,
    JournalMismatch,
    Rejected,
    Row,
    SqliteStore,
    Verified,
    _breaker,
    _verifying,
    verify,
)
from tim_async.migrate._store import About, Calls

from .storing import contents, executor_threads, journal_files, planned, settle

NAME = "get_c2c_unread_msg_num"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reads.journal"


def quick(service: Emulator, **options: Any) -> TIMClient:
    return TIMClient(**{**service.client_options(), "rates": {NAME: 5000}, "retry": AT_ONCE, **options})


def about(client: TIMClient, kind: str = "read") -> About:
    return About(kind, "/data/reads.csv", "", {}, client.sdk_app_id, client.base_url)


async def migrated(
    path: Path,
    rows: Iterable[tuple[Any, ...] | None],
    client: TIMClient,
    *,
    failed: Iterable[int] = (),
    left: Iterable[int] = (),
) -> Path:
    """Create a journal of rows of accounts, peers and counts, from line 2 on, all done except some."""
    given = [
        Rejected(line, "", "is wrong") if row is None else Row(line, (*row[:2], None, *(row[2:] or (None,))))
        for line, row in enumerate(rows, 2)
    ]
    async with planned(path, given, about(client)) as store:
        lines = [claim.row.line for claim in (await store.exchange([], 10**6, Calls())).claims]
        await settle(store, done={*lines} - {*failed, *left}, failed=failed)
    return path


async def all_of(*arguments: Any, **options: Any) -> tuple[list[Difference], Verified]:
    """Return the differences by line, and the summary."""
    async with asyncio.timeout(60), contextlib.aclosing(verify(*arguments, **options)) as found:
        items = [item async for item in found]
    last = items.pop()
    assert isinstance(last, Verified)
    differences = [item for item in items if isinstance(item, Difference)]
    assert len(differences) == len(items) == last.differences
    return sorted(differences, key=lambda difference: difference.line), last


@contextlib.contextmanager
def nothing_left(path: Path) -> Iterator[None]:
    """Check that no task, no thread and no open file is left."""
    tasks, threads = asyncio.all_tasks(), executor_threads()
    yield
    # Except those of the servers, which run in the same loop.
    left = [repr(task) for task in asyncio.all_tasks() - tasks]
    assert [task for task in left if "StandIn" not in task and "RequestHandler" not in task] == []
    assert executor_threads() <= threads
    if (fds := Path("/proc/self/fd")).exists():
        assert str(path) not in {str(fd.readlink()) for fd in fds.iterdir() if fd.is_symlink()}
    assert journal_files(path) == [path.name]


def fill(service: Emulator, accounts: int, peers: int, unread: int = 0) -> list[tuple[str, str]]:
    """Add read conversations with some unread messages, in an order that separates the peers of an account."""
    pairs = [(f"user{account}", f"peer{peer}") for peer in range(peers) for account in range(accounts)]
    for account, peer in pairs:
        service.state.add_messages(account, peer, 3)
        service.state.mark_read(account, peer)
        service.state.add_messages(account, peer, unread)
    return pairs


async def test_ten_peers_per_call(path: Path) -> None:
    """Peers of an account are combined wherever they are in the file; the journal is unchanged."""
    async with Emulator(limit=None) as service, quick(service) as tim:
        await migrated(path, fill(service, 3, 25), tim)
        before = contents(path)
        with nothing_left(path):
            assert await all_of(tim, path) == ([], Verified(75, 0, 0))
        report = service.report()
        assert report.endpoints[NAME].calls == 3 * 3
        assert report.total.calls == 9
        assert contents(path) == before


async def test_differences_from_the_expected_count(path: Path) -> None:
    """Which is the row's own count, or else 0."""
    async with Emulator(limit=None) as service, quick(service) as tim:
        for peer, number in {"none": 0, "two": 2, "five": 5}.items():
            service.state.add_messages("alice", peer, number)
        service.state.add_account("bob")
        rows = [("alice", "none"), ("alice", "two"), ("alice", "five", 5)]
        rows += [("bob", "two"), ("alice", "unknown"), ("nobody", "two")]
        await migrated(path, rows, tim)
        assert await all_of(tim, path) == (
            [
                Difference(3, "alice", "two", expected=0, found=2, reason=""),
                Difference(6, "alice", "unknown", expected=0, found=None, reason="error 70107", code=70107),
                Difference(7, "nobody", "two", 0, None, "error 90003: To_Account: no such account: nobody", 90003),
            ],
            Verified(6, 3, 0),
        )
        service.state.add_messages("alice", "none", 1)
        service.state.mark_read("alice", "five")
        service.state.mark_read("alice", "two")
        differences, _ = await all_of(tim, path)
        assert [(each.line, each.expected, each.found) for each in differences if each.found is not None] == [
            (2, 0, 1),
            (4, 5, 0),
        ]


async def test_only_accepted_rows_are_compared(path: Path) -> None:
    """Not failed, rejected, superseded or pending ones."""
    async with Emulator(limit=None) as service, quick(service) as tim:
        for account in "bcde":
            service.state.add_messages("a", account, 1)
        rows = [("a", "b", 1), ("a", "c"), ("a", "d"), None, ("a", "b", 7), ("a", "e")]
        await migrated(path, rows, tim, failed=[3], left=[4])
        differences, verified = await all_of(tim, path)
        assert [(each.line, each.peer, each.expected) for each in differences] == [(6, "b", 7), (7, "e", 0)]
        assert verified == Verified(2, 2, 0)
        path.unlink()
        calls = service.report().total.calls
        await migrated(path, [("a", "b")], tim, failed=[2])
        assert await all_of(tim, path) == ([], Verified(0, 0, 0))
        assert service.report().total.calls == calls


async def test_counts_of_groups_cannot_be_read_back(path: Path) -> None:
    """The summary has their number, and no request is sent."""
    async with Emulator() as service, quick(service) as tim:
        rows = [Row(line, ("g", f"m{line}", line)) for line in range(2, 5)]
        async with planned(path, rows, about(tim, "unread")) as store:
            await store.exchange([], 9, Calls())
            await settle(store, done=[2, 3], failed=[4])
        with nothing_left(path):
            assert await all_of(tim, path) == ([], Verified(0, 0, 2))
        assert service.report().total.calls == 0


@pytest.mark.parametrize("accounts", [6, 7])
async def test_rows_are_read_in_windows(path: Path, monkeypatch: pytest.MonkeyPatch, accounts: int) -> None:
    """So that memory is bounded; each row is compared once, whether or not the last window is full."""
    monkeypatch.setattr(_verifying, "_WINDOW", 20)
    async with Emulator(limit=None) as service, quick(service) as tim:
        await migrated(path, fill(service, accounts, 10, unread=1), tim)
        differences, verified = await all_of(tim, path, concurrency=3)
    assert [each.line for each in differences] == list(range(2, accounts * 10 + 2))
    assert verified == Verified(accounts * 10, accounts * 10, 0)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_the_concurrency_is_bounded(
    service: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    """And all calls are bulk, so that interactive ones go first."""
    call = TIMClient.get_c2c_unread_msg_num
    under_way = [0]
    seen: list[Attempt] = []

    async def counted(tim: TIMClient, account: str, peers: Iterable[str]) -> C2CUnread:
        under_way.append(under_way[-1] + 1)
        try:
            return await call(tim, account, peers)
        finally:
            under_way.append(under_way[-1] - 1)

    monkeypatch.setattr(TIMClient, "get_c2c_unread_msg_num", counted)
    async with client_of(service, on_attempt=seen.append) as tim:
        await migrated(path, [(f"a{n}", "p") for n in range(40)], tim)
        await all_of(tim, path, concurrency=concurrency)
    assert max(under_way) == concurrency
    assert [attempt.lane for attempt in seen] == [Lane.BULK] * 40


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, "2"])
async def test_an_invalid_concurrency(service: StandIn, path: Path, concurrency: Any) -> None:
    async with client_of(service) as tim:
        with pytest.raises((ValueError, TypeError), match="concurrency"):
            await all_of(tim, path, concurrency=concurrency)
    assert service.seen == []


# Errors that end it


async def test_refused_credentials_end_it(path: Path) -> None:
    """So does a missing permission, instead of a thousand differences."""
    async with Emulator(limit=None) as service:
        async with quick(service, secret_key="f" * 64) as tim:
            await migrated(path, fill(service, 100, 10), tim)
            with nothing_left(path), pytest.raises(AuthError):
                await all_of(tim, path, concurrency=2)
            assert service.report().total.calls <= 4
        async with quick(service) as tim:
            service.fault(code=10007, endpoint=NAME)
            with nothing_left(path), pytest.raises(PermissionDenied):
                await all_of(tim, path, concurrency=2)


async def test_a_closed_client_ends_it(service: StandIn, path: Path) -> None:
    """Calls that wait are not reported as differences; another verification raises at once."""
    service.answer = lambda _: ok(C2CUnreadMsgNumList=[{"Peer_Account": "p", "C2CUnreadMsgNum": 1}])
    async with client_of(service, rates={NAME: 1}) as tim:
        await migrated(path, [(f"a{n}", "p") for n in range(100)], tim)
        with nothing_left(path):
            found = verify(tim, path, concurrency=5)
            async with contextlib.aclosing(found):
                assert isinstance(await anext(found), Difference)
                await tim.aclose()
                with pytest.raises(ClientClosed):
                    await anext(found)
            with pytest.raises(ClientClosed, match="the client is closed"):
                await all_of(tim, path)


async def test_leaving_early_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any number of results."""
    monkeypatch.setattr(_verifying, "_WINDOW", 20)
    async with Emulator(limit=None) as service, quick(service) as tim:
        await migrated(path, fill(service, 50, 4, unread=1), tim)
        await tim.get_all_c2c_unread_msg_num("user0")  # to open the connection and start its tasks
        for number in (0, 1, 7, 150):
            with nothing_left(path):
                found = verify(tim, path, concurrency=1)
                for _ in range(number):
                    await anext(found)
                await found.aclose()


@pytest.mark.parametrize("steps", [None, *range(0, 60, 4)])
async def test_cancellation_leaves_nothing_behind(service: StandIn, path: Path, steps: int | None) -> None:
    """At any step, also during a call."""
    service.answer = lambda _: Fate.HOLD
    async with client_of(service) as tim:
        await migrated(path, [(f"a{n}", "p") for n in range(100)], tim)
        with nothing_left(path):
            task = asyncio.create_task(all_of(tim, path, concurrency=5))
            if steps is None:
                await service.until(5)
            for _ in range(steps or 0):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            service.let_go.set()
            await tim.aclose()


async def test_a_call_that_always_fails(service: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are differences with the reason, after other calls succeeded; if there are no others, after a while."""

    def answer(seen: Seen) -> Action:
        return error(10002, "busy") if seen.json["To_Account"] == "bad" else sensible(seen)

    service.answer = answer
    rows = [(f"a{n}", "unknown") for n in range(50)]
    rows[10:10] = [("bad", "p"), ("bad", "q")]
    async with client_of(service, retry=RetryPolicy(attempts=40, wait=(0.0, 0.0))) as tim:
        await migrated(path, rows, tim)
        differences, verified = await all_of(tim, path, concurrency=1)
        bad = [each for each in differences if each.account == "bad"]
        assert [(each.line, each.peer, each.found) for each in bad] == [(12, "p", None), (13, "q", None)]
        assert all(each.reason == "error 10002: busy" for each in bad)
        assert verified == Verified(52, 52, 0)
        monkeypatch.setattr(_breaker, "_GIVE_UP_AFTER", 0.0)
        last = await migrated(path.with_name("last.journal"), [("bad", "p")], tim)
        differences, verified = await all_of(tim, last)
        assert ([each.reason for each in differences], verified) == (["error 10002: busy"], Verified(1, 1, 0))


async def test_an_outage_is_waited_out(service: StandIn, path: Path) -> None:
    """It causes no differences."""
    service.script.extend([page(502), Fate.DROP, Fate.DROP_UNREAD, error(10002)])
    service.answer = lambda seen: ok(
        C2CUnreadMsgNumList=[{"Peer_Account": peer, "C2CUnreadMsgNum": 0} for peer in seen.json["Peer_Account"]]
    )
    async with client_of(service, retry=RetryPolicy(attempts=1)) as tim:
        await migrated(path, [(f"a{n}", "p") for n in range(10)], tim)
        assert await all_of(tim, path, concurrency=2) == ([], Verified(10, 0, 0))
    assert not service.script


async def test_a_peer_that_is_missing_in_the_answer(service: StandIn, path: Path) -> None:
    """Its count is unknown, not 0."""
    service.answer = lambda _: ok(C2CUnreadMsgNumList=[{"Peer_Account": "p", "C2CUnreadMsgNum": 0}])
    async with client_of(service) as tim:
        await migrated(path, [("a", "p"), ("a", "q")], tim)
        differences, _ = await all_of(tim, path)
    assert differences == [Difference(3, "a", "q", 0, None, "not in the answer")]


# Journals


async def test_another_app_is_refused(path: Path) -> None:
    """So is another port, because it may be another service."""
    async with Emulator(limit=None) as service, Emulator(limit=None) as other:
        async with quick(service) as tim:
            await migrated(path, fill(service, 1, 1), tim)
        for client, says in (
            (quick(service, sdk_app_id=1400000001), "of app 1400000000, and this is app 1400000001"),
            (quick(other), r"of the app at http://127\.0\.0\.1:\d+, and this is the one at http://127\.0\.0\.1:\d+"),
        ):
            async with client as tim:
                with nothing_left(path), pytest.raises(JournalMismatch, match=says):
                    await all_of(tim, path)
        assert service.report().total.calls == other.report().total.calls == 0


async def test_a_missing_or_invalid_journal(service: StandIn, path: Path) -> None:
    async with client_of(service) as tim:
        with pytest.raises(JournalError, match="there is no journal"):
            await all_of(tim, path)
        path.write_bytes(b"no journal at all")
        with nothing_left(path), pytest.raises(JournalError, match="is not a migration's journal"):
            await all_of(tim, path)
    assert service.seen == []


async def test_a_run_at_the_same_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither disturbs the other, and the run's log is merged when it ends."""
    monkeypatch.setattr(_verifying, "_WINDOW", 5)
    async with Emulator(limit=None) as service, quick(service) as tim:
        pairs = fill(service, 10, 3)
        service.state.add_messages("user0", "peer0", 1)
        await migrated(path, pairs, tim, left=[30, 31])
        found = verify(tim, path, concurrency=1)
        async with contextlib.aclosing(found):
            assert isinstance(await anext(found), Difference)
            store = SqliteStore(path)
            await store.open(about(tim))
            assert [claim.again for claim in (await store.exchange([], 9, Calls())).claims] == [True, True]
            await settle(store, done=[30, 31])
            await store.close("done")
            assert journal_files(path) == ["reads.journal"]
            assert [item async for item in found] == [Verified(30, 1, 0)]
