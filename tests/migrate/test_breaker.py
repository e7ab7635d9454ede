"""Waiting an outage out, in virtual time: nothing is given up that may yet pass, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import virtual_time
from tim_async import AuthError, ConnectFailed, GroupNotFound, RateLimited, ServerBusy, TIMError
from tim_async.migrate._breaker import CircuitBreaker, OutageTooLong, Stopped

Told = list[tuple[str | None, float]]


def now() -> float:
    return asyncio.get_running_loop().time()


def busy(attempts: int = 8) -> ServerBusy:
    error = ServerBusy(10002, "busy")
    error.attempts = attempts
    return error


class Service:
    """Takes calls outside its outages, and a while for each; one key it never takes."""

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
                raise busy()
            self.taken.append(key)
            return key

        return once


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    virtual_time.run(main())


def breaker(told: Told, most: float = math.inf, stop: asyncio.Event | None = None) -> CircuitBreaker:
    return CircuitBreaker(
        asyncio.Event() if stop is None else stop, most, lambda e, s: told.append((None if e is None else str(e), s))
    )


async def work(breaker: CircuitBreaker, service: Service, keys: list[str], at_once: int) -> list[str]:
    """Carry the keys out with so many workers; those that were given up."""
    failed: list[str] = []
    queue = iter(keys)

    async def worker() -> None:
        for key in queue:
            try:
                await breaker.call(service.call(key))
            except ServerBusy:
                failed.append(key)
        breaker.last_calls = True

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return failed


@pytest.mark.parametrize("seconds", [0.5, 60, 8 * 3600])
def test_an_outage_of_any_length_is_waited_out(seconds: float) -> None:
    """Not one call is given up, the service is asked gently meanwhile, and found soon when it is back."""

    async def main() -> None:
        told: Told = []
        service = Service((0.1, 0.1 + seconds))
        keys = [str(number) for number in range(300)]
        assert await work(breaker(told), service, keys, 20) == []
        assert sorted(service.taken) == sorted(keys)
        during = [at for at, _ in service.asked if 0.2 < at < 0.1 + seconds]
        assert len(during) <= 30 + seconds / 5
        back = next(at for at, _ in service.asked if at >= 0.1 + seconds)
        assert back <= 0.1 + seconds + 5.1
        assert told[-1][0] is None
        assert told[-1][1] == pytest.approx(seconds, abs=6)

    run(main)


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0.01, 300)), max_size=6), st.integers(1, 8))
def test_any_outages_lose_nothing(spans: list[tuple[float, float]], at_once: int) -> None:
    """Short and long, apart and overlapping."""

    async def main() -> None:
        service = Service(*((start, start + length) for start, length in spans), took=1.0)
        keys = [str(number) for number in range(60)]
        assert await work(breaker([]), service, keys, at_once) == []
        assert sorted(service.taken) == sorted(keys)

    run(main)


@pytest.mark.parametrize("at_once", [2, 20])
def test_a_call_that_fails_alone_is_given_up(at_once: int) -> None:
    """In the middle, where others succeed, after some forty attempts."""

    async def main() -> None:
        service = Service(poison="7", took=1.0)
        keys = [str(number) for number in range(600)]
        assert await work(breaker([]), service, keys, at_once) == ["7"]
        assert sorted(service.taken) == sorted({*keys} - {"7"})
        assert 5 <= sum(key == "7" for _, key in service.asked) <= 12

    run(main)


def test_a_call_that_fails_when_no_other_is_left_is_given_up_in_the_end() -> None:
    """Nothing tells it from an outage, so it is given ten minutes."""

    async def main() -> None:
        service = Service(poison="9")
        assert await work(breaker([]), service, [str(number) for number in range(10)], 2) == ["9"]
        assert 600 <= now() - service.began <= 700

    run(main)


def test_a_word_of_the_service_is_the_last_and_ends_an_outage() -> None:
    """It answers, so it is back."""

    async def main() -> None:
        told: Told = []
        errors: list[TIMError] = [busy(), GroupNotFound(10010, "gone")]

        async def call() -> None:
            raise errors.pop(0)

        with pytest.raises(GroupNotFound):
            await breaker(told).call(call)
        assert [error for error, _ in told] == ["error 10002: busy after 8 attempts", None]

    run(main)


def test_refused_credentials_are_nobody_s_outage() -> None:
    """At once, whoever else may succeed."""

    async def main() -> None:
        async def call() -> None:
            raise AuthError(70003, "bad signature")

        told: Told = []
        with pytest.raises(AuthError):
            await breaker(told).call(call)
        assert told == []

    run(main)


@pytest.mark.parametrize("error", [ConnectFailed("refused"), RateLimited(60007), ServerBusy(91000)])
def test_a_transient_error_is_repeated(error: TIMError) -> None:
    async def main() -> None:
        failures = [error] * 3

        async def call() -> str:
            if failures:
                raise failures.pop()
            return "done"

        assert await breaker([]).call(call) == "done"

    run(main)


def test_an_outage_may_be_limited() -> None:
    """Then it ends the run."""

    async def main() -> None:
        service = Service((0.0, math.inf))
        with pytest.raises(OutageTooLong, match="has accepted nothing for"):
            await breaker([], most=60).call(service.call("a"))
        assert 60 <= now() - service.began <= 70

    run(main)


def test_a_stop_ends_the_waiting_and_begins_no_call() -> None:
    """Whether there is an outage or not."""

    async def main() -> None:
        stop = asyncio.Event()
        service = Service((0.0, math.inf))
        patient = breaker([], stop=stop)
        waiting = asyncio.create_task(patient.call(service.call("a")))
        await asyncio.sleep(100)
        asked = len(service.asked)
        stop.set()
        with pytest.raises(Stopped):
            await waiting
        with pytest.raises(Stopped):
            await patient.call(service.call("b"))
        assert len(service.asked) == asked

    run(main)


def test_a_cancelled_prober_leaves_the_probe_to_the_next() -> None:
    """Whoever was trying and is cancelled does not keep the others waiting for ever."""

    async def main() -> None:
        service = Service((0.0, 100.0))
        patient = breaker([])
        tasks = [asyncio.create_task(patient.call(service.call(str(number)))) for number in range(5)]
        await asyncio.sleep(50)
        for task in tasks[:4]:
            task.cancel()
        assert await tasks[4] == "4"

    run(main)
