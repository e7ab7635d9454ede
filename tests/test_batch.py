"""Batches: bounded, lazy, in the bulk lane, with an outcome for each row and each item."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import pytest

from tim_async import (
    APIError,
    Attempt,
    AuthError,
    C2CUnread,
    ConnectFailed,
    Done,
    Failed,
    GroupNotFound,
    ItemError,
    Lane,
    PermissionDenied,
    RetryPolicy,
    TIMClient,
    TIMError,
)

from .loops import others, steps
from .stand_in import (
    TRUNCATED,
    Action,
    Fate,
    Seen,
    StandIn,
    client_of,
    count_of,
    error,
    failure_of,
    ok,
    outcome_of,
    sensible,
)


def table(number: int) -> list[tuple[str, str, int]]:
    return [("g", f"user{index}", index) for index in range(number)]


# batch.map


async def test_every_row_has_one_outcome(service: StandIn) -> None:
    """Done with the row and the call's result, or Failed with the row and the error."""

    def answer(seen: Seen) -> Action:
        return error(10010, "gone") if seen.json["UnreadMsgNum"] % 10 == 3 else ok()

    service.answer = answer
    async with client_of(service) as tim, tim.batch.map(tim.set_unread_msg_num, table(60)) as outcomes:
        found = [outcome async for outcome in outcomes]
    done = [outcome.item for outcome in found if isinstance(outcome, Done)]
    failed = [outcome for outcome in found if isinstance(outcome, Failed)]
    assert sorted([*done, *(outcome.item for outcome in failed)]) == sorted(table(60))
    assert {outcome.item[2] for outcome in failed} == {3, 13, 23, 33, 43, 53}
    assert all(isinstance(outcome.error, GroupNotFound) and outcome.error.attempts == 1 for outcome in failed)
    assert sorted(body["UnreadMsgNum"] for body in service.bodies) == [*range(60)]


async def test_an_outcome_has_the_calls_result(service: StandIn) -> None:
    async with client_of(service) as tim, tim.batch.map(tim.get_all_c2c_unread_msg_num, [("alice",)]) as outcomes:
        assert [outcome async for outcome in outcomes] == [Done(("alice",), 7)]


async def test_outcomes_come_as_calls_complete(service: StandIn) -> None:
    """A call that is held back holds back no other."""
    service.script.append(Fate.HOLD)
    order: list[int] = []
    async with client_of(service) as tim, tim.batch.map(tim.set_unread_msg_num, table(5), concurrency=2) as outcomes:
        async for outcome in outcomes:
            order.append(outcome.item[2])
            if len(order) == 4:
                service.let_go.set()
    assert sorted(order[:4]) != [0, 1, 2, 3]
    assert sorted(order) == [*range(5)]
    held = service.bodies[0]["UnreadMsgNum"]
    assert order[-1] == held


async def test_as_many_calls_are_in_flight_as_concurrency_allows(service: StandIn) -> None:
    service.answer = lambda _: Fate.HOLD
    async with client_of(service) as tim, tim.batch.map(tim.set_unread_msg_num, table(30), concurrency=7) as outcomes:
        await service.until(7)
        await steps(50)
        assert len(service.seen) == 7
        service.let_go.set()
        assert len([outcome async for outcome in outcomes]) == 30
    assert service.most_in_flight == 7


async def test_rows_are_pulled_lazily() -> None:
    """No row before the block; twice the concurrency while no outcome is read; then one row for each outcome read."""
    pulled = 0

    def rows() -> Iterator[tuple[int]]:
        nonlocal pulled
        for index in range(10**9):
            pulled += 1
            yield (index,)

    async def method(index: int) -> int:
        return index

    async with StandIn() as service, client_of(service) as tim:
        mapped = tim.batch.map(method, rows(), concurrency=5)
        assert pulled == 0
        async with mapped as outcomes:
            await steps(200)
            assert pulled == 10
            for read in range(1, 300):
                assert isinstance(await anext(outcomes), Done)
                await steps(20)
                assert pulled <= read + 10
        end = pulled
        await steps(50)
        assert pulled == end


