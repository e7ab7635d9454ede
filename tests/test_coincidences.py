"""A caller's cancellation or deadline takes precedence over any event of the same iteration of the event loop.

Such events are the attempt's time-out, the answer, the end of the connection, a new connection, a permit and the
closing of the client.  Each comes before or after the caller's in the same iteration, or a few iterations later; the
network is a script.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import aiohttp
import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tim_async import RetryPolicy, TIMClient, TIMError

from .stand_in import KEY
from .virtual_network import NEVER, NOW, Moment, Network, Script

AT = 10.0
"""The time of the events, seconds."""
GOOD = {
    "ErrorCode": 0,
    "ActionStatus": "OK",
    "AllC2CUnreadMsgNum": 7,
    "C2CUnreadMsgNumList": [{"Peer_Account": "bob", "C2CUnreadMsgNum": 7}],
}
BUSY = {"ErrorCode": 10002, "ActionStatus": "FAIL", "ErrorInfo": "busy"}
WRONG = {"ErrorCode": 70003, "ActionStatus": "FAIL", "ErrorInfo": "wrong"}
LONG = 1e6
"""A time-out that ends nothing, seconds."""

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Case:
    """The events of one example.

    Attributes:
        kind: the kind of call.
        caller: the caller's way to end it, a key of `CALLERS`.
        when: the moment of the caller's end.
        script: the script of the network.
        timeout: the attempt's time-out, seconds.
        close: the moment at which the client is closed.
        given: whether the session, of one connection, is the caller's.
        ahead: the moment of the answer to another call, which has the only permit; None without such a call.
        max_wait: the longest wait for a permit, seconds.
        eager: whether tasks start eagerly.
    """

    kind: str
    caller: str
    when: Moment
    script: Script
    timeout: float = LONG
    close: Moment = NEVER
    given: bool = False
    ahead: Moment | None = None
    max_wait: float = LONG
    eager: bool = False


async def watched(call: Call) -> None:
    """Make a call; only a requested cancellation may raise CancelledError, and it must do so."""
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        await call()
    except asyncio.CancelledError:
        assert task.cancelling() > before, "a CancelledError without a request"
        before = task.cancelling()
        raise
    finally:
        assert task.cancelling() == before, "a cancellation was swallowed"


class Tolerated:
    """Suppresses `TIMError` and the given kinds of exceptions, and records the exception."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds: tuple[type[BaseException], ...] = (TIMError, *kinds)
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        self.error = error
        return isinstance(error, self._kinds)


# The callers: each makes a call, ends it in its way, and checks that it sees its own end.


async def leave(case: Case, network: Network, call: Call) -> None:
    with Tolerated():
        await watched(call)


async def cancel(case: Case, network: Network, call: Call, times: int = 1) -> None:
    inner = asyncio.ensure_future(watched(call))
    accepted: list[bool] = []
    for more in range(times):
        network.at(replace(case.when, hops=case.when.hops + more), lambda: accepted.append(inner.cancel()))
    await asyncio.wait([inner])
    if any(accepted):
        assert inner.cancelled()
        assert inner.cancelling() == accepted.count(True)
    else:
        with Tolerated():
            inner.result()


async def cancel_twice(case: Case, network: Network, call: Call) -> None:
    await cancel(case, network, call, 2)


async def timeouts(case: Case, network: Network, call: Call) -> None:
    when = network.began + case.when.exactly
    with Tolerated(TimeoutError) as seen:
        async with asyncio.timeout_at(when) as outer, asyncio.timeout_at(when + 0.0001) as inner:
            await watched(call)
    assert (outer.expired() or inner.expired()) == (type(seen.error) is TimeoutError)


async def wait_for(case: Case, network: Network, call: Call) -> None:
    with Tolerated(TimeoutError):
        await asyncio.wait_for(watched(call), case.when.exactly)


