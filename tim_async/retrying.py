"""Retries: the policy, the budget of an endpoint, and the decision whether and when to retry a failed call.

Users need `RetryPolicy` only, for ``TIMClient(retry=RetryPolicy(…))`` or, for some calls, ``with_options(retry=…)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import Reaction, TIMError

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The retry policy for transient failures.

    Waits have full jitter: the n-th is a random number between 0 and ``min(most, first * 2**(n-1))`` seconds.

    Attributes:
        attempts: the maximum number of requests for one call, including the first; 1 disables retries.
        wait: (first, most) seconds after a transient failure: 10002 and similar codes, HTTP 5xx, time-outs, lost
            connections.
        wait_rate_limited: (first, most) seconds after a refusal because of the rate; the endpoint also slows down.
        total: seconds from a call's first request within which its last retry starts.
        budget: retries that an endpoint may make in addition to those that it regains (half a retry for each success,
            and a tenth of its rate each second).  When the budget is spent, the original error is raised at once:
            eight attempts by every client would not help a service in trouble.

    Raises:
        ValueError: an attribute out of range.
    """

    attempts: int = 8
    wait: tuple[float, float] = (0.1, 2.0)
    wait_rate_limited: tuple[float, float] = (1.0, 5.0)
    total: float = 25.0
    budget: float = 500.0

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise ValueError(f"attempts must be an int of at least 1, not {self.attempts!r}")
        for name in ("wait", "wait_rate_limited"):
            waits = getattr(self, name)
            pair = tuple(waits) if isinstance(waits, list | tuple) else ()
            if len(pair) != 2 or not all(_not_negative(wait) and wait < math.inf for wait in pair):
                raise ValueError(f"{name} must be two finite numbers of seconds, 0 or more, not {waits!r}")
            object.__setattr__(self, name, pair)  # a tuple even if given a list, so that a policy is hashable
        if not (_not_negative(self.total) and _not_negative(self.budget)):
            raise ValueError(f"total and budget must be 0 or more, not {self.total!r} and {self.budget!r}")


def _not_negative(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


class RetryBudget:
    """The retries that one endpoint may make: spent one by one, refilled by success and by time.

    Args:
        size: the maximum of retries that it holds, and the number that it starts with.
        per_second: retries refilled per second.

    Attributes:
        per_second: as given; it may be changed.
    """

    PER_SUCCESS = 0.5
    """Retries refilled by each successful call."""

    def __init__(self, size: float, per_second: float) -> None:
        self._size = self._left = size
        self.per_second: float = per_second
        self._at = 0.0

    def spend(self, now: float) -> bool:
        """Take one retry at the monotonic time ``now``; return False if none is left."""
        if now > self._at:
            self._left = min(self._size, self._left + (now - self._at) * self.per_second)
            self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def succeeded(self) -> None:
        """Refill the budget after a successful call."""
        self._left = min(self._size, self._left + self.PER_SUCCESS)


def wait_before_retry(
    policy: RetryPolicy,
    failure: TIMError,
    *,
    attempts: int,
    elapsed: float,
    paused: float,
    repeatable: bool,
    signed_again: bool,
) -> float | None:
    """Return the seconds to wait before the next attempt of a call, as tenacity computes them.

    Args:
        policy: the retry policy.
        failure: the last attempt's error.
        attempts: attempts made so far, at least 1.
        elapsed: seconds from the call's first request to now.
        paused: seconds from the call's first request to the end of the endpoint's pause.
        repeatable: whether the call may be repeated if its outcome is unknown.
        signed_again: whether a retry of this call had a new UserSig because of its refusal.

    Returns:
        Seconds; None if another attempt cannot help, or could do harm.
    """
    # Imported at the first failure, so that programs start faster.
    from tenacity import RetryCallState, Retrying, stop_after_attempt, stop_before_delay, wait_random_exponential

    if failure.reaction is Reaction.GIVE_UP or (failure.outcome_unknown and not repeatable):
        return None
    if failure.reaction is Reaction.SIGN_AGAIN and signed_again:
        return None
    if paused > policy.total:  # it ends too late for another attempt
        return None
    waits = {Reaction.SIGN_AGAIN: (0.0, 0.0), Reaction.SLOW_DOWN: policy.wait_rate_limited}
    first, most = waits.get(failure.reaction, policy.wait)
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempts
    state.start_time, state.outcome_timestamp = 0.0, elapsed
    state.upcoming_sleep = wait_random_exponential(multiplier=first, max=most)(state)
    stop = stop_after_attempt(policy.attempts) | stop_before_delay(policy.total)
    return None if stop(state) else state.upcoming_sleep