async def test_rows_of_an_async_iterable_are_pulled_lazily(service: StandIn) -> None:
    pulled: list[int] = []

    async def rows() -> AsyncGenerator[tuple[int], None]:
        for index in range(10**9):
            await asyncio.sleep(0)
            pulled.append(index)
            yield (index,)

    async def method(index: int) -> int:
        return index

    source = rows()
    async with (
        client_of(service) as tim,
        contextlib.aclosing(source),
        tim.batch.map(method, source, concurrency=3) as outcomes,
    ):
        await steps(200)
        assert pulled == [*range(6)]
        found = [(await anext(outcomes)).item[0] for _ in range(20)]
    assert sorted(found) == [*range(20)]
    assert len(pulled) <= 26


@pytest.mark.parametrize("kind", ["list", "generator", "async generator", "empty"])
async def test_rows_may_come_from_any_iterable(service: StandIn, kind: str) -> None:

    async def later() -> AsyncIterator[tuple[str, str, int]]:
        for row in table(10):
            yield row

    rows: Any = {
        "list": table(10),
        "generator": (row for row in table(10)),
        "async generator": later(),
        "empty": [],
    }[kind]
    async with client_of(service) as tim, tim.batch.map(tim.set_unread_msg_num, rows) as outcomes:
        found = [outcome.item async for outcome in outcomes]
    assert sorted(found) == ([] if kind == "empty" else table(10))


async def test_mapping_rows_are_keyword_arguments(service: StandIn) -> None:
    """So the columns of a file can have the names of the method's arguments."""
    rows: list[dict[str, Any]] = [
        {"report_account": "alice", "peer_account": "bob", "msg_read_time": 1700000000},
        {"report_account": "alice", "peer_account": "carol"},
    ]
    async with client_of(service) as tim, tim.batch.map(tim.admin_set_msg_read, rows) as outcomes:
        found = [outcome async for outcome in outcomes]
    assert all(isinstance(outcome, Done) for outcome in found)
    assert {body["Peer_Account"]: body.get("MsgReadTime") for body in service.bodies} == {
        "bob": "1700000000",
        "carol": None,
    }


BAD_ROWS: list[Any] = [
    ("g", "alice"),
    ("g", "alice", 1, 2),
    ("g", "alice", -1),
    ("g", "", 1),
    ("g", "alice", "1"),
    {"group": "g"},
    {1: 2},
    "g,alice,1",
    b"g",
    {"g", "alice", 1},
    None,
    3,
    (),
]


async def test_a_bad_row_fails_alone(service: StandIn) -> None:
    """It is Failed with ValueError or TypeError, without a request, and the rows after it are processed."""
    async with (
        client_of(service) as tim,
        tim.batch.map(tim.set_unread_msg_num, [*BAD_ROWS, ("g", "bob", 5)]) as outcomes,
    ):
        found = [outcome async for outcome in outcomes]
    failed = [outcome for outcome in found if isinstance(outcome, Failed)]
    assert [outcome.item for outcome in failed] == BAD_ROWS
    assert all(isinstance(outcome.error, ValueError | TypeError) for outcome in failed)
    assert [outcome.item for outcome in found if isinstance(outcome, Done)] == [("g", "bob", 5)]
    assert len(service.seen) == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_an_error_of_the_source_is_raised_after_the_outcomes_and_leaves_no_task(
    service: StandIn, kind: str
) -> None:
    """Each sent row has its outcome before it, so the reader knows which rows were processed."""

    def sync_rows() -> Iterator[tuple[str, str, int]]:
        yield from table(5)
        raise OSError("the disk is gone")

    async def async_rows() -> AsyncIterator[tuple[str, str, int]]:
        for row in table(5):
            yield row
        raise OSError("the disk is gone")

    rows: Any = sync_rows() if kind == "sync" else async_rows()
    found: list[Any] = []
    async with client_of(service) as tim:
        with pytest.raises(OSError, match="the disk is gone"):
            await read_into(found, tim.batch.map(tim.set_unread_msg_num, rows, concurrency=2))
        assert others() == set()
    assert sorted(outcome.item for outcome in found) == table(5)


