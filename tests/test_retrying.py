"""The retry policy and the retry budget, by a clock of the test's own."""

from __future__ import annotations

import copy
import math
import pickle
import re
from typing import Any

import pytest

from tim_async import BadResponse, ConnectFailed, ConnectionLost, RateLimited, RetryPolicy, TIMError
from tim_async._retries import Retries, RetryBudget
from tim_async.errors import classify

# Through the client, test_faults.py shows what these decide; the bounds of random waits take thousands of draws.


class Failing:
    """A call that has begun and keeps failing, with a clock that only its waits move."""

    def __init__(
        self, policy: RetryPolicy, *, repeatable: bool = True, budget: RetryBudget | None = None, took: float = 0.0
    ) -> None:
        self.now = 1000.0
        self.attempts = 0
        self.waits: list[float] = []
        self.opens_at = 0.0
        self._retries = Retries(
            policy, budget or RetryBudget(policy.budget, 20.0), repeatable=repeatable, started=self.now
        )
        self.now += took

    def retried(self, failure: TIMError) -> bool:
        """Whether another attempt follows one that failed so."""
        self.attempts += 1
        wait = self._retries.wait_after(failure, self.attempts, self.now, self.opens_at)
        if wait is not None:
            self.waits.append(wait)
            self.now += wait
        return wait is not None


BUSY = classify(10002)
AT_ONCE = RetryPolicy(wait=(0, 0), wait_rate_limited=(0, 0))


def test_waits_have_full_jitter_and_double_up_to_the_most() -> None:
    """The n-th wait lies between 0 and min(most, first * 2**(n-1)), and they are not all alike."""
    seen: list[list[float]] = []
    for _ in range(200):
        call = Failing(RetryPolicy(attempts=7, wait=(0.1, 1.0), total=1e9))
        assert all(call.retried(BUSY) for _ in range(6))
        seen.append(call.waits)
    for position, bound in enumerate([0.1, 0.2, 0.4, 0.8, 1.0, 1.0]):
        drawn = [waits[position] for waits in seen]
        assert all(0 <= wait <= bound for wait in drawn)
        assert min(drawn) < bound / 4
        assert max(drawn) > bound * 3 / 4


def test_a_refusal_for_the_rate_waits_by_its_own_scale() -> None:
    """Not by that of transient failures; explicit waits of 0 are honoured in both."""
    call = Failing(RetryPolicy(wait=(0, 0), wait_rate_limited=(1.0, 1.0)))
    assert all(call.retried(classify(code)) for code in (60007, 10002, 60011))
    assert call.waits[1] == 0.0
    assert all(0 < wait <= 1.0 for wait in (call.waits[0], call.waits[2]))
    call = Failing(RetryPolicy(wait=(1.0, 1.0), wait_rate_limited=(0, 0)))
    assert all(call.retried(classify(code)) for code in (60007, 10002))
    assert call.waits[0] == 0.0 < call.waits[1]


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_policy_counts_the_first_attempt(attempts: int) -> None:
    """attempts=3 is one request and two retries; attempts=1 turns retrying off."""
    call = Failing(RetryPolicy(attempts=attempts, wait=(0, 0)))
    assert [call.retried(BUSY) for _ in range(attempts)] == [True] * (attempts - 1) + [False]


def test_no_retry_starts_after_the_total() -> None:
    """The call's own time counts, that of its first attempt included, and so does the end of a pause."""
    call = Failing(RetryPolicy(attempts=100, wait=(4.0, 4.0), total=10.0))
    begun = call.now
    while call.retried(BUSY):
        pass
    assert begun < call.now < begun + 10.0
    total = RetryPolicy(wait=(0, 0), total=10.0)
    assert Failing(total, took=9.9).retried(BUSY)
    assert not Failing(total, took=10.0).retried(BUSY)
    paused = Failing(total)
    paused.opens_at = paused.now + 10.0
    assert paused.retried(BUSY)
    paused.opens_at += 0.1
    assert not paused.retried(BUSY)


@pytest.mark.parametrize(
    "failure", [BadResponse("empty"), ConnectionLost("gone"), BadResponse("HTTP 502", 502), BUSY], ids=repr
)
def test_a_call_of_unknown_outcome_is_repeated_only_where_that_does_no_harm(failure: TIMError) -> None:
    """The endpoint says whether it does."""
    assert Failing(AT_ONCE).retried(failure)
    assert not Failing(AT_ONCE, repeatable=False).retried(failure)


@pytest.mark.parametrize("failure", [ConnectFailed("no"), classify(60007), classify(70001)], ids=repr)
def test_what_was_not_done_is_repeated_on_any_endpoint(failure: TIMError) -> None:
    """Nothing was sent, or the service said it did nothing."""
    assert Failing(AT_ONCE, repeatable=False).retried(failure)


@pytest.mark.parametrize("code", [10007, 10010, 70050, 12345])
def test_what_can_only_fail_again_is_not_repeated(code: int) -> None:
    """Nor is a code that is in no table."""
    assert not Failing(AT_ONCE).retried(classify(code))