async def task_group(case: Case, network: Network, call: Call) -> None:
    async def fail() -> None:
        await network.moment(case.when)
        raise KeyError("mine")

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(watched(call))

    # In a separate task: before Python 3.13 a TaskGroup does not uncancel it.
    error = await asyncio.create_task(caught(together))
    assert isinstance(error, ExceptionGroup)
    assert {type(one) for one in error.exceptions if not isinstance(one, TIMError)} <= {KeyError}


async def caught(call: Call) -> BaseException | None:
    with Tolerated(ExceptionGroup) as seen:
        await call()
    return seen.error


async def cancel_scope(case: Case, network: Network, call: Call) -> None:
    with Tolerated() as seen, anyio.CancelScope() as scope:
        network.at(case.when, scope.cancel)
        await watched(call)
    assert seen.error is None or not scope.cancel_called


async def cancel_scopes(case: Case, network: Network, call: Call) -> None:
    when = network.began + case.when.exactly
    with Tolerated(TimeoutError) as seen, anyio.CancelScope(deadline=when + 0.0001) as outer:
        with anyio.fail_after(case.when.exactly) as inner:
            await watched(call)
    if outer.cancel_called or inner.cancel_called:
        assert type(seen.error) in (TimeoutError, type(None))


CALLERS = {
    caller.__name__: caller
    for caller in (
        leave,
        cancel,
        cancel_twice,
        timeouts,
        wait_for,
        task_group,
        cancel_scope,
        cancel_scopes,
    )
}


def calls_of(tim: TIMClient) -> dict[str, Call]:
    """Return a call of each kind."""
    running: set[str] = set()

    async def one() -> None:
        await tim.get_all_c2c_unread_msg_num("alice")

    async def counted(account: str) -> None:
        running.add(account)
        try:
            await tim.get_all_c2c_unread_msg_num(account)
        finally:
            running.remove(account)

    async def batch() -> None:
        try:
            async with tim.batch.map(counted, [("a",), ("b",)], concurrency=2) as outcomes:
                async for _ in outcomes:
                    pass
        finally:
            assert not running, "the block ended before its calls"

    async def look_up() -> None:
        await tim.lookup.c2c_unread_msg_num("alice", "bob")

    return {"call": one, "batch": batch, "look-up": look_up}


async def play(case: Case, network: Network) -> None:
    """Play an example; then check that nothing is lost and nothing is left."""
    if case.eager:
        network.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    async with contextlib.AsyncExitStack() as stack:
        session = None
        if case.given:
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)))
        tim = await stack.enter_async_context(client(case, session))
        others = [asyncio.ensure_future(leave(case, network, call)) for call in await other_calls(case, network, tim)]
        network.at(case.close, lambda: others.append(asyncio.ensure_future(tim.aclose())))
        call = calls_of(tim.with_options(max_wait=case.max_wait))[case.kind]
        await CALLERS[case.caller](case, network, call)
        assert case.caller == leave.__name__ or network.time() < network.began + AT + 1.0, "it took too long"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        network.script = Script(answer=GOOD)
        await asyncio.sleep(AT)
        if others:
            await asyncio.wait(others, timeout=10 * LONG)
        for other in others:
            other.result()  # or it hangs
        if case.close is NEVER:
            for _ in range(2):
                assert await tim.get_all_c2c_unread_msg_num("alice") == 7, "permit and connection are free again"
        deadlines = tim._caller._transport._deadlines
    await asyncio.sleep(LONG)
    assert not deadlines._queues
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert all(transport.closed for transport in network.transports)
    assert all(sock.fileno() == -1 for sock in network.sockets)
    assert network.complaints == []


def client(case: Case, session: aiohttp.ClientSession | None) -> TIMClient:
    """Make a client with one permit a second."""
    return TIMClient(
        sdk_app_id=1400000000,
        secret_key=KEY,
        base_url="http://chat.example",
        allow_http=True,
        session=session,
        rates={"get_c2c_unread_msg_num": 1},
        strict=True,
        timeout=case.timeout,
        retry=RetryPolicy(attempts=2, wait=(0.0, 0.0)),
    )