async def read_into(found: list[Any], mapped: Any) -> None:
    async with mapped as outcomes:
        async for outcome in outcomes:
            found.append(outcome)  # noqa: PERF401 - outcomes before an error must stay


async def test_a_failed_source_is_not_asked_again(service: StandIn) -> None:
    """Not even by a worker that was waiting for room at the time of the error."""
    asked, fail, found = 0, asyncio.Event(), list[Any]()

    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> tuple[int]:
            nonlocal asked
            asked += 1
            if asked == 4:
                await fail.wait()
                raise OSError("one bad sector")
            return (asked,)

    async def at_once(number: int) -> int:
        return number

    async def read_late() -> None:
        async with client_of(service) as tim, tim.batch.map(at_once, Source(), concurrency=2) as outcomes:
            await steps(50)  # room for four: three unread outcomes, and the row that does not come
            fail.set()
            found.extend([await anext(outcomes) for _ in range(3)])
            await anext(outcomes)

    with pytest.raises(OSError, match="sector"):
        await read_late()
    assert (len(found), asked) == (3, 4)


async def test_an_exception_of_the_block_is_not_wrapped_and_leaves_no_task(service: StandIn) -> None:
    service.answer = lambda seen: Fate.HOLD if seen.json["UnreadMsgNum"] else ok()

    async def use(tim: TIMClient) -> None:
        async with tim.batch.map(tim.set_unread_msg_num, table(50), concurrency=10) as outcomes:
            async for _ in outcomes:
                raise KeyError("mine")

    async with client_of(service) as tim:
        with pytest.raises(KeyError, match="mine"):
            await use(tim)
        assert others() == set()


async def test_leaving_the_block_early_cancels_its_calls_and_leaves_no_task(service: StandIn) -> None:
    """With `break`, and without reading any outcome."""
    service.answer = lambda seen: Fate.HOLD if seen.json["UnreadMsgNum"] % 2 else ok()
    async with client_of(service) as tim:
        async with tim.batch.map(tim.set_unread_msg_num, table(50), concurrency=10) as outcomes:
            async for _ in outcomes:
                break
        assert others() == set()
        async with tim.batch.map(tim.set_unread_msg_num, table(50)):
            pass
        assert others() == set()
        service.answer = sensible
        service.let_go.set()
        await tim.set_unread_msg_num("g", "alice", 1)


async def test_cancelling_the_reader_leaves_no_task(service: StandIn) -> None:
    """At any of 40 moments."""
    service.answer = lambda seen: Fate.HOLD if seen.json["UnreadMsgNum"] % 3 else ok()
    async with client_of(service, rates={"set_unread_msg_num": 10_000}) as tim:

        async def read() -> None:
            async with tim.batch.map(tim.set_unread_msg_num, table(20), concurrency=4) as outcomes:
                async for _ in outcomes:
                    pass

        for number in range(40):
            task = asyncio.create_task(read())
            await steps(number)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert others() == set()


async def test_a_method_that_raises_cancelled_error_cancels_the_reader(service: StandIn) -> None:

    async def method(index: int) -> int:
        if index == 3:
            raise asyncio.CancelledError
        return index

    async def read() -> None:
        async with (
            client_of(service) as tim,
            tim.batch.map(method, [(n,) for n in range(9)], concurrency=2) as outcomes,
        ):
            async for _ in outcomes:
                pass

    task = asyncio.create_task(read())
    done, _ = await asyncio.wait([task], timeout=5.0)
    assert done
    assert task.cancelled()
    assert others() == set()


