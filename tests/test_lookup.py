"""Single look-ups are merged into batched calls, and each caller gets its own result, error or cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tim_async import (
    AccountNotFound,
    Attempt,
    AuthError,
    ClientClosed,
    Done,
    Lane,
    Receipt,
    ReceiptUnavailable,
    RetryPolicy,
    ServerBusy,
    TIMClient,
    TIMError,
    TransportError,
    _coalesce,
)
from tim_async._coalesce import Lookups
from tim_async.errors import BadResponse, QuotaExhausted

from .hypotheses import at_most
from .loops import others, steps
from .stand_in import Action, Fate, Seen, StandIn, client_of, count_of, error, failure_of, ok, sensible
from .test_cancellation import run, skip

C2C = "get_c2c_unread_msg_num"
PEERS = [f"peer{n}" for n in range(10)]


def asked(service: StandIn) -> list[tuple[str, list[str]]]:
    """Return the account and the peers of each call."""
    return [(body["To_Account"], body.get("Peer_Account", [])) for body in service.bodies]


def nothing_leaked(tim: TIMClient) -> bool:
    """Check that no state of a look-up remains; only private names show a leak that lasts as long as the client."""
    lookups: Lookups = tim._lookups
    return not lookups.loaders and not lookups.cancelled


def unread(tim: TIMClient, peers: list[str], to_account: str = "alice") -> list[asyncio.Task[int]]:
    return [asyncio.create_task(tim.lookup.c2c_unread_msg_num(to_account, peer)) for peer in peers]


@pytest.fixture(autouse=True)
def _long_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let look-ups linger long enough for a test to act before their call starts, even on a busy machine."""
    monkeypatch.setattr(_coalesce, "LINGER", 0.05)


@contextlib.asynccontextmanager
async def busy(service: StandIn, **options: Any) -> AsyncIterator[TIMClient]:
    """A client whose only slot is held by a call, so that look-ups queue until `service.let_go`."""
    service.script.append(Fate.HOLD)
    async with client_of(service, rates={C2C: 1}, **options) as tim:
        first = asyncio.create_task(tim.get_all_c2c_unread_msg_num("holder"))
        await service.until(1)
        second = asyncio.create_task(tim.get_all_c2c_unread_msg_num("second"))
        await asyncio.sleep(0)
        assert tim.stats()[C2C].queue.interactive == 1
        try:
            yield tim
        finally:
            for task in (first, second):
                task.cancel()
            await asyncio.wait([first, second])


# Merging


async def test_concurrent_look_ups_are_one_call(service: StandIn) -> None:
    async with client_of(service) as tim:
        counts = await asyncio.gather(*(tim.lookup.c2c_unread_msg_num("alice", peer) for peer in PEERS))
        assert counts == [count_of(peer) for peer in PEERS]
        assert asked(service) == [("alice", PEERS)]
        assert nothing_leaked(tim)


async def test_concurrent_receipt_look_ups_are_calls_of_at_most_50(service: StandIn) -> None:
    async with client_of(service) as tim:
        found = await asyncio.gather(*(tim.lookup.group_msg_receipt("@TGS#1", seq) for seq in range(1, 76)))
        assert found == [Receipt(seq % 5, seq % 3) for seq in range(1, 76)]
        assert sorted(len(body["MsgSeqList"]) for body in service.bodies) == [25, 50]
        assert nothing_leaked(tim)


async def test_a_single_look_up_is_a_call_of_one(service: StandIn) -> None:
    async with client_of(service) as tim:
        assert await tim.lookup.c2c_unread_msg_num("alice", "bob") == count_of("bob")
        assert await tim.lookup.group_msg_receipt("@TGS#1", 7) == Receipt(2, 1)
    assert service.bodies == [
        {"To_Account": "alice", "Peer_Account": ["bob"]},
        {"GroupId": "@TGS#1", "MsgSeqList": [{"MsgSeq": 7}]},
    ]