async def other_calls(case: Case, network: Network, tim: TIMClient) -> list[Call]:
    """Start the call ahead, if there is one; return the calls of other callers."""
    calls: list[Call] = [calls_of(tim)["look-up"]] if case.kind == "look-up" else []  # shares it, and is not cancelled
    if case.ahead is not None:
        network.script = Script(answered=case.ahead, answer=GOOD)
        ahead = asyncio.ensure_future(tim.get_all_c2c_unread_msg_num("first"))
        await network.requested.wait()

        async def end() -> None:
            await ahead

        calls.append(end)
    network.script = case.script
    return calls


@contextlib.contextmanager
def network_runner() -> Iterator[tuple[asyncio.Runner, Network]]:
    """Yield a runner and its network, which is the event loop."""
    with asyncio.Runner(loop_factory=Network) as runner:
        network = runner.get_loop()
        assert isinstance(network, Network)
        yield runner, network


ranks, hops = st.integers(0, 5), st.integers(0, 4)
then = st.builds(Moment, st.just(AT), ranks, hops)
exactly = ranks.map(lambda rank: Moment(AT, rank).exactly)
scripts = st.builds(
    Script,
    st.one_of(st.just(NOW), then),
    st.one_of(
        st.tuples(st.one_of(st.just(NOW), then, st.just(NEVER))),
        st.tuples(st.one_of(then, st.just(NEVER)), st.one_of(then, st.just(Moment(AT / 2)))),
    ),
    st.one_of(then, st.just(NEVER)),
    st.sampled_from([GOOD, BUSY, WRONG, None]),
)
cases = st.builds(
    Case,
    st.sampled_from(["call", "look-up", "batch"]),
    st.sampled_from([*CALLERS]),
    then,
    scripts,
    # Half of the time-out is the connect time-out.
    st.one_of(exactly, exactly.map(lambda seconds: 2 * seconds), st.just(LONG)),
    st.one_of(st.just(NEVER), then),
    st.booleans(),
    st.one_of(st.none(), st.builds(Moment, st.just(AT - 1.0), ranks, hops)),
    st.one_of(st.just(LONG), exactly),
    st.booleans() if sys.version_info >= (3, 12) else st.just(False),
)


@settings(max_examples=4 * settings().max_examples)
@given(cases)
@example(Case("call", "cancel", Moment(AT, 1), Script(answered=NEVER), timeout=AT))
@example(Case("call", "cancel", Moment(AT, 1, 4), Script(connected=(NEVER, Moment(AT, 1)), answered=NEVER)))
@example(Case("call", "cancel_scope", Moment(AT, 2), Script(answered=NEVER), timeout=AT))
@example(Case("look-up", "cancel_scope", Moment(AT, 0, 4), Script(answered=Moment(AT), answer=WRONG)))
@example(Case("batch", "cancel_twice", Moment(AT), Script(answered=NEVER)))
def test_the_callers_end_takes_precedence(case: Case) -> None:
    """The examples: the attempt's time-out first; two addresses, one of which connects; anyio."""
    with network_runner() as (runner, network):
        runner.run(play(case, network))


@pytest.mark.parametrize("error", [None, OSError("while cleaning up")], ids=["swallowed", "replaced"])
def test_a_cancellation_lost_by_a_middleware_still_ends_the_call(error: Exception | None) -> None:
    """The middleware returns an answer instead, or raises an error that would be retried."""

    async def lossy(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except asyncio.CancelledError:
            if error is not None:
                raise error from None
            network.script = Script(answer=GOOD)
            return await handler(request)

    async def main() -> None:
        network.script = Script(answered=NEVER)
        case = Case("call", "cancel", Moment(AT), network.script)
        async with aiohttp.ClientSession(middlewares=[lossy]) as session, client(case, session) as tim:
            await cancel(case, network, calls_of(tim)["call"])

    with network_runner() as (runner, network):
        runner.run(main())
