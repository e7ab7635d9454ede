"""The retry policy and the retry budget, with a simulated clock."""

from __future__ import annotations

import copy
import math
import pickle
import re
from typing import Any

import pytest

from tim_async import RetryPolicy, TIMError
from tim_async.errors import Reaction, classify
from tim_async.retrying import RetryBudget, wait_before_retry

# test_faults.py tests their effects through the client; the bounds of random waits need many draws.


class Failing:
    """A call that keeps failing, with a clock that only its waits move."""

    def __init__(
        self, policy: RetryPolicy, *, repeatable: bool = True, budget: RetryBudget | None = None, took: float = 0.0
    ) -> None:
        self.now = 1000.0
        self.attempts = 0
        self.waits: list[float] = []
        self.opens_at = 0.0
        self._policy, self._repeatable = policy, repeatable
        self._budget = budget or RetryBudget(policy.budget, 20.0)
        self._signed_again = False
        self._started = self.now
        self.now += took

    def retried(self, failure: TIMError) -> bool:
        """Return whether another attempt follows this failure."""
        self.attempts += 1
        wait = wait_before_retry(
            self._policy,
            failure,
            attempts=self.attempts,
            elapsed=self.now - self._started,
            paused=self.opens_at - self._started,
            repeatable=self._repeatable,
            signed_again=self._signed_again,
        )
        if wait is None or not self._budget.spend(self.now):
            return False
        self._signed_again |= failure.reaction is Reaction.SIGN_AGAIN
        self.waits.append(wait)
        self.now += wait
        return True


BUSY = classify(10002)
AT_ONCE = RetryPolicy(wait=(0, 0), wait_rate_limited=(0, 0))


def test_waits_have_full_jitter_and_double_up_to_the_most() -> None:
    """The n-th wait is random, between 0 and min(most, first * 2**(n-1))."""
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


def test_a_refusal_for_the_rate_has_its_own_waits() -> None:
    """Explicit waits of 0 are honoured, for transient failures, too."""
    call = Failing(RetryPolicy(wait=(0, 0), wait_rate_limited=(1.0, 1.0)))
    assert all(call.retried(classify(code)) for code in (60007, 10002, 60011))
    assert call.waits[1] == 0.0
    assert all(0 < wait <= 1.0 for wait in (call.waits[0], call.waits[2]))
    call = Failing(RetryPolicy(wait=(1.0, 1.0), wait_rate_limited=(0, 0)))
    assert all(call.retried(classify(code)) for code in (60007, 10002))
    assert call.waits[0] == 0.0 < call.waits[1]


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_policy_counts_the_first_attempt(attempts: int) -> None:
    """attempts=3 allows two retries; attempts=1 allows none."""
    call = Failing(RetryPolicy(attempts=attempts, wait=(0, 0)))
    assert [call.retried(BUSY) for _ in range(attempts)] == [True] * (attempts - 1) + [False]


def test_no_retry_starts_after_the_total() -> None:
    """The total includes the first attempt, and the rest of a pause of the endpoint."""
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


def test_a_rejected_usersig_is_retried_once_without_a_wait() -> None:
    """Also after and before another retry."""
    call = Failing(RetryPolicy(wait=(1.0, 1.0)))
    assert [call.retried(classify(code)) for code in (10002, 70001, 10002, 70052)] == [True, True, True, False]
    assert call.waits[1] == 0.0


def test_calls_share_the_budget() -> None:
    budget = RetryBudget(2, 0.0)
    first, second = Failing(AT_ONCE, budget=budget), Failing(AT_ONCE, budget=budget)
    assert [first.retried(BUSY) for _ in range(3)] == [True, True, False]
    assert not second.retried(BUSY)


def test_the_budget_is_refilled_by_time_up_to_its_size() -> None:
    budget = RetryBudget(3, 2.0)
    assert [budget.spend(100.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.spend(100.4)
    assert [budget.spend(100.5) for _ in range(2)] == [True, False]
    assert [budget.spend(1e6) for _ in range(4)] == [True, True, True, False]


def test_the_budget_is_refilled_by_success_up_to_its_size() -> None:
    """Two successes give one retry."""
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
    """Neither time nor success refills it."""
    budget = RetryBudget(0, 100.0)
    budget.succeeded()
    assert not budget.spend(1e9)


def test_a_clock_that_stops_or_goes_back_refills_nothing() -> None:
    """Each span of time counts once."""
    budget = RetryBudget(1, 1.0)
    assert budget.spend(100.0)
    assert not budget.spend(50.0)
    assert not budget.spend(100.0)
    assert budget.spend(101.0)


def test_a_policy_is_a_plain_value() -> None:
    """It compares, pickles, copies and is immutable."""
    policy = RetryPolicy(attempts=3, wait=(0, 1))
    assert pickle.loads(pickle.dumps(policy)) == copy.copy(policy) == policy
    with pytest.raises(AttributeError):
        policy.attempts = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attempts": 0}, "attempts must be an int of at least 1, not 0"),
        ({"attempts": True}, "attempts must be an int of at least 1, not True"),
        ({"attempts": 2.5}, "attempts must be an int of at least 1, not 2.5"),
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
        (
            {"wait_rate_limited": (1, math.nan)},
            "wait_rate_limited must be two finite numbers of seconds, 0 or more, not (1, nan)",
        ),
        ({"wait": 1}, "wait must be two finite numbers of seconds, 0 or more, not 1"),
        ({"wait": (1,)}, "wait must be two finite numbers of seconds, 0 or more, not (1,)"),
        ({"wait": ("1", 2)}, "wait must be two finite numbers of seconds, 0 or more, not ('1', 2)"),
        ({"total": None}, "total and budget must be 0 or more, not None and 500.0"),
        ({"total": math.nan}, "total and budget must be 0 or more, not nan and 500.0"),
        ({"budget": math.nan}, "total and budget must be 0 or more, not 25.0 and nan"),
        ({"budget": "5"}, "total and budget must be 0 or more, not 25.0 and '5'"),
        ({"total": -0.1}, "total and budget must be 0 or more, not -0.1 and 500.0"),
        ({"budget": -0.1}, "total and budget must be 0 or more, not 25.0 and -0.1"),
    ],
    ids=repr,
)
def test_a_bad_policy_is_rejected_with_the_reason(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        RetryPolicy(**options)


def test_the_limits_of_a_policy_are_accepted() -> None:
    """Zeros and infinity; waits given as lists become tuples, so that the policy can be hashed."""
    lists: Any = [0.5, 2]
    policy = RetryPolicy(attempts=1, wait=(0, 0), wait_rate_limited=lists, total=0, budget=0)
    assert (policy.wait, policy.wait_rate_limited) == ((0, 0), (0.5, 2))
    assert hash(policy) == hash(RetryPolicy(1, (0, 0), (0.5, 2), 0, 0))
    assert RetryPolicy(total=math.inf, budget=math.inf).total == math.inf
    assert RetryPolicy(wait=lists).wait == (0.5, 2)


def test_a_failure_without_a_retry_spends_no_budget() -> None:
    """It is the last attempt, beyond the total or not repeatable."""
    budget = RetryBudget(1, 0.0)
    policy = RetryPolicy(wait=(0, 0), total=5.0)
    assert not Failing(RetryPolicy(attempts=1), budget=budget).retried(BUSY)
    assert not Failing(policy, took=5.0, budget=budget).retried(BUSY)
    assert not Failing(policy, repeatable=False, budget=budget).retried(BUSY)
    assert Failing(policy, took=4.0, budget=budget).retried(BUSY)