async def test_look_ups_of_several_loop_iterations_merge_on_an_idle_client(service: StandIn) -> None:
    async with client_of(service) as tim:
        first = unread(tim, ["bob"])
        await steps(5)
        assert service.seen == []
        await asyncio.gather(*first, *unread(tim, ["carol"]))
    assert asked(service) == [("alice", ["bob", "carol"])]


async def test_accounts_are_never_mixed(service: StandIn) -> None:
    async with client_of(service) as tim:
        await asyncio.gather(*unread(tim, PEERS[:3]), *unread(tim, PEERS[2:5], "zoe"))
    assert sorted(asked(service)) == [("alice", PEERS[:3]), ("zoe", PEERS[2:5])]


async def test_a_queued_call_takes_look_ups_until_it_has_its_permit(service: StandIn) -> None:
    async with busy(service) as tim:
        tasks = unread(tim, PEERS[:1])
        for peer in PEERS[1:]:
            await asyncio.sleep(0.001)
            tasks += unread(tim, [peer])
        await steps(3)
        assert tim.stats()[C2C].queue.interactive == 2, "one call for all of them"
        tasks += unread(tim, ["an eleventh"])
        await steps(3)
        assert tim.stats()[C2C].queue.interactive == 3, "a full call takes no more"
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert tim.stats()[C2C].queue.interactive == 1
        assert nothing_leaked(tim)


