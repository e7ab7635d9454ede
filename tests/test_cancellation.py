"""Cancelled calls leak nothing, and closing a client ends its calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
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
from .loops import others, steps
from .stand_in import AT_ONCE, KEY, METHODS, Action, Fate, Method, Seen, StandIn, client_of, error, failure_of, sensible


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop with real sockets, whose clock a test can set forward."""

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


@pytest.mark.parametrize("method", METHODS, ids=str)
async def test_a_callers_time_out_raises_its_timeout_error(service: StandIn, method: Method) -> None:
    """Not a RequestTimeout; no task is left."""
    service.answer = lambda _: Fate.HOLD
    async with client_of(service) as tim:
        failure = await failure_of(asyncio.wait_for(method.run(tim), 0.02))
        assert type(failure) is TimeoutError
        assert others() == set()


async def test_a_callers_time_out_ends_the_wait_between_attempts(service: StandIn) -> None:
    service.answer = lambda _: error(10002)
    async with client_of(service, retry=RetryPolicy(wait=(1e6, 1e6), total=1e9)) as tim:
        failure = await failure_of(asyncio.wait_for(tim.get_all_c2c_unread_msg_num("alice"), 0.02))
    assert type(failure) is TimeoutError


async def test_a_callers_time_out_ends_the_wait_for_a_permit(service: StandIn) -> None:
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
def test_cancellation_at_any_moment_leaks_no_slot_and_no_task(limit: int | None, answers: str) -> None:
    """At a limit of two calls a second, both slots are free after 200 calls were cancelled after 0 to 49 steps."""

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
            for number in range(50):
                skip(100.0)
                await cancel_after(number, [asyncio.create_task(tim.get_all_c2c_unread_msg_num("a")) for _ in range(4)])
            service.answer = sensible
            service.let_go.set()
            skip(100.0)
            assert await asyncio.wait_for(tim.get_all_c2c_unread_msg_num("alice"), 50.0) == 7
            skip(100.0)
            both = await asyncio.wait_for(
                asyncio.gather(*(tim.get_all_c2c_unread_msg_num("alice") for _ in range(2))), 50.0
            )
            assert both == [7, 7], "both slots are free again"
            await service.disconnect()
            assert others() == set()

    run(main)


async def cancel_after(number: int, tasks: list[asyncio.Task[Any]]) -> None:
    await steps(number)
    for task in tasks:
        task.cancel()
    done, waiting = await asyncio.wait(tasks)
    assert not waiting
    for task in done:
        assert task.cancelled() or task.exception() is None or isinstance(task.exception(), TIMError)


async def test_a_cancelled_attempt_is_logged_with_its_exception(
    service: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """A CancelledError has no text, so the log shows its type."""
    caplog.set_level(logging.DEBUG, "tim_async")
    service.script.append(Fate.HOLD)
    async with client_of(service) as tim:
        task = asyncio.create_task(tim.get_all_c2c_unread_msg_num("alice"))
        await service.until(1)
        task.cancel()
        await asyncio.wait([task])
    assert "get_c2c_unread_msg_num: attempt 1: CancelledError" in caplog.text


async def test_a_cancelled_call_closes_its_connection(service: StandIn) -> None:
    """Its late answer must not be taken for that of the next call."""
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


# Closing


@pytest.mark.parametrize("given", [False, True], ids=["own session", "given session"])
async def test_closing_fails_queued_calls_with_a_tim_error(service: StandIn, given: bool) -> None:
    """At once, without a further attempt."""
    service.answer = lambda _: Fate.HOLD
    async with aiohttp.ClientSession() as session:
        tim = client_of(service, session=session if given else None, rates={"get_c2c_unread_msg_num": 1}, retry=SLOW)
        tasks = [asyncio.create_task(failure_of(tim.get_all_c2c_unread_msg_num("alice"))) for _ in range(20)]
        await service.until(1)
        await tim.aclose()
        # The first one is in flight, and closing the client does not close a given session.
        done, waiting = await asyncio.wait(tasks[1:] if given else tasks, timeout=10.0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert not waiting, "no call waits for a retry on a closed client"
        assert all(isinstance(task.result(), TIMError) for task in done)
        assert len(service.seen) == 1


SLOW = RetryPolicy(wait=(1e6, 1e6), total=1e9)
"""A policy with endless waits: a call that waits for a retry never ends by itself."""


async def test_closing_fails_calls_in_flight_with_a_tim_error(service: StandIn) -> None:
    """Their connections are closed, and they are not retried."""
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
    assert not waiting, "no call waits for a retry on a closed client"
    assert all(isinstance(task.result(), TransportError) for task in done)
    assert len(service.seen) == len(METHODS)


@pytest.mark.parametrize(
    ("policy", "blocked"),
    [(SLOW, 0.0), (RetryPolicy(wait=(0.05, 0.05), total=1e9), 0.1)],
    ids=["during the wait", "in the loop iteration in which the wait ends"],
)
async def test_closing_fails_calls_between_two_attempts(service: StandIn, policy: RetryPolicy, blocked: float) -> None:
    """At once, without a further attempt."""
    service.answer = lambda _: error(10002)
    tim = client_of(service, retry=policy)
    task = asyncio.create_task(failure_of(tim.get_all_c2c_unread_msg_num("alice")))
    await service.until(1)
    await steps(50)
    time.sleep(blocked)  # noqa: ASYNC251 - the loop is blocked
    await tim.aclose()
    done, _ = await asyncio.wait([task], timeout=10.0)
    ended = bool(done)
    task.cancel()
    await asyncio.wait([task])
    assert ended
    assert isinstance(task.result(), TIMError)
    assert len(service.seen) == 1


async def test_closing_during_name_resolution_fails_the_call_with_a_tim_error(
    service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with a CancelledError, which no caller has requested."""
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


async def test_a_cancelled_aclose_still_leaves_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's permits belong to the whole fleet."""
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


async def test_an_exception_of_the_block_closes_the_client_and_is_raised_unchanged(service: StandIn) -> None:
    tim = client_of(service)

    async def use() -> None:
        async with tim:
            await tim.get_all_c2c_unread_msg_num("alice")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await use()
    with pytest.raises(ClientClosed, match="closed"):
        await tim.get_all_c2c_unread_msg_num("alice")