@pytest.mark.parametrize("number", range(12))
async def test_cancelled_workers_cancel_the_reader(service: StandIn, number: int) -> None:
    """Also before their first step."""

    async def read() -> None:
        async with (
            client_of(service) as tim,
            tim.batch.map(tim.set_unread_msg_num, table(500), concurrency=3) as outcomes,
        ):
            cancelled.set()
            async for _ in outcomes:
                pass

    cancelled = asyncio.Event()
    task = asyncio.create_task(read())
    await cancelled.wait()
    await steps(number)
    for worker in others() - {task}:
        if "Outcomes" in repr(worker):
            worker.cancel()
    done, _ = await asyncio.wait([task], timeout=5.0)
    task.cancel()
    assert done
    assert task.cancelled()


async def test_a_method_that_swallows_its_cancellation_does_not_keep_the_block_open(service: StandIn) -> None:
    """Its worker calls it for no further row."""
    calls = 0

    async def stubborn(index: int) -> None:
        nonlocal calls
        calls += 1
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def leave() -> None:
        async with client_of(service) as tim, tim.batch.map(stubborn, [(n,) for n in range(1000)], concurrency=2):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    task = asyncio.create_task(leave())
    done, _ = await asyncio.wait([task], timeout=10.0)
    for _ in range(20):
        for left in [task, *others()]:
            left.cancel()
        await asyncio.sleep(0)
    assert done
    assert calls == 2


async def test_outcomes_are_entered_once_and_read_within_the_block(service: StandIn) -> None:
    """Any other use is a RuntimeError."""
    async with client_of(service) as tim:
        mapped = tim.batch.map(tim.set_unread_msg_num, table(1))
        with pytest.raises(RuntimeError, match="async with"):
            async for _ in mapped:
                pass
        async with mapped as outcomes:
            assert len([outcome async for outcome in outcomes]) == 1
            assert [outcome async for outcome in outcomes] == []
        with pytest.raises(RuntimeError, match="already"):
            async with mapped:
                pass


async def test_calls_made_by_a_map_are_bulk_and_all_others_interactive(service: StandIn) -> None:
    """Calls in its block are interactive; all calls of a mapped function that makes several are bulk."""
    records: list[Attempt] = []
    async with client_of(service, on_attempt=records.append) as tim:

        async def two(account: str) -> None:
            await tim.get_all_c2c_unread_msg_num(account)
            await tim.batch.get_c2c_unread_msg_num(account, ["bob"])

        async with tim.batch.map(two, [("alice",)]) as outcomes:
            await tim.set_unread_msg_num("g", "alice", 1)
            async for _ in outcomes:
                await tim.set_unread_msg_num("g", "alice", 2)
        await tim.batch.get_group_msg_receipt("g", [1])
    lanes = {(record.endpoint, record.lane) for record in records}
    assert lanes == {
        ("get_c2c_unread_msg_num", Lane.BULK),
        ("set_unread_msg_num", Lane.INTERACTIVE),
        ("get_group_msg_receipt", Lane.INTERACTIVE),
    }


async def test_retries_of_bulk_calls_stay_bulk(service: StandIn) -> None:
    records: list[Attempt] = []
    service.script.extend([error(10002)] * 3)
    async with (
        client_of(service, on_attempt=records.append) as tim,
        tim.batch.map(tim.set_unread_msg_num, table(2)) as outcomes,
    ):
        async for _ in outcomes:
            pass
    assert len(records) == 5
    assert {record.lane for record in records} == {Lane.BULK}


# batch.get_…