def test_look_ups_behind_queued_calls_do_not_linger() -> None:
    """The clock stands still for these steps, so that no timer can have run."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with StandIn() as service, busy(service) as tim:
            stopped = loop.time()
            loop.time = lambda: stopped
            tasks = unread(tim, ["bob"])
            await steps(5)
            assert tim.stats()[C2C].queue.interactive == 2
            del loop.time
            tasks[0].cancel()
            await asyncio.wait(tasks)

    run(main)


@pytest.mark.parametrize("pattern", ["a shared queue", "striped", "a gather for each user"])
async def test_look_ups_of_200_tasks_are_merged(service: StandIn, pattern: str) -> None:
    """2,000 look-ups by 200 tasks take at most 220 calls."""
    pairs = [(f"user{n}", f"peer{m}") for n in range(200) for m in range(10)]
    async with client_of(service, rates={C2C: 2000}) as tim:

        async def one(pair: tuple[str, str]) -> None:
            assert await tim.lookup.c2c_unread_msg_num(*pair) == count_of(pair[1])

        async def several(source: Any) -> None:
            for pair in source:
                await one(pair)

        async def at_once(user: int) -> None:
            await asyncio.gather(*map(one, pairs[10 * user : 10 * user + 10]))

        shared = iter(pairs)
        await asyncio.gather(
            *(
                several(shared)
                if pattern == "a shared queue"
                else several(pairs[n::200])
                if pattern == "striped"
                else at_once(n)
                for n in range(200)
            )
        )
        assert nothing_leaked(tim)
    assert len(service.seen) <= 220


async def test_a_sent_call_takes_no_more_look_ups(service: StandIn) -> None:
    service.script.append(Fate.HOLD)
    async with client_of(service) as tim:
        tasks = unread(tim, ["bob"])
        await service.until(1)
        tasks += unread(tim, ["carol"])
        assert await tasks[1] == count_of("carol")
        service.let_go.set()
        assert await tasks[0] == count_of("bob")
    assert asked(service) == [("alice", ["bob"]), ("alice", ["carol"])]


# Sharing


async def test_equal_look_ups_share_one_answer_even_after_the_call_is_sent(service: StandIn) -> None:
    service.script.append(Fate.HOLD)
    async with client_of(service) as tim:
        tasks = unread(tim, ["bob", "bob"])
        await service.until(1)
        tasks += unread(tim, ["bob"])
        await steps(3)
        service.let_go.set()
        assert await asyncio.gather(*tasks) == [count_of("bob")] * 3
        assert asked(service) == [("alice", ["bob"])]
        await tim.lookup.c2c_unread_msg_num("alice", "bob")
        assert len(service.seen) == 2, "answers are not cached"


async def test_views_with_equal_options_share_calls(service: StandIn) -> None:
    async with client_of(service) as tim:
        same, other = tim.with_options(timeout=10.0), tim.with_options(timeout=9.0)
        await asyncio.gather(*unread(tim, ["bob"]), *unread(same, ["bob", "carol"]), *unread(other, ["bob"]))
        assert nothing_leaked(tim)
    assert sorted(asked(service)) == [("alice", ["bob"]), ("alice", ["bob", "carol"])]


async def test_views_with_equal_retry_policies_share_calls(service: StandIn) -> None:
    """Also when one has its waits as a list, as from a configuration file."""
    waits: Any = [0.1, 1.0]
    async with client_of(service) as tim:
        views = [tim.with_options(retry=RetryPolicy(wait=wait)) for wait in (waits, (0.1, 1.0), (0.1, 2.0))]
        await asyncio.gather(*(count for view in views for count in unread(view, ["bob"])))
    assert len(service.seen) == 2


async def test_lanes_are_never_mixed(service: StandIn) -> None:
    """An interactive look-up does not wait in the bulk lane with an equal bulk one."""
    async with busy(service) as tim:
        tasks = unread(tim.with_options(lane=Lane.BULK), ["bob", "carol"])
        await steps(3)
        tasks += unread(tim, ["bob"])
        await steps(3)
        queue = tim.stats()[C2C].queue
        assert (queue.interactive, queue.bulk) == (2, 1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_look_ups_of_a_map_are_bulk(service: StandIn) -> None:
    records: list[Attempt] = []
    async with client_of(service, on_attempt=records.append) as tim:
        rows = [("alice", peer) for peer in PEERS]
        async with tim.batch.map(tim.lookup.c2c_unread_msg_num, rows) as outcomes:
            values = {outcome.item: outcome.value async for outcome in outcomes if isinstance(outcome, Done)}
    assert values == {("alice", peer): count_of(peer) for peer in PEERS}
    assert [record.lane for record in records] == [Lane.BULK]


# Errors


async def test_a_failed_peer_raises_for_its_own_caller_only(service: StandIn) -> None:
    service.script.append(error(10002))
    async with client_of(service) as tim:
        good, bad, twin = await asyncio.gather(*unread(tim, ["bob", "unknown1", "unknown1"]), return_exceptions=True)
    assert good == count_of("bob")
    assert isinstance(bad, AccountNotFound)
    assert (bad.code, bad.endpoint, bad.attempts) == (70107, C2C, 2)
    assert isinstance(twin, AccountNotFound)
    assert twin is not bad


async def test_a_message_without_receipt_raises_for_its_own_caller_only(service: StandIn) -> None:
    async with client_of(service) as tim:
        good, bad = await asyncio.gather(
            tim.lookup.group_msg_receipt("g", 1), tim.lookup.group_msg_receipt("g", 99), return_exceptions=True
        )
    assert good == Receipt(1, 1)
    assert isinstance(bad, ReceiptUnavailable)
    assert (bad.endpoint, bad.attempts) == ("get_group_msg_receipt", 1)


async def test_a_peer_missing_from_the_answer_is_an_error(service: StandIn) -> None:
    service.script.append(ok(C2CUnreadMsgNumList=[{"Peer_Account": "bob", "C2CUnreadMsgNum": 3}]))
    async with client_of(service) as tim:
        good, bad = await asyncio.gather(*unread(tim, ["bob", "carol"]), return_exceptions=True)
    assert good == 3
    assert isinstance(bad, BadResponse)
    assert not bad.outcome_unknown
    assert str(bad) == "get_c2c_unread_msg_num: 'carol': not in the answer"


@pytest.mark.parametrize(
    ("action", "kind", "attempts"),
    [(error(70003), AuthError, 1), (error(10002), ServerBusy, 8), (Fate.DROP, TransportError, 8)],
    ids=["refused", "busy", "dropped"],
)
async def test_a_failed_call_raises_a_separate_error_for_each_caller(
    service: StandIn, action: Action, kind: type[TIMError], attempts: int
) -> None:
    service.answer = lambda _: action
    async with client_of(service) as tim:
        failures = await asyncio.gather(*unread(tim, PEERS[:3]), return_exceptions=True)
        assert nothing_leaked(tim)
    assert len({id(failure) for failure in failures}) == 3
    for failure in failures:
        assert isinstance(failure, kind)
        assert (failure.endpoint, failure.attempts) == (C2C, attempts)
        assert len(traceback.extract_tb(failure.__traceback__)) < 10


async def test_an_unexpected_exception_reaches_every_caller(service: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

    def broken(*_: Any) -> Any:
        raise Odd(1, 2)

    async with client_of(service) as tim:
        monkeypatch.setattr("tim_async._wire.decode", broken)
        failures = await asyncio.gather(*unread(tim, PEERS[:2]), return_exceptions=True)
        assert nothing_leaked(tim)
    assert [type(failure.__cause__) for failure in failures if isinstance(failure, Exception)] == [Odd, Odd]
    assert failures[0] is not failures[1]


@pytest.mark.parametrize("answer", [sensible, lambda _: error(70003)], ids=["a failed peer", "a failed call"])
async def test_an_error_makes_no_reference_cycle(service: StandIn, answer: Callable[[Seen], Action]) -> None:
    """Repeated failures would otherwise pile up errors, with all that they refer to, until the next collection."""
    service.answer = answer
    async with client_of(service) as tim:
        await failure_of(tim.lookup.c2c_unread_msg_num("alice", "unknown"))
        gc.collect()
        gc.disable()
        try:
            gc.set_debug(gc.DEBUG_SAVEALL)
            for _ in range(5):
                await failure_of(tim.lookup.c2c_unread_msg_num("alice", "unknown"))
            gc.collect()
            leaked = [thing for thing in gc.garbage if isinstance(thing, TIMError)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert leaked == []


async def test_a_call_with_a_failed_peer_refills_the_retry_budget(service: StandIn) -> None:
    async with client_of(service, rates={C2C: 20}, retry=RetryPolicy(wait=(0.0, 0.0), budget=1.0)) as tim:
        service.script += [error(10002), unknown_peer(), unknown_peer(), error(10002)]
        for _ in range(2):
            assert isinstance(await failure_of(tim.lookup.c2c_unread_msg_num("alice", "unknown")), AccountNotFound)
        assert await tim.lookup.c2c_unread_msg_num("alice", "bob") == count_of("bob")
    assert len(service.seen) == 5


def unknown_peer() -> Action:
    return ok(ErrorList=[{"Peer_Account": "unknown", "ErrorCode": 70107}])


@pytest.mark.parametrize("peer", ["", None, 3, b"bob", "\ud800"])
async def test_bad_arguments_raise_at_once(service: StandIn, peer: Any) -> None:
    """And are named as in the method's signature."""
    async with client_of(service) as tim:
        for name, arguments in (("peer_account", ("alice", peer)), ("to_account", (peer, "bob"))):
            with pytest.raises((ValueError, TypeError), match=rf"^{name} "):
                await tim.lookup.c2c_unread_msg_num(*arguments)
        receipts: list[tuple[str, Any, Any]] = [
            ("group_id", peer, 1),
            *(("msg_seq", "g", seq) for seq in (-1, True, "1")),
        ]
        for name, group, seq in receipts:
            with pytest.raises((ValueError, TypeError), match=rf"^{name} "):
                await tim.lookup.group_msg_receipt(group, seq)
        assert nothing_leaked(tim)
    assert service.connections == 0