def test_a_refused_signature_is_retried_once_and_without_a_wait() -> None:
    """Whatever happens in between."""
    call = Failing(RetryPolicy(wait=(1.0, 1.0)))
    assert [call.retried(classify(code)) for code in (70001, 10002, 70052)] == [True, True, False]
    assert call.waits[0] == 0.0


def test_an_empty_budget_ends_the_retries_of_every_call() -> None:
    """What one call spends, the next does not have; a failure that is not retried spends nothing."""
    budget = RetryBudget(2, 0.0)
    first, second = Failing(AT_ONCE, budget=budget), Failing(AT_ONCE, budget=budget)
    assert not Failing(RetryPolicy(attempts=1), budget=budget).retried(BUSY)
    assert [first.retried(BUSY) for _ in range(3)] == [True, True, False]
    assert not second.retried(BUSY)


def test_the_budget_is_spent_one_by_one_and_refilled_by_time() -> None:
    """At its own pace, and never over its size."""
    budget = RetryBudget(3, 2.0)
    assert [budget.spend(100.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.spend(100.4)
    assert [budget.spend(100.5) for _ in range(2)] == [True, False]
    assert [budget.spend(1e6) for _ in range(4)] == [True, True, True, False]


def test_the_budget_is_refilled_by_success_and_never_over_its_size() -> None:
    """Two successes are worth a retry."""
    budget = RetryBudget(1, 0.0)
    assert budget.spend(5.0)
    budget.succeeded()
    assert not budget.spend(5.0)
    budget.succeeded()
    assert budget.spend(5.0)
    for _ in range(100):
        budget.succeeded()
    assert [budget.spend(5.0) for _ in range(2)] == [True, False]


def test_a_budget_of_0_stays_empty() -> None:
    """Neither time nor success fills what holds nothing."""
    budget = RetryBudget(0, 100.0)
    budget.succeeded()
    assert not budget.spend(1e9)


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    """Time is only ever counted once."""
    budget = RetryBudget(1, 1.0)
    assert budget.spend(100.0)
    assert not budget.spend(50.0)
    assert not budget.spend(100.0)
    assert budget.spend(101.0)


def test_a_policy_is_a_plain_value() -> None:
    """It compares, pickles, copies and cannot be changed."""
    policy = RetryPolicy(attempts=3, wait=(0, 1))
    assert pickle.loads(pickle.dumps(policy)) == copy.copy(policy) == policy
    with pytest.raises(AttributeError):
        policy.attempts = 5  # type: ignore[misc]


def test_a_rate_refusal_is_a_rate_limited_error() -> None:
    """What the scale of waits goes by."""
    assert isinstance(classify(60007), RateLimited)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attempts": 0}, "attempts must be an int of at least 1, not 0"),
        ({"attempts": True}, "attempts must be an int of at least 1, not True"),
        ({"attempts": "3"}, "attempts must be an int of at least 1, not '3'"),
        ({"wait": (-0.1, 1)}, "wait must be two finite numbers of seconds, 0 or more, not (-0.1, 1)"),
        ({"wait": (1, math.inf)}, "wait must be two finite numbers of seconds, 0 or more, not (1, inf)"),
        (
            {"wait_rate_limited": (1, -0.1)},
            "wait_rate_limited must be two finite numbers of seconds, 0 or more, not (1, -0.1)",
        ),
        (
            {"wait_rate_limited": (math.inf, 1)},
            "wait_rate_limited must be two finite numbers of seconds, 0 or more, not (inf, 1)",
        ),
        ({"total": -0.1}, "total and budget must be 0 or more, not -0.1 and 500.0"),
        ({"budget": -0.1}, "total and budget must be 0 or more, not 25.0 and -0.1"),
    ],
    ids=repr,
)
def test_a_policy_that_cannot_be_says_why(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        RetryPolicy(**options)


def test_a_policy_at_the_edges() -> None:
    """Zeros and no end are taken; waits given as lists are kept as tuples, so that a policy can be hashed."""
    lists: Any = [0.5, 2]
    policy = RetryPolicy(attempts=1, wait=(0, 0), wait_rate_limited=lists, total=0, budget=0)
    assert (policy.wait, policy.wait_rate_limited) == ((0, 0), (0.5, 2))
    assert hash(policy) == hash(RetryPolicy(1, (0, 0), (0.5, 2), 0, 0))
    assert RetryPolicy(total=math.inf, budget=math.inf).total == math.inf
    assert RetryPolicy(wait=lists).wait == (0.5, 2)


def test_a_refusal_that_outlasts_the_total_is_not_retried() -> None:
    """The wait counts, too; and what is not retried leaves the budget as it was."""
    budget = RetryBudget(1, 0.0)
    policy = RetryPolicy(wait=(0, 0), total=5.0)
    assert not Failing(policy, took=5.0, budget=budget).retried(BUSY)
    assert not Failing(policy, repeatable=False, budget=budget).retried(BUSY)
    assert Failing(policy, took=4.0, budget=budget).retried(BUSY)


def test_a_refused_signature_is_retried_once_also_when_the_first_retry_was_for_it() -> None:
    """What came before it may have been retried already."""
    call = Failing(AT_ONCE)
    assert [call.retried(classify(code)) for code in (10002, 70001, 10002, 70001)] == [True, True, True, False]
