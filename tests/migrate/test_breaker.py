"""The circuit breaker in virtual time: it waits out outages of any length, and gives up calls that fail alone."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import virtual_time
from tim_async import AuthError, ConnectFailed, GroupNotFound, RateLimited, ServerBusy, TIMError
from tim_async.migrate import Resumed, Waiting
from tim_async.migrate._breaker import CircuitBreaker, OutageTooLong, Stopped


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in virtual time."""

    @functools.wraps(test)
    def run(*arguments: Any, **options: Any) -> None:
        virtual_time.run(test(*arguments, **options))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


class Service:
    """Accepts calls except in its outages and except for one key; each takes some time."""

    def __init__(self, *outages: tuple[float, float], poison: str = "", took: float = 0.01) -> None:
        self.outages = outages
        self.poison = poison
        self.took = took
        self.began = now()
        self.taken: list[str] = []
        self.asked: list[tuple[float, str]] = []

    def call(self, key: str) -> Callable[[], Awaitable[str]]:
        async def once() -> str:
            self.asked.append((now() - self.began, key))
            await asyncio.sleep(self.took)
            elapsed = now() - self.began
            if key == self.poison or any(start <= elapsed < end for start, end in self.outages):
                error = ServerBusy(10002, "busy")
                error.attempts = 8
                raise error
            self.taken.append(key)
            return key

        return once

    async def call_all(self, keys: range, at_once: int, changes: list[Waiting | Resumed] | None = None) -> list[str]:
        """Call the service for each key with concurrent workers, and return the keys that failed."""
        circuit = breaker(changes)
        failed: list[str] = []
        queue = iter(map(str, keys))

        async def worker() -> None:
            for key in queue:
                try:
                    await circuit.call(self.call(key))
                except ServerBusy:
                    failed.append(key)
            circuit.last_calls = True

        await asyncio.gather(*(worker() for _ in range(at_once)))
        assert sorted(self.taken + failed) == sorted(map(str, keys))
        return failed


def breaker(
    changes: list[Waiting | Resumed] | None = None, most: float = math.inf, stop: asyncio.Event | None = None
) -> CircuitBreaker:
    events = [] if changes is None else changes
    return CircuitBreaker(stop or asyncio.Event(), most, events.append)


@pytest.mark.parametrize("seconds", [0.5, 60, 8 * 3600])
@virtually
async def test_an_outage_of_any_length_is_waited_out(seconds: float) -> None:
    """No call is given up, the load is low meanwhile, and the end is noticed within seconds."""
    changes: list[Waiting | Resumed] = []
    service = Service((0.1, 0.1 + seconds))
    assert await service.call_all(range(300), 20, changes) == []
    during = [at for at, _ in service.asked if 0.2 < at < 0.1 + seconds]
    assert len(during) <= 30 + seconds / 5
    assert next(at for at, _ in service.asked if at >= 0.1 + seconds) <= 0.1 + seconds + 5.1
    assert isinstance(changes[-1], Resumed)
    assert changes[-1].seconds == pytest.approx(seconds, abs=6)


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0.01, 300)), max_size=6), st.integers(1, 8))
@virtually
async def test_any_outages_lose_nothing(spans: list[tuple[float, float]], at_once: int) -> None:
    """Short, long, separate and overlapping ones."""
    service = Service(*((start, start + length) for start, length in spans), took=1.0)
    assert await service.call_all(range(60), at_once) == []


@pytest.mark.parametrize("at_once", [2, 20])
@virtually
async def test_a_call_that_fails_alone_is_given_up(at_once: int) -> None:
    """After some forty attempts if others succeed; after ten minutes if there are no others."""
    service = Service(poison="7", took=1.0)
    assert await service.call_all(range(600), at_once) == ["7"]
    assert 5 <= sum(key == "7" for _, key in service.asked) <= 12
    service = Service(poison="9")
    assert await service.call_all(range(10), 2) == ["9"]
    assert 600 <= now() - service.began <= 700


@virtually
async def test_a_final_error_ends_an_outage() -> None:
    """Because the service answers; refused credentials do not start an outage."""
    changes: list[Waiting | Resumed] = []
    errors: list[TIMError] = [ServerBusy(10002, "busy"), GroupNotFound(10010, "gone"), AuthError(70003, "bad")]

    async def call() -> None:
        raise errors.pop(0)

    circuit = breaker(changes)
    for kind in (GroupNotFound, AuthError):
        with pytest.raises(kind):
            await circuit.call(call)
    assert changes == [Waiting("error 10002: busy", 0.0), Resumed(0.25)]


@pytest.mark.parametrize("error", [ConnectFailed("refused"), RateLimited(60007), ServerBusy(91000)])
@virtually
async def test_a_transient_error_is_repeated(error: TIMError) -> None:
    failures = [error] * 3

    async def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert await breaker().call(call) == "done"


@virtually
async def test_a_limited_outage_ends_the_run() -> None:
    service = Service((0.0, math.inf))
    with pytest.raises(OutageTooLong, match="has accepted nothing for"):
        await breaker(most=60).call(service.call("a"))
    assert 60 <= now() - service.began <= 70


@virtually
async def test_a_stop_ends_the_waiting_and_allows_no_new_call() -> None:
    stop = asyncio.Event()
    service = Service((0.0, math.inf))
    circuit = breaker(stop=stop)
    waiting = asyncio.create_task(circuit.call(service.call("a")))
    await asyncio.sleep(100)
    asked = len(service.asked)
    stop.set()
    for call in (waiting, circuit.call(service.call("b"))):
        with pytest.raises(Stopped):
            await call
    assert len(service.asked) == asked


@virtually
async def test_a_cancelled_probe_is_left_to_another_call() -> None:
    service = Service((0.0, 100.0))
    circuit = breaker()
    tasks = [asyncio.create_task(circuit.call(service.call(str(number)))) for number in range(5)]
    await asyncio.sleep(50)
    for task in tasks[:4]:
        task.cancel()
    assert await tasks[4] == "4"