# max_wait.


async def test_no_permit_within_max_wait_is_an_error_for_each_caller(service: StandIn) -> None:
    async with busy(service) as tim:
        failures = await asyncio.gather(
            *unread(tim.with_options(max_wait=0.0), ["bob", "carol"]), return_exceptions=True
        )
        assert [type(failure) for failure in failures] == [QuotaExhausted] * 2
        assert failures[0] is not failures[1]
        assert all(isinstance(failure, QuotaExhausted) and failure.retry_after > 0 for failure in failures)
        assert nothing_leaked(tim)
    assert len(service.seen) == 1


async def test_a_max_wait_of_0_succeeds_on_an_idle_client(service: StandIn) -> None:
    async with client_of(service) as tim:
        assert await tim.with_options(max_wait=0.0).lookup.c2c_unread_msg_num("alice", "bob") == count_of("bob")


def test_a_look_up_that_joins_another_call_keeps_its_max_wait() -> None:
    """It outlives the first call, whose earliest caller waits no longer, and joins none that waits longer than it.

    So does one that shares the answer of an equal look-up.
    """

    async def main() -> None:
        async with StandIn() as service, busy(service, timeout=1e6) as tim:
            view = tim.with_options(max_wait=100.0)
            first = unread(view, PEERS[:9])
            await steps(5)
            skip(50.0)
            last = unread(view, [PEERS[9], PEERS[0]])  # the first fills the call; until 150
            await steps(5)
            skip(10.0)
            other = unread(view, ["eleventh"])  # until 160
            await steps(5)
            skip(45.0)
            assert {type(failure) for failure in await asyncio.gather(*first, return_exceptions=True)} == {
                QuotaExhausted
            }
            await steps(5)
            assert not any(task.done() for task in last)
            skip(47.0)
            async with asyncio.timeout(5):
                assert [type(await failure_of(task)) for task in last] == [QuotaExhausted] * 2
            assert not other[0].done()
            skip(10.0)
            assert isinstance(await failure_of(other[0]), QuotaExhausted)
            assert nothing_leaked(tim)
        assert service.violations == []

    run(main)


