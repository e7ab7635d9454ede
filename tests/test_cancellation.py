"""Calls that are given up leave nothing behind, and a client that is closed lets nobody hang."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aiohttp
import pytest

from tim_async import (
    ClientClosed,
    RetryPolicy,
    TIMClient,
    TIMError,
    TransportError,
    _transport,
)

from . import loops
from .stand_in import AT_ONCE, KEY, METHODS, Action, Fate, Method, Seen, StandIn, client_of, error, failure_of, sensible


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop of real sockets whose clock a test can set forward."""

    skipped = 0.0

    def __init__(self) -> None:
        super().__init__()
        loops.adapt(self)

    def time(self) -> float:
        return super().time() + self.skipped

    def skip(self, seconds: float) -> None:
        self.skipped += seconds


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(main())


def skip(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    loop.skip(seconds)


def others() -> set[asyncio.Task[Any]]:
    """All tasks but this one, and those by which the event loop accepts connections."""
    return {
        task
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task() and "_accept_connection2" not in repr(task)
    }


@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_the_callers_own_time_out_is_obeyed(service: StandIn, method: Method) -> None:
    """It ends as the caller's TimeoutError, not as one of ours, and leaves no task."""
    service.answer = lambda _: Fate.HOLD
    async with client_of(service) as tim:
        serving = others()
        failure = await failure_of(asyncio.wait_for(method.run(tim), 0.02))
        assert type(failure) is TimeoutError
        assert {task for task in others() - serving if "StandIn" not in repr(task)} == set()


async def test_the_callers_own_time_out_is_obeyed_between_attempts(service: StandIn) -> None:
    """Also while a call waits to try again."""
    service.answer = lambda _: error(10002)
    async with client_of(service, retry=RetryPolicy(wait=(1e6, 1e6), total=1e9)) as tim:
        failure = await failure_of(asyncio.wait_for(tim.get_all_c2c_unread_msg_num("alice"), 0.02))
    assert type(failure) is TimeoutError


async def test_the_callers_own_time_out_is_obeyed_in_the_queue(service: StandIn) -> None:
    """Also while a call waits for its permit."""
    service.answer = lambda _: Fate.HOLD
    async with client_of(service, rates={"get_c2c_unread_msg_num": 1}) as tim:
        first = asyncio.create_task(failure_of(tim.get_all_c2c_unread_msg_num("alice")))
        await service.until(1)
        failure = await failure_of(asyncio.wait_for(tim.get_all_c2c_unread_msg_num("bob"), 0.02))
        assert type(failure) is TimeoutError
        assert len(service.seen) == 1
        service.let_go.set()
        first.cancel()
        await asyncio.wait([first])


@pytest.mark.parametrize("answers", ["held", "failing", "good"])
@pytest.mark.parametrize("limit", [None, 1], ids=["own session", "a session of one connection"])
def test_cancelling_at_any_moment_leaks_no_slot_and_no_task(limit: int | None, answers: str) -> None:
    """With two calls a second allowed, dozens of calls cancelled after 0, 1, 2, … steps still leave room for others."""

    async def main() -> None:
        async with StandIn() as service, contextlib.AsyncExitStack() as stack:
            session = None
            if limit is not None:
                connector = aiohttp.TCPConnector(limit=limit)
                session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            tim = await stack.enter_async_context(
                client_of(service, session=session, rates={"get_c2c_unread_msg_num": 2}, timeout=1e6)
            )
            faults: dict[str, Callable[[Seen], Action]] = {
                "held": lambda _: Fate.HOLD,
                "failing": lambda _: error(10002),
                "good": sensible,
            }
            service.answer = faults[answers]
            for steps in range(50):
                skip(100.0)
                await cancel_after(steps, [asyncio.create_task(tim.get_all_c2c_unread_msg_num("a")) for _ in range(4)])
            service.answer = sensible
            service.let_go.set()
            skip(100.0)
            assert await asyncio.wait_for(tim.get_all_c2c_unread_msg_num("alice"), 50.0) == 7
            skip(100.0)
            both = await asyncio.wait_for(
                asyncio.gather(*(tim.get_all_c2c_unread_msg_num("alice") for _ in range(2))), 50.0
            )
            assert both == [7, 7], "both slots are there again"
            await service.disconnect()
            assert others() == set()

    run(main)


async def cancel_after(steps: int, tasks: list[asyncio.Task[Any]]) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    done, waiting = await asyncio.wait(tasks)
    assert not waiting
    for task in done:
        assert task.cancelled() or task.exception() is None or isinstance(task.exception(), TIMError)


async def test_a_cancelled_attempt_is_named_in_the_log(service: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, with what ended it: a line that breaks off after the colon tells nobody anything."""
    caplog.set_level(logging.DEBUG, "tim_async")
    service.script.append(Fate.HOLD)
    async with client_of(service) as tim:
        task = asyncio.create_task(tim.get_all_c2c_unread_msg_num("alice"))
        await service.until(1)
        task.cancel()
        await asyncio.wait([task])
    assert "get_c2c_unread_msg_num: attempt 1: CancelledError" in caplog.text


async def test_a_cancelled_call_closes_its_connection(service: StandIn) -> None:
    """Its answer, should it come, must not be taken for that of the next call."""
    service.script.append(Fate.HOLD)
    async with client_of(service) as tim:
        task = asyncio.create_task(tim.call("v4/openim/x", {"A": 1}))
        await service.until(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        service.let_go.set()
        assert await tim.get_all_c2c_unread_msg_num("alice") == 7
    assert [seen.connection for seen in service.seen] == [1, 2]


# Closing.


@pytest.mark.parametrize("given", [False, True], ids=["own session", "given session"])
async def test_closing_ends_calls_that_wait_with_a_tim_error(service: StandIn, given: bool) -> None:
    """A waiting call raises at once, and makes no further attempt."""
    service.answer = lambda _: Fate.HOLD
    async with aiohttp.ClientSession() as session:
        tim = client_of(service, session=session if given else None, rates={"get_c2c_unread_msg_num": 1}, retry=SLOW)
        tasks = [asyncio.create_task(failure_of(tim.get_all_c2c_unread_msg_num("alice"))) for _ in range(20)]
        await service.until(1)
        await tim.aclose()
        # The first one is in flight, and a session that is not the client's keeps it so.
        done, waiting = await asyncio.wait(tasks[1:] if given else tasks, timeout=10.0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert not waiting, "no call waits to try again on a closed client"
        assert all(isinstance(task.result(), TIMError) for task in done)
        assert len(service.seen) == 1


SLOW = RetryPolicy(wait=(1e6, 1e6), total=1e9)
"""A policy under which a call that is retried at all would be waited for in vain."""


async def test_closing_ends_calls_in_flight_with_a_tim_error(service: StandIn) -> None:
    """Their connections end, and a closed client does not try again."""
    service.answer = lambda _: Fate.HOLD
    tim = client_of(service, retry=SLOW)
    tasks = [asyncio.create_task(failure_of(method.run(tim))) for method in METHODS]
    await service.until(len(METHODS))
    await tim.aclose()
    done, waiting = await asyncio.wait(tasks, timeout=10.0)
    for task in waiting:
        task.cancel()
    if waiting:
        await asyncio.wait(waiting)
    assert not waiting, "no call waits to try again on a closed client"
    assert all(isinstance(task.result(), TransportError) for task in done)
    assert len(service.seen) == len(METHODS)


@pytest.mark.parametrize(
    ("policy", "blocked"),
    [(SLOW, 0.0), (RetryPolicy(wait=(0.05, 0.05), total=1e9), 0.1)],
    ids=["meanwhile", "in the turn of the loop in which their wait is over"],
)
async def test_closing_ends_calls_that_wait_to_try_again(service: StandIn, policy: RetryPolicy, blocked: float) -> None:
    """A call between two attempts makes no further one; it ends, and not only when its wait does."""
    service.answer = lambda _: error(10002)
    tim = client_of(service, retry=policy)
    task = asyncio.create_task(failure_of(tim.get_all_c2c_unread_msg_num("alice")))
    await service.until(1)
    for _ in range(50):
        await asyncio.sleep(0)
    time.sleep(blocked)  # noqa: ASYNC251 - the loop is blocked
    await tim.aclose()
    done, _ = await asyncio.wait([task], timeout=10.0)
    ended = bool(done)
    task.cancel()
    await asyncio.wait([task])
    assert ended
    assert isinstance(task.result(), TIMError)
    assert len(service.seen) == 1


async def test_closing_while_a_name_is_looked_up_ends_the_call_with_a_tim_error(
    service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not with a CancelledError that nobody asked for."""
    asked = asyncio.Event()

    class Resolver(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> Any:
            asked.set()
            await asyncio.Event().wait()

        async def close(self) -> None:
            pass

    monkeypatch.setattr(
        _transport, "own_session", lambda _: aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Resolver()))
    )
    tim = client_of(service, base_url="https://chat.example", retry=AT_ONCE)
    task = asyncio.create_task(tim.get_all_c2c_unread_msg_num("alice"))
    await asked.wait()
    await tim.aclose()
    await asyncio.wait([task], timeout=10.0)
    assert task.done()
    assert not task.cancelled()
    assert isinstance(task.exception(), TIMError)


async def test_closing_that_is_cancelled_still_leaves_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its permits belong to a whole fleet."""
    left = asyncio.Event()
    closing = asyncio.Event()

    class Sharing:
        async def aclose(self) -> None:
            left.set()

    class Quota:
        def share(self, sdk_app_id: int) -> Any:
            return Sharing()

    class Slow(aiohttp.TCPConnector):
        async def close(self, **options: Any) -> None:
            await super().close(**options)
            closing.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(_transport, "own_session", lambda _: aiohttp.ClientSession(connector=Slow()))
    tim = TIMClient(sdk_app_id=1, secret_key=KEY, region="singapore", quota=Quota())
    await tim.__aenter__()
    task = asyncio.create_task(tim.aclose())
    await closing.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert left.is_set()


async def test_closing_twice_and_closing_unused_is_fine() -> None:
    """Nothing is made for a client that was never used."""
    tim = TIMClient(sdk_app_id=1, secret_key=KEY, region="singapore")
    await tim.aclose()
    await tim.aclose()


async def test_a_closed_client_says_so(service: StandIn) -> None:
    """A call after the end sends nothing."""
    async with client_of(service) as tim:
        pass
    with pytest.raises(ClientClosed, match="closed"):
        await tim.get_all_c2c_unread_msg_num("alice")
    with pytest.raises(ClientClosed, match="closed"):
        await tim.__aenter__()
    assert service.connections == 0


async def test_leaving_the_block_by_an_exception_closes_and_lets_it_pass(service: StandIn) -> None:
    """Nothing is wrapped or swallowed."""
    tim = client_of(service)

    async def use() -> None:
        async with tim:
            await tim.get_all_c2c_unread_msg_num("alice")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await use()
    with pytest.raises(ClientClosed, match="closed"):
        await tim.get_all_c2c_unread_msg_num("alice")


async def test_a_call_cancelled_by_a_task_group_ends_with_it(service: StandIn) -> None:
    """Cancellation is never swallowed, in whatever state the call is."""
    service.answer = lambda _: Fate.HOLD

    async def fail() -> None:
        await service.until(3)
        raise KeyError("mine")

    async def together(tim: TIMClient) -> None:
        async with asyncio.TaskGroup() as group:
            for method in METHODS[:3]:
                group.create_task(ignored(method.run(tim)))
                group.create_task(ignored(method.run(tim)))
            group.create_task(fail())

    async with client_of(service, rates={"set_unread_msg_num": 1}) as tim:
        with pytest.raises(ExceptionGroup) as caught:
            await together(tim)
        assert [type(failure) for failure in caught.value.exceptions] == [KeyError]


async def ignored(awaitable: Awaitable[Any]) -> None:
    await awaitable