async def test_a_failed_chunk_is_an_error_of_each_of_its_items(service: StandIn) -> None:
    """With its code, or a text where there is none; the other chunks have their results; all are in order."""
    service.answer = lambda seen: (
        error(90008, "gone") if "user3" in seen.json["Peer_Account"]
        else TRUNCATED if "user15" in seen.json["Peer_Account"]
        else sensible(seen)
    )  # fmt: skip
    peers = [f"user{number}" for number in range(35)]
    async with client_of(service, retry=RetryPolicy(attempts=2, wait=(0, 0))) as tim:
        found = await tim.batch.get_c2c_unread_msg_num("alice", peers)
    assert found.counts == {peer: count_of(peer) for peer in peers[20:]}
    assert [*found.errors] == peers[:20]
    assert {found.errors[peer] for peer in peers[:10]} == {ItemError(90008, "gone")}
    for peer in peers[10:20]:
        assert found.errors[peer].code is None
        assert "get_c2c_unread_msg_num" in found.errors[peer].info


async def test_receipts_of_a_failed_chunk_are_errors(service: StandIn) -> None:
    service.answer = lambda seen: error(10010) if {"MsgSeq": 60} in seen.json["MsgSeqList"] else sensible(seen)
    async with client_of(service) as tim:
        found = await tim.batch.get_group_msg_receipt("g", range(1, 81))
    assert [*found.receipts] == [*range(1, 51)]
    assert found.errors == dict.fromkeys(range(51, 81), ItemError(10010))


@pytest.mark.parametrize(("code", "kind"), [(70003, AuthError), (60006, AuthError), (10007, PermissionDenied)])
async def test_an_error_of_the_whole_account_is_raised_at_once_and_ends_the_batch(
    service: StandIn, code: int, kind: type[APIError]
) -> None:
    """Hundreds of further calls with rejected credentials would fail alike."""
    service.answer = lambda _: error(code, "no")
    peers = [f"user{number}" for number in range(5000)]
    async with client_of(service) as tim:
        failure = await failure_of(tim.batch.get_c2c_unread_msg_num("alice", peers))
        assert others() == set()
    assert type(failure) is kind
    assert isinstance(failure, APIError)
    assert failure.code == code
    assert len(service.seen) < 500 / 2


async def test_when_no_host_can_be_reached_every_item_is_an_error() -> None:
    async with StandIn() as gone:
        pass
    async with client_of(gone, retry=RetryPolicy(attempts=1)) as tim:
        found = await tim.batch.get_c2c_unread_msg_num("alice", [f"user{number}" for number in range(15)])
    assert found.counts == {}
    assert len(found.errors) == 15
    assert all(error.code is None and "cannot connect" in error.info for error in found.errors.values())


async def test_cancelling_a_batch_leaves_no_task(service: StandIn) -> None:
    service.answer = lambda _: Fate.HOLD
    async with client_of(service) as tim:
        peers = [f"user{number}" for number in range(500)]
        for number in (0, 1, 5, 20, 50, 100):
            task = asyncio.create_task(tim.batch.get_c2c_unread_msg_num("alice", peers))
            await steps(number)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert others() == set()


async def test_closing_ends_batches_and_maps(service: StandIn) -> None:
    """Each row and each item fails with an error."""
    service.answer = lambda _: Fate.HOLD
    tim = client_of(service, rates={"set_unread_msg_num": 5}, retry=RetryPolicy(wait=(1e6, 1e6), total=1e9))

    async def read() -> list[Any]:
        async with tim.batch.map(tim.set_unread_msg_num, table(40), concurrency=10) as outcomes:
            return [outcome async for outcome in outcomes]

    reading = asyncio.create_task(read())
    merging = asyncio.create_task(outcome_of(tim.batch.get_c2c_unread_msg_num("alice", ["bob"])))
    await service.until(4)
    await tim.aclose()
    _, waiting = await asyncio.wait([reading, merging], timeout=10.0)
    for task in waiting:
        task.cancel()
    if waiting:
        await asyncio.wait(waiting)
    assert not waiting
    found = reading.result()
    assert len(found) == 40
    assert all(isinstance(outcome, Failed) and isinstance(outcome.error, TIMError | RuntimeError) for outcome in found)
    assert isinstance(merging.result(), C2CUnread | ConnectFailed | TIMError)