# Cancellation


async def test_a_look_up_cancelled_before_its_call_is_not_sent(service: StandIn) -> None:
    async with client_of(service) as tim:
        tasks = unread(tim, ["bob", "carol", "dave", "dave"])
        await steps(2)
        tasks[1].cancel()
        tasks[2].cancel()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [False, True, True, False]
    assert asked(service) == [("alice", ["bob", "dave"])]


async def test_cancelling_one_caller_of_a_sent_call_leaves_the_others(service: StandIn) -> None:
    service.script.append(Fate.HOLD)
    async with client_of(service) as tim:
        tasks = unread(tim, ["bob", "carol"])
        await service.until(1)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        again = unread(tim, ["bob"])
        await steps(3)
        service.let_go.set()
        assert await tasks[1] == count_of("carol")
        assert await again[0] == count_of("bob")
        assert nothing_leaked(tim)
    assert len(service.seen) == 1


async def test_a_call_whose_callers_are_all_cancelled_is_cancelled(service: StandIn) -> None:
    """Its connection is closed, and equal look-ups afterwards make a new call."""
    service.script.append(Fate.HOLD)
    async with client_of(service) as tim:
        tasks = unread(tim, ["bob", "carol"])
        await service.until(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await tim.lookup.c2c_unread_msg_num("alice", "bob") == count_of("bob")
        assert nothing_leaked(tim)
    assert [seen.connection for seen in service.seen] == [1, 2]


@pytest.mark.parametrize("answers", ["held", "failing", "good", "unknown"])
@pytest.mark.parametrize("rate", [2, 200])
def test_cancellation_at_any_moment_leaks_nothing(answers: str, rate: int) -> None:
    async def main() -> None:
        messages: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: messages.append(context))
        async with StandIn() as service:
            async with client_of(service, rates={C2C: rate}, timeout=1e6) as tim:
                actions: dict[str, Callable[[Seen], Action]] = {
                    "held": lambda _: Fate.HOLD,
                    "failing": lambda _: error(10002),
                    "good": sensible,
                    "unknown": sensible,
                }
                service.answer = actions[answers]
                names = ["unknown1", "unknown2"] if answers == "unknown" else ["a", "b"]
                for number in range(40):
                    skip(100.0)
                    tasks = unread(tim, [*names, names[0]]) + unread(tim, names, "zoe")
                    await steps(number)
                    skip(0.01)  # the end of the lingering
                    await steps(number)
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                    for task in tasks:
                        assert task.cancelled() or isinstance(task.exception(), TIMError | None)
                service.answer = sensible
                service.let_go.set()
                skip(100.0)
                assert await asyncio.wait_for(tim.lookup.c2c_unread_msg_num("alice", "bob"), 50.0) == count_of("bob")
                await steps(50)
                assert nothing_leaked(tim)
                del tasks, task
            assert call_tasks() == set()
        assert service.violations == []
        gc.collect()
        assert messages == []

    run(main)


