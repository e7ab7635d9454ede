"""The retry policy and the store of retries, by a clock of the test's own."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import tenacity

from tim_async import (
    APIError,
    BadResponse,
    ConnectFailed,
    ConnectionLost,
    RateLimited,
    RetryPolicy,
    ServerBusy,
    TIMError,
)
from tim_async.errors import classify
from tim_async.retrying import Retrier, RetryBudget


class Scene:
    """A retrier with a fake clock, a sleep that only moves it, and a note of each wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, policy: RetryPolicy, *, repeatable: bool = True) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.signed = 0
        self.tried = 0
        self.budget = RetryBudget(policy.budget, 20.0)
        self._policy, self._repeatable = policy, repeatable
        monkeypatch.setattr(tenacity, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(Retrier, "_sleep", lambda _, seconds: self.sleep(seconds))

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    async def run(self, failures: list[TIMError], *, started: float | None = None) -> str:
        """The outcome of a call whose attempts fail so, and then succeed."""
        left = iter(failures[1:])

        async def attempt() -> str:
            self.tried += 1
            failure = next(left, None)
            if failure is not None:
                raise failure
            return "done"

        def sign_again() -> None:
            self.signed += 1

        retrier = Retrier(
            self._policy,
            self.budget,
            repeatable=self._repeatable,
            clock=lambda: self.now,
            started=self.now if started is None else started,
            sign_again=sign_again,
        )
        return await retrier.run(failures[0], attempt)


Make = Callable[..., Scene]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(policy: RetryPolicy, **options: bool) -> Scene:
        monkeypatch.undo()
        return Scene(monkeypatch, policy, **options)

    return make


def busy(number: int) -> list[TIMError]:
    return [classify(10002, str(index)) for index in range(number)]


async def test_waits_have_full_jitter_and_double_up_to_the_most(scene: Make) -> None:
    """The n-th wait lies between 0 and min(most, first * 2**(n-1)), and they are not all alike."""
    seen: list[list[float]] = []
    for _ in range(200):
        stage = scene(RetryPolicy(attempts=7, wait=(0.1, 1.0), total=1e9))
        await stage.run(busy(6))
        seen.append(stage.waits)
    bounds = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    for position, bound in enumerate(bounds):
        drawn = [waits[position] for waits in seen]
        assert all(0 <= wait <= bound for wait in drawn)
        assert min(drawn) < bound / 4
        assert max(drawn) > bound * 3 / 4


async def test_a_refusal_for_the_rate_waits_by_its_own_scale(scene: Make) -> None:
    """Not by the one for passing faults."""
    stage = scene(RetryPolicy(wait=(0, 0), wait_rate_limited=(1.0, 1.0)))
    await stage.run([classify(60007), classify(10002), classify(60011)])
    assert len(stage.waits) == 3
    assert stage.waits[1] == 0.0
    assert 0 < stage.waits[0] <= 1.0
    assert 0 < stage.waits[2] <= 1.0


async def test_explicit_waits_of_0_are_honoured(scene: Make) -> None:
    """0 is a number, not a wish for the default."""
    stage = scene(RetryPolicy(wait=(0, 0), wait_rate_limited=(0, 0)))
    await stage.run([classify(10002), classify(60007), *busy(3)])
    assert stage.waits == [0.0] * 5


async def test_the_first_failure_counts_as_the_first_attempt(scene: Make) -> None:
    """attempts=3 is one request and two retries; the last error is raised."""
    stage = scene(RetryPolicy(attempts=3, wait=(0, 0)))
    failures = busy(9)
    with pytest.raises(ServerBusy) as caught:
        await stage.run(failures)
    assert caught.value is failures[2]
    assert stage.tried == 2


async def test_no_retry_starts_after_the_total(scene: Make) -> None:
    """The call's own time counts, that of its first attempt included."""
    stage = scene(RetryPolicy(attempts=100, wait=(4.0, 4.0), total=10.0))
    begun = stage.now
    with pytest.raises(ServerBusy):
        await stage.run(busy(100))
    assert stage.now - begun < 10.0
    late = scene(RetryPolicy(attempts=100, wait=(0, 0), total=10.0))
    with pytest.raises(ServerBusy):
        await late.run(busy(2), started=late.now - 10.0)
    assert late.tried == 0


@pytest.mark.parametrize(
    "failure",
    [BadResponse("empty"), ConnectionLost("gone"), BadResponse("HTTP 502", 502), classify(10002)],
    ids=repr,
)
async def test_a_call_of_unknown_fate_is_repeated_only_where_that_does_no_harm(scene: Make, failure: TIMError) -> None:
    """The endpoint says whether it does."""
    assert await scene(RetryPolicy(wait=(0, 0))).run([failure]) == "done"
    stage = scene(RetryPolicy(wait=(0, 0)), repeatable=False)
    with pytest.raises(type(failure)) as caught:
        await stage.run([failure])
    assert caught.value is failure
    assert stage.tried == 0


@pytest.mark.parametrize("failure", [ConnectFailed("no"), classify(60007), classify(70001)], ids=repr)
async def test_what_was_not_done_is_repeated_on_any_endpoint(scene: Make, failure: TIMError) -> None:
    """Nothing was sent, or the service said it did nothing."""
    stage = scene(RetryPolicy(wait=(0, 0), wait_rate_limited=(0, 0)), repeatable=False)
    assert await stage.run([failure]) == "done"


async def test_a_signature_is_made_afresh_once_and_without_a_wait(scene: Make) -> None:
    """The second refusal is raised."""
    stage = scene(RetryPolicy())
    failures: list[TIMError] = [classify(70001, "1"), classify(70052, "2"), classify(70001, "3")]
    with pytest.raises(APIError) as caught:
        await stage.run(failures)
    assert caught.value is failures[1]
    assert (stage.signed, stage.tried, stage.waits) == (1, 1, [0.0])


async def test_an_empty_budget_raises_the_original_error(scene: Make) -> None:
    """Never one that reads like something else, at the first failure or at a later one."""
    stage = scene(RetryPolicy(budget=2, wait=(0, 0)))
    failures = busy(9)
    with pytest.raises(ServerBusy) as caught:
        await stage.run(failures)
    assert caught.value is failures[2]
    with pytest.raises(ServerBusy) as caught:
        await stage.run(failures)
    assert caught.value is failures[0]


def test_an_error_that_is_not_ours_is_never_repeated() -> None:
    """A mistake in the code must show, and a cancellation must pass."""
    for foreign in (KeyError("x"), asyncio.CancelledError(), MemoryError()):
        assert not Retrier(
            RetryPolicy(), RetryBudget(9, 1.0), repeatable=True, clock=lambda: 0.0, started=0.0, sign_again=lambda: None
        ).worth(foreign)


def test_the_budget_is_spent_one_by_one_and_refilled_by_time() -> None:
    """At its own pace, and never over its size."""
    budget = RetryBudget(3, 2.0)
    for _ in range(3):
        assert budget.available(100.0)
        budget.spend()
    assert not budget.available(100.0)
    assert not budget.available(100.4)
    assert budget.available(100.5)
    budget.spend()
    assert not budget.available(100.5)
    for _ in range(3):
        assert budget.available(1e6)
        budget.spend()
    assert not budget.available(1e6)


def test_the_budget_is_refilled_by_success_and_never_over_its_size() -> None:
    """Two successes are worth a retry."""
    budget = RetryBudget(1, 0.0)
    assert budget.available(5.0)
    budget.spend()
    budget.succeeded()
    assert not budget.available(5.0)
    budget.succeeded()
    assert budget.available(5.0)
    for _ in range(100):
        budget.succeeded()
    budget.spend()
    assert not budget.available(5.0)


def test_a_budget_of_0_stays_empty() -> None:
    """Neither time nor success fills what holds nothing."""
    budget = RetryBudget(0, 100.0)
    budget.succeeded()
    assert not budget.available(1e9)


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    """Time is only ever counted once."""
    budget = RetryBudget(1, 1.0)
    assert budget.available(100.0)
    budget.spend()
    assert not budget.available(50.0)
    assert not budget.available(100.0)
    assert budget.available(101.0)


def test_a_policy_is_a_plain_value() -> None:
    """It compares, pickles, copies and cannot be changed."""
    policy = RetryPolicy(attempts=3, wait=(0, 1))
    assert pickle.loads(pickle.dumps(policy)) == copy.copy(policy) == policy
    with pytest.raises(AttributeError):
        policy.attempts = 5  # type: ignore[misc]


def test_a_rate_refusal_is_a_rate_limited_error() -> None:
    """What the scale of waits goes by."""
    assert isinstance(classify(60007), RateLimited)