@pytest.mark.parametrize("number", range(30))
async def test_a_call_cancelled_from_outside_is_made_again(service: StandIn, number: int) -> None:
    """Also before its first step: a look-up is not cancelled because the client's internal task was."""
    service.script.append(Fate.HOLD)
    async with client_of(service) as tim:
        tasks = unread(tim, PEERS)
        await steps(number)
        for task in call_tasks():
            task.cancel()
        service.let_go.set()
        async with asyncio.timeout(5):
            assert await asyncio.gather(*tasks) == [count_of(peer) for peer in PEERS]
        assert nothing_leaked(tim)


@pytest.mark.parametrize("number", range(30))
async def test_look_ups_right_after_all_tasks_were_cancelled_succeed(service: StandIn, number: int) -> None:
    """They start while the cancelled tasks have not ended yet."""
    async with client_of(service) as tim:
        tasks = unread(tim, PEERS)
        await steps(number)
        for task in {*tasks, *call_tasks()}:
            task.cancel()
        async with asyncio.timeout(5):
            assert await asyncio.gather(*unread(tim, PEERS)) == [count_of(peer) for peer in PEERS]
        await asyncio.wait(tasks)
        await steps(5)
        assert nothing_leaked(tim)


@pytest.mark.parametrize("number", range(8))
async def test_cancelling_a_caller_whose_call_has_failed_logs_nothing(service: StandIn, number: int) -> None:
    """The cancellation comes between the failure of the call and the caller's next step."""
    messages: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: messages.append(context))
    service.answer = lambda _: error(70003)
    cancelling: list[asyncio.Task[None]] = []

    async def cancel() -> None:
        await steps(number)
        tasks[0].cancel()

    async with client_of(service, on_attempt=lambda _: cancelling.append(asyncio.create_task(cancel()))) as tim:
        tasks = unread(tim, ["bob"])
        await asyncio.wait(tasks)
        await asyncio.wait(cancelling)
        assert tasks[0].cancelled() or isinstance(tasks[0].exception(), AuthError)
        assert nothing_leaked(tim)
        tasks.clear()
        gc.collect()
    assert messages == []


async def test_each_caller_can_have_its_own_time_out(service: StandIn) -> None:
    service.script.append(Fate.HOLD)
    async with client_of(service) as tim:
        other = unread(tim, ["bob"])
        limited = await failure_of(asyncio.wait_for(tim.lookup.c2c_unread_msg_num("alice", "carol"), 0.02))
        assert type(limited) is TimeoutError
        service.let_go.set()
        assert await other[0] == count_of("bob")


# Closing


async def test_closing_fails_lingering_look_ups_at_once(service: StandIn) -> None:
    tim = client_of(service)
    tasks = unread(tim, ["bob", "carol"])
    await steps(1)
    await tim.aclose()
    await steps(2)
    assert all(task.done() for task in tasks), "at once"
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(failure) for failure in failures] == [ClientClosed] * 2
    assert failures[0] is not failures[1]
    assert call_tasks() == set()
    assert service.connections == 0


async def test_closing_fails_look_ups_that_have_just_filled_a_call(service: StandIn) -> None:
    tim = client_of(service)
    tasks = unread(tim, PEERS)
    await steps(1)
    await tim.aclose()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    # With eager tasks their call has started already.
    assert all(isinstance(failure, TransportError) for failure in failures)
    assert {getattr(failure, "endpoint", "") for failure in failures} == {C2C}


async def test_closing_fails_queued_look_ups(service: StandIn) -> None:
    async with busy(service) as tim:
        tasks = unread(tim, ["bob", "carol"])
        await steps(3)
        await tim.aclose()
        failures = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(failure) for failure in failures] == [ClientClosed] * 2
        assert nothing_leaked(tim)


async def test_closing_fails_look_ups_in_flight(service: StandIn) -> None:
    service.answer = lambda _: Fate.HOLD
    tim = client_of(service, retry=RetryPolicy(wait=(1e6, 1e6), total=1e9))
    tasks = unread(tim, ["bob", "carol"])
    await service.until(1)
    await tim.aclose()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(failure, TransportError) for failure in failures)
    assert nothing_leaked(tim)


async def test_closing_awaits_cancelled_calls(service: StandIn) -> None:
    """No task is left when `aclose` returns."""
    service.answer = lambda _: Fate.HOLD
    async with aiohttp.ClientSession() as session:
        tim = client_of(service, session=session)
        tasks = unread(tim, ["bob"])
        await service.until(1)
        tasks[0].cancel()
        await steps(1)
        assert tasks[0].cancelled()
        assert call_tasks() != set(), "its call is still being ended"
        await tim.aclose()
        assert call_tasks() == set()


def call_tasks() -> set[asyncio.Task[Any]]:
    """Return the tasks of calls; the stand-in's task may be accepting a connection at any time."""
    return {task for task in others() if "Caller." in repr(task)}


async def test_the_call_runs_in_the_context_of_its_first_caller(service: StandIn) -> None:
    """Not in that of the caller whose look-up fills it."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")
    seen: list[str] = []
    async with client_of(service, on_attempt=lambda _: seen.append(name.get())) as tim:

        async def one(peer: str) -> None:
            name.set(peer)
            await tim.lookup.c2c_unread_msg_num("alice", peer)

        await asyncio.gather(*(asyncio.create_task(one(peer)) for peer in PEERS))
        await asyncio.gather(*(asyncio.create_task(one(peer)) for peer in PEERS[5:8]))
    assert seen == ["peer0", "peer5"]


# Any order


@at_most(40)
@given(
    plan=st.lists(
        st.tuples(st.sampled_from("xyz"), st.integers(0, 14), st.integers(0, 3), st.booleans()), min_size=1, max_size=60
    ),
    rate=st.sampled_from([50, 1000]),
)
def test_each_caller_gets_its_own_answer(plan: list[tuple[str, int, int, bool]], rate: int) -> None:
    """In any order of look-ups and cancellations; each request is as documented."""

    async def ask(tim: TIMClient, user: str, peer: int, delay: int) -> None:
        await steps(delay)
        name = f"unknown{peer}" if peer % 5 == 4 else f"peer{peer}"
        if peer % 5 == 4:
            assert isinstance(await failure_of(tim.lookup.c2c_unread_msg_num(user, name)), AccountNotFound)
        else:
            assert await tim.lookup.c2c_unread_msg_num(user, name) == count_of(name)

    async def main() -> None:
        async with StandIn() as service:
            async with client_of(service, rates={C2C: rate}) as tim:
                tasks = []
                for user, peer, delay, doomed in plan:
                    tasks.append(asyncio.create_task(ask(tim, user, peer, delay)))
                    if doomed:
                        asyncio.get_running_loop().call_later(delay / 1000, tasks[-1].cancel)
                found = await asyncio.gather(*tasks, return_exceptions=True)
                assert {type(outcome) for outcome in found} <= {type(None), asyncio.CancelledError}
                for (*_, doomed), outcome in zip(plan, found, strict=True):
                    assert doomed or outcome is None
                await tim.aclose()
                assert nothing_leaked(tim)
            assert call_tasks() == set()
        assert service.violations == []

    asyncio.run(main())
